package output

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
)

// certificateJSON is the JSON of one certificate, as members without the braces
// around them.
type certificateJSON struct {
	brief  []byte // of tls.server in a handshake
	sha256 []byte // the element of a list of hashes; empty for a truncated certificate
	full   []byte // all that rules can ask, without place and validity
	entry  []byte // the beginning of full, for a record that has no room for all
	leaf   []byte // of tls.server or tls.client in complete records
	hashes []byte // elements of related.hash
	hosts  []byte // elements of related.hosts
	host   string // the first common name that is one of hosts
}

// newCertificateJSON makes the JSON of c in scratch, copies it to memory of just
// its size, and returns scratch for the next certificate.
func newCertificateJSON(scratch []byte, c *cert.Certificate, truncated bool) (*certificateJSON, []byte) {
	j := new(certificateJSON)
	b := scratch[:0]
	var parts [7]int // where each part ends
	n := 0
	next := func() {
		parts[n] = len(b)
		n++
	}
	whole := c.DER != nil && !truncated

	if whole {
		b = append(b, `"hash":{`...)
		b = appendHash(b, `"sha1":`, c.SHA1[:])
		b = appendHash(b, `"sha256":`, c.SHA256[:])
		b = end(b, '}')
	}
	b = appendText(b, `"subject":`, c.Subject.String)
	b = appendText(b, `"issuer":`, c.Issuer.String)
	b = appendDate(b, `"not_after":`, c.NotAfter)
	next() // brief
	if whole {
		b = appendHash(b, "", c.SHA256[:])
	}
	next() // sha256

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
	next() // entry
	b = appendRest(b, c)
	next() // full

	b = appendHashes(b, c, whole)
	b = appendText(b, `"subject":`, c.Subject.String)
	b = appendText(b, `"issuer":`, c.Issuer.String)
	b = appendDate(b, `"not_before":`, c.NotBefore)
	b = appendDate(b, `"not_after":`, c.NotAfter)
	from := len(b)
	b = append(b, `"x509":{`...)
	b = appendX509(b, c)
	b = closeOrDrop(b, from, '}')
	next() // leaf

	if whole {
		for _, sum := range [][]byte{c.SHA256[:], c.SHA1[:], c.MD5[:]} {
			b = appendHash(b, "", sum)
		}
	}
	next() // hashes
	for _, name := range c.Subject.CommonName {
		if isHost(name) {
			if j.host == "" {
				j.host = name
			}
			b = appendText(b, "", name)
		}
	}
	next() // hosts

	all := bytes.Clone(b)
	part := func(from, to int) []byte {
		start := 0
		if from > 0 {
			start = parts[from-1]
		}
		return all[start:parts[to]]
	}
	j.brief, j.sha256, j.entry, j.full = part(0, 0), part(1, 1), part(2, 2), part(2, 3)
	j.leaf, j.hashes, j.hosts = part(4, 4), part(5, 5), part(6, 6)
	if cap(b) > maxScratchBytes {
		b = nil
	}
	return j, b
}

// size is how many bytes of memory j takes beside its struct.
func (j *certificateJSON) size() int {
	return len(j.brief) + len(j.sha256) + len(j.full) + len(j.leaf) + len(j.hashes) + len(j.hosts)
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
	return closeOrDrop(b, from, '}')
}

// appendRest appends what rules can ask of a certificate beside what entry has.
func appendRest(b []byte, c *cert.Certificate) []byte {
	from := len(b)
	b = append(b, `"x509":{`...)
	b = appendX509(b, c)
	if c.AltNames > 0 {
		b = appendUint(b, `"alternative_names_count":`, uint64(c.AltNames))
	}
	b = closeOrDrop(b, from, '}')
	b = appendNames(b, `"name":`, c.Subject.CommonName, c.DNSNames, c.IPAddresses)
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
	b = closeOrDrop(b, from, ']')
	b = appendTexts(b, `"extended_key_usage":`, c.ExtendedKeyUsage)
	b = appendTexts(b, `"policies":`, c.Policies)
	from = len(b)
	b = append(b, `"name_constraints":{`...)
	b = appendTexts(b, `"permitted":`, c.Permitted)
	b = appendTexts(b, `"excluded":`, c.Excluded)
	b = closeOrDrop(b, from, '}')
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
	return closeOrDrop(b, from, '}')
}

// appendX509 appends the members of an x509 object.
func appendX509(b []byte, c *cert.Certificate) []byte {
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
	return closeOrDrop(b, from, '}')
}

// isHost reports whether a common name looks like the name of a host. Those of
// authorities and people do not.
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
	j, ok := e.certificates.Get(c.Certificate)
	if !ok {
		j, e.scratch = newCertificateJSON(e.scratch, c.Certificate, false)
		e.certificates.Put(c.Certificate, j, j.size()+len(c.DER))
	}
	return j
}

// chainJSON is a chain with the JSON of its certificates.
type chainJSON struct {
	chain []event.ChainEntry
	json  []*certificateJSON
}

func (c *chainJSON) set(e *Encoder, chain []event.ChainEntry) {
	c.chain, c.json = chain, c.json[:0]
	for i := range chain {
		c.json = append(c.json, e.certificate(&chain[i]))
	}
}

// truncated reports whether the chain has a certificate without a hash, which has
// no record of its own.
func (c *chainJSON) truncated() bool {
	for _, j := range c.json {
		if len(j.sha256) == 0 {
			return true
		}
	}
	return false
}

// appendHashes appends the chain as the hashes of its certificates.
func (c *chainJSON) appendHashes(b []byte, key string) []byte {
	if len(c.json) == 0 {
		return b
	}
	b = append(b, key...)
	b = append(b, `{"hash":{"sha256":[`...)
	for _, j := range c.json {
		b = append(b, j.sha256...)
	}
	return end(end(end(b, ']'), '}'), '}')
}

// appendFull appends the chain with all that rules can ask of it; now is the time
// for which its validity is judged.
func (c *chainJSON) appendFull(b []byte, key string, now int64) []byte {
	from, room := len(b), maxRestBytes
	b = append(b, key...)
	b = append(b, '[')
	for i, j := range c.json {
		b = append(b, '{')
		b = appendUint(b, `"position":`, uint64(i))
		if room -= len(j.full) - len(j.entry); room >= 0 {
			b = append(b, j.full...)
		} else {
			b = append(b, j.entry...)
			b = appendBool(b, `"abridged":`, true)
		}
		if x := c.chain[i].Certificate; x != nil {
			b = appendValidity(b, x, now)
		}
		b = end(b, '}')
	}
	return closeOrDrop(b, from, ']')
}

// appendLeaf appends the members of tls.server or tls.client about a chain, as
// complete records have them.
func (c *chainJSON) appendLeaf(b []byte) []byte {
	if len(c.chain) == 0 {
		return b
	}
	b = append(b, c.json[0].leaf...)
	from := len(b)
	b = append(b, `"certificate_chain":[`...)
	for _, c := range c.chain {
		if c.Certificate == nil || c.DER == nil || c.Truncated {
			continue
		}
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, c.DER)
		b = append(b, '"', ',')
	}
	return closeOrDrop(b, from, ']')
}
