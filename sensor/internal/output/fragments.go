package output

import (
	"math"
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/cert"
)

// cache keeps what was made of a key, in two generations: when the young one
// has reached its limit it becomes the old one, and the old one is forgotten.
type cache[K comparable, V any] struct {
	young, old map[K]entry[V]
	cost       int // of the young generation, in bytes
	limit      int // for cost
}

type entry[V any] struct {
	value V
	cost  int
}

func newCache[K comparable, V any](limit int) cache[K, V] {
	return cache[K, V]{young: make(map[K]entry[V]), limit: limit}
}

func (c *cache[K, V]) get(k K) (V, bool) {
	e, ok := c.young[k]
	if ok {
		return e.value, true
	}
	if e, ok = c.old[k]; ok {
		c.put(k, e.value, e.cost)
	}
	return e.value, ok
}

func (c *cache[K, V]) put(k K, v V, cost int) {
	if c.cost+cost > c.limit {
		c.young, c.old, c.cost = make(map[K]entry[V]), c.young, 0
	}
	c.young[k] = entry[V]{v, cost}
	c.cost += cost
}

// certificateJSON is what records say of one certificate, as members without
// the braces around them.
type certificateJSON struct {
	entry  []byte // of oddcert.chain[], without its position
	more   []byte // of oddcert.chain[] in handshakes beside entry: how many names there are, where not all are shown
	rest   []byte // of oddcert.chain[] in records about certificates beside entry
	leaf   []byte // of tls.server or tls.client
	hashes []byte // elements of related.hash
	hosts  []byte // elements of related.hosts
	host   string // the first common name that is one of hosts
}

func newCertificateJSON(c *cert.Certificate, truncated bool) *certificateJSON {
	j := new(certificateJSON)
	whole := c.DER != nil && !truncated
	j.entry = appendHashes(j.entry, c, whole)
	if whole && c.SPKISHA256 != [32]byte{} {
		j.entry = append(j.entry, `"spki":{`...)
		j.entry = appendHash(j.entry, `"sha256":`, c.SPKISHA256[:])
		j.entry = end(j.entry, '}')
	}
	if whole && c.TBSSHA256 != [32]byte{} {
		j.entry = append(j.entry, `"tbs":{`...)
		j.entry = appendHash(j.entry, `"sha256":`, c.TBSSHA256[:])
		j.entry = end(j.entry, '}')
	}
	j.entry = appendText(j.entry, `"subject":`, c.Subject.String)
	j.entry = appendText(j.entry, `"issuer":`, c.Issuer.String)
	j.entry = appendText(j.entry, `"serial_number":`, c.Serial)
	j.entry = appendDate(j.entry, `"not_before":`, c.NotBefore)
	j.entry = appendDate(j.entry, `"not_after":`, c.NotAfter)
	if c.Version != 0 {
		j.entry = appendBool(j.entry, `"self_signed":`, c.SelfSigned)
	}
	j.entry = appendText(j.entry, `"parse_error":`, c.ParseError)
	if truncated {
		j.entry = appendBool(j.entry, `"truncated":`, true)
	}
	if shown := len(c.DNSNames) + len(c.IPAddresses) + len(c.EmailAddresses) + len(c.URIs); c.AltNames > shown {
		j.more = append(j.more, `"x509":{`...)
		j.more = appendUint(j.more, `"alternative_names_count":`, uint64(c.AltNames))
		j.more = end(j.more, '}')
	}
	j.rest = appendRest(j.rest, c)

	j.leaf = appendHashes(j.leaf, c, whole)
	j.leaf = appendText(j.leaf, `"subject":`, c.Subject.String)
	j.leaf = appendText(j.leaf, `"issuer":`, c.Issuer.String)
	j.leaf = appendDate(j.leaf, `"not_before":`, c.NotBefore)
	j.leaf = appendDate(j.leaf, `"not_after":`, c.NotAfter)
	j.leaf = appendX509(j.leaf, c)

	if whole {
		for _, sum := range [][]byte{c.SHA256[:], c.SHA1[:], c.MD5[:]} {
			j.hashes = appendHash(j.hashes, "", sum)
		}
	}
	for _, name := range c.Subject.CommonName {
		if isHost(name) {
			if j.host == "" {
				j.host = name
			}
			j.hosts = appendText(j.hosts, "", name)
		}
	}
	return j
}

func (j *certificateJSON) size() int {
	return len(j.entry) + len(j.rest) + len(j.leaf) + len(j.hashes) + len(j.hosts)
}

func appendHashes(b []byte, c *cert.Certificate, whole bool) []byte {
	if !whole {
		return b
	}
	from := len(b)
	b = append(b, `"hash":{`...)
	b = appendHash(b, `"md5":`, c.MD5[:])
	b = appendHash(b, `"sha1":`, c.SHA1[:])
	b = appendHash(b, `"sha256":`, c.SHA256[:])
	return closed(b, from, '}')
}

// appendRest appends what rules can ask of a certificate beside its entry in a
// handshake.
func appendRest(b []byte, c *cert.Certificate) []byte {
	from := len(b)
	b = append(b, `"x509":{`...)
	b = appendX509Members(b, c)
	if c.AltNames > 0 {
		b = appendUint(b, `"alternative_names_count":`, uint64(c.AltNames))
	}
	b = closed(b, from, '}')
	b = appendTexts(b, `"name":`, c.Subject.CommonName, c.DNSNames, c.IPAddresses)
	if c.SignatureBits > 0 {
		b = appendUint(b, `"signature_bits":`, uint64(c.SignatureBits))
	}
	if c.SerialPadded {
		b = appendBool(b, `"serial_padded":`, true)
	}
	if c.Version != 0 {
		b = appendBool(b, `"is_ca":`, c.IsCA)
	}
	if c.BasicConstraints && c.PathLen >= 0 {
		b = appendUint(b, `"path_len":`, uint64(c.PathLen))
	}
	from = len(b)
	b = append(b, `"key_usage":[`...)
	for name := range c.KeyUsage.Names {
		b = appendText(b, "", name)
	}
	b = closed(b, from, ']')
	b = appendTexts(b, `"extended_key_usage":`, c.ExtendedKeyUsage)
	b = appendTexts(b, `"policies":`, c.Policies)
	from = len(b)
	b = append(b, `"name_constraints":{`...)
	b = appendTexts(b, `"permitted":`, c.Permitted)
	b = appendTexts(b, `"excluded":`, c.Excluded)
	b = closed(b, from, '}')
	if len(c.SubjectKeyID) > 0 {
		b = appendHash(b, `"subject_key_id":`, c.SubjectKeyID)
	}
	if len(c.AuthorityKeyID) > 0 {
		b = appendHash(b, `"authority_key_id":`, c.AuthorityKeyID)
	}
	if c.Version != 0 {
		b = append(b, `"sct":{`...)
		b = appendUint(b, `"count":`, uint64(c.SCTs))
		b = end(b, '}')
	}
	return b
}

// appendValidity appends how the validity of c stood at a moment.
func appendValidity(b []byte, c *cert.Certificate, now int64) []byte {
	from := len(b)
	b = append(b, `"validity":{`...)
	if c.NotBefore.IsValid() && c.NotAfter.IsValid() {
		b = appendInt(b, `"days":`, c.NotAfter.DaysSince(c.NotBefore))
	}
	if c.NotAfter.IsValid() {
		b = appendInt(b, `"days_left":`, c.NotAfter.DaysLeft(now))
		b = appendBool(b, `"expired":`, c.NotAfter.Passed(now))
	}
	if c.NotBefore.IsValid() {
		b = appendBool(b, `"not_yet_valid":`, c.NotBefore.Ahead(now))
	}
	return closed(b, from, '}')
}

func appendX509(b []byte, c *cert.Certificate) []byte {
	from := len(b)
	b = append(b, `"x509":{`...)
	b = appendX509Members(b, c)
	return closed(b, from, '}')
}

func appendX509Members(b []byte, c *cert.Certificate) []byte {
	if c.Version != 0 {
		b = appendText(b, `"version_number":`, strconv.Itoa(c.Version))
	}
	b = appendText(b, `"serial_number":`, c.Serial)
	b = appendText(b, `"signature_algorithm":`, c.SignatureAlgorithm)
	b = appendText(b, `"public_key_algorithm":`, c.PublicKeyAlgorithm)
	if c.PublicKeySize > 0 {
		b = appendUint(b, `"public_key_size":`, uint64(c.PublicKeySize))
	}
	if e := c.PublicKeyExponent; e > 0 && e <= math.MaxInt64 { // a long, in Elasticsearch
		b = appendUint(b, `"public_key_exponent":`, e)
	}
	b = appendText(b, `"public_key_curve":`, c.PublicKeyCurve)
	b = appendDate(b, `"not_before":`, c.NotBefore)
	b = appendDate(b, `"not_after":`, c.NotAfter)
	b = appendName(b, `"subject":{`, &c.Subject)
	b = appendName(b, `"issuer":{`, &c.Issuer)
	return appendTexts(b, `"alternative_names":`, c.DNSNames, c.IPAddresses, c.EmailAddresses, c.URIs)
}

func appendName(b []byte, key string, n *cert.Name) []byte {
	from := len(b)
	b = append(b, key...)
	b = appendText(b, `"distinguished_name":`, n.String)
	b = appendTexts(b, `"common_name":`, n.CommonName)
	b = appendTexts(b, `"organization":`, n.Organization)
	b = appendTexts(b, `"organizational_unit":`, n.OrganizationalUnit)
	b = appendTexts(b, `"country":`, n.Country)
	b = appendTexts(b, `"locality":`, n.Locality)
	b = appendTexts(b, `"state_or_province":`, n.StateOrProvince)
	return closed(b, from, '}')
}

// isHost says whether a common name reads as the name of a host, which those
// of authorities and people do not.
func isHost(s string) bool {
	if len(s) > 253 || !strings.Contains(s, ".") {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_', c == '*':
		default:
			return false
		}
	}
	return true
}

// certificate returns the JSON of one certificate of a chain.
func (e *Encoder) certificate(c *parsers.ChainEntry) *certificateJSON {
	if c.Certificate == nil {
		return newCertificateJSON(new(cert.Certificate), true)
	}
	if c.Truncated { // each is one of its own
		return newCertificateJSON(c.Certificate, true)
	}
	j, ok := e.certificates.get(c.Certificate)
	if !ok {
		j = newCertificateJSON(c.Certificate, false)
		e.certificates.put(c.Certificate, j, j.size()+len(c.DER))
	}
	return j
}

// suiteList tells lists of suites apart by where they are: hellos that are
// alike share them, and none changes.
type suiteList struct {
	first *uint16
	n     int
}

// supportedCiphers returns the tls.client.supported_ciphers member.
func (e *Encoder) supportedCiphers(list []uint16) []byte {
	if len(list) == 0 {
		return nil
	}
	if len(list) > maxSuites {
		e.cut += uint64(len(list) - maxSuites)
		list = list[:maxSuites]
	}
	k := suiteList{&list[0], len(list)}
	j, ok := e.suites.get(k)
	if !ok {
		j = append(j, `"supported_ciphers":[`...)
		for _, s := range list {
			j = appendCode(j, parsers.CipherSuiteName(s), s)
		}
		j = end(j, ']')
		e.suites.put(k, j, len(j)+2*len(list))
	}
	return j
}
