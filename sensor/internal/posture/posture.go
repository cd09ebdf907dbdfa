// Package posture says of each server what cryptography it was seen with: what was
// negotiated, what its clients offered, what is weak about it, and whether a quantum
// computer could read later what was captured now.
package posture

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/judge/trust"
)

// Value is a value that was seen, by its name, and how often.
type Value struct {
	Name string
	N    uint64 // handshakes; certificates where it is of certificates
}

func (v Value) String() string { return fmt.Sprintf("%s (%d)", v.Name, v.N) }

// Posture is what a server was seen with. The lists have the most frequent value first.
type Posture struct {
	Server *inventory.Server

	Versions   []Value // negotiated
	Suites     []Value // negotiated
	Groups     []Value // negotiated
	Offered    []Value // groups that its clients offered in supported_groups
	Signatures []Value // schemes with which it signed handshakes
	Keys       []Value // of its certificates, such as "RSA-2048" and "ECDSA P-256"
	Signed     []Value // algorithms with which its certificates are signed

	Exchange    Exchange
	PostQuantum uint64 // handshakes that negotiated a post-quantum group, hybrid or pure
	Leaf        Leaf
	Weak        []string // what is weak, in words, each once
	LeftOut     uint64   // certificates of it that were not looked at: there were more than MaxLeaves
}

// Exchange is how a server agrees on keys, as far as that was seen.
type Exchange uint8

// The states. An unknown one is no classical one: nothing was negotiated in sight.
const (
	Unknown   Exchange = iota // no ServerHello was seen, or none that says how keys are agreed on
	Classical                 // it negotiated classical groups only, and no client offered another
	Offered                   // it negotiated classical groups only, also where clients offered a post-quantum one
	Hybrid                    // it negotiated a classical group with ML-KEM or Kyber beside it at least once
	Pure                      // it negotiated ML-KEM alone at least once, and no hybrid
)

func (e Exchange) String() string {
	return [...]string{"unknown", "classical", "offered", "hybrid", "post-quantum"}[e]
}

// Leaf is whether the certificate of a server was seen, and if not, why.
type Leaf uint8

// The states, the one that says most first. Of a server that was met in several ways
// the first holds.
const (
	Seen      Leaf = iota
	Encrypted      // TLS 1.3 without keys: it has one, and nobody can say which
	Lost           // it was not seen completely
	Resumed        // sessions were resumed, which show none
	None           // there is none: anonymous, a raw key, a PSK, or refused
)

func (l Leaf) String() string {
	return [...]string{"seen", "encrypted", "lost", "resumed", "none"}[l]
}

// Of returns the posture of a server whose leaves are given. It keeps v.
func Of(v *inventory.Server, leaves iter.Seq2[*inventory.Certificate, error]) (*Posture, error) {
	p := &Posture{
		Server:     v,
		Versions:   named(v.Versions, VersionName),
		Suites:     named(v.Suites, SuiteName),
		Groups:     named(v.Groups, GroupName),
		Offered:    named(v.Offered, GroupName),
		Signatures: named(v.Signatures, SchemeName),
	}
	p.Exchange, p.PostQuantum = exchange(v)
	p.Leaf = leaf(&v.Outcomes)
	keys, signed, weak := map[string]uint64{}, map[string]uint64{}, map[string]bool{}
	for version := range v.Versions {
		if WeakVersion(version) {
			weak[VersionName(version)] = true
		}
	}
	for suite := range v.Suites {
		if why := WeakSuite(SuiteName(suite)); why != "" {
			weak[why] = true
		}
	}
	n := 0
	for c, err := range leaves {
		if err != nil {
			return nil, fmt.Errorf("read the certificates of %s: %w", v.Address, err)
		}
		if n++; n > MaxLeaves {
			p.LeftOut++
			continue
		}
		key := KeyName(c)
		if key != "" {
			keys[key]++
		}
		if trust.WeakKey(c.KeyAlgorithm, c.KeySize) {
			weak[key+" key"] = true
		}
		if c.SignatureAlgorithm != "" {
			signed[c.SignatureAlgorithm]++
		}
		if hash := trust.WeakHash(c.SignatureAlgorithm); hash != "" && !c.SelfSigned {
			weak[hash+" signature"] = true
		}
	}
	p.Keys, p.Signed = ordered(keys), ordered(signed)
	p.Weak = slices.Sorted(maps.Keys(weak))
	return p, nil
}

// All returns the postures of all servers, in the order of the inventory.
func All(s *inventory.Store) iter.Seq2[*Posture, error] {
	return func(yield func(*Posture, error) bool) {
		for v, err := range s.Servers() {
			var p *Posture
			if err == nil {
				p, err = Of(v, leaves(s, v.ServerKey))
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// leaves returns the certificates that a server showed as its own.
func leaves(s *inventory.Store, k inventory.ServerKey) iter.Seq2[*inventory.Certificate, error] {
	return func(yield func(*inventory.Certificate, error) bool) {
		for shown, err := range s.ShownBy(k) {
			var c *inventory.Certificate
			if err == nil && shown.Roles&inventory.Leaf == 0 {
				continue
			}
			if err == nil {
				c, err = s.Certificate(shown.Certificate)
			}
			if errors.Is(err, inventory.ErrNotFound) { // it was forgotten
				continue
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// exchange says how a server agrees on keys, and in how many handshakes a post-quantum
// group was negotiated.
func exchange(v *inventory.Server) (e Exchange, postQuantum uint64) {
	pure := uint64(0)
	for g, n := range v.Groups {
		switch KindOf(g) {
		case HybridGroup:
			e = Hybrid
			postQuantum += n
		case PureGroup:
			pure += n
		}
	}
	switch {
	case e == Hybrid:
		return e, postQuantum + pure
	case pure > 0:
		return Pure, pure
	}
	// Up to TLS 1.2 the version says it. A TLS 1.3 handshake without a group goes on with
	// a key that both have from before.
	seen := len(v.Groups) > 0
	for version := range v.Versions {
		if _, number := tls.VersionName(version); number != "" && number != "1.3" {
			seen = true
		}
	}
	if !seen {
		return Unknown, 0
	}
	for g := range v.Offered {
		if KindOf(g) != ClassicalGroup {
			return Offered, 0
		}
	}
	return Classical, 0
}

func leaf(outcomes *[event.Outcomes]uint64) Leaf {
	for _, of := range []struct {
		event.Outcome
		Leaf
	}{{event.Extracted, Seen}, {event.Encrypted, Encrypted}, {event.Lost, Lost}, {event.Resumed, Resumed}} {
		if outcomes[of.Outcome] > 0 {
			return of.Leaf
		}
	}
	return None
}

// GroupKind is what the secret of a group is made of.
type GroupKind uint8

// The kinds.
const (
	ClassicalGroup GroupKind = iota // a curve or a finite field, or a value that is not known
	HybridGroup                     // a curve, and ML-KEM or Kyber
	PureGroup                       // ML-KEM alone
)

// KindOf returns the kind of a named group. It goes by the names of the IANA registry
// "TLS Supported Groups".
func KindOf(group uint16) GroupKind {
	switch name := tls.GroupName(group); {
	case strings.HasPrefix(name, "MLKEM"):
		return PureGroup
	case strings.Contains(name, "MLKEM"), strings.Contains(name, "Kyber"):
		return HybridGroup
	}
	return ClassicalGroup
}

// WeakVersion reports whether the RFCs forbid a version: SSL 2.0 (RFC 6176) and 3.0
// (RFC 7568), TLS 1.0 and 1.1, DTLS 1.0 (RFC 8996).
func WeakVersion(version uint16) bool {
	protocol, number := tls.VersionName(version)
	return protocol == "ssl" || protocol != "tlcp" && (number == "1.0" || number == "1.1")
}

// WeakSuite says what is weak about a cipher suite, empty when nothing is. The words
// are those of the rules of pack hygiene.
func WeakSuite(name string) string {
	for _, w := range [...]struct{ part, why string }{
		{"_NULL_", "no encryption"}, {"_anon_", "anonymous"}, {"_EXPORT", "export cipher"},
		{"_RC4_", "RC4"}, {"_RC2_", "RC2"}, {"_DES_", "DES"}, {"_DES40_", "DES"}, {"_3DES_", "3DES"},
	} {
		if strings.Contains(name, w.part) {
			return w.why
		}
	}
	return ""
}

// KeyName is the kind of a certificate's key, such as "RSA-2048" or "ECDSA P-256";
// empty where it could not be read.
func KeyName(c *inventory.Certificate) string {
	switch {
	case c.KeyCurve != "":
		return c.KeyAlgorithm + " " + c.KeyCurve
	case c.KeySize > 0 && (strings.HasPrefix(c.KeyAlgorithm, "RSA") || strings.HasPrefix(c.KeyAlgorithm, "DSA")):
		return fmt.Sprintf("%s-%d", c.KeyAlgorithm, c.KeySize)
	}
	return c.KeyAlgorithm
}

// VersionName is a version for people, such as "TLS 1.2".
func VersionName(version uint16) string {
	if protocol, number := tls.VersionName(version); number != "" {
		return strings.ToUpper(protocol) + " " + number
	}
	return hex(version)
}

// SuiteName is the name of a cipher suite, or its value.
func SuiteName(suite uint16) string { return cmp.Or(tls.CipherSuiteName(suite), hex(suite)) }

// GroupName is the name of a group, or its value.
func GroupName(group uint16) string { return cmp.Or(tls.GroupName(group), hex(group)) }

// SchemeName is the name of a signature scheme, or its value. Before TLS 1.2 there is
// none.
func SchemeName(scheme uint16) string { return cmp.Or(tls.SignatureSchemeName(scheme), hex(scheme)) }

func hex(v uint16) string { return fmt.Sprintf("0x%04X", v) }

// named returns the values of a map by their names. Values of GREASE (RFC 8701) mean
// nothing, and are left out.
func named(m map[uint16]uint64, name func(uint16) string) []Value {
	names := make(map[string]uint64, len(m))
	for v, n := range m {
		if !tls.IsGREASE(v) {
			names[name(v)] += n
		}
	}
	return ordered(names)
}

// ordered returns the values of a map, the most frequent first.
func ordered(m map[string]uint64) []Value {
	list := make([]Value, 0, len(m))
	for name, n := range m {
		list = append(list, Value{name, n})
	}
	slices.SortFunc(list, func(a, b Value) int { return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.Name, b.Name)) })
	return list
}
