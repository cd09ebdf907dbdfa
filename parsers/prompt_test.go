package parsers

import (
	"bytes"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
)

// prompted is a sensor that waits for nobody, and has the secrets of a key log.
func prompted(t testing.TB, log []byte) *sensor {
	s := keyedSensor(t, log)
	s.Prompt()
	return s
}

// give hands a chunk to c, and reports whether c is done.
func give(c *Conn, i int, ch chunk) bool {
	at := event.Moment{Time: 1e9 + int64(i), Frame: uint64(i + 1)}
	b := bytes.Clone(ch.b)
	defer clear(b)
	if c.flow.Transport == event.TCP {
		return c.Segment(ch.d, at, b) == Done
	}
	return c.Datagram(ch.d, at, b) == Done
}

// same compares what two sensors made of the same packets.
func same(a, b *event.Handshake) bool {
	x, y := *a, *b
	for _, h := range []*event.Handshake{&x, &y} {
		h.Memory, h.Notes, h.Unfinished = nil, nil, false
		if len(h.AuthorityNames) == 0 {
			h.AuthorityNames = nil
		}
	}
	return alike(&x, &y)
}

// TestPrompt stops handshakes of every kind after each of their packets. What is
// emitted then, once, is what a flow that ends there shows; and what is emitted when
// the rest has come is the same as if nothing had been emitted before.
func TestPrompt(t *testing.T) {
	type conversation struct {
		name      string
		transport event.Transport
		chunks    []chunk
		log       []byte
	}
	var all []conversation
	for _, s := range samples(t) {
		all = append(all, conversation{s.name, event.TCP, s.chunks, nil})
	}
	for _, c := range conversations13(t) {
		all = append(all, conversation{"TLS 1.3, " + c.name, event.TCP, c.chunks, c.log})
	}
	quic := quicConversation(t)
	all = append(all, conversation{"QUIC", event.UDP, quic.chunks, quic.log})
	dtls, _ := dtlsSample(t)
	all = append(all, conversation{"DTLS", event.UDP, datagrams(cookieExchange(dtls), 500), nil})
	stopped := 0
	for _, c := range all {
		plain := keyedSensor(t, c.log)
		conn := plain.Open(testFlow(c.transport))
		for i, ch := range c.chunks {
			give(conn, i, ch)
		}
		conn.Close(event.EndOfInput)
		plain.check(t)
		if len(plain.got) != 1 {
			t.Fatalf("%s: %d handshakes", c.name, len(plain.got))
		}
		for k := range len(c.chunks) + 1 {
			s := prompted(t, c.log)
			s.Tick(1e9)
			conn := s.Open(testFlow(c.transport))
			over := false
			for i, ch := range c.chunks[:k] {
				over = give(conn, i, ch) || over
			}
			s.Tick(1e9 + maxUntold - 1)
			if len(s.early) > 0 {
				t.Fatalf("%s, %d packets: emitted too soon", c.name, k)
			}
			s.Tick(1e9 + maxUntold)
			shown := !over && conn.hs.Shown()
			if len(s.early) == 1 != shown || len(s.early) > 1 {
				t.Fatalf("%s, %d packets: %d are emitted, shown %v", c.name, k, len(s.early), shown)
			}
			s.Tick(1e9 + 2*maxUntold)
			for i, ch := range c.chunks[k:] {
				give(conn, k+i, ch)
			}
			s.Tick(1e9 + 4*maxUntold)
			conn.Close(event.EndOfInput)
			s.check(t)
			if !same(one(t, s.got), plain.got[0]) {
				t.Errorf("%s, %d packets: at the end\n%+v\nwant\n%+v", c.name, k, s.got[0], plain.got[0])
			}
			if s.firstUnended != nil || s.lastUnended != nil {
				t.Errorf("%s, %d packets: the flow is closed, and listed", c.name, k)
			}
			if !shown {
				continue
			}
			stopped++
			early := one(t, s.early)
			if early.Notes == nil || early.Notes != s.got[0].Notes || early.Index != s.got[0].Index || early.Flow == s.got[0].Flow {
				t.Errorf("%s, %d packets: what is emitted twice does not belong together", c.name, k)
			}
			cut := keyedSensor(t, c.log)
			conn = cut.Open(testFlow(c.transport))
			for i, ch := range c.chunks[:k] {
				give(conn, i, ch)
			}
			conn.Close(event.NoLoss)
			want := one(t, cut.got)
			if n := len(want.ClientChain); n > 0 && want.ClientChain[n-1].Truncated { // at the end, the half of a message counts
				want.ClientChain = early.ClientChain
			}
			if !same(early, want) {
				t.Errorf("%s, %d packets: early\n%+v\nwant\n%+v", c.name, k, early, want)
			}
		}
	}
	if stopped < 20 {
		t.Errorf("only %d handshakes were stopped between certificate and end", stopped)
	}
}

// TestPromptTrickle has a server that sends something all the time, and never ends.
func TestPromptTrickle(t *testing.T) {
	der := newAuthority().cert.Raw
	s := prompted(t, nil)
	s.Tick(1e9)
	c := s.Open(testFlow(event.TCP))
	give(c, 0, chunk{0, clientHello3(1, nil)})
	give(c, 1, chunk{1, append(serverHello3(0xc02f, nil), certificate3(der)...)})
	for i := range 20 {
		give(c, 2+i, chunk{1, record3(21, 1, 90)})
		s.Tick(1e9 + int64(i+1)*100e6)
		if want := i >= 4; len(s.early) == 1 != want {
			t.Fatalf("%d are emitted after %d ms", len(s.early), (i+1)*100)
		}
	}
	c.Close(event.EndOfInput)
	s.check(t)
	one(t, s.got)
}

// TestPromptSessions stops two sessions of one flow: each has an index of its own,
// before and after the end.
func TestPromptSessions(t *testing.T) {
	s := prompted(t, nil)
	s.Tick(1e9)
	parent := s.Open(testFlow(event.UDP))
	der := newAuthority().cert.Raw
	var conns []*Conn
	for i := range 3 {
		c := parent.openSession(0).conn
		at := event.Moment{Time: 1e9, Frame: uint64(i + 1)}
		c.take(0, at, clientHello3(byte(i), nil))
		c.take(1, at, append(serverHello3(0xc02f, nil), certificate3(der)...))
		conns = append(conns, c)
	}
	s.Tick(2e9)
	if len(s.early) != 3 {
		t.Fatalf("%d are emitted", len(s.early))
	}
	for _, i := range []int{2, 0} { // over in another order than they began
		conns[i].take(1, event.Moment{Time: 3e9, Frame: 9}, record3(21, 2, 40))
	}
	parent.Close(event.EndOfInput)
	s.check(t)
	seen := map[int]bool{}
	for _, h := range s.got {
		if seen[h.Index] || h.Notes == nil || h.Notes != s.early[h.Index].Notes || s.early[h.Index].Index != h.Index {
			t.Errorf("index %d: %+v", h.Index, h)
		}
		seen[h.Index] = true
	}
	if len(seen) != 3 {
		t.Errorf("%d handshakes", len(seen))
	}
}

// TestPromptAlternative has two versions of a flow: the second is told of early only
// if its certificate is another one, and marked.
func TestPromptAlternative(t *testing.T) {
	authority := newAuthority()
	first, second := authority.cert.Raw, authority.issue("other.example", ecdsaKey(), 0).Certificate[0]
	for _, other := range []bool{false, true} {
		s := prompted(t, nil)
		s.Tick(1e9)
		c := s.Open(testFlow(event.TCP))
		a := c.Alternative()
		der := first
		if other {
			der = second
		}
		for i, conn := range []*Conn{c, a} {
			give(conn, 0, chunk{0, clientHello3(1, nil)})
			give(conn, 1, chunk{1, append(serverHello3(0xc02f, nil), certificate3([][]byte{first, der}[i])...)})
		}
		s.Tick(2e9)
		want := 1
		if other {
			want = 2
		}
		if len(s.early) != want || s.early[0].Alternative || other && !s.early[1].Alternative {
			t.Errorf("another certificate: %v, %d are emitted early", other, len(s.early))
		}
		c.Close(event.EndOfInput)
		a.Close(event.EndOfInput)
		if s.check(t); len(s.got) != want {
			t.Errorf("another certificate: %v, %d are emitted", other, len(s.got))
		}
	}
}

// TestPromptNothing emits nothing early where nobody asked for it.
func TestPromptNothing(t *testing.T) {
	s := newSensor()
	s.Tick(1e9)
	c := s.Open(testFlow(event.TCP))
	give(c, 0, chunk{0, clientHello3(1, nil)})
	give(c, 1, chunk{1, append(serverHello3(0xc02f, nil), certificate3(newAuthority().cert.Raw)...)})
	s.Tick(1e12)
	c.Close(event.EndOfInput)
	if s.check(t); len(s.early) > 0 || len(s.got) != 1 {
		t.Errorf("%d are emitted early, %d at the end", len(s.early), len(s.got))
	}
}

// FuzzPrompt has a parser that emits handshakes before they are over, at any place,
// and one that does not: in the end both have emitted the same.
func FuzzPrompt(f *testing.F) {
	for _, s := range samples(f) {
		var script []byte
		for _, c := range s.chunks {
			script = appendStep(script, c.d, stepBytes, c.b)
		}
		f.Add(script, uint64(0x5555555555555555))
	}
	a, b := newSensor(), newSensor()
	b.Prompt()
	now := int64(1e9)
	f.Fuzz(func(t *testing.T, script []byte, ticks uint64) {
		a.got, b.got, b.early = a.got[:0], b.got[:0], b.early[:0]
		x, y := a.Open(testFlow(event.TCP)), b.Open(testFlow(event.TCP))
		for s := script; ; {
			d, kind, n, data, rest, ok := step(s)
			if !ok {
				break
			}
			s = rest
			v, w := NeedMore, NeedMore
			if kind == stepGap {
				v, w = x.Gap(d, still, n), y.Gap(d, still, n)
			} else {
				v, w = x.Segment(d, still, data), y.Segment(d, still, data)
			}
			if v != w {
				t.Fatalf("status %v, %v with Prompt", v, w)
			}
			if ticks&1 != 0 {
				now += 2 * maxUntold
				b.Tick(now)
			}
			ticks = ticks>>1 | ticks<<63
		}
		x.Close(event.EndOfInput)
		y.Close(event.EndOfInput)
		a.check(t)
		b.check(t)
		if len(a.got) != len(b.got) {
			t.Fatalf("%d handshakes, %d with Prompt", len(a.got), len(b.got))
		}
		notes := 0
		for i := range a.got {
			if b.got[i].Notes != nil {
				notes++
			}
			if !same(a.got[i], b.got[i]) {
				t.Errorf("%+v\nwith Prompt %+v", a.got[i], b.got[i])
			}
		}
		for _, h := range b.early {
			if h.Outcome != event.Extracted || h.Notes == nil || h.Index >= len(b.got) || b.got[h.Index].Notes != h.Notes {
				t.Errorf("early %+v", h)
			}
		}
		if notes != len(b.early) {
			t.Errorf("%d are emitted early, %d have notes", len(b.early), notes)
		}
	})
}
