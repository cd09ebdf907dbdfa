package ja

import (
	"bytes"
	stdtls "crypto/tls"
	"encoding/binary"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dreadl0ck/tlsx"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
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
	for _, c := range []*stdtls.Config{
		{ServerName: "www.update.example"},
		{ServerName: strings.Repeat("a", 63) + ".example", NextProtos: []string{"h2", "http/1.1"}},
		{InsecureSkipVerify: true, MaxVersion: stdtls.VersionTLS12},
		{InsecureSkipVerify: true, MinVersion: stdtls.VersionTLS10, MaxVersion: stdtls.VersionTLS10, NextProtos: []string{"x"}},
		{ServerName: "a", CurvePreferences: []stdtls.CurveID{stdtls.CurveP384}, MinVersion: stdtls.VersionTLS13},
		{ServerName: "a", NextProtos: strings.Split(strings.Repeat("p-", 200)+"p", "-")},
	} {
		a, b := net.Pipe()
		go func() {
			stdtls.Client(a, c).Handshake()
			a.Close()
		}()
		header := make([]byte, tls.RecordHeader)
		if _, err := b.Read(header); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, tls.RecordLength(header))
		for n := 0; n < len(body); {
			k, err := b.Read(body[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
		b.Close()
		hellos = append(hellos, body[tls.MessageHeader:])
	}
	return hellos
}

// ours decodes h without tlsx.
func ours(h tls.ClientHello) event.Offer {
	h.Whole = false // so that tlsx is not asked
	return Lists(&h)
}

func TestAgreesWithTLSX(t *testing.T) {
	hellos := realHellos(t)
	hellos = append(hellos,
		clientHello(),
		clientHello(extension(tls.ExtServerName, 0, 4, 0, 0, 1, 'a'), extension(tls.ExtSupportedGroups, 0, 4, 0x2a, 0x2a, 0, 29),
			extension(0x1a1a), extension(tls.ExtPointFormats, 1, 0)),
		clientHello()[:len(clientHello())-2],
	)
	for i, body := range hellos {
		h, ok := tls.ParseClientHello(body, false)
		if !ok || !h.Whole {
			t.Errorf("hello %d: not whole", i)
			continue
		}
		x, ok := decode(&h)
		if !ok {
			t.Errorf("hello %d: tlsx does not read it", i)
			continue
		}
		if uint16(x.HandshakeVersion) != h.Version || x.SNI != string(h.ServerName) ||
			!bytes.Equal(x.Random, h.Random) || !bytes.Equal(x.SessionID, h.SessionID) {
			t.Errorf("hello %d: version %x, name %q, random or session differ: tlsx has %x, %q", i, h.Version, h.ServerName, uint16(x.HandshakeVersion), x.SNI)
		}
		compareLists(t, Lists(&h), ours(h))
	}
}

func compareLists(t testing.TB, got, want event.Offer) {
	t.Helper()
	a, b := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range a.NumField() {
		f, g := a.Field(i), b.Field(i)
		if f.Kind() == reflect.Slice && f.Len() == 0 && g.Len() == 0 {
			continue
		}
		if !reflect.DeepEqual(f.Interface(), g.Interface()) {
			t.Errorf("%s: tlsx %v, ours %v", a.Type().Field(i).Name, f, g)
		}
	}
}

// TestTLSXFails keeps the hellos on which tlsx panics, fails or is wrong, and
// that therefore never reach it. When one of them does no harm any more, the
// guard against it may go.
func TestTLSXFails(t *testing.T) {
	overlong := make([]byte, 0xfffd-5)
	for _, c := range []struct {
		name string
		body []byte
		// what we make of it
		serverName string
		extensions int
	}{
		{"server name longer than its list", clientHello(extension(tls.ExtServerName, 0, 4, 0, 0xff, 0xff, 'a')), "", 1},
		{"two server names", clientHello(extension(tls.ExtServerName, 0, 8, 0, 0, 1, 'a', 0, 0, 1, 'b')), "a", 1},
		{"extension of nearly 65535 bytes", slices.Concat(clientHello(), extension(21, overlong...), make([]byte, 12)), "", 0},
		{"list of protocols that lies", clientHello(extension(tls.ExtALPN, 0, 3, 9, 'h', '2')), "", 1},
		{"list of groups of an odd length", clientHello(extension(tls.ExtSupportedGroups, 0, 3, 0, 29, 0)), "", 1},
		{"protocols twice", clientHello(extension(tls.ExtALPN, 0, 3, 2, 'h', '2'), extension(tls.ExtALPN, 0, 3, 2, 'h', '3')), "", 2},
		{"suites of an odd length", append(append([]byte{3, 3}, make([]byte, 32)...), 0, 0, 3, 0, 1, 2, 1, 0), "", 0},
		{"trailing bytes", append(clientHello(extension(tls.ExtServerName, 0, 4, 0, 0, 1, 'a')), 1, 2), "a", 1},
	} {
		h, ok := tls.ParseClientHello(c.body, false)
		if !ok {
			t.Errorf("%s: not parsed", c.name)
			continue
		}
		if _, ok := decode(&h); ok {
			t.Errorf("%s: goes to tlsx", c.name)
		}
		l := Lists(&h)
		if string(h.ServerName) != c.serverName || len(l.Extensions) != c.extensions {
			t.Errorf("%s: name %q, %d extensions", c.name, h.ServerName, len(l.Extensions))
		}
		if c.name == "protocols twice" && !slices.Equal(l.ALPN, []string{"h2"}) {
			t.Errorf("%s: %q", c.name, l.ALPN)
		}
	}

	// What it does with the first, and with the third.
	func() {
		defer func() {
			if recover() == nil {
				t.Error("tlsx bears a server name longer than its list")
			}
		}()
		var x tlsx.ClientHelloBasic
		x.Unmarshal(record(tls.TypeClientHello, clientHello(extension(tls.ExtServerName, 0, 4, 0, 0xff, 0xff, 'a'))))
	}()
	var x tlsx.ClientHelloBasic
	if x.Unmarshal(record(tls.TypeClientHello, clientHello(extension(tls.ExtServerName, 0, 8, 0, 0, 1, 'a', 0, 0, 1, 'b')))); x.SNI == "a" {
		t.Error("tlsx tells two server names apart")
	}
}

// TestPrefixes decodes hellos that are cut.
func TestPrefixes(t *testing.T) {
	for _, body := range realHellos(t) {
		for n := range body {
			h, ok := tls.ParseClientHello(body[:n:n], false)
			if l := Lists(&h); !ok && len(l.Extensions) > 0 {
				t.Fatalf("prefix of %d: extensions %v", n, l.Extensions)
			}
		}
	}
}

func FuzzClientHello(f *testing.F) {
	for _, b := range realHellos(f) {
		f.Add(b, false)
	}
	f.Add(clientHello(extension(tls.ExtServerName, 0, 4, 0, 0, 1, 'a'), extension(tls.ExtALPN, 0, 3, 2, 'h', '2')), false)
	f.Add(clientHello(extension(tls.ExtServerName, 0, 4, 0, 0xff, 0xff, 'a')), false)
	f.Fuzz(func(t *testing.T, body []byte, datagram bool) {
		h, ok := tls.ParseClientHello(body, datagram)
		if !ok {
			return
		}
		l := Lists(&h) // must not panic in tlsx either
		compareLists(t, l, ours(h))
		_, raw := JA3(&l)
		if strings.Count(raw, ",") != 4 || strings.Contains(raw, "--") || strings.Contains(raw, "-,") || strings.Contains(raw, ",-") {
			t.Errorf("JA3 %q", raw)
		}
		if j := JA4(&l, TCP); len(j) != 36 || j[10] != '_' || j[23] != '_' {
			t.Errorf("JA4 %q", j)
		}
		if x, ok := decode(&h); ok && x.SNI != string(h.ServerName) {
			t.Errorf("server name %q, tlsx has %q", h.ServerName, x.SNI)
		}
	})
}

func FuzzServerHello(f *testing.F) {
	f.Add(append(append([]byte{3, 3}, make([]byte, 33)...), 0xc0, 0x2f, 0, 0, 5, 0xff, 1, 0, 1, 0))
	f.Add(append(append([]byte{0x7f, 0x12}, make([]byte, 32)...), 0x13, 1, 0, 6, 0, 51, 0, 2, 0, 29))
	f.Fuzz(func(t *testing.T, body []byte) {
		h, ok := tls.ParseServerHello(body)
		if !ok {
			return
		}
		whole := h
		h.Whole = false // so that tlsx is not asked
		_, raw := JA3S(&h)
		if _, x := JA3S(&whole); x != raw {
			t.Errorf("JA3S %q, with tlsx %q", raw, x)
		}
	})
}
