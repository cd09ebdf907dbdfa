// Package transparency judges what is publicly said of a server's certificate: by logs
// of Certificate Transparency (RFC 6962), whose signed timestamps come in the
// certificate, in the handshake or in a stapled answer, and by its issuer in a stapled
// OCSP answer (RFC 6960). Nothing is asked of anybody.
package transparency

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"strconv"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/judge/signature"
	"golang.org/x/crypto/cryptobyte"
)

// Judge judges handshakes. It belongs to one goroutine.
type Judge struct {
	list    *list
	entries *generations.Cache[subject, *verdict]
	issued  *generations.Cache[pair, bool]
	keys    *generations.Cache[[sha256.Size]byte, *signature.Key] // of issuers by the SHA-256 of their SPKI; nil where there is none to use
	hash    hash.Hash
	sum     [sha256.Size]byte
}

// pair is a leaf and the key of a certificate that may have issued it, each by its
// SHA-256.
type pair struct{ leaf, issuer [sha256.Size]byte }

// subject is what a verdict is about: a leaf, the key of its issuer (zero where the
// issuer is not there), and the SHA-256 of what was sent beside (zero for nothing).
type subject struct {
	pair
	beside [sha256.Size]byte
}

// verdict is a judgement at any time.
type verdict struct {
	judgement.Transparency
	answer answer // to tell whether it is in time; status is empty where that does not matter
	late   *judgement.Transparency
	early  *judgement.Transparency
}

// New returns a judge that knows the logs of the list that is shipped.
func New() *Judge {
	return &Judge{
		list:    known(),
		entries: generations.New[subject, *verdict](maxVerdicts),
		issued:  generations.New[pair, bool](maxPairs),
		keys:    generations.New[[sha256.Size]byte, *signature.Key](maxKeys),
		hash:    sha256.New(),
	}
}

// Judge judges the leaf of a handshake. issuer is the certificate that issued it; where
// that is nil, it is looked for in the chain that was sent. Whether it did issue the
// leaf is verified. The result is shared and read-only; it is nil where the handshake
// does not show a whole leaf.
func (j *Judge) Judge(h *event.Handshake, issuer *cert.Certificate) *judgement.Transparency {
	if len(h.Chain) == 0 || h.Chain[0].Truncated || h.Chain[0].Certificate == nil || h.Chain[0].DER == nil {
		return nil
	}
	leaf := h.Chain[0].Certificate
	issuer = j.issuerOf(leaf, h.Chain[1:], issuer)
	about := subject{pair: pair{leaf: leaf.SHA256}}
	if issuer != nil {
		about.issuer = issuer.SPKISHA256
	}
	if len(h.OCSP)+len(h.SCTs) > 0 {
		about.beside = j.beside(h)
	}
	v, ok := j.entries.Get(about)
	if !ok {
		v = j.judge(leaf, issuer, h)
		j.entries.Put(about, v, v.size())
	}
	at := h.Certificate
	if at == (event.Moment{}) {
		at = h.End
	}
	return v.at(at.Time)
}

// beside is the hash of what a handshake shows beside the certificates.
func (j *Judge) beside(h *event.Handshake) [sha256.Size]byte {
	binary.BigEndian.PutUint64(j.sum[:], uint64(len(h.OCSP)))
	j.hash.Reset()
	j.hash.Write(j.sum[:8])
	j.hash.Write(h.OCSP)
	j.hash.Write(h.SCTs)
	j.hash.Sum(j.sum[:0])
	return j.sum
}

// issuerOf returns the certificate that issued a leaf: the one that is said to be it, or
// one of the chain; nil where none of these is it.
func (j *Judge) issuerOf(leaf *cert.Certificate, chain []event.ChainEntry, said *cert.Certificate) *cert.Certificate {
	if said != nil {
		if j.didIssue(leaf, said) {
			return said
		}
		return nil
	}
	tried := 0
	for _, e := range chain {
		if e.Truncated || e.Certificate == nil || e.DER == nil || e.Subject.String != leaf.Issuer.String {
			continue
		}
		if tried++; tried > maxIssuers {
			break
		}
		if j.didIssue(leaf, e.Certificate) {
			return e.Certificate
		}
	}
	return nil
}

// didIssue reports whether a leaf is signed with the key of c.
func (j *Judge) didIssue(leaf, c *cert.Certificate) bool {
	p := pair{leaf.SHA256, c.SPKISHA256}
	did, ok := j.issued.Get(p)
	if !ok {
		key := j.keyOf(c)
		did = key != nil && issued(leaf, key)
		j.issued.Put(p, did, 1)
	}
	return did
}

// keyOf returns the key of an issuer; nil where it cannot be used.
func (j *Judge) keyOf(c *cert.Certificate) *signature.Key {
	key, ok := j.keys.Get(c.SPKISHA256)
	if !ok {
		key, _ = signature.KeyOf(c) // nil with an error
		j.keys.Put(c.SPKISHA256, key, 1)
	}
	return key
}

// size is about what v takes in memory, with its copies for other times, in bytes.
func (v *verdict) size() int {
	n := verdictSize
	for _, reason := range v.Reasons {
		n += 3 * (len(reason) + 16)
	}
	return n
}

// at returns the judgement at a moment, in nanoseconds since the Unix epoch.
func (v *verdict) at(now int64) *judgement.Transparency {
	switch {
	case v.answer.status == "":
	case now > v.answer.to:
		if v.late == nil {
			v.late = v.with("The stapled OCSP answer was out of date: a newer one was due at " + instant(v.answer.to) + ".")
		}
		return v.late
	case now < v.answer.from && uint64(v.answer.from)-uint64(now) > uint64(maxSkew):
		if v.early == nil {
			v.early = v.with("The stapled OCSP answer is from later than the handshake: from " + instant(v.answer.from) + ".")
		}
		return v.early
	}
	return &v.Transparency
}

// instant is a moment in RFC 3339.
func instant(at int64) string { return time.Unix(0, at).UTC().Format(time.RFC3339) }

// with returns the judgement with one more reason.
func (v *verdict) with(reason string) *judgement.Transparency {
	t := v.Transparency
	t.Reasons = append(slices.Clone(t.Reasons), reason)
	return &t
}

// judge judges anew. issuer has issued leaf, or is nil.
func (j *Judge) judge(leaf, issuer *cert.Certificate, h *event.Handshake) *verdict {
	v := &verdict{}
	t := &v.Transparency
	parts, _ := leaf.Parts()
	b, readable := readBody(parts.TBS)
	t.Judged = issuer != nil && readable
	c := counter{list: j.list, t: t}
	if readable {
		if b.malformed {
			t.Reasons = append(t.Reasons, "The timestamps in the certificate cannot be read.")
		}
		if !b.malformed && b.stamps != nil {
			var by *[sha256.Size]byte
			if issuer != nil {
				by = &issuer.SPKISHA256
			}
			c.count(b.stamps, "certificate", b.timeless, by, t.Judged)
		}
	} else {
		t.SCTs = leaf.SCTs
		if t.SCTs > 0 {
			t.Reasons = append(t.Reasons, "The certificate is not encoded as it must be, so the timestamps in it cannot be judged.")
		}
	}
	if len(h.SCTs) > 0 {
		c.count(h.SCTs, "handshake", leaf.DER, nil, t.Judged)
	}
	if len(h.OCSP) > 0 {
		j.ocsp(v, &c, leaf, &b, readable, issuer, h.OCSP)
	}
	if t.SCTs > 0 && issuer == nil {
		t.Reasons = append(t.Reasons, "The certificate that issued the leaf is not there, so the timestamps cannot be judged.")
	}
	if c.unlisted > 0 {
		t.Reasons = append(t.Reasons, plural(c.unlisted, "timestamp is of a log that is", "timestamps are of logs that are")+" not in the list of "+j.list.date+".")
	}
	if c.unread > 0 {
		t.Reasons = append(t.Reasons, plural(c.unread, "timestamp", "timestamps")+" cannot be read.")
	}
	if c.left > 0 {
		t.Reasons = append(t.Reasons, plural(c.left, "timestamp was", "timestamps were")+" not looked at: there are more than "+strconv.Itoa(maxTimestamps)+".")
	}
	slices.Sort(t.Operators)
	t.Operators = slices.Compact(t.Operators)
	return v
}

// plural is a number and what it counts.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// ocsp judges a stapled answer.
func (j *Judge) ocsp(v *verdict, c *counter, leaf *cert.Certificate, b *body, readable bool, issuer *cert.Certificate, der []byte) {
	t := &v.Transparency
	if issuer == nil || !readable {
		t.Reasons = append(t.Reasons, "The stapled OCSP answer cannot be judged without the certificate that issued the leaf.")
		return
	}
	invalid := func(err error) {
		t.OCSP = "invalid"
		t.Reasons = append(t.Reasons, err.Error())
	}
	response, err := readOCSP(der)
	if err != nil {
		invalid(err)
		return
	}
	a, err := response.answerFor(b, keyBits(issuer))
	if err != nil {
		invalid(err)
		return
	}
	if a.stamps != nil {
		c.count(a.stamps, "stapled OCSP answer", leaf.DER, nil, t.Judged)
	}
	if err := response.signedBy(j.keyOf(issuer)); err != nil {
		invalid(err)
		return
	}
	v.answer = a
	t.OCSP, t.Revoked = a.status, a.revoked
	if a.status == "revoked" {
		t.Reasons = append(t.Reasons, "The issuer has revoked the certificate at "+instant(a.revoked)+", says the stapled OCSP answer.")
	}
	v.answer.stamps = nil // it refers to the handshake
}

// counter counts timestamps and says what is wrong with them.
type counter struct {
	list     *list
	t        *judgement.Transparency
	looked   int // how many were verified
	left     int // beyond maxTimestamps
	unlisted int // of logs that are not known
	unread   int
}

// count looks at a SignedCertificateTimestampList that was found in a place, for an
// entry of a log as timestamp.verify takes it. With verify false they are only counted.
func (c *counter) count(stamps []byte, place string, entry []byte, issuer *[sha256.Size]byte, verify bool) {
	t := c.t
	malformed := func() {
		t.Reasons = append(t.Reasons, "The list of timestamps in the "+place+" cannot be read.")
	}
	var list cryptobyte.String
	s := cryptobyte.String(stamps)
	if len(stamps) > maxList || !s.ReadUint16LengthPrefixed(&list) || !s.Empty() {
		malformed()
		return
	}
	for !list.Empty() {
		serialized, ok := takeTimestamp(&list)
		if !ok {
			malformed()
			return
		}
		t.SCTs++
		if !verify {
			continue
		}
		stamp, ok := readTimestamp(serialized)
		if !ok {
			c.unread++
			continue
		}
		log := c.list.logs[stamp.log]
		if log == nil || log.key() == nil {
			c.unlisted++
			continue
		}
		if c.looked == maxTimestamps {
			c.left++
			continue
		}
		c.looked++
		if err := stamp.verify(log.key(), entry, issuer); err != nil {
			t.Reasons = append(t.Reasons, "A timestamp in the "+place+" is said to be of "+log.name+", and is not signed by it for this certificate.")
			continue
		}
		t.Valid++
		t.Operators = append(t.Operators, log.operator)
	}
}
