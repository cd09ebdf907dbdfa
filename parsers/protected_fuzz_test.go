package parsers

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/oddcert/oddcert/parsers/certcompress"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/parsers/tls"
)

// The hellos and the secrets of a conversation that is the same in every run. A corpus
// therefore keeps its meaning.
var (
	fixedClientHello = append(append([]byte{tls.TypeClientHello, 0, 0, 50, 3, 3}, bytes.Repeat([]byte{7}, 32)...),
		0, 0, 2, 0x13, 1, 1, 0, 0, 7, 0, 43, 0, 3, 2, 3, 4)
	fixedServerHello = append(append([]byte{tls.TypeServerHello, 0, 0, 46, 3, 3}, bytes.Repeat([]byte{8}, 32)...),
		0, 0x13, 1, 0, 0, 6, 0, 43, 0, 2, 3, 4)
	fixedSecrets = [2][]byte{bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)}
)

// fixedLog is the key log of that conversation.
func fixedLog() []byte {
	random := bytes.Repeat([]byte("07"), 32)
	return fmt.Appendf(nil, "CLIENT_HANDSHAKE_TRAFFIC_SECRET %s %x\nSERVER_HANDSHAKE_TRAFFIC_SECRET %s %x\n", random, fixedSecrets[0], random, fixedSecrets[1])
}

// What a step of a script of FuzzProtected does with its bytes.
const (
	protectedHandshake = iota // the content of an encrypted record
	protectedAlert            // the same
	protectedRaw              // as they are
	protectedGap              // their number is missing
	protectedKinds
)

// FuzzProtected encrypts the steps of a script, which need not make sense. It gives
// them to a parser that has the secrets at once, and to one that gets them when the
// flow is over: both see the same.
func FuzzProtected(f *testing.F) {
	for _, c := range conversations13(f)[:3] {
		flight := flightOf(f, c)
		for _, n := range []int{1 << 13, 200} {
			var script []byte
			for _, d := range []event.Direction{1, 0} {
				for b := bytes.Join(flight.rest[d], nil); len(b) > 0; {
					k := min(n, len(b))
					script = appendStep(script, d, protectedHandshake, b[:k])
					b = b[k:]
				}
			}
			f.Add(script, false)
			f.Add(script, true)
			f.Add(append(appendStep(appendStep(script[:len(script)/3:len(script)/3], 0, protectedAlert, []byte{2, 42}), 1, protectedRaw, []byte{23, 3, 3, 0, 1, 9}), script[len(script)/3:]...), false)
		}
	}
	log, large := fixedLog(), make([]byte, certcompress.MaxMessage)
	f.Fuzz(func(t *testing.T, script []byte, datagrams bool) {
		if len(script) > 1<<16 {
			return
		}
		transport := event.TCP
		if datagrams {
			transport = event.UDP
		}
		play := func(wait bool) *sensor {
			s := newSensor()
			s.SetKeys(new(keylog.Store))
			if wait {
				s.WaitForKeys()
			}
			if !wait {
				s.keys.Add("test", log, nil)
			}
			c := s.Open(testFlow(transport))
			give := func(d event.Direction, b []byte) {
				if datagrams {
					c.Datagram(d, still, b)
				} else {
					c.Segment(d, still, b)
				}
			}
			var sealers [2]*sealer
			for d, hello := range [][]byte{fixedClientHello, fixedServerHello} {
				prefix := "tls13 "
				b := append([]byte{22, 3, 3, 0, byte(len(hello))}, hello...)
				if datagrams {
					prefix = "dtls13"
					b = fixedDatagram(hello)
				}
				sealers[d] = newSealer(t, fixedSecrets[d], 0x1301, prefix)
				give(event.Direction(d), b)
			}
			for b := script; len(b) >= 3; {
				d, kind, n := event.Direction(b[0]&1), int(b[0]>>1)%protectedKinds, int(b[1])<<8|int(b[2])
				b = b[3:]
				n = min(n, len(b), 1<<14)
				data := b[:n]
				b = b[n:]
				typ := uint8(tls.Handshake)
				if kind == protectedAlert {
					typ = tls.Alert
				}
				switch {
				case kind == protectedRaw:
					give(d, data)
				case kind == protectedGap:
					if !datagrams {
						c.Gap(d, still, n)
					}
				case datagrams:
					give(d, sealers[d].unified(typ, data, 0x0c, nil))
				default:
					give(d, sealers[d].record(typ, data, n%3))
				}
				if limit := 1<<16 + 8*len(script); s.records.Pool.Lent() > limit || s.records.Waiting > s.records.Pool.Lent() {
					t.Fatalf("%d bytes held, %d of them encrypted, for %d", s.records.Pool.Lent(), s.records.Waiting, len(script))
				}
			}
			c.Close(event.EndOfInput)
			s.keys.Add("test", log, nil)
			s.Tick(still.Time)
			s.Flush()
			if s.records.Waiting != 0 || s.waiting.Len() != 0 {
				t.Fatalf("%d bytes held, %d wait", s.records.Waiting, s.waiting.Len())
			}
			// What is compressed may become longer than the input.
			sane(t, s, [2][]byte{large, large}, true)
			return s
		}
		early, late := play(false), play(true)
		if len(early.got) == 0 || len(late.got) == 0 {
			t.Fatal("the handshake is gone")
		}
	})
}

// fixedDatagram is a hello over DTLS 1.3.
func fixedDatagram(hello []byte) []byte {
	m := bytes.Clone(hello)
	m[4], m[5] = 0xfe, 0xfd
	if m[0] == tls.TypeClientHello {
		m = append(m[:39:39], append([]byte{0}, m[39:]...)...) // no cookie
		m[3]++
	}
	m[len(m)-2], m[len(m)-1] = 0xfe, 0xfc
	b := append(bytes.Clone(m[:4]), 0, 0, 0, 0, 0, 0, 0, byte(len(m)-4))
	return dtlsRecord(22, 0, append(b, m[4:]...))
}

// The fixed conversation is a real one: its hellos are parsed, and its encrypted part
// is decrypted.
func TestFixedConversation(t *testing.T) {
	c := conversations13(t)[2]
	flight := flightOf(t, c)
	copy(flight.secret[:], fixedSecrets[:])
	flight.suite = 0x1301
	for d, hello := range [][]byte{fixedClientHello, fixedServerHello} {
		flight.hellos[d] = append([]byte{22, 3, 3, 0, byte(len(hello))}, hello...)
	}
	s := keyedSensor(t, fixedLog())
	s.play(flight.chunks(t, 1000, 1), event.EndOfInput)
	s.check(t)
	wantChain(t, one(t, s.got).Chain, c.server)
}
