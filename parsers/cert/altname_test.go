package cert

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// altName is a name with its kind.
type altName struct {
	kind NameKind
	text string
}

// altNamesOf is all names of c: those that it keeps, by kind, and then the others.
func altNamesOf(c *Certificate) (kept, more []altName) {
	for _, list := range []struct {
		kind  NameKind
		names []string
	}{{DNSName, c.DNSNames}, {IPAddress, c.IPAddresses}, {EmailAddress, c.EmailAddresses}, {URI, c.URIs}} {
		for _, name := range list.names {
			kept = append(kept, altName{list.kind, name})
		}
	}
	for names := c.MoreNames(); ; {
		kind, name, ok := names.Next()
		if !ok {
			return kept, more
		}
		if kind != CommonName {
			more = append(more, altName{kind, name})
		}
	}
}

// The common names of a subject with more attributes than are kept are read too,
// wherever its RDNs begin and end, and before those of subjectAltName.
func TestMoreCommonNames(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		var want []string
		var sets, set [][]byte
		n, per := random.IntN(3*maxAttributes), 1+random.IntN(2*maxAttributes)
		for i := range n {
			name := fmt.Sprintf("name-%d", i)
			switch {
			case random.IntN(3) > 0:
				set = append(set, attribute(oidO, asn1.UTF8String, name))
			default:
				set = append(set, attribute(oidCN, asn1.UTF8String, name))
				want = append(want, name)
			}
			if random.IntN(per) == 0 || i == n-1 {
				sets = append(sets, der(asn1.SET, set...))
				set = nil
			}
		}
		raw := with(func(p *parts) { p.subject = sequence(sets...) })
		for name, c := range map[string]*Certificate{"Parse": Parse(raw), "Salvage": Salvage(raw)} {
			got := slices.Clone(c.Subject.CommonName)
			for names := c.MoreNames(); ; {
				kind, name, ok := names.Next()
				if !ok {
					break
				}
				if kind != CommonName {
					t.Fatalf("a name %q of kind %d", name, kind)
				}
				got = append(got, name)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s: common names of %d attributes: %q, want %q", name, n, got, want)
			}
			if more := c.MoreNames(); more.Done() != (n <= maxAttributes) {
				t.Errorf("%s: %d attributes and Done is %v", name, n, more.Done())
			}
		}
	}
}

// However many names there are, of whatever kinds and in however many extensions,
// each is read once: kept or among the others.
func TestAltNames(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		n := random.IntN(3 * maxAltNames)
		per := 1 + random.IntN(2*maxAltNames) // in one extension
		var want []altName
		var extensions, names [][]byte
		for i := range n {
			text := fmt.Sprintf("name-%d.example", i)
			switch random.IntN(12) {
			case 0:
				names = append(names, general(4, "")) // of a kind that is not read
			case 1:
				names = append(names, general(IPAddress, "12345")) // no address
			case 2:
				names = append(names, general(IPAddress, string([]byte{10, byte(i >> 8), byte(i), 7})))
				want = append(want, altName{IPAddress, fmt.Sprintf("10.%d.%d.7", i>>8&255, i&255)})
			case 3:
				names = append(names, general(DNSName, "ü\xff"))
				want = append(want, altName{DNSName, "ü\ufffd"})
			default:
				kind := []NameKind{DNSName, EmailAddress, URI}[random.IntN(3)]
				names = append(names, general(kind, text))
				want = append(want, altName{kind, text})
			}
			if len(names) == per || i == n-1 {
				extensions = append(extensions, extensionOf(oidSAN, sequence(names...)), extensionOf(oidPolicies, sequence()))
				names = nil
			}
		}
		raw := with(func(p *parts) { p.extension = append([]byte{}, bytes.Join(extensions, nil)...) })
		for name, c := range map[string]*Certificate{"Parse": Parse(raw), "Salvage": Salvage(raw)} {
			kept, more := altNamesOf(c)
			if len(kept) != min(len(want), maxAltNames) || c.AltNames != len(want) || len(kept)+len(more) != len(want) {
				t.Fatalf("%s: %d names: %d kept, %d others, said to be %d", name, len(want), len(kept), len(more), c.AltNames)
			}
			if !slices.Equal(more, want[len(kept):]) {
				t.Errorf("%s: the others are not those after the first %d", name, len(kept))
			}
			first := slices.Clone(want[:len(kept)])
			slices.SortStableFunc(first, func(a, b altName) int { return order[a.kind] - order[b.kind] })
			if !slices.Equal(kept, first) {
				t.Errorf("%s: the names that are kept are not the first", name)
			}
		}
		half := raw[:len(raw)/2]
		c, all := Salvage(bytes.Clone(half)), Parse(raw)
		kept, more := altNamesOf(c)
		if _, others := altNamesOf(all); c.AltNames != len(kept)+len(more) || len(more) > len(others) || !slices.Equal(more, others[:len(more)]) {
			t.Errorf("of a half: %d names, %d kept, %d others", c.AltNames, len(kept), len(more))
		}
	}
}

// order is that in which altNamesOf has the kinds.
var order = map[NameKind]int{DNSName: 0, IPAddress: 1, EmailAddress: 2, URI: 3}
