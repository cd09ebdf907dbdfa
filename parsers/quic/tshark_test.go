package quic

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// TestSalts seals an Initial in each version with the keys of this package, and
// lets tshark read it: where there are no samples, tshark knows the salts too.
func TestSalts(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip("tshark is missing")
	}
	versions := []uint32{Version1, Version2, googleT050, googleT051, mvfst22, 0xfaceb002, 0xfaceb00e}
	for v := uint32(0xff000016); v <= 0xff000022; v++ {
		versions = append(versions, v)
	}
	name := filepath.Join(t.TempDir(), "salts.pcap")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := pcapgo.NewWriter(file)
	w.WriteFileHeader(1<<16, layers.LinkTypeEthernet)
	for i, v := range versions {
		// tshark tells connections apart by their IDs.
		p := &peer{version: v, dcid: fmt.Appendf(nil, "server-%02d", i), client: fmt.Appendf(nil, "client-%02d", i)}
		frames := bytes.Clone(sampleClientFrames)
		frames[0] = byte(schemesOf(v)[0].crypto)
		payload := p.toServer(frames, make([]byte, 1000))

		var d Decoder
		if r := d.Open().Datagram(0, payload); len(r.Messages) != 1 || r.Version != v {
			t.Errorf("%08x: %+v", v, r)
		}

		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4(10, 0, 0, 1), DstIP: net.IPv4(10, 0, 0, 2)}
		udp := &layers.UDP{SrcPort: layers.UDPPort(40000 + i), DstPort: 443}
		udp.SetNetworkLayerForChecksum(ip)
		b := gopacket.NewSerializeBuffer()
		err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
			&layers.Ethernet{SrcMAC: make(net.HardwareAddr, 6), DstMAC: make(net.HardwareAddr, 6), EthernetType: layers.EthernetTypeIPv4},
			ip, udp, gopacket.Payload(payload))
		if err != nil {
			t.Fatal(err)
		}
		n := len(b.Bytes())
		w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: n, Length: n}, b.Bytes())
	}
	out, err := exec.Command("tshark", "-n", "-r", name, "-T", "fields", "-e", "tls.handshake.extensions_server_name").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	for i, v := range versions {
		if i >= len(lines) || lines[i] != "example.com" {
			t.Errorf("%08x: tshark does not read it", v)
		}
	}
}
