package carrier

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// opening is a place where TLS may begin.
type opening struct {
	at      int
	carrier Carrier
}

// heard is what a scanner makes of a stream.
type heard struct {
	openings          []opening
	foreign, upgrades bool
	payload           string // out of packets
	carrier           Carrier
}

// scan gives b to s in pieces of n bytes, until TLS would come in packets, and
// those too.
func scan(t testing.TB, s, peer *Scanner, b []byte, cut func() int) (h heard) {
	if !s.Open() {
		t.Fatal("closed at the beginning")
	}
	at := 0
	for len(b) > 0 {
		part := b[:min(cut(), len(b))]
		b = b[len(part):]
		for len(part) > 0 {
			if s.Framed() {
				n, payload := s.Unframe(part)
				if n < 1 || n > len(part) || len(payload) > n+2 {
					t.Fatalf("%d of %d bytes, %d of payload", n, len(part), len(payload))
				}
				h.payload += string(payload)
				part = part[n:]
				at += n
				continue
			}
			foreign := s.Foreign()
			n := s.Scan(part, peer)
			if n < 1 || n > len(part) || n < len(part) && !s.Open() && !s.Framed() {
				t.Fatalf("%d of %d bytes, open %v", n, len(part), s.Open())
			}
			if foreign && (!s.Foreign() || s.Open()) {
				t.Fatal("no longer foreign")
			}
			part = part[n:]
			if at += n; s.Open() {
				h.openings = append(h.openings, opening{at, s.Carrier()})
			}
		}
	}
	h.foreign, h.upgrades, h.carrier = s.Foreign(), s.Upgrades(), s.Carrier()
	if h.carrier >= Carriers || s.Carrier().String() == "" || int(s.held) > maxUnit || s.left < 0 {
		t.Fatalf("%+v", s)
	}
	return h
}

func TestScanner(t *testing.T) {
	const hello = "\x16\x03\x01\x00"
	for _, tt := range []struct {
		stream string
		want   []opening
	}{
		{"EHLO c\r\nSTARTTLS\r\n" + hello, []opening{{18, SMTP}}},
		{"EHLO c\r\nSTARTTLS now\r\n", nil},
		{"xSTARTTLS\r\n", nil},
		{"220 mx\r\n250-a\r\n250 STARTTLS\r\n220 go\n" + hello, []opening{{8, SMTP}, {36, SMTP}}},
		{"220-mx\r\n220x\r\n", nil},
		{"a STARTTLS\r\n", []opening{{12, IMAP}}},
		{"* OK hi\r\nlong.tag OK\r\n", []opening{{22, IMAP}}},
		{"+OK\r\n+OKAY\r\n", []opening{{5, POP3}}},
		{"stls\r\n", []opening{{6, POP3}}},
		{"auth tls-p\r\n", []opening{{12, FTP}}},
		{"234 x\r\n", []opening{{7, FTP}}},
		{"200 x\r\n382 x\r\n", []opening{{14, NNTP}}},
		{"OK\r\n", nil},
		{"\"IMPLEMENTATION\" \"x\"\r\nOK\r\n", []opening{{26, Sieve}}},
		{":a 670 b :c\r\n", []opening{{13, IRC}}},
		{"S" + hello, []opening{{1, PostgreSQL}}},
		{"NS" + hello, []opening{{2, PostgreSQL}}},
		{"STLS\r\n", []opening{{1, PostgreSQL}, {6, POP3}}},
		{"N" + hello, nil},
		{strings.Repeat("x", 500) + "\nSTLS\r\n", []opening{{507, POP3}}},
		{"PROXY UNKNOWN\r\nSTLS\r\n", []opening{{15, ProxyProtocol}, {16, PostgreSQL}, {21, POP3}}},
		{"<stream:stream a='/'>\n<starttls b=''/>", []opening{{38, XMPP}}},
		{"<a>\n<starttlsx", nil},
		{"CONNECT a:1 HTTP/1.1\r\nA: b\r\n\r\n" + hello, []opening{{30, HTTPConnect}}},
		{"CONNECT a:1 HTTP/1.1\nA: b\n\n", []opening{{27, HTTPConnect}}},
		{"HTTP/1.1 200 OK\r\n\r\n", []opening{{19, HTTPConnect}}},
		{"HTTP/1.1 407 No\r\nContent-Length:  19\r\n\r\nHTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", []opening{{78, HTTPConnect}}},
		{"HTTP/1.1 407 No\r\nContent-Length: 99999999999999999999\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", nil},
		{"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 101 Switching\r\nUpgrade: TLS/1.0\r\n\r\n", []opening{{66, HTTPUpgrade}}},
		{"GET / HTTP/1.1\r\nupgrade: h2c, tls/1.2\r\n\r\n", []opening{{41, HTTPUpgrade}}},
		{"\x04\x01\x00\x50\x0a\x00\x00\x01u\x00", []opening{{10, SOCKS4}}},
		{"\x04\x01\x00\x50\x00\x00\x00\x01\x00h\x00", []opening{{11, SOCKS4a}}},
		{"\x00\x5a\x16\x03\x01\x00\x00\x00" + hello, []opening{{8, SOCKS4}}},
		{"\x05\x01\x00\x05\x01\x00\x01\x16\x03\x01\x00\x01\x00" + hello, []opening{{13, SOCKS5}}},
		{"\x05\x00\x05\x00\x00\x03\x01h\x00\x50" + hello, []opening{{10, SOCKS5}}},
		{"\x05\x02\x01\x00\x05\x00\x00\x01\x16\x03\x01\x00\x01\x00" + hello, []opening{{14, SOCKS5}}},
		{proxy2Signature + "\x20\x00\x00\x00\x05\x01\x00", []opening{{16, ProxyProtocol}}},
		{"\x03\x00\x00\x0b\x06\xe0\x00\x00\x00\x00\x00" + hello, []opening{{11, RDP}}},
		{"\x03\x00\x00\x0b\x06\xd0\x00\x00\x00\x00\x00", nil},
	} {
		for _, k := range []int{1, 2, 3, 1000} {
			var s, peer Scanner
			got := scan(t, &s, &peer, []byte(tt.stream), func() int { return k })
			if !slices.Equal(got.openings, tt.want) {
				t.Errorf("%q by %d: %v, want %v", tt.stream, k, got.openings, tt.want)
			}
		}
	}
}

func TestTokens(t *testing.T) {
	for stream, want := range map[string]string{
		"AUTH GSSAPI\r\nADAT FgMBAAUBAAEDAw==\r\nMIC x\r\nADAT aGVsbG8=\r\n":      "\x16\x03\x01\x00\x05\x01\x00\x01\x03\x03hello",
		"334 x\r\n335 ADAT=FgMB\n335-[ADAT=aGVsbG8]\r\n335 x\r\n235 ADAT=aG=\r\n": "\x16\x03\x01helloh",
		"+ FgMB\r\n334 aGVs\r\n+ bG8=\r\n* OK\r\n":                                "\x16\x03\x01hello",
		"AUTH X\r\nFgMB\r\naGVsbG8=\r\n*\r\n":                                     "\x16\x03\x01hello",
		"a AUTHENTICATE X FgMB\r\naGVsbG8=\r\n":                                   "\x16\x03\x01hello",
		"FgMB\r\n":                                                                "", "x FgMB\r\n": "", "ADAT xFgMB\r\n": "", "NOOP\r\nADATFgMB\r\n": "",
	} {
		for k := 1; k < 40; k++ {
			var s, peer Scanner
			if h := scan(t, &s, &peer, []byte(stream), func() int { return k }); h.payload != want {
				t.Errorf("%q by %d: %q, want %q", stream, k, h.payload, want)
			}
		}
	}
}

func TestUnframe(t *testing.T) {
	const packets = "\x12\x01\x00\x0a\x00\x00\x01\x00\x00\x01" + // a pre-login
		"\x12\x00\x00\x0b\x00\x00\x00\x00abc" + "\x12\x01\x00\x08\x00\x00\x01\x00" + "\x12\x01\x00\x09\x00\x00\x01\x00d"
	for k := 1; k < len(packets); k++ {
		var s, peer Scanner
		if h := scan(t, &s, &peer, []byte(packets), func() int { return k }); h.payload != "\x00\x01abcd" || !s.Framed() || s.Foreign() {
			t.Errorf("by %d: %q, framed %v", k, h.payload, s.Framed())
		}
	}
	var s, peer Scanner
	scan(t, &s, &peer, []byte(packets[:20]), func() int { return 4 })
	if !s.Skip(1) || !s.Framed() {
		t.Error("a gap within a packet loses the framing")
	}
	if s.Skip(1); s.Framed() {
		t.Error("a gap in a header does not")
	}
}

func TestSize(t *testing.T) {
	if n := unsafe.Sizeof(Scanner{}); n > 80 {
		t.Errorf("a scanner takes %d bytes", n)
	}
}

// seeds are streams of all the protocols.
var seeds = []string{
	"AUTH GSSAPI\r\nADAT FgMBAAUBAAEDAw==\r\nADAT FgMBAAUBAAED\r\n", "334 x\r\n335 ADAT=FgMBAAUCAAEDAw==\r\n235-a\r\n235 ADAT=AAAA\r\n",
	"AUTH GSSAPI\r\nFgMBAAUBAAEDAw==\r\nAAEC\r\n*\r\n", "a AUTHENTICATE GSSAPI FgMBAAUBAAEDAw\r\nQUFB\r\n", "+ FgMBAAUC\r\n+ AAED\r\n",
	"EHLO c\r\nSTARTTLS\r\n\x16\x03\x01", "220 mx\r\n250-a\r\n250 STARTTLS\r\n220 go\r\n\x16\x03\x01",
	"* OK hi\r\na OK\r\n", "a STARTTLS\r\n", "+OK\r\n", "STLS\r\n", "AUTH TLS\r\n", "234 x\r\n", "382 x\r\n",
	"\"IMPLEMENTATION\" \"x\"\r\nOK\r\n", ":a 670 b :c\r\n", "NS\x16\x03", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nCAPA\r\n",
	"<?xml version='1.0'?><stream:stream a='b'><starttls/><proceed/>",
	"CONNECT a:1 HTTP/1.1\r\nContent-Length: 3\r\n\r\n\x05\x01\x00", "GET http://a/ HTTP/1.1\r\nUpgrade: TLS/1.0\r\n\r\nCONNECT a:1 HTTP/1.1\r\n\r\n",
	"HTTP/1.1 407 No\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 101 S\r\n\r\n",
	"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037", "\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00",
	"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x0b\x00\x00\x00", "\x03\x00\x00\x13\x0e\xd0\x00\x00\x12\x34\x00\x02\x1f\x08\x00\x08\x00\x00\x00",
	"\x00\x00\x00\x08\x04\xd2\x16\x2f", "\x00\x00\x00\x08\x04\xd2\x16\x30\x00\x00\x00\x10\x00\x03\x00\x00user\x00a\x00\x00",
	"\x4a\x00\x00\x00\x0a5.7.16\x00" + strings.Repeat("x", 66) + "\x01\x00\x00\x02\x00", "\x20\x00\x00\x01\x8f\xaa" + strings.Repeat("\x00", 30),
	"\x12\x01\x00\x0a\x00\x00\x01\x00\x00\x01\x12\x00\x00\x0b\x00\x00\x00\x00abc\x10\x01\x00\x0b\x00\x00\x00\x00abc",
	"\x04\x01\x00\x25\x00\x00\x01\x00\x00\x00\x15", "\x04\x01\x00\x50\x00\x00\x00\x01u\x00h\x00", "\x00\x5a\x00\x00\x00\x00\x00\x00",
	"AMQP\x02\x01\x00\x00", "AMQP\x03\x01\x00\x00", "\x10\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x0b\x00\x00\x00",
	"@t=1 :a CAP * LS\r\n670 a\r\n", "X-ANONYMOUSTLS\r\n", "<s:stream><t:starttls/></t:proceed>", "HTTP/1.1 426 U\r\n\r\nHTTP/1.1 101 S\r\n\r\n",
	"\x05\x02\x00\x02\x01\x01u\x01p\x05\x01\x00\x03\x01h\x00\x50", "\x05\x00\x05\x00\x00\x01\x01\x02\x03\x04\x00\x50",
	proxy2Signature + "\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02SSH-2", "\x00\x00\x00\x45\xfeSMB",
}

// FuzzScanner cuts streams at random: what is heard must not depend on it.
func FuzzScanner(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s), []byte(nil), uint64(0x0123456789abcdef))
		f.Add([]byte(s), []byte("CONNECT a:1 HTTP/1.1\r\n\r\n"), uint64(1))
		f.Add([]byte(s), []byte("GET http://a/ HTTP/1.1\r\n\r\n"), uint64(77))
	}
	f.Fuzz(func(t *testing.T, b, other []byte, cuts uint64) {
		var peer Scanner
		scan(t, &peer, new(Scanner), other, func() int { return 1 << 20 })
		var whole, cut Scanner
		want := scan(t, &whole, &peer, b, func() int { return 1 << 20 })
		got := scan(t, &cut, &peer, b, func() int {
			cuts = cuts*6364136223846793005 + 1442695040888963407
			return int(1 + cuts>>60)
		})
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("whole %+v\ncut %+v", want, got)
		}
	})
}

// FuzzGaps takes bytes out: nothing may go out of bounds.
func FuzzGaps(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s), uint64(0x0123456789abcdef))
	}
	f.Fuzz(func(t *testing.T, b []byte, cuts uint64) {
		var s, peer Scanner
		for len(b) > 0 {
			cuts = cuts*6364136223846793005 + 1442695040888963407
			n := min(int(1+cuts>>60), len(b))
			if cuts>>32&7 == 0 {
				s.Skip(n)
				if s.Open() && !s.Framed() {
					t.Fatal("open behind a gap")
				}
			} else if s.Framed() {
				n, _ = s.Unframe(b[:n])
			} else {
				n = s.Scan(b[:n], &peer)
			}
			if n < 1 || s.left < 0 || s.Carrier() >= Carriers {
				t.Fatalf("%d, %+v", n, s)
			}
			b = b[n:]
		}
	})
}

func BenchmarkScan(b *testing.B) {
	for name, s := range map[string]string{
		"lines": "a line of a long mail, of the length that lines have, more or less\r\n",
		"bytes": "\x80\x81\x82\x83\x84\x85\x86\x87",
	} {
		b.Run(name, func(b *testing.B) {
			text := []byte(strings.Repeat(s, 1400/len(s)))
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			var s, peer Scanner
			for b.Loop() {
				for rest := text; len(rest) > 0; {
					rest = rest[s.Scan(rest, &peer):]
				}
			}
		})
	}
}

// TestNames holds the list of carriers to what documents say of it.
func TestNames(t *testing.T) {
	names := map[string]Carrier{}
	for c := range Carriers {
		name, doc := c.String(), c.Doc()
		if other, taken := names[name]; taken || name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Errorf("carrier %d is called %q, as is %d", c, name, other)
		}
		names[name] = c
		if !strings.HasSuffix(doc, ".") || doc != strings.TrimSpace(doc) || strings.ToUpper(doc[:1]) != doc[:1] {
			t.Errorf("%s: %q is not a sentence", name, doc)
		}
		agreed := c >= SMTP && c <= AMQP
		if strings.HasPrefix(name, "starttls-") != agreed {
			t.Errorf("%s: agreed upon in the clear: %v", name, agreed)
		}
	}
}
