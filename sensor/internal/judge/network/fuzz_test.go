package network

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/oddcert/oddcert/rules/judgement"
)

// FuzzDatabase changes bytes of small databases: each is refused, or answers. Three
// bytes of edits are a place and what is there instead.
func FuzzDatabase(f *testing.F) {
	var bases [][]byte
	for _, size := range []uint{24, 28, 32} {
		m := mmdb{v6: size == 28, size: size, networks: []mmdbNetwork{
			{"20.0.0.0/8", map[string]any{"autonomous_system_number": uint32(64500), "autonomous_system_organization": "Example", "country_code": "DE"}},
			{"21.0.0.0/8", map[string]any{"country": map[string]any{"iso_code": "US", "names": map[string]any{"en": "United States"}}}},
		}}
		bases = append(bases, m.bytes())
		f.Add(byte(len(bases)-1), []byte{0, 1, 2, 1, 0, 0xff}, uint32(0x15000001))
		m.networks = append(m.networks, mmdbNetwork{"22.0.0.0/8", raw{1 << 5, 0}}, mmdbNetwork{"23.0.0.0/8", raw{7<<5 | 1, 1 << 5, 0, 1 << 5, 0}})
		bases = append(bases, m.bytes())
	}
	f.Fuzz(func(t *testing.T, base byte, edits []byte, at uint32) {
		b := bytes.Clone(bases[int(base)%len(bases)])
		for ; len(edits) >= 3; edits = edits[3:] {
			b[int(binary.BigEndian.Uint16(edits))%len(b)] = edits[2]
		}
		d, err := newDatabase(b)
		if err != nil {
			return
		}
		l := (&Tables{sets: newSets().all, databases: []database{d}}).NewLookup()
		var v4 [4]byte
		binary.BigEndian.PutUint32(v4[:], at)
		for _, a := range []netip.Addr{netip.AddrFrom4(v4), netip.MustParseAddr("20.1.1.1"), netip.MustParseAddr("2400::1"), netip.AddrFrom16([16]byte{0x20, 15: v4[0]})} {
			p := l.address(a).place
			if p == nil || len(p.ASOrg) > maxOrganisation || !utf8.ValidString(p.ASOrg) || len(p.Country) != 0 && len(p.Country) != 2 {
				t.Fatalf("%s: %+v", a, p)
			}
		}
	})
}

// FuzzList reads a list: it is refused with the place of what is wrong, or every
// line with a network has its addresses in the list.
func FuzzList(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8 site=a # b\n", "\uFEFF::ffff:10.0.0.0/104\r\n2001:db8::/32\ta=1 b=2\n", "0.0.0.0/0\n255.255.255.255\n::/0\n", "10.0.0.0/8 a=1\n10.0.0.0/8 a=2\n", "x#\n#\n"} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, text string, operators bool) {
		l := &loader{sets: newSets(), names: map[string]bool{}}
		fsys := fstest.MapFS{"a.txt": {Data: []byte(text)}}
		file, err := fsys.Open("a.txt")
		if err != nil {
			t.Fatal(err)
		}
		l.list(file, "a.txt", operators)
		lines := append([]entry(nil), l.entries[0]...)
		v4 := len(lines)
		lines = append(lines, l.entries[1]...)
		table := l.table(l.entries)
		rows := strings.Count(text, "\n") + 1
		for _, p := range l.problems {
			if p.file != "a.txt" || p.line > rows || p.line > 0 && p.col < 1 || p.text == "" {
				t.Fatalf("%+v", p)
			}
		}
		if len(l.problems) > 0 {
			return
		}
		for i, e := range lines {
			for _, n := range []number{e.first, e.last()} {
				s := l.sets.all[table.find(addressOf(n, i < v4))]
				if len(s.networks) != 1 || s.networks[0] != "a" || len(s.labels) > maxLabels {
					t.Fatalf("line %d: %+v", e.line, s)
				}
				for _, label := range s.labels {
					if !operators || !strings.Contains(text, label.Key+"="+label.Value) || label == (judgement.Label{}) {
						t.Fatalf("line %d: label %+v", e.line, label)
					}
				}
			}
		}
		for _, spans := range table {
			for i := range spans {
				if i > 0 && (!spans[i-1].first.less(spans[i].first) || spans[i-1].set == spans[i].set) {
					t.Fatalf("spans %v", spans)
				}
			}
		}
	})
}
