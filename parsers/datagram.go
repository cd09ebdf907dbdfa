package parsers

import (
	"bytes"
	"cmp"
	"math/bits"
	"slices"

	"github.com/oddcert/oddcert/parsers/dtls"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/reassembly"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/parsers/tls13"
)

// flight is what one direction of DTLS has sent of its messages. They are read
// in any order: each says by itself what it is.
type flight struct {
	pending []partial
	seen    uint64 // bit i: message_seq i was seen, whole or not
}

// partial is a handshake message of which some fragments came.
type partial struct {
	typ    uint8
	seq    uint16
	tls13  bool // it came encrypted, in DTLS 1.3
	length int
	body   reassembly.Buffer // from the parser's fragments
	bytes  int               // of the fragments that came
	cause  event.Loss
	at     event.Moment
}

// reopen tells whether b begins another handshake than the last, and gets c
// ready for it.
func (c *Conn) reopen(b []byte) bool {
	if b = dtls.Start(b); b == nil {
		return false
	}
	r, _, _ := dtls.Next(b)
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
func (p *Parser) datagram(c *Conn, d event.Direction, at event.Moment, b []byte) {
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
		for d := range event.Direction(2) {
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
func (c *Conn) encryptedRecord(d event.Direction) {
	h := &c.half[d]
	h.segments++
	plaintext := c.flights != nil && c.flights[d].seen != 0
	if !plaintext || c.side[d].ccs || h.segments >= oneSided || c.hs != nil && tls.Is13(c.hs.Version) {
		h.phase = sealed
	}
}

// fragment takes one fragment of a handshake message.
func (p *Parser) fragment(c *Conn, d event.Direction, at event.Moment, f *dtls.Fragment) {
	if f.Whole() {
		p.forget(c, d, f)
		p.saw(c, d, f.Sequence)
		p.handle(c, d, at, &tls.Message{Type: f.Type, TLS13: f.TLS13, Length: f.Length, Head: f.Body}, event.NoLoss)
		return
	}
	p.begin(c, d, at)
	if !f.TLS13 {
		c.sent(d, f.Type)
	}
	p.saw(c, d, f.Sequence)
	if keeps(f.Type) <= 3 { // what there is to see is in the beginning, if anywhere
		if f.Offset == 0 {
			p.handle(c, d, at, &tls.Message{Type: f.Type, TLS13: f.TLS13, Length: f.Length, Head: f.Body}, event.NoLoss)
		}
		return
	}
	if f.Type == tls.Certificate && c.side[d].certificate && c.side[d].cut == event.NoLoss {
		return // sent again
	}
	z := p.partial(c, d, f)
	p.place(z, f)
	z.at = event.Later(z.at, at)
	if z.body.Ready() == uint64(z.length) {
		whole := c.take(d, z)
		p.solve(c, d, &whole, event.NoLoss)
	}
}

// saw notes a message_seq.
func (p *Parser) saw(c *Conn, d event.Direction, seq uint16) {
	if c.flights == nil {
		c.flights = new([2]flight)
	}
	if seq < 64 {
		c.flights[d].seen |= 1 << seq
	}
}

// partial is the message that f is a fragment of, begun when it is the first. The
// one that has grown least gives way when there are too many.
func (p *Parser) partial(c *Conn, d event.Direction, f *dtls.Fragment) *partial {
	t := &c.flights[d]
	least := 0
	for i := range t.pending {
		z := &t.pending[i]
		if z.typ == f.Type && z.seq == f.Sequence && z.tls13 == f.TLS13 && z.length == f.Length {
			return z
		}
		if z.bytes < t.pending[least].bytes {
			least = i
		}
	}
	if len(t.pending) == maxPending {
		c.half[d].cause = event.Limit
		z := c.take(d, &t.pending[least])
		z.body.Release(&p.fragments)
	}
	t.pending = append(t.pending, partial{typ: f.Type, seq: f.Sequence, tls13: f.TLS13, length: f.Length})
	return &t.pending[len(t.pending)-1]
}

// place adds what is new in f; where fragments overlap, the first stays.
func (p *Parser) place(z *partial, f *dtls.Fragment) {
	z.bytes += len(f.Body)
	if z.length > maxDatagramMessage {
		z.cause = event.Limit
		return
	}
	z.body.Add(&p.fragments, uint64(f.Offset), f.Body)
}

// solve hands on the message that z has become: up to its first hole, and what
// lies between that and the next.
func (p *Parser) solve(c *Conn, d event.Direction, z *partial, cause event.Loss) {
	m := tls.Message{Type: z.typ, TLS13: z.tls13, Length: z.length}
	head := z.body.Ready()
	b := z.body.Append(p.message[:0], 0, head)
	start, end := z.body.Run(head)
	if start < end {
		m.TailAt = int(start)
		b = z.body.Append(b, start, end)
	}
	m.Head, m.Tail = b[:head], b[head:]
	if z.typ == tls.Certificate {
		for start, stop := z.body.Run(end); start < stop; start, stop = z.body.Run(stop) {
			n := len(b)
			b = z.body.Append(b, start, stop)
			p.sift(c, d, z.at, b[n:])
		}
	}
	p.message = b
	if z.cause != event.NoLoss {
		cause = z.cause
	}
	p.handle(c, d, z.at, &m, cause)
	z.body.Release(&p.fragments)
}

// take takes z out of the messages that are being put together.
func (c *Conn) take(d event.Direction, z *partial) partial {
	t := &c.flights[d]
	taken, last := *z, len(t.pending)-1
	*z = t.pending[last]
	t.pending[last] = partial{}
	t.pending = t.pending[:last]
	return taken
}

// forget gives up the fragments of a message that came whole.
func (p *Parser) forget(c *Conn, d event.Direction, f *dtls.Fragment) {
	if c.flights == nil {
		return
	}
	t := &c.flights[d]
	for i := len(t.pending) - 1; i >= 0; i-- {
		if z := &t.pending[i]; z.typ == f.Type && z.seq == f.Sequence {
			taken := c.take(d, z)
			taken.body.Release(&p.fragments)
		}
	}
}

// holed tells whether messages between others have not come.
func (t *flight) holed() bool {
	run := t.seen >> bits.TrailingZeros64(t.seen)
	return run&(run+1) != 0
}

// flushFlight hands on what is there of the unfinished messages of one
// direction, and notes whether messages between others never came.
func (p *Parser) flushFlight(c *Conn, d event.Direction, cause event.Loss) {
	t := &c.flights[d]
	if t.holed() {
		c.half[d].gapped = true
	}
	t.seen = 0
	slices.SortFunc(t.pending, func(a, b partial) int { return cmp.Compare(b.seq, a.seq) })
	for len(t.pending) > 0 {
		z := c.take(d, &t.pending[len(t.pending)-1])
		why := cause
		if start, end := z.body.Run(z.body.Ready()); c.half[d].cause == event.Limit {
			why = event.Limit // perhaps others of it came, and gave way
		} else if start < end {
			why = event.Gap // fragments behind the hole came
		}
		p.solve(c, d, &z, why)
	}
}
