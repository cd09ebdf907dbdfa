package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/google/gopacket/reassembly"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
)

// difference is how many certificates of a capture only another program finds,
// and how many only this one, and why.
type difference struct {
	theirs, ours int
	why          string
}

// publicSample are the public captures that are compared.
var publicSample = []string{
	"FoxIO-LLC+ja4/pcap/http2-with-cookies.pcapng",
	"arkime+arkime/tests/pcap/ldap-ssl.pcap",
	"arkime+arkime/tests/pcap/openssl-tls1_2-tls1.pcap",
	"ntop+nDPI/tests/cfgs/default/pcap/6in4tunnel.pcap",
	"ntop+nDPI/tests/cfgs/default/pcap/doq.pcapng",
	"ntop+nDPI/tests/cfgs/default/pcap/dtls_certificate.pcapng",
	"ntop+nDPI/tests/cfgs/default/pcap/ftp-start-tls.pcap",
	"ntop+nDPI/tests/cfgs/default/pcap/gnutella.pcap",
	"ntop+nDPI/tests/cfgs/default/pcap/heuristic_tcp_ack_payload.pcap",
	"ntop+nDPI/tests/cfgs/default/pcap/iphone.pcap",
	"ntop+nDPI/tests/cfgs/default/pcap/pinterest.pcap",
	"ntop+nDPI/tests/cfgs/default/pcap/signal.pcap",
	"ntop+nDPI/tests/cfgs/default/pcap/stun_dtls_unidirectional_server.pcap",
	"ntop+nDPI/tests/cfgs/default/pcap/tls_verylong_certificate.pcap",
	"seladb+PcapPlusPlus/Tests/ExamplesTest/pcap_examples/tls.pcap",
}

var tsharkDiffers = map[string]difference{
	"generated": {0, 21, "tshark 4.0 does not follow a Certificate of 107 KB over its records"},
	"ntop+nDPI/tests/cfgs/default/pcap/heuristic_tcp_ack_payload.pcap": {0, 12, "padding that the IP header counts as payload confuses tshark's reassembly"},
}

var gopacketDiffers = map[string]difference{
	"FoxIO-LLC+ja4/pcap/http2-with-cookies.pcapng":                     {0, 3, "decrypted with the secrets in the capture"},
	"arkime+arkime/tests/pcap/ldap-ssl.pcap":                           {0, 1, "StartTLS, which the test's reader of streams does not know"},
	"ntop+nDPI/tests/cfgs/default/pcap/ftp-start-tls.pcap":             {0, 1, "StartTLS, which the test's reader of streams does not know"},
	"ntop+nDPI/tests/cfgs/default/pcap/gnutella.pcap":                  {0, 4, "Gnutella asks for TLS first, which the test's reader of streams does not know"},
	"ntop+nDPI/tests/cfgs/default/pcap/heuristic_tcp_ack_payload.pcap": {0, 12, "padding that the IP header counts as payload comes before the stream's first bytes, and the test's reader needs a record there"},
}

// The same captures, read by tshark and by gopacket's reassembly: the same
// certificates, but for the differences that are explained.
func TestDifferential(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(capturesDir, "*", "capture.pcap"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no captures in %s: %v", capturesDir, err)
	}
	_, noTshark := exec.LookPath("tshark")
	differ := func(t *testing.T, name, path string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			records, _ := replayed(t, "--records", "handshake", path)
			ours, oursOverTCP := map[string]bool{}, map[string]bool{}
			for _, r := range records {
				for _, c := range slices.Concat(r.Oddcert.Chain, r.Oddcert.ClientChain) {
					ours[c] = true
					if r.Network.Transport == "tcp" {
						oursOverTCP[c] = true
					}
				}
			}
			compare(t, "gopacket", gopacketDiffers[name], oursOverTCP, withGopacket(t, path))
			if noTshark != nil {
				t.Skipf("tshark: %v", noTshark)
			}
			compare(t, "tshark", tsharkDiffers[name], ours, withTshark(t, path))
		})
	}
	for _, path := range paths {
		differ(t, filepath.Base(filepath.Dir(path)), path)
	}
	differ(t, "generated", generated(t))
	t.Run("public", func(t *testing.T) {
		if testing.Short() {
			t.Skip("left out of a short run")
		}
		corpus := publicCorpus(t)
		for _, name := range publicSample {
			differ(t, name, filepath.Join(corpus, "captures", name))
		}
	})
}

// compare holds what is found against what another program finds.
func compare(t *testing.T, program string, want difference, ours, theirs map[string]bool) {
	t.Helper()
	var got difference
	var named []string
	for _, c := range slices.Sorted(maps.Keys(theirs)) {
		if !ours[c] {
			got.theirs++
			named = append(named, "only "+program+": "+c)
		}
	}
	for _, c := range slices.Sorted(maps.Keys(ours)) {
		if !theirs[c] {
			got.ours++
			named = append(named, "only oddcert: "+c)
		}
	}
	if got.theirs != want.theirs || got.ours != want.ours {
		t.Errorf("%s: %d certificates that only it finds and %d that it does not, want %d and %d (%s):\n%s",
			program, got.theirs, got.ours, want.theirs, want.ours, want.why, strings.Join(named, "\n"))
	}
}

// generated writes a capture with handshakes of many kinds.
func generated(t *testing.T) string {
	t.Helper()
	spec, err := traffic.Named("clean", 0.02, 1)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "generated.pcap")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := traffic.Generate(f, spec); err != nil {
		t.Fatal(err)
	}
	return path
}

// withTshark are the SHA-256 of the certificates that tshark finds.
func withTshark(t testing.TB, path string, more ...string) map[string]bool {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("tshark", append(more, "-r", path, "-o", "tcp.try_heuristic_first:TRUE", "-Y", "tls.handshake.certificate || dtls.handshake.certificate",
		"-T", "fields", "-e", "tls.handshake.certificate", "-e", "dtls.handshake.certificate")...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, stderr.Bytes())
	}
	all := map[string]bool{}
	for _, field := range strings.FieldsFunc(string(out), func(r rune) bool { return r == ',' || r == '\t' || r == '\n' }) {
		der, err := hex.DecodeString(strings.ReplaceAll(field, ":", ""))
		if err != nil {
			t.Fatalf("tshark: %v", err)
		}
		all[fmt.Sprintf("%X", sha256.Sum256(der))] = true
	}
	return all
}

// withGopacket are the SHA-256 of the certificates in what gopacket's
// reassembly makes of the TCP streams of a capture. What it does not do is
// known: streams in VLANs of their own are one to it, and UDP is not its
// business.
func withGopacket(t *testing.T, path string) map[string]bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var source interface {
		gopacket.PacketDataSource
		LinkType() layers.LinkType
	}
	in := bufio.NewReader(f)
	if magic, _ := in.Peek(4); string(magic) == "\x0a\x0d\x0d\x0a" {
		source, err = pcapgo.NewNgReader(in, pcapgo.DefaultNgReaderOptions)
	} else {
		source, err = pcapgo.NewReader(in)
	}
	if err != nil {
		t.Fatal(err)
	}
	all := oracle{}
	assembler := reassembly.NewAssembler(reassembly.NewStreamPool(&all))
	for {
		data, info, err := source.ReadPacketData()
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		packet := gopacket.NewPacket(data, source.LinkType(), gopacket.Default)
		if tcp, ok := packet.TransportLayer().(*layers.TCP); ok && packet.NetworkLayer() != nil {
			assembler.AssembleWithContext(packet.NetworkLayer().NetworkFlow(), tcp, seenAt(info))
		}
	}
	assembler.FlushAll()
	hashes := map[string]bool{}
	for _, s := range all.streams {
		for _, d := range s.directions {
			for _, der := range certificatesIn(d.bytes) {
				hashes[fmt.Sprintf("%X", sha256.Sum256(der))] = true
			}
		}
	}
	return hashes
}

type seenAt gopacket.CaptureInfo

func (s seenAt) GetCaptureInfo() gopacket.CaptureInfo { return gopacket.CaptureInfo(s) }

// oracle collects the streams that gopacket reassembles.
type oracle struct{ streams []*oracleStream }

func (o *oracle) New(_, _ gopacket.Flow, _ *layers.TCP, _ reassembly.AssemblerContext) reassembly.Stream {
	s := new(oracleStream)
	o.streams = append(o.streams, s)
	return s
}

type oracleStream struct {
	directions [2]struct {
		bytes []byte
		gap   bool // nothing after it counts
	}
}

func (s *oracleStream) Accept(_ *layers.TCP, _ gopacket.CaptureInfo, _ reassembly.TCPFlowDirection, _ reassembly.Sequence, start *bool, _ reassembly.AssemblerContext) bool {
	*start = true // in mid-stream too
	return true
}

func (s *oracleStream) ReassembledSG(sg reassembly.ScatterGather, _ reassembly.AssemblerContext) {
	direction, _, _, skip := sg.Info()
	d := &s.directions[0]
	if direction == reassembly.TCPDirServerToClient {
		d = &s.directions[1]
	}
	d.gap = d.gap || skip > 0
	if n, _ := sg.Lengths(); !d.gap {
		d.bytes = append(d.bytes, sg.Fetch(n)...)
	}
}

func (s *oracleStream) ReassemblyComplete(reassembly.AssemblerContext) bool { return true }

// certificatesIn reads a stream that begins with TLS (RFC 5246, sections 6.2.1
// and 7.4.2), up to the first record that is encrypted.
func certificatesIn(stream []byte) (all [][]byte) {
	var messages []byte
	for len(stream) >= 5 && stream[0] == 22 && stream[1] == 3 {
		n := int(stream[3])<<8 | int(stream[4])
		if len(stream) < 5+n {
			break
		}
		messages = append(messages, stream[5:5+n]...)
		stream = stream[5+n:]
	}
	length := func(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }
	for len(messages) >= 4 && len(messages) >= 4+length(messages[1:]) {
		body := messages[4 : 4+length(messages[1:])]
		if messages[0] == 11 && len(body) >= 3 {
			for list := body[3:]; len(list) >= 3 && len(list) >= 3+length(list); list = list[3+length(list):] {
				all = append(all, list[3:3+length(list)])
			}
		}
		messages = messages[4+length(messages[1:]):]
	}
	return all
}
