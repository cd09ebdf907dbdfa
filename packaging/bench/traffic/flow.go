package traffic

import (
	"math/rand/v2"
	"net/netip"
)

// flow replays one conversation. Its segments leave it in the order of time.
type flow struct {
	conv           *conversation
	filler         filler
	client, server netip.AddrPort
	vlans          []uint16
	rng            *rand.Rand
	mss            int   // bytes of payload at most
	pace, rtt      int64 // nanoseconds

	at      int64 // the time of the last segment sent
	step    step
	turn    int
	sent    [2]int64
	isn     [2]uint32
	id      [2]uint16
	stamp   [2]uint32 // the last TCP timestamp of each side
	twin    bool      // on the five-tuple of another one at the same time, in another VLAN
	talker  uint8     // who sent data last
	unacked int       // segments since the last acknowledgement

	capture // how the sensor sees it

	optionSpace [20]byte
}

// step is how far a flow has come.
type step uint8

const (
	open step = iota
	accept
	confirm
	talk
	acknowledge
	closeClient
	closeServer
	closed
	over
)

// filler is application data that follows the recorded turns.
type filler struct {
	block  []byte // longer than period by a whole segment, so that no segment wraps
	period int64
	start  int64 // where in the block this flow begins
	size   int64
}

func (f *flow) protocol() uint8 {
	if f.conv.udp {
		return 17
	}
	return 6
}

// bytes returns up to n bytes of a stream, all recorded or all filler.
func (f *flow) bytes(dir uint8, offset int64, n int) []byte {
	stream := f.conv.stream[dir]
	if rest := int64(len(stream)) - offset; rest > 0 {
		return stream[offset : offset+min(rest, int64(n))]
	}
	at := (f.filler.start + offset - int64(len(stream))) % f.filler.period
	return f.filler.block[at : at+int64(n)]
}

// current returns the turn at hand: the recorded ones, then the filler.
func (f *flow) current() (turn, bool) {
	if f.turn < len(f.conv.turns) {
		return f.conv.turns[f.turn], true
	}
	end := int64(len(f.conv.stream[toClient])) + f.filler.size
	return turn{toClient, end}, f.turn == len(f.conv.turns) && f.filler.size > 0
}

// next returns the next segment that the parties send, until ok is false.
func (f *flow) next() (s segment, ok bool) {
	for {
		switch f.step {
		case open:
			f.step = accept
			if f.conv.udp {
				f.step = talk
				continue
			}
			return f.control(toServer, syn, 0), true
		case accept:
			f.step = confirm
			if f.conv.kind == SYN {
				f.step = over
				continue
			}
			return f.control(toClient, syn|ack, f.rtt), true
		case confirm:
			f.step = talk
			return f.control(toServer, ack, f.pace), true
		case talk:
			t, more := f.current()
			if !more {
				f.step = closeClient
				if f.conv.udp || f.conv.kind == Unanswered {
					f.step = over
				}
				continue
			}
			return f.data(t), true
		case acknowledge:
			f.step = talk
			return f.control(1-f.talker, ack, f.pace), true
		case closeClient:
			f.step = closeServer
			return f.control(toServer, fin|ack, f.pace), true
		case closeServer:
			f.step = closed
			return f.control(toClient, fin|ack, f.rtt), true
		case closed:
			f.step = over
			return f.control(toServer, ack, f.pace), true
		default:
			return segment{}, false
		}
	}
}

// data makes the next segment of turn t and decides who acknowledges it.
func (f *flow) data(t turn) segment {
	wait := f.pace
	if f.talker != t.dir {
		wait, f.unacked = f.rtt, 0
	}
	f.talker = t.dir
	offset := f.sent[t.dir]
	payload := f.bytes(t.dir, offset, int(min(int64(f.mss), t.end-offset)))
	s := f.control(t.dir, ack, wait)
	s.offset, s.payload = offset, payload
	f.sent[t.dir] += int64(len(payload))
	f.unacked++
	last := f.sent[t.dir] == t.end
	if last {
		s.flags |= psh
		f.turn++
	}
	if f.conv.udp {
		return s
	}
	// An answer acknowledges too; some stacks do not wait for it.
	if f.unacked == 2 || last && f.rng.IntN(2) == 0 {
		f.step, f.unacked = acknowledge, 0
	}
	return s
}

// control makes a segment without payload, sent a while after the last one.
func (f *flow) control(dir, flags uint8, wait int64) segment {
	f.at += wait/2 + 1 + f.rng.Int64N(wait+1)
	f.id[dir]++
	f.stamp[dir] = uint32(f.at / 1e6)
	s := segment{dir: dir, flags: flags, id: f.id[dir], at: f.at, stamp: f.stamp[dir], echo: f.stamp[1-dir]}
	s.seq, s.ack = f.sequence(dir), f.sequence(1-dir)
	if flags&syn != 0 {
		s.seq--
	}
	if flags&ack == 0 {
		s.ack = 0
	}
	if f.step > closeServer || f.step == closeServer && dir == toClient {
		s.ack++ // counts the FIN
	}
	if f.step == over {
		s.seq++
	}
	return s
}

// sequence is the number of the next byte that dir sends.
func (f *flow) sequence(dir uint8) uint32 {
	return f.isn[dir] + 1 + uint32(f.sent[dir])
}
