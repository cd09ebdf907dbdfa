// Package event has the words of what is seen in a flow: who talked, what a
// handshake said, and what became of the certificate. The parsers make them, and
// rules and records are made of them.
package event

import (
	"net/netip"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
)

// Direction is one of the two ways through a flow. 0 is the way of the first
// packet that was seen (of the SYN where one was seen); who is the client is
// known from the hellos only, see [Handshake.Client].
type Direction uint8

// Other is the opposite way.
func (d Direction) Other() Direction { return d ^ 1 }

// Transport is an IP protocol number, or [EAPOL].
type Transport uint8

// The transports that carry TLS.
const (
	TCP   Transport = 6
	UDP   Transport = 17
	SCTP  Transport = 132 // RFC 6083
	EAPOL Transport = 255 // frames of IEEE 802.1X, which have no IP; IANA has reserved the number
)

// String is the name of t in records; empty where it has none.
func (t Transport) String() string {
	switch t {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	case EAPOL:
		return "eapol"
	}
	return ""
}

// ParseTransport returns the transport with a name that records have.
func ParseTransport(name string) (t Transport, ok bool) {
	for _, t := range []Transport{TCP, UDP, SCTP, EAPOL} {
		if t.String() == name {
			return t, true
		}
	}
	return 0, false
}

// Endpoint is one end of a flow.
type Endpoint struct {
	Addr netip.Addr // the zero Addr where there is no IP, as over EAPOL
	Port uint16
	MAC  [6]byte // zero where the link type has none
}

// Origin is where frames come from: one capture file or one interface.
type Origin struct {
	Path      string // of the capture file as it was given; empty when live, "-" for standard input
	Interface string // of the live capture or of the pcapng interface block; may be empty
}

// Flow says who talked, and how it reached the sensor. It is immutable once a
// handshake refers to it.
type Flow struct {
	Transport Transport
	Endpoints [2]Endpoint // Endpoints[d] sends in direction d
	VLANs     [2]uint16   // outer and inner VLAN identifier, 0..4095, of the frame inside all tunnels
	VLANCount uint8       // how many of VLANs are set
	Tunnel    []string    // the carriers of the first frame with payload, outermost first, such as "vxlan"
	Start     int64       // time of the first packet, nanoseconds since the Unix epoch, UTC
	Origin    *Origin
}

// Moment is when and where in the capture something was seen.
type Moment struct {
	Time  int64  // nanoseconds since the Unix epoch, UTC
	Frame uint64 // 1-based number of the frame in its file or on its interface
}

// Later returns the one of two moments that was captured later. Where the times are
// further apart than frames come out of order, or than a handshake takes, the
// clock has jumped, and the numbers of the frames tell.
func Later(a, b Moment) Moment {
	after := b.Time > a.Time || b.Time == a.Time && b.Frame > a.Frame
	if b.Time < a.Time-maxDisorder || b.Time > a.Time+maxHandshakeTime {
		after = b.Frame > a.Frame
	}
	if after {
		return b
	}
	return a
}

// Outcome says what became of the server's certificate in a handshake.
type Outcome uint8

// The outcomes. Handshakes seen are the sum over them.
const (
	Extracted Outcome = iota // at least the leaf, whole
	Encrypted                // TLS 1.3 without keys
	Resumed                  // a resumed session sends none
	None                     // the suite, a raw key or the server's refusal leaves none
	Lost                     // there was, or may have been, one that was not seen whole; see Loss
	Outcomes                 // how many outcomes there are
)

// String is the name of o in records.
func (o Outcome) String() string {
	return [...]string{"extracted", "encrypted", "resumed", "none", "lost"}[o]
}

// Loss says why a certificate is [Lost].
type Loss uint8

// The causes of a loss.
const (
	NoLoss     Loss = iota
	Gap             // bytes of the stream were not captured
	Evicted         // the flow gave way to others
	Malformed       // the bytes are no TLS where TLS must be
	Limit           // a named limit was reached
	EndOfInput      // the capture, or the flow, ended before the certificate
	Losses          // how many causes there are
)

// String is the name of l in records.
func (l Loss) String() string {
	return [...]string{"", "gap", "evicted", "malformed", "limit", "end-of-input"}[l]
}

// Forged is a set of kinds of packets that an endpoint ignores. Somebody may have
// forged them to hide a handshake; few networks have many by chance.
type Forged uint8

// The kinds.
const (
	ForgedFIN       Forged = 1 << iota // FIN outside of the window, or before bytes that came after
	ForgedRST                          // RST with another number than the next (RFC 5961, section 3.2)
	ForgedSYN                          // SYN with another number, that nothing followed
	ForgedData                         // payload outside of the window (RFC 9293, section 3.10.7.4)
	ForgedChecksum                     // bad checksum, of a sender that has sent good ones
	ForgedACK                          // no acknowledgement, or of what was not sent (RFC 5961, section 5)
	ForgedTimestamp                    // a timestamp from before the last (RFC 7323, section 5)
	ForgedConflict                     // other bytes where some came before: either copy was parsed
)

var forgedNames = [...]string{"fin", "rst", "syn", "data", "checksum", "ack", "timestamp", "conflict"}

// Names returns the names of the kinds in f in records, in their order.
func (f Forged) Names() (names []string) {
	for i, name := range forgedNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// ClientHello is what records and rules use of a ClientHello (RFC 8446,
// section 4.1.2; RFC 5246, section 7.4.1.2).
type ClientHello struct {
	ServerName string // as sent, not validated; empty when there is none
	*Offer            // never nil
}

// Offer is what a client offers: the part of its hello that its software sends
// to every server. Hellos that offer the same share one, and it is read-only.
// The lists are in the order sent, with the values of GREASE (RFC 8701).
type Offer struct {
	Version             uint16 // legacy_version
	SupportedVersions   []uint16
	CipherSuites        []uint16
	Extensions          []uint16 // their types
	SupportedGroups     []uint16
	SignatureAlgorithms []uint16
	PointFormats        []uint8
	ALPN                []string // as sent

	// The fingerprints are empty where the hello was not seen whole.
	JA3    string // MD5, 32 lower-case hex digits
	JA3Raw string // the string that JA3 hashes
	JA4    string // JA4 of the client, such as t13d1516h2_8daaf6152771_02713d6af862
}

// ServerHello is what records and rules use of a ServerHello.
type ServerHello struct {
	Version     uint16 // negotiated: supported_versions if there, else legacy_version
	CipherSuite uint16
	ALPN        string // empty in TLS 1.3 without keys, for it is encrypted
	JA3S        string // MD5, 32 lower-case hex digits
	JA3SRaw     string
}

// ChainEntry is one certificate as it was sent.
type ChainEntry struct {
	// Certificate is shared between all handshakes that show it. For a
	// truncated entry it has the names that could be read, and no hash.
	*cert.Certificate
	Truncated bool
}

// What the times of one handshake's packets tell of the clock: unless it has
// jumped, they are out of order by no more than maxDisorder, and no further apart
// than maxHandshakeTime.
const (
	maxDisorder      = int64(2 * time.Second)
	maxHandshakeTime = int64(30 * time.Minute)
)

// ClockJumped reports whether the clock of the capture has jumped: the times of h are
// impossible. Its packets were captured in the order of their numbers, within half an
// hour, and the server's certificate came between the first and the last.
func (h *Handshake) ClockJumped() bool {
	outside := func(from, to int64) bool { return to < from-maxDisorder || to > from+maxHandshakeTime }
	at := h.Certificate
	if at == (Moment{}) {
		at = h.End
	}
	return h.Start != (Moment{}) && (outside(h.Start.Time, h.End.Time) || outside(h.Start.Time, at.Time) || outside(at.Time, h.End.Time))
}

// Notes is where whoever takes a handshake that is unfinished notes what it made of
// it, to be found when the rest comes. No parser looks at it.
type Notes struct{ Made any }

// Opened is the secrets that opened a handshake (RFC 9850), each nil where it was not
// known. They are read-only.
type Opened struct {
	Random [32]byte // of the ClientHello, by which a key log names the handshake
	Client []byte   // CLIENT_HANDSHAKE_TRAFFIC_SECRET
	Server []byte   // SERVER_HANDSHAKE_TRAFFIC_SECRET
}

// Handshake is one TLS or DTLS handshake, with or without a visible
// certificate. It owns what it refers to and is immutable.
type Handshake struct {
	Flow    *Flow
	Carrier string // name of the carrier in package carrier, such as "tls", "quic" or "starttls-smtp"; the innermost of nested ones
	Index   int    // 0-based number of the handshake on its flow

	Start       Moment // of the first byte of the handshake that was seen
	End         Moment // of the last packet that belongs to it: orders the records
	Certificate Moment // of the packet that completed the server's certificate; zero without one

	Client      Direction // the direction in which the client sends
	Datagram    bool      // DTLS
	Version     uint16    // negotiated; the record's or hello's version when no ServerHello was seen
	CipherSuite uint16    // 0 when no ServerHello was seen
	Curve       uint16    // named group of the key exchange, 0 when unknown (RFC 8422, section 5.1.1)
	ClientHello *ClientHello
	ServerHello *ServerHello

	HelloRetry  bool  // a HelloRetryRequest (RFC 8446, section 4.1.4) or HelloVerifyRequest was seen
	Resumed     bool  // the session was resumed
	Established bool  // both sides went on to encrypted data
	ClientAuth  bool  // the server sent a CertificateRequest
	Alerted     bool  // a fatal alert ended it, in the clear or opened with keys
	Alert       uint8 // its description (RFC 8446, section 6)

	// RawKey and ClientRawKey are the SHA-256 of the SubjectPublicKeyInfo that
	// was sent in the place of a certificate (RFC 7250); zero without one.
	RawKey       [32]byte
	ClientRawKey [32]byte

	// AuthorityNames are the authorities that the server accepts certificates of
	// clients from, as its CertificateRequest names them.
	AuthorityNames []string

	// Forged says what was wrong with packets of the flow that were ignored.
	Forged Forged
	// Alternative says that this is what the flow says with the later copy of
	// the bytes of which different copies came. What it says with the first copy
	// is a handshake of its own.
	Alternative bool

	Outcome Outcome
	Loss    Loss

	// Unfinished says that the handshake goes on: this is what was seen of it so far,
	// for those who do not wait for its end, and it will be emitted once more then.
	Unfinished bool
	// Unrecorded says that this hello gets no record. Nobody has answered it, and
	// there are so many like it that flows were evicted: only some of them are
	// worth a record. The choice does not depend on the number of workers.
	Unrecorded bool
	// Notes is shared by a handshake that was emitted unfinished and what is emitted
	// of it at its end; nil for any other.
	Notes *Notes

	// The chains are in the order sent. Where bytes of the message are missing,
	// there are fewer entries than were sent, and an empty truncated one stands
	// for a leaf that is not there.
	Chain       []ChainEntry // the server's
	ClientChain []ChainEntry // the client's

	// Proof is what the server signed to prove that it holds the key of its leaf.
	Proof Proof
	// OCSP is the stapled OCSPResponse for the leaf (RFC 6066, section 8; RFC 8446,
	// section 4.4.2.1), DER as sent; nil without one.
	OCSP []byte
	// SCTs is the SignedCertificateTimestampList of the TLS extension (RFC 6962,
	// section 3.3.1), as sent; nil without one.
	SCTs []byte
	// Flight is what the lengths of encrypted records tell of the certificate.
	Flight Flight

	// Opened is what a key log opened it with; nil where it was not encrypted, or
	// stays so. Records never have it.
	Opened *Opened

	// Memory is what the handshake is made of, for the parser that made it and
	// may take it back; nil when no parser has made it.
	Memory any
}
