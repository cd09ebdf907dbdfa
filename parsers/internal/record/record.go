// Package record reads one direction of TLS over a byte stream, as RFC 8446,
// section 5, and RFC 5246, section 6, have it: bytes and gaps go in, and the verbs
// of a [Sink] come out. It finds where TLS begins after another protocol, puts
// handshake messages together, and goes on after bytes that are missing: with
// the next record, with the captured part of a message, and with certificates that are
// recognized by their shape. Protected records are opened where there is a secret.
package record

import (
	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/memory"
	"github.com/oddcert/oddcert/parsers/tls"
)

// Sink takes what the records of a stream hold. Its methods are called while a
// method of a [Direction] runs, at most a few times for each handshake message.
// What they are given is borrowed until they return.
type Sink interface {
	// Begins says that a message of type typ begins, [tls.HelloRequest] where
	// nobody knows which.
	Begins(d event.Direction, at event.Moment, typ uint8)

	// Message takes a handshake message; cause says why it is not whole when it
	// is not. It reports whether the protection of the direction ends with it.
	Message(d event.Direction, at event.Moment, m tls.Message, cause event.Loss) (last bool)

	// SSLv2 takes a hello of SSL 2.0, with its header. It reports whether what
	// follows is of SSL 2.0 too.
	SSLv2(d event.Direction, at event.Moment, hello []byte, client bool) (old bool)

	// ChangeCipherSpec reports whether all that follows is encrypted.
	ChangeCipherSpec(d event.Direction, at event.Moment) (encrypted bool)

	// Alert takes an alert in plaintext, or one that was decrypted.
	Alert(d event.Direction, at event.Moment, level, description uint8)

	// Encrypted says that all that follows is encrypted; by is the type of the
	// record that shows it, 0 where that is the ChangeCipherSpec.
	Encrypted(d event.Direction, at event.Moment, by uint8)

	// EncryptedRecord takes the length of an encrypted record: of the first of a
	// direction, and as long as it reports true of each that follows.
	EncryptedRecord(d event.Direction, length int) (more bool)

	// Touch says that a packet belongs to the handshake.
	Touch(at event.Moment)

	// Protect looks for the secret of a direction. It makes [Stream.Protection]
	// ready, and reports whether there is a secret or one may come.
	Protect(d event.Direction, at event.Moment) bool

	// Decrypted says that the secret of a direction is right.
	Decrypted(d event.Direction, at event.Moment)

	// Nested offers the beginning of a stream that another carries, and reports
	// whether it was taken: nothing more of it is to be read here then.
	Nested(d event.Direction, at event.Moment, b []byte) (taken bool)

	// Progress is how far the handshake has come.
	Progress() Progress
}

// Progress is how far a handshake has come.
type Progress struct {
	Begun    bool // there is one
	Answered bool // its ServerHello was seen
	Retried  bool // a HelloRetryRequest was
}

// Shared is what all streams of a parser use. It is not safe for concurrent use.
type Shared struct {
	Pool    memory.Pool
	Certs   *cert.Cache
	Waiting int    // bytes of the buffers with what waits for secrets
	Limited uint64 // encrypted parts that were given up because of a limit

	CarvingLimited uint64 // directions in which no more certificates are searched because of a limit
	ChainLimited   uint64 // directions of which not all certificates that were found are kept

	start [32]byte // scratch of what is recognized
	plain []byte   // scratch of decrypted records
}

// Plain is scratch space for decrypted records. Whoever appends to it gives it
// back with [Shared.KeepPlain].
func (s *Shared) Plain() []byte { return s.plain[:0] }

// KeepPlain gives scratch space back.
func (s *Shared) KeepPlain(b []byte) { s.plain = b[:0] }

// Stream is a byte stream with TLS in it, or to come: both of its directions. It
// must not be copied once it is open.
type Stream struct {
	shared      *Shared
	sink        Sink
	account     *memory.Account
	tcp         bool
	dirs        [2]Direction
	scanners    *[2]carrier.Scanner // of what comes before TLS; nil while nobody needs them
	protections *[2]Protection      // nil without secrets
}

// Open begins a stream, whose flow keeps what account says. tcp says that bytes may
// come for as long as the flow lives.
func (s *Stream) Open(shared *Shared, sink Sink, account *memory.Account, tcp bool) {
	s.shared, s.sink, s.account, s.tcp = shared, sink, account, tcp
	s.Reset()
}

// Reset begins both directions anew.
func (s *Stream) Reset() { s.dirs = [2]Direction{{stream: s}, {stream: s, d: 1}} }

// Close ends the stream, which must have nothing borrowed any more. It can be
// opened again.
func (s *Stream) Close() {
	if s.scanners != nil {
		*s.scanners = [2]carrier.Scanner{}
	}
	*s = Stream{scanners: s.scanners}
}

// Direction is one of the two directions.
func (s *Stream) Direction(d event.Direction) *Direction { return &s.dirs[d] }

// Phase is where one direction of a flow is.
type Phase uint8

// The phases.
const (
	Cleartext Phase = iota // nothing that looks like TLS yet
	Plaintext              // in plaintext records
	SSLv2                  // in an SSLv2 hello
	Unsynced               // where the next record begins is not known
	Protected              // what follows is encrypted, and decrypted here, or waits for a secret
	Encrypted              // all that follows is encrypted
	Abandoned              // given up: no TLS, or no way back to the records
)

// State is what is known of one direction, whatever its records are carried in.
type State struct {
	Phase     Phase
	Seen      bool       // there were bytes, or datagrams
	Gapped    bool       // bytes of the handshake may be missing
	Full      bool       // it waits for a secret, and no more of it is held
	Unaligned bool       // the next handshake record might not begin with a message
	Cause     event.Loss // why the records could not be followed
	Version   uint16     // of the first record
	After     int        // segments or datagrams since it ended
	Protected int        // records of DTLS of later epochs
}

// Ended reports whether nothing more is to be read of the direction.
func (s *State) Ended() bool { return s.Phase == Encrypted || s.Phase == Abandoned || s.Full }

// Direction is one direction of a stream. Its peer is the other.
type Direction struct {
	State
	stream *Stream

	bytes    int // in Cleartext, Unsynced or Abandoned; else of plaintext records
	segments int // in Cleartext or Unsynced
	length   int // of the current record's body
	left     int // bytes of it that are still to come

	partial partialMessage
	carver  *carver // nil where nothing was lost
	flight  flight

	header    [startBytes]byte // the part of a record's beginning that has come
	headers   uint8            // bytes of it
	typ       uint8            // of the current record
	alert     uint16           // alertBegun and the level of an alert whose description is to come, 0 without
	d         event.Direction
	carrier   carrier.Carrier // of the TLS in this direction
	midstream bool            // it was not seen how it began
	late      bool            // what comes now lies before what came
	ccs       bool            // a ChangeCipherSpec that did not tell whether encryption begins
	skip      bool            // the rest of the handshake record is of no use
}

// peer is the other direction.
func (r *Direction) peer() *Direction { return &r.stream.dirs[r.d.Other()] }

// scanner follows what comes before TLS; nil while nobody needs it.
func (r *Direction) scanner() *carrier.Scanner {
	if r.stream.scanners == nil {
		return nil
	}
	return &r.stream.scanners[r.d]
}

// cleartext is the scanner, which most streams that are TLS never need.
func (r *Direction) cleartext() *carrier.Scanner {
	if r.stream.scanners == nil {
		r.stream.scanners = new([2]carrier.Scanner)
	}
	return &r.stream.scanners[r.d]
}

// Midstream says that the capture of the direction began in the middle of the
// stream, or might have: to be told before the first bytes.
func (r *Direction) Midstream() { r.midstream = true }

// BeganMidstream reports whether the capture of the direction began in the middle.
func (r *Direction) BeganMidstream() bool { return r.midstream }

// Carrier is what carries the TLS of the direction.
func (r *Direction) Carrier() carrier.Carrier { return r.carrier }

// Lost reports whether what comes next must be searched for certificates, because
// bytes before it are missing.
func (r *Direction) Lost() bool {
	return r.Phase == Unsynced || r.Phase == Cleartext && (r.Gapped || r.midstream)
}

// NotTLS reports whether all that came was not TLS.
func (r *Direction) NotTLS() bool {
	return r.Seen && !r.Gapped && r.headers == 0 && (r.Phase == Cleartext || r.Phase == Abandoned && r.Cause == event.NoLoss)
}

// Quiet reports whether the direction has spoken, and that was not TLS so far.
func (r *Direction) Quiet() bool { return r.Seen && r.Phase == Cleartext && r.headers == 0 }

// Searched reports whether TLS was searched in vain, in bytes of no protocol that
// is known.
func (r *Direction) Searched() bool {
	s := r.scanner()
	return r.Phase == Abandoned && (s == nil || !s.Foreign())
}

// Monologue reports whether the direction, in which TLS was searched in vain, has
// spoken for longer than is waited for the other.
func (r *Direction) Monologue() bool {
	return r.Searched() && !r.peer().Seen && (r.bytes > MaxMonologue || r.After > MaxMonologueSegments)
}

// searchAgain says that the other direction is TLS: where this one was given up,
// TLS is looked for once more.
func (r *Direction) searchAgain() {
	if r.Phase == Abandoned && r.Cause == event.NoLoss && r.stream.tcp {
		r.Phase = Cleartext
		r.bytes, r.segments = min(r.bytes, MaxCleartext), 0
	}
}

// Scanning reports whether something was said in either direction that is not TLS.
func (s *Stream) Scanning() bool { return s.scanners != nil }

// ShutNested says that what the carrier carries is not TLS from its first byte.
func (r *Direction) ShutNested() { r.scanner().Shut() }

// Flush hands on the captured part of an unfinished message, at the end of a flow or of
// a handshake, and searches what was kept for certificates.
func (r *Direction) Flush(cause event.Loss) {
	r.cutMessage(cause)
	r.flushCarver()
}

// Release gives back what the direction has borrowed for plaintext.
func (r *Direction) Release() {
	r.stream.shared.Pool.Put(r.partial.kept)
	r.partial = partialMessage{}
	if r.carver != nil {
		r.dropCarved()
	}
}

// EarlierBytes takes bytes of a direction whose capture began in the middle: they
// lie somewhere before those that were taken first.
func (r *Direction) EarlierBytes(at event.Moment, b []byte) {
	r.flushCarver()
	now := *r
	*r = Direction{State: State{Phase: Unsynced, Seen: true, Gapped: true}, stream: r.stream, d: r.d, late: true, carver: now.carver}
	r.carve(at, b, true, true)
	r.late = false
	r.cutMessage(event.Gap)
	r.flushCarver()
	now.carver = r.carver
	*r = now
}
