package network

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/rules/judgement"
)

// TestDatabaseFormats has random databases of each form, and looks at each of their
// networks for the answer.
func TestDatabaseFormats(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, size := range []uint{24, 28, 32} {
		for _, v6 := range []bool{false, true} {
			m := mmdb{v6: v6, size: size}
			var prefixes []netip.Prefix
			for i := range 200 { // in blocks that have nothing in common
				a := netip.AddrFrom4([4]byte{byte(20 + i/2), byte(i % 2 << 7), byte(r.Uint32()), byte(r.Uint32())})
				if v6 && i%3 == 0 {
					a = netip.AddrFrom16([16]byte{0x24, byte(i), 7: byte(r.Uint32()), 15: byte(r.Uint32())})
				}
				least := 10
				if a.Is6() {
					least = 17
				}
				p, err := a.Prefix(least + r.IntN(a.BitLen()-least+1))
				if err != nil {
					t.Fatal(err)
				}
				prefixes = append(prefixes, p)
				m.networks = append(m.networks, mmdbNetwork{p.String(), map[string]any{"autonomous_system_number": uint32(i + 1), "country": map[string]any{"iso_code": "NL"}}})
			}
			l := load(t, Options{Databases: []string{write(t, "a.mmdb", m.bytes())}})
			if !l.t.Configured() {
				t.Error("a database is no configuration")
			}
			for _, p := range prefixes {
				last := numberOf(p.Addr())
				last = (&entry{first: last, host: uint8(p.Addr().BitLen() - p.Bits())}).last()
				end := addressOf(last, p.Addr().Is4())
				for _, a := range []netip.Addr{p.Addr().Prev(), p.Addr(), end, end.Next()} {
					want := judgement.Place{}
					for i, p := range prefixes {
						if p.Contains(a) {
							want.ASN, want.Country = uint32(i+1), "NL"
						}
					}
					if got, _, _ := l.Places(between(a.String(), "")); tell(got) != tell(&want) {
						t.Errorf("%d bits, IPv6 %v: %s: %q, want %q", size, v6, a, tell(got), tell(&want))
					}
				}
			}
		}
	}
}

// TestDatabaseValues has records that are not as expected.
func TestDatabaseValues(t *testing.T) {
	type m = map[string]any
	records := []struct {
		value any
		want  string
	}{
		{m{"country_code": "DE", "autonomous_system_number": uint64(1 << 32)}, "DE"},
		{m{"country": "DE", "autonomous_system_number": "AS1", "autonomous_system_organization": uint32(1)}, ""},
		{m{"country": m{"iso_code": uint32(4)}, "autonomous_system_number": uint32(1<<32 - 1)}, "AS4294967295 "},
		{m{"country_code": "", "country": m{"iso_code": "FR"}}, "FR"},
		{m{"country_code": "de"}, ""},
		{m{"country_code": "D\n"}, ""},
		{m{"autonomous_system_organization": "Bad\xff", "autonomous_system_number": uint32(5)}, "AS5 Bad"},
		{m{"autonomous_system_organization": strings.Repeat("é", 500), "autonomous_system_number": uint32(5)}, "AS5 " + strings.Repeat("é", 128)},
		{m{}, ""},
		{"a text", ""},
		{[]any{"a", "b"}, ""},
	}
	db := mmdb{size: 28}
	for i, r := range records {
		db.networks = append(db.networks, mmdbNetwork{fmt.Sprintf("20.%d.0.0/16", i), r.value})
	}
	l := load(t, Options{Databases: []string{write(t, "a.mmdb", db.bytes())}})
	for i, r := range records {
		if got, _, _ := l.Places(between(fmt.Sprintf("20.%d.1.1", i), "")); tell(got) != r.want {
			t.Errorf("%v: %q, want %q", r.value, tell(got), r.want)
		}
	}
	if got, _, _ := l.Places(between("2400::1", "")); tell(got) != "" {
		t.Errorf("IPv6 in a database of IPv4: %q", tell(got))
	}
}

func TestDatabaseProblems(t *testing.T) {
	good := mmdb{size: 24, networks: []mmdbNetwork{{"20.0.0.0/8", map[string]any{"country_code": "DE"}}}}
	b := good.bytes()
	useless := good
	useless.networks = []mmdbNetwork{{"20.0.0.0/8", map[string]any{"is_proxy": uint16(1)}}}
	outside := bytes.Clone(b)
	copy(outside[3:], "\xff\xff\xff") // the right child of the first node
	separator := bytes.Clone(b)
	separator[5] += 3
	corrupt := mmdb{size: 24, networks: []mmdbNetwork{{"20.0.0.0/8", raw{7<<5 | 28, 2<<5 | 5, 'x'}}}}
	loop := mmdb{size: 24, networks: []mmdbNetwork{{"20.0.0.0/8", raw{1 << 5, 0}}}} // a pointer to itself
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"empty.mmdb", nil, "is no database in MaxMind's format"},
		{"text.mmdb", []byte("20.0.0.0/8\n"), "is no database in MaxMind's format"},
		{"cut.mmdb", b[:len(b)-60], "is no database in MaxMind's format, or a corrupt one"},
		{"end.mmdb", b[40:], "is no database in MaxMind's format, or a corrupt one"},
		{"useless.mmdb", useless.bytes(), "has neither countries nor autonomous systems"},
		{"outside.mmdb", outside, "is corrupt: its search tree leads out of the file"},
		{"separator.mmdb", separator, "is corrupt: its search tree leads out of the file"},
		{"corrupt.mmdb", corrupt.bytes(), "is corrupt: "},
		{"loop.mmdb", loop.bytes(), "is corrupt: "},
		{"version.mmdb", bytes.Replace(b, []byte("ip_version\xa2\x00\x04"), []byte("ip_version\xa2\x00\x05"), 1), "has a format that is not read: version 2, for IPv5"},
		{"record.mmdb", bytes.Replace(b, []byte("record_size\xa2\x00\x18"), []byte("record_size\xa2\x00\x10"), 1), "has a format that is not read: version 2, for IPv4, with 8 nodes of 2 times 16 bits"},
		{"GeoLite2.tar.gz", []byte("\x1f\x8b"), "is compressed: unpack it"},
	} {
		_, err := Load(Options{Databases: []string{write(t, c.name, c.b)}})
		if err == nil || !strings.Contains(err.Error(), c.name+": "+c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	many := make([]string, maxDatabases+1)
	for i := range many {
		many[i] = write(t, "a.mmdb", b)
	}
	if _, err := Load(Options{Databases: many}); err == nil || !strings.Contains(err.Error(), "there are more than 8 databases") {
		t.Error(err)
	}
}

// TestCorruptLater has a corrupt record where nobody looked when it was loaded.
func TestCorruptLater(t *testing.T) {
	db := mmdb{size: 24, networks: []mmdbNetwork{{"20.0.0.0/8", map[string]any{"country_code": "DE"}}}}
	l := load(t, Options{Databases: []string{write(t, "a.mmdb", db.bytes())}})
	if got, _, _ := l.Places(between("20.1.1.1", "")); tell(got) != "DE" {
		t.Errorf("%q", tell(got))
	}
	bad := key{records: [maxDatabases]uint32{1 << 20}}
	if got := l.t.place(&bad); tell(got) != "" {
		t.Errorf("%q", tell(got))
	}
}

// TestRealDatabases asks a real database what another reader has answered.
// ODDCERT_MMDB is its path, ODDCERT_MMDB_ANSWERS a file of lines "address country".
func TestRealDatabases(t *testing.T) {
	name, answers := os.Getenv("ODDCERT_MMDB"), os.Getenv("ODDCERT_MMDB_ANSWERS")
	if name == "" || answers == "" {
		t.Skip("ODDCERT_MMDB and ODDCERT_MMDB_ANSWERS name no database and answers to compare with")
	}
	l := load(t, Options{Databases: strings.Split(name, ",")})
	text, err := os.ReadFile(answers)
	if err != nil {
		t.Fatal(err)
	}
	known, unknown := 0, 0
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		want := ""
		if len(fields) > 1 {
			want = fields[1]
		}
		got, _, _ := l.Places(between(fields[0], ""))
		if special(netip.MustParseAddr(fields[0])) {
			want = ""
		}
		if got.Country != want {
			t.Errorf("%s: %q, want %q", fields[0], got.Country, want)
		}
		if want == "" {
			unknown++
		} else {
			known++
		}
	}
	t.Logf("%d addresses with a country, %d without", known, unknown)
}
