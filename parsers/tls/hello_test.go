package tls

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/dreadl0ck/tlsx"
)

// extension is one extension on the wire.
func extension(typ uint16, data ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, typ)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

// clientHello is the body of a ClientHello with these extensions.
func clientHello(extensions ...[]byte) []byte {
	b := append([]byte{3, 3}, bytes.Repeat([]byte{0x42}, 32)...)
	b = append(b, 2, 0xaa, 0xbb)                       // session
	b = append(b, 0, 6, 0x0a, 0x0a, 0x13, 1, 0xc0, 47) // suites
	b = append(b, 1, 0)                                // compression
	all := slices.Concat(extensions...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(all)))
	return append(b, all...)
}

// realHellos are ClientHellos of crypto/tls in several configurations.
func realHellos(t testing.TB) (hellos [][]byte) {
	for _, c := range []*tls.Config{
		{ServerName: "www.update.example"},
		{ServerName: strings.Repeat("a", 63) + ".example", NextProtos: []string{"h2", "http/1.1"}},
		{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12},
		{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10, NextProtos: []string{"x"}},
		{ServerName: "a", CurvePreferences: []tls.CurveID{tls.CurveP384}, MinVersion: tls.VersionTLS13},
		{ServerName: "a", NextProtos: strings.Split(strings.Repeat("p-", 200)+"p", "-")},
	} {
		a, b := net.Pipe()
		go func() {
			tls.Client(a, c).Handshake()
			a.Close()
		}()
		header := make([]byte, RecordHeader)
		if _, err := b.Read(header); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, RecordLength(header))
		for n := 0; n < len(body); {
			k, err := b.Read(body[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
		b.Close()
		hellos = append(hellos, body[MessageHeader:])
	}
	return hellos
}

func TestClientHelloPrefixes(t *testing.T) {
	for _, body := range realHellos(t) {
		for n := range body {
			h, ok := ParseClientHello(body[:n:n], false)
			if ok != (n >= 34) {
				t.Fatalf("prefix of %d: ok %v", n, ok)
			}
			// Without extensions a hello is whole in SSL 3.0 to TLS 1.2.
			if h.Whole && len(h.Extensions) > 0 {
				t.Errorf("prefix of %d of %d is whole", n, len(body))
			}
		}
	}
}

func TestServerHello(t *testing.T) {
	hello := func(version uint16, random []byte, session []byte, suite uint16, extensions ...[]byte) []byte {
		b := binary.BigEndian.AppendUint16(nil, version)
		b = append(b, random...)
		b = append(append(b, byte(len(session))), session...)
		b = append(binary.BigEndian.AppendUint16(b, suite), 0)
		all := slices.Concat(extensions...)
		return append(binary.BigEndian.AppendUint16(b, uint16(len(all))), all...)
	}
	zeros := make([]byte, 32)
	draft := append(append([]byte{0x7f, 0x12}, zeros...), 0x13, 1, 0, 6, 0, 51, 0, 2, 0, 29)
	for _, c := range []struct {
		name    string
		body    []byte
		version uint16
		check   func(h *ServerHello) bool
	}{
		{"TLS 1.2", hello(0x0303, zeros, nil, 0xc02f, extension(ExtALPN, 0, 3, 2, 'h', '2')), 0x0303,
			func(h *ServerHello) bool { return string(h.ALPN) == "h2" && h.Whole && h.CipherSuite == 0xc02f }},
		{"TLS 1.3", hello(0x0303, zeros, zeros, 0x1301, extension(extSupportedVersions, 3, 4), extension(extKeyShare, 0, 29, 0, 1, 9)), 0x0304,
			func(h *ServerHello) bool { return h.Group == 29 && !h.PreSharedKey && len(h.SessionID) == 32 }},
		{"TLS 1.3, cut before its version", hello(0x0303, zeros, nil, 0x1301)[:39], 0x0304, func(h *ServerHello) bool { return !h.Whole }},
		{"pre-shared key", hello(0x0303, zeros, nil, 0x1301, extension(extSupportedVersions, 3, 4), extension(extPreSharedKey, 0, 0)), 0x0304,
			func(h *ServerHello) bool { return h.PreSharedKey }},
		{"retry", hello(0x0303, retryRandom, nil, 0x1301, extension(extSupportedVersions, 3, 4), extension(extKeyShare, 0, 24)), 0x0304,
			func(h *ServerHello) bool { return h.Retry && h.Group == 24 }},
		{"draft 18, without session and compression", draft, 0x7f12,
			func(h *ServerHello) bool { return h.CipherSuite == 0x1301 && h.Group == 29 && h.Whole }},
		{"raw public key", hello(0x0303, zeros, nil, 0xc02f, extension(extServerCertType, 2)), 0x0303,
			func(h *ServerHello) bool { return h.ServerRawKey && !h.ClientRawKey }},
	} {
		h, ok := ParseServerHello(c.body)
		if !ok || h.Version() != c.version || !c.check(&h) {
			t.Errorf("%s: ok %v, version %#x, %+v", c.name, ok, h.Version(), h)
		}
		for n := range c.body {
			if _, ok := ParseServerHello(c.body[:n:n]); ok != (n >= 34) {
				t.Errorf("%s: prefix of %d: ok %v", c.name, n, ok)
			}
		}
	}
}

// TestHasCertificate reads the names of the suites in tlsx's table.
func TestHasCertificate(t *testing.T) {
	n := 0
	for suite, name := range tlsx.CipherSuiteReg {
		if !strings.HasPrefix(name, "TLS_") || strings.Contains(name, "SCSV") || suite >= 0xff00 { // nor private use
			continue
		}
		kx, _, _ := strings.Cut(strings.TrimPrefix(name, "TLS_"), "_WITH_")
		want := true
		switch {
		case strings.Contains(kx, "_anon"), strings.HasPrefix(kx, "KRB5"), kx == "NULL", kx == "SRP_SHA",
			kx == "PSK", kx == "DHE_PSK", kx == "PSK_DHE", kx == "ECDHE_PSK", kx == "ECCPWD":
			want = false
		}
		if n++; HasCertificate(uint16(suite)) != want {
			t.Errorf("%04x %s (%s): %v, want %v", uint16(suite), name, kx, !want, want)
		}
	}
	if n < 300 {
		t.Errorf("only %d suites compared", n)
	}
}

func TestNamedCurve(t *testing.T) {
	for _, c := range []struct {
		body []byte
		want uint16
	}{
		{[]byte{3, 0, 29, 32}, 29},
		{[]byte{3, 0, 23}, 23},
		{[]byte{3, 0}, 0},
		{[]byte{1, 0, 0xff, 0xff}, 0},           // a prime of 2048 bits
		{[]byte{3, 0, 0xff, 0xff, 0xff}, 0},     // of 6144 bits
		{[]byte{1, 0, 23, 0, 0, 0, 0, 0, 0}, 0}, // explicit_prime
	} {
		if got := NamedCurve(c.body); got != c.want {
			t.Errorf("%x: %d, want %d", c.body, got, c.want)
		}
	}
}

func TestCertificates(t *testing.T) {
	body := []byte{0, 0, 11, 0, 0, 3, 0x30, 1, 2, 0, 0, 2, 0x30, 0}
	type cert struct {
		der   string
		whole bool
	}
	for _, c := range []struct {
		name string
		m    Message
		want []cert
		ok   bool
	}{
		{"whole", Message{Length: 14, Head: body}, []cert{{"\x30\x01\x02", true}, {"\x30\x00", true}}, true},
		{"empty", Message{Length: 3, Head: body[11:14:14][:0]}, nil, true},
		{"cut in the first", Message{Length: 14, Head: body[:8]}, []cert{{"\x30\x01", false}}, true},
		{"cut before the second's length", Message{Length: 14, Head: body[:10]}, []cert{{"\x30\x01\x02", true}}, true},
		{"hole in the first", Message{Length: 14, Head: body[:7], Tail: body[8:], TailAt: 8},
			[]cert{{"\x30", false}, {"\x30\x00", true}}, true},
		{"hole over a length", Message{Length: 14, Head: body[:9], Tail: body[11:], TailAt: 11}, []cert{{"\x30\x01\x02", true}}, true},
		{"hole from the first into the second", Message{Length: 14, Head: body[:8], Tail: body[13:], TailAt: 13}, []cert{{"\x30\x01", false}}, true},
		{"list longer than the message", Message{Length: 8, Head: body[:8]}, []cert{{"\x30\x01", false}}, false},
		{"certificate of no length", Message{Length: 6, Head: []byte{0, 0, 3, 0, 0, 0}}, nil, false},
		{"too short for a list", Message{Length: 2, Head: []byte{0, 0}}, nil, false},
	} {
		var got []cert
		ok := c.m.Certificates(func(der []byte, whole bool) bool {
			got = append(got, cert{string(der), whole})
			return true
		})
		if ok != c.ok || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v, %v", c.name, got, ok, c.want, c.ok)
		}
	}
}

func TestV2(t *testing.T) {
	challenge := bytes.Repeat([]byte{7}, 16)
	hello := append([]byte{0x80, 9 + 6 + 16, 1, 3, 1, 0, 6, 0, 0, 0, 16, 0, 0, 0x2f, 1, 0, 0x80}, challenge...)
	n, client := V2Length(hello)
	if n != len(hello) || !client {
		t.Fatalf("length %d of %d, client %v", n, len(hello), client)
	}
	h := ParseV2ClientHello(hello)
	if h.Version != 0x0301 || !bytes.Equal(h.CipherSuites, []byte{0, 0x2f}) || !bytes.Equal(h.Random, challenge) {
		t.Errorf("%+v", h)
	}
	der := []byte{0x30, 1, 2}
	server := append([]byte{0x80, 11 + 3 + 3 + 16, 4, 0, 1, 0, 2, 0, 3, 0, 3, 0, 16}, der...)
	server = append(append(server, 1, 0, 0x80), challenge...)
	if n, client = V2Length(server); n != len(server) || client {
		t.Fatalf("length %d of %d, client %v", n, len(server), client)
	}
	if got, resumed := ParseV2ServerHello(server); !bytes.Equal(got, der) || resumed {
		t.Errorf("certificate %x", got)
	}
	for i := range 13 { // every field that is checked
		b := bytes.Clone(hello)
		if b[i] ^= 0x55; i == 4 {
			continue
		}
		if n, _ := V2Length(b); n == len(hello) && i < 11 {
			t.Errorf("byte %d does not matter", i)
		}
	}
}

func FuzzClientHello(f *testing.F) {
	for _, b := range realHellos(f) {
		f.Add(b, false)
	}
	f.Add(clientHello(extension(ExtServerName, 0, 4, 0, 0, 1, 'a'), extension(ExtALPN, 0, 3, 2, 'h', '2')), false)
	f.Add(clientHello(extension(ExtServerName, 0, 4, 0, 0xff, 0xff, 'a')), false)
	f.Fuzz(func(t *testing.T, body []byte, datagram bool) {
		h, ok := ParseClientHello(body, datagram)
		if !ok {
			return
		}
		if len(h.Random) != 32 {
			t.Errorf("a random value of %d bytes", len(h.Random))
		}
		rest := h.Extensions
		for n := len(rest); len(rest) > 0; n = len(rest) {
			var ok bool
			if _, _, rest, ok = NextExtension(rest); !ok || len(rest) >= n {
				break
			}
		}
	})
}

func FuzzServerHello(f *testing.F) {
	f.Add(append(append([]byte{3, 3}, make([]byte, 33)...), 0xc0, 0x2f, 0, 0, 5, 0xff, 1, 0, 1, 0))
	f.Add(append(append([]byte{0x7f, 0x12}, make([]byte, 32)...), 0x13, 1, 0, 6, 0, 51, 0, 2, 0, 29))
	f.Fuzz(func(t *testing.T, body []byte) {
		h, ok := ParseServerHello(body)
		if ok != (len(body) >= 34) {
			t.Fatalf("ok %v for %d bytes", ok, len(body))
		}
		if len(h.Extensions) > len(body) || len(h.ALPN) > len(body) || len(h.SessionID) > 255 {
			t.Errorf("longer than the message: %+v", h)
		}
	})
}

func FuzzCertificates(f *testing.F) {
	f.Add([]byte{0, 0, 11, 0, 0, 3, 0x30, 1, 2, 0, 0, 2, 0x30, 0}, 14, 7, 1)
	f.Fuzz(func(t *testing.T, body []byte, length, hole, n int) {
		if length < 0 || hole < 0 || n < 0 {
			return
		}
		whole := Message{Length: len(body), Head: body}
		type cert struct {
			der   string
			whole bool
		}
		all := map[cert]bool{}
		whole.Certificates(func(der []byte, w bool) bool {
			all[cert{string(der), w}] = true
			return true
		})
		// With a hole in it, nothing is whole that was not before.
		hole = min(hole, len(body))
		n = min(n, len(body)-hole)
		m := Message{Length: len(body), Head: body[:hole], Tail: body[hole+n:], TailAt: hole + n}
		m.Certificates(func(der []byte, w bool) bool {
			if w && !all[cert{string(der), true}] {
				t.Errorf("%x is whole in %x without %d bytes at %d", der, body, n, hole)
			}
			return true
		})
		m.Length = length % (1 << 24)
		m.Certificates(func(der []byte, w bool) bool { return true })
	})
}

func FuzzV2(f *testing.F) {
	f.Add(append([]byte{0x80, 31, 1, 3, 1, 0, 6, 0, 0, 0, 16, 0, 0, 0x2f, 1, 0, 0x80}, make([]byte, 16)...))
	f.Add(append([]byte{0x80, 33, 4, 0, 1, 0, 2, 0, 3, 0, 3, 0, 16, 0x30, 1, 2, 1, 0, 0x80}, make([]byte, 16)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < V2Header {
			return
		}
		n, client := V2Length(b)
		switch {
		case n == 0 || n > len(b):
		case client:
			ParseV2ClientHello(b[:n])
		default:
			ParseV2ServerHello(b[:n])
		}
	})
}

func TestViewsDoNotAllocate(t *testing.T) {
	body := realHellos(t)[1]
	if n := testing.AllocsPerRun(100, func() { ParseClientHello(body, false) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
