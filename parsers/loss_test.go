package parsers

import (
	"bytes"
	"crypto/tls"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
)

// TestLosses loses a certificate by each cause.
func TestLosses(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	l := handshake(t, client, server)
	hello, answer := stream(0, l)[:len(only(0, l)[0].b)], stream(1, l)
	half := answer[:bytes.Index(answer, server.Certificates[0].Certificate[0])+50]
	long := append([]byte{22, 3, 3, 0, 4}, 11, 0x7f, 0xff, 0xff) // a Certificate of 8 MB
	ways := map[event.Loss]func(s *sensor, c *Conn){
		event.Gap: func(s *sensor, c *Conn) {
			c.Segment(1, still, half)
			c.Gap(1, still, len(answer)-len(half))
			c.Close(event.EndOfInput)
		},
		event.Evicted: func(s *sensor, c *Conn) {
			c.Segment(1, still, half)
			c.Close(event.Evicted)
		},
		event.Malformed: func(s *sensor, c *Conn) {
			c.Segment(1, still, answer[:5+4+70])
			c.Segment(1, still, bytes.Repeat([]byte{0xff}, 1<<14))
			c.Close(event.EndOfInput)
		},
		event.Limit: func(s *sensor, c *Conn) {
			c.Segment(1, still, answer[:5+(int(answer[3])<<8|int(answer[4]))])
			c.Segment(1, still, long)
			c.Close(event.EndOfInput)
		},
		event.EndOfInput: func(s *sensor, c *Conn) {
			c.Segment(1, still, half)
			c.Close(event.EndOfInput)
		},
	}
	for loss := event.NoLoss + 1; loss < event.Losses; loss++ {
		way := ways[loss]
		if way == nil {
			t.Errorf("nothing is lost by %q", loss)
			continue
		}
		s := newSensor()
		c := s.Open(testFlow(event.TCP))
		c.Segment(0, still, hello)
		way(s, c)
		s.check(t)
		if h := one(t, s.got); h.Outcome != event.Lost || h.Loss != loss {
			t.Errorf("%v, by %q, want %q", h.Outcome, h.Loss, loss)
		}
		if n := s.Stats().Losses[loss]; n != 1 {
			t.Errorf("%d lost by %q", n, loss)
		}
	}
}
