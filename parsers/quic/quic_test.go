package quic

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/parsers/tls13"
)

var samples = []struct {
	name                          string
	version                       uint32
	client, server, retry, chacha []byte
}{
	{"version 1", Version1, sampleClient1, sampleServer1, sampleRetry1, sampleChaCha1},
	{"version 2", Version2, sampleClient2, sampleServer2, sampleRetry2, sampleChaCha2},
}

// TestSamples opens the packets of the RFCs.
func TestSamples(t *testing.T) {
	for _, v := range samples {
		t.Run(v.name, func(t *testing.T) {
			k := &keySet{version: v.version, scheme: schemesOf(v.version)[0], dcid: sampleID}
			var s scratch
			for side, b := range [][]byte{v.client, v.server} {
				p, rest, ok := next(b)
				if !ok || p.typ != initial || p.cut || len(rest) > 0 {
					t.Fatalf("side %d: %+v, %d bytes behind, %v", side, p, len(rest), ok)
				}
				frames, ok := s.open(k.opener(side), &p)
				want := [2][]byte{sampleClientFrames, sampleServerFrames}[side]
				if !ok || !bytes.HasPrefix(frames, want) || len(bytes.TrimLeft(frames[len(want):], "\x00")) > 0 {
					t.Errorf("side %d: %v %x", side, ok, frames)
				}
				if number := [2]uint64{2, 1}[side]; k.opener(side).next != number+1 {
					t.Errorf("side %d: packet number %d", side, k.opener(side).next-1)
				}
			}
			scheme := k.scheme
			if !scheme.retry.signed(v.retry, sampleID) {
				t.Error("the Retry's tag is wrong")
			}
			o := newOpener(tls13.ChaCha20, sampleChaChaSecret, scheme.labels)
			o.next = 654360564
			frames, ok := s.open(o, &packet{bytes: v.chacha, number: 1})
			if !ok || !bytes.Equal(frames, []byte{framePing}) || o.next != 654360565 {
				t.Errorf("ChaCha20: %v %x, packet number %d", ok, frames, o.next-1)
			}
		})
	}
}

// TestSampleSession gives a session the connection of the RFCs, in both orders.
func TestSampleSession(t *testing.T) {
	for _, v := range samples {
		for _, serverFirst := range []bool{false, true} {
			var d Decoder
			s := d.Open()
			var got []Message
			if serverFirst {
				r := s.Datagram(1, v.server)
				if !r.Blind || r.Connection != -1 || len(r.Messages) > 0 {
					t.Errorf("%s: the server's Initial alone: %+v", v.name, r)
				}
			}
			r := s.Datagram(0, v.client)
			if r.Connection != 0 || r.Client != 0 || r.Version != v.version || r.Blind {
				t.Errorf("%s: %+v", v.name, r)
			}
			got = append(got, r.Messages...)
			if !serverFirst {
				r = s.Datagram(1, v.server)
				got = append(got, r.Messages...)
			}
			if len(got) != 2 || got[0].Type != tls.TypeClientHello || got[1].Type != tls.TypeServerHello ||
				got[0].Direction != 0 || got[1].Direction != 1 || !got[0].Whole() || !got[1].Whole() {
				t.Fatalf("%s: server first %v: %+v", v.name, serverFirst, got)
			}
			if h, ok := tls.ParseClientHello(got[0].Head, false); !ok || !h.Whole || string(h.ServerName) != "example.com" {
				t.Errorf("%s: %+v", v.name, h)
			}
			if h, ok := tls.ParseServerHello(got[1].Head); !ok || !h.Whole || h.CipherSuite != 0x1301 || h.Version() != tls.VersionTLS13 {
				t.Errorf("%s: %+v", v.name, h)
			}
			s.Close()
			if d.pool.Held() != 0 || d.waits != 0 {
				t.Errorf("%s: %d and %d bytes held after the end", v.name, d.pool.Held(), d.waits)
			}
		}
	}
}

// TestRetryKeys derives the keys of Retry tags from the secrets that the
// documents give (RFC 9001, section 5.8; RFC 9369, section 3.3.3; and
// draft-ietf-quic-tls-29, section 5.8).
func TestRetryKeys(t *testing.T) {
	for _, c := range []struct {
		name, secret, labels string
		k                    *retryKey
	}{
		{"version 1", "d9c9943e6101fd200021506bcc02814c73030f25c79d71ce876eca876e6fca8e", "tls13 quic ", retry1},
		{"version 2", "c4dd2484d681aefa4ff4d69c2c20299984a765a5d3c31982f38fc74162155e9f", "tls13 quicv2 ", retry2},
		{"draft 29", "8b0d37eb8535022ebc8d76a207d80df22646ec06dc809642c30a8baa2baaff4c", "tls13 quic ", retry29},
		{"draft 25", "656e61e336ae9417f7f0edd8d78d461e2aa7084aba7a14c1e9f726d55709169a", "tls13 quic ", retry25},
	} {
		secret := unhex(c.secret)
		nonce := tls13.ExpandLabel(sha256.New, secret, c.labels+"iv", 12)
		key := tls13.ExpandLabel(sha256.New, secret, c.labels+"key", 16)
		k := newRetryKey(hex.EncodeToString(key), hex.EncodeToString(nonce))
		if !bytes.Equal(nonce, c.k.nonce) || !bytes.Equal(k.aead.Seal(nil, nonce, nil, []byte("x")), c.k.aead.Seal(nil, nonce, nil, []byte("x"))) {
			t.Errorf("%s: key %x nonce %x", c.name, key, nonce)
		}
	}
}

func TestVarint(t *testing.T) { // RFC 9000, appendix A.1
	for _, c := range []struct {
		b    string
		v    uint64
		size int
	}{
		{"c2197c5eff14e88c", 151288809941952652, 8},
		{"9d7f3e7d", 494878333, 4},
		{"7bbd", 15293, 2},
		{"25", 37, 1},
		{"4025", 37, 2},
		{"7b", 0, 0},
		{"", 0, 0},
	} {
		if v, size := varint(unhex(c.b)); v != c.v || size != c.size {
			t.Errorf("%s: %d in %d", c.b, v, size)
		}
	}
}

func TestPacketNumber(t *testing.T) {
	if got := tls13.Number(0xa82f30ea+1, 0x9b32, 16); got != 0xa82f9b32 { // RFC 9000, appendix A.3
		t.Errorf("%#x", got)
	}
	for _, c := range []struct {
		expected, truncated uint64
		bits                int
		want                uint64
	}{{0, 0, 8, 0}, {0, 200, 8, 200}, {200, 3, 8, 259}, {259, 250, 8, 250}, {1 << 20, 0, 32, 0}} {
		if got := tls13.Number(c.expected, c.truncated, c.bits); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// negotiationPacket is a Version Negotiation packet.
func negotiationPacket(dcid, scid []byte, versions ...uint32) []byte {
	b := []byte{0xca, 0, 0, 0, 0, byte(len(dcid))}
	b = append(b, dcid...)
	b = append(append(b, byte(len(scid))), scid...)
	for _, v := range versions {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func TestLooks(t *testing.T) {
	with := func(b []byte, i int, v byte) []byte {
		b = bytes.Clone(b)
		b[i] = v
		return b
	}
	version := func(b []byte, v uint32) []byte {
		b = bytes.Clone(b)
		binary.BigEndian.PutUint32(b[1:], v)
		return b
	}
	for _, c := range []struct {
		name           string
		b              []byte
		looks, initial bool
	}{
		{"client's Initial", sampleClient1, true, true},
		{"server's Initial", sampleServer1, true, true},
		{"version 2, client", sampleClient2, true, true},
		{"version 2, server", sampleServer2, true, true},
		{"version 2's types in version 1: 0-RTT", version(sampleClient2, Version1), false, false}, // a token length is no length
		{"draft 29", version(sampleClient1, 0xff00001d), true, true},
		{"draft 22", version(sampleClient1, 0xff000016), true, true},
		{"draft 21", version(sampleClient1, 0xff000015), false, false},
		{"draft 35", version(sampleClient1, 0xff000023), false, false},
		{"mvfst", version(sampleClient1, 0xfaceb002), true, true},
		{"reserved version", version(sampleClient1, 0x1a2a3a4a), true, true},
		{"reserved version, too short for a client", version(sampleClient1, 0x1a2a3a4a)[:900], false, false},
		{"Google's Q050, which has no TLS", version(sampleClient1, 0x51303530), false, false},
		{"Retry", sampleRetry1, true, false},
		{"cut by the snaplen", sampleClient1[:60], true, true},
		{"fixed bit cleared", with(sampleClient1, 0, sampleClient1[0]&^0x40), true, false},
		{"short header", sampleChaCha1, false, false},
		{"Version Negotiation", negotiationPacket(sampleID, sampleID, 0x1a2a3a4a, Version1), true, true},
		{"that offers nothing known", negotiationPacket(sampleID, sampleID, 0x1a2a3a4a, 0x12345678), false, false},
		{"that offers nothing", negotiationPacket(sampleID, sampleID), false, false},
		{"connection ID too long", with(sampleClient1, 5, 21), false, false},
		{"length too short", func() []byte { b := with(sampleServer1, 16, 0x40); b[17] = 19; return b }(), false, false},
		{"DTLS", append([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60}, make([]byte, 60)...), false, false},
		{"RTP", append([]byte{0x80, 0x60, 0, 1, 0, 0, 0, 9}, make([]byte, 100)...), false, false},
		{"zeros but for the first bit", append([]byte{0xc0}, make([]byte, 1300)...), false, false},
		{"nothing", nil, false, false},
	} {
		if got := Looks(c.b); got != c.looks {
			t.Errorf("%s: looks %v", c.name, got)
		}
		if got := looksInitial(c.b); got != c.initial {
			t.Errorf("%s: looks initial %v", c.name, got)
		}
		for n := range c.b {
			if looksInitial(c.b[:n:n]) && !Looks(c.b[:n:n]) {
				t.Errorf("%s: prefix of %d looks initial, but not at all", c.name, n)
			}
		}
		if n := testing.AllocsPerRun(10, func() { Looks(c.b); looksInitial(c.b) }); n > 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

// TestLooksIsStrict throws random payloads at it: even with the version of
// QUIC, two in three fail on their lengths.
func TestLooksIsStrict(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, 200)
	plain, version := 0, 0
	const n = 200_000
	for range n {
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if Looks(b) {
			plain++
		}
		binary.BigEndian.PutUint32(b[1:], Version1)
		if looksInitial(b) {
			version++
		}
	}
	if plain > 0 || version > n/1000 {
		t.Errorf("%d of %d random payloads pass, %d with a version", plain, n, version)
	}
}

// TestPrefixes gives every prefix of the samples to a session: what is not
// whole shows nothing, and is counted.
func TestPrefixes(t *testing.T) {
	for _, v := range samples {
		for n := range v.client {
			var d Decoder
			s := d.Open()
			r := s.Datagram(0, v.client[:n:n])
			if len(r.Messages) > 0 || r.Connection != -1 {
				t.Fatalf("%s: prefix of %d: %+v", v.name, n, r)
			}
			if Looks(v.client[:n:n]) != (d.Stats().Cut == 1) {
				t.Fatalf("%s: prefix of %d: %+v", v.name, n, d.Stats())
			}
		}
		for n := range v.server {
			var d Decoder
			s := d.Open()
			s.Datagram(0, v.client)
			if r := s.Datagram(1, v.server[:n:n]); len(r.Messages) > 0 {
				t.Fatalf("%s: server's prefix of %d: %+v", v.name, n, r)
			}
		}
	}
}

// TestFlippedBits flips each bit of the samples: none of them yields a byte.
func TestFlippedBits(t *testing.T) {
	for _, v := range samples {
		var d Decoder
		s := d.Open()
		s.Datagram(0, v.client)
		opened := d.Stats().Initials
		b := bytes.Clone(v.server)
		for i := range 8 * len(b) {
			b[i/8] ^= 1 << (i % 8)
			if r := s.Datagram(1, b); len(r.Messages) > 0 || r.Closed {
				t.Errorf("%s: server's bit %d: %+v", v.name, i, r)
			}
			b[i/8] ^= 1 << (i % 8)
		}
		if got := d.Stats().Initials; got != opened {
			t.Errorf("%s: %d packets opened that were damaged", v.name, got-opened)
		}
		b = bytes.Clone(v.client)
		for i := 0; i < 8*len(b); i += 1 + i/400 { // every bit of the header, and ever fewer behind it
			var d Decoder
			s := d.Open()
			b[i/8] ^= 1 << (i % 8)
			if r := s.Datagram(0, b); len(r.Messages) > 0 || r.Connection != -1 {
				t.Errorf("%s: client's bit %d: %+v", v.name, i, r)
			}
			b[i/8] ^= 1 << (i % 8)
		}
	}
}

func TestFrames(t *testing.T) {
	b := slices.Concat(
		[]byte{0, 0, framePing},
		[]byte{frameACK, 9, 0x40, 0x80, 2, 1, 0, 0, 3, 1},
		[]byte{frameACKECN, 9, 1, 0, 1, 7, 0x80, 0, 0, 8, 9},
		[]byte{frameCrypto, 5, 3, 'a', 'b', 'c'},
		[]byte{0},
		[]byte{frameClose, 0x41, 0x28, frameCrypto, 2, 'n', 'o'},
		[]byte{frameCloseApplication, 12, 1, 'x'},
		[]byte{0, 0},
	)
	var types []uint64
	var crypto frame
	var codes []uint64
	rest := b
	for {
		f, r, ok := nextFrame(rest, frameCrypto)
		if !ok {
			break
		}
		rest = r
		types = append(types, f.typ)
		switch f.typ {
		case frameCrypto:
			crypto = f
		case frameClose, frameCloseApplication:
			codes = append(codes, f.code)
		}
	}
	if !slices.Equal(types, []uint64{framePing, frameACK, frameACKECN, frameCrypto, frameClose, frameCloseApplication}) ||
		crypto.offset != 5 || string(crypto.data) != "abc" || !slices.Equal(codes, []uint64{0x128, 12}) {
		t.Errorf("%v %+v %v", types, crypto, codes)
	}
	for _, bad := range [][]byte{
		nil, {0}, {4}, {frameCrypto}, {frameCrypto, 0, 1}, {frameACK, 1, 1, 0x3f, 0}, {frameClose, 1, 1, 5, 'a'}, {0x40},
		{frameACK, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0},
	} {
		if f, _, ok := nextFrame(bad, frameCrypto); ok {
			t.Errorf("%x: %+v", bad, f)
		}
	}
	r := Result{Closed: true, Code: 0x128}
	if alert, ok := r.Alert(); !ok || alert != 40 {
		t.Errorf("alert %d %v", alert, ok)
	}
	r.Code = 0x228
	if _, ok := r.Alert(); ok {
		t.Error("an application's error is an alert")
	}
}

// looksInitial reports whether a UDP payload begins with an Initial packet, from
// either side, or with Version Negotiation: the flow it is of needs a
// [Session]. It may be cut. Of random payloads one in 2^27 passes.
func looksInitial(b []byte) bool {
	p, _, ok := next(b)
	if !ok || p.typ != initial {
		return ok && p.typ == negotiation
	}
	// Only peers that know one another already may clear the fixed bit
	// (RFC 9287), and few do.
	return b[0]&0x40 != 0 && (!isReserved(p.version) || len(b) >= minInitialDatagram)
}
