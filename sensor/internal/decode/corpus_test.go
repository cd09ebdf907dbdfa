package decode

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/oddcert/oddcert/sensor/internal/capture"
)

func writePcap(t testing.TB, path string, frames [][]byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := pcapgo.NewWriter(f)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for _, b := range frames {
		if err := w.WritePacket(gopacket.CaptureInfo{CaptureLength: len(b), Length: len(b)}, b); err != nil {
			t.Fatal(err)
		}
	}
}

// carried are the public captures in which something carries the packets, or
// packets come in fragments.
var carried = []string{
	"gre-erspan-vxlan.pcap", "gre.pcapng", "gre-sample.pcap", "capwap.pcap", "6in4tunnel.pcap", "4in6tunnel.pcap",
	"ja3_lots_of_cipher_suites_2_anon.pcap", "gtp-u.pcap", "gtp.pcap",
	"MplsPackets.pcap", "Vxlan2.pcap", "arkime_synthetic.pcap", "pppoe.pcap", "icmp-frame-relay.pcap",
	"lisp_registration.pcap", "ah.pcapng", "Sll2PacketLLC.pcap", "3e80211_wpaauth.pcapng",
	"dns_fragmented.pcap", "ip_frag_source.pcapng", "ipv6_fragments.pcapng", "IPv4Frag.pcap", "ipv6_opt_fragments.pcap",
	"frag_with_padding.pcap", "frag_http_req.pcap", "ip4_fragments.pcap",
	"dtls.pcap",
}

// What a frame of a public capture holds innermost, according to tshark.
func TestCorpusStacks(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed")
	}
	root := cmp.Or(os.Getenv("ODDCERT_CORPUS"), "../../../../shared/corpus")
	if _, err := os.Stat(root); err != nil {
		t.Skipf("no public captures here: %v (ODDCERT_CORPUS names their folder)", err)
	}
	wanted := map[string]bool{}
	for _, name := range carried {
		wanted[name] = true
	}
	compared := 0
	err = filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !wanted[e.Name()] {
			return err
		}
		compared += compareCapture(t, tshark, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if compared == 0 {
		t.Skip("none of the captures is here")
	}
	t.Logf("%d frames", compared)
}

// compareCapture compares each frame of a capture, and returns how many it had.
func compareCapture(t *testing.T, tshark, path string) (compared int) {
	cmd := exec.Command(tshark, "-n", "-r", path, "-T", "fields", "-E", "occurrence=l", "-o", "tcp.desegment_tcp_streams:FALSE",
		"-e", "frame.protocols", "-e", "ip.src", "-e", "ip.dst", "-e", "ipv6.src", "-e", "ipv6.dst",
		"-e", "tcp.srcport", "-e", "tcp.dstport", "-e", "tcp.seq_raw", "-e", "tcp.len", "-e", "udp.srcport", "-e", "udp.dstport", "-e", "udp.length",
		"-e", "frame.cap_len", "-e", "frame.len")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer io.Copy(io.Discard, out)
	source, err := capture.OpenFiles([]string{path}, capture.FileOptions{})
	if err != nil {
		return 0
	}
	defer source.Close()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	var d Decoder
	var p Packet
	number, disagreements := uint64(0), 0
	for {
		batch, err := source.Next()
		if err != nil {
			break
		}
		for i := range batch.Frames {
			f := &batch.Frames[i]
			for number < f.Number && lines.Scan() {
				number++
			}
			if number != f.Number {
				return compared
			}
			field := strings.Split(lines.Text(), "\t")
			got := describeFrame(&d, f, &p)
			if expect, ok := expectFrame(field); ok && got != expect {
				if disagreements++; disagreements < 4 {
					t.Errorf("%s, frame %d: we have %q, tshark %q (%s)", filepath.Base(path), f.Number, got, expect, field[0])
				}
			}
			compared++
		}
		batch.Release()
	}
	return compared
}

// describeFrame is a frame as the decoder sees it.
func describeFrame(d *Decoder, f *capture.Frame, p *Packet) string {
	c := d.Decode(f, p)
	if c > Datagram || c == Message { // of SCTP the fields that are asked for say nothing
		return ""
	}
	p.Address() // idle packets have none
	a, b := p.Key.Endpoints()
	if p.Swapped {
		a, b = b, a
	}
	s := fmt.Sprintf("%v %v > %v, %d", c, a, b, len(p.Payload)+p.Missing)
	if c == Segment {
		s += fmt.Sprintf(" at %d", p.Seq)
	}
	return s
}

// expectFrame is a frame as tshark sees it; not ok where it does not say.
func expectFrame(field []string) (string, bool) {
	protocols := strings.Split(field[0], ":")
	network, transport := "", ""
	for _, p := range protocols {
		switch p {
		case "ip", "ipv6":
			network, transport = p, ""
		case "tcp", "udp":
			if transport == "" {
				transport = p
			}
		case "icmp", "icmpv6":
			return "", true // what an error quotes is no packet
		case "sflow":
			return "", false // nor is a sample
		case "_ws.malformed", "_ws.short":
			return "", false
		}
	}
	src, dst := field[1], field[2]
	if network == "ipv6" {
		src, dst = "["+field[3]+"]", "["+field[4]+"]"
	}
	switch transport {
	case "tcp":
		return fmt.Sprintf("tcp %s:%s > %s:%s, %s at %s", src, field[5], dst, field[6], field[8], field[7]), true
	case "udp":
		var length int
		if _, err := fmt.Sscan(field[11], &length); err != nil || length < 8 {
			return "", false
		}
		if strings.Contains(field[0], "capwap:dtls") {
			length -= 4 // the preamble
		}
		return fmt.Sprintf("udp %s:%s > %s:%s, %d", src, field[9], dst, field[10], length-8), true
	}
	return "", true
}
