package views

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"github.com/oddcert/oddcert/sensor/internal/browsertest"
	"github.com/oddcert/oddcert/sensor/internal/harmless"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, "\u202egnp.exe", "a\x00b\x1b[2J", "cut \xe6\xbc", `literal \x1b`,
	strings.Repeat("n", 65535), strings.Repeat("\u202e", 20000), strings.Repeat("\x80", 300), "שלום", "=cmd|'/C calc'!A0", "{{.}}", "</style>", "", "'", "&lt;",
}

// textOf returns the text of markup, and its elements by name.
func textOf(t testing.TB, markup HTML) (text string, elements map[string]int) {
	t.Helper()
	nodes, err := html.ParseFragment(strings.NewReader(string(markup)), &html.Node{Type: html.ElementNode, Data: "body", DataAtom: atom.Body})
	if err != nil {
		t.Fatal(err)
	}
	elements = map[string]int{}
	var walk func(n *html.Node)
	walk = func(n *html.Node) {
		switch n.Type {
		case html.TextNode:
			text += n.Data
		case html.ElementNode:
			elements[n.Data]++
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c)
		}
	}
	for _, n := range nodes {
		walk(n)
	}
	return text, elements
}

func checkText(t testing.TB, s string, n int) {
	t.Helper()
	markup := Short(s, n)
	text, elements := textOf(t, markup)
	for name := range elements {
		if name != "bdi" && name != "span" {
			t.Fatalf("%.80q became an element %s", s, name)
		}
	}
	shown, cut, _ := strings.Cut(text, " cut: ")
	if len(s) <= n && s != "" && !strings.Contains(s, " cut: ") {
		if shown != harmless.Text(s) || cut != "" {
			t.Fatalf("%.80q is shown as %.80q", s, text)
		}
	}
	if len(s) > n && !strings.Contains(text, "cut: ") {
		t.Fatalf("%.80q is cut without a mark", s)
	}
	for _, r := range text {
		if !utf8.ValidRune(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			t.Fatalf("%.80q shows %U", s, r)
		}
	}
	// An escape of three bytes has six; marks stand around runs of escapes.
	if most := 40*n + 200; len(markup) > most {
		t.Fatalf("%d bytes of markup for %d", len(markup), n)
	}
}

func TestText(t *testing.T) {
	for _, s := range hostile {
		checkText(t, s, MaxText)
		checkText(t, s, 5)
	}
	if got := string(Text("a\x1bb")); got != `<bdi>a<span class="odd">\x1b</span>b</bdi>` {
		t.Error(got)
	}
	if got := string(Text(`a\x1bb`)); got != `a\x1bb` {
		t.Error(got)
	}
	if got := string(Short("漢字", 4)); got != `<bdi>漢</bdi> <span class="cut">cut: 3 of 6 bytes</span>` {
		t.Error(got)
	}
}

func FuzzText(f *testing.F) {
	for _, s := range hostile[:7] {
		f.Add(s[:min(len(s), 300)], 12)
	}
	f.Fuzz(func(t *testing.T, s string, n int) { checkText(t, s, n&0x3ff+1) })
}

// A table keeps to its budget and says what it left out.
func TestTableBudget(t *testing.T) {
	table := Table{Caption: "c", Columns: []Column{{Name: "a"}, {Name: "n", Class: "number"}}, Total: 1000, Rest: "rest.csv", Budget: 2000}
	for table.Add(Words("\u202ex"), Number(12345)) {
	}
	if table.Add(Words(""), Number(0)) {
		t.Error("a full table has taken a row")
	}
	got := string(table.HTML())
	if len(got) > 2000+600 || !strings.Contains(got, fmt.Sprintf("%d of 1,000 are shown. All are in rest.csv.", table.Shown())) || table.Shown() < 5 {
		t.Errorf("%d bytes, %d rows: %s", len(got), table.Shown(), got[len(got)-100:])
	}
}

// pageOf is a page of all pieces.
func pageOf(t testing.TB) []byte {
	links := Links{
		Certificate: func(h inventory.Hash) string { return fmt.Sprintf("#c-%x", h[:4]) },
		Server:      func(inventory.ServerKey) string { return "#s-1" },
		Filter:      func(...inventory.Flow) string { return "ip.addr==192.0.2.1 && tcp.port==443" },
	}
	client, server := netip.MustParseAddrPort("192.0.2.1:50000"), netip.MustParseAddrPort("192.0.2.2:443")
	place := inventory.Place{Time: 1e18, Frame: 1234, Path: "/evidence/of/the/case/monday.pcap", Flow: inventory.Flow{Client: client, Server: server}}
	root := &inventory.Certificate{SHA256: inventory.Hash{2}, CommonName: "Root", SelfSigned: true, First: place, Last: place}
	find := func(h inventory.Hash) *inventory.Certificate {
		if h == root.SHA256 {
			return root
		}
		return nil
	}
	table := Table{ID: "t", Caption: "Hostile names", Columns: []Column{{Name: "Name", Class: "name"}, {Name: "Length", Class: "number"}, {Name: "SHA-256", Class: "hash"}, {Name: "First seen", Class: "time"}, {Name: "Where", Class: "place"}}}
	for i, s := range hostile {
		table.Add(Words(s), Number(uint64(len(s))), Cell{HTML: Hash(bytes.Repeat([]byte{byte(i)}, 32))}, When(int64(1e18+i*1e9)), Cell{HTML: Place(place, links.Filter)})
	}
	page, err := Template(`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{{.Policy}}">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Pieces</title><style>{{.Style}}</style></head><body>
<header class="page"><h1>Pieces</h1></header><main class="page" id="main"><section><h2>Alerts</h2><div class="cards">{{range .Alerts}}{{template "alert" .}}{{end}}</div></section>
<section><h2>Certificate</h2>{{template "certificate" .Certificate}}</section><section><h2>Table</h2>{{.Table}}</section>
<section><h2>Charts</h2><div class="charts">{{.Bars}}{{.Line}}</div></section></main><script>{{.Script}}</script></body></html>`)
	if err != nil {
		t.Fatal(err)
	}
	reasons := [][]string{hostile[:8], {"The signature of the leaf has 2,048 bits."}, nil, {"One.", "Two."}, nil}
	var alerts []Alert
	for i, level := range []string{"critical", "high", "medium", "low", "informational"} {
		alerts = append(alerts, links.AlertOf(&inventory.Alert{ID: fmt.Sprint(i), Time: 1e18, Place: place, Level: level, Verdict: "forged", Reason: "Something is odd with " + hostile[i] + ".",
			Reasons: reasons[i], Server: inventory.ServerKey{Address: server.Addr(), Port: 443}, Name: hostile[2], Certificate: inventory.Hash{1}, Counted: uint64(i)}, root))
	}
	leaf := &inventory.Certificate{SHA256: inventory.Hash{1}, SPKI: inventory.Hash{9}, Subject: hostile[0], Issuer: hostile[1], Names: hostile, NotBefore: 9e8, NotAfter: 95e7,
		KeyAlgorithm: "RSA", KeySize: 2048, SignatureAlgorithm: "SHA256-RSA", Roles: inventory.Leaf, First: place, Last: place, Handshakes: 12, Chain: []inventory.Hash{{2}, {3}}, Judged: true, Reasons: hostile[:3]}
	var b bytes.Buffer
	err = page.Execute(&b, map[string]any{"Policy": Policy(), "Style": CSS(), "Script": JS(), "Alerts": alerts, "Certificate": links.CertificateOf(leaf, find), "Table": table.HTML(),
		"Bars": Bars("Versions", []Bar{{"TLS 1.3", 1000, false}, {"TLS 1.2", 200, false}, {"TLS 1.0", 3, true}}),
		"Line": TimeLine("Time line", 1e18, 1e18+3600e9, []Series{{Name: "Alerts", Counts: []uint64{0, 1, 5, 0, 2}, Severe: true}, {Name: "New certificates", Counts: []uint64{9, 3, 0, 0, 1}}})})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestBrowser has a browser sort, filter and copy, in both schemes and on a small screen.
func TestBrowser(t *testing.T) {
	body := pageOf(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(body)
	}))
	defer server.Close()
	b := browsertest.Start(t)
	for _, v := range []browsertest.View{{}, {Dark: true}, {Width: 390, Height: 844}, {Width: 390, Height: 844, Dark: true}} {
		name := fmt.Sprintf("pieces-%d-dark-%v", v.Width, v.Dark)
		t.Run(name, func(t *testing.T) {
			p := b.Open(t, server.URL+"/", v)
			p.Accessible()
			p.Picture(name)
			if wide := browsertest.Eval[int](p, `document.documentElement.scrollWidth - innerWidth`); wide > 0 {
				t.Errorf("the page is %d pixels too wide", wide)
			}
			if n := browsertest.Eval[int](p, `document.querySelectorAll("img, body script").length`); n != 1 {
				t.Errorf("%d images and scripts, not the one script", n)
			}
			// Favicons are asked for by the browser, not by the page.
			for _, r := range p.Requests() {
				if r != server.URL+"/" && r != server.URL+"/favicon.ico" {
					t.Errorf("asked for %s", r)
				}
			}
		})
	}
	p := b.Open(t, server.URL+"/", browsertest.View{})
	p.Run(browser.GrantPermissions([]browser.PermissionType{browser.PermissionTypeClipboardReadWrite}))
	lengths := `Array.from(document.querySelectorAll("#t tbody tr"), r => +r.cells[1].dataset.key)`
	p.Run(chromedp.Click(`//th[button[text()="Length"]]/button`, chromedp.BySearch))
	if got := browsertest.Eval[[]int](p, lengths); got[0] != 65535 || got[len(got)-1] != 0 {
		t.Errorf("sorted: %v", got)
	}
	if got := browsertest.Eval[string](p, `document.querySelector("#t th[aria-sort]").ariaSort`); got != "descending" {
		t.Errorf("aria-sort is %q", got)
	}
	p.Run(chromedp.Click(`//th[button[text()="Length"]]/button`, chromedp.BySearch))
	if got := browsertest.Eval[[]int](p, lengths); got[0] != 0 || got[len(got)-1] != 65535 {
		t.Errorf("sorted again: %v", got)
	}
	// All at once: what is typed is looked for letter by letter, and would be said after the copy.
	p.Run(chromedp.Evaluate(`(i => { i.value = "calc"; i.dispatchEvent(new Event("input")) })(document.querySelector("input[type=search]"))`, nil), chromedp.Poll(fmt.Sprintf(`document.querySelector("[role=status]").textContent == "1 of %d rows"`, len(hostile)), nil))
	p.Run(chromedp.Click(`.tools button`, chromedp.ByQuery), chromedp.Poll(`document.querySelector("[role=status]").textContent == "1 rows copied"`, nil))
	copied := browsertest.Eval[string](p, `navigator.clipboard.readText()`)
	if want := "Name\tLength\tSHA-256\tFirst seen\tWhere\n'=cmd|'/C calc'!A0\t17\t" + strings.Repeat("0A", 32) + "\t2001-09-09 01:46:50\t/evidence/of/the/case/monday.pcap, frame 1,234 ip.addr==192.0.2.1 && tcp.port==443\n"; copied != want {
		t.Errorf("copied %q, want %q", copied, want)
	}
	p.Run(chromedp.Click(`.alert [data-copy]`, chromedp.ByQuery), chromedp.Poll(`document.querySelector(".copied")`, nil))
	if got := browsertest.Eval[string](p, `navigator.clipboard.readText()`); got != "01"+strings.Repeat("00", 31) {
		t.Errorf("copied %q", got)
	}
}
