package output

import (
	"encoding/base64"
	"slices"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// Place is where a certificate is in a handshake.
type Place struct {
	Client bool // in the client's chain, not in the server's
	Index  int  // from 0, the leaf
}

// in returns the chain of h that p is in.
func (p Place) in(h *event.Handshake) []event.ChainEntry {
	if p.Client {
		return h.ClientChain
	}
	return h.Chain
}

// role returns what the certificate at p is for.
func (p Place) role(h *event.Handshake) string {
	switch {
	case p.Index == 0 && p.Client:
		return "client"
	case p.Index == 0:
		return "leaf"
	case p.in(h)[p.Index].SelfSigned:
		return "root"
	}
	return "issuer"
}

// AppendCertificate appends the record of one certificate of h, which is told once
// a day: its id is that of the certificate and the day, while the rest is about h,
// the first handshake of the day with it. It has all that rules can ask of the
// certificate, and its DER. The certificate is not truncated.
func (e *Encoder) AppendCertificate(dst []byte, h *event.Handshake, p Place) ([]byte, Stamp) {
	c := p.in(h)[p.Index]
	j := e.certificate(&c)
	e.setJudged(nil)
	e.setOrigin(h.Flow.Origin)
	e.setAddrs(h)
	e.event = e.appendSubject(e.event[:0], Certificate)
	e.event = append(e.event, c.SHA256[:]...)
	stamp := e.dayStamp(h.End.Time)
	dst = e.appendHead(dst, Certificate, h, stamp)
	dst = end(dst, '}')
	dst = e.appendFlow(dst, h)
	role := p.role(h)
	if role == "leaf" {
		dst = append(dst, `"tls":{"server":{`...)
		dst = append(dst, j.leaf...)
		dst = end(end(dst, '}'), '}')
	}
	frame := h.End.Frame
	if !p.Client {
		frame = completed(h).Frame
	}
	dst = e.appendWhere(dst, h, frame)
	dst = append(dst, `"certificate":{`...)
	dst = appendText(dst, `"role":`, role)
	dst = appendUint(dst, `"position":`, uint64(p.Index))
	dst = append(dst, j.full...)
	dst = appendValidity(dst, c.Certificate, h.End.Time)
	dst = append(dst, `"der":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, c.DER)
	dst = append(dst, '"', ',')
	dst = end(dst, '}')
	return finish(dst), stamp
}

// AppendSighting appends the record of a leaf that a server was not seen with
// under the name asked for. previous is the SHA-256 of the one that it had before,
// nil where the server is new under that name.
func (e *Encoder) AppendSighting(dst []byte, h *event.Handshake, j *judgement.Judgement, previous *[32]byte) ([]byte, Stamp) {
	c := &h.Chain[0]
	e.setJudged(j)
	e.setOrigin(h.Flow.Origin)
	e.setAddrs(h)
	e.event = e.appendSubject(e.event[:0], Sighting)
	e.event = append(e.event, c.SHA256[:]...)
	e.event = appendServer(e.event, h)
	stamp := e.dayStamp(h.End.Time)
	dst = e.appendHead(dst, Sighting, h, stamp)
	dst = end(dst, '}')
	dst = e.appendFlow(dst, h)
	if len(e.name) > 0 {
		dst = append(dst, `"tls":{"client":{"server_name":`...)
		dst = append(dst, e.name...)
		dst = end(end(dst, '}'), '}')
	}
	dst = e.appendWhere(dst, h, completed(h).Frame)
	dst = append(dst, `"certificate":{"hash":{`...)
	dst = appendHash(dst, `"sha256":`, c.SHA256[:])
	dst = end(dst, '}')
	if c.SPKISHA256 != [32]byte{} {
		dst = append(dst, `"spki":{`...)
		dst = appendHash(dst, `"sha256":`, c.SPKISHA256[:])
		dst = end(dst, '}')
	}
	dst = appendText(dst, `"subject":`, c.Subject.String)
	dst = appendText(dst, `"issuer":`, c.Issuer.String)
	dst = end(dst, '}')
	if previous == nil {
		dst = append(dst, `"sighting":{"change":"new"},`...)
	} else {
		dst = append(dst, `"sighting":{"change":"changed","previous":{"hash":{`...)
		dst = appendHash(dst, `"sha256":`, previous[:])
		dst = end(end(end(dst, '}'), '}'), '}')
	}
	dst = e.appendBrief(dst)
	return finish(dst), stamp
}

// CertificateMembers returns what the record of a certificate says of it, as members of
// JSON objects with a comma after each: full are those of oddcert.certificate but for
// role, position and der, with the validity as it was at a moment in nanoseconds since
// the Unix epoch; leaf are those of tls.server. c is whole.
func CertificateMembers(c *cert.Certificate, at int64) (full, leaf []byte) {
	j, _ := newCertificateJSON(nil, c, false)
	return appendValidity(slices.Clip(j.full), c, at), j.leaf
}
