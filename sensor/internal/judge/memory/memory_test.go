package memory

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// noon is the time of most of these tests.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano()

// seen is what a test varies of a handshake. Numbers stand for certificates, keys and
// addresses.
type seen struct {
	leaf, key      int // 0 is none
	server, client int
	port           uint16
	name           string
	at             int64 // from noon on
	outcome        event.Outcome
	carrier        string
}

func (s seen) handshake() *event.Handshake {
	port := s.port
	if port == 0 {
		port = 443
	}
	carrier := s.carrier
	if carrier == "" {
		carrier = "tls"
	}
	h := &event.Handshake{
		Flow: &event.Flow{
			Transport: event.TCP,
			Endpoints: [2]event.Endpoint{{Addr: address(s.client), Port: 50000}, {Addr: address(s.server), Port: port}},
		},
		Carrier:     carrier,
		End:         event.Moment{Time: noon + s.at},
		ClientHello: &event.ClientHello{ServerName: s.name, Offer: new(event.Offer)},
		Outcome:     s.outcome,
	}
	if s.leaf != 0 {
		c := &cert.Certificate{DER: []byte{0x30}, SHA256: number("leaf", s.leaf)}
		if s.key != 0 {
			c.SPKISHA256 = number("key", s.key)
		}
		h.Chain = []event.ChainEntry{{Certificate: c}}
	}
	return h
}

func number(what string, n int) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%s %d", what, n))
}

// address returns one of many addresses: every second one is of IPv4.
func address(n int) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint32(b[12:], 0x0a000000+uint32(n))
	if n%2 == 0 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	b[0] = 0x20
	return netip.AddrFrom16(b)
}

func checkStats(t testing.TB, m *Memory) {
	t.Helper()
	s := m.Stats()
	for name, c := range map[string]Counts{"keys": s.Keys, "openvpn": s.OpenVPN, "flagged": s.Flagged, "reminders": s.Reminders, "proofs": s.Proofs} {
		if c.Added != c.Held+c.Ended+c.Forgotten {
			t.Errorf("%s do not add up: %+v", name, c)
		}
	}
	k := &m.keys
	bytes, n := 0, 0
	for q := range k.queues {
		of := 0
		for i := k.queues[q].head; i != 0; i = k.slots[i].after {
			e := &k.slots[i]
			of += cap(e.values) * valueSize
			n++
			if e.shared != (q == 1) || k.index[e.sum] != i || int(e.counts[0])+int(e.counts[1])+int(e.counts[2]) != len(e.values) {
				t.Fatalf("slot %d of queue %d is %+v", i, q, *e)
			}
		}
		if of != k.queues[q].bytes {
			t.Errorf("queue %d has %d bytes, not %d", q, of, k.queues[q].bytes)
		}
		bytes += of
	}
	if n != len(k.index) || n > maxKeys || bytes > maxValueBytes {
		t.Errorf("%d keys in queues and %d in the index, with %d bytes", n, len(k.index), bytes)
	}
}

// counts are the numbers of m.
type counts struct{ Servers, Clients, Names int }

func countsOf(m *judgement.Memory) counts { return counts{m.Servers, m.Clients, m.Names} }

// model does what Memory does, for few keys, without bounds.
type model map[[32]byte]map[string]int64

func (m model) see(h *event.Handshake) (n counts) {
	id := h.Chain[0].SPKISHA256
	if id == ([32]byte{}) {
		id = h.Chain[0].SHA256
	}
	if m[id] == nil {
		m[id] = map[string]int64{}
	}
	today := time.Unix(0, h.End.Time).UTC().Truncate(24*time.Hour).Unix() / 86400
	m[id]["s"+h.Flow.Endpoints[1].Addr.String()] = today
	m[id]["c"+h.Flow.Endpoints[0].Addr.String()] = today
	if name := h.ClientHello.ServerName; name != "" {
		m[id]["n"+name] = today
	}
	for what, last := range m[id] {
		if last <= today-7 {
			continue
		}
		switch what[0] {
		case 's':
			n.Servers++
		case 'c':
			n.Clients++
		case 'n':
			n.Names++
		}
	}
	return n
}

func TestCountsAreThoseOfSets(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		m, want := New(1), model{}
		at := int64(0)
		for i := range 3000 {
			at += r.Int64N(int64(2 * time.Hour))
			if r.IntN(300) == 0 {
				at += r.Int64N(int64(24*time.Hour)) - int64(12*time.Hour)
			}
			s := seen{leaf: 1 + r.IntN(8), server: r.IntN(60), client: 1000 + r.IntN(90), at: at}
			s.key = s.leaf % 6 // some keys are in several leaves, some leaves have none that can be read
			if r.IntN(3) > 0 {
				s.name = fmt.Sprintf("%d.example", r.IntN(40))
			}
			if h := s.handshake(); dayOf(h.End.Time) < m.clock.day {
				continue // a later test
			} else if got, want := countsOf(m.See(h)), want.see(h); got != want {
				t.Fatalf("seed %d, handshake %d: %+v, not %+v", seed, i, got, want)
			}
		}
		checkStats(t, m)
	}
}

func TestWindow(t *testing.T) {
	m := New(1)
	for i, c := range []struct {
		days float64
		want int
	}{
		{0, 1}, {0.4, 2}, {1, 3}, {6.4, 4}, {6.9, 3}, {7.6, 3}, {30, 1},
	} {
		s := seen{leaf: 1, key: 1, server: i, at: int64(c.days * float64(day))}
		for range believed - 1 { // a day is believed from the fourth on
			m.See(seen{leaf: 2, server: i, at: s.at}.handshake())
		}
		got := m.See(s.handshake()).Servers
		// A day ends at midnight: those of 0 and 0.4 are of one day, 6.4 is the sixth
		// after it, and 6.9 the seventh.
		if got != c.want {
			t.Errorf("after %g days: %d servers, not %d", c.days, got, c.want)
		}
	}
	checkStats(t, m)
}

func TestManyAreSaid(t *testing.T) {
	m := New(1)
	var last *judgement.Memory
	for i := range 4 * maxValues {
		last = m.See(seen{leaf: 1, key: 1, server: i, client: 10000 + i, name: fmt.Sprint(i, ".example")}.handshake())
		if want := min(i+1, maxValues); last.Servers != want || last.Clients != want || last.Names != want {
			t.Fatalf("after %d: %+v", i+1, *last)
		}
	}
	if n := m.Stats().Full; n != 3 {
		t.Errorf("%d became full", n)
	}
	checkStats(t, m)
}

func TestNames(t *testing.T) {
	m := New(1)
	for _, name := range []string{"www.example.com", "WWW.example.com", "", string(make([]byte, maxName+1))} {
		if n := m.See(seen{leaf: 1, key: 1, name: name}.handshake()).Names; n != 1 {
			t.Errorf("%d names after %q", n, name)
		}
	}
}

func TestWithoutAddress(t *testing.T) {
	h := seen{leaf: 1, key: 1}.handshake()
	for d := range h.Flow.Endpoints {
		h.Flow.Endpoints[d].Addr = netip.Addr{}
	}
	m := New(1)
	if got := m.See(h); !reflect.DeepEqual(*got, judgement.Memory{}) {
		t.Errorf("%+v", *got)
	}
	if !m.Due(h) || m.Due(h) {
		t.Error("the proof is due once a day over EAPOL too")
	}
}

// What is remembered in the end does not depend on the order within an instant.
func TestOrderWithinAnInstant(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 2))
		var list []seen
		for range 60 {
			list = append(list, seen{leaf: 1 + r.IntN(4), key: 1 + r.IntN(3), server: r.IntN(20), client: r.IntN(20), name: fmt.Sprint(r.IntN(9)), at: int64(r.IntN(3)) * int64(time.Hour) * 40})
		}
		state := func(shuffled *rand.Rand) (out []counts) {
			m := New(1)
			for _, at := range []int64{0, 40, 80} {
				var now []seen
				for _, s := range list {
					if s.at == at*int64(time.Hour) {
						now = append(now, s)
					}
				}
				shuffled.Shuffle(len(now), func(i, j int) { now[i], now[j] = now[j], now[i] })
				for _, s := range now {
					m.See(s.handshake())
				}
			}
			for k := 1; k <= 3; k++ { // a known server, client and name of each
				for _, s := range list {
					if s.key == k && s.at == 80*int64(time.Hour) {
						out = append(out, countsOf(m.See(s.handshake())))
					}
				}
			}
			return out
		}
		if a, b := state(rand.New(rand.NewPCG(seed, 3))), state(rand.New(rand.NewPCG(seed, 4))); !reflect.DeepEqual(a, b) {
			t.Fatalf("seed %d: %v and %v", seed, a, b)
		}
	}
}

// What is said of a server does not depend on the others.
func TestAloneOrAmongOthers(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	alone, among := New(1), New(1)
	at := int64(0)
	for i := range 20000 {
		at += r.Int64N(int64(time.Minute))
		mine := r.IntN(10) == 0
		s := seen{leaf: 1 + r.IntN(5), server: r.IntN(40), client: r.IntN(40), name: fmt.Sprint(r.IntN(40)), at: at, outcome: event.Outcome(r.IntN(3))}
		if s.outcome != event.Extracted {
			s.leaf = 0
		}
		if !mine {
			s.server += 1000
			s.leaf += 1000 * min(s.leaf, 1)
		}
		if s.key = s.leaf; r.IntN(50) == 0 {
			s.carrier = "openvpn"
		}
		h := s.handshake()
		got := *among.See(h)
		if mine {
			if want := *alone.See(h); !reflect.DeepEqual(got, want) {
				t.Fatalf("handshake %d: %+v among others, %+v alone", i, got, want)
			}
		}
		if s.leaf != 0 && r.IntN(20) == 0 {
			f := judgement.Flagged{AlertID: fmt.Sprint(i)}
			among.Flag(h, f)
			if mine {
				alone.Flag(h, f)
			}
		}
	}
	checkStats(t, among)
}

func TestClock(t *testing.T) {
	for name, c := range map[string]struct{ days, want []int64 }{
		"days":              {[]int64{100, 100, 101, 102, 103}, []int64{0, 0, 1, 2, 3}},
		"out of order":      {[]int64{100, 101, 100, 101, 100}, []int64{0, 1, 1, 1, 1}},
		"one wrong":         {[]int64{100, 9000, 100, 9000, 101}, []int64{0, 0, 0, 0, 1}},
		"a silence":         {[]int64{100, 103, 103, 104, 103, 104}, []int64{0, 0, 0, 0, 3, 4}},
		"a long silence":    {[]int64{100, 500, 500, 500, 500, 501}, []int64{0, 0, 0, 0, 7, 8}},
		"put back":          {[]int64{9000, 100, 100, 101, 100, 102}, []int64{0, 0, 0, 0, 0, 1}},
		"one wrong in four": {[]int64{100, 103, 104, 9000, 105, 104}, []int64{0, 0, 0, 0, 3, 4}},
		"before 1970":       {[]int64{-3, -2, -1, 0, 1}, []int64{0, 1, 2, 3, 4}},
	} {
		var k clock
		for i, d := range c.days {
			if got := k.see(d*day + day/2); int64(got) != c.want[i] {
				t.Errorf("%s: handshake %d on day %d is of number %d, not %d", name, i, d, got, c.want[i])
			}
		}
	}
	var k clock
	for _, at := range []int64{math.MinInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MinInt64, 0} {
		if n := k.see(at); n > window {
			t.Errorf("the number of the day is %d", n)
		}
	}
}

func TestOpenVPN(t *testing.T) {
	m := New(1)
	contact := func(server int, at int64) {
		m.Contact(event.Contact{Server: address(server), Client: address(7), Port: event.PortOpenVPN, Transport: event.UDP, Time: noon + at})
	}
	check := func(server int, at, want int64) {
		t.Helper()
		if want >= 0 {
			want += noon
		} else {
			want = 0
		}
		if got := m.See(seen{server: server, client: 9, at: at}.handshake()).OpenVPN; got != want {
			t.Errorf("server %d at %v: seen at %d, not %d", server, time.Duration(at), got, want)
		}
	}
	check(1, 0, -1)
	contact(1, 5)
	check(1, 9, 5)
	check(2, 9, -1)
	contact(1, 20)
	check(1, 30, 5)
	contact(1, 6*day)
	check(1, 6*day+1, 5)
	check(1, 8*day, 6*day) // the first time is over
	check(1, 14*day, -1)
	contact(1, 15*day)
	check(1, 15*day+3, 15*day)
	check(1, 15*day-3, 15*day) // the clock went back a little
	m.See(seen{server: 4, client: 8, at: 15 * day, carrier: "openvpn"}.handshake())
	check(4, 15*day+1, 15*day)
	m.Contact(event.Contact{})
	m.Next()
	check(4, 15*day+1, -1)
	checkStats(t, m)
}

func TestFlagged(t *testing.T) {
	m := New(1)
	alert := judgement.Flagged{AlertID: "a", Rule: "r", Level: "high", Time: noon}
	bad := seen{leaf: 1, key: 1, server: 1, client: 2}
	m.Flag(bad.handshake(), alert)
	m.Flag(bad.handshake(), judgement.Flagged{AlertID: "b"})
	for i, c := range []struct {
		seen
		want string
	}{
		{seen{server: 1, client: 2, leaf: 1, at: 1}, ""}, // it shows the certificate
		{seen{server: 1, client: 2, outcome: event.Encrypted, at: 2}, "a"},
		{seen{server: 1, client: 2, outcome: event.Encrypted, at: 3}, ""}, // told
		{seen{server: 1, client: 3, outcome: event.Resumed, at: 3}, "a"},
		{seen{server: 1, client: 4, outcome: event.None, at: 3}, "a"},
		{seen{server: 1, client: 5, outcome: event.Lost, at: 3}, "a"},
		{seen{server: 2, client: 6, outcome: event.Encrypted, at: 3}, ""},
		{seen{server: 1, client: 6, port: 8443, outcome: event.Encrypted, at: 3}, ""},
		{seen{server: 1, client: 7, outcome: event.Encrypted, at: 29 * day}, "a"},
		{seen{server: 1, client: 8, outcome: event.Encrypted, at: 31 * day}, ""},
		{seen{server: 1, client: 8, outcome: event.Encrypted, at: -day}, "a"}, // the clock went back
		{seen{server: 1, client: 8, outcome: event.Encrypted, at: -9999 * day}, ""},
	} {
		got := ""
		if f := m.See(c.handshake()).Flagged; f != nil {
			got = f.AlertID
		}
		if got != c.want {
			t.Errorf("%d: %q, not %q", i, got, c.want)
		}
	}
	lost := seen{server: 1, client: 9, outcome: event.Lost, at: 3}.handshake()
	lost.ClientHello = nil
	if m.See(lost).Flagged != nil {
		t.Error("nobody said hello")
	}
	// Another alert after the first is over.
	bad.at = 40 * day
	m.Flag(bad.handshake(), judgement.Flagged{AlertID: "c"})
	if f := m.See(seen{server: 1, client: 2, outcome: event.Encrypted, at: 41 * day}.handshake()).Flagged; f == nil || f.AlertID != "c" {
		t.Errorf("%+v", f)
	}
	checkStats(t, m)
	m.Next()
	if m.See(seen{server: 1, client: 22, outcome: event.Encrypted, at: 41 * day}.handshake()).Flagged != nil {
		t.Error("it was flagged in another capture")
	}
	checkStats(t, m)
}

func TestDue(t *testing.T) {
	m := New(1)
	for i, c := range []struct {
		seen
		want bool
	}{
		{seen{leaf: 1}, true}, {seen{leaf: 1, client: 5, at: 1}, false}, {seen{leaf: 2, at: 1}, true}, {seen{leaf: 1, server: 2, at: 1}, true},
		{seen{leaf: 1, port: 8443, at: 1}, true}, {seen{at: 1}, false},
		{seen{leaf: 1, at: 11 * int64(time.Hour)}, false}, {seen{leaf: 1, at: 13 * int64(time.Hour)}, true},
	} {
		if got := m.Due(c.handshake()); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
	checkStats(t, m)
}

func TestBudget(t *testing.T) {
	m := New(1)
	due := func(from, n int, at int64) (yes int) {
		for i := range n {
			if m.Due(seen{leaf: 1, server: from + i, at: at}.handshake()) {
				yes++
			}
		}
		return yes
	}
	second := int64(time.Second)
	for i, c := range []struct {
		from, n int
		at      int64
		want    int
	}{
		{0, 1000, 0, proofBurst},
		{0, 1000, second, proofRate}, // those of before that were deferred
		{5000, 1000, second / 2, 0},  // the clock goes back a little
		{5000, 1000, 3 * second, 2 * proofRate},
		{10000, 1000, 1000 * second, proofBurst},
		{20000, 1000, -9 * int64(time.Hour), 0}, // the clock was put back
		{20000, 1000, -9*int64(time.Hour) + second, proofRate},
	} {
		if got := due(c.from, c.n, c.at); got != c.want {
			t.Errorf("%d: %d were due, not %d", i, got, c.want)
		}
	}
	s := m.Stats()
	if s.Due+s.OverBudget+proofBurst != 7000 { // in the second row, those of the first are not due again
		t.Errorf("%+v", s)
	}
	checkStats(t, m)
}

// A flood of servers, keys, clients and alerts does not take more than the limits say,
// and what several servers share is remembered through it.
func TestFlood(t *testing.T) {
	n := 300_000
	if testing.Short() {
		n = 210_000 // as many as it takes until each table forgets
	}
	flood(t, n)
}

func TestLongFlood(t *testing.T) {
	if os.Getenv("ODDCERT_LONG") == "" {
		t.Skip("ODDCERT_LONG is not set: ten million servers take half a minute")
	}
	flood(t, 10_000_000)
}

func flood(t *testing.T, n int) {
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	m := New(1)
	for i := range 3 {
		m.See(seen{leaf: -1, key: -1, server: -1 - i, client: -9}.handshake())
	}
	h := seen{leaf: 1, key: 1, name: "www.example"}.handshake()
	leaf := h.Chain[0].Certificate
	for i := range n {
		binary.BigEndian.PutUint64(leaf.SPKISHA256[:], uint64(i))
		binary.BigEndian.PutUint64(leaf.SHA256[:], uint64(i))
		h.Flow.Endpoints[1].Addr, h.Flow.Endpoints[0].Addr = address(2*i), address(2*i+1)
		h.End.Time = noon + int64(i)*int64(time.Millisecond)
		h.Outcome = event.Outcome(i % 3)
		m.See(h)
		if m.Due(h); i%2 == 0 {
			m.Flag(h, judgement.Flagged{AlertID: fmt.Sprint("alert ", i)})
		}
		h.Flow.Endpoints[0].Addr = address(i)
		m.See(h)
		m.Contact(event.Contact{Server: address(2 * i), Time: h.End.Time})
	}
	grown := int64(heap()) - int64(before)
	t.Logf("%d handshakes take %d KiB: %+v", 2*n, grown>>10, m.Stats())
	if grown > 48<<20 {
		t.Errorf("%d bytes", grown)
	}
	if got := m.See(seen{leaf: -1, key: -1, server: -8, client: -9, at: int64(n) * int64(time.Millisecond)}.handshake()).Servers; got != 4 {
		t.Errorf("%d servers share the key, not 4", got)
	}
	checkStats(t, m)
	for _, c := range []Counts{m.Stats().Keys, m.Stats().OpenVPN, m.Stats().Flagged, m.Stats().Reminders} {
		if c.Forgotten == 0 {
			t.Errorf("nothing was forgotten: %+v", m.Stats())
		}
	}
	runtime.KeepAlive(m)
}

// Keys with as many values as are counted are bounded too, by their bytes.
func TestBytes(t *testing.T) {
	m := New(1)
	for k := range 1500 {
		for i := range maxValues {
			m.See(seen{leaf: 1 + k, key: 1 + k, server: i, client: i}.handshake())
		}
	}
	if s := m.Stats(); s.Keys.Forgotten == 0 || s.Keys.Held < 500 {
		t.Errorf("%+v", s)
	}
	checkStats(t, m)
}

func FuzzMemory(f *testing.F) {
	f.Add([]byte("a handshake, and another one, and an alert, and some contacts"))
	f.Add([]byte{0, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 0, 2, 1, 1, 9, 9, 3, 1, 1, 1, 1, 1, 4, 1, 1, 1, 200, 200})
	f.Fuzz(func(t *testing.T, ops []byte) {
		a, b := New(1), New(1)
		at := int64(0)
		for ; len(ops) >= 6; ops = ops[6:] {
			s := seen{leaf: int(ops[1] % 8), server: int(ops[2] % 16), client: int(ops[3] % 16), name: string(ops[3:4])}
			s.key = s.leaf / 2
			at += int64(int8(ops[4])) << (ops[5] % 64)
			s.at, s.outcome = at, event.Outcome(ops[5]>>6)
			h := s.handshake()
			switch ops[0] % 8 {
			case 0:
				a.Next()
				b.Next()
			case 1:
				a.Flag(h, judgement.Flagged{AlertID: "x"})
				b.Flag(h, judgement.Flagged{AlertID: "x"})
			case 2:
				c := event.Contact{Server: address(s.server), Time: at}
				a.Contact(c)
				b.Contact(c)
			case 3:
				if a.Due(h) != b.Due(h) {
					t.Fatal("the same is due and not due")
				}
			default:
				got, same := a.See(h), b.See(h)
				if !reflect.DeepEqual(got, same) {
					t.Fatalf("%+v and %+v", *got, *same)
				}
				if (s.leaf != 0) != (got.Servers > 0) || got.Servers > 16 || got.Clients > 16 || got.Clients > 0 != (got.Servers > 0) {
					t.Fatalf("%+v of %+v", *got, s)
				}
			}
		}
		checkStats(t, a)
	})
}

// traffic returns n handshakes over pairs of a leaf and a server.
func traffic(n, pairs int) []*event.Handshake {
	r := rand.New(rand.NewPCG(7, 7))
	list := make([]*event.Handshake, n)
	for i := range list {
		p := r.IntN(pairs)
		if i < pairs {
			p = i
		}
		list[i] = seen{leaf: 1 + p/3, key: 1 + p/3, server: p, client: 1_000_000 + p%500, name: fmt.Sprint(p%1000, ".example.com"), at: int64(i) * int64(time.Millisecond)}.handshake()
	}
	return list
}

func TestNoAllocation(t *testing.T) {
	m := New(1)
	list := traffic(3000, 1000)
	m.Flag(list[0], judgement.Flagged{})
	m.Contact(event.Contact{Server: address(5), Time: noon})
	all := func() {
		for _, h := range list {
			m.See(h)
			m.Due(h)
		}
	}
	all()
	for _, h := range list {
		h.End.Time += 10 * int64(time.Second)
	}
	all()
	if n := testing.AllocsPerRun(3, all); n != 0 {
		t.Errorf("%g allocations for %d handshakes of which nothing is new", n, len(list))
	}
}

// BenchmarkSee sees 120,000 handshakes over 30,000 pairs of a leaf and a server again
// and again. A handshake that comes from the encoder is in the processor's cache, as
// the one here is.
func BenchmarkSee(b *testing.B) {
	const handshakes, pairs = 120_000, 30_000
	type values struct {
		key            [8]byte
		server, client netip.Addr
		name           string
		at             int64
	}
	var list []values
	for _, h := range traffic(handshakes, pairs) {
		list = append(list, values{[8]byte(h.Chain[0].SPKISHA256[:]), h.Flow.Endpoints[1].Addr, h.Flow.Endpoints[0].Addr, h.ClientHello.ServerName, h.End.Time})
	}
	m, h := New(1), seen{leaf: 1, key: 1}.handshake()
	see := func(v *values) {
		copy(h.Chain[0].SPKISHA256[:], v.key[:])
		h.Flow.Endpoints[1].Addr, h.Flow.Endpoints[0].Addr, h.ClientHello.ServerName, h.End.Time = v.server, v.client, v.name, v.at
		m.See(h)
	}
	for i := range list {
		see(&list[i])
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		see(&list[i%handshakes])
	}
}

func BenchmarkSeeNew(b *testing.B) {
	m := New(1)
	h := seen{leaf: 1, key: 1, name: "www.example"}.handshake()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		binary.BigEndian.PutUint64(h.Chain[0].SPKISHA256[:], uint64(i))
		h.Flow.Endpoints[1].Addr = address(i)
		m.See(h)
	}
}

func BenchmarkDue(b *testing.B) {
	list := traffic(120_000, 30_000)
	m := New(1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.Due(list[i%len(list)])
	}
}
