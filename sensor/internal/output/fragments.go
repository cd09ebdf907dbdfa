package output

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
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

// newCertificateJSON makes the JSON of c in scratch, which it returns for the next
// one, and then takes of memory what it needs.
func newCertificateJSON(scratch []byte, c *cert.Certificate, truncated bool) (*certificateJSON, []byte) {
	j := new(certificateJSON)
	b := scratch[:0]
	whole := c.DER != nil && !truncated
	b = appendHashes(b, c, whole)
	if whole && c.SPKISHA256 != [32]byte{} {
		b = append(b, `"spki":{`...)
		b = appendHash(b, `"sha256":`, c.SPKISHA256[:])
		b = end(b, '}')
	}
	if whole && c.TBSSHA256 != [32]byte{} {
		b = append(b, `"tbs":{`...)
		b = appendHash(b, `"sha256":`, c.TBSSHA256[:])
		b = end(b, '}')
	}
	b = appendText(b, `"subject":`, c.Subject.String)
	b = appendText(b, `"issuer":`, c.Issuer.String)
	b = appendText(b, `"serial_number":`, c.Serial)
	b = appendDate(b, `"not_before":`, c.NotBefore)
	b = appendDate(b, `"not_after":`, c.NotAfter)
	if c.Version != 0 {
		b = appendBool(b, `"self_signed":`, c.SelfSigned)
	}
	b = appendText(b, `"parse_error":`, c.ParseError)
	if truncated {
		b = appendBool(b, `"truncated":`, true)
	}
	entry := len(b)

	b = appendRest(b, c)
	rest := len(b)

	b = appendHashes(b, c, whole)
	b = appendText(b, `"subject":`, c.Subject.String)
	b = appendText(b, `"issuer":`, c.Issuer.String)
	b = appendDate(b, `"not_before":`, c.NotBefore)
	b = appendDate(b, `"not_after":`, c.NotAfter)
	from := len(b)
	b = append(b, `"x509":{`...)
	b, shown := appendX509(b, c)
	b = closed(b, from, '}')
	leaf := len(b)

	if c.AltNames > shown {
		b = append(b, `"x509":{`...)
		b = appendUint(b, `"alternative_names_count":`, uint64(c.AltNames))
		b = end(b, '}')
	}
	more := len(b)

	if whole {
		for _, sum := range [][]byte{c.SHA256[:], c.SHA1[:], c.MD5[:]} {
			b = appendHash(b, "", sum)
		}
	}
	hashes := len(b)
	for _, name := range c.Subject.CommonName {
		if isHost(name) {
			if j.host == "" {
				j.host = name
			}
			b = appendText(b, "", name)
		}
	}
	all := bytes.Clone(b)
	j.entry, j.rest, j.leaf = all[:entry], all[entry:rest], all[rest:leaf]
	j.more, j.hashes, j.hosts = all[leaf:more], all[more:hashes], all[hashes:]
	if cap(b) > maxScratchBytes {
		b = nil
	}
	return j, b
}

func (j *certificateJSON) size() int {
	return len(j.entry) + len(j.more) + len(j.rest) + len(j.leaf) + len(j.hashes) + len(j.hosts)
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
	b, _ = appendX509(b, c)
	if c.AltNames > 0 {
		b = appendUint(b, `"alternative_names_count":`, uint64(c.AltNames))
	}
	b = closed(b, from, '}')
	b, _ = appendNames(b, `"name":`, c.Subject.CommonName, c.DNSNames, c.IPAddresses)
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

// appendX509 appends the members of an x509 object, and says how many names are
// shown.
func appendX509(b []byte, c *cert.Certificate) (to []byte, shown int) {
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
	return appendNames(b, `"alternative_names":`, c.DNSNames, c.IPAddresses, c.EmailAddresses, c.URIs)
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
func (e *Encoder) certificate(c *event.ChainEntry) (j *certificateJSON) {
	if c.Certificate == nil {
		j, e.scratch = newCertificateJSON(e.scratch, new(cert.Certificate), true)
		return j
	}
	if c.Truncated { // each is one of its own
		j, e.scratch = newCertificateJSON(e.scratch, c.Certificate, true)
		return j
	}
	j, ok := e.certificates.get(c.Certificate)
	if !ok {
		j, e.scratch = newCertificateJSON(e.scratch, c.Certificate, false)
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
			j = appendCode(j, tls.CipherSuiteName(s), s)
		}
		j = end(j, ']')
		e.suites.put(k, j, len(j)+2*len(list))
	}
	return j
}
