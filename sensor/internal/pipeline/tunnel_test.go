package pipeline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
	"github.com/oddcert/oddcert/sensor/internal/flow"
)

// tunnelled rewrites an Ethernet capture: what goes to the higher address comes
// in VXLAN, whose datagrams are too large for the network between and come in
// fragments, the last first; what goes back comes as it was.
func tunnelled(t *testing.T, path string) string {
	t.Helper()
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r, err := pcapgo.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := pcapgo.NewWriterNanos(&out)
	if err := w.WriteFileHeader(1<<18, r.LinkType()); err != nil {
		t.Fatal(err)
	}
	id := uint16(0)
	for {
		data, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		frames := [][]byte{data}
		pkt := gopacket.NewPacket(data, r.LinkType(), gopacket.NoCopy)
		if n := pkt.NetworkLayer(); n != nil && bytes.Compare(n.NetworkFlow().Src().Raw(), n.NetworkFlow().Dst().Raw()) < 0 {
			id++
			frames = vxlanFragments(t, id, data)
		}
		for _, b := range frames {
			info.CaptureLength, info.Length = len(b), len(b)
			if err := w.WritePacket(info, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	path = filepath.Join(t.TempDir(), "tunnelled.pcap")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func vxlanFragments(t *testing.T, id uint16, inner []byte) (frames [][]byte) {
	t.Helper()
	const size = 1000
	datagram := make([]byte, 16, 16+len(inner))
	binary.BigEndian.PutUint16(datagram, 49152|id)
	binary.BigEndian.PutUint16(datagram[2:], 4789)
	binary.BigEndian.PutUint16(datagram[4:], uint16(16+len(inner)))
	copy(datagram[8:], []byte{8, 0, 0, 0, 0, 0, 7, 0})
	datagram = append(datagram, inner...)
	for from := (len(datagram) - 1) / size * size; from >= 0; from -= size {
		ip := &layers.IPv4{Version: 4, TTL: 64, Id: id, Protocol: layers.IPProtocolUDP, FragOffset: uint16(from / 8),
			SrcIP: net.IP{10, 99, 0, 1}, DstIP: net.IP{10, 99, 0, 2}}
		if from+size < len(datagram) {
			ip.Flags = layers.IPv4MoreFragments
		}
		buf := gopacket.NewSerializeBuffer()
		err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
			&layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4},
			ip, gopacket.Payload(datagram[from:min(from+size, len(datagram))]))
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, bytes.Clone(buf.Bytes()))
	}
	return frames
}

// Flows of which one direction is tunnelled, and in fragments, are what they
// were; and so with many workers, to which the reassembled payloads go.
func TestTruthThroughTunnels(t *testing.T) {
	path, truth := generate(t, named(t, "truth", 0.05))
	path = tunnelled(t, path)
	one := replay(t, 1, flow.DefaultLimits, path)
	if other := replay(t, 4, flow.DefaultLimits, path); !bytes.Equal(one.lines, other.lines) {
		t.Error("the output of 4 workers differs from that of one")
	}
	for _, d := range truth.Check(found(t, one.lines)) {
		if d.Fault == traffic.MissedAfterGap {
			t.Log(d)
			continue
		}
		t.Error(d)
	}
	checkSums(t, one)
	f := one.pipeline.total.fragments
	if f.Datagrams == 0 || f.Reassembled+f.Repeated != f.Fragments {
		t.Errorf("fragments: %+v", f)
	}
	if !bytes.Contains(one.lines, []byte(`"tunnel":["vxlan"]`)) || !bytes.Contains(one.lines, []byte(`"fragments":{"total":`)) {
		t.Error("the records do not tell of tunnels and fragments")
	}
}

// A handshake of DTLS in the user messages of SCTP is what it was over UDP.
func TestDTLSOverSCTP(t *testing.T) {
	const size = 100 // of a chunk at the most
	path := filepath.Join("..", "..", "testdata", "captures", "dtls12", "capture.pcap")
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r, err := pcapgo.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := pcapgo.NewWriterNanos(&out)
	if err := w.WriteFileHeader(1<<18, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	numbers := map[string]uint32{}
	for {
		data, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		pkt := gopacket.NewPacket(data, r.LinkType(), gopacket.NoCopy)
		udp, ok := pkt.TransportLayer().(*layers.UDP)
		if !ok {
			continue
		}
		from := pkt.NetworkLayer().NetworkFlow()
		for at := 0; at < len(udp.Payload); at += size {
			part := udp.Payload[at:min(at+size, len(udp.Payload))]
			flags := byte(0)
			if at == 0 {
				flags |= 2
			}
			if at+size >= len(udp.Payload) {
				flags |= 1
			}
			b := binary.BigEndian.AppendUint16(nil, uint16(udp.SrcPort))
			b = binary.BigEndian.AppendUint16(b, uint16(udp.DstPort))
			b = append(b, 1, 2, 3, 4, 0, 0, 0, 0, 0, flags)
			b = binary.BigEndian.AppendUint16(b, uint16(16+len(part)))
			b = binary.BigEndian.AppendUint32(b, numbers[from.String()])
			b = append(b, 0, 0, 0, 0, 0, 0, 0, 47)
			b = append(b, part...)
			b = append(b, make([]byte, -len(b)&3)...)
			numbers[from.String()]++
			ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolSCTP, SrcIP: net.IP(from.Src().Raw()), DstIP: net.IP(from.Dst().Raw())}
			buf := gopacket.NewSerializeBuffer()
			err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
				&layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4},
				ip, gopacket.Payload(b))
			if err != nil {
				t.Fatal(err)
			}
			info.CaptureLength, info.Length = len(buf.Bytes()), len(buf.Bytes())
			if err := w.WritePacket(info, buf.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
	}
	sctp := filepath.Join(t.TempDir(), "sctp.pcap")
	if err := os.WriteFile(sctp, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	want, got := replay(t, 1, flow.DefaultLimits, path), replay(t, 1, flow.DefaultLimits, sctp)
	if other := replay(t, 4, flow.DefaultLimits, sctp); !bytes.Equal(got.lines, other.lines) {
		t.Error("the output of 4 workers differs from that of one")
	}
	for _, s := range []string{`"certificates":"extracted"`, `"protocol":"dtls"`, `"dataset":"oddcert.certificate"`} {
		if n := bytes.Count(want.lines, []byte(s)); n == 0 || bytes.Count(got.lines, []byte(s)) != n {
			t.Errorf("%s: %d, %d over UDP", s, bytes.Count(got.lines, []byte(s)), n)
		}
	}
	if !bytes.Contains(got.lines, []byte(`"transport":"sctp"`)) || got.pipeline.total.messages.Reassembled == 0 {
		t.Errorf("%+v\n%s", got.pipeline.total.messages, got.lines)
	}
}
