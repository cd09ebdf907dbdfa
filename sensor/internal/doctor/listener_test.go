package doctor

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// segment is a frame of TCP over IPv4 on Ethernet.
type segment struct {
	from, to byte // last byte of the addresses, and the port
	seq      uint32
	flags    byte
	payload  string
	vlan     uint16 // 0 for none
	cut      int    // bytes that are missing at its end
}

func (s segment) frame() []byte {
	b := []byte{2, 0, 0, 0, 0, s.to, 2, 0, 0, 0, 0, s.from}
	if s.vlan > 0 {
		b = binary.BigEndian.AppendUint16(append(b, 0x81, 0), s.vlan)
	}
	b = append(b, 8, 0, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(40+len(s.payload)))
	b = append(b, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, s.from, 192, 0, 2, s.to)
	b = append(b, 0, s.from, 0, s.to)
	b = binary.BigEndian.AppendUint32(b, s.seq)
	b = append(b, 0, 0, 0, 1, 0x50, s.flags, 1, 0, 0, 0, 0, 0)
	b = append(b, s.payload...)
	return b[:len(b)-s.cut]
}

// played is a source of frames, some in a batch.
type played struct {
	frames []capture.Frame
	origin event.Origin
}

func (p *played) add(at time.Duration, s segment) {
	b := s.frame()
	p.frames = append(p.frames, capture.Frame{Data: b, Time: int64(at), Length: uint32(len(b)), LinkType: linktype.Ethernet})
}

func (p *played) Next() (*capture.Batch, error) {
	if len(p.frames) == 0 {
		return nil, io.EOF
	}
	n := min(len(p.frames), 7)
	batch := &capture.Batch{Origin: &p.origin, Frames: p.frames[:n]}
	p.frames = p.frames[n:]
	return batch, nil
}

func (p *played) Stats() capture.Stats { return capture.Stats{} }
func (p *played) Close() error         { return nil }

// heard is what a listener hears of a source.
func heard(t *testing.T, p *played) Heard {
	t.Helper()
	p.origin.Interface = "span0"
	l := NewListener()
	source := l.Source(p, nil)
	for {
		batch, err := source.Next()
		if err == io.EOF {
			return l.Heard()
		}
		if err != nil {
			t.Fatal(err)
		}
		batch.Release()
	}
}

const ack = 0x10

// conversation adds segments both ways, or one way, of a flow.
func (p *played) conversation(from, to byte, both bool) {
	for n := range uint32(6) {
		at := time.Duration(len(p.frames)) * time.Millisecond
		p.add(at, segment{from: from, to: to, seq: 1000 + n*5, flags: ack, payload: "hello"})
		if both {
			p.add(at, segment{from: to, to: from, seq: 77, flags: ack})
		}
	}
}

// TestDirections counts flows of which one direction is missing, but no scans and no
// connections that are refused.
func TestDirections(t *testing.T) {
	p := new(played)
	for n := range byte(10) {
		p.conversation(n+1, 100, n%2 == 0)
	}
	for n := range uint32(50) {
		p.add(0, segment{from: 200, to: byte(n), seq: n, flags: 2})       // SYN
		p.add(0, segment{from: byte(n), to: 201, seq: n, flags: 4 | ack}) // RST
		p.add(0, segment{from: 202, to: byte(n), seq: n, flags: 1 | ack}) // the end of one that began before
		p.add(0, segment{from: 203, to: 204, seq: n, flags: 2})           // many SYN of one flow
	}
	h := heard(t, p)
	if h.Flows != 10 || h.OneSided != 5 {
		t.Errorf("%d of %d flows have one side", h.OneSided, h.Flows)
	}
	if f := h.ByInterface["span0"]; f.Count != h.Frames() || f.Count == 0 || f.Longest != 59 {
		t.Errorf("%+v", f)
	}
}

// TestDoubled finds copies wherever they are, and takes nothing for one that a sender
// has sent again.
func TestDoubled(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	p := new(played)
	copies, other := uint64(0), uint64(0)
	for n := range uint32(2000) {
		at := time.Duration(n) * time.Millisecond
		s := segment{from: byte(r.IntN(20)), to: 100, seq: 10 * n, flags: ack, payload: fmt.Sprintf("%010d", n)}
		p.add(at, s)
		switch r.IntN(4) {
		case 0:
			p.add(at+time.Duration(r.Int64N(int64(doubledWithin))), s)
			copies++
		case 1:
			s.vlan = 7
			p.add(at+10*time.Microsecond, s)
			copies, other = copies+1, other+1
		case 2: // a retransmission
			p.add(at+200*time.Millisecond, s)
		case 3: // the same bytes at another place of the stream, and an acknowledgement twice
			s.seq += 5
			p.add(at, s)
			s.payload = ""
			p.add(at, s)
			p.add(at, s)
		}
	}
	h := heard(t, p)
	if h.Doubled != copies || h.OtherVLAN != other || h.OtherMAC != 0 {
		t.Errorf("%d copies, %d in another VLAN; want %d and %d", h.Doubled, h.OtherVLAN, copies, other)
	}
	if n := h.VLANs[1<<24|7<<12]; n != other {
		t.Errorf("%d packets in VLAN 7, want %d", n, other)
	}
}

// TestCut counts frames whose end is missing.
func TestCut(t *testing.T) {
	p := new(played)
	for n := range 10 {
		p.add(0, segment{from: 1, to: 2, seq: uint32(n), flags: ack, payload: "hello", cut: n % 5})
	}
	if h := heard(t, p); h.Cut != 8 {
		t.Errorf("%d frames are cut", h.Cut)
	}
}

// TestFlood holds that a flood of flows takes no more memory than it may, and is said.
func TestFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills the table of flows")
	}
	l := NewListener()
	p := &played{}
	e := l.Source(p, nil).(*ear)
	s := segment{from: 1, to: 2, flags: ack, payload: "x"}.frame()
	for n := range uint32(maxFlows + 1000) {
		binary.BigEndian.PutUint32(s[14+12:], 10<<24+n)
		p.frames = []capture.Frame{{Data: s, Length: uint32(len(s)), LinkType: linktype.Ethernet}}
		if _, err := e.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if h := l.Heard(); len(e.flows) != maxFlows || h.Unjudged != 1000 {
		t.Errorf("%d flows, and %d packets of others", len(e.flows), h.Unjudged)
	}
}

// TestHandshakes counts what the records of handshakes say.
func TestHandshakes(t *testing.T) {
	l := NewListener()
	for _, r := range []output.Record{
		{Dataset: output.Handshake, JSON: []byte(`{"tls":{"version":"1.2"},"network":{"protocol":"tls"},"oddcert":{"certificates":"extracted"}}`)},
		{Dataset: output.Handshake, JSON: []byte(`{"tls":{"version":"1.3"},"network":{"protocol":"quic"},"oddcert":{"certificates":"encrypted"}}`)},
		{Dataset: output.Handshake, JSON: []byte(`{"tls":{"version":"1.3"},"network":{"protocol":"tls"},"oddcert":{"certificates":"encrypted"}}`)},
		{Dataset: output.Handshake, JSON: []byte(`{"network":{"protocol":"tls"},"oddcert":{"certificates":"lost"}}`)},
		{Dataset: output.Stats, JSON: []byte(`{}`)},
	} {
		if err := l.Write(&r); err != nil {
			t.Error(err)
		}
	}
	if want := (Handshakes{All: 4, TLS13: 2, QUIC: 1, Extracted: 1, Encrypted: 2, Lost: 1}); l.Handshakes() != want {
		t.Errorf("%+v", l.Handshakes())
	}
}
