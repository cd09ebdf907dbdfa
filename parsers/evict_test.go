package parsers

import (
	"crypto/tls"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/keylog"
)

// audit fails unless the books of all shards are right: each has what its flows
// hold, and their sum is what the parser has lent.
func audit(t *testing.T, p *Parser, shards []*Shard) {
	t.Helper()
	all := 0
	for _, s := range shards {
		sum := 0
		var prior *Conn
		for c := s.book.first; c != nil; prior, c = c, c.follow {
			if c.prior != prior || c.bytes <= 0 || c.book != &s.book || c.parent != nil {
				t.Fatalf("a flow with %d bytes is in the wrong place", c.bytes)
			}
			sum += c.bytes
		}
		if s.book.held != sum || sum > s.book.limit {
			t.Fatalf("%d bytes in the book, %d over its flows, at most %d", s.book.held, sum, s.book.limit)
		}
		all += sum
	}
	if lent := p.records.Pool.Held() + p.datagrams.Pool.Held() + p.quic.Held(); all != lent || lent != p.entered {
		t.Fatalf("%d bytes in the books, %d lent", all, lent)
	}
}

// TestBooks plays flows of all kinds, in random order, in two shards that have too
// little room. Whatever is evicted, the books are right, every handshake is emitted,
// and nothing is held after the end.
func TestBooks(t *testing.T) {
	var scripts []struct {
		transport event.Transport
		chunks    []chunk
	}
	add := func(transport event.Transport, chunks []chunk) {
		scripts = append(scripts, struct {
			transport event.Transport
			chunks    []chunk
		}{transport, chunks})
	}
	for _, s := range samples(t) {
		add(event.TCP, s.chunks)
	}
	for _, build := range within(t) {
		var cert tls.Certificate
		chunks := build(&cert)
		add(event.UDP, chunks)
		add(event.TCP, lengthened(chunks))
		add(event.TCP, relayed(chunks))
	}
	store := new(keylog.Store)
	for _, c := range conversations13(t) {
		add(event.TCP, c.chunks)
	}
	add(event.UDP, quicConversation(t).chunks)
	var total Stats
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 7))
		s := newSensor()
		if seed%2 == 1 {
			s.SetKeys(store)
			s.WaitForKeys()
		}
		shards := []*Shard{s.Shard(24 << 10), s.Shard(100 << 10)}
		type flow struct {
			conn   *Conn
			tcp    bool
			chunks []chunk
		}
		var open []flow
		for range 4000 {
			now := event.Moment{Time: int64(r.IntN(1000)) * 1e6, Frame: 1}
			if len(open) < 60 && r.IntN(3) == 0 {
				script := scripts[r.IntN(len(scripts))]
				f := testFlow(script.transport)
				f.Endpoints[1].Addr = netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), byte(r.IntN(3)), 1})
				open = append(open, flow{shards[r.IntN(2)].Open(f), script.transport == event.TCP, script.chunks})
			}
			if len(open) == 0 {
				continue
			}
			i := r.IntN(len(open))
			f := &open[i]
			if len(f.chunks) == 0 || r.IntN(100) == 0 {
				f.conn.Close(event.Loss(r.IntN(int(event.Losses))))
				open[i] = open[len(open)-1]
				open = open[:len(open)-1]
				audit(t, s.Parser, shards)
				continue
			}
			ch := &f.chunks[0]
			n := len(ch.b)
			switch {
			case !f.tcp:
				f.conn.Datagram(ch.d, now, ch.b)
			case r.IntN(30) == 0:
				f.conn.Gap(ch.d, now, n)
			default:
				n = 1 + r.IntN(n)
				f.conn.Segment(ch.d, now, ch.b[:n])
			}
			if n == len(ch.b) {
				f.chunks = f.chunks[1:]
			} else {
				rest := append([]chunk{{ch.d, ch.b[n:]}}, f.chunks[1:]...)
				f.chunks = rest
			}
			if r.IntN(50) == 0 {
				s.Tick(now.Time)
			}
			audit(t, s.Parser, shards)
		}
		for _, f := range open {
			f.conn.Close(event.EndOfInput)
		}
		s.Flush()
		audit(t, s.Parser, shards)
		if s.check(t); s.records.Pool.Held() != 0 || shards[0].book.held+shards[1].book.held != 0 {
			t.Errorf("%d bytes held after the end, %d in the books", s.records.Pool.Held(), shards[0].book.held+shards[1].book.held)
		}
		total.Add(s.Stats())
	}
	if total.EvictedStreams == 0 || total.EvictedSessions == 0 || total.EvictedQUIC == 0 || total.EvictedDatagrams == 0 {
		t.Errorf("nothing gave way: %+v", total)
	}
}

// TestEviction plays more flows than there is room for, which begin long messages and
// add to them now and then. Handshakes that come meanwhile lose nothing, whether they
// come from the same network or from elsewhere, fast or slowly.
func TestEviction(t *testing.T) {
	for name, spoofed := range map[string]bool{"one source": false, "spoofed": true} {
		t.Run(name, func(t *testing.T) {
			s := newSensor()
			shard := s.Shard(8 << 20)
			now := int64(0)
			length := 1_000_000
			body := make([]byte, length+4)
			copy(body, []byte{11, 0x0f, 0x42, 0x40, 0x0f, 0x42, 0x3d, 0, 4, 0, 0x30, 0x82})
			record := func(b []byte) []byte {
				return append(binary.BigEndian.AppendUint16([]byte{22, 3, 3}, uint16(len(b))), b...)
			}
			type bad struct {
				c  *Conn
				at int
			}
			var flood []bad
			honest, late := samples(t)[2], 0 // TLS 1.2
			for i := range 150 {
				f := testFlow(event.TCP)
				if spoofed {
					f.Endpoints[1].Addr = netip.AddrFrom4([4]byte{100, byte(i), 1, 1})
				}
				b := bad{c: shard.Open(f)}
				for b.at < 420_000 {
					now += 1e6
					b.c.Segment(1, event.Moment{Time: now, Frame: 1}, record(body[b.at:b.at+14000]))
					b.at += 14000
				}
				flood = append(flood, b)
			}
			for round := range 60 {
				f := testFlow(event.TCP)
				if round%2 == 0 {
					f.Endpoints[1].Addr = netip.MustParseAddr("2001:db8::1")
				}
				c := shard.Open(f)
				for _, ch := range honest.chunks {
					for len(ch.b) > 0 {
						n := min(len(ch.b), 300)
						c.Segment(ch.d, event.Moment{Time: now, Frame: 1}, ch.b[:n])
						ch.b = ch.b[n:]
						for i := range flood { // between any two of its segments
							if b := &flood[i]; b.at+1400 < length && !b.c.done {
								now += 1e5
								b.c.Segment(1, event.Moment{Time: now, Frame: 1}, record(body[b.at:b.at+1400]))
								b.at += 1400
							}
						}
						now += 1e7
					}
				}
				late++
				c.Close(event.NoLoss)
			}
			extracted := 0
			for _, h := range s.got {
				if h.Outcome == event.Extracted && h.ClientHello != nil {
					extracted++
				}
			}
			if extracted != late {
				t.Errorf("%d certificates of %d", extracted, late)
			}
			if s.Stats().EvictedStreams == 0 {
				t.Error("nothing gave way")
			}
			for _, b := range flood {
				b.c.Close(event.EndOfInput)
			}
			s.check(t)
		})
	}
}

// TestUnrecorded plays hellos that nobody answers. All are recorded before flows are
// evicted, and only a few of them after that. Those that are answered always are.
func TestUnrecorded(t *testing.T) {
	s := newSensor()
	shard := s.Shard(1 << 20)
	hello := samples(t)[2].chunks[0].b
	answered := samples(t)[2].chunks
	unrecorded := func(cause event.Loss, n int) (count int) {
		s.got = nil
		for i := range n {
			c := shard.Open(testFlow(event.TCP))
			c.Segment(0, event.Moment{Time: int64(i), Frame: 1}, hello)
			c.Close(cause)
		}
		for _, h := range s.got {
			if h.Unrecorded {
				count++
			}
		}
		return count
	}
	if n := unrecorded(event.EndOfInput, 500); n != 0 {
		t.Errorf("%d of 500 unrecorded without a flood", n)
	}
	if n := unrecorded(event.Evicted, 500); n != 495 {
		t.Errorf("%d of 500 unrecorded, want 495", n)
	}
	s.got = nil
	for range 10 {
		c := shard.Open(testFlow(event.TCP))
		for _, ch := range answered[:2] {
			c.Segment(ch.d, event.Moment{Time: 1, Frame: 1}, ch.b)
		}
		c.Close(event.Evicted)
	}
	for _, h := range s.got {
		if h.Unrecorded {
			t.Error("a handshake that was answered is not to be recorded")
		}
	}
	c := shard.Open(testFlow(event.TCP)) // long after
	s.got = nil
	c.Segment(0, event.Moment{Time: int64(1e10), Frame: 1}, hello)
	c.Close(event.EndOfInput)
	if one(t, s.got).Unrecorded {
		t.Error("the flood is over")
	}
}

// FuzzBooks gives the same steps to flows of all transports in turn, in a shard that
// has very little room.
func FuzzBooks(f *testing.F) {
	for _, s := range samples(f)[:3] {
		var script []byte
		for _, c := range s.chunks {
			script = appendStep(script, c.d, stepBytes, c.b)
		}
		f.Add(script)
	}
	for _, build := range within(f) {
		var cert tls.Certificate
		var script []byte
		for _, c := range build(&cert) {
			script = appendStep(script, c.d, stepBytes, c.b)
		}
		f.Add(script[:min(len(script), 6000)])
	}
	s := newSensor()
	f.Fuzz(func(t *testing.T, script []byte) {
		shard := s.Shard(12 << 10)
		shards := []*Shard{shard, &s.own}
		var conns []*Conn
		for _, transport := range []event.Transport{event.TCP, event.UDP, event.EAPOL, event.TCP, event.UDP} {
			conns = append(conns, shard.Open(testFlow(transport)))
		}
		at := event.Moment{Frame: 1}
		for b := script; ; at.Time += 1e6 {
			d, kind, n, data, rest, ok := step(b)
			if !ok {
				break
			}
			b = rest
			for _, c := range conns {
				switch {
				case c.flow.Transport != event.TCP:
					c.Datagram(d, at, data)
				case kind == stepGap:
					c.Gap(d, at, n)
				default:
					c.Segment(d, at, data)
				}
				audit(t, s.Parser, shards)
			}
		}
		for i, c := range conns {
			c.Close(event.Loss(i))
			audit(t, s.Parser, shards)
		}
		if s.check(t); s.records.Pool.Held() != 0 || shard.book.held != 0 {
			t.Fatalf("%d bytes held after the end, %d in the book", s.records.Pool.Held(), shard.book.held)
		}
	})
}
