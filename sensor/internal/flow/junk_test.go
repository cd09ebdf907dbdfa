package flow

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// exchange is a conversation of two endpoints as it was on the wire: who sent
// what, with the numbers of RFC 9293.
type exchange struct {
	packets []*decode.Packet
	sent    [2][]byte
	seq     [2]uint32
}

// converse makes a connection in which each side says something in turn, in
// segments of random sizes. Its segments have checksums.
func converse(r *rand.Rand) *exchange {
	x := &exchange{seq: [2]uint32{r.Uint32(), r.Uint32()}}
	x.send(0, decode.FlagSYN, nil)
	x.send(1, decode.FlagSYN|decode.FlagACK, nil)
	for turn := range 4 {
		for range 1 + r.IntN(4) {
			data := make([]byte, 1+r.IntN(1400))
			for i := range data {
				data[i] = byte(1 + r.IntN(255))
			}
			x.send(turn&1, decode.FlagACK|8, data)
		}
	}
	x.send(0, decode.FlagFIN|decode.FlagACK, nil)
	x.send(1, decode.FlagFIN|decode.FlagACK, nil)
	x.send(0, decode.FlagACK, nil)
	return x
}

func (x *exchange) send(d int, flags uint8, data []byte) {
	ack := uint32(0)
	if flags&decode.FlagACK != 0 {
		ack = x.seq[1-d]
	}
	x.packets = append(x.packets, wire(d, x.seq[d], ack, flags, data, true))
	x.sent[d] = append(x.sent[d], data...)
	x.seq[d] += uint32(len(data))
	if flags&(decode.FlagSYN|decode.FlagFIN) != 0 {
		x.seq[d]++
	}
}

// wire makes the packet of a frame between the two endpoints; good says whether
// its checksum is.
func wire(d int, seq, ack uint32, flags uint8, data []byte, good bool) *decode.Packet {
	return wireWith(d, seq, ack, flags, nil, data, good)
}

// wireWith is wire with options of TCP, whose length is a multiple of four.
func wireWith(d int, seq, ack uint32, flags uint8, options, data []byte, good bool) *decode.Packet {
	return assembled(d, seq, ack, flags, 0, options, data, good)
}

// pointing is a good segment with an urgent pointer.
func pointing(pointer uint16, d int, seq, ack uint32, flags uint8, data string) *decode.Packet {
	return assembled(d, seq, ack, flags, pointer, nil, []byte(data), true)
}

func assembled(d int, seq, ack uint32, flags uint8, pointer uint16, options, data []byte, good bool) *decode.Packet {
	sport, dport := ports(d)
	b := overIP(d, 6, slices.Concat(make([]byte, 20), options, data))
	tcp := b[20:]
	put16 := func(at int, v uint16) { tcp[at], tcp[at+1] = byte(v>>8), byte(v) }
	put32 := func(at int, v uint32) { put16(at, uint16(v>>16)); put16(at+2, uint16(v)) }
	put16(0, sport)
	put16(2, dport)
	put32(4, seq)
	put32(8, ack)
	tcp[12], tcp[13] = uint8(5+len(options)/4)<<4, flags
	put16(14, 65535)
	put16(18, pointer)
	sum := uint32(6) + uint32(len(tcp))
	add := func(b []byte) {
		for i, c := range b {
			if i%2 == 0 {
				sum += uint32(c) << 8
			} else {
				sum += uint32(c)
			}
		}
	}
	add(b[12:20])
	add(b[20:])
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	if !good {
		sum ^= 0x5a
	}
	b[36], b[37] = byte(^sum>>8), byte(^sum)
	return decoded(b, decode.Segment)
}

// ports are those of the packets in direction d.
func ports(d int) (src, dst uint16) {
	if d == 1 {
		return 443, 40000
	}
	return 40000, 443
}

// overIP puts the header of IPv4 before b, which goes in direction d.
func overIP(d int, proto uint8, b []byte) []byte {
	header := []byte{0: 0x45, 8: 64, 9: proto, 12: 192, 0, 2, byte(1 + d), 192, 0, 2, byte(2 - d)}
	binary.BigEndian.PutUint16(header[2:], uint16(20+len(b)))
	return append(header, b...)
}

// decoded is the packet of class c in a frame that begins with IP.
func decoded(b []byte, c decode.Class) *decode.Packet {
	p := new(decode.Packet)
	f := &capture.Frame{Data: b, Length: uint32(len(b)), LinkType: linktype.Raw}
	if got := new(decode.Decoder).Decode(f, p); got != c {
		panic(got)
	}
	p.Address()
	return p
}

// junk makes a packet that both endpoints ignore, whenever it comes (RFC 9293,
// section 3.10.7.4; RFC 5961): its checksum is bad, its number is outside of any
// window, or it acknowledges nothing.
// What comes before the connection has other numbers: nobody can guess them yet.
func (x *exchange) junk(r *rand.Rand, before bool) *decode.Packet {
	d := r.IntN(2)
	data := make([]byte, r.IntN(1400))
	for i := range data {
		data[i] = byte(r.IntN(256))
	}
	if r.IntN(3) == 0 && len(data) > 20 {
		copy(data, "HTTP/1.1 200 OK\r\n")
	}
	near := func(d int) uint32 { return x.seq[d] - uint32(r.IntN(8000)) }
	far := func(d int) uint32 { return x.seq[d] + 1<<21 + uint32(r.Int64N(1<<32-1<<22)) }
	flags := []uint8{decode.FlagACK, decode.FlagACK | 8, decode.FlagACK | decode.FlagFIN, decode.FlagRST, decode.FlagRST | decode.FlagACK, decode.FlagSYN, decode.FlagSYN | decode.FlagACK, 8, 0}[r.IntN(9)]
	if before {
		return wire(d, far(d), far(1-d), flags, data, r.IntN(2) == 0)
	}
	switch r.IntN(3) {
	case 0:
		return wire(d, near(d), near(1-d), flags, data, false)
	case 1:
		if flags == 8 || flags == 0 { // in the window, but acknowledging nothing
			return wire(d, near(d), 0, flags, data, true)
		}
		return wire(d, far(d), []uint32{near(1 - d), far(1 - d)}[r.IntN(2)], flags, data, true)
	}
	if flags&decode.FlagACK == 0 {
		flags |= decode.FlagACK
	}
	if flags&(decode.FlagSYN|decode.FlagRST) != 0 {
		return wire(d, far(d), far(1-d), flags, data, true)
	}
	return wire(d, near(d), far(1-d), flags, data, true)
}

// What every TCP ignores changes nothing, wherever it comes: the parser gets what
// the endpoints got, and what was ignored is counted.
func TestIgnoredSegments(t *testing.T) {
	ignored, counted := 0, 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 3))
		x := converse(r)
		packets, from := x.packets, 0
		if seed%4 == 0 {
			// The capture began behind the SYNs. Before a segment of each side
			// was seen, nobody can know which is the connection.
			packets = packets[2:]
			for packets[from].SrcPort == packets[0].SrcPort {
				from++
			}
			from++
		}
		noise := 1 + r.IntN(30)
		for range noise {
			first := slices.Index(packets, x.packets[0])
			at := from + r.IntN(len(packets)+1-from)
			packets = append(packets[:at:at], append([]*decode.Packet{x.junk(r, at <= first)}, packets[at:]...)...)
		}
		tracker, tape := newTestTracker(DefaultLimits)
		for i, p := range packets {
			p.Frame.Time, p.Frame.Clock, p.Frame.Number = int64(i), int64(i), uint64(i+1)
			if !p.Idle() {
				tracker.Packet(p, nil)
			}
			checkStates(t, tracker)
		}
		tracker.Close()
		checkEmpty(t, tracker)
		found := false
		for _, c := range tape.conns {
			for d := range 2 { // who is who, the first packet says, and nobody relies on it
				found = found || bytes.Equal(c.data[d], x.sent[0]) && bytes.Equal(c.data[1-d], x.sent[1])
			}
		}
		if !found {
			for i, p := range packets {
				t.Logf("%d %v %d %d %x %d", i, p.SrcPort, p.Seq, p.Ack, p.Flags, len(p.Payload))
			}
			for _, c := range tape.conns {
				t.Logf("%v %d of %d (%d), %d of %d (%d), gaps %d", c.alternative, len(c.data[0]), len(x.sent[0]), common(c.data[0], x.sent[0]), len(c.data[1]), len(x.sent[1]), common(c.data[1], x.sent[1]), c.gaps)
			}
			t.Fatalf("seed %d: nobody got what was sent", seed)
		}
		f := tracker.Stats().Forged
		ignored += noise
		counted += int(f.FIN + f.RST + f.SYN + f.Data + f.Checksum + f.ACK + f.Timestamp + f.Conflict)
	}
	if counted < ignored/2 { // those of before and after the connection, and of connections of their own, are not
		t.Errorf("%d packets were ignored, %d counted", ignored, counted)
	}
}

// common is how many bytes at the beginning a and b have in common.
func common(a, b []byte) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
