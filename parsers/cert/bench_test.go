package cert

import (
	"bytes"
	"testing"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// hostile are certificates of about size bytes that are full of one thing.
func hostile(size int) map[string][]byte {
	fill := func(e []byte) []byte { return bytes.Repeat(e, size/len(e)) }
	bigOID := der(asn1.OBJECT_IDENTIFIER, append(bytes.Repeat([]byte{0xff}, maxOID-1), 0x7f))
	open := append(bytes.Repeat([]byte{0x30, 0x80}, maxDepth-8), bytes.Repeat([]byte{0, 0}, maxDepth-8)...)
	extension := func(e []byte) []byte { return with(func(p *parts) { p.extension = e }) }
	subject := func(e []byte) []byte { return with(func(p *parts) { p.subject = sequence(e) }) }
	oidUsages := []byte{6, 3, 0x55, 0x1d, 0x25}
	return map[string][]byte{
		"tiny names":             extension(extensionOf(oidSAN, sequence(fill(general(DNSName, "a"))))),
		"empty names":            extension(extensionOf(oidSAN, sequence(fill(general(DNSName, ""))))),
		"names of no kind":       extension(extensionOf(oidSAN, sequence(fill(general(8, ""))))),
		"no UTF-8":               extension(extensionOf(oidSAN, sequence(fill(general(DNSName, "\xff\xff\xff"))))),
		"addresses":              extension(extensionOf(oidSAN, sequence(fill(general(IPAddress, "\x20\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))))),
		"extensions of one name": extension(fill(extensionOf(oidSAN, sequence(general(DNSName, "a"))))),
		"tiny extensions":        extension(fill(sequence([]byte{6, 1, 0x2a}))),
		"no extensions":          extension(fill([]byte{5, 0})),
		"long identifiers":       extension(fill(sequence(bigOID))),
		"indefinite lengths":     extension(fill(open)),
		"usages":                 extension(extensionOf(oidUsages, sequence(fill([]byte{6, 1, 0x2a})))),
		"policies":               extension(extensionOf(oidPolicies, sequence(fill(sequence([]byte{6, 1, 0x2a}))))),
		"constraints":            extension(extensionOf(oidNameConstraints, sequence(der(explicit0, fill(sequence(general(DNSName, ""))))))),
		"timestamps":             extension(extensionOf(oidSCTs, der(asn1.OCTET_STRING, append([]byte{0xff, 0xfe}, make([]byte, 0xfffe)...)))),
		"tiny RDNs":              subject(fill(der(asn1.SET))),
		"tiny attributes":        subject(fill(der(asn1.SET, sequence()))),
		"attributes":             subject(fill(der(asn1.SET, attribute(oidCN, asn1.UTF8String, "")))),
		"long RDN":               subject(der(asn1.SET, fill(sequence(bigOID, []byte{5, 0})))),
		"long serial":            with(func(p *parts) { p.serial = fill([]byte{0xff}) }),
		"long modulus":           with(func(p *parts) { p.key = rsaKey(8 * size) }),
		"tiny unknown elements":  with(func(p *parts) { p.key = append(p.key, fill([]byte{5, 0})...) }),
	}
}

// readAll reads a certificate and all of its names.
func readAll(raw []byte) (names int) {
	c := Parse(raw)
	for more := c.MoreNames(); ; names++ {
		if _, _, ok := more.Next(); !ok {
			return names
		}
	}
}

// No certificate costs more than 5 times what an ordinary one does, a byte.
func BenchmarkHostile(b *testing.B) {
	shapes := hostile(1 << 20)
	shapes["ordinary"] = plain().bytes()
	for name, raw := range shapes {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				readAll(raw)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(raw)), "ns/byte")
		})
	}
}
