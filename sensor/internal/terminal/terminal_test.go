package terminal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// wantHarmless fails unless text is lines of printable characters that fit.
func wantHarmless(t *testing.T, text string, limit int) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("no UTF-8: %q", text)
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if n := width(line); n > limit {
			t.Errorf("%d columns in %d: %q", n, limit, line)
		}
		for _, r := range line {
			if !unicode.IsPrint(r) {
				t.Errorf("%U in %q", r, line)
			}
		}
	}
}

func width(s string) (n int) {
	for _, r := range s {
		n += (&runewidth.Condition{}).RuneWidth(r)
	}
	return n
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

func TestTerminalAlert(t *testing.T) {
	h, a := sampleHandshake(), sampleAlert()
	var out bytes.Buffer
	term := newPrinter(&out)
	if err := term.alert(h, a); err != nil {
		t.Fatal(err)
	}
	plain := out.String()
	wantHarmless(t, plain, 80)
	for _, want := range []string{
		"MEDIUM  Look-alike of www.update.microsoft.com\n",
		"2022-02-21 16:39:40.001 UTC, packet 6 of a \"b\".pcapng",
		"66.35.250.204:80 → client 128.232.110.120:34855, TLS 1.2 in",
		"SNI       mail.example.com\n",
		"CN=www.example.com", "CN=Example Root CA", "the leaf, certificate 1 of 4 that the server sent",
		"2020-01-01 to 2021-01-01", fmt.Sprintf("%X", h.Chain[0].SHA256) + "\n", "Verdict   disguise\n",
		"Alert ID  00079c0a69156f9e0ccd818c7aedc078\n", "Evidence  packs/00079c0a69156f9e0ccd818c7aedc078\n",
		"Reason    Someone goes around the filters.\n", "· it is no certificate of Microsoft\n",
	} {
		if !strings.Contains(plain, want) {
			t.Errorf("%q is not in\n%s", want, plain)
		}
	}
	out.Reset()
	term.color = true
	if err := term.alert(h, a); err != nil {
		t.Fatal(err)
	}
	if got := sgr.ReplaceAllString(out.String(), ""); got != plain {
		t.Errorf("in colour:\n%s\nwithout:\n%s", got, plain)
	}
	if !strings.Contains(out.String(), "\x1b[1;33mMEDIUM\x1b[0m") {
		t.Errorf("the level has no colour: %q", out.String())
	}

	a.Match.Field, a.Match.ChainIndex = "oddcert.client_chain.hash.sha256", 1
	out.Reset()
	if err := term.alert(h, a); err != nil {
		t.Fatal(err)
	}
	if got := sgr.ReplaceAllString(out.String(), ""); !strings.Contains(got, "certificate 2 of 2 that the client sent") {
		t.Error(got)
	}
}

func TestTerminalAlertWithoutCertificate(t *testing.T) {
	h, a := sampleHandshake(), sampleAlert()
	h.Chain, h.Outcome, h.ClientHello, h.Flow.Origin = nil, event.Encrypted, nil, nil
	a.Match.ChainIndex, a.Match.Reason, a.Match.Reasons = -1, "", nil
	a.Pack = ""
	var out bytes.Buffer
	if err := newPrinter(&out).alert(h, a); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "no certificate: TLS 1.3, no keys") || strings.Contains(out.String(), "SNI") || strings.Contains(out.String(), "Evidence") {
		t.Error(out.String())
	}
}

func FuzzTerminal(f *testing.F) {
	for _, s := range []string{"", "plain", "\x00\x1b[31m\x7f", "é世界🎉", "\u2028\u202e\ufeff", "\xff", "a\xc3", "\xed\xa0\x80"} {
		f.Add(s, 80)
	}
	f.Add("\x1b]0;title\x07\x1b[2J\u009b31m\r\b", 40)
	f.Add(strings.Repeat("世", 500)+"\u0301\u200b", 61)
	f.Fuzz(func(t *testing.T, s string, width int) {
		h, a := sampleHandshake(), sampleAlert()
		hello := *h.ClientHello
		hello.ServerName = s
		h.ClientHello = &hello
		h.Chain[0].Certificate = &cert.Certificate{Subject: cert.Name{String: s}, Issuer: cert.Name{String: "CN=" + s}}
		h.Flow.Origin = &event.Origin{Path: "x/" + s}
		a.Pack, a.Match.Reason, a.Match.Reasons, a.Match.Rule.Title = s, s, []string{s + s}, s
		var out bytes.Buffer
		term := newPrinter(&out)
		term.width = 60 + int(uint(width)%40)
		if err := term.alert(h, a); err != nil {
			t.Fatal(err)
		}
		wantHarmless(t, out.String(), term.width)
		out.Reset()
		if err := term.line(h, a); err != nil {
			t.Fatal(err)
		}
		wantHarmless(t, out.String(), 16*maxLineValue)
		if strings.Count(out.String(), "\n") != 1 {
			t.Errorf("more than a line: %q", out.String())
		}
		if pairs := readLine(t, out.String()); pairs["verdict"] != "disguise" || pairs["server"] != "66.35.250.204:80" {
			t.Errorf("%q is read as %q", out.String(), pairs)
		}
	})
}

func TestTerminalSummary(t *testing.T) {
	c := sampleCounters()
	c.Capture.Broken, c.Capture.Files = 1, 2
	c.Parser.Handshakes = 1_234_567
	quiet := *sampleMatch().Rule
	quiet.Title = "never matched"
	c.Rules = append(c.Rules, output.RuleCount{Rule: &quiet})
	var out bytes.Buffer
	if err := newPrinter(&out).summary(c); err != nil {
		t.Fatal(err)
	}
	wantHarmless(t, out.String(), 80)
	squeezed := regexp.MustCompile(` +`).ReplaceAllString(out.String(), " ")
	for _, want := range []string{
		" 1,000 packets 900 kB, 2001-09-09 01:46:40 to 01:46:40 UTC\n", " 2 files read completely\n", "1,234,567 handshakes\n",
		" 5 extracted ", " 4 encrypted ", " 1 resumed ", " 2 lost ", " 7 distinct certificates\n",
		" 3 alerts\n", " 3 medium Look-alike of www.update.microsoft.com\n", " 12 flow: flows\n",
		" 1 file not read completely\n", " 2 certificates lost: gap bytes of the stream were not captured\n",
		" 1 handshake decrypted\n", " 4 malformed frames: truncated_tcp\n", " 40 frames of EtherType 0x0806 (ARP) no TLS\n", " 100 frames of EtherType 0x9400 not read\n", " 261 frames of other kinds not read\n",
	} {
		if !strings.Contains("\n"+squeezed, want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "never matched") || strings.Contains(out.String(), "nothing lost") {
		t.Error(out.String())
	}
	if flows, lost := strings.Index(squeezed, "flow: evicted"), strings.Index(squeezed, " lost:"); lost < 0 || flows < lost {
		t.Errorf("what the flow table lost is not among the losses:\n%s", out.String())
	}
	if arp, lost, unread := strings.Index(squeezed, "(ARP)"), strings.Index(squeezed, " lost:"), strings.Index(squeezed, "0x9400"); arp > lost || unread < lost {
		t.Errorf("ARP is no loss, and what could not be read is one:\n%s", out.String())
	}

	out.Reset()
	if err := newPrinter(&out).summary(&output.Counters{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "nothing lost\n") {
		t.Error(out.String())
	}
}

func TestTerminalIsPlainElsewhere(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	term := newPrinter(w)
	if err := term.alert(sampleHandshake(), sampleAlert()); err != nil {
		t.Fatal(err)
	}
	w.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	wantHarmless(t, string(got), 80)
	r.Close()
	if err := term.alert(sampleHandshake(), sampleAlert()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write to a closed file: %v", err)
	}
}

func TestWrapped(t *testing.T) {
	for s, want := range map[string]string{
		"":                     "",
		"short":                "short",
		"ten chars!":           "ten chars!",
		"ten chars! more":      "ten chars!|more",
		"two words here":       "two words|here",
		"averyveryverylongone": "averyveryv|erylongone",
		"a averyveryverylong":  "a|averyveryv|erylong",
		"世界世界世界":               "世界世界世|界",
		"trailing          ":   "trailing",
		"   leading words now": "   leading|words now",
	} {
		if got := strings.Join(wrapped(s, 10), "|"); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
	if got := truncated("twelve chars", 10); got != "twelve ch…" {
		t.Error(got)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
