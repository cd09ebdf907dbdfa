package traffic

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// generate makes the named capture in memory.
func generate(t testing.TB, name string, scale float64, adapt func(*Spec)) ([]byte, *Truth) {
	t.Helper()
	spec, err := Named(name, scale, 7)
	if err != nil {
		t.Fatal(err)
	}
	if adapt != nil {
		adapt(&spec)
	}
	var b bytes.Buffer
	truth, err := Generate(&b, spec)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), truth
}

// frame is one frame of a capture, read by gopacket.
type frame struct {
	at      int64
	length  int
	src     netip.AddrPort
	dst     netip.AddrPort
	vlans   []uint16
	tcp     *layers.TCP
	payload []byte
}

// read decodes a capture with gopacket and fails on whatever it finds wrong.
func read(t testing.TB, capture []byte) []frame {
	t.Helper()
	r, err := pcapgo.NewReader(bytes.NewReader(capture))
	if err != nil {
		t.Fatal(err)
	}
	var frames []frame
	for {
		data, info, err := r.ReadPacketData()
		if err == io.EOF {
			return frames
		}
		if err != nil {
			t.Fatalf("frame %d: %v", len(frames)+1, err)
		}
		f := frame{at: info.Timestamp.UnixNano(), length: info.Length}
		p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: false, NoCopy: true})
		if e := p.ErrorLayer(); e != nil {
			t.Fatalf("frame %d: %v", len(frames)+1, e.Error())
		}
		for _, l := range p.Layers() {
			if v, ok := l.(*layers.Dot1Q); ok {
				f.vlans = append(f.vlans, v.VLANIdentifier)
			}
		}
		src, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Src().Raw())
		dst, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Dst().Raw())
		switch l := p.TransportLayer().(type) {
		case *layers.TCP:
			f.tcp, f.payload = l, l.Payload
			f.src, f.dst = netip.AddrPortFrom(src, uint16(l.SrcPort)), netip.AddrPortFrom(dst, uint16(l.DstPort))
			if info.CaptureLength == info.Length {
				checksum(t, len(frames)+1, p, l.Checksum, l)
			}
		case *layers.UDP:
			f.payload = l.Payload
			f.src, f.dst = netip.AddrPortFrom(src, uint16(l.SrcPort)), netip.AddrPortFrom(dst, uint16(l.DstPort))
			if info.CaptureLength == info.Length {
				checksum(t, len(frames)+1, p, l.Checksum, l)
			}
		default:
			t.Fatalf("frame %d: neither TCP nor UDP", len(frames)+1)
		}
		frames = append(frames, f)
	}
}

// checksum lets gopacket write the transport layer anew, and compares.
func checksum(t testing.TB, number int, p gopacket.Packet, got uint16, l interface {
	gopacket.SerializableLayer
	SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
}) {
	t.Helper()
	if err := l.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
		t.Fatal(err)
	}
	b := gopacket.NewSerializeBuffer()
	payload := gopacket.Payload(p.TransportLayer().LayerPayload())
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{ComputeChecksums: true}, l, payload); err != nil {
		t.Fatal(err)
	}
	var want uint16
	switch l := l.(type) {
	case *layers.TCP:
		want = l.Checksum
	case *layers.UDP:
		want = l.Checksum
	}
	if got != want {
		t.Fatalf("frame %d: checksum %#x, gopacket says %#x", number, got, want)
	}
}

func TestCapturesAreSound(t *testing.T) {
	for _, name := range Names() {
		scale := 0.01
		switch name {
		case "syns", "hellos":
			scale = 0.001
		case "undecided":
			scale = 0.005
		}
		t.Run(name, func(t *testing.T) {
			capture, truth := generate(t, name, scale, nil)
			if int64(len(capture)) != truth.Bytes {
				t.Errorf("%d bytes, truth says %d", len(capture), truth.Bytes)
			}
			frames := read(t, capture)
			if len(frames) != truth.Frames || len(frames) == 0 {
				t.Errorf("%d frames, truth says %d", len(frames), truth.Frames)
			}
			last := int64(0)
			for i, f := range frames {
				if f.at <= last {
					t.Fatalf("frame %d: time does not go up", i+1)
				}
				last = f.at
			}
			starts := make(map[netip.AddrPort]bool)
			for _, f := range frames {
				starts[f.src] = true
			}
			for _, c := range truth.Connections {
				if !starts[c.Client] && !starts[c.Server] {
					t.Errorf("%v > %v is nowhere in the capture", c.Client, c.Server)
				}
			}
		})
	}
}

// TestConversationsAreConsistent follows sequence numbers and timestamps as
// strict sensors do: a SYN-ACK with a wrong echo costs them the whole flow.
func TestConversationsAreConsistent(t *testing.T) {
	capture, _ := generate(t, "clean", 0.03, nil)
	type side struct{ next, stamp uint32 }
	sides := make(map[string]side)
	for i, f := range read(t, capture) {
		self, peer := fmt.Sprint(f.src, f.dst, f.vlans), fmt.Sprint(f.dst, f.src, f.vlans)
		var stamp, echo uint32
		for _, o := range f.tcp.Options {
			if o.OptionType == layers.TCPOptionKindTimestamps {
				stamp, echo = binary.BigEndian.Uint32(o.OptionData), binary.BigEndian.Uint32(o.OptionData[4:])
			}
		}
		was, begun := sides[self]
		if begun && f.tcp.Seq != was.next {
			t.Fatalf("frame %d: sequence number %d, want %d", i+1, f.tcp.Seq, was.next)
		}
		if f.tcp.ACK != (sides[peer] != side{}) || f.tcp.Ack != sides[peer].next {
			t.Fatalf("frame %d: acknowledges %d, want %d", i+1, f.tcp.Ack, sides[peer].next)
		}
		if stamp < was.stamp || echo != sides[peer].stamp {
			t.Fatalf("frame %d: timestamp %d after %d, echo %d of %d", i+1, stamp, was.stamp, echo, sides[peer].stamp)
		}
		next := f.tcp.Seq + uint32(len(f.payload))
		if f.tcp.SYN || f.tcp.FIN {
			next++
		}
		sides[self] = side{next, stamp}
	}
}

// TestSameSeedSameCapture compares everything but the random values of TLS.
func TestSameSeedSameCapture(t *testing.T) {
	a, truthA := generate(t, "truth", 0.03, nil)
	b, truthB := generate(t, "truth", 0.03, nil)
	if !reflect.DeepEqual(truthA, truthB) {
		t.Error("two truths of one seed")
	}
	framesA, framesB := read(t, a), read(t, b)
	if len(framesA) != len(framesB) {
		t.Fatalf("%d frames, then %d", len(framesA), len(framesB))
	}
	for i := range framesA {
		a, b := framesA[i], framesB[i]
		if a.at != b.at || a.length != b.length || a.src != b.src || a.dst != b.dst || a.tcp.Seq != b.tcp.Seq {
			t.Fatalf("frame %d differs: %+v, %+v", i+1, a, b)
		}
	}
	_, other := generate(t, "truth", 0.03, func(s *Spec) { s.Seed++ })
	if reflect.DeepEqual(truthA.Connections, other.Connections) {
		t.Error("another seed makes no difference")
	}
}

func TestImpairmentRates(t *testing.T) {
	const rate = 0.1
	_, truth := generate(t, "clean", 0.1, func(s *Spec) {
		s.Impairment = Uniform(rate)
		s.Impairment.Conflict = rate
	})
	clean, _ := generate(t, "clean", 0.1, nil)
	sent := len(read(t, clean))
	for what, most := range map[string]float64{"dropped": rate, "duplicated": rate, "reordered": rate, "overlapped": rate, "conflicting": rate} {
		got := float64(truth.Faults[what]) / float64(sent)
		least := most * 0.8
		if what == "overlapped" || what == "conflicting" {
			least = most * 0.2 // only of segments with data, and with data before them
		}
		if got < least || got > most*1.1 {
			t.Errorf("%s: %.3f of the frames, want %.3f", what, got, rate)
		}
	}
	if want := sent - truth.Faults["dropped"] + truth.Faults["duplicated"] + truth.Faults["overlapped"] + truth.Faults["conflicting"]; truth.Frames != want {
		t.Errorf("%d frames, the faults make %d", truth.Frames, want)
	}
}

func TestLossyFlows(t *testing.T) {
	_, truth := generate(t, "clean", 0.1, func(s *Spec) { s.Lossy = 0.1 })
	flows := 0
	for _, c := range truth.Connections {
		if n := c.Faults["lost"]; n > 1 {
			t.Errorf("%v lost %d segments", c.Client, n)
		} else if n == 1 {
			flows++
		}
	}
	if share := float64(flows) / float64(truth.Flows); share < 0.07 || share > 0.13 {
		t.Errorf("%.3f of the flows lost a segment, want 0.1", share)
	}
}

func TestSpansAgainstBitmap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var s spans
		var bits [64]bool
		for range 12 {
			lo := rng.Int64N(60)
			x := span{lo, lo + 1 + rng.Int64N(64-lo)%9}
			s.add(x)
			for i := x.lo; i < x.hi; i++ {
				bits[i] = true
			}
			lo = rng.Int64N(60)
			x = span{lo, lo + 1 + rng.Int64N(4)}
			if got, want := s.contains(x), !slices.Contains(bits[x.lo:x.hi], false); got != want {
				t.Fatalf("%v contains %v: %v, want %v", s, x, got, want)
			}
		}
	}
}

func TestBadSpecs(t *testing.T) {
	if _, err := Named("nonesuch", 1, 1); err == nil {
		t.Error("an unknown name passes")
	}
	for name, s := range map[string]Spec{
		"kind":    {Shares: []Share{{Kind: "nonesuch", Flows: 1}}},
		"segment": {Shares: []Share{{Kind: SYN, Flows: 1}}, MSS: []int{0}},
	} {
		if _, err := Generate(io.Discard, s); err == nil {
			t.Errorf("bad %s passes", name)
		}
	}
}

func BenchmarkGenerate(b *testing.B) {
	for _, name := range []string{"bulk", "handshakes", "mix"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				spec, err := Named(name, 0.05, 1)
				if err != nil {
					b.Fatal(err)
				}
				truth, err := Generate(io.Discard, spec)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(truth.Bytes)
				b.ReportMetric(float64(truth.Frames), "frames")
			}
		})
	}
}

// TestFloodNames: a flood has no name that a specification has.
func TestFloodNames(t *testing.T) {
	for _, name := range Floods() {
		if _, ok := named[name]; ok {
			t.Errorf("%s is both", name)
		}
	}
}

// TestGenerateFlood makes a little of each flood: the truth counts what is in
// the capture, whose frames are in the order of time.
func TestGenerateFlood(t *testing.T) {
	for _, name := range Floods() {
		var b bytes.Buffer
		truth, err := GenerateFlood(&b, name, 0.002, 1)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if truth.Bytes != int64(b.Len()) || len(truth.Connections) != honestFlows {
			t.Errorf("%s: %d bytes are said to be there of %d, %d connections", name, truth.Bytes, b.Len(), len(truth.Connections))
		}
		frames, last := 0, int64(0)
		for p := b.Bytes()[24:]; len(p) > 0; frames++ {
			at := int64(binary.LittleEndian.Uint32(p))*1e9 + int64(binary.LittleEndian.Uint32(p[4:]))
			if at <= last {
				t.Fatalf("%s: frame %d is before the one before", name, frames)
			}
			last = at
			p = p[16+binary.LittleEndian.Uint32(p[8:]):]
		}
		if frames != truth.Frames {
			t.Errorf("%s: %d frames, the truth says %d", name, frames, truth.Frames)
		}
	}
}
