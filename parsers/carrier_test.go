package parsers

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/record"
)

// talk returns turns of client and server, beginning with the client. An empty turn
// is skipped.
func talk(turns ...string) (l []chunk) {
	for i, s := range turns {
		if s != "" {
			l = append(l, chunk{event.Direction(i % 2), []byte(s)})
		}
	}
	return l
}

// tdsPacket is one packet of TDS (MS-TDS, section 2.2.3.1).
func tdsPacket(typ byte, last bool, payload []byte) []byte {
	b := []byte{typ, 0, 0, 0, 0, 0, 1, 0}
	if last {
		b[1] = 1
	}
	binary.BigEndian.PutUint16(b[2:], uint16(8+len(payload)))
	return append(b, payload...)
}

// inTDS puts what comes before encrypted data into pre-login packets of at most
// n bytes of payload.
func inTDS(chunks []chunk, n int) (l []chunk) {
	var sealed [2]bool
	for _, c := range merge(chunks) {
		var b []byte
		for part := range slices.Chunk(c.b, n) {
			if sealed[c.d] {
				b = append(b, part...)
				continue
			}
			b = append(b, tdsPacket(0x12, len(part) < n, part)...)
		}
		sealed[c.d] = sealed[c.d] || bytes.Contains(c.b, []byte{20, 3, 3, 0, 1, 1})
		l = append(l, chunk{c.d, b})
	}
	return l
}

// The pre-login exchange of a client that insists on encryption, with options
// VERSION, ENCRYPTION and the terminator (MS-TDS, section 2.2.6.5).
var (
	preLogin       = string(tdsPacket(0x12, true, []byte("\x00\x00\x0b\x00\x06\x01\x00\x11\x00\x01\xff\x0f\x00\x07\xd0\x00\x00\x01")))
	preLoginAnswer = string(tdsPacket(0x04, true, []byte("\x00\x00\x0b\x00\x06\x01\x00\x11\x00\x01\xff\x0f\x00\x07\xd0\x00\x00\x01")))
	mysqlGreeting  = "\x4a\x00\x00\x00\x0a5.7.16\x00Mh \x00\x097R+/%F)\x00\xff\xff\x08\x02\x00\xff\xc1\x15" + strings.Repeat("\x00", 10) +
		"idxDc~#fT\x08+\x1b\x00mysql_native_password\x00"
	mysqlSSL = "\x20\x00\x00\x01\x8f\xaa\x3a\x00\xff\xff\xff\x00\x21" + strings.Repeat("\x00", 23)

	longLDAP = "\x30\x84\x00\x00\x00\x2b\x02\x01\x01\x77\x84\x00\x00\x00\x22\x80\x84\x00\x00\x00\x161.3.6.1.4.1.1466.20037" + "\x81\x84\x00\x00\x00\x00"
)

// dialogue3 is a dialogue before TLS, and the carrier that it leads to.
type dialogue3 struct {
	name    string
	carrier string
	alone   [2]string // the carrier where only this direction was seen; the same as carrier if empty
	turns   []chunk
	wrap    int // TLS comes in TDS packets of this many bytes
}

var dialogues = []dialogue3{
	{"SMTP", "starttls-smtp", [2]string{}, talk(
		"", "220 mx.example ESMTP\r\n",
		"EHLO client.example\r\n", "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-STARTTLS\r\n250 HELP\r\n",
		"STARTTLS\r\n", "220 2.0.0 Ready to start TLS\r\n"), 0},
	{"SMTP, second attempt", "starttls-smtp", [2]string{}, talk(
		"", "220-mx.example\r\n220 ESMTP\r\n", "ehlo c\r\n", "250-mx\r\n250 STARTTLS\r\n", "StartTLS\r\n", "454 4.7.0 TLS not available\r\n",
		"NOOP\r\n", "250 ok\r\n", "starttls \r\n", "220\r\n"), 0},
	{"LMTP", "starttls-smtp", [2]string{}, talk("", "220 l LMTP\r\n", "LHLO c\r\n", "250-l\r\n250 STARTTLS\r\n", "STARTTLS\r\n", "220 go\r\n"), 0},
	{"SMTP between Exchange servers", "starttls-smtp", [2]string{}, talk(
		"", "220 mx\r\n", "EHLO c\r\n", "250-mx\r\n250 X-ANONYMOUSTLS\r\n", "X-ANONYMOUSTLS\r\n", "220 2.0.0 SMTP server ready\r\n"), 0},
	{"SMTP, mail first", "starttls-smtp", [2]string{}, talk(
		"", "220 mx\r\n", "EHLO c\r\nMAIL FROM:<a@c>\r\nRCPT TO:<b@mx>\r\nBDAT 10 LAST\r\nSTARTTLS\r\n", "250-CHUNKING\r\n250 STARTTLS\r\n250 ok\r\n250 ok\r\n250 ok\r\n",
		"STARTTLS\r\n", "220-2.0.0 go\r\n220 on\r\n"), 0},
	{"IMAP, a literal first", "starttls-imap", [2]string{}, talk(
		"", "* OK ready\r\n", "a LOGIN {10}\r\n", "+ go\r\n", "STARTTLS\r\n {2+}\r\n\x16\x03\r\n", "a NO\r\n", "b.2 StartTLS\r\n", "b.2 OK go\r\n"), 0},
	{"IMAP", "starttls-imap", [2]string{}, talk(
		"", "* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n", "a001 STARTTLS\r\n", "a001 OK Begin TLS negotiation now\r\n"), 0},
	{"IMAP, capability first", "starttls-imap", [2]string{}, talk(
		"", "* OK ready\r\n", "1 CAPABILITY\r\n", "* CAPABILITY IMAP4rev1 STARTTLS\r\n1 OK done\r\n", "2 starttls\r\n", "2 OK go\r\n"), 0},
	{"POP3", "starttls-pop3", [2]string{}, talk(
		"", "+OK POP3 ready\r\n", "CAPA\r\n", "+OK\r\nUSER\r\nSTLS\r\n.\r\n", "STLS\r\n", "+OK Begin TLS\r\n"), 0},
	{"FTP", "starttls-ftp", [2]string{}, talk(
		"", "220-Welcome\r\n220 ftp.example\r\n", "FEAT\r\n", "211-Features:\r\n AUTH TLS\r\n PBSZ\r\n211 End\r\n",
		"AUTH TLS\r\n", "234 AUTH TLS successful\r\n"), 0},
	{"FTP, everything at once", "starttls-ftp", [2]string{}, talk("", "220 ready\r\n", "USER a\r\nauth  tls-p\r\n", "331 password\r\n234 go\r\n"), 0},
	{"FTP, SSL after a login", "starttls-ftp", [2]string{}, talk(
		"", "220 ready\r\n", "USER a\r\n", "331 password\r\n", "PASS b\r\n", "230 in\r\n", "CWD /\r\n", "250 ok\r\n",
		"AUTH SSL\r\n", "234 go\r\n"), 0},
	{"LDAP", "starttls-ldap", [2]string{}, talk("\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037", "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"), 0},
	{"LDAP, lengths in long form", "starttls-ldap", [2]string{}, talk(longLDAP,
		"\x30\x84\x00\x00\x00\x28\x02\x01\x01\x78\x84\x00\x00\x00\x1f\x0a\x01\x00\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20037"), 0},
	{"LDAP, a bind first", "starttls-ldap", [2]string{}, talk("\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00", "\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
		"\x30\x1f\x02\x03\x00\x80\x02\x77\x18\x80\x161.3.6.1.4.1.1466.20037", "\x30\x0e\x02\x03\x00\x80\x02\x78\x07\x0a\x01\x00\x04\x00\x04\x00"), 0},
	{"LDAP, a search first", "starttls-ldap", [2]string{}, talk(
		"\x30\x25\x02\x01\x01\x63\x20\x04\x00\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\x00\x87\x0bobjectclass\x30\x00",
		"\x30\x81\xff\x02\x01\x01\x64\x81\xf9"+strings.Repeat("\x16\x03\x01", 83)+"\x30\x0c\x02\x01\x01\x65\x07\x0a\x01\x00\x04\x00\x04\x00",
		"\x30\x1d\x02\x01\x02\x77\x18\x80\x161.3.6.1.4.1.1466.20037", "\x30\x0c\x02\x01\x02\x78\x07\x0a\x01\x00\x04\x00\x04\x00"), 0},
	{"XMPP", "starttls-xmpp", [2]string{}, talk(
		"<?xml version='1.0'?>\n<stream:stream to='x.example' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>",
		"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' from='x' version='1.0'>"+
			"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>",
		"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), 0},
	{"XMPP, long tags", "starttls-xmpp", [2]string{}, talk(
		"<stream:stream to='x'>", "<stream:stream from='x'>", "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'></starttls>",
		"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'></proceed>"), 0},
	{"XMPP, prefixes of its own", "starttls-xmpp", [2]string{}, talk(
		"<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:server' version='1.0'>", "<s:stream version='1.0'><s:features/>",
		"<t:starttls xmlns:t='urn:ietf:params:xml:ns:xmpp-tls'/>", "<t:proceed xmlns:t='urn:ietf:params:xml:ns:xmpp-tls'/>"), 0},
	{"IRC, a server without a name", "starttls-irc", [2]string{"unknown", ""}, talk("STARTTLS\r\n", "670 nick :go\r\n"), 0},
	{"IRC, tags", "starttls-irc", [2]string{}, talk("CAP LS 302\r\n", "@time=2026-01-01T00:00:00.000Z :irc.example CAP * LS :tls\r\n",
		"STARTTLS\r\n", "@time=2026-01-01T00:00:00.000Z :irc.example 670 * :go\r\n"), 0},
	{"IRC", "starttls-irc", [2]string{"unknown", ""}, talk("STARTTLS\r\n", ":irc.example 670 * :STARTTLS successful, proceed with TLS handshake\r\n"), 0},
	{"IRC, capabilities first", "starttls-irc", [2]string{}, talk(
		"CAP LS\r\n", ":irc.example NOTICE * :*** Looking up your hostname\r\n:irc.example CAP * LS :tls multi-prefix\r\n",
		"STARTTLS\r\n", ":irc.example 670 * :go\r\n"), 0},
	{"NNTP", "starttls-nntp", [2]string{}, talk("", "200 news ready\r\n", "CAPABILITIES\r\n", "101 list\r\nVERSION 2\r\nSTARTTLS\r\n.\r\n", "STARTTLS\r\n", "382 go\r\n"), 0},
	{"Sieve, in small letters", "starttls-sieve", [2]string{"unknown", ""}, talk("", "\"Implementation\" \"x\"\r\nok\r\n", "noop \"a\"\r\n", "ok (tag \"a\") \"done\"\r\n", "starttls\r\n", "ok\r\n"), 0},
	{"Sieve", "starttls-sieve", [2]string{"unknown", ""}, talk(
		"", "\"IMPLEMENTATION\" \"Example1 ManageSieved v001\"\r\n\"SASL\" \"PLAIN\"\r\n\"STARTTLS\"\r\nOK\r\n", "STARTTLS\r\n",
		"OK \"Begin TLS negotiation now.\"\r\n"), 0},
	{"PostgreSQL", "starttls-postgresql", [2]string{}, talk("\x00\x00\x00\x08\x04\xd2\x16\x2f", "S"), 0},
	{"PostgreSQL, GSSAPI refused", "starttls-postgresql", [2]string{}, talk("\x00\x00\x00\x08\x04\xd2\x16\x30", "N", "\x00\x00\x00\x08\x04\xd2\x16\x2f", "S"), 0},
	{"MySQL", "starttls-mysql", [2]string{}, talk("", mysqlGreeting, mysqlSSL), 0},
	{"TDS", "tds", [2]string{}, talk(preLogin, preLoginAnswer), 4088},
	{"TDS, small packets", "tds", [2]string{}, talk(preLogin, preLoginAnswer), 100},
	{"TDS, packets of a byte", "tds", [2]string{}, talk(preLogin, preLoginAnswer), 1},
	{"RDP", "rdp", [2]string{}, talk("\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x0b\x00\x00\x00",
		"\x03\x00\x00\x13\x0e\xd0\x00\x00\x12\x34\x00\x02\x1f\x08\x00\x08\x00\x00\x00"), 0},
	{"RDP, a cookie", "rdp", [2]string{}, talk("\x03\x00\x00\x2f\x2a\xe0\x00\x00\x00\x00\x00Cookie: mstshash=administr\r\n\x01\x00\x08\x00\x03\x00\x00\x00"[:47],
		"\x03\x00\x00\x13\x0e\xd0\x00\x00\x12\x34\x00\x02\x1f\x08\x00\x01\x00\x00\x00"), 0},
	{"RDP, preconnection", "rdp", [2]string{"", "tls"}, talk("\x10\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x07\x00\x00\x00"), 0},
	{"RDP, preconnection by name", "rdp", [2]string{}, talk("\x18\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03\x00v\x00m\x00\x00\x00"+
		"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x0b\x00\x00\x00", "\x03\x00\x00\x13\x0e\xd0\x00\x00\x12\x34\x00\x02\x1f\x08\x00\x08\x00\x00\x00"), 0},
	{"AMQP", "starttls-amqp", [2]string{}, talk("AMQP\x02\x01\x00\x00", "AMQP\x02\x01\x00\x00"), 0},
	{"CONNECT", "http-connect", [2]string{}, talk("CONNECT test.example:443 HTTP/1.1\r\nHost: test.example\r\n\r\n", "HTTP/1.1 200 Connection established\r\n\r\n"), 0},
	{"CONNECT, a length that means nothing", "http-connect", [2]string{"", "tls"}, talk(
		"CONNECT test.example:443 HTTP/1.1\r\n\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 99999\r\n\r\n"), 0},
	{"CONNECT, a password first", "http-connect", [2]string{}, talk(
		"CONNECT test.example:443 HTTP/1.1\r\n\r\n",
		"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: NTLM\r\ncontent-length: 20000\r\n\r\n"+strings.Repeat("x", 20000),
		"CONNECT test.example:443 HTTP/1.1\r\nProxy-Authorization: NTLM abc\r\n\r\n",
		"HTTP/1.1 407 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"CONNECT test.example:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"), 0},
	{"CONNECT after a page", "http-connect", [2]string{"", "tls"}, talk(
		"GET http://test.example/ HTTP/1.1\r\nHost: test.example\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n"+strings.Repeat("p", 30),
		"CONNECT test.example:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"), 0},
	{"Upgrade", "http-upgrade", [2]string{}, talk(
		"OPTIONS * HTTP/1.1\r\nHost: test.example\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: TLS/1.0, HTTP/1.1\r\nConnection: Upgrade\r\n\r\n"), 0},
	{"Upgrade, because it is required", "http-upgrade", [2]string{}, talk(
		"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.0, HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nUpgrade: TLS/1.2, TLS/1.0\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: TLS/1.2, HTTP/1.1\r\n\r\n"), 0},
	{"SOCKS 4, an answer of version 4", "socks4", [2]string{}, talk("\x04\x01\x01\xbb\xc0\x00\x02\x07user\x00", "\x04\x5a\x01\xbb\xc0\x00\x02\x07"), 0},
	{"SOCKS 4", "socks4", [2]string{}, talk("\x04\x01\x01\xbb\xc0\x00\x02\x07user\x00", "\x00\x5a\x01\xbb\xc0\x00\x02\x07"), 0},
	{"SOCKS 4a", "socks4a", [2]string{"", "socks4"}, talk("\x04\x01\x01\xbb\x00\x00\x00\x01\x00test.example\x00", "\x00\x5a\x01\xbb\xc0\x00\x02\x07"), 0},
	{"SOCKS 5", "socks5", [2]string{}, talk("\x05\x01\x00", "\x05\x00", "\x05\x01\x00\x03\x0ctest.example\x01\xbb", "\x05\x00\x00\x01\xc0\x00\x02\x07\x01\xbb"), 0},
	{"SOCKS 5, a password", "socks5", [2]string{}, talk("\x05\x02\x00\x02", "\x05\x02", "\x01\x04user\x08passw\x16\x03\x01", "\x01\x00",
		"\x05\x01\x00\x04"+strings.Repeat("\x16\x03", 8)+"\x01\xbb", "\x05\x00\x00\x03\x0ctest.example\x01\xbb"), 0},
	{"PROXY 1", "proxy-protocol", [2]string{"", "tls"}, talk("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"), 0},
	{"PROXY 1, unknown", "proxy-protocol", [2]string{"", "tls"}, talk("PROXY UNKNOWN\r\n"), 0},
	{"PROXY 2", "proxy-protocol", [2]string{"", "tls"}, talk("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\xdc\x04\x01\xbb"), 0},
	{"PROXY and SMTP", "starttls-smtp", [2]string{}, talk("PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\r\n", "220 mx\r\n", "EHLO c\r\n", "250-mx\r\n250 STARTTLS\r\n", "STARTTLS\r\n", "220 go\r\n"), 0},
	{"SOCKS 5 and PostgreSQL", "starttls-postgresql", [2]string{}, talk("\x05\x01\x00", "\x05\x00", "\x05\x01\x00\x01\xc0\x00\x02\x07\x15\x38", "\x05\x00\x00\x01\xc0\x00\x02\x07\x15\x38",
		"\x00\x00\x00\x08\x04\xd2\x16\x2f", "S"), 0},
	{"CONNECT and TDS", "tds", [2]string{}, talk("CONNECT db:1433 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", preLogin, preLoginAnswer), 500},
	{"ten proxies", "http-connect", [2]string{}, slices.Repeat(talk("CONNECT a:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"), 10), 0},
}

// carried calls f with each dialogue and a handshake after it, and returns the chain
// of the handshake.
func carried(t testing.TB, f func(d dialogue3, chunks []chunk, chain [][]byte)) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	l := handshake(t, client, server)
	for _, d := range dialogues {
		inside := l
		if d.wrap > 0 {
			inside = inTDS(l, d.wrap)
		}
		f(d, slices.Concat(d.turns, inside), server.Certificates[0].Certificate)
	}
}

// slow reports whether segments of k bytes reach a limit on the number of segments,
// before the first line that shows the protocol, or later.
func slow(d dialogue3, k int) bool {
	for dir := range event.Direction(2) {
		l := only(dir, d.turns)
		if len(l) > 0 && (len(l[0].b) > k*record.MaxCleartextSegments || len(stream(dir, l)) > k*record.MaxDialogueSegments) {
			return true
		}
	}
	return false
}

func TestCarriers(t *testing.T) {
	carried(t, func(d dialogue3, chunks []chunk, chain [][]byte) {
		t.Run(d.name, func(t *testing.T) {
			want := one(t, split(t, chunks, func(n int) int { return n }))
			if want.Carrier != d.carrier || want.Outcome != event.Extracted || want.Client != 0 || !want.Established || want.ClientHello == nil {
				t.Fatalf("carrier %q, want %q; outcome %v, client %d, established %v", want.Carrier, d.carrier, want.Outcome, want.Client, want.Established)
			}
			wantChain(t, want.Chain, chain)
			same := func(name string, got []*event.Handshake) {
				t.Helper()
				if len(got) != 1 || !alike(got[0], want) {
					t.Fatalf("%s: %d handshakes %+v\nwant %+v", name, len(got), got, want)
				}
			}
			for _, k := range []int{1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 23} {
				if slow(d, k) {
					continue
				}
				same(fmt.Sprintf("every %d bytes", k), split(t, chunks, func(n int) int { return min(k, n) }))
			}
			r := rand.New(rand.NewPCG(1, 2))
			for range 30 {
				same("at random", split(t, chunks, func(n int) int { return 1 + r.IntN(n) }))
			}
			if d.name == "CONNECT after a page" {
				return // both directions are needed to know who answers whom
			}
			whole := []chunk{{0, stream(0, chunks)}, {1, stream(1, chunks)}}
			same("each direction in one segment", split(t, whole, func(n int) int { return n }))
			for range 20 {
				same("one direction first, at random", split(t, whole, func(n int) int { return 1 + r.IntN(n) }))
			}

			for dir := range event.Direction(2) {
				alone := d.alone[dir]
				if alone == "" {
					alone = d.carrier
				}
				if alone == "tls" && len(only(dir, d.turns)) > 0 {
					continue // the other direction is needed
				}
				for _, k := range []int{1, 4, 7, 1 << 20} {
					if slow(d, k) {
						continue
					}
					h := one(t, split(t, only(dir, chunks), func(n int) int { return min(n, k) }))
					if h.Carrier != alone || (h.Outcome == event.Extracted) != (dir == 1) {
						t.Errorf("direction %d alone, by %d: carrier %q, want %q; outcome %v", dir, k, h.Carrier, alone, h.Outcome)
					}
				}
			}
		})
	})
}

// TestCarrierPrefixes ends each dialogue and handshake after every byte.
func TestCarrierPrefixes(t *testing.T) {
	p := newSensor()
	carried(t, func(d dialogue3, chunks []chunk, _ [][]byte) {
		if d.wrap == 1 {
			return
		}
		before := 0
		for _, c := range d.turns {
			before += len(c.b)
		}
		for n := range before + 600 {
			p.got = nil
			c := p.Open(testFlow(event.TCP))
			rest := n
			for _, ch := range chunks {
				k := min(rest, len(ch.b))
				c.Segment(ch.d, still, ch.b[:k])
				rest -= k
			}
			c.Close(event.EndOfInput)
			p.check(t)
			if n <= before && len(p.got) > 0 || n > before+20 && len(p.got) != 1 {
				t.Fatalf("%s, %d bytes of %d and more: %d handshakes", d.name, n, before, len(p.got))
			}
		}
	})
}

// TestCarrierGaps takes bytes out of dialogues. TLS that begins with a segment is
// found anyway.
func TestCarrierGaps(t *testing.T) {
	p := newSensor()
	carried(t, func(d dialogue3, chunks []chunk, chain [][]byte) {
		if d.carrier == "tds" || d.name == "CONNECT after a page" || d.name == "CONNECT, a length that means nothing" {
			return // these need what is missing
		}
		for i, turn := range d.turns {
			for from := 0; from < len(turn.b); from += 3 {
				for _, n := range []int{1, 7, 1000} {
					to := min(from+n, len(turn.b))
					p.got = nil
					c := p.Open(testFlow(event.TCP))
					for j, ch := range chunks {
						if j != i {
							c.Segment(ch.d, still, ch.b)
							continue
						}
						c.Segment(ch.d, still, ch.b[:from])
						c.Gap(ch.d, still, to-from)
						c.Segment(ch.d, still, ch.b[to:])
					}
					c.Close(event.EndOfInput)
					p.check(t)
					if len(p.got) != 1 || p.got[0].Outcome != event.Extracted {
						t.Fatalf("%s: without %q of turn %d: %d handshakes", d.name, turn.b[from:to], i, len(p.got))
					}
					wantChain(t, p.got[0].Chain, chain)
				}
			}
			if i > 3 || len(turn.b) > 1000 {
				break
			}
		}
	})
}

// TestNoTLS plays dialogues after which TLS does not come. done is the turn after
// which that is known, 0 where it never is.
func TestNoTLS(t *testing.T) {
	for _, tt := range []struct {
		name  string
		turns []chunk
		done  int
	}{
		{"HTTP", talk("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), 2},
		{"HTTP, upgraded to something else", talk("GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n", "HTTP/1.1 101 S\r\n\r\n"), 2},
		{"HTTP, the request interrupted", talk("PUT / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n",
			"", "HTTP/1.1 204 No Content\r\n\r\n"), 3},
		{"HTTP, the server alone", talk(slices.Concat([]string{"", "HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\nhello"}, slices.Repeat([]string{"", "more"}, oneSided))...), oneSided + 1},
		{"HTTP, the upgrade ignored", talk("OPTIONS * HTTP/1.1\r\nUpgrade: TLS/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
			"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"), 4},
		{"CONNECT refused", talk("CONNECT a:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"), 0},
		{"SSH through a proxy", talk("CONNECT a:22 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "SSH-2.0-x\r\n"), 3},
		{"HTTP/2", talk("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x04\x00\x01\x00\x00\x00\x05\x00\xff\xff\xff"), 2},
		{"SSH", talk("", "SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-x\r\n"), 2},
		{"SMB", talk("\x00\x00\x00\x45\xffSMBr\x00", "\x00\x00\x00\x45\xffSMBr\x00"), 2},
		{"a capture", talk("\xd4\xc3\xb2\xa1\x02\x00\x04\x00"+strings.Repeat("\x00", 16), "ok"), 2},
		{"SMTP refused", talk("", "220 mx\r\n", "EHLO c\r\n", "250 STARTTLS\r\n", "STARTTLS\r\n", "454 no\r\n", "MAIL FROM:<a@b>\r\n", "250 ok\r\n"), 0},
		{"IMAP refused", talk("", "* OK\r\n", "1 STARTTLS\r\n", "1 BAD no\r\n", "2 LOGIN a b\r\n"), 0},
		{"POP3 refused", talk("", "+OK\r\n", "STLS\r\n", "-ERR no\r\n", "USER a\r\n"), 0},
		{"FTP refused", talk("", "220 f\r\n", "AUTH TLS\r\n", "534 no\r\n", "USER a\r\n"), 0},
		{"LDAP refused", talk("\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037", "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00",
			"\x30\x05\x02\x01\x02\x42\x00"), 0},
		{"XMPP refused", talk("<stream:stream>", "<stream:stream>", "<starttls/>", "<failure/></stream:stream>"), 0},
		{"PostgreSQL refused", talk("\x00\x00\x00\x08\x04\xd2\x16\x2f", "N", "\x00\x00\x00\x10\x00\x03\x00\x00user\x00a\x00\x00"), 3},
		{"PostgreSQL", talk("\x00\x00\x00\x10\x00\x03\x00\x00user\x00a\x00\x00", "R\x00\x00\x00\x08\x00\x00\x00\x00"), 2},
		{"PostgreSQL, a cancellation", talk("\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02", "E"), 2},
		{"MySQL", talk("", mysqlGreeting, "\x05\x00\x00\x01\x00\x00\x00\x00\x00", "\x01\x00\x00\x02\x00"), 3},
		{"TDS", talk(preLogin, preLoginAnswer, string(tdsPacket(0x10, true, make([]byte, 90)))), 3},
		{"TDS, the server first", talk("", preLoginAnswer, "", string(tdsPacket(4, false, make([]byte, 90))), "", string(tdsPacket(4, true, make([]byte, 90))), preLogin), 4},
		{"AMQP", talk("AMQP\x00\x00\x09\x01", "AMQP\x00\x01\x00\x00"), 2},
		{"RDP without TLS", talk("\x03\x00\x00\x0b\x06\xe0\x00\x00\x00\x00\x00", "\x03\x00\x00\x0b\x06\xd0\x00\x00\x12\x34\x00"), 2},
		{"RDP refused", talk("\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x01\x00\x00\x00",
			"\x03\x00\x00\x13\x0e\xd0\x00\x00\x12\x34\x00\x03\x00\x08\x00\x02\x00\x00\x00"), 2},
		{"SOCKS 4 refused", talk("\x04\x01\x01\xbb\xc0\x00\x02\x07\x00", "\x00\x5b\x00\x00\x00\x00\x00\x00"), 2},
	} {
		for _, k := range []int{1 << 20, 1} {
			s := newSensor()
			c := s.Open(testFlow(event.TCP))
			done := 0
			for i, ch := range tt.turns {
				for part := range slices.Chunk(ch.b, min(k, len(ch.b))) {
					if c.Segment(ch.d, still, part) == Done && done == 0 {
						done = i + 1
					}
				}
			}
			c.Close(event.EndOfInput)
			s.check(t)
			// Many segments of one side alone may show it earlier.
			if len(s.got) > 0 || done != tt.done && (k > 1 || done > tt.done || done == 0) {
				t.Errorf("%s, by %d: %d handshakes, done after %d, want %d", tt.name, k, len(s.got), done, tt.done)
			}
		}
	}
}

// TestLongDialogues lets the upgrade come late, or never.
func TestLongDialogues(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	l := handshake(t, client, server)
	ftp := talk("", "220 ftp\r\n")
	for range 3000 {
		ftp = append(ftp, talk("CWD /some/where/deep/down/in/the/tree\r\n", "250 Directory changed.\r\n")...)
	}
	ftp = append(ftp, talk("AUTH TLS\r\n", "234 go\r\n")...)
	h := one(t, split(t, slices.Concat(ftp, l), func(n int) int { return n }))
	if h.Carrier != "starttls-ftp" || h.Outcome != event.Extracted {
		t.Errorf("late: carrier %q, outcome %v", h.Carrier, h.Outcome)
	}

	for _, tt := range []struct {
		name        string
		begin, more string
		limit       int
	}{
		{"SMTP", "EHLO c\r\n", "a line of a long mail, and more of it\r\n", record.MaxDialogue},
		{"unknown lines", "hello\r\n", "a line of a long text, and more of it\r\n", record.MaxCleartext},
		{"unknown bytes", "\x80\x81", "\x16\x03\x01\x02\x00\x99\x98\x97\x01\x00", record.MaxCleartext},
		{"one line", "", "x", record.MaxCleartext},
		{"PROXY headers", "", "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", record.MaxDialogue},
		{"tunnels", "", "CONNECT a:1 HTTP/1.1\r\n\r\n", record.MaxDialogue},
		{"SOCKS requests", "", "\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x07\x01\xbb", record.MaxDialogue},
		{"LDAP requests to start TLS", "", "\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037", record.MaxDialogue},
		{"commands to start TLS", "EHLO c\r\n", "STARTTLS\r\n", record.MaxDialogue},
		{"TDS", preLogin, preLogin, record.MaxDialogue},
	} {
		s := newSensor()
		more := []byte(strings.Repeat(tt.more, 1+1400/len(tt.more)))
		n := 0
		var c *Conn
		run := func() {
			c = s.Open(testFlow(event.TCP))
			n = len(tt.begin)
			c.Segment(1, still, []byte("?\r\n")) // without this, TLS could be the first thing that it says
			for v := c.Segment(0, still, []byte(tt.begin)); v == NeedMore && n < 4*record.MaxDialogue; n += len(more) {
				v = c.Segment(0, still, more)
			}
			c.Close(event.EndOfInput)
		}
		run()
		if n < tt.limit || n > tt.limit+2*len(more) {
			t.Errorf("%s: given up after %d bytes, want %d", tt.name, n, tt.limit)
		}
		f := testFlow(event.TCP)
		begin := []byte(tt.begin)
		if a := testing.AllocsPerRun(3, func() {
			c = s.Open(f)
			c.Segment(0, still, begin)
			for range 20 {
				c.Segment(0, still, more)
			}
			c.Close(event.EndOfInput)
		}); a > 0 {
			t.Errorf("%s: %v allocations", tt.name, a)
		}
		if s.check(t); len(s.got) > 0 {
			t.Errorf("%s: %d handshakes", tt.name, len(s.got))
		}
	}
}

// TestDirectTLS plays TLS from the first byte, whose ALPN names the protocol inside.
func TestDirectTLS(t *testing.T) {
	for alpn, want := range map[string]string{"postgresql": "postgresql", "tds/8.0": "tds", "h2": "tls"} {
		client, server := configs(tls.VersionTLS12, ecdsaKey())
		client.NextProtos, server.NextProtos = []string{alpn}, []string{alpn}
		if h := one(t, play(t, handshake(t, client, server), event.EndOfInput)); h.Carrier != want || h.Outcome != event.Extracted {
			t.Errorf("%s: carrier %q, want %q", alpn, h.Carrier, want)
		}
	}
}

// TestMonologue lets one side speak for long before a ClientHello, which is the first
// thing that the other side says, or its own next segment.
func TestMonologue(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	l := handshake(t, client, server)
	random := make([]byte, 1400)
	rand.NewChaCha8([32]byte{}).Read(random)
	for name, more := range map[string][]byte{
		"random": random, "text": bytes.Repeat([]byte("some text\r\n"), 100), "zeros": make([]byte, 1400),
		"SSH": []byte("SSH-2.0-x\r\n"), "SMTP": []byte("220 x\r\n"), "short": {1}, "record": []byte("\x17\x03\x03\x00\x02xx"),
	} {
		for _, d := range []event.Direction{0, 1} {
			for _, n := range []int{1, 31, 40, 5000} {
				if name == "SSH" && n > oneSided {
					continue
				}
				var all []chunk
				for range n {
					all = append(all, chunk{d, more})
				}
				got := play(t, append(all, l...), event.EndOfInput)
				if len(got) != 1 || got[0].Outcome != event.Extracted || got[0].Client != 0 || !got[0].Established {
					t.Errorf("%s, %d segments by %d: %+v", name, n, d, got)
				}
			}
		}
	}
	s := newSensor()
	c := s.Open(testFlow(event.TCP))
	n := 0
	for ; c.Segment(1, still, random) == NeedMore && n < 2*record.MaxMonologue; n += len(random) {
	}
	c.Close(event.EndOfInput)
	if n < record.MaxMonologue-2*len(random) || n > record.MaxMonologue+record.MaxCleartext+2*len(random) {
		t.Errorf("given up after %d bytes", n)
	}
}

// BenchmarkMonologue measures a segment that is not TLS while the other side is
// silent.
func BenchmarkMonologue(b *testing.B) {
	s := newSensor()
	more := make([]byte, 1400)
	rand.NewChaCha8([32]byte{}).Read(more)
	c := s.Open(testFlow(event.TCP))
	b.SetBytes(int64(len(more)))
	b.ReportAllocs()
	for b.Loop() {
		if c.Segment(1, still, more) == Done {
			c.Close(event.EndOfInput)
			c = s.Open(testFlow(event.TCP))
		}
	}
}

// TestUnknownPreface plays prefaces of unknown protocols, and after them TLS that
// begins with a segment.
func TestUnknownPreface(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	l := handshake(t, client, server)
	for name, turns := range map[string][]chunk{
		"gnutella":  talk("GNUTELLA CONNECT/0.6\r\nUpgrade: TLS/1.0\r\n\r\n", "GNUTELLA/0.6 200 OK\r\n\r\n", "GNUTELLA/0.6 200 OK\r\n\r\n"),
		"NX":        talk("NXSH-8.10.1\n", "NXD-8.10.1\n"),
		"bytes":     talk("\x80\x01\x02", "\x15\x03\x01\x00"),
		"VNC":       talk("", "RFB 003.008\n", "RFB 003.008\n", "\x01\x13", "\x13", "\x00\x02", "\x00\x02", "\x00\x01\x00\x00\x01\x04", "\x00\x00\x01\x04", "\x01"),
		"SOCKS?":    talk("\x05\x63", "\x05\xff"),
		"LDAP?":     talk("\x30\x84\x7f\xff\xff\xff\x02\x01\x01\x77", "\x30\x82\x7f\xff\x02\x01\x01\x78\x01"),
		"MySQL?":    talk("", "\xff\xff\x00\x00\x0a8.0\x00"),
		"long line": talk(strings.Repeat("x", record.MaxCleartext/2), strings.Repeat("y", record.MaxCleartext/2)),
	} {
		h := one(t, play(t, slices.Concat(turns, l), event.EndOfInput))
		if h.Outcome != event.Extracted || h.Carrier != "unknown" && !strings.HasSuffix(name, "?") {
			t.Errorf("%s: outcome %v, carrier %q", name, h.Outcome, h.Carrier)
		}
	}
}

// TestNoScanner asserts that plain TLS costs no scanner.
func TestNoScanner(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	s := newSensor()
	c := s.Open(testFlow(event.TCP))
	for _, ch := range handshake(t, client, server) {
		c.Segment(ch.d, still, ch.b)
	}
	if c.stream.Scanning() {
		t.Error("a scanner without a preface")
	}
	c.Close(event.EndOfInput)
}

// TestCarriersInCaptures compares the names with what public captures are documented
// to have in them.
func TestCarriersInCaptures(t *testing.T) {
	dir := filepath.Join(corpus(t), "captures")
	for name, want := range map[string]string{
		"Lekensteyn+wireshark-notes/tls/imap-ssl.pcapng":         "starttls-imap",
		"Lekensteyn+wireshark-notes/tls/pop-ssl.pcapng":          "starttls-pop3",
		"Lekensteyn+wireshark-notes/tls/smtp-ssl.pcapng":         "starttls-smtp",
		"Lekensteyn+wireshark-notes/tls/ldap-ssl.pcapng":         "starttls-ldap",
		"Lekensteyn+wireshark-notes/tls/mysql-ssl.pcapng":        "starttls-mysql",
		"Lekensteyn+wireshark-notes/tls/mysql-ssl-larger.pcapng": "starttls-mysql",
		"Lekensteyn+wireshark-notes/tls/pgsql-ssl.pcapng":        "starttls-postgresql",
		"Lekensteyn+wireshark-notes/tls/xmpp-ssl.pcapng":         "starttls-xmpp",
		"arkime+arkime/tests/pcap/ldap-ssl.pcap":                 "starttls-ldap",
		"arkime+arkime/tests/pcap/mysql-tls.pcap":                "starttls-mysql",
		"arkime+arkime/tests/pcap/smtp-starttls.pcap":            "starttls-smtp",
		"arkime+arkime/tests/pcap/https-connect.pcap":            "http-connect",
		"arkime+arkime/tests/pcap/socks4-https.pcap":             "socks4",
		"arkime+arkime/tests/pcap/socks-https-example.pcap":      "socks4 socks4a socks5",
		"ntop+nDPI/tests/cfgs/default/pcap/imap-starttls.pcap":   "starttls-imap",
		"ntop+nDPI/tests/cfgs/default/pcap/pop3_stls.pcap":       "starttls-pop3",
		"ntop+nDPI/tests/cfgs/default/pcap/ftp-start-tls.pcap":   "starttls-ftp",
		"ntop+nDPI/tests/cfgs/default/pcap/rdp.pcap":             "rdp",
		"ntop+nDPI/tests/cfgs/default/pcap/rdp_over_tls.pcap":    "rdp",
		"ntop+nDPI/tests/cfgs/default/pcap/haproxy.pcap":         "proxy-protocol",
		"ntop+nDPI/tests/cfgs/default/pcap/nomachine.pcapng":     "unknown",
		"ntop+nDPI/tests/cfgs/default/pcap/443-firefox.pcap":     "tls",
		"ntop+nDPI/tests/cfgs/default/pcap/imaps.pcap":           "tls",
	} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			t.Logf("%v", err)
			continue
		}
		var got []string
		for _, h := range replay(t, path).got {
			got = append(got, h.Carrier)
		}
		slices.Sort(got)
		if got := strings.Join(slices.Compact(got), " "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// FuzzCarriers plays dialogues and what follows on one flow, and plain TLS on
// another of the same parser, which must not be affected.
func FuzzCarriers(f *testing.F) {
	carried(f, func(d dialogue3, chunks []chunk, _ [][]byte) {
		if d.wrap == 1 {
			return
		}
		var script []byte
		for _, c := range chunks {
			script = appendStep(script, c.d, stepBytes, c.b[:min(len(c.b), 2000)])
		}
		f.Add(script)
		script = nil
		for i, c := range chunks {
			k := len(c.b) / 2
			script = appendStep(script, c.d, stepBytes, c.b[:min(k, 1000)])
			if i == len(d.turns)/2 {
				script = append(script, byte(c.d)|stepGap<<1, 0, 3)
				k += 3
			}
			script = appendStep(script, c.d, stepBytes, c.b[min(k, len(c.b)):])
		}
		f.Add(script)
	})
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	plain := handshake(f, client, server)
	s := newSensor()
	f.Fuzz(func(t *testing.T, script []byte) {
		s.got = s.got[:0]
		c, other := s.Open(testFlow(event.TCP)), s.Open(testFlow(event.TCP))
		var input [2][]byte
		for b := script; ; {
			d, kind, n, data, rest, ok := step(b)
			if !ok {
				break
			}
			b = rest
			if kind == stepGap {
				c.Gap(d, still, n)
			} else {
				input[d] = append(input[d], data...)
				c.Segment(d, still, data)
			}
			if s.records.Pool.Lent() > 1024+2*len(script) {
				t.Fatalf("%d bytes held for %d", s.records.Pool.Lent(), len(script))
			}
		}
		for _, ch := range plain[:len(plain)/2] {
			other.Segment(ch.d, still, ch.b)
		}
		c.Close(event.EndOfInput)
		sane(t, s, input, false)
		s.got = s.got[:0]
		for _, ch := range plain[len(plain)/2:] {
			other.Segment(ch.d, still, ch.b)
		}
		other.Close(event.EndOfInput)
		h := one(t, s.got)
		if h.Carrier != "tls" || h.Outcome != event.Extracted {
			t.Fatalf("plain TLS beside it: carrier %q, outcome %v", h.Carrier, h.Outcome)
		}
		s.check(t)
	})
}

// TestCarriersMidstream plays captures that may have begun in the middle.
func TestCarriersMidstream(t *testing.T) {
	s := newSensor()
	carried(t, func(d dialogue3, chunks []chunk, chain [][]byte) {
		for _, k := range []int{1 << 20, 11, 3} {
			if slow(d, k) {
				continue
			}
			s.got = nil
			c := s.Open(testFlow(event.TCP))
			c.Midstream(0)
			c.Midstream(1)
			for _, ch := range chunks {
				for part := range slices.Chunk(ch.b, k) {
					c.Segment(ch.d, still, part)
				}
			}
			c.Close(event.EndOfInput)
			s.check(t)
			h := one(t, s.got)
			if h.Carrier != d.carrier || h.Outcome != event.Extracted || !h.Established {
				t.Errorf("%s by %d: carrier %q, want %q; outcome %v, established %v", d.name, k, h.Carrier, d.carrier, h.Outcome, h.Established)
				continue
			}
			wantChain(t, h.Chain, chain)
		}
	})
}
