package flow

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// visit is a handshake as it was on the wire, and what an attacker who sees all of it
// can know.
type visit struct {
	r       *rand.Rand
	isn     [2]uint32
	end     [2]uint32 // after the FIN
	stamped bool      // the segments have timestamps
	stamp   [2]uint32 // the last of each side
	steps   []step
}

// step is a segment of a visit.
type step struct {
	d        int
	seq, ack uint32
	flags    uint8
	stamp    uint32
	data     []byte
	good     bool // its checksum is
	longer   int  // bytes that its packet says to have and the frame has not
	header   bool // the checksum of its IP header is bad
	signed   bool // it has an MD5 signature
	forged   bool
}

// after is the sequence number after s.
func (s *step) after() uint32 {
	end := s.seq + uint32(len(s.data))
	if s.flags&(decode.FlagSYN|decode.FlagFIN) != 0 {
		end++
	}
	return end
}

// packet makes the packet of s.
func (x *visit) packet(s *step) *decode.Packet {
	var options []byte
	if x.stamped {
		options = binary.BigEndian.AppendUint32([]byte{1, 1, 8, 10}, s.stamp)
		options = binary.BigEndian.AppendUint32(options, x.stamp[1-s.d])
	}
	if s.signed {
		options = append(options, slices.Concat([]byte{1, 1, 19, 18}, make([]byte, 16))...)
	}
	p := wireWith(s.d, s.seq, s.ack, s.flags, options, s.data, s.good)
	if s.header {
		b := p.Frame.Data
		b[10] = 1
		p = decoded(b, decode.Segment)
	}
	return longer(p, s.longer)
}

// newVisit cuts a handshake into segments. Some of them it swaps with others of the
// same side, sends again, or cuts in two.
func newVisit(r *rand.Rand, handshake []said) *visit {
	x := &visit{r: r, isn: [2]uint32{r.Uint32(), r.Uint32()}, stamped: r.IntN(2) == 0, stamp: [2]uint32{r.Uint32(), r.Uint32()}}
	x.end = x.isn
	send := func(d int, flags uint8, data []byte) {
		s := step{d: d, seq: x.end[d], flags: flags, stamp: x.stamp[d], data: data, good: true}
		if flags&decode.FlagACK != 0 {
			s.ack = x.end[1-d]
		}
		x.stamp[d] += uint32(r.IntN(20))
		x.end[d] = s.after()
		x.steps = append(x.steps, s)
	}
	send(0, decode.FlagSYN, nil)
	send(1, decode.FlagSYN|decode.FlagACK, nil)
	most := []int{1460, 500, 120}[r.IntN(3)]
	for _, s := range handshake {
		for data := s.data; len(data) > 0; {
			n := min(len(data), 1+r.IntN(most))
			send(s.d, decode.FlagACK, data[:n])
			data = data[n:]
		}
	}
	if r.IntN(3) > 0 {
		send(0, decode.FlagFIN|decode.FlagACK, nil)
		send(1, decode.FlagFIN|decode.FlagACK, nil)
	}
	for range r.IntN(6) {
		i := 2 + r.IntN(len(x.steps)-3)
		s, next := x.steps[i], x.steps[i+1]
		if len(s.data) < 2 {
			continue
		}
		switch r.IntN(3) {
		case 0:
			if next.d == s.d && len(next.data) > 0 {
				x.steps[i], x.steps[i+1] = next, s
			}
		case 1:
			x.steps = slices.Insert(x.steps, min(i+1+r.IntN(6), len(x.steps)), s)
		case 2:
			n := 1 + r.IntN(len(s.data)-1)
			rest := s
			rest.seq, rest.data = s.seq+uint32(n), s.data[n:]
			x.steps[i].data = s.data[:n]
			x.steps = slices.Insert(x.steps, i+1, rest)
		}
	}
	return x
}

// sent returns how far each side has sent before step i.
func (x *visit) sent(i int) [2]uint32 {
	high := x.isn
	for k := range x.steps[:i] {
		if s := &x.steps[k]; !s.forged && distance(high[s.d], s.after()) > 0 {
			high[s.d] = s.after()
		}
	}
	return high
}

// words is what an attacker may say: what could end a handshake, or be a part of it.
func (x *visit) words() []byte {
	b := make([]byte, 5+x.r.IntN(1000))
	switch x.r.IntN(5) {
	case 0:
		return []byte("HTTP/1.1 200 OK\r\n\r\n")
	case 1: // an alert
		return []byte{21, 3, 3, 0, 2, 2, 40}
	case 2: // a Certificate message without a certificate
		return []byte{22, 3, 3, 0, 7, 11, 0, 0, 3, 0, 0, 0}
	case 3: // encrypted data
		copy(b, []byte{23, 3, 3, byte((len(b) - 5) >> 8), byte(len(b) - 5)})
	}
	return b
}

// forgeries make of s, a segment in the name of either side that would be accepted
// before step i, one that the endpoint drops. They return false where that is not
// possible.
var forgeries = map[string]func(x *visit, i int, s *step) bool{
	"before the window": func(x *visit, i int, s *step) bool {
		s.seq = x.isn[s.d] + 1 - uint32(len(s.data)) - []uint32{0, x.r.Uint32N(3000), x.r.Uint32N(1 << 30)}[x.r.IntN(3)]
		return i >= 2
	},
	"after the window": func(x *visit, i int, s *step) bool {
		s.seq = x.end[s.d] + 1<<16 + x.r.Uint32N(1<<30)
		return i >= 2
	},
	"a FIN out of the window": func(x *visit, i int, s *step) bool {
		s.flags, s.data = decode.FlagFIN|decode.FlagACK, nil
		s.seq = []uint32{x.end[s.d] + 1<<16, x.isn[s.d] - 1<<20}[x.r.IntN(2)] + x.r.Uint32N(1<<20)
		return i >= 2
	},
	"an acknowledgement of what was not sent": func(x *visit, i int, s *step) bool {
		s.ack += 1 + []uint32{x.r.Uint32N(1 << 15), x.r.Uint32N(1 << 31)}[x.r.IntN(2)]
		return true
	},
	"an acknowledgement of another connection": func(x *visit, i int, s *step) bool {
		s.ack = x.isn[1-s.d] - 1<<16 - x.r.Uint32N(1<<30)
		return true
	},
	"a signature": func(x *visit, i int, s *step) bool {
		s.signed = true
		return i >= 2
	},
	"a bad checksum of the IP header": func(x *visit, i int, s *step) bool {
		s.header = true
		return true
	},
	"a bad checksum": func(x *visit, i int, s *step) bool {
		s.good = false
		return true
	},
	"a packet longer than its frame": func(x *visit, i int, s *step) bool {
		s.longer = 1 + x.r.IntN(3000)
		return i >= 2
	},
	"no ACK": func(x *visit, i int, s *step) bool {
		s.flags = []uint8{0, 8, decode.FlagFIN}[x.r.IntN(3)]
		return true
	},
	"a RST with another number": func(x *visit, i int, s *step) bool {
		s.flags, s.data = decode.FlagRST, nil
		s.seq = x.end[s.d] + 1 + x.r.Uint32N(1<<31)
		return true
	},
	"a SYN with another number": func(x *visit, i int, s *step) bool {
		s.flags, s.data = decode.FlagSYN, nil
		s.seq = x.r.Uint32()
		return i >= 2
	},
	"a SYN-ACK with another number": func(x *visit, i int, s *step) bool {
		s.flags, s.data = decode.FlagSYN|decode.FlagACK, nil
		s.seq = x.r.Uint32()
		return i >= 2
	},
	"an old timestamp": func(x *visit, i int, s *step) bool {
		s.stamp -= 1<<14 + x.r.Uint32N(1<<30)
		return x.stamped && i >= 2
	},
	"old bytes with a new timestamp": func(x *visit, i int, s *step) bool {
		s.stamp += 1<<14 + x.r.Uint32N(1<<30)
		s.seq = x.isn[s.d] + 1 - uint32(len(s.data)) - x.r.Uint32N(3000)
		return x.stamped && i >= 2
	},
}

// told is what a parser finds in a visit, with what was sent, in a live capture or not.
func (x *visit) told(t *testing.T, live bool) (found []*event.Handshake, log *bytes.Buffer) {
	t.Helper()
	parser := parsers.New(func(h *event.Handshake) { found = append(found, h) }, parsers.DefaultLimits)
	limits := DefaultLimits.Share(decode.Shards)
	limits.noRecover, limits.Live = true, live
	tracker := NewTracker(parser, limits)
	log = new(bytes.Buffer)
	for i := range x.steps {
		p := x.packet(&x.steps[i])
		p.Frame.Time, p.Frame.Clock, p.Frame.Number = second+int64(i), second+int64(i), uint64(i)
		fmt.Fprintln(log, x.steps[i].forged, p)
		if !p.Idle() {
			tracker.Packet(p, nil)
		}
		checkStates(t, tracker)
		checkHeld(t, tracker)
		checkAccounts(t, tracker)
	}
	tracker.Close()
	parser.Flush()
	checkEmpty(t, tracker)
	return found, log
}

// leafOf is the hash of the certificate in a handshake, with nothing forged.
func leafOf(t *testing.T, handshake []said) [32]byte {
	t.Helper()
	found, _ := newVisit(rand.New(rand.NewPCG(0, 4)), handshake).told(t, false)
	if len(found) != 1 || found[0].Outcome != event.Extracted {
		t.Fatalf("%d handshakes", len(found))
	}
	return found[0].Chain[0].SHA256
}

// shows reports whether a certificate was found.
func shows(found []*event.Handshake, leaf [32]byte) bool {
	return slices.ContainsFunc(found, func(h *event.Handshake) bool {
		return h.Outcome == event.Extracted && h.Chain[0].SHA256 == leaf
	})
}

// What an endpoint drops hides no certificate (RFC 9293, section 3.10.7.4; RFC 5961;
// RFC 7323), wherever it comes, even if whoever forged it knows all numbers.
func TestForgedHidesNothing(t *testing.T) {
	handshake := tlsHandshake(t)
	leaf := leafOf(t, handshake)
	for name, forgery := range forgeries {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(150) {
				r := rand.New(rand.NewPCG(seed, 4))
				x := newVisit(r, handshake)
				n := 1 + r.IntN(4)
				if seed == 0 {
					n = 0 // the handshake alone
				}
				for range n {
					i := r.IntN(len(x.steps) + 1)
					sent, d := x.sent(i), r.IntN(2)
					s := step{d: d, seq: sent[d], ack: sent[1-d], flags: decode.FlagACK, stamp: x.stamp[d], data: x.words(), good: true, forged: true}
					if r.IntN(2) == 0 {
						s.seq += uint32(r.IntN(3000)) - 1000
					}
					if forgery(x, i, &s) {
						x.steps = slices.Insert(x.steps, i, s)
						if r.IntN(3) == 0 {
							x.steps = slices.Insert(x.steps, i+1+r.IntN(len(x.steps)-i), s)
						}
					}
				}
				if found, log := x.told(t, seed%2 == 1); !shows(found, leaf) {
					t.Fatalf("seed %d: no certificate\n%s", seed, log)
				}
			}
		})
	}
}

// TestUrgentHidesNothing has a server send urgent bytes between the others, which its
// client takes out of the stream.
func TestUrgentHidesNothing(t *testing.T) {
	handshake := tlsHandshake(t)
	leaf := leafOf(t, handshake)
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 5))
		var found []*event.Handshake
		parser := parsers.New(func(h *event.Handshake) { found = append(found, h) }, parsers.DefaultLimits)
		tracker := NewTracker(parser, DefaultLimits)
		next, n, left := [2]uint32{r.Uint32(), r.Uint32()}, 0, limitUrgent
		send := func(d int, flags uint8, pointer uint16, data string) {
			p := pointing(pointer, d, next[d], next[1-d], flags, data)
			if flags&decode.FlagSYN != 0 {
				next[d]++
			}
			next[d] += uint32(len(data))
			n++
			p.Frame.Time, p.Frame.Clock, p.Frame.Number = second+int64(n), second+int64(n), uint64(n)
			tracker.Packet(p, nil)
			checkStates(t, tracker)
			checkHeld(t, tracker)
			checkAccounts(t, tracker)
		}
		send(0, decode.FlagSYN, 0, "")
		send(1, decode.FlagSYN|decode.FlagACK, 0, "")
		for _, s := range handshake {
			for data := string(s.data); len(data) > 0; {
				k := min(len(data), 1+r.IntN(1000))
				if part := data[:k]; s.d == 1 && left > 0 && r.IntN(2) == 0 {
					left--
					at := r.IntN(k + 1)
					send(s.d, decode.FlagACK|decode.FlagURG, uint16(at)+1, part[:at]+"X"+part[at:])
				} else {
					send(s.d, decode.FlagACK, 0, part)
				}
				data = data[k:]
			}
		}
		tracker.Close()
		parser.Flush()
		checkEmpty(t, tracker)
		if !shows(found, leaf) {
			t.Fatalf("seed %d: no certificate", seed)
		}
	}
}

// TestDecoys has each segment of one side come with a false copy that never reaches the
// endpoint, as its TTL is too small, and that fits in every way.
func TestDecoys(t *testing.T) {
	handshake := tlsHandshake(t)
	leaf := leafOf(t, handshake)
	for name, c := range map[string]struct {
		of    int    // the side
		after bool   // the copy comes after the segment
		stamp uint32 // by how much its timestamp is too new
	}{
		"before the server's": {1, false, 0}, "after the server's": {1, true, 0}, "before the server's, from the future": {1, false, 1 << 20},
		"before the client's": {0, false, 0}, "after the client's": {0, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(100) {
				x := newVisit(rand.New(rand.NewPCG(seed, 9)), handshake)
				var steps []step
				for _, s := range x.steps {
					decoy := s
					decoy.forged, decoy.stamp, decoy.data = true, s.stamp+c.stamp, make([]byte, len(s.data))
					n := x.r.IntN(len(s.data) + 1)
					copy(decoy.data, s.data[:n])
					for i := range decoy.data[n:] {
						decoy.data[n+i] = byte(x.r.Uint32())
					}
					switch {
					case s.d != c.of || len(s.data) == 0:
						steps = append(steps, s)
					case c.after:
						steps = append(steps, s, decoy)
					default:
						steps = append(steps, decoy, s)
					}
				}
				x.steps = steps
				if found, log := x.told(t, seed%2 == 1); !shows(found, leaf) {
					t.Fatalf("seed %d: no certificate\n%s", seed, log)
				}
			}
		})
	}
}
