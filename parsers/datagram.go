package parsers

import (
	"bytes"
	"cmp"
	"math/bits"
	"slices"

	"github.com/oddcert/oddcert/parsers/dtls"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/parsers/tls13"
)

// flight is what one direction of DTLS has sent of its messages. They are read
// in any order: each says by itself what it is.
type flight struct {
	pending []puzzle
	seen    uint64 // bit i: message_seq i was seen, whole or not
}

// puzzle is a handshake message of which some pieces came.
type puzzle struct {
	typ    uint8
	seq    uint16
	tls13  bool // it came encrypted, in DTLS 1.3
	length int
	kept   []byte // the pieces in the order they came, borrowed from the parser's buffers
	pieces []piece
	filled int // bytes of the message that are there
	cause  Loss
	at     Moment
}

// piece is a run of a message: from offset, n bytes, at kept[at:].
type piece struct{ offset, n, at int }

// reopen tells whether b begins another handshake than the last, and gets c
// ready for it.
func (c *Conn) reopen(b []byte) bool {
	if !dtls.Starts(b) {
		return false
	}
	r, _, _ := dtls.Next(dtls.Find(b))
	f, _, ok := dtls.NextFragment(r.Body)
	if !ok {
		return false
	}
	if h, ok := tls.ParseClientHello(f.Body, true); ok && bytes.Equal(h.Random, c.random[:]) {
		return false
	}
	c.decided = false
	c.half = [2]half{}
	return true
}

// datagram reads the records of one datagram.
func (p *Parser) datagram(c *Conn, d Direction, at Moment, b []byte) {
	h := &c.half[d]
	h.seen = true
	if h.phase == preface {
		h.phase = records
	}
	if h.ended() {
		h.after++
	}
	for len(b) > 0 {
		if p.keys != nil && tls13.IsUnified(b) {
			r, rest, ok := tls13.NextUnified(b, int(c.ids[d]))
			if !ok {
				return
			}
			p.ciphertext(c, d, at, &r)
			b = rest
			continue
		}
		r, rest, ok := dtls.Next(b)
		if !ok {
			return
		}
		b = rest
		if h.version == 0 {
			h.version = r.Version
		}
		if r.Epoch > 0 {
			c.touch(at)
			c.encryptedRecord(d)
			continue
		}
		switch r.Type {
		case tls.Handshake:
			if h.phase == sealed && !c.side[d].ccs { // it was too early for that
				h.phase, h.after = records, 0
			}
			for body := r.Body; len(body) > 0; {
				f, rest, ok := dtls.NextFragment(body)
				if !ok {
					break
				}
				body = rest
				if tls.SenderOf(f.Type) != tls.Nobody {
					p.fragment(c, d, at, &f)
				}
			}
		case tls.ChangeCipherSpec:
			if len(r.Body) > 0 && r.Body[0] == 1 {
				c.changeCipherSpec(d, at)
				h.phase = sealed // DTLS 1.3 sends none for show
			}
		case tls.Alert:
			if len(r.Body) == 2 {
				c.alert(d, at, r.Body[0], r.Body[1])
			}
		}
	}
	// DTLS 1.3 encrypts all that comes now, in records of their own kind.
	if c.hs != nil && c.helloWhole && c.hs.ServerHello != nil && tls.Is13(c.hs.Version) {
		for d := range Direction(2) {
			if h := &c.half[d]; !h.ended() && h.phase != veiled && !p.cover(c, d, at) {
				c.half[d].phase = spent
			}
		}
	}
}

// encryptedRecord takes a record of a later epoch of direction d. Behind a
// ChangeCipherSpec, or where no plaintext was seen, all that follows is
// encrypted. Elsewhere it may be anybody's, and is discarded by the receiver:
// many of them tell that the ChangeCipherSpec was lost.
func (c *Conn) encryptedRecord(d Direction) {
	h := &c.half[d]
	h.segments++
	plaintext := c.flights != nil && c.flights[d].seen != 0
	if !plaintext || c.side[d].ccs || h.segments >= oneSided || c.hs != nil && tls.Is13(c.hs.Version) {
		h.phase = sealed
	}
}

// fragment takes one fragment of a handshake message.
func (p *Parser) fragment(c *Conn, d Direction, at Moment, f *dtls.Fragment) {
	if f.Whole() {
		if z, ok := c.take(d, f.Type, f.Sequence); ok {
			p.buffers.put(z.kept)
		}
		p.saw(c, d, f.Sequence)
		p.handle(c, d, at, &tls.Message{Type: f.Type, TLS13: f.TLS13, Length: f.Length, Head: f.Body}, NoLoss)
		return
	}
	p.begin(c, d, at)
	if !f.TLS13 {
		c.sent(d, f.Type)
	}
	p.saw(c, d, f.Sequence)
	if keeps(f.Type) <= 3 { // what there is to see is in the beginning, if anywhere
		if f.Offset == 0 {
			p.handle(c, d, at, &tls.Message{Type: f.Type, TLS13: f.TLS13, Length: f.Length, Head: f.Body}, NoLoss)
		}
		return
	}
	if f.Type == tls.Certificate && c.side[d].certificate && c.side[d].cut == NoLoss {
		return // sent again
	}
	z := p.puzzle(c, d, f)
	if z == nil {
		return
	}
	p.place(z, f)
	z.at = later(z.at, at)
	if z.filled == z.length {
		whole, _ := c.take(d, z.typ, z.seq)
		p.solve(c, d, &whole, NoLoss)
	}
}

// saw notes a message_seq.
func (p *Parser) saw(c *Conn, d Direction, seq uint16) {
	if c.flights == nil {
		c.flights = new([2]flight)
	}
	if seq < 64 {
		c.flights[d].seen |= 1 << seq
	}
}

// puzzle is the message that f is a piece of, begun when it is the first; nil
// when there is no room for it.
func (p *Parser) puzzle(c *Conn, d Direction, f *dtls.Fragment) *puzzle {
	t := &c.flights[d]
	for i := range t.pending {
		if z := &t.pending[i]; z.typ == f.Type && z.seq == f.Sequence && z.tls13 == f.TLS13 && z.length == f.Length {
			return z
		}
	}
	if len(t.pending) == maxPending {
		c.half[d].cause = Limit
		return nil
	}
	if len(t.pending) < cap(t.pending) {
		t.pending = t.pending[:len(t.pending)+1]
	} else {
		t.pending = append(t.pending, puzzle{})
	}
	z := &t.pending[len(t.pending)-1]
	*z = puzzle{typ: f.Type, seq: f.Sequence, tls13: f.TLS13, length: f.Length, pieces: z.pieces[:0]}
	return z
}

// place adds what is new in f; where pieces overlap, the first stays.
func (p *Parser) place(z *puzzle, f *dtls.Fragment) {
	if z.length > maxDatagramMessage {
		z.cause = Limit
		return
	}
	from, body := f.Offset, f.Body
	for i := 0; len(body) > 0; i++ {
		end := from + len(body) // of what may be placed before the next piece
		if i < len(z.pieces) {
			next := z.pieces[i]
			if from >= next.offset+next.n {
				continue
			}
			if from >= next.offset { // begins within it
				n := min(next.offset+next.n-from, len(body))
				from, body = from+n, body[n:]
				continue
			}
			end = min(end, next.offset)
		}
		n := end - from
		if len(z.pieces) == maxPieces {
			z.cause = Limit
			return
		}
		kept, ok := p.buffers.append(z.kept, body[:n])
		if z.kept = kept; !ok {
			z.cause = Limit
			return
		}
		z.pieces = slices.Insert(z.pieces, i, piece{offset: from, n: n, at: len(kept) - n})
		z.filled += n
		from, body = end, body[n:]
	}
}

// solve hands on the message that z has become: up to its first hole, and what
// lies between that and the next.
func (p *Parser) solve(c *Conn, d Direction, z *puzzle, cause Loss) {
	m := tls.Message{Type: z.typ, TLS13: z.tls13, Length: z.length}
	b, head, next := p.message[:0], 0, 0
	for i, piece := range z.pieces {
		if piece.offset != next { // a hole
			if m.TailAt > 0 {
				if z.typ == tls.Certificate {
					p.siftPieces(c, d, z, i)
				}
				break
			}
			head, m.TailAt = len(b), piece.offset
		}
		b = append(b, z.kept[piece.at:piece.at+piece.n]...)
		next = piece.offset + piece.n
	}
	p.message = b
	if m.TailAt == 0 {
		head = len(b)
	}
	m.Head, m.Tail = b[:head], b[head:]
	if z.cause != NoLoss {
		cause = z.cause
	}
	p.handle(c, d, z.at, &m, cause)
	p.buffers.put(z.kept)
}

// siftPieces looks for certificates in the pieces of z from the i-th.
func (p *Parser) siftPieces(c *Conn, d Direction, z *puzzle, i int) {
	next := z.pieces[i].offset
	for _, piece := range z.pieces[i:] {
		if piece.offset != next {
			p.settle(c, d)
		}
		p.carve(c, d, z.at, z.kept[piece.at:piece.at+piece.n], false, false)
		next = piece.offset + piece.n
	}
	p.settle(c, d)
}

// take takes a message out of those that are being put together.
func (c *Conn) take(d Direction, typ uint8, seq uint16) (z puzzle, ok bool) {
	if c.flights == nil {
		return z, false
	}
	t := &c.flights[d]
	for i := range t.pending {
		if z = t.pending[i]; z.typ == typ && z.seq == seq {
			last := len(t.pending) - 1
			t.pending[i] = t.pending[last]
			t.pending[last] = puzzle{pieces: z.pieces}
			t.pending = t.pending[:last]
			return z, true
		}
	}
	return z, false
}

// holed tells whether messages between others have not come.
func (t *flight) holed() bool {
	run := t.seen >> bits.TrailingZeros64(t.seen)
	return run&(run+1) != 0
}

// flushFlight hands on what is there of the unfinished messages of one
// direction, and notes whether messages between others never came.
func (p *Parser) flushFlight(c *Conn, d Direction, cause Loss) {
	t := &c.flights[d]
	if t.holed() {
		c.half[d].gapped = true
	}
	t.seen = 0
	slices.SortFunc(t.pending, func(a, b puzzle) int { return cmp.Compare(a.seq, b.seq) })
	for len(t.pending) > 0 {
		z, _ := c.take(d, t.pending[0].typ, t.pending[0].seq)
		why := cause
		if n := len(z.pieces); n > 0 && z.filled < z.pieces[n-1].offset+z.pieces[n-1].n {
			why = Gap // pieces behind the hole came
		}
		p.solve(c, d, &z, why)
	}
}
