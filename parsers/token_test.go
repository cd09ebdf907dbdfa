package parsers

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
)

// inTokens puts a handshake into lines of base64. The formats of the lines of client
// and server have %s for the token.
func inTokens(chunks []chunk, client, server, last string) (out []chunk) {
	for _, c := range merge(chunks) {
		format := client
		if c.d == 1 {
			if format = server; len(out) > 2 {
				format = last
			}
		}
		out = append(out, chunk{c.d, fmt.Appendf(nil, format+"\r\n", base64.StdEncoding.EncodeToString(c.b))})
	}
	return out
}

// tokenDialogues are handshakes in tokens.
func tokenDialogues(t testing.TB) (m map[string][]chunk, chain [][]byte) {
	client, server := configs(tls.VersionTLS12, rsaKey())
	l := handshake(t, client, server)
	first := inTokens(l, "AUTH GSSAPI %s", "334 %s", "334 %s")[:1]
	rest := inTokens(l, "%s", "334 %s", "334 %s")[1:]
	return map[string][]chunk{
		"ftp-gssapi": slices.Concat(talk("", "220 gridftp.example ready\r\n", "AUTH GSSAPI\r\n", "334 Using authentication type; ADAT must follow\r\n"),
			inTokens(l, "ADAT %s", "335 ADAT=%s", "235 ADAT=%s")),
		"ftp-gssapi, many lines": slices.Concat(talk("", "220-Welcome\r\n220-to the grid\r\n220 gridftp.example ready\r\n", "FEAT\r\n", "211 none\r\n",
			"auth gssapi\r\n", "334 [please] ADAT must follow\r\n"), inTokens(l, "adat %s", "335-more\r\n335 [ADAT=%s]", "235 text ADAT=%s")),
		"sasl IMAP":                             slices.Concat(talk("", "* OK imap\r\n", "a1 AUTHENTICATE GSSAPI\r\n", "+ \r\n"), inTokens(l, "%s", "+ %s", "+ %s")),
		"sasl SMTP":                             slices.Concat(talk("", "220 mx\r\n", "EHLO c\r\n", "250-mx\r\n250 AUTH GSSAPI\r\n", "AUTH GSSAPI\r\n", "334 \r\n"), inTokens(l, "%s", "334 %s", "334 %s")),
		"sasl SMTP, the first with the command": slices.Concat(talk("", "220 mx\r\n", "EHLO c\r\n", "250-mx\r\n250 AUTH GSSAPI\r\n"), first, rest),
	}, server.Certificates[0].Certificate
}

func TestTokens(t *testing.T) {
	m, chain := tokenDialogues(t)
	for name, chunks := range m {
		carrier, _, _ := strings.Cut(name, " ")
		carrier = strings.TrimSuffix(carrier, ",")
		check := func(how string, got []*event.Handshake) {
			t.Helper()
			h := one(t, got)
			if h.Outcome != event.Extracted || h.Carrier != carrier || !h.Established || h.Client != 0 || h.ClientHello == nil {
				t.Fatalf("%s, %s: outcome %v, %v, carrier %q, established %v", name, how, h.Outcome, h.Loss, h.Carrier, h.Established)
			}
			wantChain(t, h.Chain, chain)
		}
		check("whole", play(t, chunks, event.EndOfInput))
		for k := 1; k < 24; k++ {
			check(fmt.Sprint("by ", k), split(t, chunks, func(n int) int { return min(n, k) }))
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range 30 {
			check("at random", split(t, chunks, func(n int) int { return 1 + r.IntN(n) }))
		}
		for range 100 { // a hole in the server's lines loses no more than its token
			from := r.IntN(len(stream(1, chunks)))
			for _, h := range punctured(t, chunks, 1, false, r, 1448, hole{from, from + 1 + r.IntN(40)}) {
				for _, e := range h.Chain {
					if !e.Truncated && !slices.ContainsFunc(chain, func(der []byte) bool { return string(der) == string(e.DER) }) {
						t.Errorf("%s: a certificate that nobody sent", name)
					}
				}
			}
		}
	}
}

// TestTokensOfKerberos plays tokens that are not TLS, after which TLS may still begin,
// and base64 in a mail that only looks like TLS.
func TestTokensOfKerberos(t *testing.T) {
	client, server := configs(tls.VersionTLS12, rsaKey())
	l := handshake(t, client, server)
	const token = "YIICWwYJKoZIhvcSAQICAQBuggJKMIICRqADAgEFoQMCAQ6iBwMFACAAAACj"
	for name, c := range map[string]struct {
		before  []chunk
		carrier string
	}{
		"Kerberos": {talk("", "220 ftp\r\n", "AUTH GSSAPI\r\n", "334 ADAT must follow\r\n", "ADAT "+token+"\r\n", "535 failed\r\n", "AUTH TLS\r\n", "234 go\r\n"), "starttls-ftp"},
		"none": {talk("", "220 ftp\r\n", "AUTH GSSAPI\r\n", "334 ADAT must follow\r\n", "ADAT FgMA\r\n", "535 ADAT=FgMBAP//////////////////////////////////\r\n",
			"ADAT FgMBAAUAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n", "535 no\r\n", "AUTH TLS\r\n", "234 go\r\n"), "starttls-ftp"},
		"a mail": {talk("", "220 mx\r\n", "EHLO c\r\n", "250-a\r\n250 b\r\n", "MAIL FROM:<a@b>\r\n", "250 ok\r\n", "DATA\r\n", "354 go\r\n",
			"FgMBAAUAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n.\r\n", "250 ok\r\n", "STARTTLS\r\n", "220 go\r\n"), "starttls-smtp"},
	} {
		for k := 1; k < 40; k++ {
			h := one(t, split(t, slices.Concat(c.before, l), func(n int) int { return min(n, k) }))
			if h.Outcome != event.Extracted || h.Carrier != c.carrier {
				t.Errorf("%s, by %d: outcome %v, carrier %q", name, k, h.Outcome, h.Carrier)
			}
		}
	}
}
