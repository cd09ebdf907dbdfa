package cert

import (
	"bytes"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// parts are the elements of a certificate that is put together by hand, so that
// it can be what no issuing program makes.
type parts struct {
	version   []byte // contents of the INTEGER; none when nil
	serial    []byte // contents of the INTEGER
	algorithm []byte
	issuer    []byte
	validity  []byte
	subject   []byte
	key       []byte
	extension []byte // contents of Extensions; none when nil
	signature []byte
}

var (
	explicit0 = asn1.Tag(0).Constructed().ContextSpecific()
	explicit3 = asn1.Tag(3).Constructed().ContextSpecific()
)

// der is one element.
func der(tag asn1.Tag, contents ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(contents, nil)) })
	return b.BytesOrPanic()
}

func sequence(contents ...[]byte) []byte { return der(asn1.SEQUENCE, contents...) }

func (p parts) tbs() []byte {
	var version, extensions []byte
	if p.version != nil {
		version = der(explicit0, der(asn1.INTEGER, p.version))
	}
	if p.extension != nil {
		extensions = der(explicit3, sequence(p.extension))
	}
	return sequence(version, der(asn1.INTEGER, p.serial), p.algorithm, p.issuer, p.validity, p.subject, p.key, extensions)
}

func (p parts) bytes() []byte {
	return sequence(p.tbs(), p.algorithm, der(asn1.BIT_STRING, []byte{0}, p.signature))
}

// Object identifiers, whole elements.
var (
	oidCN          = []byte{6, 3, 0x55, 4, 3}
	oidC           = []byte{6, 3, 0x55, 4, 6}
	oidO           = []byte{6, 3, 0x55, 4, 10}
	oidOU          = []byte{6, 3, 0x55, 4, 11}
	oidSHA256RSA   = []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11}
	oidMD5RSA      = []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4}
	oidRSAKey      = []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1}
	oidDSAKey      = []byte{6, 7, 0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1}
	oidECKey       = []byte{6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1}
	oidPrimeField  = []byte{6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 1, 1}
	oidSAN         = []byte{6, 3, 0x55, 0x1d, 0x11}
	oidKeyUsage    = []byte{6, 3, 0x55, 0x1d, 0x0f}
	oidConstraints = []byte{6, 3, 0x55, 0x1d, 0x13}
	oidSKI         = []byte{6, 3, 0x55, 0x1d, 0x0e}
	oidPolicies    = []byte{6, 3, 0x55, 0x1d, 0x20}
	oidSCTs        = []byte{6, 10, 0x2b, 6, 1, 4, 1, 0xd6, 0x79, 2, 4, 2}

	oidNameConstraints = []byte{6, 3, 0x55, 0x1d, 0x1e}
	null               = []byte{5, 0}
)

// attribute is one AttributeTypeAndValue.
func attribute(oid []byte, tag asn1.Tag, value string) []byte {
	return sequence(oid, der(tag, []byte(value)))
}

// rdns is a Name of one attribute each.
func rdns(attributes ...[]byte) []byte {
	var sets [][]byte
	for _, a := range attributes {
		sets = append(sets, der(asn1.SET, a))
	}
	return sequence(sets...)
}

func utcTimes(notBefore, notAfter string) []byte {
	return sequence(der(asn1.UTCTime, []byte(notBefore)), der(asn1.UTCTime, []byte(notAfter)))
}

func extensionOf(oid []byte, value ...[]byte) []byte {
	return sequence(oid, der(asn1.OCTET_STRING, value...))
}

// general is a GeneralName of a kind that is one value.
func general(kind NameKind, value string) []byte {
	return der(asn1.Tag(kind).ContextSpecific(), []byte(value))
}

// rsaKey is a SubjectPublicKeyInfo with a modulus of that many bits.
func rsaKey(bits int) []byte {
	modulus := bytes.Repeat([]byte{0xab}, bits/8)
	return sequence(sequence(oidRSAKey, null), der(asn1.BIT_STRING, []byte{0},
		sequence(der(asn1.INTEGER, []byte{0}, modulus), der(asn1.INTEGER, []byte{1, 0, 1}))))
}

// plain is a certificate with nothing odd about it, to be changed by the tests.
func plain() parts {
	return parts{
		version:   []byte{2},
		serial:    []byte{0x33, 0x00, 0x1c},
		algorithm: sequence(oidSHA256RSA, null),
		issuer:    rdns(attribute(oidC, asn1.PrintableString, "US"), attribute(oidCN, asn1.UTF8String, "Issuing CA")),
		validity:  utcTimes("170227120000Z", "190227000000Z"),
		subject: rdns(attribute(oidC, asn1.PrintableString, "US"), attribute(oidO, asn1.UTF8String, "Microsoft"),
			attribute(oidOU, asn1.UTF8String, "DSP"), attribute(oidCN, asn1.UTF8String, "www.update.microsoft.com")),
		key: rsaKey(1024),
		extension: bytes.Join([][]byte{
			extensionOf(oidSAN, sequence(
				der(asn1.Tag(2).ContextSpecific(), []byte("www.update.microsoft.com")),
				der(asn1.Tag(2).ContextSpecific(), []byte("update.microsoft.com")),
				der(asn1.Tag(1).ContextSpecific(), []byte("a@example.com")),
				der(asn1.Tag(6).ContextSpecific(), []byte("https://example.com/x")),
				der(asn1.Tag(7).ContextSpecific(), []byte{192, 0, 2, 1}))),
			extensionOf(oidConstraints, sequence([]byte{1, 1, 0xff})),
			extensionOf(oidSKI, der(asn1.OCTET_STRING, []byte{1, 2, 3, 4})),
		}, nil),
		signature: bytes.Repeat([]byte{0x5a}, 128),
	}
}

// with is a plain certificate with something changed.
func with(change func(*parts)) []byte {
	p := plain()
	change(&p)
	return p.bytes()
}

// indefinite is e with a length of the indefinite form.
func indefinite(t testing.TB, e []byte) []byte {
	t.Helper()
	var inner cryptobyte.String
	s := cryptobyte.String(e)
	if !s.ReadAnyASN1(&inner, new(asn1.Tag)) {
		t.Fatal("not an element")
	}
	return append(append([]byte{e[0], 0x80}, inner...), 0, 0)
}
