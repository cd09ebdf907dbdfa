package pipeline

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/flow"
)

// segmentOf finds the TCP segment in an Ethernet frame of the generator: where it
// begins, and where the addresses before it do.
func segmentOf(f []byte) (ip, tcp int, ok bool) {
	ip = 14
	for proto := binary.BigEndian.Uint16(f[12:]); ; proto = binary.BigEndian.Uint16(f[ip-2:]) {
		switch {
		case proto == 0x8100 || proto == 0x88a8:
			ip += 4
		case proto == 0x0800 && f[ip+9] == 6:
			return ip, ip + int(f[ip]&15)*4, true
		case proto == 0x86dd && f[ip+6] == 6:
			return ip, ip + 40, true
		default:
			return 0, 0, false
		}
	}
}

// ignored makes a segment between the ends of the frame f that both ignore,
// whatever they have said before (RFC 9293, section 3.10.7.4; RFC 5961, sections 3
// to 5).
func ignored(r *rand.Rand, f []byte) []byte {
	ip, tcp, _ := segmentOf(f)
	g := append([]byte(nil), f[:tcp+20]...)
	seq, ack := binary.BigEndian.Uint32(g[tcp+4:]), binary.BigEndian.Uint32(g[tcp+8:])
	far := func(n uint32) uint32 { return n + 1<<22 + uint32(r.Int64N(1<<32-1<<23)) }
	flags, size, wrong := byte(0x18), 1+r.IntN(1200), uint16(0)
	switch r.IntN(8) {
	case 0:
		seq = far(seq)
	case 1:
		seq, ack = seq+uint32(r.IntN(4000)), far(ack)
	case 2:
		seq, wrong = seq+uint32(r.IntN(3000)), 0x1234
	case 3:
		flags, ack = 8*byte(r.IntN(2)), 0
	case 4:
		flags, seq, size = 4|byte(r.IntN(2))<<4, far(seq), 0
	case 5:
		flags, seq, ack, size = 2, far(seq), 0, 0
	case 6:
		flags, seq, ack, size = 0x12, far(seq), far(ack), 0
	case 7:
		flags, seq, ack, size = 0x11, far(seq), far(ack), 0
	}
	binary.BigEndian.PutUint32(g[tcp+4:], seq)
	binary.BigEndian.PutUint32(g[tcp+8:], ack)
	g[tcp+12], g[tcp+13] = 5<<4, flags
	if r.IntN(3) == 0 {
		g = append(g, strings.Repeat("HTTP/1.1 200 OK\r\n", 80)[:size]...)
	} else {
		for range size {
			g = append(g, byte(r.Uint32()))
		}
	}
	add := func(sum uint32, b []byte) uint32 {
		for i, c := range b {
			sum += uint32(c) << (8 * (1 - i&1))
		}
		return sum
	}
	fold := func(sum uint32) uint16 {
		for sum>>16 != 0 {
			sum = sum>>16 + sum&0xffff
		}
		return ^uint16(sum)
	}
	sum := uint32(6 + 20 + size)
	if tcp-ip == 40 {
		binary.BigEndian.PutUint16(g[ip+4:], uint16(20+size))
		sum = add(sum, g[ip+8:ip+40])
	} else {
		binary.BigEndian.PutUint16(g[ip+2:], uint16(tcp-ip+20+size))
		g[ip+10], g[ip+11] = 0, 0
		binary.BigEndian.PutUint16(g[ip+10:], fold(add(0, g[ip:tcp])))
		sum = add(sum, g[ip+12:ip+20])
	}
	g[tcp+16], g[tcp+17] = 0, 0
	binary.BigEndian.PutUint16(g[tcp+16:], fold(add(sum, g[tcp:]))^wrong)
	return g
}

// A thousand handshakes, and in their flows, wherever they may be, segments that
// every TCP ignores: they say what they say without.
func TestIgnoredSegments(t *testing.T) {
	spec := named(t, "clean", 0.1)
	path, truth := generate(t, spec)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 5))
	out, count := append([]byte(nil), b[:24]...), 0
	var before [][]byte // frames so far, whose flows are under way
	for at := 24; at < len(b); {
		n := int(binary.LittleEndian.Uint32(b[at+8:]))
		record := b[at : at+16+n]
		if _, _, ok := segmentOf(record[16:]); ok {
			before = append(before, record[16:])
		}
		for len(before) > 50 && r.IntN(3) == 0 {
			g := ignored(r, before[len(before)-1-r.IntN(50)])
			head := append([]byte(nil), record[:8]...)
			head = binary.LittleEndian.AppendUint32(head, uint32(len(g)))
			head = binary.LittleEndian.AppendUint32(head, uint32(len(g)))
			out = append(append(out, head...), g...)
			count++
		}
		out = append(out, record...)
		at += 16 + n
	}
	mixed := filepath.Join(t.TempDir(), "mixed.pcap")
	if err := os.WriteFile(mixed, out, 0o600); err != nil {
		t.Fatal(err)
	}
	got := replay(t, 1, flow.DefaultLimits, mixed)
	differences := truth.Check(found(t, got.lines))
	for _, d := range differences {
		t.Error(d)
	}
	t.Logf("%d connections, %d segments that are ignored", len(truth.Connections), count)
	checkSums(t, got)
	if other := replay(t, 4, flow.DefaultLimits, mixed); !bytes.Equal(got.lines, other.lines) {
		t.Error("the output of 4 workers differs from that of one")
	}
}
