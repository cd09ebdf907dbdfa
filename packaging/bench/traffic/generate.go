package traffic

import (
	"container/heap"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

type generator struct {
	spec   Spec
	out    *frameWriter
	rng    *rand.Rand
	truth  *Truth
	pool   [][]*conversation // by share
	left   []int             // flows to come, by share
	total  int               // sum of left
	hosts  int               // clients
	begun  int
	now    int64
	active flows
	ended  []*flow // some that are over, whose five-tuples are to be used again
	last   *flow   // begun before

	records, random []byte // filler: TLS records, and anything
}

const (
	recordSize  = 5 + 16384
	fillerSize  = 64 * recordSize
	maxSegment  = 9000
	keptEnded   = 256
	firstClient = 0x0a000001 // 10.0.0.1
	firstServer = 0xc6120001 // 198.18.0.1: the range for benchmarks (RFC 2544)
)

func newGenerator(w io.Writer, s Spec) (*generator, error) {
	if s.Concurrent <= 0 {
		s.Concurrent = 64
	}
	if s.Pace <= 0 {
		s.Pace = 20 * time.Microsecond
	}
	if len(s.MSS) == 0 {
		s.MSS = []int{1448, 1448, 1448, 1448, 1448, 1440, 1388, 1208}
	}
	if s.Impairment.Depth <= 0 {
		s.Impairment.Depth = 4
	}
	for _, n := range s.MSS {
		if n < 1 || n > maxSegment {
			return nil, fmt.Errorf("segment size %d: not from 1 to %d", n, maxSegment)
		}
	}
	seed := sha256.Sum256(fmt.Append(nil, s.Seed))
	noise := rand.NewChaCha8(seed)
	g := &generator{spec: s, rng: rand.New(rand.NewPCG(s.Seed, 1)), truth: &Truth{Seed: s.Seed},
		now: epoch.UnixNano(), random: make([]byte, fillerSize+maxSegment)}
	noise.Read(g.random)
	g.records = append([]byte(nil), g.random...)
	for at := 0; at+5 <= len(g.records); at += recordSize {
		copy(g.records[at:], []byte{23, 3, 3, 0x40, 0})
	}
	if err := g.converse(); err != nil {
		return nil, err
	}
	out, err := newFrameWriter(w, s.Snaplen)
	g.out = out
	return g, err
}

// converse fills the pool.
func (g *generator) converse() error {
	handshakes := 0
	for _, s := range g.spec.Shares {
		g.left = append(g.left, s.Flows)
		g.total += s.Flows
		if _, ok := recipes[s.Kind]; ok {
			handshakes += s.Flows
		}
	}
	g.hosts = min(max(16, g.total/4), 60000)
	g.truth.Connections = make([]Connection, 0, handshakes)
	var rec *studio
	deal, every := 0, 0
	if g.spec.Planted > 0 {
		every = max(1, g.spec.Certificates/g.spec.Planted)
	}
	for _, s := range g.spec.Shares {
		var pool []*conversation
		if _, ok := recipes[s.Kind]; !ok {
			c, err := plain(s.Kind, g.rng)
			if err != nil {
				return err
			}
			g.pool = append(g.pool, c)
			continue
		}
		if rec == nil {
			a, err := newAuthority(rand.New(rand.NewPCG(g.spec.Seed, 2)), &g.truth.Certificates)
			if err != nil {
				return err
			}
			rec = &studio{authority: a, rng: g.rng}
		}
		for range max(1, min(s.Flows, g.spec.Certificates*s.Flows/handshakes)) {
			var p *plant
			if every > 0 && rec.count%every == 0 && deal < g.spec.Planted {
				p = &plants[deal%len(plants)]
				deal++
			}
			c, err := rec.session(s.Kind, p)
			if err != nil {
				return err
			}
			pool = append(pool, c)
		}
		g.pool = append(g.pool, pool)
	}
	return nil
}

// plain makes the conversations of a kind that is not TLS.
func plain(kind Kind, rng *rand.Rand) ([]*conversation, error) {
	var pool []*conversation
	for i := range 32 {
		c := &conversation{kind: kind, port: 80}
		ask, answer := []byte(nil), []byte(nil)
		host := fmt.Sprintf("www.host-%d.example.com", i)
		switch kind {
		case SYN:
			c.port = uint16(1 + rng.IntN(65535))
		case HTTP:
			ask = fmt.Appendf(nil, "GET /download/%d.bin HTTP/1.1\r\nHost: %s\r\nUser-Agent: example/1.0\r\nAccept: */*\r\n\r\n", i, host)
			answer = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n\r\n")
		case UDP:
			c.udp, c.port = true, uint16(1024+rng.IntN(60000))
			ask = fmt.Appendf(nil, "hello %d", i)
		case DNS:
			c.udp, c.port = true, 53
			name, err := dnsmessage.NewName(host + ".")
			if err != nil {
				return nil, err
			}
			q := dnsmessage.Question{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
			m := dnsmessage.Message{Header: dnsmessage.Header{ID: uint16(i), RecursionDesired: true}, Questions: []dnsmessage.Question{q}}
			if ask, err = m.Pack(); err != nil {
				return nil, err
			}
			m.Response = true
			m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: name, Class: q.Class, TTL: 300},
				Body: &dnsmessage.AResource{A: [4]byte{198, 18, 0, byte(i)}}}}
			if answer, err = m.Pack(); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("no such kind of flow: %q", kind)
		}
		if len(ask) > 0 {
			c.stream[toServer] = ask
			c.turns = append(c.turns, turn{toServer, int64(len(ask))})
		}
		if len(answer) > 0 {
			c.stream[toClient] = answer
			c.turns = append(c.turns, turn{toClient, int64(len(answer))})
		}
		pool = append(pool, c)
	}
	return pool, nil
}

// run writes all flows and closes the truth.
func (g *generator) run() (*Truth, error) {
	g.truth.Faults = make(map[string]int)
	g.truth.Flows = g.total
	g.fill()
	for len(g.active) > 0 {
		f := g.active[0]
		s := &f.queue[0]
		g.now = max(g.now, s.at)
		n, err := g.out.write(f, s)
		if err != nil {
			return nil, fmt.Errorf("write frame: %w", err)
		}
		f.captured(s, n)
		if f.queue = f.queue[1:]; f.advance() {
			heap.Fix(&g.active, 0)
			continue
		}
		heap.Pop(&g.active)
		g.finish(f)
		g.fill()
	}
	g.truth.Frames, g.truth.Bytes = g.out.frames, g.out.bytes
	if err := g.out.w.Flush(); err != nil {
		return nil, fmt.Errorf("write frame: %w", err)
	}
	return g.truth, nil
}

// fill begins flows until there are as many at once as there may be.
func (g *generator) fill() {
	for g.total > 0 && len(g.active) < g.spec.Concurrent {
		g.begin()
	}
}

// finish enters a flow that is over into the truth.
func (g *generator) finish(f *flow) {
	for what, n := range f.faults {
		g.truth.Faults[what] += n
	}
	if f.conv.speaksTLS() && f.first > 0 {
		g.truth.Connections = append(g.truth.Connections, f.judge())
	}
	if g.spec.Reused > 0 && f.conv.speaksTLS() && !f.twin {
		if len(g.ended) == keptEnded {
			g.ended = append(g.ended[:0], g.ended[1:]...)
		}
		g.ended = append(g.ended, f)
	}
}

// begin starts the next flow, unless nothing of it is captured.
func (g *generator) begin() {
	share := g.draw()
	pool := g.pool[share]
	conv := pool[g.rng.IntN(len(pool))]
	s := &g.spec
	n := g.begun
	g.begun++
	rng := rand.New(rand.NewPCG(s.Seed, uint64(n)+1<<32))
	f := &flow{conv: conv, rng: rng, pace: int64(s.Pace), mss: s.MSS[rng.IntN(len(s.MSS))]}
	f.rtt = f.pace*5 + rng.Int64N(f.pace*500)
	if s.Pace >= time.Millisecond {
		f.rtt = f.pace
	}
	f.at = g.now + 1 + rng.Int64N(f.pace*int64(s.Concurrent))
	f.isn = [2]uint32{rng.Uint32(), rng.Uint32()}
	if rng.IntN(50) == 0 {
		f.isn[rng.IntN(2)] = ^uint32(0) - uint32(rng.IntN(4000)) // wraps around early
	}
	f.filler = g.filler(conv, s.Shares[share].Download, rng)
	f.capture = capture{impairment: s.Impairment, luck: rand.New(rand.NewPCG(s.Seed, uint64(n)+2<<32)), only: -1, lose: -1}
	g.address(f, n)
	switch {
	case f.spared:
	case f.chance(s.MidStream):
		f.skip = 1 + f.luck.IntN(12)
	case f.chance(s.OneWay):
		f.only = f.luck.IntN(2)
	}
	if f.chance(s.Lossy) {
		f.lose = f.luck.IntN(f.segments())
	}
	if g.last = f; f.advance() {
		heap.Push(&g.active, f)
	} else {
		g.finish(f)
	}
}

// segments is how many data segments the recorded turns make.
func (f *flow) segments() int {
	n, sent := 0, [2]int64{}
	for _, t := range f.conv.turns {
		n += int(t.end-sent[t.dir]+int64(f.mss)-1) / f.mss
		sent[t.dir] = t.end
	}
	return max(1, n)
}

// draw picks a share at random, so that all of them end together.
func (g *generator) draw() int {
	n := g.rng.IntN(g.total)
	for i := range g.left {
		if n -= g.left[i]; n < 0 {
			g.left[i]--
			g.total--
			return i
		}
	}
	panic("no flow is left")
}

func (g *generator) filler(conv *conversation, size int64, rng *rand.Rand) filler {
	if !conv.speaksTLS() {
		return filler{g.random, fillerSize, rng.Int64N(fillerSize), size}
	}
	whole := (size + recordSize - 1) / recordSize * recordSize
	return filler{g.records, fillerSize, rng.Int64N(64) * recordSize, whole}
}

// address deals out the n-th five-tuple, or one that is used again.
func (g *generator) address(f *flow, n int) {
	s := &g.spec
	if f.chance(s.QinQ) {
		f.vlans = []uint16{100 + uint16(n%50), 1 + uint16(n%4000)}
	} else if f.chance(s.VLAN) {
		f.vlans = []uint16{1 + uint16(n%4000)}
	}
	tls := f.conv.speaksTLS()
	if tls && len(g.ended) > 0 && f.chance(s.Reused) {
		i := f.luck.IntN(len(g.ended))
		old := g.ended[i]
		g.ended = slices.Delete(g.ended, i, i+1)
		f.client, f.server, f.vlans, f.spared = old.client, old.server, old.vlans, true
		return
	}
	if l := g.last; tls && l != nil && l.conv.speaksTLS() && !l.twin && !l.spared &&
		!slices.Equal(l.vlans, f.vlans) && f.chance(s.Twin) {
		f.client, f.server, f.twin = l.client, l.server, true
		return
	}
	client, server := n%g.hosts, f.rng.IntN(1<<16)
	if tls {
		server = f.conv.host
	}
	// A factor without a divisor in common with the number of ports, so that
	// no host has the same port twice.
	port := uint16(32768 + (n/g.hosts*7919+client*31)%28000)
	form := v4
	if f.chance(s.IPv6) {
		form = v6
	}
	f.client = netip.AddrPortFrom(form(firstClient+uint32(client)), port)
	f.server = netip.AddrPortFrom(form(firstServer+uint32(server)), f.conv.port)
}

func v4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func v6(n uint32) netip.Addr {
	a := v4(n).As4()
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 12: a[0], 13: a[1], 14: a[2], 15: a[3]})
}

// flows is a heap of flows by the time of their next frame.
type flows []*flow

func (h flows) Len() int           { return len(h) }
func (h flows) Less(i, j int) bool { return h[i].queue[0].at < h[j].queue[0].at }
func (h flows) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *flows) Push(x any)        { *h = append(*h, x.(*flow)) }
func (h *flows) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
