// Package inventory keeps what was seen of each certificate, of each server, and of who
// met whom.
package inventory

import (
	"bytes"
	"cmp"
	"net/netip"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// Hash is the SHA-256 of a certificate's DER.
type Hash [32]byte

// Count is how many distinct things there are.
type Count struct {
	N         uint64
	Estimated bool // N is an estimate: there were more than are counted one by one
}

// Role is a set of the places in which a certificate was shown.
type Role uint8

// The roles.
const (
	Leaf   Role = 1 << iota // of a server, first in its chain
	Issuer                  // after the first in a server's chain
	Client                  // in a client's chain
)

// Certificate is one distinct certificate and what was seen of it. Times are
// nanoseconds since the Unix epoch, UTC, by the packets.
type Certificate struct {
	SHA256 Hash
	SPKI   [32]byte // SHA-256 of its SubjectPublicKeyInfo; zero when unreadable

	Subject, Issuer    string   // distinguished names, as cert.Name.String has them
	CommonName         string   // the first of the subject
	Organization       string   // the first of the issuer
	Names              []string // of subjectAltName, at most MaxNames
	Serial             string   // upper-case hex
	NotBefore          int64    // seconds since the Unix epoch; 0 when unreadable
	NotAfter           int64
	KeyAlgorithm       string // as cert.Certificate has them
	KeySize            int
	KeyCurve           string
	SignatureAlgorithm string
	SelfSigned         bool
	CA                 bool
	ParseError         string

	Roles       Role
	First, Last Place  // of the handshakes that showed it
	Handshakes  uint64 // that showed it
	Servers     Count  // that showed it, by address, port and carrier
	Clients     Count  // addresses to which it was shown
	AskedFor    Count  // names that were asked for when it was shown as a leaf

	Trust   judgement.TrustStatus // as it was last judged as a leaf
	Judged  bool                  // Trust and TrustReasons say something
	Reasons []string              // of Trust, in sentences
	Proof   judgement.ProofStatus // the best that was seen: a proof, else a mismatch, else unknown
	Chain   []Hash                // the certificates after it, as they were last sent with it as the leaf
	Alerts  uint64                // that were raised for handshakes with it as the leaf
	Level   string                // the highest of their levels
}

// Place is where in the captures something was seen.
type Place struct {
	Time      int64  // nanoseconds since the Unix epoch, UTC
	Frame     uint64 // 1-based, of the packet that completed the certificate, else of the handshake's last
	Path      string // of the capture as it was given; empty when live
	Interface string
	Flow      Flow
}

// Flow is the five-tuple of a handshake.
type Flow struct {
	Transport event.Transport
	Client    netip.AddrPort // the zero AddrPort over EAPOL
	Server    netip.AddrPort
	ClientMAC [6]byte // over EAPOL
	ServerMAC [6]byte
}

// ServerKey names a server.
type ServerKey struct {
	Address   netip.Addr // the zero Addr over EAPOL
	MAC       [6]byte    // over EAPOL
	Port      uint16
	Transport event.Transport
	Carrier   string // as event.Handshake has it
}

// Compare orders servers by address, port, transport and carrier.
func (k ServerKey) Compare(o ServerKey) int {
	return cmp.Or(k.Address.Compare(o.Address), bytes.Compare(k.MAC[:], o.MAC[:]), cmp.Compare(k.Port, o.Port), cmp.Compare(k.Transport, o.Transport), cmp.Compare(k.Carrier, o.Carrier))
}

// Server is what was seen of a server. Maps have a count of handshakes for each value,
// and at most MaxValues values.
type Server struct {
	ServerKey
	First, Last  Place
	Handshakes   uint64
	Outcomes     [event.Outcomes]uint64
	Certificates Count // distinct leaves
	Clients      Count
	AskedFor     Count

	Versions   map[uint16]uint64 // negotiated
	Suites     map[uint16]uint64 // negotiated
	Groups     map[uint16]uint64 // negotiated, of the key exchange
	Offered    map[uint16]uint64 // groups that its clients offered
	Signatures map[uint16]uint64 // schemes with which it signed handshakes
	ALPN       map[string]uint64 // negotiated
	Retries    uint64            // HelloRetryRequest or HelloVerifyRequest

	Alerts uint64
	Level  string // the highest of their levels
}

// Sighting is a certificate that a server showed.
type Sighting struct {
	Certificate Hash
	Server      ServerKey
	Roles       Role
	First, Last Place
	Handshakes  uint64
	Names       []string // asked for, at most MaxNames
	AskedFor    Count
	Unnamed     uint64 // of Handshakes, those in which no name was asked for
	Alerts      uint64
}

// Contact is a client that met a server.
type Contact struct {
	Client      netip.Addr
	Server      ServerKey
	Certificate Hash // the leaf that it was shown last; zero for none
	// Certificates are the leaves that it was shown, each once, in the order in which they
	// came, at most MaxNames.
	Certificates []Hash
	First, Last  Place
	Handshakes   uint64
	Alerts       uint64
}

// Alert is an alert that was raised.
type Alert struct {
	ID          string // event.id
	Time        int64
	Place       Place
	RuleID      string
	Rule        string // its title
	RuleVersion string
	Level       string
	Verdict     string
	Reason      string
	Reasons     []string
	Server      ServerKey
	Client      netip.AddrPort
	Name        string // asked for
	Certificate Hash   // the leaf; zero for none
	Chain       []Hash
	Counted     uint64 // those like it that were counted with it
	Evidence    string // of the pack; empty without
	Record      []byte // the JSON of its record
	Flagged     string // event.id of the alert before for the same server of which this one reminds; empty for none
}

// Run is one run of the program that wrote to the inventory: what it read and what it
// lost.
type Run struct {
	Begun, Ended int64 // by the wall clock; Ended is 0 while it runs or where it was killed
	Version      string
	Sensor       string
	Sources      []Source
	Start, End   int64  // of the packets
	Stats        []byte // the JSON of its last record of statistics
	Seen, Lost   []Line // what it saw, and what it lost and why, as package summary has them
}

// Line is a number of a run with what it counts, and a note.
type Line struct {
	N           uint64
	Label, Note string
}

// Source is one capture or interface that was read.
type Source struct {
	Path      string
	SHA256    [32]byte // of the whole file; zero where it is not known
	Size      int64    // bytes
	Interface string
	Frames    uint64
	Start     int64 // of its packets, nanoseconds since the Unix epoch, UTC; 0 where that is not known
	End       int64
}

// Totals are how much there is.
type Totals struct {
	Certificates, Servers, Sightings, Contacts, Alerts, Handshakes uint64
	Versions, Suites, Groups                                       map[uint16]uint64 // of all handshakes, negotiated
	Outcomes                                                       [event.Outcomes]uint64
	First, Last                                                    int64  // of the handshakes
	Lost                                                           uint64 // findings that could not be stored
	Forgotten                                                      uint64 // entries that were given up for newer ones
}
