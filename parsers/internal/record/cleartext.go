package record

import (
	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// opens reports whether TLS may begin with the next byte: at the beginning
// of the stream, or where the carrier says so.
func (r *Direction) opens() bool { s := r.scanner(); return s == nil || s.Open() }

// framed reports whether the TLS comes in packets of the carrier.
func (r *Direction) framed() bool { s := r.scanner(); return s != nil && s.Framed() }

// Segment takes the next bytes of one direction, out of the carrier's packets
// where it has some.
func (r *Direction) Segment(at event.Moment, b []byte) {
	if r.framed() {
		r.unframe(at, b)
		return
	}
	r.read(at, b)
}

// read takes the next bytes of one direction.
func (r *Direction) read(at event.Moment, b []byte) {
	switch r.Phase {
	case Cleartext:
		r.search(at, b)
		r.checkBudget()
	case Unsynced:
		held := r.headers > 0
		if r.recognize(at, b) {
			break
		}
		r.headers = 0
		if held && r.recognize(at, b) { // not what it began like: perhaps it begins here
			break
		}
		r.searchUnsynced(at, b)
	case Plaintext:
		r.readPlaintext(at, b)
	case SSLv2:
		r.readSSLv2(at, b)
	case Protected:
		if r.flight.open {
			r.follow(b)
		}
		r.readProtected(at, b)
	case Abandoned:
		r.After++
		r.bytes += len(b)
		// Only a segment that begins with a hello is of interest: to tell costs
		// a look at its first byte.
		if b[0] == tls.Handshake && !r.stream.sink.Progress().Begun && r.Cause == event.NoLoss && detect(b[:min(len(b), startBytes)], false) == hello {
			r.Phase = Cleartext
			if !r.recognize(at, b) {
				r.Phase = Abandoned
			}
		}
	case Encrypted:
		r.After++
		if r.flight.open {
			r.follow(b)
		}
	}
}

// search looks for TLS in a segment where there was none yet.
func (r *Direction) search(at event.Moment, b []byte) {
	if r.headers == 0 {
		r.scan(at, b, r.bytes <= MaxCleartext && r.segments < MaxCleartextSegments || r.isTLS(), false)
		return
	}
	if r.recognize(at, b) {
		return
	}
	held := r.stream.shared.start[:copy(r.stream.shared.start[:], r.header[:r.headers])] // what looked like the beginning of TLS is not
	r.headers = 0
	r.cleartext().Shut()
	r.scan(at, held, false, true)
	if r.Phase == Cleartext && !r.framed() {
		r.search(at, b)
	} else {
		r.Segment(at, b)
	}
}

// scan looks for TLS where the carrier lets it begin, and at the beginning of b
// in any case if boundary says so: the last resort for carriers that nobody
// knows. What was carved before is not again.
func (r *Direction) scan(at event.Moment, b []byte, boundary, carved bool) {
	plain := 0 // where what is no TLS begins
	for n := 0; n < len(b); {
		if boundary || r.opens() {
			if !carved && r.searchCleartext(at, b[plain:n]) {
				r.read(at, b[n:])
				return
			}
			if plain = n; r.recognize(at, b[n:]) {
				return
			}
			if s := r.scanner(); s != nil && s.Nested() && r.stream.sink.Nested(r.d, at, b[n:]) {
				return
			}
		}
		boundary = false
		s := r.cleartext()
		k := s.Scan(b[n:], r.peer().scanner())
		r.bytes += k
		n += k
		if s.Foreign() && !r.Gapped && !r.isTLS() {
			r.Phase = Abandoned
			r.flushCarver()
			return
		}
		if s.Framed() {
			r.unframe(at, b[n:])
			return
		}
	}
	if !carved {
		r.searchCleartext(at, b[plain:])
	}
}

// searchCleartext looks for certificates in what is no TLS, where something of the
// direction was lost before. It is true when the reading of records was taken
// up.
func (r *Direction) searchCleartext(at event.Moment, b []byte) bool {
	return len(b) > 0 && r.Lost() && r.carve(at, b, true, false)
}

// unframe takes TLS out of the packets of its carrier.
func (r *Direction) unframe(at event.Moment, b []byte) {
	s := r.scanner()
	if r.Ended() {
		r.After++
		return
	}
	for len(b) > 0 && !r.Ended() {
		n, payload := s.Unframe(b)
		b = b[n:]
		switch {
		case r.Phase != Cleartext:
			if len(payload) > 0 {
				r.read(at, payload)
			}
			if s.Foreign() {
				r.loseSync(event.Malformed)
				return
			}
		case s.Foreign():
			r.Phase = Abandoned
		case len(payload) > 0 && s.Open():
			if !r.recognize(at, payload) {
				r.headers = 0
				s.Shut()
			}
			fallthrough
		default:
			r.bytes += n
		}
		if !s.Framed() && r.Phase == Cleartext { // it was not TLS
			r.scan(at, b, false, false)
			break
		}
	}
	r.checkBudget()
}

// upgrades reports whether a protocol was recognized in either direction that TLS
// may follow.
func (s *Stream) upgrades() bool {
	return s.scanners != nil && (s.scanners[0].Upgrades() || s.scanners[1].Upgrades())
}

// checkBudget counts a segment, and gives a direction up in which too much was searched
// in vain.
func (r *Direction) checkBudget() {
	if r.Phase != Cleartext {
		return
	}
	r.segments++
	bytes, segments := MaxCleartext, MaxCleartextSegments
	if r.stream.upgrades() || r.isTLS() {
		bytes, segments = MaxDialogue, MaxDialogueSegments
	}
	if r.bytes > bytes || r.segments >= segments {
		r.Phase = Abandoned
		r.flushCarver()
	}
}

// carried notes what carries the TLS that begins here, with a message of type
// typ if with one.
func (r *Direction) carried(typ uint8) {
	if s := r.scanner(); s != nil {
		r.carrier = s.Carrier()
	}
	if r.carrier == carrier.None && r.bytes > 0 && !r.Gapped && (typ == tls.TypeClientHello || typ == tls.TypeServerHello) {
		r.carrier = carrier.Unknown
	}
}
