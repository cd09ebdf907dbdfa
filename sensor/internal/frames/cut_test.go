package frames

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// fakeSource yields batches of frames.
type fakeSource struct{ batches []*capture.Batch }

func (s *fakeSource) Next() (*capture.Batch, error) {
	if len(s.batches) == 0 {
		return nil, io.EOF
	}
	b := s.batches[0]
	s.batches = s.batches[1:]
	return b, nil
}
func (s *fakeSource) Stats() capture.Stats { return capture.Stats{} }
func (s *fakeSource) Close() error         { return nil }

var (
	client = netip.MustParseAddrPort("192.0.2.1:50000")
	server = netip.MustParseAddrPort("192.0.2.2:443")
	origin = &event.Origin{Path: "a.pcap"}
)

func flowOf(transport event.Transport) Flow {
	return Flow{Transport: transport, Endpoints: [2]event.Endpoint{{Addr: server.Addr(), Port: server.Port()}, {Addr: client.Addr(), Port: client.Port()}}}
}

// ipv4 is an Ethernet frame with a packet of IPv4, or a fragment of one.
func ipv4(src, dst netip.Addr, id uint16, offset int, more bool, proto uint8, payload []byte) []byte {
	b := append(make([]byte, 12), 8, 0, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(20+len(payload)))
	b = binary.BigEndian.AppendUint16(b, id)
	field := uint16(offset / 8)
	if more {
		field |= 0x2000
	}
	b = binary.BigEndian.AppendUint16(b, field)
	b = append(b, 64, proto, 0, 0)
	s, d := src.As4(), dst.As4()
	return append(append(append(b, s[:]...), d[:]...), payload...)
}

// tcp is a segment between the ends, from the client or from the server.
func tcp(fromServer bool, seq uint32, flags uint8, payload string) []byte {
	a, b := client, server
	if fromServer {
		a, b = b, a
	}
	s := binary.BigEndian.AppendUint16(nil, a.Port())
	s = binary.BigEndian.AppendUint16(s, b.Port())
	s = binary.BigEndian.AppendUint32(s, seq)
	s = append(s, 0, 0, 0, 1, 5<<4, flags, 1, 0, 0, 0, 0, 0)
	return ipv4(a.Addr(), b.Addr(), 0, 0, false, 6, append(s, payload...))
}

// udp is a datagram without a checksum.
func udp(payload []byte) []byte {
	s := binary.BigEndian.AppendUint16(nil, client.Port())
	s = binary.BigEndian.AppendUint16(s, server.Port())
	s = binary.BigEndian.AppendUint16(s, uint16(8+len(payload)))
	return append(append(s, 0, 0), payload...)
}

// batchOf makes a batch of frames, of which one comes each second.
func batchOf(series int, frames ...[]byte) *capture.Batch {
	b := &capture.Batch{Origin: origin, Series: series}
	for i, data := range frames {
		at := int64(i+1) * 1e9
		b.Frames = append(b.Frames, capture.Frame{Data: data, Time: at, Clock: at, Number: uint64(i + 1), Length: uint32(len(data)), LinkType: linktype.Ethernet})
	}
	return b
}

func numbers(t testing.TB, flows []Flow, batches ...*capture.Batch) [][]uint64 {
	t.Helper()
	found := make([][]uint64, len(flows))
	_, err := Cut(t.Context(), &fakeSource{batches}, flows, Options{}, func(f *Frame, of []int) error {
		for _, i := range of {
			found[i] = append(found[i], f.Number)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestPortReuse tells flows apart that follow one another on the same endpoints.
func TestPortReuse(t *testing.T) {
	const fin, syn, rst, ack = decode.FlagFIN, decode.FlagSYN, decode.FlagRST, decode.FlagACK
	b := batchOf(1,
		tcp(false, 100, syn, ""), tcp(true, 500, syn|ack, ""), tcp(false, 101, ack, "one"), // 1 to 3
		tcp(true, 501, ack, ""), tcp(false, 104, fin|ack, ""), tcp(true, 501, fin|ack, ""), tcp(false, 105, ack, ""), // 4 to 7
		tcp(false, 900, syn, ""), tcp(true, 700, syn|ack, ""), tcp(false, 901, ack, "two"), // 8 to 10
		tcp(false, 900, syn, ""),                      // a repetition, 11
		tcp(true, 701, rst, ""),                       // 12
		tcp(false, 5, syn, ""), tcp(false, 6, 0, "3"), // 13, 14
	)
	all := flowOf(event.TCP)
	from := func(second int64, to uint64) Flow {
		f := all
		f.Origin, f.From.Time = origin, second*1e9
		if to > 0 {
			f.To = event.Moment{Time: int64(to) * 1e9, Frame: to}
		}
		return f
	}
	got := numbers(t, []Flow{all, from(1, 0), from(8, 0), from(13, 0), from(3, 0), from(1, 3), from(8, 10), from(10, 10)}, b)
	want := [][]uint64{
		{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14},
		{1, 2, 3, 4, 5, 6, 7}, {8, 9, 10, 11, 12}, {13, 14},
		{1, 2, 3, 4, 5, 6, 7}, // the sensor has begun in the middle
		{1, 2, 3}, {8, 9, 10}, {8, 9, 10},
	}
	for i := range want {
		if !slices.Equal(got[i], want[i]) {
			t.Errorf("flow %d has frames %v, want %v", i, got[i], want[i])
		}
	}
	other := &event.Origin{Path: "b.pcap"}
	elsewhere := from(1, 0)
	elsewhere.Origin = other
	if got := numbers(t, []Flow{elsewhere}, b); len(got[0]) > 0 {
		t.Errorf("the flow of another capture has frames %v", got[0])
	}
	// The next series is another capture.
	first := batchOf(1, tcp(false, 100, syn, ""))
	second := batchOf(2, tcp(false, 101, ack, "other"))
	if got := numbers(t, []Flow{from(1, 0)}, first, second); !slices.Equal(got[0], []uint64{1}) {
		t.Errorf("frames %v, want the first", got[0])
	}
}

// TestFragmentsInOrder finds all fragments of datagrams that arrive in any order,
// between others, in the order of capture.
func TestFragmentsInOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		type piece struct {
			data   []byte
			wanted bool
		}
		var pieces []piece
		for id := range uint16(1 + r.IntN(5)) {
			src, wanted := client.Addr(), true
			if r.IntN(2) == 0 {
				src, wanted = netip.MustParseAddr("198.51.100.7"), false
			}
			payload := udp(make([]byte, 100+r.IntN(200)))
			size := 8 * (1 + r.IntN(20))
			lost := r.IntN(4) == 0 // a datagram that is never whole has no flow
			for at := 0; at < len(payload); at += size {
				end := min(at+size, len(payload))
				if lost && at > 0 {
					break
				}
				pieces = append(pieces, piece{ipv4(src, server.Addr(), id, at, end < len(payload), 17, payload[at:end]), wanted && (!lost || size >= len(payload))})
			}
			if r.IntN(3) == 0 {
				pieces = append(pieces, piece{ipv4(client.Addr(), server.Addr(), 0, 0, false, 17, udp([]byte("whole"))), true})
			}
		}
		r.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
		var list [][]byte
		var want []uint64
		for i, p := range pieces {
			list = append(list, p.data)
			if p.wanted {
				want = append(want, uint64(i+1))
			}
		}
		b := batchOf(1, list...)
		for i := range b.Frames { // all come at once
			b.Frames[i].Time, b.Frames[i].Clock = 1e9, 1e9
		}
		if got := numbers(t, []Flow{flowOf(event.UDP)}, b); !slices.Equal(got[0], want) {
			t.Fatalf("frames %v, want %v", got[0], want)
		}
	}
}

// TestFragmentsInFragments finds fragments of a tunnel that carries fragments.
func TestFragmentsInFragments(t *testing.T) {
	payload := udp(make([]byte, 200))
	var list [][]byte
	a, b := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	for n, at := range []int{0, 104} {
		end := min(at+104, len(payload))
		inner := ipv4(client.Addr(), server.Addr(), 7, at, end < len(payload), 17, payload[at:end])[14:]
		list = append(list, ipv4(a, b, uint16(n), 0, true, 4, inner[:64]), ipv4(a, b, uint16(n), 64, false, 4, inner[64:]))
	}
	list = append(list, list[0]) // a repetition
	if got := numbers(t, []Flow{flowOf(event.UDP)}, batchOf(1, list...)); !slices.Equal(got[0], []uint64{1, 2, 3, 4, 5}) {
		t.Errorf("frames %v, want all five", got[0])
	}
}

// TestBound holds no more fragments than the limits say, counts those that it gives up,
// and finds the others.
func TestBound(t *testing.T) {
	flow := flowOf(event.UDP)
	var found int
	s := NewSearch([]Flow{flow}, Options{}, func(*Frame, []int) error { found++; return nil })
	junk := make([]byte, 1400)
	send := func(data []byte) {
		if err := s.Batch(&capture.Batch{Origin: origin, Frames: []capture.Frame{{Data: data, Time: 1, Clock: 1, Number: 1, Length: uint32(len(data)), LinkType: linktype.Ethernet}}}); err != nil {
			t.Fatal(err)
		}
	}
	wanted := ipv4(client.Addr(), server.Addr(), 1, 0, false, 17, udp([]byte("x")))
	for i := range 100_000 {
		send(ipv4(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), server.Addr(), uint16(i), 0, true, 17, junk))
		if i%1000 == 0 {
			send(wanted)
		}
		if s.bytes > limitWaiting || len(s.ages) > limitDatagrams {
			t.Fatalf("%d bytes and %d datagrams are held", s.bytes, len(s.ages))
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if found != 100 || s.Stats().Frames != 100 {
		t.Errorf("%d frames were found, want 100", found)
	}
	if s.Stats().GivenUp == 0 || s.bytes != 0 || len(s.queue) != 0 || len(s.datagrams) != 0 {
		t.Errorf("%d fragments were given up; %d bytes, %d frames and %d datagrams are held in the end", s.Stats().GivenUp, s.bytes, len(s.queue), len(s.datagrams))
	}
}

// TestErrorOfEach ends the search.
func TestErrorOfEach(t *testing.T) {
	b := batchOf(1, tcp(false, 1, decode.FlagSYN, ""), tcp(false, 2, decode.FlagACK, "x"))
	full, calls := errors.New("the disk is full"), 0
	_, err := Cut(t.Context(), &fakeSource{[]*capture.Batch{b, b}}, []Flow{flowOf(event.TCP)}, Options{}, func(*Frame, []int) error { calls++; return full })
	if !errors.Is(err, full) || calls != 1 {
		t.Errorf("%d calls, and then %v", calls, err)
	}
}

// TestNoAllocations: frames that nobody wants cost no memory.
func TestNoAllocations(t *testing.T) {
	var other [][]byte
	for i := range 100 {
		other = append(other, tcp(i%2 == 0, uint32(i), decode.FlagACK, "payload"))
	}
	b := batchOf(1, other...)
	flow := flowOf(event.TCP)
	flow.Endpoints[1].Port++
	s := NewSearch([]Flow{flow}, Options{}, func(*Frame, []int) error { return nil })
	s.Batch(b)
	if n := testing.AllocsPerRun(100, func() { s.Batch(b) }); n != 0 {
		t.Errorf("%v allocations for 100 frames", n)
	}
}

// FuzzCut cuts flows out of files of arbitrary bytes. The frames are some of the file,
// each once and in its order; all flows at once give what each gives by itself; and
// what was cut out is found again in it.
func FuzzCut(f *testing.F) {
	for _, name := range []string{"odd-certificate", "dtls12-fragments", "tls13"} {
		if b, err := os.ReadFile(filepath.Join("../../testdata/captures", name, "capture.pcap")); err == nil {
			f.Add(b, uint16(0), uint16(0))
			f.Add(b, uint16(777), uint16(0xff00))
		}
	}
	var file bytes.Buffer
	file.Write([]byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0})
	payload := udp(make([]byte, 100))
	for _, data := range [][]byte{ipv4(client.Addr(), server.Addr(), 7, 0, true, 17, payload[:64]), tcp(false, 1, decode.FlagSYN, ""), ipv4(client.Addr(), server.Addr(), 7, 64, false, 17, payload[64:])} {
		file.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0, byte(len(data)), 0, 0, 0, byte(len(data)), 0, 0, 0})
		file.Write(data)
	}
	f.Add(file.Bytes(), uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, raw []byte, at, flip uint16) {
		if len(raw) == 0 || len(raw) > 1<<16 {
			return
		}
		raw = bytes.Clone(raw)
		raw[int(at)%len(raw)] ^= byte(flip)
		path := filepath.Join(t.TempDir(), "a.pcap")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		all := map[uint64][]byte{}
		var flows []Flow
		seen := map[decode.Key]bool{}
		var d decode.Decoder
		var p decode.Packet
		files, err := capture.OpenFiles([]string{path}, capture.FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		series := 0
		for {
			b, err := files.Next()
			if err != nil {
				break
			}
			if b.Series != series {
				series = b.Series
				d.Reset()
			}
			for i := range b.Frames {
				f := &b.Frames[i]
				all[f.Number] = bytes.Clone(f.Data)
				for ok := d.Decode(f, &p) <= decode.Datagram; ok; ok = d.Next(&p) {
					if p.Address(); !seen[p.Key] && len(flows) < 8 {
						seen[p.Key] = true
						low, high := p.Key.Endpoints()
						a, z := p.Key.MACs()
						flow := Flow{Transport: p.Key.Transport(), Endpoints: [2]event.Endpoint{{Addr: low.Addr(), Port: low.Port(), MAC: a}, {Addr: high.Addr(), Port: high.Port(), MAC: z}}}
						flows = append(flows, flow)
						flow.From = event.Moment{Time: f.Time}
						flows = append(flows, flow)
					}
				}
			}
			b.Release()
		}
		files.Close()
		cut := func(flows []Flow) (list [][]uint64) {
			files, err := capture.OpenFiles([]string{path}, capture.FileOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer files.Close()
			list = make([][]uint64, len(flows))
			last := uint64(0)
			_, err = Cut(t.Context(), files, flows, Options{}, func(f *Frame, of []int) error {
				if f.Number <= last || !bytes.Equal(f.Data, all[f.Number]) {
					t.Fatalf("frame %d comes after %d, or has other bytes", f.Number, last)
				}
				if len(f.Data) > 0 && (f.Offset < 0 || !bytes.Equal(raw[f.Offset:][:len(f.Data)], f.Data)) {
					t.Fatalf("frame %d is not at %d", f.Number, f.Offset)
				}
				if last = f.Number; len(of) == 0 || !slices.IsSorted(of) || len(slices.Compact(slices.Clone(of))) != len(of) {
					t.Fatalf("frame %d is of %v", f.Number, of)
				}
				for _, i := range of {
					list[i] = append(list[i], f.Number)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		together := cut(flows)
		for i := range flows {
			if alone := cut(flows[i : i+1]); !slices.Equal(alone[0], together[i]) {
				t.Errorf("%+v: frames %v alone, and %v with others", flows[i], alone[0], together[i])
			}
			if flows[i].From == (event.Moment{}) && len(together[i]) == 0 {
				t.Errorf("%+v has no frames", flows[i])
			}
		}
	})
}
