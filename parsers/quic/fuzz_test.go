package quic

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/oddcert/oddcert/parsers/tls"
)

// check looks for what must hold after every call.
func check(t *testing.T, d *Decoder, s *Session, r Result) {
	t.Helper()
	if d.pool.Held() < 0 || d.waits < 0 || d.keyed < len(s.connections) || s.waits > maxWaitingBytes ||
		len(s.waiting) > maxWaiting+maxWaitingInitials || len(s.connections) > maxConnections {
		t.Fatalf("%d bytes held, %d waiting, %d connections", d.pool.Held(), d.waits, len(s.connections))
	}
	held := false
	for _, c := range s.connections {
		if len(c.keys) == 0 || len(c.keys) > maxKeySets {
			t.Fatalf("%d keys", len(c.keys))
		}
		for level := range c.streams {
			for i := range c.streams[level] {
				st := &c.streams[level][i]
				held = held || !st.Empty()
				for at := st.Floor(); ; {
					start, end := st.Run(at)
					if start == end {
						break
					}
					if start < at || end > st.Floor()+maxHandshakeStream {
						t.Fatalf("run from %d to %d behind %d", start, end, st.Floor())
					}
					at = end
				}
			}
		}
	}
	if held != (d.pool.Held() > 0) {
		t.Fatalf("%d bytes held", d.pool.Held())
	}
	for _, m := range r.Messages {
		if !m.Whole() || len(m.Head) != m.Length || m.Connection < 0 || m.Connection >= s.count {
			t.Fatalf("message %+v", m)
		}
	}
	if r.Connection >= s.count || r.Connection < -1 {
		t.Fatalf("connection %d of %d", r.Connection, s.count)
	}
}

// FuzzDatagram gives arbitrary datagrams, each behind its length and direction,
// to a session that already has a connection. What is not from that connection
// can show nothing but connections of its own, whose keys are no secret.
func FuzzDatagram(f *testing.F) {
	one := func(direction byte, b []byte) []byte {
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))|uint16(direction)<<15), b...)
	}
	p := &peer{version: Version1, dcid: []byte("another!"), client: []byte{}}
	hello := message(tls.TypeClientHello, 1, 200)
	for _, v := range samples {
		f.Add(slices.Concat(one(0, v.client), one(1, v.server), one(1, v.retry), one(0, v.chacha)))
		f.Add(slices.Concat(one(1, v.server), one(0, v.client)))
	}
	f.Add(slices.Concat(one(0, slices.Concat(p.toServer(crypto(0, hello[:99])), p.toServer(crypto(99, hello[99:])))), one(1, p.toClient(crypto(0, hello)))))
	f.Add(one(1, negotiationPacket(nil, sampleID, Version1, Version2)))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := Decoder{Wait: true}
		s := d.Open()
		s.Datagram(0, sampleClient1)
		for len(b) > 2 {
			n := binary.BigEndian.Uint16(b)
			end := min(2+int(n&0x7fff), len(b))
			datagram := b[2:end:end]
			b = b[end:]
			before := bytes.Clone(datagram)
			known := Looks(datagram)
			r := s.Datagram(uint8(n>>15), datagram)
			if !bytes.Equal(before, datagram) {
				t.Fatal("the datagram was written to")
			}
			if !known && (len(r.Messages) > 0 || r.Retry || r.Negotiation || r.Closed) {
				t.Fatalf("%x does not look like QUIC, but shows %+v", datagram, r)
			}
			check(t, &d, s, r)
		}
		check(t, &d, s, s.SetSecrets(0, make([]byte, 32), make([]byte, 48)))
		for _, m := range s.Unfinished() {
			if m.TailAt+len(m.Tail) > m.Length && len(m.Tail) > 0 {
				t.Fatalf("%+v", m)
			}
		}
		s.Close()
		if d.pool.Held() != 0 || d.waits != 0 {
			t.Fatalf("%d and %d bytes held after the end", d.pool.Held(), d.waits)
		}
	})
}

// FuzzFrames seals arbitrary frames into the packets of one client, split at
// zero bytes that come in fours, and compares the messages with those of a
// plain array that the CRYPTO frames are copied to.
func FuzzFrames(f *testing.F) {
	hello := message(tls.TypeClientHello, 1, 60)
	hello = bytes.ReplaceAll(hello, []byte{0, 0, 0, 0}, []byte{0, 0, 0, 1})
	gap := []byte{0, 0, 0, 0}
	f.Add(sampleClientFrames)
	f.Add(slices.Concat(crypto(30, hello[30:]), gap, crypto(0, hello[:40])))
	f.Add(slices.Concat(crypto(0, hello), crypto(64, hello), gap, crypto(60, hello[60:]), []byte{frameClose, 0x41, 0x28, 0, 0}))
	f.Add(slices.Concat(crypto(50, hello[50:]), gap, crypto(10, hello[10:20]), gap, crypto(30, hello[30:35]), gap, crypto(0, hello)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Decoder
		s := d.Open()
		p := &peer{version: Version1, dcid: sampleID, client: []byte{}}
		keys := p.keys()
		const size = maxInitialStream
		model, have, at := make([]byte, size), make([]bool, size), 0
		for number, frames := range bytes.Split(b, gap) {
			if len(frames) > 1<<13 || number > 200 {
				return
			}
			var want []byte
			rest := append(frames, make([]byte, 8)...)
			frames = rest
			for {
				fr, r, ok := nextFrame(rest, frameCrypto)
				if !ok {
					break
				}
				rest = r
				if fr.typ != frameCrypto || len(fr.data) == 0 {
					continue
				}
				if fr.offset > size || fr.offset+uint64(len(fr.data)) > size {
					return // beyond the window is another test's
				}
				for i, c := range fr.data {
					if o := int(fr.offset) + i; !have[o] {
						model[o], have[o] = c, true
					}
				}
			}
			for at+4 <= size && !slices.Contains(have[at:at+4], false) {
				end := at + 4 + tls.Uint24(model[at+1:])
				if end > size {
					return // so is a message that is too long
				}
				if slices.Contains(have[at:end], false) {
					break
				}
				want = append(want, model[at:end]...)
				at = end
			}
			r := s.Datagram(0, seal(keys.opener(0), 0, Version1, p.dcid, p.client, nil, uint64(number), frames))
			check(t, &d, s, r)
			if r.Limited != [2]bool{} {
				return
			}
			var got []byte
			for _, m := range r.Messages {
				got = append(append(got, m.Type, byte(m.Length>>16), byte(m.Length>>8), byte(m.Length)), m.Head...)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("packet %d: %x, want %x", number, got, want)
			}
		}
	})
}
