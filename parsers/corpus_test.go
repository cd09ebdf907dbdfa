package parsers

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/oddcert/oddcert/parsers/event"
)

// corpus is the folder of public captures.
func corpus(t testing.TB) string {
	t.Helper()
	dir := cmp.Or(os.Getenv("ODDCERT_CORPUS"), "../../shared/corpus")
	if _, err := os.Stat(filepath.Join(dir, "captures")); err != nil {
		t.Skipf("no public captures here: %v (ODDCERT_CORPUS names their folder)", err)
	}
	return dir
}

// packets calls f with each packet of a capture.
func packets(t testing.TB, name string, f func(frame uint64, p gopacket.Packet)) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var next func() ([]byte, layers.LinkType, error)
	if ng, err := pcapgo.NewNgReader(file, pcapgo.NgReaderOptions{WantMixedLinkType: true}); err == nil {
		next = func() ([]byte, layers.LinkType, error) {
			b, ci, err := ng.ReadPacketData()
			if err != nil {
				return nil, 0, err
			}
			return b, ci.AncillaryData[0].(layers.LinkType), nil
		}
	} else {
		file.Seek(0, io.SeekStart)
		r, err := pcapgo.NewReader(file)
		if err != nil {
			return // no capture of a kind that pcapgo reads
		}
		next = func() ([]byte, layers.LinkType, error) {
			b, _, err := r.ReadPacketData()
			return b, r.LinkType(), err
		}
	}
	for frame := uint64(1); ; frame++ {
		b, link, err := next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Logf("%s: frame %d: %v", filepath.Base(name), frame, err)
			}
			return
		}
		f(frame, gopacket.NewPacket(b, link, gopacket.NoCopy))
	}
}

// five is a five-tuple, lower end first.
type five struct {
	a, b      netip.AddrPort
	transport event.Transport
}

// flows sorts packets into flows of one sensor, with no more reassembly than a
// capture without losses needs: each direction's segments in the order of
// their sequence numbers.
type flows struct {
	*sensor
	conns map[five]*flowState
}

type flowState struct {
	conn    *Conn
	first   netip.AddrPort
	next    [2]uint32
	begun   [2]bool
	waiting [2][]segment
}

type segment struct {
	seq uint32
	at  event.Moment
	b   []byte
}

func (fs *flows) packet(frame uint64, p gopacket.Packet) {
	network := p.NetworkLayer()
	if network == nil {
		return
	}
	src, ok1 := netip.AddrFromSlice(network.NetworkFlow().Src().Raw())
	dst, ok2 := netip.AddrFromSlice(network.NetworkFlow().Dst().Raw())
	if !ok1 || !ok2 {
		return
	}
	at := event.Moment{Time: int64(frame), Frame: frame}
	if udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
		b := udp.Payload
		if !Looks(b) {
			return
		}
		s, d := fs.flow(event.UDP, netip.AddrPortFrom(src, uint16(udp.SrcPort)), netip.AddrPortFrom(dst, uint16(udp.DstPort)))
		s.conn.Datagram(d, at, b)
		return
	}
	tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ok {
		return
	}
	s, d := fs.flow(event.TCP, netip.AddrPortFrom(src, uint16(tcp.SrcPort)), netip.AddrPortFrom(dst, uint16(tcp.DstPort)))
	if tcp.SYN {
		s.next[d], s.begun[d] = tcp.Seq+1, true
		return
	}
	if len(tcp.Payload) == 0 {
		return
	}
	if !s.begun[d] {
		s.next[d], s.begun[d] = tcp.Seq, true
	}
	s.waiting[d] = append(s.waiting[d], segment{tcp.Seq, at, tcp.Payload})
	fs.deliver(s, d)
}

// deliver hands on what is in order.
func (fs *flows) deliver(s *flowState, d event.Direction) {
	for again := true; again; {
		again = false
		for i, g := range s.waiting[d] {
			skip := int32(s.next[d] - g.seq)
			if skip < 0 {
				continue
			}
			s.waiting[d] = slices.Delete(s.waiting[d], i, i+1)
			if again = true; int(skip) < len(g.b) {
				s.next[d] = g.seq + uint32(len(g.b))
				s.conn.Segment(d, g.at, g.b[skip:])
			}
			break
		}
	}
}

func (fs *flows) flow(tr event.Transport, src, dst netip.AddrPort) (*flowState, event.Direction) {
	key := five{src, dst, tr}
	if dst.Compare(src) < 0 {
		key = five{dst, src, tr}
	}
	s := fs.conns[key]
	if s == nil {
		f := testFlow(tr)
		f.Endpoints = [2]event.Endpoint{{Addr: src.Addr(), Port: src.Port()}, {Addr: dst.Addr(), Port: dst.Port()}}
		s = &flowState{conn: fs.Open(f), first: src}
		fs.conns[key] = s
	}
	if src == s.first {
		return s, 0
	}
	return s, 1
}

// close ends all flows. What waits for the bytes of a hole comes after a gap.
func (fs *flows) close() {
	for _, s := range fs.conns {
		for d := range event.Direction(2) {
			for len(s.waiting[d]) > 0 {
				slices.SortStableFunc(s.waiting[d], func(a, b segment) int { return int(int32(a.seq - b.seq)) })
				g := s.waiting[d][0]
				s.conn.Gap(d, g.at, int(g.seq-s.next[d]))
				s.next[d] = g.seq
				fs.deliver(s, d)
			}
		}
		s.conn.Close(event.EndOfInput)
	}
}

// replay reads a capture.
func replay(t testing.TB, name string) *sensor {
	fs := &flows{newSensor(), map[five]*flowState{}}
	packets(t, name, fs.packet)
	fs.close()
	fs.check(t)
	return fs.sensor
}

func TestDIVD(t *testing.T) {
	name := filepath.Join(corpus(t), "captures/ntop+nDPI/tests/cfgs/default/pcap/dtls_certificate.pcapng")
	h := one(t, replay(t, name).got)
	const want = "1073570f79136511ba45b44c923a55c69b97e91d3aaa2e06e5e657129ca809ff"
	if h.Outcome != event.Extracted || h.Carrier != "dtls" || h.Version != 0xfefd || len(h.Chain) != 1 || h.CipherSuite != 0xc030 {
		t.Fatalf("outcome %v, carrier %q, version %#x, suite %#x, chain of %d", h.Outcome, h.Carrier, h.Version, h.CipherSuite, len(h.Chain))
	}
	if got := hex.EncodeToString(h.Chain[0].SHA256[:]); got != want {
		t.Errorf("SHA-256 %s, want %s", got, want)
	}
	if h.Flow.Endpoints[h.Client.Other()].Port != 443 || h.Certificate.Frame != 1 {
		t.Errorf("server %v, certificate in frame %d", h.Flow.Endpoints[h.Client.Other()], h.Certificate.Frame)
	}
}

// TestCorpus compares what is found in the public captures with what others found
// there. A certificate that is missing is only logged, because gopacket does not
// decode every encapsulation; one that must not be there fails the test.
func TestCorpus(t *testing.T) {
	dir := corpus(t)
	b, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	type found struct {
		SHA256  string `json:"sha256"`
		Keys    bool   `json:"needs_keylog"`
		Partial bool   `json:"partial_message"`
		Exotic  any    `json:"exotic"`
	}
	var expected map[string]struct{ Server, Client []found }
	if err := json.Unmarshal(b, &expected); err != nil {
		t.Fatal(err)
	}
	var missed, wrong, total int
	for name, want := range expected {
		path := filepath.Join(dir, "captures", name)
		if info, err := os.Stat(path); err != nil || info.Size() > 20<<20 {
			continue
		}
		s := replay(t, path)
		got := map[string]bool{}
		for _, h := range s.got {
			for side, chain := range map[string][]event.ChainEntry{"server": h.Chain, "client": h.ClientChain} {
				for _, e := range chain {
					if !e.Truncated {
						got[side+" "+hex.EncodeToString(e.SHA256[:])] = true
					}
				}
			}
		}
		may, lack := map[string]bool{}, []string{}
		for side, l := range map[string][]found{"server": want.Server, "client": want.Client} {
			for _, f := range l {
				k := side + " " + f.SHA256
				if may[k] {
					continue
				}
				may[k] = true
				if !f.Keys && !f.Partial && f.Exotic == nil {
					if total++; !got[k] {
						lack = append(lack, k[:15])
					}
				}
			}
		}
		for k := range got {
			if !may[k] && !unlisted[k] {
				t.Errorf("%s: found %s, which is not expected", name, k)
				wrong++
			}
		}
		if missed += len(lack); len(lack) > 0 {
			t.Logf("%s: not found: %s", name, strings.Join(lack, ", "))
		}
	}
	t.Logf("%d certificates, %d not found, %d wrong", total, missed, wrong)
}

// unlisted are certificates that others missed: both are complete in a segment after
// a gap, at the end of the server's Certificate message.
var unlisted = map[string]bool{
	"server 4348a0e9444c78cb265e058d5e8944b4d84f9662bd26db257f8934a443c70161": true, // DigiCert Global Root CA
	"server f1c1b50ae5a20dd8030ec9f6bc24823dd367b5255759b4e71b61fce9f7375d73": true, // SecureTrust CA
}
