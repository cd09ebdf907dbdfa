package parsers

import (
	"bytes"
	"compress/zlib"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/parsers/tls13"
)

// secretOf is the secret of a key log whose label is label.
func secretOf(t testing.TB, log []byte, label string) []byte {
	t.Helper()
	for line := range strings.Lines(string(log)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == label {
			b, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	t.Fatalf("no %s in the key log", label)
	return nil
}

// sealer encrypts, with a secret, what the tests send.
type sealer struct {
	aead cipher.AEAD
	iv   []byte
	mask *tls13.Mask
	next uint64
}

func newSealer(t testing.TB, secret []byte, suite uint16, prefix string) *sealer {
	t.Helper()
	l := tls13.Suites(suite, len(secret))
	if len(l) != 1 {
		t.Fatalf("no suite %#x", suite)
	}
	s := l[0]
	aead, err := s.AEAD(tls13.ExpandLabel(s.Hash, secret, prefix+"key", s.Key))
	if err != nil {
		t.Fatal(err)
	}
	mask, err := tls13.NewMask(s, tls13.ExpandLabel(s.Hash, secret, prefix+"sn", s.Key))
	if err != nil {
		t.Fatal(err)
	}
	return &sealer{aead: aead, iv: tls13.ExpandLabel(s.Hash, secret, prefix+"iv", 12), mask: mask}
}

func (s *sealer) seal(header, inner []byte) []byte {
	nonce := bytes.Clone(s.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(s.next >> (56 - 8*i))
	}
	s.next++
	return s.aead.Seal(bytes.Clone(header), nonce, inner, header)
}

// record is a record of TLS 1.3 with padding zeros.
func (s *sealer) record(typ uint8, content []byte, padding int) []byte {
	inner := append(append(bytes.Clone(content), typ), make([]byte, padding)...)
	return s.seal(binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+s.aead.Overhead())), inner)
}

// unified is a record of DTLS 1.3, of the handshake. The bits of flags say what
// the header has.
func (s *sealer) unified(typ uint8, content []byte, flags byte, id []byte) []byte {
	inner := append(bytes.Clone(content), typ)
	for len(inner) < 16 { // the sample for the header protection needs that
		inner = append(inner, 0)
	}
	header := append([]byte{0x20 | flags | 2}, id...)
	at := len(header)
	if flags&0x08 != 0 {
		header = append(header, byte(s.next>>8))
	}
	header = append(header, byte(s.next))
	numbers := len(header) - at
	if flags&0x04 != 0 {
		header = binary.BigEndian.AppendUint16(header, uint16(len(inner)+s.aead.Overhead()))
	}
	b := s.seal(header, inner)
	var mask [16]byte
	s.mask.Of(b[len(header):], &mask)
	for i := range numbers {
		b[at+i] ^= mask[i]
	}
	return b
}

// flight13 are the messages of a conversation: the ClientHello and the ServerHello
// as in their records, and the encrypted ones of both sides.
type flight13 struct {
	hellos [2][]byte // records
	rest   [2][][]byte
	suite  uint16
	secret [2][]byte
}

func flightOf(t testing.TB, c conversation13) (f flight13) {
	t.Helper()
	f.secret = [2][]byte{secretOf(t, c.log, "CLIENT_HANDSHAKE_TRAFFIC_SECRET"), secretOf(t, c.log, "SERVER_HANDSHAKE_TRAFFIC_SECRET")}
	for d := range event.Direction(2) {
		s := tls13.NewStream(f.secret[d], 0, 0)
		var plain []byte
		for b := stream(d, c.chunks); len(b) > 0; {
			n := 5 + int(b[3])<<8 + int(b[4])
			r := b[:n]
			b = b[n:]
			switch {
			case r[0] == 22 && f.hellos[d] == nil:
				f.hellos[d] = r
			case r[0] == 23:
				if typ, content, ok := s.Open(nil, r[:5], r[5:], false); ok && typ == 22 {
					plain = append(plain, content...)
				}
			}
		}
		for len(plain) > 0 {
			n := 4 + tls.Uint24(plain[1:])
			f.rest[d] = append(f.rest[d], plain[:n])
			plain = plain[n:]
		}
	}
	h, ok := tls.ParseServerHello(f.hellos[1][9:])
	if !ok {
		t.Fatal("no ServerHello")
	}
	f.suite = h.CipherSuite
	return f
}

// certificate is the message in the place of the Certificate of direction d.
func (f *flight13) certificate(t testing.TB, d event.Direction) *[]byte {
	t.Helper()
	i := slices.IndexFunc(f.rest[d], func(m []byte) bool { return m[0] == tls.Certificate })
	if i < 0 {
		t.Fatal("no Certificate")
	}
	return &f.rest[d][i]
}

// chunks are the flights as they go over TCP, in records of at most n bytes.
func (f *flight13) chunks(t testing.TB, n, padding int) []chunk {
	l := []chunk{{0, f.hellos[0]}, {1, f.hellos[1]}, {1, []byte{20, 3, 3, 0, 1, 1}}}
	for _, d := range []event.Direction{1, 0} {
		s := newSealer(t, f.secret[d], f.suite, "tls13 ")
		for b := slices.Concat(f.rest[d]...); len(b) > 0; {
			k := min(n, len(b))
			l = append(l, chunk{d, s.record(22, b[:k], padding)})
			b = b[k:]
		}
	}
	return l
}

func compressed(t testing.TB, algorithm uint16, message []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	var w io.WriteCloser
	switch algorithm {
	case 1:
		w = zlib.NewWriter(&packed)
	case 2:
		w = brotli.NewWriter(&packed)
	case 3:
		z, err := zstd.NewWriter(&packed)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	}
	if w != nil {
		w.Write(message[4:])
		w.Close()
	}
	b := binary.BigEndian.AppendUint16(nil, algorithm)
	b = append(b, message[1:4]...)
	b = append(b, byte(packed.Len()>>16), byte(packed.Len()>>8), byte(packed.Len()))
	b = append(b, packed.Bytes()...)
	return append([]byte{tls.CompressedCertificate, byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...)
}

// Compressed certificates of both sides are decompressed; those that contradict
// themselves are lost.
func TestKeysCompression(t *testing.T) {
	c := conversations13(t)[2]
	for algorithm := uint16(1); algorithm <= 3; algorithm++ {
		for _, size := range []int{1 << 14, 100, 1} {
			f := flightOf(t, c)
			for d := range event.Direction(2) {
				m := f.certificate(t, d)
				*m = compressed(t, algorithm, *m)
			}
			s := keyedSensor(t, c.log)
			s.play(f.chunks(t, size, size%200), event.EndOfInput)
			s.check(t)
			c.checkChains(t, one(t, s.got))
		}
		for name, change := range map[string]func(m []byte) event.Loss{
			"announces less":     func(m []byte) event.Loss { m[8]--; return event.Malformed },
			"announces more":     func(m []byte) event.Loss { m[8]++; return event.Malformed },
			"announces too much": func(m []byte) event.Loss { m[6] = 0x20; return event.Limit },
			"other algorithm":    func(m []byte) event.Loss { m[5] = 9; return event.Malformed },
			"length lies":        func(m []byte) event.Loss { m[11]--; return event.Malformed },
			"not compressed":     func(m []byte) event.Loss { clear(m[12:]); return event.Malformed },
		} {
			f := flightOf(t, c)
			m := f.certificate(t, 1)
			*m = compressed(t, algorithm, *m)
			want := change(*m)
			s := keyedSensor(t, c.log)
			s.play(f.chunks(t, 1<<14, 0), event.EndOfInput)
			s.check(t)
			if h := one(t, s.got); h.Outcome != event.Lost || h.Loss != want || len(h.Chain) > 0 {
				t.Errorf("%d, %s: %v, %v, chain of %d", algorithm, name, h.Outcome, h.Loss, len(h.Chain))
			}
		}
	}
}

// Raw public keys (RFC 7250), which EncryptedExtensions announces.
func TestKeysRawPublicKey(t *testing.T) {
	c := conversations13(t)[2]
	f := flightOf(t, c)
	i := slices.IndexFunc(f.rest[1], func(m []byte) bool { return m[0] == tls.EncryptedExtensions })
	f.rest[1][i] = []byte{tls.EncryptedExtensions, 0, 0, 12, 0, 10, 0, 19, 0, 1, 2, 0, 20, 0, 1, 2}
	s := keyedSensor(t, c.log)
	s.play(f.chunks(t, 1<<14, 0), event.EndOfInput)
	s.check(t)
	if h := one(t, s.got); h.Outcome != event.None || h.RawKey == [32]byte{} || h.ClientRawKey == [32]byte{} || h.RawKey == h.ClientRawKey || len(h.Chain) > 0 {
		t.Errorf("%+v", h)
	}
}

// Records that stand between those of the handshake do no harm.
func TestKeysAmong(t *testing.T) {
	c := conversations13(t)[2]
	f := flightOf(t, c)
	var l []chunk
	for i, ch := range f.chunks(t, 300, 7) {
		l = append(l, ch)
		if i > 1 {
			l = append(l, chunk{ch.d, []byte{20, 3, 3, 0, 1, 1}}) // CCS
		}
	}
	s := keyedSensor(t, c.log)
	s.play(l, event.EndOfInput)
	s.check(t)
	c.check(t, one(t, s.got))
}

// datagrams are the flights as they go over DTLS 1.3, in fragments of n bytes. ids
// are the connection IDs in the records of each direction.
func (f *flight13) datagrams(t testing.TB, n int, flags byte, ids [2][]byte) (l []chunk) {
	var sequence [2]uint16
	fragments := func(d event.Direction, m []byte) (out [][]byte) {
		for off := 0; off == 0 || off < len(m)-4; off += n {
			body := m[4+off : min(len(m), 4+off+n)]
			b := append(bytes.Clone(m[:4]), byte(sequence[d]>>8), byte(sequence[d]), 0, byte(off>>8), byte(off), 0, byte(len(body)>>8), byte(len(body)))
			out = append(out, append(b, body...))
		}
		sequence[d]++
		return out
	}
	hello := func(d event.Direction) []byte {
		m := bytes.Clone(f.hellos[d][5:])
		if d == 0 { // a cookie, and versions of DTLS
			at := 4 + 2 + 32 + 1 + int(m[4+34])
			m = slices.Insert(m, at, 0)
			m[4], m[5] = 0xfe, 0xfd
			if ids[1] != nil {
				m = appendExtension(m, 54, append([]byte{byte(len(ids[1]))}, ids[1]...))
			}
		} else {
			m[4], m[5] = 0xfe, 0xfd
			if ids[0] != nil {
				m = appendExtension(m, 54, append([]byte{byte(len(ids[0]))}, ids[0]...))
			}
		}
		m = bytes.Replace(m, []byte{0, 43, 0, 2, 3, 4}, []byte{0, 43, 0, 2, 0xfe, 0xfc}, 1)
		m = bytes.Replace(m, []byte{0, 43, 0, 3, 2, 3, 4}, []byte{0, 43, 0, 3, 2, 0xfe, 0xfc}, 1)
		m[1], m[2], m[3] = byte((len(m)-4)>>16), byte((len(m)-4)>>8), byte(len(m)-4)
		whole := n
		n = 1 << 14
		b := fragments(d, m)[0]
		n = whole
		return dtlsRecord(22, 0, b)
	}
	for d := range event.Direction(2) {
		l = append(l, chunk{d, hello(d)})
	}
	for _, d := range []event.Direction{1, 0} {
		s := newSealer(t, f.secret[d], f.suite, "dtls13")
		var id []byte
		if id = ids[d]; id != nil {
			flags |= 0x10
		} else {
			flags &^= 0x10
		}
		var datagram []byte
		for _, m := range f.rest[d] {
			for _, b := range fragments(d, m) {
				r := s.unified(22, b, flags, id)
				if flags&0x04 == 0 || len(datagram)+len(r) > 1200 {
					if len(datagram) > 0 {
						l = append(l, chunk{d, datagram})
					}
					datagram = nil
				}
				datagram = append(datagram, r...)
			}
		}
		l = append(l, chunk{d, datagram})
		l = append(l, chunk{d, s.unified(26, make([]byte, 18), flags, id)}) // an ACK
	}
	return l
}

// signed is what a server signs that has sent l (RFC 9147, section 5.2): a message's
// header there has neither its number nor the place of a fragment.
func (f *flight13) signed(l []chunk) []byte {
	x := sha256.New()
	for _, ch := range l[:2] {
		m := ch.b[13:]
		x.Write(m[:4])
		x.Write(m[12:])
	}
	for _, m := range f.rest[1] {
		if m[0] == 15 {
			break
		}
		x.Write(m)
	}
	return x.Sum([]byte(strings.Repeat(" ", 64) + "TLS 1.3, server CertificateVerify\x00"))
}

// appendExtension adds an extension to a hello whose extensions come last.
func appendExtension(m []byte, typ uint16, data []byte) []byte {
	at := len(m)
	// The length of the block stands where the rest of the message is as long.
	for i := 4 + 34; i+2 < len(m); i++ {
		if int(binary.BigEndian.Uint16(m[i:])) == len(m)-i-2 {
			at = i
			break
		}
	}
	m = binary.BigEndian.AppendUint16(m, typ)
	m = binary.BigEndian.AppendUint16(m, uint16(len(data)))
	m = append(m, data...)
	binary.BigEndian.PutUint16(m[at:], uint16(len(m)-at-2))
	return m
}

// DTLS 1.3, whatever form the headers of its records have, in fragments, out of
// order and twice.
func TestKeysDTLS(t *testing.T) {
	c := conversations13(t)[2]
	f := flightOf(t, c)
	for _, set := range []struct {
		n     int
		flags byte
		ids   [2][]byte
		order string
	}{
		{1 << 14, 0x0c, [2][]byte{}, "sent"},
		{300, 0x0c, [2][]byte{}, "sent"},
		{300, 0x04, [2][]byte{}, "sent"},
		{300, 0x00, [2][]byte{}, "backwards"},
		{200, 0x08, [2][]byte{}, "twice"},
		{200, 0x0c, [2][]byte{{1, 2, 3}, {9}}, "backwards"},
		{500, 0x04, [2][]byte{nil, {9, 8, 7, 6, 5, 4, 3, 2}}, "sent"},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%+v late %v", set, late), func(t *testing.T) {
				l := f.datagrams(t, set.n, set.flags, set.ids)
				switch set.order {
				case "backwards":
					slices.Reverse(l[2:])
				case "twice":
					l = append(l, l[2:]...)
				}
				s := keyedSensor(t, c.log)
				if late {
					s.keys, s.wait = keysOf(t, nil), true
				}
				conn := s.Open(testFlow(event.UDP))
				for i, ch := range l {
					if i >= 2 && !LooksEncrypted(ch.b) {
						t.Fatalf("datagram %d does not look like one", i)
					}
					conn.Datagram(ch.d, event.Moment{Time: int64(i), Frame: uint64(i + 1)}, bytes.Clone(ch.b))
				}
				if late {
					if len(s.got) > 0 {
						t.Fatal("emitted before the secrets came")
					}
					s.keys.Add("test", c.log, nil)
					s.Tick(0)
				}
				conn.Close(event.EndOfInput)
				s.check(t)
				h := one(t, s.got)
				if h.Outcome != event.Extracted || !h.Established || !h.ClientAuth || h.Version != tls.VersionDTLS13 || h.Carrier != "dtls" || h.Certificate.Frame < 3 || s.Stats().Decrypted != 1 || s.records.Waiting != 0 {
					t.Errorf("%+v, %+v", h, s.Stats())
				}
				wantChain(t, h.Chain, c.server)
				wantChain(t, h.ClientChain, c.client)
				if want := f.signed(l); h.Proof.Missing != event.ProofSeen || !bytes.Equal(h.Proof.Signed, want) {
					t.Errorf("missing %d, signed %q, want %q", h.Proof.Missing, h.Proof.Signed, want)
				}
			})
		}
	}
	// A message that is lost may have been signed, whether it was needed or not.
	l := f.datagrams(t, 1<<14, 0x08, [2][]byte{})
	for lost := range len(l) {
		s := keyedSensor(t, c.log)
		conn := s.Open(testFlow(event.UDP))
		for i, ch := range l {
			if i != lost {
				conn.Datagram(ch.d, still, bytes.Clone(ch.b))
			}
		}
		conn.Close(event.EndOfInput)
		for _, h := range s.got {
			if h.Proof.Missing == event.ProofSeen && !bytes.Equal(h.Proof.Signed, f.signed(l)) {
				t.Errorf("without datagram %d: signed %q", lost, h.Proof.Signed)
			}
		}
	}
	s := keyedSensor(t, bytes.ReplaceAll(c.log, []byte("_SECRET "), []byte("_SECRET 00"))[:0])
	conn := s.Open(testFlow(event.UDP))
	for _, ch := range f.datagrams(t, 300, 0x0c, [2][]byte{}) {
		conn.Datagram(ch.d, still, ch.b)
	}
	conn.Close(event.EndOfInput)
	if h := one(t, s.got); h.Outcome != event.Encrypted || h.Version != tls.VersionDTLS13 {
		t.Errorf("without secrets: %+v", h)
	}
}
