package parsers

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/rdpudp"
)

// rdpPackets returns the datagrams of a handshake over Remote Desktop's transport, in
// pieces of n bytes (0: as they are). As in the specification, they carry
// acknowledgements, and some packets are only acknowledgements or repairs. Plain ones
// do not have an acknowledgement that needs padding.
func rdpPackets(chunks []chunk, n int, version rdpudp.Version, lossy, plain bool) (out []chunk) {
	be := binary.BigEndian
	r := rand.New(rand.NewPCG(8, 8))
	initial := [2]uint32{0xfffffffe, 0x01020304}
	for d := range event.Direction(2) {
		b := []byte{0xff, 0xff, 0xff, 0xff, 0, 64, 0x10, 0x01}
		if d == 1 {
			b = be.AppendUint32(nil, initial[0])
			b = append(b, 0, 64, 0x10, 0x05)
		}
		if lossy {
			b[6] |= 2
		}
		b = be.AppendUint32(b, initial[d])
		b = append(b, 0x04, 0xd0, 0x04, 0xd0)
		if d == 0 { // a correlation identifier
			b[6] |= 8
			b = append(append(b, bytes.Repeat([]byte{7}, 16)...), make([]byte, 16)...)
		}
		b = append(b, 0, 1)
		b = be.AppendUint16(b, uint16(version))
		if version == rdpudp.Version3 {
			b = append(b, bytes.Repeat([]byte{9}, 32)...)
		}
		out = append(out, chunk{d, append(b, make([]byte, 1232-len(b))...)})
	}
	var sent [2]uint32
	send := func(d event.Direction, piece []byte) {
		sent[d]++
		vector := 2
		if !plain {
			vector = r.IntN(4)
		}
		var b []byte
		if version == rdpudp.Version3 {
			flags := uint16(0x004 | 4<<12)
			var fields []byte
			if vector > 0 {
				flags |= 0x001
				fields = append(fields, byte(sent[d^1]), 0, 1, 2, 3, 4, byte(vector)|0x20)
				fields = append(fields, make([]byte, vector)...)
			}
			if vector == 2 {
				flags |= 0x040 | 0x100 | 0x010
				fields = append(fields, 11, 8, 200, 0, byte(sent[d^1]), 0)
			}
			fields = append(fields, byte(sent[d]+40), 0)
			if vector == 0 && sent[d]%2 == 0 {
				flags |= 0x008
				fields = append(fields, byte(sent[d^1]), 0, 0x82, 1, 2, 3, 4, 0x83, 0x7f)
			}
			b = binary.LittleEndian.AppendUint16([]byte{0x0e}, flags)
			b = append(b, fields...)
			b = append(append(b, byte(sent[d]), byte((sent[d])>>8)), piece...)
			b[0], b[7] = b[7], b[0]
			out = append(out, chunk{d, b})
			return
		}
		b = be.AppendUint32(nil, initial[d^1]+sent[d^1])
		b = append(b, 0, 64, 0, 0x0c)
		b = be.AppendUint16(b, uint16(vector))
		b = append(b, make([]byte, vector)...)
		b = append(b, make([]byte, -(2+vector)&3)...)
		if vector == 2 {
			b[6] |= 1
			b = be.AppendUint32(b, initial[d^1])
		}
		b = be.AppendUint32(b, initial[d]+sent[d]+3)
		b = be.AppendUint32(b, initial[d]+sent[d])
		out = append(out, chunk{d, append(b, piece...)})
	}
	for i, ch := range chunks {
		if version != rdpudp.Version3 && i%3 == 1 { // repair, and bare acknowledgement
			b := append(be.AppendUint32(nil, initial[0]), 0, 64, 0, 0x14, 0, 2, 1, 2)
			out = append(out, chunk{ch.d, append(b, bytes.Repeat([]byte{0x16, 3, 3}, 30)...)},
				chunk{ch.d, []byte{0, 0, 0, 1, 0, 64, 0, 4, 0, 2, 1, 2}})
		}
		for b := ch.b; len(b) > 0; {
			size := len(b)
			if n > 0 {
				size = min(n, size)
			}
			send(ch.d, b[:size])
			b = b[size:]
		}
	}
	return out
}

// tshark sees the same certificates in the packets of rdpPackets. They have whole
// flights, because tshark does not put a stream together.
func TestRDPWithTshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("no tshark to compare with")
	}
	client, server := configs(tls.VersionTLS12, rsaKey())
	stream, chain := handshake(t, client, server), server.Certificates[0].Certificate
	lossy, lossyChain := dtlsSample(t)
	for name, c := range map[string]struct {
		l     []chunk
		chain [][]byte
	}{
		"version 1": {rdpPackets(stream, 0, rdpudp.Version1, false, true), chain},
		"version 3": {rdpPackets(stream, 0, rdpudp.Version3, false, true), chain},
		"lossy":     {rdpPackets(datagrams(lossy, 300), 0, rdpudp.Version2, true, true), lossyChain},
	} {
		wantChain(t, one(t, playWithin(t, c.l)).Chain, c.chain)
		var capture []byte
		capture = append(capture, "\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\xe4\x00\x00\x00"...)
		for i, ch := range c.l {
			packet := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0xc3, 0x50, 0x0d, 0x3d, 0, 0, 0, 0}
			if ch.d == 1 {
				copy(packet[12:], []byte{192, 0, 2, 2, 192, 0, 2, 1, 0x0d, 0x3d, 0xc3, 0x50})
			}
			packet = append(packet, ch.b...)
			binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
			binary.BigEndian.PutUint16(packet[24:], uint16(len(packet)-20))
			for _, n := range []int{1_700_000_000, i, len(packet), len(packet)} {
				capture = binary.LittleEndian.AppendUint32(capture, uint32(n))
			}
			capture = append(capture, packet...)
		}
		path := filepath.Join(t.TempDir(), "rdp.pcap")
		if err := os.WriteFile(path, capture, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(tshark, "-r", path, "-d", "udp.port==3389,rdpudp", "-T", "fields", "-e", "tls.handshake.certificate", "-e", "dtls.handshake.certificate").Output()
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, der := range c.chain {
			want = append(want, fmt.Sprintf("%x", der))
		}
		got := strings.FieldsFunc(string(out), func(r rune) bool { return strings.ContainsRune(",\t\n", r) })
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s: tshark sees %d certificates, not %d", name, len(got), len(want))
		}
	}
}

// A connection follows another one between the same ends, and one whose answer to the
// first packet was not captured.
func TestRDPAgain(t *testing.T) {
	client, server := configs(tls.VersionTLS12, rsaKey())
	for _, version := range []rdpudp.Version{rdpudp.Version1, rdpudp.Version3} {
		l := rdpPackets(handshake(t, client, server), 400, version, false, false)
		again := rdpPackets(handshake(t, client, server), 400, version, false, false)
		for i := range again {
			again[i].b = bytes.Clone(again[i].b)
		}
		binary.BigEndian.PutUint32(again[0].b[8:], 77)
		binary.BigEndian.PutUint32(again[1].b, 77)
		if version == rdpudp.Version3 { // whose numbers do not refer to those
			if got := playWithin(t, append(append([]chunk{}, l...), again...)); len(got) != 2 || got[0].Outcome != event.Extracted || got[1].Outcome != event.Extracted {
				t.Errorf("version %#x: %d handshakes of two", version, len(got))
			}
		}
		h := one(t, playWithin(t, append([]chunk{l[0]}, l[2:]...)))
		if version == rdpudp.Version3 && h.Outcome != event.Extracted || h.ClientHello == nil {
			t.Errorf("version %#x without the answer: %v", version, h.Outcome)
		}
	}
	// A connection that goes on for ever without TLS is given up.
	s := newSensor()
	c := s.Open(testFlow(event.UDP))
	l := rdpPackets([]chunk{{0, bytes.Repeat([]byte("no TLS "), 1000)}}, 500, rdpudp.Version1, false, false)
	v := NeedMore
	for i := 0; v != Done && i < 2*maxRDP; i++ {
		v = c.Datagram(0, still, l[min(i, len(l)-1)].b)
	}
	if v != Done {
		t.Error("not done")
	}
	c.Close(event.EndOfInput)
	s.check(t)
}
