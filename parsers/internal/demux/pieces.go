package demux

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/memory"
)

// Stream takes the bytes of a stream in order.
type Stream interface {
	Segment(d event.Direction, at event.Moment, b []byte)
	Gap(d event.Direction, at event.Moment, n int)
}

// Pieces puts the pieces of one direction of a stream in order, which come in
// numbered packets: those of OpenVPN, and of Remote Desktop over UDP. The zero
// value is before the first.
type Pieces struct {
	next uint32 // the number of the piece that continues the stream, 0 while it is not known
	held []piece
}

// piece is the payload of a packet that came too early, borrowed from the pool.
type piece struct {
	number uint32
	at     event.Moment
	b      []byte
}

// Started reports whether it is known which piece is the first.
func (p *Pieces) Started() bool { return p.next != 0 }

// Start says which piece is the first. What is held of those before it is given
// up.
func (p *Pieces) Start(pool *memory.Pool, number uint32) {
	p.next = number
	for len(p.held) > 0 && p.held[0].number < number {
		pool.Put(p.held[0].b)
		p.held = p.held[:copy(p.held, p.held[1:])]
	}
}

// Full reports whether no more pieces are to be held.
func (p *Pieces) Full() bool { return len(p.held) >= MaxPiecesHeld }

// Hold keeps a piece that came too early.
func (p *Pieces) Hold(pool *memory.Pool, at event.Moment, number uint32, payload []byte) {
	i := 0
	for ; i < len(p.held) && p.held[i].number <= number; i++ {
		if p.held[i].number == number {
			return
		}
	}
	b, ok := pool.Append(nil, payload)
	if !ok {
		return
	}
	p.held = append(p.held, piece{})
	copy(p.held[i+1:], p.held[i:])
	p.held[i] = piece{number, at, b}
}

// Add takes the piece with a number, after [Pieces.Start]: what is in order now goes
// to s, in direction d.
func (p *Pieces) Add(pool *memory.Pool, s Stream, d event.Direction, at event.Moment, number uint32, b []byte) {
	switch {
	case number < p.next:
		return // sent again
	case number > p.next:
		p.Hold(pool, at, number, b)
	default:
		s.Segment(d, at, b)
		p.next++
	}
	p.follow(pool, s, d, at)
	for len(p.held) > MaxPiecesHeld { // no sender is that far ahead: the packet is lost
		p.skip(pool, s, d)
	}
}

// Drain hands on all that is held.
func (p *Pieces) Drain(pool *memory.Pool, s Stream, d event.Direction) {
	for len(p.held) > 0 {
		p.skip(pool, s, d)
	}
}

// follow hands on the pieces that are in order now.
func (p *Pieces) follow(pool *memory.Pool, s Stream, d event.Direction, at event.Moment) {
	for len(p.held) > 0 && p.held[0].number == p.next {
		x := p.held[0]
		p.held = p.held[:copy(p.held, p.held[1:])]
		s.Segment(d, event.Later(at, x.at), x.b)
		pool.Put(x.b)
		p.next++
	}
}

// skip gives up the pieces before those that are held.
func (p *Pieces) skip(pool *memory.Pool, s Stream, d event.Direction) {
	first := p.held[0]
	s.Gap(d, first.at, UnknownGap)
	p.next = first.number
	p.follow(pool, s, d, first.at)
}
