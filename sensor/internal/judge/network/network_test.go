package network

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/rules/judgement"
)

// folder writes lists to a folder.
func folder(t testing.TB, lists map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range lists {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func packs(lists map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range lists {
		fsys["pack/networks/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func load(t testing.TB, o Options) *Lookup {
	t.Helper()
	tables, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return tables.NewLookup()
}

// between is a handshake between two addresses; the client's packet came second.
func between(client, server string) *event.Handshake {
	var a, b netip.Addr
	if client != "" {
		a = netip.MustParseAddr(client)
	}
	if server != "" {
		b = netip.MustParseAddr(server)
	}
	return &event.Handshake{Client: 1, Flow: &event.Flow{Endpoints: [2]event.Endpoint{{Addr: b}, {Addr: a}}}}
}

// tell is a place as a line of text.
func tell(p *judgement.Place) string {
	if p == nil {
		return "nil"
	}
	var parts []string
	if len(p.Networks) > 0 {
		parts = append(parts, strings.Join(p.Networks, ","))
	}
	for _, l := range p.Labels {
		parts = append(parts, l.Key+"="+l.Value)
	}
	if p.ASN != 0 || p.ASOrg != "" {
		parts = append(parts, fmt.Sprintf("AS%d %s", p.ASN, p.ASOrg))
	}
	return strings.Join(append(parts, p.Country)[:len(parts)+min(len(p.Country), 1)], " ")
}

func TestPlaces(t *testing.T) {
	asn := mmdb{v6: true, size: 28, networks: []mmdbNetwork{
		{"0.0.0.0/1", map[string]any{"autonomous_system_number": uint32(64500), "autonomous_system_organization": "Low"}},
		{"13.64.0.0/11", map[string]any{"autonomous_system_number": uint32(8075), "autonomous_system_organization": "MICROSOFT-CORP"}},
		{"2603:1000::/24", map[string]any{"autonomous_system_number": uint32(8075)}},
	}}
	country := mmdb{size: 24, networks: []mmdbNetwork{
		{"13.0.0.0/8", map[string]any{"country": map[string]any{"iso_code": "US", "names": map[string]any{"en": "United States"}}}},
		{"14.0.0.0/8", map[string]any{"country_code": "JP", "autonomous_system_number": uint16(7), "autonomous_system_organization": "Seven"}},
	}}
	l := load(t, Options{
		Packs: packs(map[string]string{
			"microsoft.txt": "\uFEFF# of a pack\n13.64.0.0/11\r\n10.0.0.0/8\n2603:1000::/24 # more\n",
			"cdn.txt":       "13.65.0.0/16\n",
		}),
		Lists: []string{folder(t, map[string]string{
			"internal.txt":      "10.0.0.0/8\tsite=berlin customer=acme\n10.1.0.0/16 site=bonn\n2001:db8::/32\n10.1.2.3 host=x#y # a comment\n192.168.0.0/16",
			"sub/microsoft.txt": "10.1.2.0/24\n::ffff:198.51.100.0/120\n",
			".hidden/bad.txt":   "what is this",
			"README":            "not a list",
		}), write(t, "proxies.list", []byte("10.9.9.9\n"))},
		Databases: []string{write(t, "asn.mmdb", asn.bytes()), write(t, "country.mmdb", country.bytes())},
	})
	for _, c := range []struct{ address, want string }{
		{"13.65.1.2", "cdn,microsoft AS8075 MICROSOFT-CORP US"},
		{"::ffff:13.65.1.2", "cdn,microsoft AS8075 MICROSOFT-CORP US"},
		{"64:ff9b::13.65.1.2", "cdn,microsoft AS8075 MICROSOFT-CORP US"}, // NAT64
		{"64:ff9b::10.1.2.3", ""},
		{"13.95.255.255", "microsoft AS8075 MICROSOFT-CORP US"},
		{"13.96.0.0", "AS64500 Low US"},
		{"14.1.1.1", "AS64500 Low JP"}, // the first database has the number, and another's name does not go with it
		{"2603:10ff::1", "microsoft AS8075 "},
		{"2603:1100::1", ""},
		{"10.0.0.1", "internal customer=acme site=berlin"}, // neither the pack's list nor the database
		{"10.1.0.1", "internal customer=acme site=bonn"},   // the narrower network's label
		{"10.1.2.3", "internal,microsoft customer=acme host=x#y site=bonn"},
		{"10.1.2.4", "internal,microsoft customer=acme site=bonn"},
		{"10.1.3.0", "internal customer=acme site=bonn"},
		{"10.255.255.255", "internal customer=acme site=berlin"},
		{"11.0.0.0", "AS64500 Low"},
		{"10.9.9.9", "internal,proxies customer=acme site=berlin"},
		{"198.51.100.77", "microsoft"},
		{"2001:db8::1%eth0", "internal"},
		{"200.1.1.1", ""},
		{"255.255.255.255", ""},
		{"::", ""},
	} {
		got, _, _ := l.Places(between(c.address, ""))
		if text := tell(got); text != c.want {
			t.Errorf("%s: %q, want %q", c.address, text, c.want)
		}
		if _, again, _ := l.Places(between("", c.address)); got != again {
			t.Errorf("%s: another place the second time", c.address)
		}
	}
	for _, c := range []struct {
		client, server string
		want           judgement.Direction
	}{
		{"10.0.0.1", "13.64.0.1", judgement.Outbound},
		{"13.64.0.1", "10.0.0.1", judgement.Inbound},
		{"10.0.0.1", "2001:db8::1", judgement.Internal},
		{"1.1.1.1", "2.2.2.2", judgement.External},
		{"10.0.0.1", "", judgement.DirectionUnknown},
	} {
		if _, _, got := l.Places(between(c.client, c.server)); got != c.want {
			t.Errorf("from %s to %s: %q, want %q", c.client, c.server, got, c.want)
		}
	}
	if want := []string{"cdn", "internal", "microsoft", "proxies"}; !slices.Equal(l.t.Networks(), want) || !l.t.Configured() {
		t.Errorf("networks %q, configured %v", l.t.Networks(), l.t.Configured())
	}
}

// TestNothing has neither the operator's lists nor any at all.
func TestNothing(t *testing.T) {
	for _, o := range []Options{{}, {Packs: packs(map[string]string{"microsoft.txt": "13.64.0.0/11"})}} {
		l := load(t, o)
		if l.t.Configured() {
			t.Error("configured")
		}
		client, server, d := l.Places(between("192.0.2.1", "13.64.0.1"))
		if tell(client) != "" || len(server.Networks) != len(l.t.Networks()) || d != judgement.DirectionUnknown {
			t.Errorf("client %v, server %v, direction %q", client, server, d)
		}
		if client, server, d = l.Places(between("", "")); client != nil || server != nil || d != judgement.DirectionUnknown {
			t.Errorf("without addresses: %v, %v, %q", client, server, d)
		}
	}
}

// TestBuiltin asks for servers that showed a genuine chain of Windows Update in
// public captures, and for some that are not Microsoft's.
func TestBuiltin(t *testing.T) {
	l := load(t, Options{Packs: rules.Builtin().FS})
	for address, want := range map[string]string{
		"191.232.80.58": "microsoft", "23.103.189.126": "microsoft", "134.170.58.189": "microsoft", "2603:1030::1": "microsoft",
		"8.8.8.8": "", "23.206.229.1": "", "192.168.1.1": "", "2a00:1450:4001::1": "",
	} {
		if _, got, _ := l.Places(between("192.0.2.1", address)); tell(got) != want {
			t.Errorf("%s: %q, want %q", address, tell(got), want)
		}
	}
	text, err := fs.ReadFile(rules.Builtin().FS, "microsoft-update/networks/microsoft.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"routeviews.org", "db-ip.com", "CC BY 4.0"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the list does not name %s", want)
		}
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			n++
		}
	}
	if !strings.Contains(string(text), fmt.Sprintf("# %d networks", n)) {
		t.Errorf("%d networks, and the header has another number", n)
	}
}

// TestAgainstPrefixes asks random lists, and looks at each prefix for the answer.
func TestAgainstPrefixes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(v4 bool) netip.Addr { // few bits vary, so that networks overlap
		if v4 {
			return netip.AddrFrom4([4]byte{byte(9 + r.IntN(2)), byte(r.IntN(3) * 127), byte(r.IntN(2) * 255), byte(r.IntN(4) * 85)})
		}
		var b [16]byte
		for i := range b {
			b[i] = []byte{0, 0x20, 0xff}[r.IntN(3)]
		}
		return netip.AddrFrom16(b)
	}
	for round := range 60 {
		type line struct {
			prefix netip.Prefix
			list   string
			label  string
		}
		var lines []line
		texts := map[string]string{}
		seen := map[netip.Prefix]bool{}
		for range r.IntN(80) {
			a := random(r.IntN(2) == 0)
			p, err := a.Prefix(r.IntN(a.BitLen() + 1))
			if err != nil {
				t.Fatal(err)
			}
			l := line{p, string(rune('a' + r.IntN(4))), ""}
			text := p.String()
			if !seen[p] && r.IntN(2) == 0 {
				l.label = fmt.Sprint(r.IntN(5))
				text += " label=" + l.label
			}
			if seen[p] = true; a.Is4() && r.IntN(4) == 0 {
				text = strings.Replace(text, p.String(), fmt.Sprintf("::ffff:%s/%d", p.Addr(), 96+p.Bits()), 1)
			}
			lines = append(lines, l)
			texts[l.list+".txt"] += text + "\n"
		}
		if len(lines) == 0 {
			continue
		}
		l := load(t, Options{Lists: []string{folder(t, texts)}})
		ask := func(a netip.Addr) {
			if a.Is4In6() {
				return // of IPv4
			}
			var want judgement.Place
			widest, label := -1, ""
			for _, line := range lines {
				if !line.prefix.Contains(a) {
					continue
				}
				want.Networks = append(want.Networks, line.list)
				if line.label != "" && line.prefix.Bits() > widest {
					widest, label = line.prefix.Bits(), line.label
				}
			}
			slices.Sort(want.Networks)
			want.Networks = slices.Compact(want.Networks)
			if label != "" {
				want.Labels = []judgement.Label{{Key: "label", Value: label}}
			}
			got, _, _ := l.Places(between(a.String(), "::1"))
			if tell(got) != tell(&want) {
				t.Fatalf("round %d: %s: %s, want %s; lists:\n%v", round, a, tell(got), tell(&want), texts)
			}
		}
		for _, line := range lines { // the edges of each network
			first, last := line.prefix.Addr(), numberOf(line.prefix.Addr())
			e := entry{first: last, host: uint8(first.BitLen() - line.prefix.Bits())}
			last = e.last()
			ask(first)
			if first.Prev().IsValid() {
				ask(first.Prev())
			}
			end := addressOf(last, first.Is4())
			ask(end)
			if end.Next().IsValid() {
				ask(end.Next())
			}
		}
		for range 300 {
			ask(random(r.IntN(2) == 0))
		}
	}
}

func addressOf(n number, v4 bool) netip.Addr {
	var b [16]byte
	for i := range 8 {
		b[i], b[8+i] = byte(n.hi>>(56-8*i)), byte(n.lo>>(56-8*i))
	}
	if v4 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}

func TestProblems(t *testing.T) {
	labels := make([]string, maxLabels)
	for i := range labels {
		labels[i] = fmt.Sprintf("l%d=x", i)
	}
	for _, c := range []struct{ name, text, want string }{
		{"a.txt", "10.0.0.0/8\n10.0.0.1/8 x=1\n300.1.1.1\nhost\n10.0.0.0/33\nfe80::1%eth0\n::/0\n::ffff:0:0/95\n", `a.txt:2:1: "10.0.0.1/8": is an address within a network: the network is 10.0.0.0/8
a.txt:3:1: "300.1.1.1": is no network, such as 10.1.0.0/16 or 2001:db8::/32, and no address
a.txt:4:1: "host": is no network, such as 10.1.0.0/16 or 2001:db8::/32, and no address
a.txt:5:1: "10.0.0.0/33": is no network, such as 10.1.0.0/16 or 2001:db8::/32, and no address
a.txt:6:1: "fe80::1%eth0": has a zone: lists are of addresses
a.txt:8:1: "::ffff:0:0/95": is wider than all of IPv4`},
		{"a.txt", "  10.0.0.1 site\n1.1.1.1 a.b=1\n1.1.1.1 a=1 b=2 a=3\n1.1.1.1 a=\n1.1.1.1 " + strings.Join(labels, " ") + " more=1", `a.txt:1:12: "site": is not a label, such as site=berlin
a.txt:2:9: "a.b": the name of a label has up to 64 letters, digits, - and _
a.txt:3:17: "a=3": the label is given twice
a.txt:4:9: "a=": the value of a label has 1 to 256 bytes and no control characters
a.txt:5:191: "more=1": a network has up to 32 labels`},
		{"a.txt", "10.0.0.0/8 zone=b\n10.0.0.0/8 site=a zone=b\n10.0.0.0/8 site=c\n", `a.txt:3:1: the same network has the label site=a, see a.txt:2`},
		{"a.txt", "10.0.0.0/8 " + strings.Join(labels, " ") + "\n10.1.0.0/16 more=1\n10.2.0.0/16 l1=y\n", `a.txt:2:1: with those of wider networks, the network has more than 32 labels`},
		{"a.txt", "# nothing\n\n", "a.txt: the list is empty"},
		{"a.txt", "", "a.txt: the list is empty"},
		{"a.txt", "10.0.0.0/8\n\x00\x01\x02\n", "a.txt:2:1: is not text: a list has one network a line"},
		{"a.txt", "10.0.0.0/8\n" + strings.Repeat("x", maxListLine+1), "a.txt:2:1: a line may have 16384 bytes"},
		{"a b.txt", "10.0.0.0/8\n", "a b.txt: the name of a list, which is that of its file, has up to 64 letters, digits, ., - and _"},
		{strings.Repeat("a", 65) + ".txt", "10.0.0.0/8\n", strings.Repeat("a", 65) + ".txt: the name of a list, which is that of its file, has up to 64 letters, digits, ., - and _"},
		{"a.md", "10.0.0.0/8\n", ": the folder holds no lists: their names end in .txt"},
	} {
		dir := folder(t, map[string]string{c.name: c.text})
		_, err := Load(Options{Lists: []string{dir}})
		if err == nil {
			t.Errorf("%q: no error", c.text)
			continue
		}
		got := strings.ReplaceAll(strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), ""), dir, "")
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%.100q: (-want +got)\n%s", c.text, diff)
		}
	}

	// What is wrong in packs, lists and databases is told at once.
	_, err := Load(Options{
		Packs: packs(map[string]string{"internal.txt": "10.0.0.0/8", "labels.txt": "1.1.1.1 a=b", "proxies.txt": "10.0.0.0/8"}),
		Lists: []string{"missing.txt", folder(t, map[string]string{"x.txt": strings.Repeat("x\n", 1000)})}, Databases: []string{"missing.mmdb", t.TempDir()},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"packs/pack/networks/internal.txt: internal is a list of the operator's\n", "packs/pack/networks/proxies.txt: proxies is a list of the operator's\n",
		`packs/pack/networks/labels.txt:1:9: "a=b": labels are for the operator's lists` + "\n", "missing.txt: stat: ", "missing.mmdb: stat: ", ": is a folder: give the database in it\n",
	} {
		if !strings.Contains(err.Error()+"\n", want) {
			t.Errorf("%q is not in:\n%.2000s", want, err)
		}
	}
	if n := strings.Count(err.Error(), "x.txt:"); n != maxProblems {
		t.Errorf("%d problems of one file", n)
	}
}

// TestHuge has a sparse file of 2 GB for a list and for a database.
func TestHuge(t *testing.T) {
	file := write(t, "a.txt", nil)
	if err := os.Truncate(file, 2<<30); err != nil {
		t.Skip(err)
	}
	_, err := Load(Options{Lists: []string{file}, Databases: []string{file}})
	if err == nil || !strings.Contains(err.Error(), "a.txt: has 2147483648 bytes; a list may have 268435456") ||
		!strings.Contains(err.Error(), "a.txt: has 2147483648 bytes; all databases together may have 1073741824") {
		t.Error(err)
	}
}

// TestPipe has a device where a file should be.
func TestPipe(t *testing.T) {
	if _, err := os.Stat(os.DevNull); err != nil {
		t.Skip(err)
	}
	_, err := Load(Options{Lists: []string{os.DevNull}, Databases: []string{os.DevNull}})
	if err == nil || strings.Count(err.Error(), os.DevNull+": is no regular file") != 2 {
		t.Error(err)
	}
}

// TestConcurrent has two goroutines ask the same tables.
func TestConcurrent(t *testing.T) {
	db := mmdb{v6: true, size: 32, networks: []mmdbNetwork{{"0.0.0.0/1", map[string]any{"country_code": "US", "country": map[string]any{}}}}}
	tables, err := Load(Options{Lists: []string{folder(t, map[string]string{"a.txt": "1.0.0.0/8 x=y"})}, Databases: []string{write(t, "a.mmdb", db.bytes())}})
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			l := tables.NewLookup()
			h := between("1.1.1.1", "::1")
			for i := range 2000 {
				h.Flow.Endpoints[1].Addr = netip.AddrFrom4([4]byte{byte(i%4 + 1), byte(i), 1, byte(i >> 8)})
				want := "US"
				if i%4 == 0 {
					want = "a x=y US"
				}
				if got, _, _ := l.Places(h); tell(got) != want {
					t.Errorf("%q, want %q", tell(got), want)
				}
			}
		})
	}
	wait.Wait()
}

func TestManyNetworks(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 50_000
	}
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d.%d.%d.%d\n", 1+i>>16, i>>8&255, i&255, i&127*2)
	}
	file := write(t, "many.txt", []byte(b.String()))
	b.Reset()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	l := load(t, Options{Lists: []string{file}})
	runtime.GC()
	runtime.ReadMemStats(&after)
	if size, held := l.t.Size(), int64(after.HeapAlloc)-int64(before.HeapAlloc); n > 100_000 && (size < held*9/10 || size > held*11/10) {
		t.Errorf("the tables say that they hold %d bytes, and hold %d", size, held)
	}
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / int64(n)
	if each > 50 {
		t.Errorf("each network takes %d bytes", each)
	}
	if p, _, _ := l.Places(between("1.0.1.2", "::")); tell(p) != "many" {
		t.Errorf("1.0.1.2: %s", tell(p))
	}
	if p, _, _ := l.Places(between("1.0.1.3", "::")); tell(p) != "" {
		t.Errorf("1.0.1.3: %s", tell(p))
	}
}

// TestSameNetwork has one network in very many lines, which costs no more than that.
func TestSameNetwork(t *testing.T) {
	text := strings.Repeat("10.0.0.0/8 site=a\n", 200_000)
	if p, _, _ := load(t, Options{Lists: []string{write(t, "a.txt", []byte(text))}}).Places(between("10.0.0.1", "")); tell(p) != "a site=a" {
		t.Errorf("%s", tell(p))
	}
	text += strings.Repeat("10.0.0.0/8 site=b\n", 100_000)
	if _, err := Load(Options{Lists: []string{write(t, "a.txt", []byte(text))}}); err == nil || strings.Count(err.Error(), "see ") != maxProblems {
		t.Errorf("%.300v", err)
	}
}

// TestManySets has more combinations of labels than are kept.
func TestManySets(t *testing.T) {
	var b strings.Builder
	wide := "0.0.0.0/0"
	for i := range maxLabels - 1 {
		wide += fmt.Sprintf(" l%d=x", i)
	}
	b.WriteString(wide + "\n")
	for i := range maxSetItems / maxLabels {
		fmt.Fprintf(&b, "%d.%d.%d.0/24 own=%d\n", 1+i>>16, i>>8&255, i&255, i)
	}
	_, err := Load(Options{Lists: []string{write(t, "a.txt", []byte(b.String()))}})
	if err == nil || !strings.Contains(err.Error(), "too many combinations") || strings.Count(err.Error(), "\n") >= maxProblems {
		t.Errorf("%.300v", err)
	}
}

func TestAllocations(t *testing.T) {
	db := mmdb{v6: true, size: 32, networks: []mmdbNetwork{{"0.0.0.0/1", map[string]any{"country_code": "US"}}}}
	l := load(t, Options{
		Packs:     packs(map[string]string{"microsoft.txt": "13.64.0.0/11"}),
		Lists:     []string{folder(t, map[string]string{"internal.txt": "10.0.0.0/8 site=berlin"})},
		Databases: []string{write(t, "a.mmdb", db.bytes())},
	})
	h := between("10.0.0.1", "13.64.0.1")
	l.Places(h)
	if n := testing.AllocsPerRun(100, func() { l.Places(h) }); n > 0 {
		t.Errorf("for addresses that are known: %v allocations", n)
	}
	// Always new addresses, of which the same is known.
	for i := range 4 * knownAddresses {
		h.Flow.Endpoints[0].Addr = netip.AddrFrom4([4]byte{13, 64, byte(i >> 8), byte(i)})
		l.Places(h)
	}
	i := 0
	if n := testing.AllocsPerRun(4*knownAddresses, func() {
		i++
		h.Flow.Endpoints[0].Addr = netip.AddrFrom4([4]byte{13, 65 + byte(i>>16), byte(i >> 8), byte(i)})
		l.Places(h)
	}); n > 0 {
		t.Errorf("for new addresses: %v allocations", n)
	}
	if n := l.known.Len(); n > knownAddresses {
		t.Errorf("%d addresses are remembered", n)
	}
	if n := l.places.Len(); n > 3 {
		t.Errorf("%d places", n)
	}
}

func BenchmarkPlaces(b *testing.B) {
	db := mmdb{v6: true, size: 32, networks: []mmdbNetwork{{"0.0.0.0/1", map[string]any{"country_code": "US"}}}}
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "%d.%d.%d.0/24\n", 1+i>>16, i>>8&255, i&255)
	}
	l := load(b, Options{Packs: packs(map[string]string{"many.txt": text.String()}), Databases: []string{write(b, "a.mmdb", db.bytes())}})
	for _, many := range []int{100, 1 << 20} {
		h := between("10.0.0.1", "13.64.0.1")
		b.Run(fmt.Sprint(many, " addresses"), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 1) % many
				h.Flow.Endpoints[0].Addr = netip.AddrFrom4([4]byte{1, byte(i >> 16), byte(i >> 8), byte(i)})
				l.Places(h)
			}
		})
	}
}
