package terminal

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
)

// readLine reads the pairs of a line as readers of logs do.
func readLine(t *testing.T, line string) map[string]string {
	t.Helper()
	head := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ "(?:[^"\\]|\\.)*"`).FindString(line)
	if head == "" {
		t.Fatalf("%q does not begin with time, level and title", line)
	}
	pairs, rest := map[string]string{}, strings.TrimSuffix(line[len(head):], "\n")
	pair := regexp.MustCompile(`^ ([a-z0-9]+)=("(?:[^"\\]|\\.)*"|[^ "=]+)`)
	for rest != "" {
		m := pair.FindStringSubmatch(rest)
		if m == nil {
			t.Fatalf("%q in %q is no pair", rest, line)
		}
		if _, twice := pairs[m[1]]; twice {
			t.Errorf("%s is there twice: %q", m[1], line)
		}
		pairs[m[1]] = m[2]
		if strings.HasPrefix(m[2], `"`) {
			value, err := strconv.Unquote(m[2])
			if err != nil {
				t.Errorf("%s: %v", m[2], err)
			}
			pairs[m[1]] = value
		}
		rest = rest[len(m[0]):]
	}
	return pairs
}

func TestLine(t *testing.T) {
	h, a := sampleHandshake(), sampleAlert()
	h.ClientHello.ServerName = "a b\" verdict=genuine\n\u202e\\"
	var out bytes.Buffer
	s := New(&out, &bytes.Buffer{}, Options{})
	s.Alert(h, a)
	pairs := readLine(t, out.String())
	for name, want := range map[string]string{"server": "66.35.250.204:80", "client": "128.232.110.120:34855", "sni": `a b" verdict=genuine\x0a\u202e\`,
		"sha256": fmt.Sprintf("%X", h.Chain[0].SHA256[:8]), "verdict": "disguise", "at": `a "b".pcapng:6`, "id": "00079c0a69156f9e0ccd818c7aedc078"} {
		if pairs[name] != want {
			t.Errorf("%s is %q, want %q", name, pairs[name], want)
		}
	}
	if want := `2022-02-21T16:39:40.001Z MEDIUM "Look-alike of www.update.microsoft.com" server=`; !strings.HasPrefix(out.String(), want) {
		t.Error(out.String())
	}
}

// TestRepeats has one certificate on one server again and again: it is shown once.
func TestRepeats(t *testing.T) {
	for _, oneline := range []bool{false, true} {
		var out bytes.Buffer
		s := New(&out, &bytes.Buffer{}, Options{Oneline: &oneline})
		met := func(client byte, seconds int64, leaf string, counted bool) {
			h, a := sampleHandshake(), sampleAlert()
			h.Flow.Endpoints[1].Addr = netip.AddrFrom4([4]byte{192, 0, 2, client})
			h.End.Time += seconds * int64(time.Second)
			h.Certificate = h.End
			h.Chain = h.Chain[:1]
			h.Chain[0].Certificate = &cert.Certificate{DER: []byte(leaf), SHA256: [32]byte{leaf[0]}}
			a.Counted = counted
			s.Alert(h, a)
		}
		shown := func() int { return strings.Count(out.String(), "MEDIUM") }
		wantShown := func(what string, n int) {
			t.Helper()
			if got := shown(); got != n {
				t.Errorf("oneline %v, %s: %d alerts shown, want %d\n%s", oneline, what, got, n, &out)
			}
			out.Reset()
		}
		met(1, 0, "a", false)
		wantShown("the first", 1)
		met(1, 1, "a", false)
		met(1, 2, "a", true) // counted by its rule: as well
		wantShown("again", 0)
		met(2, 3, "a", false)
		if oneline {
			wantShown("another client", 1)
		} else {
			wantShown("another client", 0)
		}
		met(1, 3, "b", true)
		wantShown("of which nothing was shown", 0)
		met(1, 3, "b", false)
		wantShown("another certificate", 1)
		s.Summary(sampleCounters())
		got := out.String()
		if oneline {
			if pairs := readLine(t, got[:strings.IndexByte(got, '\n')+1]); pairs["again"] != "2" || pairs["client"] != "192.0.2.1" || pairs["at"] != `a "b".pcapng:9` {
				t.Errorf("%q", pairs)
			}
		} else if !strings.Contains(got, "  Again     3 times on 66.35.250.204:80, with 2 clients\n  Last      2022-02-21 16:39:45.000 UTC, packet 9 of") {
			t.Error(got)
		}
		out.Reset()
		s.Close()
		wantShown("told already", 0)
		met(1, 3*24*3600, "a", false)
		wantShown("days later", 1)
	}
}

// TestRepeatsAreBounded has more servers than are remembered: what is forgotten is told.
func TestRepeatsAreBounded(t *testing.T) {
	var out bytes.Buffer
	block := false
	s := New(&out, &bytes.Buffer{}, Options{Oneline: &block})
	h, a := sampleHandshake(), sampleAlert()
	for n := range maxRepeats + 10 {
		h.Flow.Endpoints[0].Port = uint16(n)
		s.Alert(h, a)
		if n == 3 {
			for client := range 3 * maxRepeatClients {
				h.Flow.Endpoints[1].Addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(client)})
				s.Alert(h, a)
			}
		}
	}
	if n := len(s.repeats.shown); n != maxRepeats || s.repeats.order.Len() != n {
		t.Errorf("%d alerts are remembered, and %d in order", n, s.repeats.order.Len())
	}
	if got := strings.Count(out.String(), "  Again  "); got != 1 || !strings.Contains(out.String(), "192 times on 66.35.250.204:3, with more than 64 clients") {
		t.Errorf("%d counts", got)
	}
}

// TestRepeatsWithoutCertificate tells servers of names apart.
func TestRepeatsWithoutCertificate(t *testing.T) {
	var out bytes.Buffer
	s := New(&out, &bytes.Buffer{}, Options{})
	for _, name := range []string{"a.example", "b.example", "a.example", strings.Repeat("x", 60_000)} {
		h, a := sampleHandshake(), sampleAlert()
		h.Chain, h.Outcome, h.ClientHello.ServerName = nil, event.Encrypted, name
		s.Alert(h, a)
	}
	if n := strings.Count(out.String(), "\n"); n != 3 || out.Len() > 3*2*maxLineValue {
		t.Errorf("%d lines\n%s", n, &out)
	}
}

func TestDistinct(t *testing.T) {
	for _, c := range [][][2]string{
		{{"/captures/monday.pcap", "monday.pcap"}},
		{{"a/x.pcap", "a/x.pcap"}, {"b/x.pcap", "b/x.pcap"}, {"b/y.pcap", "y.pcap"}},
		{{"/data/1/a/x.pcap", "1/a/x.pcap"}, {"/data/2/a/x.pcap", "2/a/x.pcap"}, {"/data/2/b/x.pcap", "b/x.pcap"}},
		{{"x.pcap", "x.pcap"}, {"a/x.pcap", "a/x.pcap"}, {"/a/x.pcap", "/a/x.pcap"}},
		{{"./x.pcap", "x.pcap"}, {"x.pcap", "x.pcap"}, {"-", "-"}},
	} {
		var paths []string
		for _, p := range c {
			paths = append(paths, p[0])
		}
		got := distinct(paths)
		for _, p := range c {
			if got[p[0]] != p[1] {
				t.Errorf("%v: %s is shown as %s, want %s", paths, p[0], got[p[0]], p[1])
			}
		}
	}
}

// TestCaptures shows the folder where several captures have one name, and nothing that
// a file's name could do to a terminal.
func TestCaptures(t *testing.T) {
	var out bytes.Buffer
	block := false
	s := New(&out, &bytes.Buffer{}, Options{Oneline: &block})
	s.Captures([]string{"/c/mon/gpj\u202e.pcap", "/c/tue/gpj\u202e.pcap"})
	h := sampleHandshake()
	h.Flow.Origin = &event.Origin{Path: "/c/tue/gpj\u202e.pcap"}
	s.Alert(h, sampleAlert())
	if !strings.Contains(out.String(), `packet 6 of tue/gpj\u202e.pcap`+"\n") {
		t.Error(out.String())
	}
}

// shared is a buffer for several goroutines.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestRepeatsLive has a person watch: the count comes within a minute, without another
// alert, and once.
func TestRepeatsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out shared
		s := New(&out, &bytes.Buffer{}, Options{Live: true})
		for range 3 {
			s.Alert(sampleHandshake(), sampleAlert())
		}
		time.Sleep(repeatDelay - time.Second)
		synctest.Wait()
		if n := strings.Count(out.String(), "\n"); n != 1 {
			t.Errorf("%d lines before the time\n%s", n, &out)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !strings.Contains(out.String(), " again=2 ") {
			t.Errorf("within a minute: %s", &out)
		}
		time.Sleep(time.Hour)
		s.Alert(sampleHandshake(), sampleAlert())
		s.Close()
		if n := strings.Count(out.String(), "\n"); n != 3 || !strings.Contains(out.String(), " again=1 ") {
			t.Errorf("%d lines at the end\n%s", n, &out)
		}
	})
}
