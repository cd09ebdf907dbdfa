package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"golang.org/x/net/bpf"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// parses are expressions that must compile, here and in tcpdump.
var parses = []string{
	"",
	"  ",
	"tcp",
	"udp",
	"sctp",
	"ip",
	"ip6",
	"arp",
	"rarp",
	"icmp",
	"icmp6",
	"igmp",
	"pim",
	"ah",
	"esp",
	"vrrp",
	"port 443",
	"port https",
	"port domain",
	"tcp port https",
	"udp port domain",
	"port ntp",
	"tcp port 443",
	"tcp port 443 or udp port 443",
	"tcp and port 443",
	"tcp and not port 443",
	"port 443 or 53",
	"port (443 or 53)",
	"port not 443",
	"not port 443 and 53",
	"tcp port 443 and (80 or 443)",
	"src port 443",
	"dst port 443",
	"src or dst port 443",
	"src and dst port 443",
	"dst or src port 443",
	"tcp src port 443 or dst port 53",
	"portrange 50-443",
	"portrange 443-50",
	"tcp portrange 400-500",
	"udp dst portrange 1-1023",
	"portrange 80",
	"sctp port 9",
	"host 192.0.2.1",
	"src host 192.0.2.1",
	"src 192.0.2.1",
	"dst 192.0.2.1 or 192.0.2.2",
	"host (192.0.2.1 and 192.0.2.2)",
	"src or dst 192.0.2.1",
	"ip host 192.0.2.1",
	"ip src 192.0.2.1",
	"arp host 192.0.2.1",
	"rarp src host 192.0.2.1",
	"host 2001:db8::1",
	"ip6 host 2001:db8::1",
	"ip6 src 2001:db8::1",
	"src host 2001:db8::1 or 2001:db8::2",
	"net 192.0.2.0/24",
	"net 192.0.2",
	"net 192",
	"net 192.0.0.0 mask 255.255.0.0",
	"net 192.0.2.0",
	"net 0.0.0.0/0",
	"src net 192.0.0.0/9 and dst net 192.0.2.0/30",
	"not net 192.0.2.0/24",
	"net 2001:db8::/32",
	"net 2001:db8::/45",
	"net 2001:db8::/127",
	"dst net 2001:db8::/64",
	"ether host 02:00:00:00:00:01",
	"ether src 02:00:00:00:00:01",
	"ether dst host 02:00:00:00:00:02",
	"ether broadcast",
	"broadcast",
	"multicast",
	"ether multicast",
	"ip multicast",
	"ip6 multicast",
	"not broadcast and not multicast",
	"ether proto 0x800",
	`ether proto \ip6`,
	"ip proto 17",
	`ip proto \tcp`,
	"ip6 proto 6",
	"proto 47",
	`proto \udp`,
	"vlan",
	"vlan 10",
	"vlan 0x14",
	"not vlan",
	"vlan and tcp",
	"vlan 10 and tcp port 443",
	"vlan and vlan 20",
	"vlan 10 and vlan 20 and port 443",
	"tcp or vlan and tcp",
	"port 443 or (vlan and port 443)",
	"vlan and not tcp",
	"less 100",
	"greater 100",
	"greater 0x40 and less 200",
	"ip or ip6 and tcp",
	"ip and tcp or udp",
	"!tcp",
	"! tcp||udp",
	"tcp&&port 443",
	"((tcp))",
	"not (tcp or udp)",
	"not not tcp",
	"not host 192.0.2.1 and port 443",
	"(tcp port 443 or udp port 53) and ip6",
	"tcp port 443 or udp port 53 and ip6",
	"host 192.0.2.1 and (tcp port 443 or udp port 53) and not net 192.0.2.0/30",
}

// refused are expressions that must not compile, with a word of the reason.
var refused = map[string]string{
	"tcp and":                           "too early",
	"and tcp":                           `"and"`,
	"tcp udp":                           `"udp"`,
	"tcp or 80":                         `"80"`,
	"tcp)":                              `")"`,
	"(tcp":                              "too early",
	"()":                                `")"`,
	"not":                               "too early",
	"192.0.2.1":                         `"192.0.2.1"`,
	"TCP":                               `"TCP"`,
	"tcp AND udp":                       `"AND"`,
	"host":                              "too early",
	"host tcp":                          `"tcp"`,
	"host foo.example":                  "names are not looked up",
	"net foo.example":                   "names are not looked up",
	"host 192.0.2.300":                  "not an address",
	"host 192.0.2.1/24":                 "not an address",
	"net 192.0.2.1/24":                  "past the prefix",
	"net 192.0.2.0/33":                  "more than 32",
	"net 2001:db8::1/32":                "past the prefix",
	"net 192.0.2.0 mask 255.0.255.0":    "leading ones",
	"net 192.0.2.0 mask":                "mask",
	"tcp host 192.0.2.1":                `"tcp host"`,
	"tcp src 80":                        `"tcp host"`,
	"ip host 2001:db8::1":               "not an address of it",
	"ip6 host 192.0.2.1":                "not an address of it",
	"ip port 80":                        `"ip port"`,
	"icmp port 80":                      `"icmp port"`,
	"ether host 192.0.2.1":              "not a MAC address",
	"host 02:00:00:00:00:01":            "not an address",
	"port 65536":                        "more than 65535",
	"port 80 443":                       `"443"`,
	"port no-such-service":              "no such service",
	"port -1":                           "no such service",
	"portrange 1-":                      "not a number",
	"src src 192.0.2.1":                 `"src"`,
	"src and src 192.0.2.1":             `"src"`,
	"src tcp port 80":                   `"tcp"`,
	"vlan 4096":                         "more than 4095",
	"vlan 10 or 20":                     `"20"`,
	"less":                              "too early",
	"less many":                         "not a number",
	"proto tcp":                         `"tcp"`,
	"ether proto 0x20":                  "EtherType",
	"ether proto 0x10000":               "more than 65535",
	"tcp[13] & 2 != 0":                  "not supported",
	"tcp[tcpflags] == tcp-syn":          "not supported",
	"len > 100":                         "not supported",
	"ip broadcast":                      "netmask",
	"mpls":                              `"mpls"`,
	"inbound":                           `"inbound"`,
	"tcp; rm":                           `';'`,
	"tcp \x00":                          `'\x00'`,
	"host é":                            `'é'`,
	"tcp " + strings.Repeat("(", 1<<17): "longer",
	strings.Repeat("vlan and ", 600) + "port 443" + strings.Repeat(" or port 1", 600): "instructions",
}

func TestFilterRefuses(t *testing.T) {
	for expression, reason := range refused {
		_, err := CompileFilter(expression, linktype.Ethernet)
		switch {
		case err == nil:
			t.Errorf("%.80q was not refused", expression)
		case !strings.Contains(err.Error(), reason):
			t.Errorf("%.80q: the error %.200q does not say %q", expression, err, reason)
		case strings.Contains(err.Error(), "\n"):
			t.Errorf("%.80q: the error is more than one line", expression)
		}
	}
	for _, expression := range []string{"vlan", "ether host 02:00:00:00:00:01", "broadcast", "ether multicast"} {
		if _, err := CompileFilter(expression, linktype.Raw); err == nil || !strings.Contains(err.Error(), "Ethernet") {
			t.Errorf("%q on raw IP: %v", expression, err)
		}
	}
	if _, err := CompileFilter("tcp", linktype.Type(147)); err == nil {
		t.Error("a filter for an unknown link type")
	}
}

// filterLinks are the link types that are compared, by tcpdump's names.
var filterLinks = map[linktype.Type]string{
	linktype.Ethernet:  "EN10MB",
	linktype.Raw:       "RAW",
	linktype.LinuxSLL:  "LINUX_SLL",
	linktype.LinuxSLL2: "LINUX_SLL2",
	linktype.Loop:      "LOOP",
	linktype.PPP:       "PPP",
}

// TestFilterAgreesWithTcpdump runs every expression over many frames, by our
// program and by the one that tcpdump makes.
func TestFilterAgreesWithTcpdump(t *testing.T) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("tcpdump is not installed")
	}
	for link, name := range filterLinks {
		t.Run(name, func(t *testing.T) {
			frames := filterFrames(t, link)
			var matched, compared int
			for _, expression := range parses {
				theirs, err := tcpdumpFilter(name, expression)
				if err != nil {
					if _, ours := CompileFilter(expression, link); ours == nil && link == linktype.Ethernet {
						t.Errorf("%q: only tcpdump refuses it: %v", expression, err)
					}
					continue
				}
				ours, err := CompileFilter(expression, link)
				if err != nil {
					if link == linktype.Ethernet {
						t.Errorf("only we refuse it: %v", err)
					}
					continue
				}
				compared++
				for i, frame := range frames {
					n, err := theirs.Run(frame)
					if err != nil {
						t.Fatal(err)
					}
					if want := n > 0; ours.Match(frame) != want {
						t.Errorf("%q: tcpdump says %v to frame %d: %x", expression, want, i, frame)
						break
					} else if want {
						matched++
					}
				}
			}
			t.Logf("%d expressions over %d frames, %d matches", compared, len(frames), matched)
			if compared < len(parses)*3/4 || matched == 0 {
				t.Errorf("only %d of %d expressions were compared", compared, len(parses))
			}
		})
	}
	for expression := range refused {
		// What tcpdump would understand.
		known := []string{"more than 65535", "names are not", "not supported", "EtherType", "netmask", "longer", "instructions", "leading ones", `"mpls"`, `"inbound"`}
		reason := refused[expression]
		if strings.ContainsRune(expression, 0) || containsAny(reason, known) || expression == "host é" {
			continue
		}
		if _, err := tcpdumpFilter("EN10MB", expression); err == nil {
			t.Errorf("%q: tcpdump takes it", expression)
		}
	}
}

func containsAny(s string, list []string) bool {
	for _, item := range list {
		if strings.Contains(s, item) {
			return true
		}
	}
	return false
}

// tcpdumpFilter compiles an expression with tcpdump.
func tcpdumpFilter(link, expression string) (*bpf.VM, error) {
	var stderr bytes.Buffer
	cmd := exec.Command("tcpdump", "-ddd", "-y", link, expression)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New(strings.TrimSpace(stderr.String()))
	}
	var raw []bpf.RawInstruction
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n")[1:] {
		var op, jt, jf, k uint32
		if _, err := fmt.Sscan(line, &op, &jt, &jf, &k); err != nil {
			return nil, err
		}
		raw = append(raw, bpf.RawInstruction{Op: uint16(op), Jt: uint8(jt), Jf: uint8(jf), K: k})
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		return nil, errors.New("tcpdump's program has unknown instructions")
	}
	return bpf.NewVM(program)
}

// filterFrames returns frames with one link type: made ones whose fields are
// often those that the expressions ask for, and those of the public captures.
func filterFrames(t *testing.T, link linktype.Type) [][]byte {
	frames := madeFrames(link)
	if link == linktype.Ethernet {
		frames = append(frames, corpusFrames(t)...)
	}
	return frames
}

// madeFrames makes whole frames from a fixed seed.
func madeFrames(link linktype.Type) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(n ...uint32) uint32 { return n[rng.IntN(len(n))] }
	v4 := []string{"192.0.2.1", "192.0.2.2", "192.0.2.77", "192.128.0.1", "10.0.0.1", "239.0.0.1"}
	v6 := []string{"2001:db8::1", "2001:db8::2", "2001:db8:8::1", "2001:db9::1", "ff02::1"}
	var frames [][]byte
	for range 4000 {
		etherType := pick(ethertype.IPv4, ethertype.IPv4, ethertype.IPv6, ethertype.IPv6, ethertype.ARP, ethertype.RARP, 0x88cc)
		transport := byte(pick(6, 6, 17, 17, 132, 1, 58, 2, 103, 50, 51, 112, 47))
		ports := make([]byte, 40+rng.IntN(120))
		binary.BigEndian.PutUint16(ports, uint16(pick(443, 443, 53, 80, 9, 123, 49152)))
		binary.BigEndian.PutUint16(ports[2:], uint16(pick(443, 443, 53, 80, 9, 123, 49152)))
		var packet []byte
		switch etherType {
		case ethertype.IPv4:
			options := 4 * rng.IntN(3)
			packet = make([]byte, 20+options)
			packet[0] = byte(0x45 + options/4)
			binary.BigEndian.PutUint16(packet[6:], uint16(pick(0, 0, 0, 0x4000, 0x2000, 0x2001, 0x0001)))
			packet[9] = transport
			copy(packet[12:], netip.MustParseAddr(v4[rng.IntN(len(v4))]).AsSlice())
			copy(packet[16:], netip.MustParseAddr(v4[rng.IntN(len(v4))]).AsSlice())
		case ethertype.IPv6:
			packet = make([]byte, 40)
			packet[0] = 0x60
			packet[6] = transport
			copy(packet[8:], netip.MustParseAddr(v6[rng.IntN(len(v6))]).AsSlice())
			copy(packet[24:], netip.MustParseAddr(v6[rng.IntN(len(v6))]).AsSlice())
			if rng.IntN(4) == 0 {
				packet[6] = 44
				packet = append(packet, transport, 0, 0, byte(pick(0, 1, 8)), 0, 0, 0, 0)
			}
		default:
			packet = make([]byte, 28)
			copy(packet[14:], netip.MustParseAddr(v4[rng.IntN(len(v4))]).AsSlice())
			copy(packet[24:], netip.MustParseAddr(v4[rng.IntN(len(v4))]).AsSlice())
		}
		packet = append(packet, ports...)
		put := binary.BigEndian.AppendUint16
		var header []byte
		switch link {
		case linktype.Ethernet:
			mac := [][]byte{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {1, 0, 0x5e, 0, 0, 1}}
			header = append(append([]byte{}, mac[rng.IntN(4)]...), mac[rng.IntN(2)]...)
			for range max(0, rng.IntN(5)-2) {
				header = put(header, uint16(pick(ethertype.VLAN, ethertype.VLAN, ethertype.QinQ, ethertype.QinQ91)))
				header = put(header, uint16(pick(10, 10, 20, 0x600a, 0)))
			}
			header = put(header, uint16(etherType))
		case linktype.LinuxSLL:
			header = put(make([]byte, 14), uint16(etherType))
		case linktype.LinuxSLL2:
			header = append(put(nil, uint16(etherType)), make([]byte, 18)...)
		case linktype.Loop:
			// libpcap knows but the IPv6 of the machine that it runs on.
			header = []byte{0, 0, 0, byte(map[uint32]int{ethertype.IPv4: 2, ethertype.IPv6: 10}[etherType])}
		case linktype.PPP:
			header = put([]byte{0xff, 0x03}, uint16(map[uint32]int{ethertype.IPv4: 0x21, ethertype.IPv6: 0x57}[etherType]))
		}
		frames = append(frames, append(header, packet...))
	}
	return frames
}

// corpusFrames returns some thousands of frames of the public captures, but
// none that was cut: where a program notices that differs.
func corpusFrames(t *testing.T) [][]byte {
	dir := os.Getenv("ODDCERT_CORPUS")
	if dir == "" {
		dir = "../../../../shared/corpus"
	}
	files, err := filepath.Glob(filepath.Join(dir, "captures/ntop+nDPI/tests/cfgs/default/pcap/*.pcap"))
	if err != nil || len(files) == 0 {
		t.Log("no public captures in ODDCERT_CORPUS or ../shared/corpus: only made frames are compared")
		return nil
	}
	var frames [][]byte
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := pcapgo.NewReader(f)
		if err != nil || r.LinkType() != layers.LinkTypeEthernet {
			continue
		}
		for range 40 {
			data, info, err := r.ReadPacketData()
			if err != nil {
				if err != io.EOF && len(frames) == 0 {
					t.Log(name, err)
				}
				break
			}
			if info.CaptureLength == info.Length && len(data) >= 60 {
				frames = append(frames, data)
			}
		}
	}
	return frames
}

// TestFilterBothKindsOfLayout covers what tcpdump's program for one layout
// cannot say: PPP without HDLC framing and BSD loopback of either byte order.
func TestFilterBothKindsOfLayout(t *testing.T) {
	packet := madeFrames(linktype.Raw)
	for _, test := range []struct {
		link   linktype.Type
		header func(version byte) []byte
	}{
		{linktype.PPP, func(v byte) []byte { return map[byte][]byte{4: {0, 0x21}, 6: {0, 0x57}}[v] }},
		{linktype.Null, func(v byte) []byte { return map[byte][]byte{4: {2, 0, 0, 0}, 6: {24, 0, 0, 0}}[v] }},
		{linktype.Null, func(v byte) []byte { return map[byte][]byte{4: {0, 0, 0, 2}, 6: {0, 0, 0, 30}}[v] }},
		{linktype.Loop, func(v byte) []byte { return map[byte][]byte{4: {0, 0, 0, 2}, 6: {0, 0, 0, 28}}[v] }},
	} {
		for _, expression := range []string{"tcp port 443", "ip6", "net 192.0.2.0/24", "not ip and port 53"} {
			raw, err := CompileFilter(expression, linktype.Raw)
			if err != nil {
				t.Fatal(err)
			}
			framed, err := CompileFilter(expression, test.link)
			if err != nil {
				t.Fatal(err)
			}
			matched := 0
			for _, p := range packet {
				header := test.header(p[0] >> 4)
				if header == nil {
					continue
				}
				want := raw.Match(p)
				if want {
					matched++
				}
				if got := framed.Match(append(header, p...)); got != want {
					t.Fatalf("%q on link type %d: %v for a packet of which raw IP says %v: %x", expression, test.link, got, want, p)
				}
			}
			if matched == 0 {
				t.Errorf("%q on link type %d matched nothing", expression, test.link)
			}
		}
	}
	for expression, want := range map[string]bool{"ip": true, "ip6": false, "tcp": true, "not ip": false, "udp": false} {
		f, err := CompileFilter(expression, linktype.IPv4)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 40)
		p[0], p[9] = 0x45, 6
		if f.Match(p) != want {
			t.Errorf("%q on IPv4: %v", expression, !want)
		}
	}
}

// TestFilterLongJumps puts more than a conditional jump can skip between a test
// and its end.
func TestFilterLongJumps(t *testing.T) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("tcpdump is not installed")
	}
	var ports, hosts []string
	for i := range 60 {
		ports = append(ports, "port "+strconv.Itoa(400+i))
		hosts = append(hosts, "host 192.0.2."+strconv.Itoa(i))
	}
	for _, expression := range []string{
		strings.Join(ports, " or "),
		"not (" + strings.Join(ports, " or ") + ")",
		"(" + strings.Join(ports, " or ") + ") and (" + strings.Join(hosts, " or ") + ")",
		"udp or not (" + strings.Join(hosts, " or ") + ") and (" + strings.Join(ports[:20], " or ") + ")",
	} {
		theirs, err := tcpdumpFilter("EN10MB", expression)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := CompileFilter(expression, linktype.Ethernet)
		if err != nil {
			t.Fatal(err)
		}
		for _, frame := range madeFrames(linktype.Ethernet) {
			n, err := theirs.Run(frame)
			if err != nil {
				t.Fatal(err)
			}
			if ours.Match(frame) != (n > 0) {
				t.Fatalf("%.60q: tcpdump says %v to %x", expression, n > 0, frame)
			}
		}
	}
}

func TestFilterMatchAllocates(t *testing.T) {
	f, err := CompileFilter("net 192.0.2.0/24 and tcp port 443 or ip6", linktype.Ethernet)
	if err != nil {
		t.Fatal(err)
	}
	frames := madeFrames(linktype.Ethernet)
	i := 0
	if n := testing.AllocsPerRun(1000, func() { f.Match(frames[i%len(frames)]); i++ }); n != 0 {
		t.Errorf("Match allocates %v times", n)
	}
}

// FuzzCompileFilter checks that what compiles is a program that the kernel
// takes, for files and live, and that negation negates it where no byte is
// missing.
func FuzzCompileFilter(f *testing.F) {
	for _, expression := range parses {
		f.Add(expression)
	}
	for expression := range refused {
		if len(expression) < 100 {
			f.Add(expression)
		}
	}
	frames := madeFrames(linktype.Ethernet)[:50]
	for i := range frames {
		frames[i] = append(frames[i], make([]byte, 512)...)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		for link := range filterLinks {
			program, err := compileFilter(expression, link, true, 100)
			if err != nil {
				continue
			}
			if len(program) > maxFilterProgram {
				t.Fatalf("%d instructions", len(program))
			}
			if _, err := bpf.Assemble(program); err != nil {
				t.Fatal(err)
			}
		}
		filter, err := CompileFilter(expression, linktype.Ethernet)
		if err != nil || strings.Count(expression, "vlan") > 20 || strings.TrimSpace(expression) == "" {
			return
		}
		not, err := CompileFilter("not ("+expression+")", linktype.Ethernet)
		if err != nil {
			t.Fatalf("%q compiles, its negation does not: %v", expression, err)
		}
		for _, frame := range frames {
			if filter.Match(frame) == not.Match(frame) {
				t.Fatalf("%q and its negation say %v", expression, filter.Match(frame))
			}
		}
	})
}

func BenchmarkFilterMatch(b *testing.B) {
	f, err := CompileFilter("net 192.0.2.0/24 and (tcp port 443 or udp port 443)", linktype.Ethernet)
	if err != nil {
		b.Fatal(err)
	}
	frames := madeFrames(linktype.Ethernet)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f.Match(frames[i%len(frames)])
	}
}
