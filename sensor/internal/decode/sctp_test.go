package decode

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// dataChunk is a DATA chunk, padded.
func dataChunk(tsn uint32, begin, end bool, data []byte) []byte {
	b := []byte{0, byte(btoi(begin)<<1 | btoi(end)), 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(16+len(data)))
	b = binary.BigEndian.AppendUint32(b, tsn)
	b = append(b, 0, 5, 0, 1, 0, 0, 0, 47)
	b = append(b, data...)
	return append(b, make([]byte, -len(b)&3)...)
}

// sctpPacket is an SCTP packet with its checksum.
func sctpPacket(src, dst uint16, chunks ...[]byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, src)
	b = binary.BigEndian.AppendUint16(b, dst)
	b = append(b, 1, 2, 3, 4, 0, 0, 0, 0)
	b = append(b, bytes.Join(chunks, nil)...)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// sctpFrame is one in IPv4, or in IPv4 and UDP.
func sctpFrame(t testing.TB, overUDP bool, packet []byte) *capture.Frame {
	if overUDP {
		return frame(linktype.Ethernet, overUDP4(t, 9899, 9899, packet))
	}
	ip := outer4(layers.IPProtocolSCTP)
	return frame(linktype.Ethernet, build(t, ethernet(layers.EthernetTypeIPv4), ip, gopacket.Payload(packet)))
}

// checkMessages holds the sums and the bounds of what is held.
func checkMessages(t testing.TB, d *Decoder) {
	t.Helper()
	m := d.messages
	if m == nil {
		return
	}
	s := m.stats
	if s.Fragments != s.Reassembled+s.Held+s.Repeated+s.Evicted+s.Cut {
		t.Fatalf("the sums do not add up: %+v", s)
	}
	held, size := 0, 0
	for i := range m.ring {
		if c := &m.ring[i]; c.data != nil {
			held++
			size += cap(c.data)
			if n, ok := m.held[c.key]; !ok || n%limitChunks != uint64(i) || n < m.first || n >= m.next {
				t.Fatalf("a chunk out of place: %+v", c.key)
			}
		}
	}
	if uint64(held) != s.Held || held != len(m.held) || size != m.bytes || size > limitChunkBytes {
		t.Fatalf("%d chunks (%d, %d), %d bytes (%d)", held, s.Held, len(m.held), size, m.bytes)
	}
}

// Of each SCTP packet in an A-MSDU all user messages are read, in their order.
func TestAggregatedSCTP(t *testing.T) {
	b := hex("88 01 00 00 02 00 00 00 00 02 02 11 22 33 44 55 02 00 00 00 00 02 40 00 80 00")
	var want []string
	for i := range byte(3) {
		message := func(j byte) []byte {
			m := []byte("message a0")
			m[8] += i
			m[9] += j
			want = append(want, string(m))
			return m
		}
		packet := sctpPacket(5, 6, dataChunk(1, true, true, message(0)), dataChunk(2, true, true, message(1)), dataChunk(3, true, true, message(2)))
		ip := build(t, outer4(layers.IPProtocolSCTP), gopacket.Payload(packet))
		llc := append(hex("aa aa 03 00 00 00 08 00"), ip...)
		b = append(b, hex("02 00 00 00 00 01 02 00 00 00 00 02")...)
		b = binary.BigEndian.AppendUint16(b, uint16(len(llc)))
		b = append(b, llc...)
		b = append(b, make([]byte, -(14+len(llc))&3)...)
	}
	var d Decoder
	var p Packet
	var got []string
	for ok := d.Decode(frame(linktype.IEEE80211, b), &p) == Message; ok; ok = d.Next(&p) {
		got = append(got, string(p.Payload))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// However user messages are cut into chunks, chunks put into packets and packets
// mixed, the messages come out once and as they were. gopacket reads the same
// chunks.
func TestSCTP(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		overUDP := seed%2 == 1
		tsn := uint32(0xfffffff0) // it goes round
		var chunks [][]byte
		want := map[string]int{}
		for n := range 1 + r.IntN(6) {
			message := append([]byte{22, 0xfe, 0xfd, byte(n)}, text(40+r.IntN(3000))...)
			want[string(message)]++
			size := 30 + r.IntN(1400)
			if len(message)/size >= limitMessage-1 {
				size = len(message)
			}
			for from := 0; from < len(message); from += size {
				to := min(from+size, len(message))
				chunks = append(chunks, dataChunk(tsn, from == 0, to == len(message), message[from:to]))
				tsn++
			}
		}
		var frames []*capture.Frame
		for len(chunks) > 0 {
			n := min(1+r.IntN(4), len(chunks))
			bundle := append([][]byte{{11, 0, 0, 4}}, chunks[:n]...) // a COOKIE ACK before them
			frames = append(frames, sctpFrame(t, overUDP, sctpPacket(5061, 40000, bundle...)))
			chunks = chunks[n:]
		}
		r.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
		var d Decoder
		var p Packet
		for _, f := range frames {
			c := d.Decode(f, &p)
			for ok := c == Message; ok; ok = d.Next(&p) {
				if want[string(p.Payload)]--; want[string(p.Payload)] < 0 || p.Transport != event.SCTP || p.SrcPort != 5061 || p.DstPort != 40000 || p.Missing != 0 {
					t.Fatalf("seed %d: %q", seed, p.Payload)
				}
				if p.Key.Transport() != event.SCTP || p.Checksum() != ChecksumUnknown {
					t.Fatalf("seed %d: %v, %v", seed, p.Key.Transport(), p.Checksum())
				}
			}
			checkMessages(t, &d)
			if !overUDP {
				pkt := gopacket.NewPacket(f.Data, layers.LinkTypeEthernet, gopacket.Default)
				if pkt.Layer(layers.LayerTypeSCTPData) == nil {
					t.Fatalf("gopacket does not find the chunks: %v", pkt)
				}
			}
		}
		for m, n := range want {
			if n != 0 {
				t.Fatalf("seed %d: %d bytes are missing: %+v", seed, len(m), d.Messages())
			}
		}
		if s := d.Messages(); s.Held != 0 || s.Evicted != 0 {
			t.Errorf("seed %d: %+v", seed, s)
		}
	}
}

// Control chunks alone are no loss; chunks that lie are malformed; what the
// snaplen cut is missing.
func TestSCTPOther(t *testing.T) {
	message := append(hex("16 fe fd"), text(100)...)
	whole := dataChunk(1, true, true, message)
	var d Decoder
	var p Packet
	for name, c := range map[string]struct {
		packet []byte
		want   Class
	}{
		"INIT":           {sctpPacket(1, 2, append(hex("01 00 00 14"), make([]byte, 16)...)), OtherIP},
		"nothing":        {sctpPacket(1, 2), OtherIP},
		"a long chunk":   {sctpPacket(1, 2, append(hex("00 03 ff ff"), whole[4:]...)), Malformed},
		"a short chunk":  {sctpPacket(1, 2, hex("00 03 00 03")), Malformed},
		"empty DATA":     {sctpPacket(1, 2, whole[:2], be16(16), whole[4:16]), Malformed},
		"a header alone": {hex("00 01 00 02"), Malformed},
		"a fragment":     {sctpPacket(1, 2, dataChunk(1, true, false, message)), Fragment},
	} {
		if got := d.Decode(sctpFrame(t, false, c.packet), &p); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if u := d.Unread(); len(u.frames) != 1 || u.strange != 0 {
		t.Error(u.Lists())
	}
	f := sctpFrame(t, false, sctpPacket(1, 2, whole))
	f.Data = f.Data[:len(f.Data)-33]
	if c := d.Decode(f, &p); c != Message || len(p.Payload)+p.Missing != len(message) || p.Missing == 0 || !bytes.HasPrefix(message, p.Payload) {
		t.Errorf("%v: %d bytes, %d missing", c, len(p.Payload), p.Missing)
	}
	// The same ports of UDP are another flow.
	udp := p.Key
	d.Decode(frame(linktype.Ethernet, overUDP4(t, 1, 2, message)), &p)
	if p.Address(); p.Key == udp {
		t.Error("one flow over UDP and SCTP")
	}
}

// Fragments of which nothing comes take no more than the limits.
func TestSCTPFlood(t *testing.T) {
	for _, size := range []int{8, 60000} {
		var d Decoder
		var p Packet
		for tsn := range uint32(3 * limitChunks) {
			d.Decode(sctpFrame(t, false, sctpPacket(1, 2, dataChunk(2*tsn, true, false, make([]byte, size)))), &p)
			if tsn%100 == 0 {
				checkMessages(t, &d)
			}
		}
		checkMessages(t, &d)
		if s := d.Messages(); s.Evicted == 0 || s.Messages != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// FuzzSCTP reads packets of any chunks. What comes out is of the packet, or of
// fragments; what is held is bounded and accounted for.
func FuzzSCTP(f *testing.F) {
	f.Add(dataChunk(1, true, true, []byte("whole")), dataChunk(2, true, false, []byte("first")), dataChunk(3, false, true, []byte("last")))
	f.Add(slices.Concat(dataChunk(1, true, false, []byte("first")), dataChunk(2, false, true, []byte("last"))), []byte{1, 0, 0, 4}, []byte{})
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		var d Decoder
		var p Packet
		for _, chunks := range [][]byte{first, second, third, first} {
			chunks = chunks[:min(len(chunks), 1400)]
			packet := sctpPacket(1, 2, chunks)
			packets := 0
			for ok := d.Decode(sctpFrame(t, false, packet), &p) == Message; ok; ok = d.Next(&p) {
				if packets++; packets > len(chunks)/16 || len(p.Payload) == 0 || p.Missing != 0 {
					t.Fatalf("%d messages in %d bytes: %q", packets, len(chunks), p.Payload)
				}
			}
			checkMessages(t, &d)
		}
	})
}
