// Package judgement has the words for what is known of a handshake beyond what it
// says itself: whether its chain is trusted, whether the server holds the key, where
// the server is, and what was seen of it before. The sensor judges, rules ask, and
// records tell.
package judgement

import "github.com/oddcert/oddcert/parsers/event"

// Judgement is what was judged of one handshake. A part that is nil was not asked
// for, or there is nothing to judge. What it refers to is shared and read-only.
type Judgement struct {
	Trust        *Trust
	KeyProof     *KeyProof
	Client       *Place
	Server       *Place
	Direction    Direction
	Transparency *Transparency
	Shape        *Shape
	Memory       *Memory

	// Pending says that an answer depends on handshakes before, so that rules must be
	// asked again where these are known.
	Pending bool
}

// Judge answers what rules ask of a handshake. It belongs to one goroutine.
type Judge interface {
	// Trust judges the chain of the server. With pending, the answer depends on
	// handshakes before: it is for the stage that has them in order. It is nil where
	// the handshake shows no certificate.
	Trust(h *event.Handshake) (t *Trust, pending bool)
	// KeyProof says whether the server has proven that it holds the key; nil where the
	// handshake shows no certificate. With pending, it is for the stage that has the
	// handshakes in order: few are asked for, and each is dear.
	KeyProof(h *event.Handshake) (p *KeyProof, pending bool)
	// Places says where client and server are.
	Places(h *event.Handshake) (client, server *Place, d Direction)
	// Transparency judges timestamps and stapled answers; nil where the handshake
	// shows no certificate.
	Transparency(h *event.Handshake) *Transparency
	// Shape is what the lengths of encrypted records tell; nil where there is nothing
	// to tell.
	Shape(h *event.Handshake) *Shape
}

// TrustStatus is what is wrong with a chain, the gravest first.
type TrustStatus uint8

// The statuses.
const (
	TrustUnknown  TrustStatus = iota // it cannot be judged; the reasons say why
	BadSignature                     // a signature is not by the key of its issuer
	Invalid                          // every signature is good, and a certificate was used for what it must not be
	SelfSigned                       // the leaf is its own issuer, and in no store
	UntrustedRoot                    // the chain is complete, and its root in no store
	Incomplete                       // an issuer was never seen
	Expired                          // a certificate was over
	NotYetValid                      // a certificate was still to become valid
	NameMismatch                     // the leaf is for other names than the one asked for
	Weak                             // trusted but for a weak key, hash or signature
	Trusted
)

var trustNames = [...]string{"unknown", "bad-signature", "invalid", "self-signed", "untrusted-root", "incomplete", "expired", "not-yet-valid", "name-mismatch", "weak", "trusted"}

// String is the name of s in records.
func (s TrustStatus) String() string { return trustNames[s] }

// Trust is the judgement of a chain at the time when it was captured.
type Trust struct {
	Status  TrustStatus
	Store   string   // where the anchor is, such as "microsoft" or "mozilla"; empty without an anchor
	Anchor  Anchor   // the root that the chain ends in; zero without one
	Reasons []string // in sentences
}

// Anchor is a root in a store.
type Anchor struct {
	Subject string
	SHA256  [32]byte // of the DER
}

// ProofStatus says whether the server holds the key of its leaf.
type ProofStatus uint8

// The statuses.
const (
	ProofUnknown ProofStatus = iota
	Proven
	Mismatch // what it signed was signed with another key
)

// String is the name of s in records.
func (s ProofStatus) String() string { return [...]string{"unknown", "proven", "mismatch"}[s] }

// KeyProof is the judgement of a signature of the handshake.
type KeyProof struct {
	Status ProofStatus
	Reason string // one sentence: why it is unknown, or which key and algorithm it was
}

// Place is what is known of an address. It is shared by all addresses of which the
// same is known.
type Place struct {
	Networks []string // names of the lists that have it, sorted
	Labels   []Label  // that the operator's lists give it, sorted by key
	ASN      uint32   // autonomous system; 0 when unknown
	ASOrg    string   // its organisation
	Country  string   // ISO 3166-1 alpha-2
}

// Label is one label of the operator's.
type Label struct{ Key, Value string }

// Direction is where a flow goes, seen from the operator's own networks. The values
// are those of network.direction in ECS.
type Direction string

// The directions.
const (
	DirectionUnknown Direction = "" // the operator has named no internal networks
	Inbound          Direction = "inbound"
	Outbound         Direction = "outbound"
	Internal         Direction = "internal"
	External         Direction = "external"
)

// Transparency is what is publicly logged and revoked of the leaf.
type Transparency struct {
	SCTs      int      // signed certificate timestamps: in the certificate, the TLS extension and the stapled answer
	Judged    bool     // Valid and Operators are known: the issuer was there
	Valid     int      // of them, with a good signature of a known log
	Operators []string // of the logs of these, sorted
	OCSP      string   // "good", "revoked" or "unknown" of the stapled answer; "invalid" when it is not by the issuer; empty without one
	Revoked   int64    // when, nanoseconds since the Unix epoch, UTC; 0 when not
	Reasons   []string // in sentences: what was wrong
}

// Shape is what the lengths of the server's encrypted records tell of its
// certificate. Lengths are 0 where they are not known.
type Shape struct {
	Certificate int        // bytes of the record of the Certificate message, as on the wire after its header
	Verify      int        // of CertificateVerify
	Finished    int        // of Finished
	Coalesced   bool       // several messages share a record, so only sums are known
	Fits        [][32]byte // SHA-256 of watched certificates that this is consistent with
}

// Memory is what was seen of the server and its certificate before, and with this
// handshake, in the order of records.
type Memory struct {
	Servers int      // addresses that showed the leaf or its key within the window; 0 without a certificate
	Clients int      // addresses to which it was shown
	Names   int      // names that were asked for
	OpenVPN int64    // when OpenVPN was seen on the server's address, nanoseconds since the Unix epoch; 0 when never
	Flagged *Flagged // nil unless an alert was raised for the server before, and this shows no certificate
}

// Flagged is the alert for which a server is remembered.
type Flagged struct {
	AlertID string // event.id of the first alert
	Rule    string // its title
	Verdict string
	Level   string   // of the rule
	Time    int64    // of the alert, nanoseconds since the Unix epoch, UTC
	SHA256  [32]byte // of the leaf that the server showed then; zero when it showed none
}

// Notable reports whether m says something that a handshake by itself does not
// suggest, so that rules must look at it again.
func (m *Memory) Notable() bool { return m != nil && (m.OpenVPN != 0 || m.Flagged != nil) }
