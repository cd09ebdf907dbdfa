package parsers

// Verdict is what a [Conn] wants of its flow.
type Verdict uint8

// The verdicts.
const (
	More    Verdict = iota // more bytes: the handshake is not over, or not yet found
	Decided                // nothing: the handshake is over, or this is no TLS
)

// Parser holds what one worker shares between its flows: scratch space, caches
// of certificates and hellos, counters. It is not safe for concurrent use.
type Parser struct {
	emit  func(*Handshake)
	stats Stats
}

// New returns a parser that calls emit, on the caller's goroutine, for each
// handshake that is over. The handshake is the callee's to keep.
func New(emit func(*Handshake)) *Parser { return &Parser{emit: emit} }

// Stats counts what a parser has seen and lost.
type Stats struct {
	Handshakes uint64           `json:"handshakes"`
	Outcomes   [Outcomes]uint64 `json:"-"`
	Losses     [Losses]uint64   `json:"-"`
}

// Stats returns the counters so far.
func (p *Parser) Stats() Stats { return p.stats }

// Conn is the protocol state of one flow.
type Conn struct{ flow *Flow }

// Open starts the protocol state of a flow. The flow must not change any more.
func (p *Parser) Open(f *Flow) *Conn { return &Conn{flow: f} }

// Segment takes the next bytes in order of one direction of a TCP stream. b is
// borrowed until the return.
func (p *Parser) Segment(c *Conn, d Direction, at Moment, b []byte) Verdict { return Decided }

// Gap says that the next n bytes of one direction were not captured; 0 says
// that nobody knows how many.
func (p *Parser) Gap(c *Conn, d Direction, at Moment, n int) Verdict { return Decided }

// Datagram takes one UDP payload. b is borrowed until the return.
func (p *Parser) Datagram(c *Conn, d Direction, at Moment, b []byte) Verdict { return Decided }

// Close ends the flow: what it has of a handshake is emitted, a certificate
// that was still to come is lost by cause, and c must not be used again.
func (p *Parser) Close(c *Conn, cause Loss) {}

// LooksDTLS says whether a UDP payload may belong to a DTLS handshake.
func LooksDTLS(b []byte) bool { return false }

// StartsDTLS says whether a UDP payload begins a DTLS handshake.
func StartsDTLS(b []byte) bool { return false }
