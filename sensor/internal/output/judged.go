package output

import (
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// nothing is the judgement of a handshake of which nothing was judged.
var nothing judgement.Judgement

// setJudged sets what records say of a handshake beyond what it says itself.
func (e *Encoder) setJudged(j *judgement.Judgement) {
	if e.judged = j; j == nil {
		e.judged = &nothing
	}
}

// placeOf returns where an endpoint is, nil when that is not known.
func (e *Encoder) placeOf(h *event.Handshake, d event.Direction) *judgement.Place {
	if d == h.Client {
		return e.judged.Client
	}
	return e.judged.Server
}

// appendPlace appends the members of an endpoint that say where it is.
func appendPlace(b []byte, p *judgement.Place) []byte {
	if p == nil {
		return b
	}
	if p.ASN != 0 {
		b = append(b, `"as":{`...)
		b = appendUint(b, `"number":`, uint64(p.ASN))
		if p.ASOrg != "" {
			b = append(b, `"organization":{`...)
			b = appendText(b, `"name":`, p.ASOrg)
			b = end(b, '}')
		}
		b = end(b, '}')
	}
	if p.Country != "" {
		b = append(b, `"geo":{`...)
		b = appendText(b, `"country_iso_code":`, p.Country)
		b = end(b, '}')
	}
	return b
}

// appendPlaceLabels appends the labels object with the labels of both ends and,
// where these do not have them, those of all records. The client's go before the
// server's.
func (e *Encoder) appendPlaceLabels(b []byte) []byte {
	from := len(b)
	b = append(b, `"labels":{`...)
	var client []judgement.Label
	if e.judged.Client != nil {
		client = e.judged.Client.Labels
	}
	add := func(key, value string) {
		b = append(appendString(b, key), ':')
		b = append(appendString(b, value), ',')
	}
	has := func(list []judgement.Label, key string) bool {
		return slices.ContainsFunc(list, func(l judgement.Label) bool { return l.Key == key })
	}
	for _, l := range client {
		add(l.Key, l.Value)
	}
	var server []judgement.Label
	if e.judged.Server != nil {
		server = e.judged.Server.Labels
	}
	for _, l := range server {
		if !has(client, l.Key) {
			add(l.Key, l.Value)
		}
	}
	for _, l := range e.labels {
		if !has(client, l.Key) && !has(server, l.Key) {
			add(l.Key, l.Value)
		}
	}
	return closeOrDrop(b, from, '}')
}

// labelled reports whether an endpoint has labels of its own.
func (e *Encoder) labelled() bool {
	c, s := e.judged.Client, e.judged.Server
	return c != nil && len(c.Labels) > 0 || s != nil && len(s.Labels) > 0
}

// appendBrief appends the members of oddcert that say what was judged of the server
// and its certificate: of trust and proof, only what came out.
func (e *Encoder) appendBrief(b []byte) []byte {
	j := e.judged
	if j.Trust != nil {
		b = append(b, `"trust":{`...)
		b = appendText(b, `"status":`, j.Trust.Status.String())
		b = end(b, '}')
	}
	if j.KeyProof != nil {
		b = appendText(b, `"key_proof":`, j.KeyProof.Status.String())
	}
	return e.appendPlaces(b)
}

// appendReasons appends what appendBrief appends, with the reasons.
func (e *Encoder) appendReasons(b []byte) []byte {
	j := e.judged
	if t := j.Trust; t != nil {
		b = append(b, `"trust":{`...)
		b = appendText(b, `"status":`, t.Status.String())
		b = appendText(b, `"store":`, t.Store)
		if t.Store != "" {
			b = append(b, `"anchor":{`...)
			b = appendText(b, `"subject":`, t.Anchor.Subject)
			b = appendHash(b, `"sha256":`, t.Anchor.SHA256[:])
			b = end(b, '}')
		}
		b = appendTexts(b, `"reasons":`, t.Reasons)
		b = end(b, '}')
	}
	if p := j.KeyProof; p != nil {
		b = appendText(b, `"key_proof":`, p.Status.String())
		b = appendText(b, `"key_proof_reason":`, p.Reason)
	}
	b = e.appendPlaces(b)
	if m := j.Memory; m != nil && m.Servers > 0 {
		b = append(b, `"prevalence":{`...)
		b = appendUint(b, `"servers":`, uint64(m.Servers))
		b = appendUint(b, `"clients":`, uint64(m.Clients))
		b = appendUint(b, `"names":`, uint64(m.Names))
		b = end(b, '}')
	}
	return e.appendTransparency(b, j.Transparency)
}

// appendPlaces appends the networks of both ends, and what else the server does.
func (e *Encoder) appendPlaces(b []byte) []byte {
	j := e.judged
	if j.Server != nil {
		b = appendTexts(b, `"network":`, j.Server.Networks)
	}
	if j.Client != nil {
		b = appendTexts(b, `"client_network":`, j.Client.Networks)
	}
	if j.Memory != nil && j.Memory.OpenVPN != 0 {
		b = append(b, `"server":{`...)
		b = e.clock.appendTime(b, `"openvpn":`, j.Memory.OpenVPN)
		b = end(b, '}')
	}
	return b
}

// appendJudged appends the members of oddcert that say what was judged of a
// handshake: with the reasons where full is set.
func (e *Encoder) appendJudged(b []byte, full bool) []byte {
	if full {
		b = e.appendReasons(b)
	} else {
		b = e.appendBrief(b)
	}
	b = e.appendShape(b, e.judged.Shape)
	if e.judged.Memory != nil {
		b = e.appendFlagged(b, e.judged.Memory.Flagged)
	}
	return b
}

func (e *Encoder) appendShape(b []byte, s *judgement.Shape) []byte {
	if s == nil {
		return b
	}
	b = append(b, `"shape":{`...)
	for _, m := range [...]struct {
		key string
		n   int
	}{{`"certificate_bytes":`, s.Certificate}, {`"verify_bytes":`, s.Verify}, {`"finished_bytes":`, s.Finished}} {
		if m.n > 0 {
			b = appendUint(b, m.key, uint64(m.n))
		}
	}
	b = appendBool(b, `"coalesced":`, s.Coalesced)
	if len(s.Fits) > 0 {
		b = append(b, `"fits":[`...)
		for i := range s.Fits {
			b = appendHash(b, "", s.Fits[i][:])
		}
		b = end(b, ']')
	}
	return end(b, '}')
}

func (e *Encoder) appendFlagged(b []byte, f *judgement.Flagged) []byte {
	if f == nil {
		return b
	}
	b = append(b, `"flagged":{`...)
	b = appendText(b, `"verdict":`, f.Verdict)
	b = appendText(b, `"rule":`, f.Rule)
	b = appendText(b, `"level":`, f.Level)
	b = appendText(b, `"alert":`, f.AlertID)
	b = e.clock.appendTime(b, `"time":`, f.Time)
	if f.SHA256 != [32]byte{} {
		b = append(b, `"hash":{`...)
		b = appendHash(b, `"sha256":`, f.SHA256[:])
		b = end(b, '}')
	}
	return end(b, '}')
}

func (e *Encoder) appendTransparency(b []byte, t *judgement.Transparency) []byte {
	if t == nil {
		return b
	}
	b = append(b, `"sct":{`...)
	b = appendUint(b, `"count":`, uint64(t.SCTs))
	if t.Judged {
		b = appendUint(b, `"valid":`, uint64(t.Valid))
	}
	b = appendTexts(b, `"operators":`, t.Operators)
	b = appendTexts(b, `"reasons":`, t.Reasons)
	b = end(b, '}')
	if t.OCSP == "" {
		return b
	}
	b = append(b, `"ocsp":{`...)
	b = appendText(b, `"status":`, t.OCSP)
	if t.Revoked != 0 {
		b = e.clock.appendTime(b, `"revoked":`, t.Revoked)
	}
	return end(b, '}')
}
