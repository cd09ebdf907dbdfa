package trust

import (
	"net/netip"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/oddcert/oddcert/parsers/cert"
)

// isFor reports whether the leaf is for the name that a client asked for (RFC 9525,
// section 6): a name of its subjectAltName, or of its subject where it has none of
// those (RFC 2818, section 3.1, which old clients go by).
func isFor(leaf *cert.Certificate, asked string) bool {
	asked = host(asked)
	addr, isAddr := address(asked)
	if isAddr {
		asked = addr.Unmap().String()
	}
	fits := func(kind cert.NameKind, name string) bool {
		switch kind {
		case cert.IPAddress:
			other, e := netip.ParseAddr(name)
			return isAddr && e == nil && other.Unmap() == addr.Unmap()
		case cert.DNSName:
			return !isAddr && covers(host(name), asked)
		case cert.CommonName:
			return leaf.AltNames == 0 && covers(host(name), asked)
		}
		return false
	}
	for _, name := range leaf.DNSNames {
		if fits(cert.DNSName, name) {
			return true
		}
	}
	for _, name := range leaf.IPAddresses {
		if fits(cert.IPAddress, name) {
			return true
		}
	}
	for _, name := range leaf.Subject.CommonName {
		if fits(cert.CommonName, name) {
			return true
		}
	}
	for more := leaf.MoreNames(); !more.Done(); {
		kind, name, ok := more.Next()
		if ok && fits(kind, name) {
			return true
		}
	}
	return false
}

// address reads an address. Most names end with a letter, and cost nothing.
func address(name string) (netip.Addr, bool) {
	if name == "" || !strings.Contains(name, ":") && (name[len(name)-1] < '0' || name[len(name)-1] > '9') {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(name)
	return addr, err == nil
}

// host is a name of a host as it is compared: without a dot at its end.
func host(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// covers reports whether a name of a certificate is the asked one. A star stands for
// the whole first label (RFC 9525, section 6.3).
func covers(name, asked string) bool {
	if name == "" {
		return false
	}
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		first, after, ok := strings.Cut(asked, ".")
		return ok && first != "" && rest != "" && after == rest
	}
	return name == asked
}

// constraints are the name constraints of an authority (RFC 5280, section 4.2.1.10).
type constraints struct {
	list     []constraint
	critical bool
	problem  string // why they cannot be judged; empty when they can
}

// constraint is one subtree.
type constraint struct {
	kind     cert.NameKind
	excluded bool
	host     string       // of a DNSName, folded
	network  netip.Prefix // of an IPAddress
	rdns     []string     // of a directoryName, each folded
}

// Kinds of a GeneralName beyond those of package cert.
const directoryName cert.NameKind = 4

func (x *constraints) read(value []byte) {
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, asn1.SEQUENCE) || !s.Empty() {
		x.problem = "cannot be read"
		return
	}
	for _, tag := range []asn1.Tag{0, 1} {
		var subtrees cryptobyte.String
		var there bool
		if !seq.ReadOptionalASN1(&subtrees, &there, tag.Constructed().ContextSpecific()) {
			x.problem = "cannot be read"
			return
		}
		for there && !subtrees.Empty() {
			var subtree, base cryptobyte.String
			var kind asn1.Tag
			if !subtrees.ReadASN1(&subtree, asn1.SEQUENCE) || !subtree.ReadAnyASN1(&base, &kind) {
				x.problem = "cannot be read"
				return
			}
			if !subtree.Empty() { // minimum and maximum, which RFC 5280 does not use
				x.problem = "have a minimum or maximum"
				return
			}
			if len(x.list) == maxConstraints {
				x.problem = "are too many"
				return
			}
			c := constraint{kind: cert.NameKind(kind & 31), excluded: tag == 1}
			if !c.base(base) {
				x.problem = "have a name that cannot be read"
				return
			}
			x.list = append(x.list, c)
		}
	}
	if !seq.Empty() {
		x.problem = "cannot be read"
	}
}

func (c *constraint) base(b cryptobyte.String) bool {
	switch c.kind {
	case cert.DNSName:
		c.host = host(string(b))
	case cert.IPAddress:
		n := len(b) / 2
		addr, ok := netip.AddrFromSlice(b[:n])
		if !ok || len(b) != 2*n {
			return false
		}
		ones, mask := 0, b[n:]
		for ones < 8*n && mask[ones/8]>>(7-ones%8)&1 == 1 {
			ones++
		}
		for i := ones; i < 8*n; i++ {
			if mask[i/8]>>(7-i%8)&1 == 1 {
				return false
			}
		}
		c.network = netip.PrefixFrom(addr, ones).Masked()
	case directoryName:
		var name cryptobyte.String
		if !b.ReadASN1Element(&name, asn1.SEQUENCE) || !b.Empty() {
			return false
		}
		var ok bool
		c.rdns, ok = relativeNames(name)
		return ok
	}
	return true
}

// relativeNames splits a Name into its RDNs, folded.
func relativeNames(der []byte) (rdns []string, ok bool) {
	s := cryptobyte.String(der)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, asn1.SEQUENCE) {
		return nil, false
	}
	for !seq.Empty() {
		var rdn cryptobyte.String
		if !seq.ReadASN1Element(&rdn, asn1.SET) {
			return nil, false
		}
		var b cryptobyte.Builder
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(rdn) })
		one, err := b.Bytes()
		if err != nil {
			return nil, false
		}
		rdns = append(rdns, fold(cert.ParseName(one).String))
	}
	return rdns, true
}

// below reports whether a name of a host is the constraint's or below it. With a dot
// in front, only what is below counts.
func (c *constraint) below(name string) bool {
	switch {
	case c.host == "":
		return true
	case c.host[0] == '.':
		return strings.HasSuffix(name, c.host)
	case !strings.HasSuffix(name, c.host):
		return false
	}
	return len(name) == len(c.host) || name[len(name)-len(c.host)-1] == '.'
}

// verdict of name constraints.
type allowed uint8

const (
	within allowed = iota
	outside
	tooMany // comparisons
	unclear // a kind of constraint that is not judged
)

// allow judges the names of a certificate below the authority with constraints x.
// checks counts down the comparisons that are left. With outside, name is the one
// that is; with unclear it says why.
func (x *constraints) allow(c *certificate, checks *int) (a allowed, name string) {
	if x.problem != "" {
		return unclear, "its name constraints " + x.problem
	}
	var has [32]bool // kinds of permitted subtrees
	for i := range x.list {
		k := &x.list[i]
		switch k.kind {
		case cert.DNSName, cert.IPAddress, directoryName:
			has[k.kind] = has[k.kind] || !k.excluded
		case cert.EmailAddress:
			if len(c.EmailAddresses) > 0 {
				return unclear, "its name constraints are about addresses of e-mail"
			}
		case cert.URI:
			if len(c.URIs) > 0 {
				return unclear, "its name constraints are about URIs"
			}
		default:
			if x.critical {
				return unclear, "its name constraints are about names of another kind"
			}
		}
	}
	// each judges one name, for which match tells whether it is in a subtree.
	each := func(kind cert.NameKind, match func(k *constraint) bool) allowed {
		permitted := !has[kind]
		for i := range x.list {
			k := &x.list[i]
			if *checks--; *checks < 0 {
				return tooMany
			}
			if k.kind != kind || !k.excluded && permitted || !match(k) {
				continue
			}
			if k.excluded {
				return outside
			}
			permitted = true
		}
		if !permitted {
			return outside
		}
		return within
	}
	judge := func(kind cert.NameKind, name string) allowed {
		switch kind {
		case cert.DNSName:
			h := host(name)
			return each(cert.DNSName, func(k *constraint) bool {
				if k.below(h) {
					return true
				}
				// A star may stand for a name that is excluded.
				return k.excluded && strings.HasPrefix(h, "*.") && (covers(h, strings.TrimPrefix(k.host, ".")))
			})
		case cert.IPAddress:
			addr, _ := netip.ParseAddr(name)
			return each(cert.IPAddress, func(k *constraint) bool { return k.network.Contains(addr) })
		case cert.CommonName:
			// Where it stands in for a name of subjectAltName, it is one.
			if c.AltNames > 0 || c.IsCA || !strings.Contains(name, ".") || strings.ContainsAny(name, " /@,") {
				return within
			}
			h := host(name)
			return each(cert.DNSName, func(k *constraint) bool { return k.below(h) })
		}
		return within
	}
	if len(x.list) == 0 {
		return within, ""
	}
	if rdns, ok := relativeNames(c.parts.Subject); !ok {
		if has[directoryName] {
			return unclear, "its name constraints are about subjects, and this one cannot be read"
		}
	} else if len(rdns) > 0 {
		a := each(directoryName, func(k *constraint) bool {
			if len(k.rdns) > len(rdns) {
				return false
			}
			for i := range k.rdns {
				if k.rdns[i] != rdns[i] {
					return false
				}
			}
			return true
		})
		if a != within {
			return a, c.Subject.String
		}
	}
	for _, list := range []struct {
		kind  cert.NameKind
		names []string
	}{{cert.DNSName, c.DNSNames}, {cert.IPAddress, c.IPAddresses}, {cert.CommonName, c.Subject.CommonName}} {
		for _, name := range list.names {
			if a := judge(list.kind, name); a != within {
				return a, name
			}
		}
	}
	for more := c.MoreNames(); !more.Done(); {
		kind, name, ok := more.Next()
		if !ok {
			break
		}
		if a := judge(kind, name); a != within {
			return a, name
		}
	}
	return within, ""
}
