package traffic

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestTshark lets tshark find the certificates and judge the outcomes.
func TestTshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed")
	}
	capture, truth := generate(t, "clean", 0.05, func(s *Spec) {
		// tshark takes handshake messages of 64 KB and more for encrypted ones.
		s.Shares = slices.DeleteFunc(s.Shares, func(x Share) bool { return x.Kind == TLS12Huge })
	})
	path := filepath.Join(t.TempDir(), "clean.pcap")
	if err := os.WriteFile(path, capture, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		var stderr bytes.Buffer
		cmd := exec.Command(tshark, append([]string{"-n", "-r", path, "-o", "tcp.check_checksum:TRUE",
			"-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"}, args...)...)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("tshark: %v: %s", err, stderr.Bytes())
		}
		return string(out)
	}
	const warning = "6291456"
	if bad := run("-Y", "_ws.malformed || _ws.expert.severity >= "+warning, "-T", "fields", "-e", "frame.number", "-e", "_ws.expert.message"); bad != "" {
		t.Errorf("tshark complains:\n%s", bad)
	}
	found := tsharkFindings(t, run("-Y", "tls", "-T", "fields", "-e", "tcp.stream",
		"-e", "ip.src", "-e", "ipv6.src", "-e", "tcp.srcport", "-e", "ip.dst", "-e", "ipv6.dst", "-e", "tcp.dstport",
		"-e", "vlan.id", "-e", "ieee8021ad.id", "-e", "tls.handshake.type", "-e", "tls.handshake.extensions.supported_version",
		"-e", "tls.handshake.extension.type", "-e", "tls.alert_message.desc", "-e", "tls.handshake.certificate"))
	if len(found) != len(truth.Connections) {
		t.Errorf("tshark finds %d handshakes, truth has %d", len(found), len(truth.Connections))
	}
	diffs := truth.Check(found)
	for _, d := range diffs[:min(len(diffs), 10)] {
		t.Error(d)
	}
}

// tsharkFindings reads one line a frame.
func tsharkFindings(t *testing.T, lines string) []Found {
	type stream struct {
		Found
		asked, hello, version13, psk, alert bool
	}
	streams := make(map[string]*stream)
	var order []*stream
	scan := bufio.NewScanner(strings.NewReader(lines))
	scan.Buffer(nil, 1<<24)
	for scan.Scan() {
		f := strings.Split(scan.Text(), "\t")
		end := func(v4, v6, port string) netip.AddrPort {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				t.Fatal(err)
			}
			return netip.AddrPortFrom(netip.MustParseAddr(v4+v6), uint16(n))
		}
		src, dst := end(f[1], f[2], f[3]), end(f[4], f[5], f[6])
		s := streams[f[0]]
		types := strings.Split(f[9], ",")
		if s == nil {
			s = &stream{Found: Found{Client: src, Server: dst, VLANs: vlans(t, f[8], f[7])}}
			streams[f[0]] = s
			order = append(order, s)
		}
		if slices.Contains(types, "1") {
			s.Client, s.Server, s.asked = src, dst, true
		}
		if slices.Contains(types, "2") {
			s.hello = true
			s.version13 = f[10] == "0x0304"
			s.psk = s.version13 && slices.Contains(strings.Split(f[11], ","), "41")
		}
		s.alert = s.alert || f[12] != ""
		if f[13] == "" {
			continue
		}
		for der := range strings.SplitSeq(f[13], ",") {
			b, err := hex.DecodeString(der)
			if err != nil {
				t.Fatal(err)
			}
			hash := fmt.Sprintf("%X", sha256.Sum256(b))
			if src == s.Server {
				s.Chain = append(s.Chain, hash)
			} else {
				s.ClientChain = append(s.ClientChain, hash)
			}
		}
	}
	var found []Found
	for _, s := range order {
		switch {
		case !s.asked:
			t.Errorf("%v > %v: no ClientHello", s.Client, s.Server)
		case len(s.Chain) > 0:
			s.Outcome = "extracted"
		case s.hello && s.version13 && !s.psk:
			s.Outcome = "encrypted"
		case s.hello:
			s.Outcome = "resumed"
		case s.alert:
			s.Outcome = "none"
		default:
			s.Outcome = "lost"
		}
		found = append(found, s.Found)
	}
	return found
}

func vlans(t *testing.T, fields ...string) (ids []uint16) {
	for _, f := range fields {
		if f == "" {
			continue
		}
		for s := range strings.SplitSeq(f, ",") {
			n, err := strconv.ParseUint(s, 10, 12)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, uint16(n))
		}
	}
	return ids
}

// TestVisibleIsWhatIsThere looks for certificates without any protocol: all
// bytes of a direction laid out by sequence number, the first copy of each,
// and whatever has the shape of a certificate hashed.
func TestVisibleIsWhatIsThere(t *testing.T) {
	for name, test := range map[string]struct {
		rate    float64
		snaplen int
	}{"0.1 %": {0.001, 0}, "1 %": {0.01, 0}, "5 %": {0.05, 0}, "10 %": {0.1, 0}, "snaplen": {0.01, 1100}} {
		t.Run(name, func(t *testing.T) {
			rate := test.rate
			capture, truth := generate(t, "truth", 0.05, func(s *Spec) {
				s.Snaplen = test.snaplen
				s.Impairment = Uniform(rate)
				s.Impairment.Conflict = rate
				s.Impairment.Depth = 20
				s.Reused = 0 // one stream for each five-tuple
				s.Shares = slices.DeleteFunc(s.Shares, func(x Share) bool { return x.Kind == TLS12Huge })
			})
			there := certificatesIn(read(t, capture))
			visible, hidden := 0, 0
			for _, c := range truth.Connections {
				for _, side := range []struct {
					from, to netip.AddrPort
					shown    []Shown
				}{{c.Server, c.Client, c.Chain}, {c.Client, c.Server, c.ClientChain}} {
					for _, s := range side.shown {
						hash := truth.Certificates[s.Certificate].SHA256
						got := there[fmt.Sprint(side.from, side.to, c.VLANs)+" "+hash]
						if got.visible != s.Visible {
							t.Errorf("%s %v > %v %v: visible %v, but is not so: %v", c.Kind, c.Client, c.Server, c.VLANs, s.Visible, c.Faults)
						}
						if s.Visible {
							visible++
						} else {
							hidden++
						}
						// A start that comes late, or never, is the sensor's to
						// find out: truth does not ask for it.
						certain := got.whole && got.start && c.Faults["reordered"] == 0
						if s.Whole && !got.whole || certain && !s.Whole {
							t.Errorf("%s %v > %v: whole %v, but is not so: %v", c.Kind, c.Client, c.Server, s.Whole, c.Faults)
						}
					}
				}
			}
			if visible == 0 || hidden == 0 {
				t.Errorf("%d visible, %d not: nothing was compared", visible, hidden)
			}
		})
	}
}

// sight is what brute force sees of a certificate.
type sight struct {
	visible bool
	whole   bool // with all bytes from the first one on
	start   bool // a SYN says which is the first one
}

func certificatesIn(frames []frame) map[string]sight {
	type stream struct {
		base  uint32
		first int32
		start bool
		bytes map[int32]byte
	}
	streams := make(map[string]*stream)
	for _, f := range frames {
		if f.tcp == nil || len(f.payload) == 0 && !f.tcp.SYN {
			continue
		}
		k := fmt.Sprint(f.src, f.dst, f.vlans)
		s := streams[k]
		if s == nil {
			s = &stream{base: f.tcp.Seq, bytes: make(map[int32]byte)}
			streams[k] = s
		}
		at := int32(f.tcp.Seq - s.base)
		if f.tcp.SYN {
			s.first, s.start = at+1, true
			continue
		}
		if !s.start {
			s.first = min(s.first, at)
		}
		for i, b := range f.payload {
			if _, ok := s.bytes[at+int32(i)]; !ok {
				s.bytes[at+int32(i)] = b
			}
		}
	}
	there := make(map[string]sight)
	for k, s := range streams {
		end := s.first // of what is there without a gap
		for _, ok := s.bytes[end]; ok; _, ok = s.bytes[end] {
			end++
		}
		for at, b := range s.bytes {
			if b != 0x30 || s.bytes[at+1] != 0x82 {
				continue
			}
			n := 4 + int32(s.bytes[at+2])<<8 + int32(s.bytes[at+3])
			der := make([]byte, 0, n)
			for i := range n {
				b, ok := s.bytes[at+i]
				if !ok {
					break
				}
				der = append(der, b)
			}
			there[k+fmt.Sprintf(" %X", sha256.Sum256(der))] = sight{true, at+n <= end, s.start}
		}
	}
	return there
}

func TestCheck(t *testing.T) {
	_, truth := generate(t, "clean", 0.01, nil)
	perfect := func() (found []Found) {
		for _, c := range truth.Connections {
			f := Found{Client: c.Client, Server: c.Server, VLANs: c.VLANs, Outcome: c.Outcomes[0]}
			for _, s := range c.Chain {
				f.Chain = append(f.Chain, truth.Certificates[s.Certificate].SHA256)
			}
			for _, s := range c.ClientChain {
				f.ClientChain = append(f.ClientChain, truth.Certificates[s.Certificate].SHA256)
			}
			found = append(found, f)
		}
		return found
	}
	if diffs := truth.Check(perfect()); len(diffs) > 0 {
		t.Fatalf("the truth differs from itself: %v", diffs)
	}
	at := slices.IndexFunc(truth.Connections, func(c Connection) bool { return c.Kind == TLS12Mutual })
	for name, test := range map[string]struct {
		spoil func([]Found) []Found
		want  []Fault
	}{
		"leaf":        {func(f []Found) []Found { f[at].Chain = f[at].Chain[1:]; return f }, []Fault{Missed}},
		"client leaf": {func(f []Found) []Found { f[at].ClientChain = f[at].ClientChain[1:]; return f }, []Fault{Missed}},
		"invented":    {func(f []Found) []Found { f[at].Chain = append(f[at].Chain, "00"); return f }, []Fault{Wrong}},
		"outcome":     {func(f []Found) []Found { f[at].Outcome = "lost"; return f }, []Fault{BadOutcome}},
		"swapped":     {func(f []Found) []Found { f[at].Client, f[at].Server = f[at].Server, f[at].Client; return f }, []Fault{Swapped}},
		"twice":       {func(f []Found) []Found { return append(f, f[at]) }, []Fault{Extra}},
		"other VLAN":  {func(f []Found) []Found { f[0].VLANs = []uint16{4095}; return f }, []Fault{Unreported, Extra}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []Fault
			for _, d := range truth.Check(test.spoil(perfect())) {
				if d.Fault != Missed || name != "other VLAN" {
					got = append(got, d.Fault)
				}
				if d.String() == "" {
					t.Error("a difference that says nothing")
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// TestPlantsAreThere asks that a sensor has something to raise an alert for.
func TestPlantsAreThere(t *testing.T) {
	_, truth := generate(t, "truth", 0.2, nil)
	reasons := make(map[string]bool)
	for _, c := range truth.Connections {
		if len(c.Chain) > 0 && c.Chain[0].Visible {
			reasons[truth.Certificates[c.Chain[0].Certificate].Plant] = true
		}
	}
	if !reasons[""] || len(reasons) < 3 {
		t.Errorf("visible plants: %v", reasons)
	}
}
