package frames

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"unsafe"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// endpoints are those of flow n: every other one is of the same client.
func endpoints(n int) [2]event.Endpoint {
	client := netip.AddrFrom4([4]byte{192, 0, 2, 7})
	if n%2 == 1 {
		client = netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	}
	return [2]event.Endpoint{{Addr: client, Port: uint16(n)}, {Addr: netip.AddrFrom4([4]byte{198, 51, 100, 1}), Port: 443}}
}

// traffic makes frames of flows, and remembers those that Take was to keep.
type traffic struct {
	t      testing.TB
	buffer *Buffer
	part   *Part
	origin *event.Origin
	number uint64
	flows  map[int]*sent
	clock  int64
}

// sent is what was sent of a flow since it was opened.
type sent struct {
	start  int64
	frames []Frame
	over   bool
}

func newTraffic(t testing.TB, size int) *traffic {
	b := NewBuffer(size)
	parts, _ := b.Parts(1, false)
	return &traffic{t: t, buffer: b, part: parts[0], origin: &event.Origin{Path: "-"}, flows: map[int]*sent{}}
}

// packet makes a packet of flow n.
func (x *traffic) packet(n, payload int) decode.Packet {
	x.number++
	x.clock += 1e6
	e := endpoints(n)
	key, ok := decode.NewKey(event.TCP, e[0], e[1])
	if !ok {
		x.t.Fatal("no key")
	}
	data := make([]byte, 54+payload)
	for i := range data {
		data[i] = byte(i + int(x.number))
	}
	f := &capture.Frame{Data: data, Time: 1e18 + x.clock, Clock: x.clock, Number: x.number, Length: uint32(len(data)), LinkType: linktype.Ethernet}
	return decode.Packet{Frame: f, Payload: data[54:], Key: key, Hash: key.Hash(), Transport: event.TCP}
}

// send offers a packet of flow n with a fate, and notes it.
func (x *traffic) send(n, payload int, fate Fate) {
	p := x.packet(n, payload)
	x.part.Take([]decode.Packet{p}, []Fate{fate}, x.origin, x.part)
	s := x.flows[n]
	switch {
	case fate&First != 0 && fate&^First != Over:
		s = &sent{start: p.Frame.Time}
		x.flows[n] = s
	case s == nil:
		return
	case fate == Undecided:
		s.over = false
	}
	if fate != Unwanted && fate&^First != Over || fate == Over {
		s.frames = append(s.frames, Frame{Origin: x.origin, Number: p.Frame.Number, Time: p.Frame.Time, Length: p.Frame.Length, LinkType: p.Frame.LinkType, Data: p.Frame.Data})
	}
}

// ask asks for flow n up to its last frame, and checks the answer.
func (x *traffic) ask(n int) (complete bool) {
	s := x.flows[n]
	if s == nil || len(s.frames) == 0 {
		return false
	}
	e := endpoints(n)
	last := s.frames[len(s.frames)-1]
	list, complete := x.buffer.Frames(Flow{Transport: event.TCP, Endpoints: [2]event.Endpoint{e[1], e[0]},
		From: event.Moment{Time: s.start}, To: event.Moment{Time: last.Time, Frame: last.Number}})
	rest := s.frames
	for i := range list {
		for len(rest) > 0 && rest[0].Number != list[i].Number {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			if complete {
				x.t.Fatalf("flow %d: frame %d is not of it", n, list[i].Number)
			}
			continue // of an earlier flow, whose end is not known
		}
		if !bytes.Equal(rest[0].Data, list[i].Data) || rest[0].Time != list[i].Time {
			x.t.Fatalf("flow %d: frame %d has changed", n, list[i].Number)
		}
	}
	if complete && len(list) != len(s.frames) {
		x.t.Fatalf("flow %d is said to be complete, with %d of %d frames", n, len(list), len(s.frames))
	}
	return complete
}

// check checks what always holds.
func (x *traffic) check() {
	x.t.Helper()
	s := x.buffer.Stats()
	if s.Copied != s.Held+s.GivenUp+s.GivenUpEarly {
		x.t.Fatalf("the frames do not add up: %+v", s)
	}
	p := x.part
	frames, end := 0, 0
	for i := range p.records {
		r := &p.records[i]
		if r.bits&mark == 0 {
			frames++
		}
		if r.key.Hash() != p.hashes[i] || int(r.at) != end {
			x.t.Fatalf("record %d is not where it says it is", i)
		}
		end += int(r.captured)
	}
	if len(p.hashes) != len(p.records) || end != p.used || frames != int(s.Held) || int(s.HeldBytes) != end+len(p.records)*(recordSize+4) {
		x.t.Fatalf("%d frames with %d bytes: %+v", frames, end, s)
	}
}

// Whatever comes, the memory is that which was given, nothing is lost without being
// counted, and no flow is said to be complete that is not.
func FuzzBuffer(f *testing.F) {
	f.Add([]byte{0, 1, 40, 1, 1, 40, 2, 1, 40, 7, 1, 0}, uint8(1))
	f.Add(bytes.Repeat([]byte{0, 1, 255, 1, 2, 255, 1, 1, 250, 0, 3, 90, 6, 3, 0, 2, 2, 9}, 80), uint8(40))
	f.Add(bytes.Repeat([]byte{5, 1, 3, 5, 2, 200, 1, 3, 3, 3, 3, 3}, 40), uint8(200))
	f.Fuzz(operate)
}

// The same for operations at random.
func TestBufferAtRandom(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		ops := make([]byte, 3*r.IntN(400))
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		operate(t, ops, uint8(r.Uint32()))
	}
}

// operate does what ops say with flows of few endpoints, in little memory.
func operate(t *testing.T, ops []byte, scale uint8) {
	part := newPart(64 << 10) // less than anybody may set
	x := &traffic{t: t, buffer: &Buffer{parts: []*Part{part}}, part: part, origin: &event.Origin{Path: "-"}, flows: map[int]*sent{}}
	for len(ops) >= 3 {
		op, n, size := ops[0], int(ops[1]%8), int(ops[2])*(1+int(scale)/8)
		ops = ops[3:]
		switch op % 9 {
		case 0:
			x.send(n, size, First|Undecided)
		case 1, 2:
			x.send(n, size, Undecided)
		case 3:
			x.send(n, 0, Unfollowed)
		case 4:
			x.send(n, size, Shown)
		case 5:
			x.pieces(uint64(n), size)
		case 6:
			e := endpoints(n)
			x.buffer.Hold(Flow{Transport: event.TCP, Endpoints: e})
		case 7:
			x.ask(n)
		case 8:
			x.clock += int64(size) * 1e7
		}
	}
	x.check()
	for n := range 8 {
		x.ask(n)
	}
}

// pieces sends a frame with a piece of a datagram.
func (x *traffic) pieces(id uint64, size int) {
	p := x.packet(0, size)
	x.part.Pieces(p.Frame, x.origin, []decode.Piece{{Of: id + 1, In: uint64(size % 3)}})
}

// A part takes the memory that it was given, and not more.
func TestBufferMemory(t *testing.T) {
	if n := unsafe.Sizeof(record{}); n != recordSize {
		t.Errorf("a record has %d bytes", n)
	}
	if n := unsafe.Sizeof(tally{}); n != tallySize {
		t.Errorf("a tally has %d bytes", n)
	}
	if n := unsafe.Sizeof(newest{}); n != newestSize {
		t.Errorf("a newest has %d bytes", n)
	}
	for _, size := range []int{1 << 20, MinBuffer, 10_000_019, DefaultBuffer} {
		var s store
		s.init(size)
		n := len(s.data) + (recordSize+4)*cap(s.records) + tallySize*cap(s.flows) + 4*len(s.buckets) + newestSize*len(s.datagrams)
		if n > size || n < size*9/10 {
			t.Errorf("%d bytes for %d", n, size)
		}
	}
}

// A flood of one kind leaves the frames of others alone: handshakes that are under way,
// and one with an alert.
func TestBufferFloods(t *testing.T) {
	for name, flood := range map[string]func(x *traffic, i int){
		"SYNs from anywhere":       func(x *traffic, i int) { x.send(1001+2*i, 0, First|Undecided) },
		"hellos of one client":     func(x *traffic, i int) { x.send(1000+2*(i/4%20000), 400, Undecided|First*Fate(1-min(i%4, 1))) },
		"one flow without an end":  func(x *traffic, i int) { x.send(2, 1400, Undecided) },
		"handshakes that are over": func(x *traffic, i int) { x.send(1001+2*i, 1200, First|Undecided); x.send(1001+2*i, 1200, Shown) },
	} {
		t.Run(name, func(t *testing.T) {
			x := newTraffic(t, MinBuffer)
			x.send(2, 0, First|Undecided)
			const honest, alert = 11, 13
			for _, n := range []int{honest, alert} {
				x.send(n, 0, First|Undecided)
				x.send(n, 500, Undecided)
			}
			x.send(alert, 1300, Shown)
			x.buffer.Hold(Flow{Transport: event.TCP, Endpoints: endpoints(alert)})
			for i := range 40000 {
				flood(x, i)
				x.clock -= 9e5 // 10,000 a second
				if i%4000 == 0 {
					x.send(honest, 900, Undecided)
				}
			}
			x.send(honest, 100, Shown)
			x.check()
			for _, n := range []int{honest, alert} {
				if !x.ask(n) {
					t.Errorf("the flow %d is not complete: %+v", n, x.buffer.Stats())
				}
			}
			if s := x.buffer.Stats(); s.GivenUp+s.GivenUpEarly == 0 {
				t.Errorf("nothing was given up: %+v", s)
			}
		})
	}
}

// A flow that is decided stays until all its alerts are known, and goes then, although
// there is memory for more.
func TestBufferJudged(t *testing.T) {
	x := newTraffic(t, MinBuffer)
	const judged, waiting, alert = 11, 13, 15
	for _, n := range []int{judged, alert} {
		x.send(n, 500, First|Undecided)
		x.send(n, 1200, Shown)
	}
	interval := x.part.End()
	x.send(waiting, 500, First|Undecided)
	x.send(waiting, 1200, Shown)
	x.buffer.Hold(Flow{Transport: event.TCP, Endpoints: endpoints(alert)})
	x.part.Judged(interval)
	for i := range 4000 {
		x.send(1001+2*i, 1200, First|Undecided)
		x.send(1001+2*i, 0, Over)
		x.clock -= 19e5 // 10,000 flows a second
	}
	x.check()
	if s := x.buffer.Stats(); s.GivenUp == 0 || s.GivenUpEarly > 0 || s.HeldBytes > MinBuffer/4 {
		t.Errorf("%+v", s)
	}
	for n, want := range map[int]bool{judged: false, waiting: true, alert: true} {
		if x.ask(n) != want {
			t.Errorf("the flow %d is complete: %v", n, !want)
		}
	}
}

// Frames are taken without an allocation.
func TestBufferAllocations(t *testing.T) {
	x := newTraffic(t, MinBuffer)
	packets := make([]decode.Packet, 4000)
	fates := make([]Fate, len(packets))
	for i := range packets {
		packets[i] = x.packet(i/8, 700)
		fates[i] = Undecided
		if i%8 == 0 {
			fates[i] |= First
		}
	}
	take := func() {
		for i := 0; i < len(packets); i += 16 {
			x.part.Take(packets[i:i+16], fates[i:i+16], x.origin, x.part)
		}
	}
	for range 4 {
		take()
	}
	if n := testing.AllocsPerRun(5, take); n != 0 {
		t.Errorf("%v allocations", n)
	}
	x.check()
}

// One goroutine fills a part while others ask.
func TestBufferConcurrently(t *testing.T) {
	x := newTraffic(t, MinBuffer)
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			for n := range 400 {
				list, _ := x.buffer.Frames(Flow{Transport: event.TCP, Endpoints: endpoints(n % 50)})
				for i := range list {
					if first := list[i].Data[0]; first != byte(list[i].Number) {
						t.Errorf("frame %d begins with %d", list[i].Number, first)
					}
				}
				x.buffer.Hold(Flow{Transport: event.TCP, Endpoints: endpoints(n % 50)})
				x.buffer.Stats()
			}
		})
	}
	for i := range 20000 {
		p := x.packet(i/7%50, 600)
		fate := Undecided
		if i%7 == 0 {
			fate |= First
		}
		x.part.Take([]decode.Packet{p}, []Fate{fate}, x.origin, x.part)
	}
	wait.Wait()
	x.check()
}

// More captures in one stream than a part tells apart cost frames, and nothing else.
func TestBufferOrigins(t *testing.T) {
	x := newTraffic(t, MinBuffer)
	for i := range 3 * limitOrigins {
		x.origin = &event.Origin{Path: "-", Interface: string(binary.BigEndian.AppendUint16(nil, uint16(i)))}
		x.send(1, 10, Undecided|First*Fate(1-min(i, 1)))
	}
	x.check()
	if x.ask(1) {
		t.Error("complete although frames were given up")
	}
}
