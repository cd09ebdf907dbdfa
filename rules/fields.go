package rules

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
)

// kind is how a field's values are written, read and compared.
type kind uint8

const (
	text    kind = iota // in s; compared without regard to case
	serial              // in s; hex digits, compared without separators and leading zeros
	digest              // in raw, or hex digits in s; a hash, hex digits in text
	mac                 // in raw; hex digits with "-" in text
	number              // in n
	boolean             // in n, 0 or 1
	instant             // in n, seconds since the Unix epoch; RFC 3339 in text
	suite               // in n, a cipher suite; its name in text
	group               // in n, a named group; its name in text
	address             // in ip
)

// scope is what a field speaks of.
type scope uint8

const (
	flow        scope = iota // the handshake or its flow
	serverLeaf               // the first certificate of the server's chain
	clientLeaf               // the first certificate of the client's chain
	serverChain              // each certificate of the server's chain
	clientChain              // each certificate of the client's chain
	judged                   // what was judged of the handshake
)

// value is one value of a field, in the member that the field's kind names.
// What it refers to belongs to the handshake.
type value struct {
	s   string
	raw []byte
	n   int64
	ip  netip.Addr
}

// getter appends the values that a field has in h. c is the certificate for the
// scopes that speak of one, and not nil then; its Certificate may be nil.
type getter func(dst []value, h *event.Handshake, c *event.ChainEntry) []value

// field is one name that rules may use. The tables are in fields_flow.go and
// fields_certificate.go.
type field struct {
	name  string
	doc   string
	kind  kind
	scope scope
	size  int // bytes of a digest or mac; 0 for any number
	// weight is how much of the traffic one of its values is likely to hold
	// for, from 1 (one certificate in the world) to 1000 (half of all); the
	// index anchors a rule at its lightest fields.
	weight int
	// ofEntry says that the same certificate can have another value elsewhere.
	ofEntry bool
	// names are the kinds of names that are values too where a certificate has
	// more of them than it keeps; nil for most fields.
	names []cert.NameKind
	get   getter
	// slot is of a [Selection], instead of get: which of the fields that it looks at.
	// Records may leave a truth value out where it is false, if omitted is set.
	slot    int
	omitted bool
	// judged is the getter where the scope is judged, and reach what it takes.
	judged judgedGetter
	reach  reach
}

// fields is the table of all fields by name.
var fields = func() map[string]*field {
	all := make(map[string]*field)
	add := func(f field) {
		if all[f.name] != nil {
			panic("field twice: " + f.name)
		}
		all[f.name] = &f
	}
	for _, f := range flowFields {
		add(f)
	}
	for _, f := range judgedFields {
		f.scope = judged
		add(f)
	}
	for _, of := range []struct {
		prefix, whose string
		scope         scope
		tables        [][]field
	}{
		{"tls.server.", "the server's leaf", serverLeaf, [][]field{leafFields}},
		{"tls.client.", "the client's leaf", clientLeaf, [][]field{leafFields}},
		{"oddcert.chain.", "a certificate of the server's chain", serverChain, [][]field{leafFields, chainFields}},
		{"oddcert.client_chain.", "a certificate of the client's chain", clientChain, [][]field{leafFields, chainFields}},
	} {
		for _, f := range slices.Concat(of.tables...) {
			f.name, f.doc, f.scope = of.prefix+f.name, f.doc+" of "+of.whose, of.scope
			add(f)
		}
	}
	return all
}()

// fieldNames are the names of all fields in order.
var fieldNames = slices.Sorted(maps.Keys(fields))

// FieldNames returns the names of all fields that rules can ask for, in order.
// The slice is the caller's.
func FieldNames() []string { return slices.Clone(fieldNames) }

// fieldNamed finds a field; when there is no such field, near is the name most
// like it.
func fieldNamed(name string) (f *field, near string) {
	if f = fields[name]; f != nil {
		return f, ""
	}
	return nil, nearest(name, fieldNames)
}

// entries returns the certificates that a field of scope s speaks of.
func (s scope) entries(h *event.Handshake) []event.ChainEntry {
	switch s {
	case serverChain:
		return h.Chain
	case clientChain:
		return h.ClientChain
	case serverLeaf:
		return h.Chain[:min(1, len(h.Chain))]
	case clientLeaf:
		return h.ClientChain[:min(1, len(h.ClientChain))]
	}
	return nil
}

// chain returns the chain in which the certificates that a field of scope s speaks of
// were sent.
func (s scope) chain(h *event.Handshake) []event.ChainEntry {
	if s == clientChain || s == clientLeaf {
		return h.ClientChain
	}
	return h.Chain
}

// entry returns the certificate of h that f speaks of, that at i where the scope
// is a chain; nil when there is no such certificate.
func (f *field) entry(h *event.Handshake, i int) *event.ChainEntry {
	if f.scope == serverLeaf || f.scope == clientLeaf {
		i = 0
	}
	if entries := f.scope.entries(h); i >= 0 && i < len(entries) {
		return &entries[i]
	}
	return nil
}

// values appends the values of f in the handshake of m, of the certificate c that f
// speaks of.
func (f *field) values(dst []value, m *Matcher, c *event.ChainEntry) []value {
	switch {
	case f.scope == judged:
		return f.judged(dst, m)
	case f.scope != flow && c == nil:
		return dst
	}
	return f.get(dst, m.h, c)
}
