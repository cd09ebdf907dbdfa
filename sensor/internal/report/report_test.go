package report

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	"golang.org/x/net/html"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/browsertest"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/harmless"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/views"
)

// handshakes has a store take handshakes with many servers, certificates, clients and names,
// of which some are as long as they can be.
func handshakes(t testing.TB, n int) *inventory.Store {
	t.Helper()
	store, err := inventory.Temporary()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	store.Begin(inventory.Run{Begun: 1e18, Version: "test"})
	origin := &event.Origin{Path: "/evidence/" + strings.Repeat("\u202e<", 40) + ".pcap"}
	certificates := map[int]*cert.Certificate{}
	for i := range n {
		k := i % (n/20 + 1)
		c := certificates[k]
		if c == nil {
			name := fmt.Sprintf("host-%d.example.com", k)
			if k%97 == 0 {
				name = strings.Repeat("\u202e<", 2000)
			}
			c = &cert.Certificate{DER: fmt.Appendf(nil, "certificate %d", k), SelfSigned: k%3 == 0, PublicKeyAlgorithm: "RSA", PublicKeySize: 1024 << (k % 2), SignatureAlgorithm: "SHA256-RSA"}
			binary.BigEndian.PutUint32(c.SHA256[:], uint32(k)*2654435761)
			c.Subject.String, c.Issuer.String, c.Subject.CommonName = "CN="+name, "CN=issuer", []string{name}
			c.DNSNames = []string{name}
			c.NotBefore, c.NotAfter = cert.DateOf(time.Unix(0, 1e18).AddDate(-1, 0, 0)), cert.DateOf(time.Unix(0, 1e18).AddDate(0, 0, k%400-200))
			certificates[k] = c
		}
		var client, server [4]byte
		binary.BigEndian.PutUint32(client[:], 0x0a000000+uint32(i%(n/20+1)))
		binary.BigEndian.PutUint32(server[:], 0xc0000000+uint32(k/2+i%3))
		at := event.Moment{Time: 1e18 + int64(i)*1e7, Frame: uint64(i + 1)}
		h := &event.Handshake{Flow: &event.Flow{Transport: event.TCP, Origin: origin, Start: at.Time, Endpoints: [2]event.Endpoint{{Addr: netip.AddrFrom4(client), Port: 40000}, {Addr: netip.AddrFrom4(server), Port: 443}}},
			Carrier: "tls", Start: at, End: at, Certificate: at, Version: 0x0303, CipherSuite: 0xc02f, Curve: 29,
			ClientHello: &event.ClientHello{ServerName: c.DNSNames[0], Offer: &event.Offer{SupportedGroups: []uint16{4588, 29}}},
			ServerHello: &event.ServerHello{Version: 0x0303, CipherSuite: 0xc02f}, Chain: []event.ChainEntry{{Certificate: c}}}
		store.See(&finding.Finding{Handshake: h, Judged: &judgement.Judgement{}})
	}
	store.End(inventory.Run{Begun: 1e18, Ended: 2e18, Version: "test"})
	if err := store.Flush(); err != nil {
		t.Fatal(err)
	}
	return store
}

// write writes a report into a folder.
func write(t testing.TB, store *inventory.Store) (Files, map[string]int64) {
	t.Helper()
	files := FilesOf(filepath.Join(t.TempDir(), "case.html"))
	sizes := map[string]int64{}
	var open []*os.File
	err := Write(t.Context(), store, files, Options{Written: time.Unix(2e9, 0), Version: "test", From: "a test"}, func(name string) (io.Writer, error) {
		f, err := os.Create(name)
		open = append(open, f)
		return f, err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range open {
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		sizes[f.Name()] = info.Size()
		f.Close()
	}
	return files, sizes
}

// TestMillion has a page of bounded size of a million handshakes.
func TestMillion(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 20_000
	}
	begun := time.Now()
	store := handshakes(t, n)
	t.Logf("%d handshakes are in the inventory after %v", n, time.Since(begun))
	begun = time.Now()
	files, sizes := write(t, store)
	t.Logf("the report took %v: page %d bytes, text %d, tables %d", time.Since(begun), sizes[files.Page], sizes[files.Text], sizes[files.Certificates])
	if sizes[files.Page] > MaxSize {
		t.Errorf("the page has %d bytes, more than %d", sizes[files.Page], MaxSize)
	}
	b, err := os.ReadFile(files.Certificates)
	if err != nil {
		t.Fatal(err)
	}
	totals, err := store.Totals()
	if err != nil {
		t.Fatal(err)
	}
	if rows := uint64(bytes.Count(b, []byte("\r\n"))) - 1; rows != totals.Sightings {
		t.Errorf("%d rows of %d sightings", rows, totals.Sightings)
	}
	page, err := os.ReadFile(files.Page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{">" + views.Count(totals.Handshakes) + "</dd>", " of " + views.Count(totals.Certificates) + " are shown. All are in case.csv."} {
		if !strings.Contains(string(page), want) {
			t.Errorf("%q is not there", want)
		}
	}
	browser := browsertest.Start(t)
	p := browser.Open(t, "file://"+files.Page, browsertest.View{})
	ready := browsertest.Eval[float64](p, `performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd`)
	t.Logf("the page is ready after %.0f ms", ready)
	p.Quiet("file://" + files.Page)
}

// TestFar looks for what a browser has not laid out yet: it is found, links lead to it, and
// it is printed.
func TestFar(t *testing.T) {
	browser := browsertest.Start(t)
	files, _ := write(t, handshakes(t, 1700))
	url := "file://" + files.Page
	p := browser.Open(t, url, browsertest.View{})
	last := browsertest.Eval[string](p, `document.querySelector("#servers-table tbody tr:last-child a, #servers-table tbody tr:last-child th").textContent.trim()`)
	if rows := browsertest.Eval[int](p, `document.querySelectorAll(".long #servers-table tbody tr").length`); rows < 40 || last == "" {
		t.Fatalf("the table of servers has %d rows, the last is %q: it is too short to test anything", rows, last)
	}
	const settled = `new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 100))))`
	for _, section := range []string{"clients", "servers", "certificates", "names"} {
		top := browsertest.Eval[float64](p, `(async () => { document.querySelector('nav a[href="#`+section+`"]').click(); await `+settled+`; return document.getElementById("`+section+`").getBoundingClientRect().top })()`)
		if end := browsertest.Eval[bool](p, `scrollY + innerHeight >= document.documentElement.scrollHeight - 2`); !end && (top < 0 || top > 120) {
			t.Errorf("the link to %s leads %.0f pixels away from it", section, top)
		}
	}
	if found := browsertest.Eval[bool](p, `(async () => { scrollTo(0, 0); getSelection().removeAllRanges(); await `+settled+`; return find("`+last+`") && scrollY > innerHeight })()`); !found {
		t.Errorf("the browser does not find %q", last)
	}
	p.Quiet(url)
	reader, err := exec.LookPath("pdftotext")
	if err != nil {
		t.Log("pdftotext is not installed: nobody reads the PDF")
		return
	}
	cmd := exec.Command(reader, "-raw", "-", "-")
	cmd.Stdin = bytes.NewReader(p.PDF())
	printed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	// It may be broken into lines. It is in the table, and the head of its certificates.
	if n := strings.Count(strings.Join(strings.Fields(string(printed)), ""), last); n < 2 {
		t.Errorf("%q is printed %d times", last, n)
	}
}

func TestCancelled(t *testing.T) {
	store := handshakes(t, 100)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Write(ctx, store, FilesOf("case.html"), Options{}, func(string) (io.Writer, error) { return io.Discard, nil }); err == nil {
		t.Error("nobody has noticed")
	}
}

// checkMarkdown has another program read foreign text in Markdown: it is text.
func checkMarkdown(t testing.TB, s string) {
	t.Helper()
	reader := goldmark.New(goldmark.WithExtensions(extension.GFM))
	for _, made := range []string{"x " + plain(s), "| a | b |\n|---|---|\n| " + code(s) + " | x |\n", "- " + plain(s)} {
		var out bytes.Buffer
		if err := reader.Convert([]byte(made), &out); err != nil {
			t.Fatal(err)
		}
		doc, err := html.Parse(&out)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		cells := 0
		for n := range doc.Descendants() {
			switch {
			case n.Type == html.TextNode:
				text.WriteString(n.Data)
			case n.Type == html.ElementNode:
				switch n.Data {
				case "td":
					cells++
				case "html", "head", "body", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "code":
				default:
					t.Fatalf("%q became <%s>: %s", s, n.Data, made)
				}
			}
		}
		if strings.HasPrefix(made, "|") && cells != 2 {
			t.Fatalf("%q made %d cells: %s", s, cells, made)
		}
		if len(s) < views.MaxText && !strings.HasPrefix(made, "|") {
			want := strings.Join(strings.Fields(harmless.Text(s)), " ")
			if got := strings.Join(strings.Fields(text.String()), " "); got != strings.TrimSpace("x "+want) && got != want {
				t.Fatalf("%q is read as %q", s, got)
			}
		}
	}
}

var marks = []string{"plain", "<b>x</b>", "[a](http://x.example)", "http://x.example www.example.com a@b.example", "`code` ``x``", "a|b", `a\|b`, "~~x~~", "**b** _i_", "# h", "- x", "1. x", "&lt;", "![i](x)",
	"\u202e", "$x$", "@team", "====", "| x |", "<!-- -->", "ftp://x.example", "x\n\n# y", "[ ] x", "a `b", "mailto:x@y.example", "    code", "WWW.EXAMPLE.COM", "xwww.example.com", "https://a.example"}

func TestMarkdown(t *testing.T) {
	for _, s := range marks {
		checkMarkdown(t, s)
	}
}

func FuzzMarkdown(f *testing.F) {
	for _, s := range marks {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkMarkdown(t, s) })
}
