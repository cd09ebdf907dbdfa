package rules

import (
	"slices"
	"time"

	"github.com/oddcert/oddcert/rules/judgement"
)

// judgedGetter appends the values that a field has in what the matcher knows of its
// handshake beyond the handshake itself. It asks the judge where that is not known
// yet.
type judgedGetter func(dst []value, m *Matcher) []value

// reach says what it takes to know the values of a judged field.
type reach uint8

const (
	_ reach = iota // it is judged when a rule first asks for it
	// told is there or not when rules are looked for, and the index may anchor a rule
	// at it: nothing is judged for that.
	told
)

// judgedFields are the fields that speak of judgements of a handshake. They have a
// scope of their own: a rule looks at them last, since an answer may be dear.
var judgedFields = slices.Concat(
	[]field{
		{
			name: "oddcert.trust.status", weight: 500,
			doc: "what is wrong with the chain of the server at the time of the capture, the gravest: `trusted`, `weak`, `name-mismatch`, " +
				"`not-yet-valid`, `expired`, `incomplete`, `untrusted-root`, `self-signed`, `invalid` (a certificate is used for what it must not be), `bad-signature` or `unknown`",
			judged: ofTrust(func(dst []value, t *judgement.Trust) []value { return addText(dst, t.Status.String()) }),
		},
		{
			name: "oddcert.trust.store", weight: 500,
			doc:    "store that has the root of the chain: that of a pack (`microsoft`), `mozilla` or `operator`",
			judged: ofTrust(func(dst []value, t *judgement.Trust) []value { return addText(dst, t.Store) }),
		},
		{
			name: "oddcert.trust.anchor.subject", weight: 100,
			doc:    "subject of that root",
			judged: ofTrust(func(dst []value, t *judgement.Trust) []value { return addText(dst, t.Anchor.Subject) }),
		},
		{
			name: "oddcert.trust.anchor.sha256", kind: digest, size: 32, weight: 100,
			doc: "SHA-256 of the DER of that root",
			judged: ofTrust(func(dst []value, t *judgement.Trust) []value {
				if t.Store == "" {
					return dst
				}
				return append(dst, value{raw: t.Anchor.SHA256[:]})
			}),
		},
		{
			name: "oddcert.trust.reasons", weight: 500,
			doc:    "all that is wrong with the chain, in sentences",
			judged: ofTrust(func(dst []value, t *judgement.Trust) []value { return addTexts(dst, t.Reasons) }),
		},
		{
			name: "oddcert.key_proof", reach: told, weight: 5000,
			doc: "whether the server has proven that it holds the key of its certificate: `proven`, `mismatch` or `unknown`; " +
				"judged once a day for each certificate on each server, and where a rule asks after its other conditions hold",
			judged: ofKeyProof(func(p *judgement.KeyProof) string { return p.Status.String() }),
		},
		{
			name: "oddcert.key_proof_reason", weight: 1000,
			doc:    "why that is so, in a sentence",
			judged: ofKeyProof(func(p *judgement.KeyProof) string { return p.Reason }),
		},
		{
			name: "oddcert.network", weight: 500,
			doc:    "lists of networks that have the address of the server, such as `microsoft`",
			judged: ofPlace(theServer, func(dst []value, p *judgement.Place) []value { return addTexts(dst, p.Networks) }),
		},
		{
			name: "oddcert.client_network", weight: 500,
			doc:    "lists of networks that have the address of the client",
			judged: ofPlace(theClient, func(dst []value, p *judgement.Place) []value { return addTexts(dst, p.Networks) }),
		},
		{
			name: "network.direction", weight: 1000,
			doc:    "`inbound`, `outbound`, `internal` or `external`, where a list of networks is called internal",
			judged: func(dst []value, m *Matcher) []value { m.places(); return addText(dst, string(m.j.Direction)) },
		},
	},
	placeFields("server", "the server", theServer),
	placeFields("destination", "the server", theServer),
	placeFields("client", "the client", theClient),
	placeFields("source", "the client", theClient),
	[]field{
		{
			name: "oddcert.server.openvpn", kind: instant, reach: told, weight: 1000,
			doc: "when OpenVPN, or an answer from port 1194, was last first seen on the address of the server",
			judged: ofMemory(func(dst []value, m *judgement.Memory) []value {
				if m.OpenVPN == 0 {
					return dst
				}
				return append(dst, value{n: m.OpenVPN / int64(time.Second)})
			}),
		},
		{
			name: "oddcert.prevalence.servers", kind: number, weight: 1000,
			doc:    "addresses that showed the certificate of the server, or its key, in the last days",
			judged: ofPrevalence(func(m *judgement.Memory) int { return m.Servers }),
		},
		{
			name: "oddcert.prevalence.clients", kind: number, weight: 1000,
			doc:    "clients to which it was shown",
			judged: ofPrevalence(func(m *judgement.Memory) int { return m.Clients }),
		},
		{
			name: "oddcert.prevalence.names", kind: number, weight: 1000,
			doc:    "names that were asked for when it was shown",
			judged: ofPrevalence(func(m *judgement.Memory) int { return m.Names }),
		},
		{
			name: "oddcert.flagged.verdict", reach: told, weight: 1,
			doc:    "verdict of the alert that was raised for the server before, where this handshake shows no certificate; once for each client",
			judged: ofFlagged(func(dst []value, f *judgement.Flagged) []value { return addText(dst, f.Verdict) }),
		},
		{
			name: "oddcert.flagged.rule", reach: told, weight: 1,
			doc:    "title of its rule",
			judged: ofFlagged(func(dst []value, f *judgement.Flagged) []value { return addText(dst, f.Rule) }),
		},
		{
			name: "oddcert.flagged.level", reach: told, weight: 1,
			doc:    "level of its rule",
			judged: ofFlagged(func(dst []value, f *judgement.Flagged) []value { return addText(dst, f.Level) }),
		},
		{
			name: "oddcert.flagged.alert", reach: told, weight: 1,
			doc:    "its `event.id`",
			judged: ofFlagged(func(dst []value, f *judgement.Flagged) []value { return addText(dst, f.AlertID) }),
		},
		{
			name: "oddcert.flagged.time", kind: instant, reach: told, weight: 1,
			doc: "its time",
			judged: ofFlagged(func(dst []value, f *judgement.Flagged) []value {
				return append(dst, value{n: f.Time / int64(time.Second)})
			}),
		},
		{
			name: "oddcert.flagged.hash.sha256", kind: digest, size: 32, reach: told, weight: 1,
			doc: "SHA-256 of the certificate that the server showed then",
			judged: ofFlagged(func(dst []value, f *judgement.Flagged) []value {
				if f.SHA256 == [32]byte{} {
					return dst
				}
				return append(dst, value{raw: f.SHA256[:]})
			}),
		},
		{
			name: "oddcert.shape.certificate_bytes", kind: number, weight: 1000,
			doc:    "bytes of the encrypted record of the server's certificate, in TLS 1.3",
			judged: ofShape(func(s *judgement.Shape) int { return s.Certificate }),
		},
		{
			name: "oddcert.shape.verify_bytes", kind: number, weight: 1000,
			doc:    "bytes of the encrypted record of its signature",
			judged: ofShape(func(s *judgement.Shape) int { return s.Verify }),
		},
		{
			name: "oddcert.shape.finished_bytes", kind: number, weight: 1000,
			doc:    "bytes of the encrypted record that ends its handshake",
			judged: ofShape(func(s *judgement.Shape) int { return s.Finished }),
		},
		{
			name: "oddcert.shape.coalesced", kind: boolean, weight: 1000,
			doc: "whether several of these share a record, so that only sums are known",
			judged: func(dst []value, m *Matcher) []value {
				if s := m.shape(); s != nil {
					dst = addFlag(dst, s.Coalesced)
				}
				return dst
			},
		},
		{
			name: "oddcert.shape.fits", kind: digest, size: 32, reach: told, weight: 1,
			doc: "SHA-256 of watched certificates, and of those that the server showed before, that these lengths are consistent with; a hint, and no proof",
			judged: func(dst []value, m *Matcher) []value {
				if s := m.shape(); s != nil {
					for i := range s.Fits {
						dst = append(dst, value{raw: s.Fits[i][:]})
					}
				}
				return dst
			},
		},
		{
			name: "oddcert.sct.count", kind: number, weight: 1000,
			doc: "signed certificate timestamps: in the server's certificate, its TLS extension and its stapled answer",
			judged: ofTransparency(func(dst []value, t *judgement.Transparency) []value {
				return append(dst, value{n: int64(t.SCTs)})
			}),
		},
		{
			name: "oddcert.sct.valid", kind: number, reach: told, weight: 5000,
			doc: "of these, with a good signature of a known log; no value where the issuer was not seen; judged as `oddcert.key_proof` is",
			judged: ofTransparency(func(dst []value, t *judgement.Transparency) []value {
				if !t.Judged {
					return dst
				}
				return append(dst, value{n: int64(t.Valid)})
			}),
		},
		{
			name: "oddcert.sct.operators", weight: 1000,
			doc:    "operators of these logs",
			judged: ofTransparency(func(dst []value, t *judgement.Transparency) []value { return addTexts(dst, t.Operators) }),
		},
		{
			name: "oddcert.ocsp.status", weight: 1000,
			doc:    "what the stapled answer says of the certificate: `good`, `revoked`, `unknown`, or `invalid` where its issuer did not sign that",
			judged: ofTransparency(func(dst []value, t *judgement.Transparency) []value { return addText(dst, t.OCSP) }),
		},
		{
			name: "oddcert.ocsp.revoked", kind: instant, weight: 1000,
			doc: "when the certificate was revoked",
			judged: ofTransparency(func(dst []value, t *judgement.Transparency) []value {
				if t.Revoked == 0 {
					return dst
				}
				return append(dst, value{n: t.Revoked / int64(time.Second)})
			}),
		},
	},
)

type end bool

const (
	theServer end = false
	theClient end = true
)

// placeFields makes the fields of where an endpoint is.
func placeFields(name, whose string, of end) []field {
	return []field{
		{
			name: name + ".as.number", kind: number, weight: 500,
			doc: "number of the autonomous system of the address of " + whose + ", where a database has it",
			judged: ofPlace(of, func(dst []value, p *judgement.Place) []value {
				if p.ASN == 0 {
					return dst
				}
				return append(dst, value{n: int64(p.ASN)})
			}),
		},
		{
			name: name + ".as.organization.name", weight: 500,
			doc:    "organisation of the autonomous system of " + whose,
			judged: ofPlace(of, func(dst []value, p *judgement.Place) []value { return addText(dst, p.ASOrg) }),
		},
		{
			name: name + ".geo.country_iso_code", weight: 500,
			doc:    "country of the address of " + whose + ", two letters of ISO 3166-1",
			judged: ofPlace(of, func(dst []value, p *judgement.Place) []value { return addText(dst, p.Country) }),
		},
	}
}

// The methods below return what is judged of the handshake. While the index looks
// for rules, only what is judged already.

func (m *Matcher) trust() *judgement.Trust {
	if m.asks(m.j.Trust == nil) {
		t, pending := m.judge.Trust(m.h)
		if pending {
			m.j.Pending = true
			return nil
		}
		m.j.Trust = t
	}
	return m.j.Trust
}

func (m *Matcher) keyProof() *judgement.KeyProof {
	if m.asks(m.j.KeyProof == nil) {
		p, pending := m.judge.KeyProof(m.h)
		if pending {
			m.j.Pending = true
			return nil
		}
		m.j.KeyProof = p
	}
	return m.j.KeyProof
}

func (m *Matcher) places() {
	if m.asks(m.j.Client == nil && m.j.Server == nil) {
		m.j.Client, m.j.Server, m.j.Direction = m.judge.Places(m.h)
	}
}

func (m *Matcher) shape() *judgement.Shape {
	if m.asks(m.j.Shape == nil) {
		m.j.Shape = m.judge.Shape(m.h)
	}
	return m.j.Shape
}

func (m *Matcher) transparency() *judgement.Transparency {
	if m.asks(m.j.Transparency == nil) {
		m.j.Transparency = m.judge.Transparency(m.h)
	}
	return m.j.Transparency
}

// asks reports whether the judge is to be asked for something that is missing.
func (m *Matcher) asks(missing bool) bool { return missing && m.judge != nil && !m.looking }

// The functions below make getters.

func ofTrust(get func([]value, *judgement.Trust) []value) judgedGetter {
	return func(dst []value, m *Matcher) []value {
		if t := m.trust(); t != nil {
			dst = get(dst, t)
		}
		return dst
	}
}

func ofKeyProof(of func(*judgement.KeyProof) string) judgedGetter {
	return func(dst []value, m *Matcher) []value {
		if p := m.keyProof(); p != nil {
			dst = addText(dst, of(p))
		}
		return dst
	}
}

func ofPlace(of end, get func([]value, *judgement.Place) []value) judgedGetter {
	return func(dst []value, m *Matcher) []value {
		m.places()
		p := m.j.Server
		if of == theClient {
			p = m.j.Client
		}
		if p != nil {
			dst = get(dst, p)
		}
		return dst
	}
}

func ofTransparency(get func([]value, *judgement.Transparency) []value) judgedGetter {
	return func(dst []value, m *Matcher) []value {
		if t := m.transparency(); t != nil {
			dst = get(dst, t)
		}
		return dst
	}
}

func ofShape(of func(*judgement.Shape) int) judgedGetter {
	return func(dst []value, m *Matcher) []value {
		if s := m.shape(); s != nil {
			dst = addPositive(dst, of(s))
		}
		return dst
	}
}

// ofMemory makes the getter of what most handshakes lack. Where it has a value, the
// stage that has the handshakes in order matches again.
func ofMemory(get func([]value, *judgement.Memory) []value) judgedGetter {
	return func(dst []value, m *Matcher) []value {
		if m.j.Memory != nil {
			dst = get(dst, m.j.Memory)
		}
		return dst
	}
}

func ofFlagged(get func([]value, *judgement.Flagged) []value) judgedGetter {
	return ofMemory(func(dst []value, m *judgement.Memory) []value {
		if m.Flagged != nil {
			dst = get(dst, m.Flagged)
		}
		return dst
	})
}

// ofPrevalence makes the getter of a number that every certificate has, and that
// only the stage with the handshakes in order knows.
func ofPrevalence(of func(*judgement.Memory) int) judgedGetter {
	return func(dst []value, m *Matcher) []value {
		switch {
		case m.j.Memory != nil:
			dst = addPositive(dst, of(m.j.Memory))
		case m.judge != nil && !m.looking && len(m.h.Chain) > 0:
			m.j.Pending = true
		}
		return dst
	}
}
