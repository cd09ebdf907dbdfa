package rules

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// kind is how a field's values are written, read and compared.
type kind uint8

const (
	text    kind = iota // in s; compared without regard to case
	serial              // in s; hex digits, compared without separators and leading zeros
	digest              // in raw; a hash, hex digits in text
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
)

// value is one value of a field, in the member that the field's kind names.
// What it refers to belongs to the handshake.
type value struct {
	s   string
	raw []byte
	n   int64
	ip  netip.Addr
}

// field is one name that rules may use.
type field struct {
	name  string
	doc   string
	kind  kind
	scope scope
	size  int // bytes of a digest or mac; 0 for any number
	// weight is how much of the traffic one of its values is likely to hold
	// for; the index anchors a rule at its lightest fields.
	weight int
	// ofEntry says that the same certificate can have another value elsewhere.
	ofEntry bool
	// names are the kinds of names that are values too where a certificate has
	// more of them than it keeps; none for most fields.
	names []cert.NameKind
	// get appends the values. c is the certificate for the scopes that have
	// one, and not nil then.
	get func(dst []value, h *event.Handshake, c *event.ChainEntry) []value
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
	for _, prefix := range []struct {
		name, whose string
		scope       scope
	}{
		{"tls.server.", "the server's leaf", serverLeaf},
		{"tls.client.", "the client's leaf", clientLeaf},
	} {
		for _, f := range certificateFields {
			if f.onlyChain {
				continue
			}
			add(f.at(prefix.name, prefix.whose, prefix.scope))
		}
	}
	for _, prefix := range []struct {
		name, whose string
		scope       scope
	}{
		{"oddcert.chain.", "a certificate of the server's chain", serverChain},
		{"oddcert.client_chain.", "a certificate of the client's chain", clientChain},
	} {
		for _, f := range certificateFields {
			add(f.at(prefix.name, prefix.whose, prefix.scope))
		}
		for _, f := range validityFields {
			add(f.at(prefix.name, prefix.whose, prefix.scope))
		}
		add(field{name: prefix.name + "position", doc: "0-based place in the chain of " + prefix.whose, kind: number, scope: prefix.scope, weight: 100, ofEntry: true,
			get: func(dst []value, h *event.Handshake, c *event.ChainEntry) []value {
				chain := h.Chain
				if prefix.scope == clientChain {
					chain = h.ClientChain
				}
				for i := range chain {
					if &chain[i] == c {
						return append(dst, value{n: int64(i)})
					}
				}
				return dst
			}})
		add(field{name: prefix.name + "truncated", doc: "whether bytes are missing of " + prefix.whose, kind: boolean, scope: prefix.scope, weight: 1000, ofEntry: true,
			get: func(dst []value, h *event.Handshake, c *event.ChainEntry) []value {
				return append(dst, flag(c.Truncated))
			}})
	}
	return all
}()

// fieldNames are the names of all fields in order.
var fieldNames = slices.Sorted(maps.Keys(fields))

// FieldNames returns the names of all fields that rules can ask for, in order.
func FieldNames() []string { return slices.Clone(fieldNames) }

func flag(b bool) value {
	if b {
		return value{n: 1}
	}
	return value{}
}

func word(dst []value, s string) []value {
	if s == "" {
		return dst
	}
	return append(dst, value{s: s})
}

func words(dst []value, s []string) []value {
	for _, w := range s {
		dst = append(dst, value{s: w})
	}
	return dst
}

func positive(dst []value, n int) []value {
	if n <= 0 {
		return dst
	}
	return append(dst, value{n: int64(n)})
}

type flowGetter = func([]value, *event.Handshake, *event.ChainEntry) []value

// end makes the fields of one end of the flow; of tells which.
func end(name, doc string, of func(h *event.Handshake) event.Direction) []field {
	at := func(h *event.Handshake) *event.Endpoint {
		if h.Flow == nil {
			return nil
		}
		return &h.Flow.Endpoints[of(h)]
	}
	return []field{
		{name: name + ".ip", doc: "address of " + doc, kind: address, weight: 20, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if e := at(h); e != nil && e.Addr.IsValid() {
				dst = append(dst, value{ip: e.Addr.Unmap().WithZone("")})
			}
			return dst
		}},
		{name: name + ".port", doc: "port of " + doc, kind: number, weight: 500, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if e := at(h); e != nil && h.Flow.Transport != event.EAPOL {
				dst = append(dst, value{n: int64(e.Port)})
			}
			return dst
		}},
		{name: name + ".mac", doc: "MAC address of " + doc, kind: mac, size: 6, weight: 100, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if e := at(h); e != nil && e.MAC != [6]byte{} {
				dst = append(dst, value{raw: e.MAC[:]})
			}
			return dst
		}},
	}
}

// vlan makes the getter of the outer (0) or inner (1) VLAN identifier.
func vlan(i uint8) flowGetter {
	return func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
		if h.Flow != nil && h.Flow.VLANCount > i {
			dst = append(dst, value{n: int64(h.Flow.VLANs[i])})
		}
		return dst
	}
}

// rawKey makes the field of a raw public key.
func rawKey(name, whose string, of func(*event.Handshake) *[32]byte) field {
	doc := "SHA-256 of the SubjectPublicKeyInfo that was sent in the place of " + whose + " certificate"
	return field{name: name, doc: doc, kind: digest, size: 32, weight: 1, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
		if key := of(h); *key != [32]byte{} {
			dst = append(dst, value{raw: key[:]})
		}
		return dst
	}}
}

var flowFields = slices.Concat(
	end("client", "the client, known from the hellos", func(h *event.Handshake) event.Direction { return h.Client }),
	end("server", "the server, known from the hellos", func(h *event.Handshake) event.Direction { return h.Client.Other() }),
	end("source", "the client, as in ECS", func(h *event.Handshake) event.Direction { return h.Client }),
	end("destination", "the server, as in ECS", func(h *event.Handshake) event.Direction { return h.Client.Other() }),
	[]field{
		{name: "network.transport", doc: "`tcp`, `udp`, `sctp` or `eapol`", weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if h.Flow != nil {
				switch h.Flow.Transport {
				case event.TCP:
					dst = append(dst, value{s: "tcp"})
				case event.UDP:
					dst = append(dst, value{s: "udp"})
				case event.SCTP:
					dst = append(dst, value{s: "sctp"})
				case event.EAPOL:
					dst = append(dst, value{s: "eapol"})
				}
			}
			return dst
		}},
		{name: "network.type", doc: "`ipv4` or `ipv6`", weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if h.Flow != nil {
				switch a := h.Flow.Endpoints[0].Addr.Unmap(); {
				case a.Is4():
					dst = append(dst, value{s: "ipv4"})
				case a.Is6():
					dst = append(dst, value{s: "ipv6"})
				}
			}
			return dst
		}},
		{name: "network.vlan.id", doc: "outer VLAN identifier", kind: number, weight: 500, get: vlan(0)},
		{name: "network.inner.vlan.id", doc: "inner VLAN identifier", kind: number, weight: 500, get: vlan(1)},
		{name: "observer.ingress.interface.name", doc: "interface of the capture", weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if h.Flow != nil && h.Flow.Origin != nil {
				dst = word(dst, h.Flow.Origin.Interface)
			}
			return dst
		}},
		{name: "log.file.path", doc: "capture file, in a replay", weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if h.Flow != nil && h.Flow.Origin != nil {
				dst = word(dst, h.Flow.Origin.Path)
			}
			return dst
		}},
		{name: "oddcert.tunnel", doc: "what carries the frames, outermost first", weight: 500, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if h.Flow != nil {
				dst = words(dst, h.Flow.Tunnel)
			}
			return dst
		}},
		{name: "oddcert.carrier", doc: "what carries the TLS: `tls`, `dtls`, `starttls-smtp`, …", weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			return word(dst, h.Carrier)
		}},
		{name: "oddcert.certificates", doc: "what became of the server's certificate: `extracted`, `encrypted`, `resumed`, `none` or `lost`", weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			return append(dst, value{s: h.Outcome.String()})
		}},
		{name: "oddcert.loss", doc: "why it is lost: `gap`, `evicted`, `malformed`, `limit` or `end-of-input`", weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			return word(dst, h.Loss.String())
		}},
		{name: "oddcert.forged", doc: "what was wrong with packets of the flow that an endpoint ignores: `fin`, `rst`, `syn`, `data`, `checksum`, `ack`, `timestamp` or `conflict`", weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			return words(dst, h.Forged.Names())
		}},
		{name: "oddcert.alternative", doc: "whether this is what the later copy says of bytes that came twice with different content", kind: boolean, weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			return append(dst, flag(h.Alternative))
		}},
		{name: "oddcert.authority_names", doc: "authorities that the server accepts certificates of clients from", weight: 100, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			return words(dst, h.AuthorityNames)
		}},
		rawKey("oddcert.raw_key.sha256", "the server's", func(h *event.Handshake) *[32]byte { return &h.RawKey }),
		rawKey("oddcert.client_raw_key.sha256", "the client's", func(h *event.Handshake) *[32]byte { return &h.ClientRawKey }),
		{name: "oddcert.ja4", doc: "JA4 of the client", weight: 30, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if h.ClientHello != nil {
				dst = word(dst, h.ClientHello.JA4)
			}
			return dst
		}},
		{name: "tls.version", doc: "number of the version: `1.2`", weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			_, n := tls.VersionName(h.Version)
			return word(dst, n)
		}},
		{name: "tls.version_protocol", doc: "`ssl`, `tls`, `dtls` or `tlcp`", weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			p, _ := tls.VersionName(h.Version)
			return word(dst, p)
		}},
		{name: "tls.cipher", doc: "name of the cipher suite, or its number as `0x1301`", kind: suite, weight: 500, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			return positive(dst, int(h.CipherSuite))
		}},
		{name: "tls.curve", doc: "name of the group of the key exchange, or its number as `0x001d`", kind: group, weight: 500, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			return positive(dst, int(h.Curve))
		}},
		{name: "tls.next_protocol", doc: "ALPN protocol that the server chose", weight: 500, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if h.ServerHello != nil {
				dst = word(dst, h.ServerHello.ALPN)
			}
			return dst
		}},
		{name: "tls.established", doc: "whether both sides went on to encrypted data", kind: boolean, weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			return append(dst, flag(h.Established))
		}},
		{name: "tls.resumed", doc: "whether the session was resumed", kind: boolean, weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			return append(dst, flag(h.Resumed))
		}},
		{name: "tls.client.server_name", doc: "name that the client asked for (SNI)", weight: 10, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if h.ClientHello != nil {
				dst = word(dst, h.ClientHello.ServerName)
			}
			return dst
		}},
		{name: "tls.client.ja3", doc: "JA3 of the client", kind: digest, size: 16, weight: 30, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if h.ClientHello != nil {
				dst = word(dst, h.ClientHello.JA3)
			}
			return dst
		}},
		{name: "tls.client.supported_ciphers", doc: "names of the cipher suites that the client offered", kind: suite, weight: 1000, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if h.ClientHello != nil {
				for _, s := range h.ClientHello.CipherSuites {
					dst = append(dst, value{n: int64(s)})
				}
			}
			return dst
		}},
		{name: "tls.server.ja3s", doc: "JA3S of the server", kind: digest, size: 16, weight: 30, get: func(dst []value, h *event.Handshake, _ *event.ChainEntry) []value {
			if h.ServerHello != nil {
				dst = word(dst, h.ServerHello.JA3S)
			}
			return dst
		}},
	},
)

// certificateField is a field of a certificate, wherever that is.
type certificateField struct {
	name      string
	doc       string
	kind      kind
	size      int
	weight    int
	onlyChain bool // not for tls.server and tls.client, which are ECS's
	names     []cert.NameKind
	get       func(dst []value, c *event.ChainEntry) []value
}

func (f certificateField) at(prefix, whose string, s scope) field {
	return field{name: prefix + f.name, doc: f.doc + " of " + whose, kind: f.kind, scope: s, size: f.size, weight: f.weight, names: f.names,
		get: func(dst []value, _ *event.Handshake, c *event.ChainEntry) []value {
			if c.Certificate == nil {
				return dst
			}
			return f.get(dst, c)
		}}
}

// hash appends the hash that sum points to. A truncated certificate has none,
// and one that is all zero was never computed.
func hash(dst []value, c *event.ChainEntry, sum []byte) []value {
	if c.Truncated {
		return dst
	}
	for _, b := range sum {
		if b != 0 {
			return append(dst, value{raw: sum})
		}
	}
	return dst
}

func date(dst []value, d cert.Date) []value {
	if !d.IsValid() {
		return dst
	}
	return append(dst, value{n: d.Unix()})
}

func keyID(dst []value, id []byte) []value {
	if len(id) == 0 {
		return dst
	}
	return append(dst, value{raw: id})
}

// nameFields makes the fields of a distinguished name.
func nameFields(prefix, doc string, of func(*cert.Certificate) *cert.Name) []certificateField {
	var fs []certificateField
	for _, part := range []struct {
		name, doc string
		weight    int
		get       func(*cert.Name) []string
	}{
		{"common_name", "common names", 20, func(n *cert.Name) []string { return n.CommonName }},
		{"organization", "organizations", 50, func(n *cert.Name) []string { return n.Organization }},
		{"organizational_unit", "organizational units", 50, func(n *cert.Name) []string { return n.OrganizationalUnit }},
		{"country", "countries", 200, func(n *cert.Name) []string { return n.Country }},
		{"locality", "localities", 100, func(n *cert.Name) []string { return n.Locality }},
		{"state_or_province", "states or provinces", 100, func(n *cert.Name) []string { return n.StateOrProvince }},
	} {
		f := certificateField{name: "x509." + prefix + "." + part.name, doc: part.doc + " in the " + doc, weight: part.weight,
			get: func(dst []value, c *event.ChainEntry) []value { return words(dst, part.get(of(c.Certificate))) }}
		if f.name == "x509.subject.common_name" {
			f.names = []cert.NameKind{cert.CommonName}
		}
		fs = append(fs, f)
	}
	whole := func(dst []value, c *event.ChainEntry) []value { return word(dst, of(c.Certificate).String) }
	return append(fs,
		certificateField{name: prefix, doc: "whole " + doc, weight: 20, get: whole},
		certificateField{name: "x509." + prefix + ".distinguished_name", doc: "whole " + doc, weight: 20, get: whole})
}

var certificateFields = slices.Concat(
	nameFields("subject", "subject", func(c *cert.Certificate) *cert.Name { return &c.Subject }),
	nameFields("issuer", "issuer", func(c *cert.Certificate) *cert.Name { return &c.Issuer }),
	[]certificateField{
		{name: "hash.md5", doc: "MD5 of the DER", kind: digest, size: 16, weight: 1, get: func(dst []value, c *event.ChainEntry) []value { return hash(dst, c, c.MD5[:]) }},
		{name: "hash.sha1", doc: "SHA-1 of the DER", kind: digest, size: 20, weight: 1, get: func(dst []value, c *event.ChainEntry) []value { return hash(dst, c, c.SHA1[:]) }},
		{name: "hash.sha256", doc: "SHA-256 of the DER", kind: digest, size: 32, weight: 1, get: func(dst []value, c *event.ChainEntry) []value { return hash(dst, c, c.SHA256[:]) }},
		{name: "spki.sha256", doc: "SHA-256 of the SubjectPublicKeyInfo", kind: digest, size: 32, weight: 1, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return hash(dst, c, c.SPKISHA256[:]) }},
		{name: "tbs.sha256", doc: "SHA-256 of the TBSCertificate", kind: digest, size: 32, weight: 1, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return hash(dst, c, c.TBSSHA256[:]) }},
		{name: "not_before", doc: "start of the validity", kind: instant, weight: 50, get: func(dst []value, c *event.ChainEntry) []value { return date(dst, c.NotBefore) }},
		{name: "not_after", doc: "end of the validity", kind: instant, weight: 50, get: func(dst []value, c *event.ChainEntry) []value { return date(dst, c.NotAfter) }},
		{name: "x509.not_before", doc: "start of the validity", kind: instant, weight: 50, get: func(dst []value, c *event.ChainEntry) []value { return date(dst, c.NotBefore) }},
		{name: "x509.not_after", doc: "end of the validity", kind: instant, weight: 50, get: func(dst []value, c *event.ChainEntry) []value { return date(dst, c.NotAfter) }},
		{name: "serial_number", doc: "serial number", kind: serial, weight: 1, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return word(dst, c.Serial) }},
		{name: "x509.serial_number", doc: "serial number", kind: serial, weight: 1, get: func(dst []value, c *event.ChainEntry) []value { return word(dst, c.Serial) }},
		{name: "x509.alternative_names", doc: "subjectAltName: DNS names, addresses, e-mail addresses, URIs", weight: 10, names: []cert.NameKind{cert.DNSName, cert.IPAddress, cert.EmailAddress, cert.URI}, get: func(dst []value, c *event.ChainEntry) []value {
			return words(words(words(words(dst, c.DNSNames), c.IPAddresses), c.EmailAddresses), c.URIs)
		}},
		{name: "name", doc: "names that a server could use it for: subject common names, and DNS names and addresses of subjectAltName", weight: 10, onlyChain: true, names: []cert.NameKind{cert.CommonName, cert.DNSName, cert.IPAddress}, get: func(dst []value, c *event.ChainEntry) []value {
			return words(words(words(dst, c.Subject.CommonName), c.DNSNames), c.IPAddresses)
		}},
		{name: "x509.public_key_algorithm", doc: "algorithm of the key: `RSA`, `ECDSA`, `Ed25519`, `ML-DSA-65`, `SM2`, …", weight: 1000, get: func(dst []value, c *event.ChainEntry) []value { return word(dst, c.PublicKeyAlgorithm) }},
		{name: "x509.public_key_size", doc: "bits of the key: of the modulus or a coordinate, else of all of it", kind: number, weight: 500, get: func(dst []value, c *event.ChainEntry) []value { return positive(dst, c.PublicKeySize) }},
		{name: "x509.public_key_curve", doc: "curve of the key: `P-256`, `brainpoolP256r1`, …", weight: 500, get: func(dst []value, c *event.ChainEntry) []value { return word(dst, c.PublicKeyCurve) }},
		{name: "x509.public_key_exponent", doc: "public exponent of an RSA key", kind: number, weight: 1000, get: func(dst []value, c *event.ChainEntry) []value {
			if c.PublicKeyExponent == 0 || c.PublicKeyExponent > 1<<63-1 {
				return dst
			}
			return append(dst, value{n: int64(c.PublicKeyExponent)})
		}},
		{name: "x509.signature_algorithm", doc: "algorithm of the signature, in Go's names (`SHA256-RSA`, `MD5-RSA`, …) or its standard's (`ML-DSA-65`, `SM2-SM3`, …)", weight: 500, get: func(dst []value, c *event.ChainEntry) []value { return word(dst, c.SignatureAlgorithm) }},
		{name: "signature_bits", doc: "bits of the signature: for RSA, the size of the issuer's key", kind: number, weight: 500, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return positive(dst, c.SignatureBits) }},
		{name: "x509.version_number", doc: "X.509 version, 1 to 3", kind: number, weight: 1000, get: func(dst []value, c *event.ChainEntry) []value { return positive(dst, c.Version) }},
		{name: "self_signed", doc: "whether issuer and subject are the same in the bytes", kind: boolean, weight: 1000, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return append(dst, flag(c.SelfSigned)) }},
		{name: "x509.alternative_names_count", doc: "names in the subjectAltName, of which records show the first", kind: number, weight: 500, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return positive(dst, c.AltNames) }},
		{name: "serial_padded", doc: "whether the serial number has more octets than DER allows", kind: boolean, weight: 1000, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return append(dst, flag(c.SerialPadded)) }},
		{name: "is_ca", doc: "whether basicConstraints makes an authority", kind: boolean, weight: 1000, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return append(dst, flag(c.IsCA)) }},
		{name: "path_len", doc: "pathLenConstraint: how many authorities may stand below", kind: number, weight: 500, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value {
			if !c.BasicConstraints || c.PathLen < 0 {
				return dst
			}
			return append(dst, value{n: int64(c.PathLen)})
		}},
		{name: "key_usage", doc: "RFC 5280's names of the usages: `digitalSignature`, `keyCertSign`, …", weight: 1000, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value {
			for name := range c.KeyUsage.Names {
				dst = append(dst, value{s: name})
			}
			return dst
		}},
		{name: "extended_key_usage", doc: "RFC 5280's names of the purposes: `serverAuth`, …, or object identifiers", weight: 1000, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return words(dst, c.ExtendedKeyUsage) }},
		{name: "policies", doc: "object identifiers of certificatePolicies", weight: 100, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return words(dst, c.Policies) }},
		{name: "name_constraints.permitted", doc: "names, networks (`10.0.0.0/8`) and distinguished names that nameConstraints permits", weight: 50, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return words(dst, c.Permitted) }},
		{name: "name_constraints.excluded", doc: "names, networks and distinguished names that nameConstraints excludes", weight: 50, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return words(dst, c.Excluded) }},
		{name: "subject_key_id", doc: "subjectKeyIdentifier", kind: digest, weight: 5, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return keyID(dst, c.SubjectKeyID) }},
		{name: "authority_key_id", doc: "keyIdentifier of authorityKeyIdentifier", kind: digest, weight: 10, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return keyID(dst, c.AuthorityKeyID) }},
		{name: "sct.count", doc: "signed certificate timestamps inside", kind: number, weight: 1000, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value {
			if c.Version == 0 {
				return dst
			}
			return append(dst, value{n: int64(c.SCTs)})
		}},
		{name: "parse_error", doc: "what could not be read", weight: 100, onlyChain: true, get: func(dst []value, c *event.ChainEntry) []value { return word(dst, c.ParseError) }},
	},
)

// validityField is a field of how a certificate's validity stands at the end of a
// handshake, in nanoseconds since 1970.
type validityField struct {
	name   string
	doc    string
	kind   kind
	weight int
	get    func(dst []value, c *cert.Certificate, now int64) []value
}

var validityFields = []validityField{
	{name: "validity.days", doc: "whole days from start to end of the validity", kind: number, weight: 500, get: func(dst []value, c *cert.Certificate, _ int64) []value {
		if !c.NotBefore.IsValid() || !c.NotAfter.IsValid() {
			return dst
		}
		return append(dst, value{n: c.NotAfter.DaysSince(c.NotBefore)})
	}},
	{name: "validity.days_left", doc: "whole days from the handshake to the end of the validity (less than 0 after it)", kind: number, weight: 500, get: func(dst []value, c *cert.Certificate, now int64) []value {
		if !c.NotAfter.IsValid() {
			return dst
		}
		return append(dst, value{n: c.NotAfter.DaysLeft(now)})
	}},
	{name: "validity.expired", doc: "whether the handshake was after the end of the validity", kind: boolean, weight: 1000, get: func(dst []value, c *cert.Certificate, now int64) []value {
		if !c.NotAfter.IsValid() {
			return dst
		}
		return append(dst, flag(c.NotAfter.Passed(now)))
	}},
	{name: "validity.not_yet_valid", doc: "whether the handshake was before the start of the validity", kind: boolean, weight: 1000, get: func(dst []value, c *cert.Certificate, now int64) []value {
		if !c.NotBefore.IsValid() {
			return dst
		}
		return append(dst, flag(c.NotBefore.Ahead(now)))
	}},
}

func (f validityField) at(prefix, whose string, s scope) field {
	return field{name: prefix + f.name, doc: f.doc + " of " + whose, kind: f.kind, scope: s, weight: f.weight, ofEntry: true,
		get: func(dst []value, h *event.Handshake, c *event.ChainEntry) []value {
			if c.Certificate == nil {
				return dst
			}
			return f.get(dst, c.Certificate, h.End.Time)
		}}
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

// entry returns the certificate of h that f speaks of, that at i where the scope
// is a chain; nil when there is none.
func (f *field) entry(h *event.Handshake, i int) *event.ChainEntry {
	if f.scope == serverLeaf || f.scope == clientLeaf {
		i = 0
	}
	if entries := f.scope.entries(h); i >= 0 && i < len(entries) {
		return &entries[i]
	}
	return nil
}

// values appends the values of f in h, of the certificate c that f speaks of.
func (f *field) values(dst []value, h *event.Handshake, c *event.ChainEntry) []value {
	if f.scope != flow && c == nil {
		return dst
	}
	return f.get(dst, h, c)
}

// appendKey appends what makes v equal to another value of f: two are equal
// when their keys are.
func (f *field) appendKey(dst []byte, v *value) []byte {
	switch f.kind {
	case text:
		return appendFold(dst, v.s)
	case serial:
		return appendSerial(dst, v.s)
	case digest:
		if v.raw == nil { // JA3 and JA3S come in hex
			for i := 0; i+1 < len(v.s); i += 2 {
				dst = append(dst, unhex(v.s[i])<<4|unhex(v.s[i+1]))
			}
			return dst
		}
		return append(dst, v.raw...)
	case mac:
		return append(dst, v.raw...)
	case address:
		a := v.ip.As16()
		return append(dst, a[:]...)
	}
	return binary.BigEndian.AppendUint64(dst, uint64(v.n))
}

// appendText appends v as records write it.
func (f *field) appendText(dst []byte, v *value) []byte {
	switch f.kind {
	case digest:
		if v.raw == nil {
			return append(dst, v.s...)
		}
		return appendHex(dst, v.raw)
	case mac:
		for i := range v.raw {
			if i > 0 {
				dst = append(dst, '-')
			}
			dst = appendHex(dst, v.raw[i:i+1])
		}
		return dst
	case number:
		return strconv.AppendInt(dst, v.n, 10)
	case boolean:
		return strconv.AppendBool(dst, v.n != 0)
	case instant:
		return time.Unix(v.n, 0).UTC().AppendFormat(dst, time.RFC3339)
	case suite, group:
		name := tls.CipherSuiteName
		if f.kind == group {
			name = tls.GroupName
		}
		if s := name(uint16(v.n)); s != "" {
			return append(dst, s...)
		}
		return fmt.Appendf(dst, "0x%04x", uint16(v.n))
	case address:
		return v.ip.AppendTo(dst)
	}
	return append(dst, v.s...)
}

func appendHex(dst, b []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range b {
		dst = append(dst, digits[c>>4], digits[c&15])
	}
	return dst
}

// appendSerial appends a serial number without separators and leading zeros,
// so that 00:1c:67, 1C67 and 0x1c67 are one.
func appendSerial(dst []byte, s string) []byte {
	if strings.HasPrefix(s, "-") {
		dst, s = append(dst, '-'), s[1:]
	}
	if len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		s = s[2:]
	}
	leading := true
	for i := range len(s) {
		switch c := s[i]; {
		case c == ':' || c == ' ' || c == '-', c == '0' && leading:
		case 'a' <= c && c <= 'f':
			dst, leading = append(dst, c-0x20), false
		default:
			dst, leading = append(dst, c), false
		}
	}
	return dst
}

// parse reads one value of f as a rule or a list writes it, and appends its key
// to dst.
func (f *field) parse(dst []byte, s string) (key []byte, err error) {
	v := value{s: s}
	switch f.kind {
	case text:
	case serial:
		key = appendSerial(dst, s)
		if i := slices.IndexFunc(key, func(c byte) bool { return !isHex(c) && c != '-' }); i >= 0 || s == "" {
			return nil, fmt.Errorf("is no serial number: hex digits, with or without separators")
		}
		return key, nil
	case digest, mac:
		key, ok := appendUnhex(dst, s)
		if f.size == 0 && ok && len(key) > 0 {
			return key, nil
		}
		if f.size == 0 {
			return nil, fmt.Errorf("is no value of %s: hex digits, with or without separators", f.name)
		}
		if !ok || len(key) != f.size {
			return nil, fmt.Errorf("is no value of %s: %d hex digits, with or without separators", f.name, 2*f.size)
		}
		return key, nil
	case number:
		if v.n, err = strconv.ParseInt(s, 10, 64); err != nil {
			return nil, fmt.Errorf("is no whole number, as %s has", f.name)
		}
	case boolean:
		switch strings.ToLower(s) {
		case "true":
			v.n = 1
		case "false":
		default:
			return nil, fmt.Errorf("is neither true nor false, as %s is", f.name)
		}
	case instant:
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			if t, err = time.Parse(time.DateOnly, s); err != nil {
				return nil, fmt.Errorf("is no time: write 2006-01-02T15:04:05Z or 2006-01-02")
			}
		}
		v.n = t.Unix()
	case suite, group:
		n, ok := codePoint(f.kind, s)
		if !ok {
			return nil, fmt.Errorf("is no known name of %s: use the one of IANA, or the number as 0x1301", f.name)
		}
		v.n = int64(n)
	case address:
		a, err := netip.ParseAddr(s)
		if err != nil {
			if _, err := netip.ParsePrefix(s); err == nil {
				return nil, fmt.Errorf("is a network: write %s|cidr", f.name)
			}
			return nil, fmt.Errorf("is no IP address")
		}
		v.ip = a.Unmap().WithZone("")
	}
	return f.appendKey(dst, &v), nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' || 'a' <= c && c <= 'f'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}

// Values of characters in hashes and addresses that are no hex digits.
const (
	separator = 0x10
	stranger  = 0x20
)

// digits is what each character is in a hash: a table, as branches on random
// digits are slow, and lists are long.
var digits = func() (t [256]byte) {
	for c := range t {
		switch {
		case isHex(byte(c)):
			t[c] = unhex(byte(c))
		case c == ':' || c == '-' || c == ' ':
			t[c] = separator
		default:
			t[c] = stranger
		}
	}
	return t
}()

// appendUnhex appends the bytes that s has the hex digits of, with separators or
// without; ok is false when it has other characters, or half a byte.
func appendUnhex(dst []byte, s string) (out []byte, ok bool) {
	half, high := false, byte(0)
	for i := 0; i < len(s); i++ {
		d := digits[s[i]]
		if !half && i+1 < len(s) { // two at once, as they mostly come
			if next := digits[s[i+1]]; d|next < separator {
				dst = append(dst, d<<4|next)
				i++
				continue
			}
		}
		if d >= separator {
			if d == separator {
				continue
			}
			return dst, false
		}
		if half {
			dst = append(dst, high<<4|d)
		}
		half, high = !half, d
	}
	return dst, !half
}

// codePoint finds a suite or group by name or number.
func codePoint(k kind, s string) (uint16, bool) {
	if len(s) == 6 && strings.EqualFold(s[:2], "0x") {
		n, err := strconv.ParseUint(s[2:], 16, 16)
		return uint16(n), err == nil
	}
	points := suitePoints
	if k == group {
		points = groupPoints
	}
	n, ok := points()[strings.ToUpper(s)]
	return n, ok
}

var (
	suitePoints = sync.OnceValue(func() map[string]uint16 { return points(tls.CipherSuiteName) })
	groupPoints = sync.OnceValue(func() map[string]uint16 { return points(tls.GroupName) })
)

// points turns name around; its keys are upper case.
func points(name func(uint16) string) map[string]uint16 {
	m := make(map[string]uint16)
	for n := range 1 << 16 {
		if s := name(uint16(n)); s != "" {
			m[strings.ToUpper(s)] = uint16(n)
		}
	}
	return m
}

// fieldNamed finds a field; when there is none, near is the name most like it.
func fieldNamed(name string) (f *field, near string) {
	if f = fields[name]; f != nil {
		return f, ""
	}
	return nil, nearest(name, fieldNames)
}

// nearest returns the candidate that takes the fewest edits to become s, or
// nothing when even that one is not like it.
func nearest(s string, candidates []string) string {
	best, least := "", min(len(s)/2, 8)+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(s), c, least); d < least {
			best, least = c, d
		}
	}
	if best == "" { // part of a name, such as sha256 or server_name
		for _, c := range candidates {
			if s != "" && strings.HasSuffix(c, "."+strings.ToLower(s)) {
				return c
			}
		}
	}
	return best
}

// distance is the Levenshtein distance, or limit when it is not less.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = min(diagonal, row[j], row[j+1]) + 1
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return min(row[len(b)], limit)
}
