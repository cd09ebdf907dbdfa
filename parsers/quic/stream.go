package quic

import (
	"slices"

	"github.com/oddcert/oddcert/parsers/tls"
)

// stream is the CRYPTO data of one direction at one level (RFC 9000, section
// 7.5), of which each message is delivered once.
type stream struct {
	floor   uint64 // offset behind the last message delivered
	pieces  []piece
	kept    []byte // the pieces in the order they came
	charged int    // bytes of kept that the decoder knows of
	moved   bool   // floor has moved since the last settle
	broken  bool   // a limit was reached: nothing more is kept
}

// piece is a run of the stream: n bytes from offset, at kept[at:]. Pieces are
// in order and do not overlap.
type piece struct {
	offset uint64
	n, at  int
}

func (p piece) end() uint64 { return p.offset + uint64(p.n) }

// place adds what is new in data; where pieces overlap, the first stays. It is
// false when a limit was reached.
func (t *stream) place(offset uint64, data []byte, window uint64) bool {
	end := offset + uint64(len(data)) // both below 2^62
	if end <= t.floor || len(data) == 0 {
		return true
	}
	if t.broken || end > t.floor+window {
		return false
	}
	if offset < t.floor {
		data = data[t.floor-offset:]
		offset = t.floor
	}
	for i := 0; len(data) > 0; i++ {
		upto := end // of what may be placed before the next piece
		if i < len(t.pieces) {
			next := t.pieces[i]
			if offset >= next.end() {
				continue
			}
			if offset >= next.offset { // begins within it
				n := min(next.end()-offset, uint64(len(data)))
				offset, data = offset+n, data[n:]
				continue
			}
			upto = min(upto, next.offset)
		}
		n := int(upto - offset)
		at := len(t.kept)
		if i > 0 && t.pieces[i-1].end() == offset && t.pieces[i-1].at+t.pieces[i-1].n == at {
			t.pieces[i-1].n += n
			i--
		} else if len(t.pieces) < maxPieces {
			t.pieces = slices.Insert(t.pieces, i, piece{offset: offset, n: n, at: at})
		} else {
			return false
		}
		t.kept = append(t.kept, data[:n]...)
		offset, data = upto, data[n:]
	}
	return true
}

// message takes the next message off the stream when it is whole. A longer one
// than window breaks the stream.
func (t *stream) message(window uint64) (m tls.Message, ok bool) {
	run := t.run(tls.MessageHeader)
	if len(run) < tls.MessageHeader {
		return m, false
	}
	m.Type, m.Length = run[0], tls.Uint24(run[1:])
	whole := tls.MessageHeader + m.Length
	if uint64(whole) > window {
		t.broken = true
		return m, false
	}
	if run = t.run(whole); len(run) < whole {
		return m, false
	}
	m.Head = run[tls.MessageHeader:whole:whole]
	t.floor += uint64(whole)
	t.moved = true
	return m, true
}

// run is what is there without a break from the floor: at most n bytes, fewer
// only when there are no more.
func (t *stream) run(n int) []byte {
	var run []byte
	copied := false
	next := t.floor
	for _, p := range t.pieces {
		if p.end() <= next {
			continue
		}
		if p.offset > next {
			break
		}
		b := t.kept[p.at+int(next-p.offset) : p.at+p.n]
		switch {
		case run == nil:
			run = b
		case !copied:
			run = append(slices.Clip(run), b...)
			copied = true
		default:
			run = append(run, b...)
		}
		if next = p.end(); len(run) >= n {
			return run[:n]
		}
	}
	return run
}

// settle forgets what was delivered, whose bytes are not used again, and charges
// the decoder for what is left. It is false when a limit has broken the stream.
func (t *stream) settle(d *Decoder) bool {
	if t.broken {
		whole := len(t.kept) == 0
		t.release(d)
		return whole
	}
	if t.moved {
		t.moved = false
		old, pieces := t.kept, t.pieces
		t.kept, t.pieces = nil, pieces[:0]
		for _, p := range pieces {
			if p.end() <= t.floor {
				continue
			}
			skip := 0
			if p.offset < t.floor {
				skip = int(t.floor - p.offset)
			}
			t.pieces = append(t.pieces, piece{offset: p.offset + uint64(skip), n: p.n - skip, at: len(t.kept)})
			t.kept = append(t.kept, old[p.at+skip:p.at+p.n]...)
		}
	}
	d.held += cap(t.kept) - t.charged
	t.charged = cap(t.kept)
	return true
}

// rest is the message that is not whole, as far as it is there: up to its first
// hole, and from there to the second. It is false when there is none, or when
// where it begins is not known.
func (t *stream) rest() (m tls.Message, ok bool) {
	run := t.run(tls.MessageHeader + 1<<24)
	if t.broken || len(run) < tls.MessageHeader {
		return m, false
	}
	m.Type, m.Length = run[0], tls.Uint24(run[1:])
	m.Head = slices.Clip(run[tls.MessageHeader:])
	end := t.floor + uint64(len(run))
	for _, p := range t.pieces {
		if p.offset <= end {
			continue
		}
		if at := int(p.offset - t.floor - tls.MessageHeader); m.TailAt == 0 && at < m.Length {
			m.TailAt = at
		} else if m.TailAt == 0 || at != m.TailAt+len(m.Tail) {
			break
		}
		m.Tail = append(m.Tail, t.kept[p.at:p.at+p.n]...)
	}
	m.Tail = m.Tail[:min(len(m.Tail), max(0, m.Length-m.TailAt))]
	return m, true
}

// release gives back what the stream holds.
func (t *stream) release(d *Decoder) {
	d.held -= t.charged
	t.kept, t.pieces, t.charged = nil, nil, 0
}
