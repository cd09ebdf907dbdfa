package quic

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/oddcert/oddcert/parsers/tls"
)

// captures are the public ones with QUIC, relative to the corpus.
var captures = []string{
	"FoxIO-LLC+ja4/pcap/chrome-cloudflare-quic-with-secrets.pcapng",
	"FoxIO-LLC+ja4/pcap/quic-with-several-tls-frames.pcapng",
	"ntop+nDPI/tests/cfgs/default/pcap/doq.pcapng",
	"ntop+nDPI/tests/cfgs/default/pcap/quic-24.pcap",
	"ntop+nDPI/tests/cfgs/default/pcap/quic-27.pcap",
	"ntop+nDPI/tests/cfgs/default/pcap/quic-33.pcapng",
	"ntop+nDPI/tests/cfgs/default/pcap/quic-forcing-vn-with-data.pcapng",
	"ntop+nDPI/tests/cfgs/default/pcap/quic-mvfst-27.pcapng",
	"ntop+nDPI/tests/cfgs/default/pcap/quic-v2.pcapng",
	"ntop+nDPI/tests/cfgs/default/pcap/quic_crypto_aes_auth_size.pcap",
	"ntop+nDPI/tests/cfgs/default/pcap/quic_frags_ch_in_multiple_packets.pcapng",
	"ntop+nDPI/tests/cfgs/default/pcap/quic_frags_different_dcid.pcapng",
	"ntop+nDPI/tests/cfgs/default/pcap/quic_interop_V.pcapng",
	"ntop+nDPI/tests/cfgs/default/pcap/quic046.pcap", // Google's own, which has no TLS
}

const compressedCertificate = 25 // RFC 8879

// corpus is the folder of public captures.
func corpus(t testing.TB) string {
	t.Helper()
	dir := cmp.Or(os.Getenv("ODDCERT_CORPUS"), "../../../shared/corpus")
	if _, err := os.Stat(filepath.Join(dir, "captures")); err != nil {
		t.Skipf("no public captures here: %v (ODDCERT_CORPUS names their folder)", err)
	}
	return dir
}

// udp calls f with the payload of each UDP datagram of a capture, its flow as
// tshark shows the client's side of it, and its direction.
func udp(t *testing.T, name string, f func(flow string, direction uint8, b []byte)) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Skipf("capture is missing: %v", err)
	}
	defer file.Close()
	var read func() ([]byte, gopacket.CaptureInfo, error)
	var link layers.LinkType
	if strings.HasSuffix(name, "ng") {
		r, err := pcapgo.NewNgReader(file, pcapgo.DefaultNgReaderOptions)
		if err != nil {
			t.Fatal(err)
		}
		read, link = r.ReadPacketData, r.LinkType()
	} else {
		r, err := pcapgo.NewReader(file)
		if err != nil {
			t.Fatal(err)
		}
		read, link = r.ReadPacketData, r.LinkType()
	}
	first := map[string]bool{}
	for {
		b, _, err := read()
		if err != nil {
			return
		}
		p := gopacket.NewPacket(b, link, gopacket.NoCopy)
		u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok {
			continue
		}
		n := p.NetworkLayer().NetworkFlow()
		from, to := fmt.Sprintf("%v %d", n.Src(), u.SrcPort), fmt.Sprintf("%v %d", n.Dst(), u.DstPort)
		if flow := to + " " + from; first[flow] {
			f(flow, 1, u.Payload)
		} else {
			flow = from + " " + to
			first[flow] = true
			f(flow, 0, u.Payload)
		}
	}
}

// keyLog is the secrets that a pcapng file brings along, by label and random.
func keyLog(t *testing.T, name string) map[string][]byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	log := map[string][]byte{}
	for len(b) >= 12 && strings.HasSuffix(name, "ng") {
		typ, n := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		if n < 12 || int(n) > len(b) {
			t.Fatalf("block of %d bytes", n)
		}
		if typ == 10 { // decryption secrets
			for lines := bufio.NewScanner(bytes.NewReader(b[16 : n-4])); lines.Scan(); {
				if f := strings.Fields(lines.Text()); len(f) == 3 {
					log[f[0]+" "+f[1]], _ = hex.DecodeString(f[2])
				}
			}
		}
		b = b[n:]
	}
	return log
}

// TestCaptures compares the names in ClientHellos with what tshark shows, and
// the certificates, where the capture brings its secrets, with those that are
// known to be in it.
func TestCaptures(t *testing.T) {
	dir := corpus(t)
	var expected map[string]struct {
		Server []struct{ SHA256 string }
	}
	b, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err == nil {
		err = json.Unmarshal(b, &expected)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range captures {
		t.Run(filepath.Base(name), func(t *testing.T) {
			path := filepath.Join(dir, "captures", name)
			log := keyLog(t, path)
			d := Decoder{Wait: true}
			sessions := map[string]*Session{}
			names := map[string]bool{}
			var certificates []string
			versions := map[uint32]int{}
			var read func(flow string, r Result)
			read = func(flow string, r Result) {
				for _, m := range slices.Clone(r.Messages) {
					switch m.Type {
					case tls.TypeClientHello:
						h, ok := tls.ParseClientHello(m.Head, false)
						if !ok || !h.Whole {
							t.Errorf("%s: ClientHello %+v", flow, h)
						}
						versions[r.Version]++
						names[flow+" "+string(h.ServerName)] = true
						random := " " + hex.EncodeToString(h.Random)
						read(flow, sessions[flow].SetSecrets(m.Connection,
							log["CLIENT_HANDSHAKE_TRAFFIC_SECRET"+random], log["SERVER_HANDSHAKE_TRAFFIC_SECRET"+random]))
					case tls.Certificate, compressedCertificate:
						body := m.Head
						if m.Type == compressedCertificate { // brotli, here
							body, _ = io.ReadAll(brotli.NewReader(bytes.NewReader(body[8:])))
						}
						if len(body) < 4 {
							t.Errorf("%s: message of type %d: %x", flow, m.Type, m.Head)
							continue
						}
						for list := body[4:]; len(list) > 5; {
							n := tls.Uint24(list)
							certificates = append(certificates, fmt.Sprintf("%x", sha256.Sum256(list[3:3+n])))
							list = list[3+n:]
							list = list[2+binary.BigEndian.Uint16(list):]
						}
					}
				}
			}
			udp(t, path, func(flow string, direction uint8, b []byte) {
				if sessions[flow] == nil && looksInitial(b) {
					sessions[flow] = d.Open()
				}
				if s := sessions[flow]; s != nil {
					read(flow, s.Datagram(direction, b))
				}
			})

			var want []string
			for _, e := range expected[name].Server {
				want = append(want, e.SHA256)
			}
			slices.Sort(want)
			slices.Sort(certificates)
			if want, certificates = slices.Compact(want), slices.Compact(certificates); !slices.Equal(want, certificates) {
				t.Errorf("certificates %v, expected %v", certificates, want)
			}

			if _, err := exec.LookPath("tshark"); err != nil {
				t.Skip("tshark is missing")
			}
			out, err := exec.Command("tshark", "-n", "-r", path, "-Y", "quic && tls.handshake.type == 1", "-T", "fields", "-E", "occurrence=f",
				"-e", "ip.src", "-e", "ipv6.src", "-e", "udp.srcport", "-e", "ip.dst", "-e", "ipv6.dst", "-e", "udp.dstport",
				"-e", "tls.handshake.extensions_server_name").Output()
			if err != nil {
				t.Fatal(err)
			}
			theirs := 0
			for line := range strings.Lines(string(out)) {
				f := strings.Split(strings.TrimRight(line, "\n"), "\t")
				if len(f) != 7 {
					t.Fatalf("%q", line)
				}
				theirs++
				if w := fmt.Sprintf("%s%s %s %s%s %s %s", f[0], f[1], f[2], f[3], f[4], f[5], f[6]); !names[w] {
					t.Errorf("tshark has %q; we have %v", w, names)
				}
			}
			t.Logf("%d names, tshark has %d hellos; %d certificates; versions %x; %+v", len(names), theirs, len(certificates), versions, d.Stats())
		})
	}
}
