package quic

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/parsers/tls13"
)

// seal is the reverse of open, for packets with a long header, and has no
// words with it but the keys. A number of nil seals with one byte of zero.
func seal(o *opener, typ byte, version uint32, dcid, scid, token []byte, number uint64, frames []byte) []byte {
	const size = 2
	b := []byte{0xc0 | typ<<4 | size - 1}
	b = binary.BigEndian.AppendUint32(b, version)
	b = append(append(b, byte(len(dcid))), dcid...)
	b = append(append(b, byte(len(scid))), scid...)
	if schemesOf(version)[0].types[typ] == initial {
		b = append(append(b, byte(len(token))), token...)
	}
	b = binary.BigEndian.AppendUint16(b, 0x4000|uint16(size+len(frames)+tagLength))
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, uint16(number))
	nonce := bytes.Clone(o.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(number >> (56 - 8*i))
	}
	b = o.aead.Seal(b, nonce, frames, b)
	var mask [16]byte
	o.mask.Of(b[at+4:at+20], &mask)
	b[0] ^= mask[0] & 0x0f
	b[at] ^= mask[1]
	b[at+1] ^= mask[2]
	return b
}

// crypto is a CRYPTO frame.
func crypto(offset int, data []byte) []byte {
	b := []byte{frameCrypto}
	b = binary.BigEndian.AppendUint32(b, 0x80000000|uint32(offset))
	b = binary.BigEndian.AppendUint16(b, 0x4000|uint16(len(data)))
	return append(b, data...)
}

// message is a handshake message whose body is n bytes.
func message(typ byte, seed uint64, n int) []byte {
	b := []byte{typ, byte(n >> 16), byte(n >> 8), byte(n)}
	r := rand.New(rand.NewPCG(seed, 1))
	for range n {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

// peer makes the packets of one connection.
type peer struct {
	version        uint32
	dcid           []byte // that the keys follow from
	client, server []byte // the sides' own IDs
	token          []byte
	number         uint64
}

func (p *peer) keys() *keySet {
	return &keySet{version: p.version, scheme: schemesOf(p.version)[0], dcid: p.dcid}
}

func (p *peer) code(t packetType) byte {
	return byte(slices.Index(schemesOf(p.version)[0].types[:], t))
}

// toServer is an Initial of the client.
func (p *peer) toServer(frames ...[]byte) []byte {
	to := p.server
	if to == nil {
		to = p.dcid
	}
	p.number++
	return seal(p.keys().opener(0), p.code(initial), p.version, to, p.client, p.token, p.number, pad(frames))
}

// toClient is an Initial of the server.
func (p *peer) toClient(frames ...[]byte) []byte {
	p.number++
	return seal(p.keys().opener(1), p.code(initial), p.version, p.client, p.server, nil, p.number, pad(frames))
}

func pad(frames [][]byte) []byte { return append(slices.Concat(frames...), make([]byte, 8)...) }

// heads are the messages in short.
func heads(ms []Message) string {
	s := ""
	for _, m := range ms {
		s += fmt.Sprintf("%d/%d/%d:%d(%d) ", m.Connection, m.Direction, m.Level, m.Type, len(m.Head))
	}
	return s
}

// TestAnyOrder sends a ClientHello in pieces that overlap, are sent twice and
// come in any order, over several packets and datagrams, some of them coalesced.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		first := message(tls.TypeClientHello, seed, 40+r.IntN(3000))
		second := message(tls.TypeClientHello, seed+1, 40+r.IntN(200)) // as after a HelloRetryRequest
		stream := slices.Concat(first, second)
		p := &peer{version: Version1, dcid: sampleID, client: []byte{1, 2}}
		var packets [][]byte
		for at := 0; at < len(stream); {
			n := min(1+r.IntN(700), len(stream)-at)
			from := max(0, at-r.IntN(50))
			frames := [][]byte{{framePing}, crypto(from, stream[from:at+n])}
			if other := r.IntN(len(stream) - 1); r.IntN(2) == 0 {
				frames = append(frames, crypto(other, stream[other:min(other+60, len(stream))]))
			}
			packets = append(packets, p.toServer(frames...))
			at += n
		}
		packets = append(packets, packets[r.IntN(len(packets))])
		r.Shuffle(len(packets), func(i, j int) { packets[i], packets[j] = packets[j], packets[i] })
		var d Decoder
		s := d.Open()
		var got []byte
		for i := 0; i < len(packets); {
			n := min(1+r.IntN(2), len(packets)-i)
			res := s.Datagram(1, slices.Concat(packets[i:i+n]...))
			i += n
			if res.Connection != 0 || res.Client != 1 {
				t.Fatalf("seed %d: %+v", seed, res)
			}
			for _, m := range res.Messages {
				got = append(append(got, m.Type, byte(m.Length>>16), byte(m.Length>>8), byte(m.Length)), m.Head...)
			}
		}
		if !bytes.Equal(got, stream) {
			t.Fatalf("seed %d: %d bytes of %d", seed, len(got), len(stream))
		}
		if d.pool.Held() != 0 {
			t.Fatalf("seed %d: %d bytes held with nothing to come", seed, d.pool.Held())
		}
	}
}

// TestFirstStays sends other content at the same place: what came first stays.
func TestFirstStays(t *testing.T) {
	hello := message(tls.TypeClientHello, 1, 100)
	other := message(tls.TypeClientHello, 2, 100)
	p := &peer{version: Version1, dcid: sampleID}
	var d Decoder
	s := d.Open()
	s.Datagram(0, p.toServer(crypto(20, hello[20:60])))
	s.Datagram(0, p.toServer(crypto(10, other[10:70])))
	r := s.Datagram(0, p.toServer(crypto(0, other[:12]), crypto(70, hello[70:])))
	want := slices.Concat(other[:20], hello[20:60], other[60:70], hello[70:])
	if len(r.Messages) != 1 || !bytes.Equal(r.Messages[0].Head, want[4:]) {
		t.Errorf("%+v", r)
	}
}

func TestRetry(t *testing.T) {
	hello := message(tls.TypeClientHello, 1, 300)
	serverHello := message(tls.TypeServerHello, 2, 90)
	for _, seen := range []string{"all", "not the Retry", "not the first Initial", "only what follows", "the first Initial twice"} {
		var d Decoder
		s := d.Open()
		p := &peer{version: Version1, dcid: sampleID, client: []byte("client")}
		// The Retry of the RFC is for a client without an ID.
		p.client = []byte{}
		old := p.toServer(crypto(0, hello))
		var got []Message
		var flags []bool
		take := func(direction uint8, b []byte) {
			r := s.Datagram(direction, b)
			for i := range r.Messages {
				r.Messages[i].Head = bytes.Clone(r.Messages[i].Head)
			}
			got = append(got, r.Messages...)
			flags = append(flags, r.Retry)
		}
		if seen != "not the first Initial" && seen != "only what follows" {
			take(0, old)
		}
		if seen != "not the Retry" && seen != "only what follows" {
			take(1, sampleRetry1)
			if want := seen != "not the first Initial"; flags[len(flags)-1] != want {
				t.Errorf("%s: Retry %v", seen, flags)
			}
		}
		p.dcid = unhex("f067a5502a4262b5")
		p.token = []byte("token")
		take(0, p.toServer(crypto(0, hello[:100])))
		take(0, p.toServer(crypto(100, hello[100:])))
		if seen == "the first Initial twice" {
			take(0, old)
		}
		p.server = []byte("server-id")
		take(1, p.toClient(crypto(0, serverHello)))
		if want := "0/0/0:1(300) 0/1/0:2(90) "; heads(got) != want {
			t.Errorf("%s: %s", seen, heads(got))
		}
		if seen == "not the Retry" && !slices.Contains(flags, true) {
			t.Errorf("%s: that there was a Retry is not known", seen)
		}
	}
}

// TestForgedRetry: a Retry whose tag is wrong says nothing.
func TestForgedRetry(t *testing.T) {
	for _, v := range samples {
		var d Decoder
		s := d.Open()
		s.Datagram(0, v.client)
		forged := bytes.Clone(v.retry)
		forged[20] ^= 1
		if r := s.Datagram(1, forged); r.Retry {
			t.Errorf("%s: %+v", v.name, r)
		}
		if r := s.Datagram(0, v.retry); r.Retry {
			t.Errorf("%s: from the client: %+v", v.name, r)
		}
		if r := s.Datagram(1, v.retry); !r.Retry || r.Connection != 0 {
			t.Errorf("%s: %+v", v.name, r)
		}
	}
}

func TestNegotiation(t *testing.T) {
	hello := message(tls.TypeClientHello, 1, 300)
	var d Decoder
	s := d.Open()
	p := &peer{version: 0xff00001d, dcid: []byte("first-id"), client: []byte("client")}
	s.Datagram(0, p.toServer(crypto(0, hello)))
	if r := s.Datagram(1, negotiationPacket(p.client, []byte("other-id"), Version1)); r.Negotiation {
		t.Errorf("for another connection: %+v", r)
	}
	if r := s.Datagram(1, negotiationPacket(p.client, p.dcid, Version1)); !r.Negotiation || r.Connection != 0 {
		t.Errorf("%+v", r)
	}
	q := &peer{version: Version1, dcid: []byte("second-id"), client: []byte("client")}
	r := s.Datagram(0, q.toServer(crypto(0, message(tls.TypeClientHello, 2, 200))))
	if heads(r.Messages) != "1/0/0:1(200) " || r.Connection != 1 {
		t.Errorf("%+v", r)
	}
}

// TestCompatibleVersion: the server answers in version 2 what came in version 1
// (RFC 9369, section 4.1).
func TestCompatibleVersion(t *testing.T) {
	var d Decoder
	s := d.Open()
	p := &peer{version: Version1, dcid: sampleID, client: []byte("client"), server: []byte("server")}
	first := *p
	first.server = nil
	s.Datagram(0, first.toServer(crypto(0, message(tls.TypeClientHello, 1, 300))))
	p.version = Version2
	r := s.Datagram(1, p.toClient(crypto(0, message(tls.TypeServerHello, 1, 90))))
	if heads(r.Messages) != "0/1/0:2(90) " || r.Version != Version2 {
		t.Errorf("%+v", r)
	}
	r = s.Datagram(0, p.toServer([]byte{frameClose, 0x41, 0x2a, 0, 0}))
	if alert, ok := r.Alert(); !ok || alert != 42 || r.Connection != 0 {
		t.Errorf("%+v", r)
	}
}

// TestSeveral interleaves connections on one flow.
func TestSeveral(t *testing.T) {
	var d Decoder
	s := d.Open()
	var peers []*peer
	for i := range maxConnections {
		p := &peer{version: []uint32{Version1, Version2}[i%2], dcid: fmt.Appendf(nil, "connection %d", i), client: []byte{}}
		peers = append(peers, p)
		r := s.Datagram(0, p.toServer(crypto(0, message(tls.TypeClientHello, uint64(i), 100))))
		if r.Connection != i || len(r.Messages) != 1 {
			t.Errorf("%d: %+v", i, r)
		}
	}
	for i, p := range peers {
		p.server = []byte{byte(i)}
		r := s.Datagram(1, p.toClient(crypto(0, message(tls.TypeServerHello, uint64(i), 90))))
		if want := fmt.Sprintf("%d/1/0:2(90) ", i); heads(r.Messages) != want || r.Connection != i {
			t.Errorf("%d: %+v", i, r)
		}
	}
	for i := range 100 {
		p := &peer{version: Version1, dcid: fmt.Appendf(nil, "another %d", i), client: []byte{}}
		s.Datagram(0, p.toServer(crypto(0, message(tls.TypeClientHello, uint64(i+50), 100)[:50])))
	}
	if len(s.connections) != maxConnections || d.Stats().Evicted != 100 {
		t.Errorf("%d connections, %+v", len(s.connections), d.Stats())
	}
	s.Close()
	if d.pool.Held() != 0 {
		t.Errorf("%d bytes held", d.pool.Held())
	}
}

// TestUnfinished: of a message with a hole there is what lies before and behind.
func TestUnfinished(t *testing.T) {
	var d Decoder
	s := d.Open()
	p := &peer{version: Version1, dcid: sampleID, client: []byte{}}
	hello := message(tls.TypeClientHello, 1, 1000)
	s.Datagram(0, p.toServer(crypto(0, hello[:300])))
	s.Datagram(0, p.toServer(crypto(700, hello[700:900]), crypto(900, hello[900:950])))
	s.Datagram(0, p.toServer(crypto(980, hello[980:])))
	m := s.Unfinished()
	if len(m) != 1 || m[0].Type != tls.TypeClientHello || m[0].Length != 1000 || !bytes.Equal(m[0].Head, hello[4:300]) ||
		m[0].TailAt != 696 || !bytes.Equal(m[0].Tail, hello[700:950]) {
		t.Errorf("%+v", m)
	}
	r := s.Datagram(0, p.toServer(crypto(290, hello[290:990])))
	if len(r.Messages) != 1 || !bytes.Equal(r.Messages[0].Head, hello[4:]) || len(s.Unfinished()) != 0 {
		t.Errorf("%+v", r)
	}
}

// TestLimits sends what a hostile client may.
func TestLimits(t *testing.T) {
	begin := func(d *Decoder) (*Session, *peer) {
		return d.Open(), &peer{version: Version1, dcid: sampleID, client: []byte{}}
	}
	t.Run("offset", func(t *testing.T) {
		var d Decoder
		s, p := begin(&d)
		r := s.Datagram(0, p.toServer(crypto(maxInitialStream, []byte("far"))))
		if r.Limited == [2]bool{} || d.pool.Held() != 0 {
			t.Errorf("%+v, %d held", r, d.pool.Held())
		}
		r = s.Datagram(0, p.toServer(crypto(0, message(tls.TypeClientHello, 1, 100))))
		if len(r.Messages) != 1 {
			t.Errorf("the hello is lost: %+v", r)
		}
	})
	t.Run("length", func(t *testing.T) {
		var d Decoder
		s, p := begin(&d)
		r := s.Datagram(0, p.toServer(crypto(0, []byte{1, 0xff, 0xff, 0xff, 1, 2, 3})))
		if r.Limited == [2]bool{} || d.pool.Held() != 0 {
			t.Errorf("%+v, %d held", r, d.pool.Held())
		}
	})
	t.Run("one byte", func(t *testing.T) {
		var d Decoder
		s, p := begin(&d)
		hello := message(tls.TypeClientHello, 1, 3000)
		for first := range 2 {
			for i := 1 - first; i < len(hello); i += 2 {
				r := s.Datagram(0, p.toServer(crypto(i, hello[i:i+1])))
				if r.Limited != [2]bool{} || len(r.Messages) > 0 != (first == 1 && i+2 >= len(hello)) {
					t.Fatalf("byte %d: %+v", i, r)
				}
			}
		}
		if d.pool.Held() != 0 {
			t.Errorf("%d bytes held", d.pool.Held())
		}
	})
	t.Run("trials", func(t *testing.T) {
		var d Decoder
		s := d.Open()
		b := bytes.Clone(sampleClient1)
		b[100] ^= 1
		for range 10 * maxTrials {
			s.Datagram(0, b)
		}
		if s.trials != maxTrials || len(s.waiting) != maxWaitingInitials || d.Stats().Blind != 10*maxTrials {
			t.Errorf("%d trials, %d wait, %+v", s.trials, len(s.waiting), d.Stats())
		}
	})
	t.Run("all sessions", func(t *testing.T) {
		d := Decoder{Wait: true}
		long := message(tls.TypeClientHello, 1, 60<<10)
		first, p := begin(&d)
		sessions := []*Session{first}
		packets := [][]byte{
			p.toServer(crypto(0, long[:16000])),
			p.toServer(crypto(16000, long[16000:32000])),
			p.toServer(crypto(32000, long[32000:48000])),
		}
		for range 20 {
			s := d.Open()
			sessions = append(sessions, s)
			before := d.Held()
			for _, b := range packets {
				if s.Datagram(0, b).Limited[0] {
					t.Error("a hello was limited")
				}
			}
			if more := d.Held() - before; more < 48000 || more > 4*48000 {
				t.Errorf("%d bytes are said to be held of 48000", more)
			}
		}
		for _, s := range sessions {
			s.Close()
		}
		if d.Held() != 0 {
			t.Errorf("%d bytes held after the end", d.Held())
		}
	})
}

// TestWaiting keeps Handshake packets for their secrets, and no more of them
// than the limits allow.
func TestWaiting(t *testing.T) {
	for n, suite := range map[int]*tls13.Suite{32: tls13.AES128GCM, 48: tls13.AES256GCM} {
		secret := bytes.Repeat([]byte{9}, n)
		p := &peer{version: Version2, dcid: sampleID, client: []byte{1}, server: []byte{2}}
		o := newOpener(suite, secret, "tls13 quicv2 ")
		certificate := message(tls.Certificate, 1, 3000)
		sealed := func(number uint64, frames ...[]byte) []byte {
			return seal(o, p.code(handshake), p.version, p.client, p.server, nil, number, pad(frames))
		}
		flight := [][]byte{sealed(0, crypto(0, certificate[:1000])), sealed(1, crypto(1000, certificate[1000:2000])), sealed(2, crypto(2000, certificate[2000:]))}
		hello := (&peer{version: Version2, dcid: sampleID, client: []byte{1}}).toServer(crypto(0, message(tls.TypeClientHello, 1, 100)))

		d := Decoder{Wait: true}
		s := d.Open()
		s.Datagram(0, hello)
		for _, b := range flight {
			if r := s.Datagram(1, b); !r.Sealed || len(r.Messages) > 0 || r.Connection != 0 {
				t.Errorf("%+v", r)
			}
		}
		wrong := bytes.Repeat([]byte{8}, n)
		if r := s.SetSecrets(0, nil, wrong); len(r.Messages) > 0 {
			t.Errorf("%+v", r)
		}
		r := s.SetSecrets(0, wrong, secret)
		if heads(r.Messages) != "0/1/1:11(3000) " || !bytes.Equal(r.Messages[0].Head, certificate[4:]) || d.waits != 0 {
			t.Errorf("%s, %d bytes wait", heads(r.Messages), d.waits)
		}
		if r := s.Datagram(1, flight[1]); len(r.Messages) > 0 {
			t.Errorf("sent again: %+v", r)
		}
		limited := false
		for i := range 10 * maxWaiting {
			limited = s.Datagram(0, sealed(uint64(i+3), []byte{framePing})).Limited[0] || limited
		}
		if !limited || len(s.waiting) > maxWaiting || len(s.waiting) < maxWaiting/2 || s.waits > maxWaitingBytes {
			t.Errorf("%d wait", len(s.waiting))
		}
		s.Close()
		if d.waits != 0 || d.pool.Held() != 0 {
			t.Errorf("%d and %d bytes held after the end", d.waits, d.pool.Held())
		}

		d = Decoder{}
		s = d.Open()
		s.Datagram(0, hello)
		s.Datagram(1, flight[0])
		if len(s.waiting) != 0 {
			t.Error("a packet waits for secrets that nobody will give")
		}
		s.SetSecrets(0, nil, secret)
		s.Datagram(1, flight[2])
		s.Datagram(1, flight[0])
		if r := s.Datagram(1, flight[1]); heads(r.Messages) != "0/1/1:11(3000) " {
			t.Errorf("%+v", r)
		}
	}
}
