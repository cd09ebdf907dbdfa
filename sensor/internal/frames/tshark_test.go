package frames

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
)

// publicCaptures are the files of the public captures, and of the project's own. It
// skips the test where there are none.
func publicCaptures(t testing.TB) (paths []string) {
	t.Helper()
	root := cmp.Or(os.Getenv("ODDCERT_CORPUS"), "../../../../shared/corpus")
	for _, dir := range []string{filepath.Join(root, "captures"), "../../testdata/captures"} {
		filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				paths = append(paths, path)
			}
			return nil
		})
	}
	return paths
}

// tuple is a five-tuple, with the ends in order.
type tuple struct {
	transport event.Transport
	low, high netip.AddrPort
}

func (t tuple) flow() Flow {
	return Flow{Transport: t.transport, Endpoints: [2]event.Endpoint{
		{Addr: t.high.Addr(), Port: t.high.Port()}, {Addr: t.low.Addr(), Port: t.low.Port()}}}
}

// dissected has tshark say which frames of a capture have which five-tuple innermost,
// fragments included.
func dissected(t testing.TB, path string) map[tuple][]uint64 {
	t.Helper()
	fields := []string{"frame.number", "frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.srcport", "tcp.dstport",
		"udp.srcport", "udp.dstport", "sctp.srcport", "sctp.dstport", "ip.fragment", "ipv6.fragment"}
	args := []string{"-r", path, "-n", "-2", "-T", "fields", "-E", "separator=|"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Logf("tshark %s: %v", path, err)
	}
	all := map[tuple][]uint64{}
	of := map[uint64]tuple{}
	parts := map[uint64][]uint64{} // fragments by the frame that made the datagram whole
	for s := bufio.NewScanner(strings.NewReader(string(out))); s.Scan(); {
		v := strings.Split(s.Text(), "|")
		last := func(s string) string { return s[strings.LastIndexByte(s, ',')+1:] }
		number, _ := strconv.ParseUint(v[0], 10, 64)
		for _, list := range v[12:] {
			for _, n := range strings.Split(list, ",") {
				if n, err := strconv.ParseUint(n, 10, 64); err == nil {
					parts[number] = append(parts[number], n)
				}
			}
		}
		protocols := strings.Split(v[1], ":")
		if i := slices.IndexFunc(protocols, func(p string) bool { return p == "icmp" || p == "icmpv6" || p == "sflow" }); i >= 0 {
			protocols = protocols[:i] // what they quote is not of the flow
			if protocols[len(protocols)-1] != "udp" {
				continue
			}
			last = func(s string) string { s, _, _ = strings.Cut(s, ","); return s }
		}
		src, dst := last(v[2]), last(v[3])
		if slices.Index(protocols, "ipv6") > lastIndex(protocols, "ip") || src == "" {
			src, dst = last(v[4]), last(v[5])
		}
		var k tuple
		ip := max(lastIndex(protocols, "ip"), lastIndex(protocols, "ipv6"))
		at := ip
		for i, transport := range []event.Transport{event.TCP, event.UDP, event.SCTP} {
			name := []string{"tcp", "udp", "sctp"}[i]
			if p := lastIndex(protocols, name); p > at && v[6+2*i] != "" {
				a, err1 := netip.ParseAddrPort(join(src, last(v[6+2*i])))
				b, err2 := netip.ParseAddrPort(join(dst, last(v[7+2*i])))
				if err1 != nil || err2 != nil {
					continue
				}
				at = p
				if b.Compare(a) < 0 {
					a, b = b, a
				}
				k = tuple{transport, a, b}
			}
		}
		if at > ip {
			all[k] = append(all[k], number)
			of[number] = k
		}
	}
	for n, list := range parts {
		for _, m := range list {
			if k, ok := of[n]; ok {
				all[k] = append(all[k], m)
			}
		}
	}
	for k := range all {
		slices.Sort(all[k])
		all[k] = slices.Compact(all[k])
	}
	return all
}

func lastIndex(list []string, s string) int {
	for i, x := range slices.Backward(list) {
		if x == s {
			return i
		}
	}
	return -1
}

func join(addr, port string) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]:" + port
	}
	return addr + ":" + port
}

// cutFile cuts flows out of a capture and returns the numbers of the frames of each.
func cutFile(t testing.TB, path string, flows []Flow) ([][]uint64, Stats) {
	t.Helper()
	source, err := capture.OpenFiles([]string{path}, capture.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	numbers := make([][]uint64, len(flows))
	stats, err := Cut(context.Background(), source, flows, Options{}, func(f *Frame, of []int) error {
		for _, i := range of {
			numbers[i] = append(numbers[i], f.Number)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return numbers, stats
}

// Cut finds the frames that tshark finds by the five-tuple, and all fragments.
func TestAgainstTshark(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip("tshark is not installed")
	}
	if testing.Short() {
		t.Skip("tshark reads all public captures")
	}
	compared, explained := 0, 0
	for _, path := range publicCaptures(t) {
		if info, err := os.Stat(path); err != nil || info.Size() > 8<<20 || filepath.Ext(path) == ".json" || filepath.Ext(path) == ".md" {
			continue
		}
		theirs := dissected(t, path)
		tuples := make([]tuple, 0, len(theirs))
		flows := make([]Flow, 0, len(theirs))
		for k := range theirs {
			tuples, flows = append(tuples, k), append(flows, k.flow())
		}
		ours, _ := cutFile(t, path, flows)
		for i, k := range tuples {
			compared++
			if why := unlike[filepath.Base(path)]; why != "" && subset(ours[i], theirs[k]) {
				explained += len(theirs[k]) - len(ours[i])
				continue
			}
			if filepath.Base(path) == "ip4_fragments.pcap" && subset(theirs[k], ours[i]) {
				continue // it has repetitions of fragments, after the datagram is whole too
			}
			if !slices.Equal(ours[i], theirs[k]) {
				t.Errorf("%s: %s: ours %s, tshark's %s", filepath.Base(path), fmt.Sprint(k), short(ours[i]), short(theirs[k]))
			}
		}
	}
	t.Logf("%d flows compared; tshark has %d more frames, for known reasons", compared, explained)
}

// unlike are the captures in which tshark has more frames, and why.
var unlike = map[string]string{
	"test.cap":                  "segments that are shorter than a TCP header",
	"fuzz-2006-06-26-2594.pcap": "a TCP header that is longer than its segment",
	"badpackets.pcap":           "first fragments that are longer than their frames: they have ports, and their datagrams are never whole",
	"ipv6.pcapng":               "control messages of LISP, which quote packets",
}

// subset reports whether all of a is in b.
func subset(a, b []uint64) bool {
	return !slices.ContainsFunc(a, func(n uint64) bool { _, ok := slices.BinarySearch(b, n); return !ok })
}

func short(list []uint64) string {
	if len(list) > 12 {
		return fmt.Sprint(list[:12], "… ", len(list))
	}
	return fmt.Sprint(list)
}
