package capture_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// ends is a Go decoder that says what the kernel's program should make of a
// frame.
type ends struct {
	decoder decode.Decoder
	packet  decode.Packet
}

const finSynRst = 0x07

// key returns the flow of a TCP frame; end tells that the frame begins or ends
// a connection.
func (e *ends) key(link linktype.Type, frame []byte) (k capture.ShuntKey, end, ok bool) {
	f := capture.Frame{Data: frame, Length: uint32(len(frame)), LinkType: link}
	if e.decoder.Decode(&f, &e.packet) != decode.Segment {
		return k, false, false
	}
	e.packet.Address() // idle packets have none
	return e.packet.ShuntKey(), e.packet.Flags&finSynRst != 0, true
}

// maker makes frames of few flows, most of them sound.
type maker struct{ *rand.Rand }

func (m maker) one(n ...int) int { return n[m.IntN(len(n))] }

// frame returns a frame and whether it is one that the kernel's program reads.
func (m maker) frame(link linktype.Type) (frame []byte, plain bool) {
	plain = true
	v6 := m.IntN(2) == 0
	if link == linktype.Ethernet {
		frame = []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
		tags := m.one(0, 0, 0, 1, 1, 2, 2, 3)
		for range tags {
			frame = binary.BigEndian.AppendUint16(frame, uint16(m.one(0x8100, 0x8100, 0x88a8, 0x9100)))
			frame = binary.BigEndian.AppendUint16(frame, uint16(m.one(0, 1, 0xf001, 4095)))
		}
		frame = binary.BigEndian.AppendUint16(frame, uint16(map[bool]int{false: 0x0800, true: 0x86dd}[v6]))
		plain = tags <= 2
	}
	protocol := byte(6)
	if m.IntN(12) == 0 {
		protocol, plain = byte(m.one(17, 1, 44, 0, 4, 41, 47)), false
	}
	words := m.one(5, 5, 8) // TCP's header
	segment := make([]byte, words*4+m.IntN(40))
	ports := m.Perm(2)
	binary.BigEndian.PutUint16(segment, uint16(443+ports[0]))
	binary.BigEndian.PutUint16(segment[2:], uint16(443+ports[1]))
	segment[12] = byte(words << 4)
	segment[13] = byte(m.one(0x10, 0x10, 0x18, 0x18, 0x10, 0x11, 0x12, 0x02, 0x04))
	switch {
	case m.IntN(20) == 0:
		segment[12], plain = byte(m.one(0, 4, 15)<<4), false
	case m.IntN(50) == 0:
		segment = segment[:m.IntN(20)]
		plain = false
	}
	var header []byte
	if v6 {
		header = make([]byte, 40)
		header[0], header[6] = 0x60, protocol
		binary.BigEndian.PutUint16(header[4:], uint16(len(segment)))
		header[8], header[24] = 0x20, 0x20
		header[m.one(9, 15, 16, 23)] = byte(m.IntN(2))
		header[m.one(25, 31, 32, 39)] = byte(m.IntN(2))
	} else {
		options := m.one(0, 0, 0, 0, 0, 0, 0, 4)
		header = make([]byte, 20+options)
		header[0], header[9] = byte(0x45+options/4), protocol
		binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(segment)))
		fragment := m.one(0, 0x4000, 0x4000, 0x4000, 0x4000, 0x8000, 0x2000, 1)
		binary.BigEndian.PutUint16(header[6:], uint16(fragment))
		copy(header[12:], []byte{192, 0, byte(m.IntN(2)), 200, 192, 0, byte(m.IntN(2)), 200})
		plain = plain && options == 0 && fragment&0x3fff == 0
	}
	frame = append(append(frame, header...), segment...)
	if link == linktype.Ethernet && m.IntN(4) == 0 {
		frame = append(frame, make([]byte, m.IntN(8))...) // padding
	}
	switch m.IntN(10) {
	case 0:
		frame[m.IntN(len(frame))] ^= 1 << m.IntN(8)
		plain = false
	case 1:
		frame = frame[:max(14, m.IntN(len(frame)))]
		plain = false
	}
	return frame, plain
}

// TestShuntAgreesWithDecoder runs the kernel's program on random frames, and
// holds its verdicts against the keys of the Go decoder.
func TestShuntAgreesWithDecoder(t *testing.T) {
	for link, name := range map[linktype.Type]string{linktype.Ethernet: "Ethernet", linktype.Raw: "raw"} {
		t.Run(name, func(t *testing.T) {
			bench := capture.NewShuntBench(t, "", link)
			m := maker{rand.New(rand.NewPCG(3, uint64(link)))}
			var e ends
			state := map[capture.ShuntKey]string{}
			var dropped, cleared, passed, bytes uint64
			for i := range 60_000 {
				frame, plain := m.frame(link)
				k, end, segment := e.key(link, frame)
				if segment && plain && m.IntN(4) == 0 {
					switch m.IntN(3) {
					case 0, 1:
						bench.Withhold(t, k)
						state[k] = "withheld"
					case 2:
						bench.Announce(t, k)
						state[k] = "announced"
					}
				}
				drop := bench.Run(t, frame) == 0
				switch {
				case drop && !(segment && !end && state[k] == "withheld"):
					t.Fatalf("frame %d is withheld (flow %+v is %q): %x", i, k, state[k], frame)
				case !drop && plain && !end && state[k] == "withheld":
					t.Fatalf("frame %d passes (flow %+v is %q): %x", i, k, state[k], frame)
				case drop:
					dropped++
					bytes += uint64(len(frame))
				case plain && end && state[k] != "":
					if bench.Known(t, k) {
						t.Fatalf("frame %d does not clear flow %+v: %x", i, k, frame)
					}
					delete(state, k)
					cleared++
				case segment && end && !plain:
					// Cleared or not, as the program knows its headers.
					if state[k] != "" && !bench.Known(t, k) {
						delete(state, k)
					}
				case plain:
					passed++
				}
			}
			t.Logf("%d withheld, %d clear a flow, %d others pass", dropped, cleared, passed)
			if dropped < 1000 || cleared < 1000 || passed < 1000 {
				t.Error("not much of a test")
			}
			for k := range state {
				if !bench.Known(t, k) {
					t.Errorf("flow %+v was cleared by a frame of another", k)
				}
			}
			if f, b := bench.Counted(); f != dropped || b != bytes {
				t.Errorf("counted %d frames of %d bytes, withheld were %d of %d", f, b, dropped, bytes)
			}
		})
	}
}

func FuzzShunt(f *testing.F) {
	m := maker{rand.New(rand.NewPCG(5, 6))}
	for range 60 {
		frame, _ := m.frame(linktype.Ethernet)
		f.Add(frame)
	}
	bench := capture.NewShuntBench(f, "", linktype.Ethernet)
	var e ends
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 14 || len(frame) > 2000 {
			t.Skip("a test run in the kernel takes frames from 14 bytes on")
		}
		k, end, segment := e.key(linktype.Ethernet, frame)
		if segment {
			bench.Forget(t, k)
		}
		// The map is full of the flows of other inputs.
		if bench.Run(t, frame) == 0 {
			t.Errorf("withheld for another flow than %+v", k)
		}
		if !segment {
			return
		}
		bench.Withhold(t, k)
		if bench.Run(t, frame) == 0 && end {
			t.Errorf("withheld though it begins or ends a connection")
		}
	})
}
