package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/csv"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/html"

	"github.com/oddcert/oddcert/sensor/internal/browsertest"
)

// hostileNames are what certificates, server names and files are called.
var hostileNames = []string{
	`<script>alert(1)</script>`, `"><img src=http://203.0.113.1/x onerror=alert(1)>`, "\u202egnp.exe", "a\x00b\x1b[2Jc\r\nd", "cut \xe6\xbc", `literal \x1b`,
	strings.Repeat("n", 40000), strings.Repeat("\u202e", 5000), `=cmd|'/C calc'!A0`, "@SUM(1+1)", "</style></script><!--", "`|[x](http://203.0.113.1/)|`", "www.example.com http://203.0.113.1/",
	"{{.Policy}}", "שלום.example", "&lt;b&gt;",
}

// taped is one end of a connection that notes what is said, in order.
type taped struct {
	net.Conn
	mu   *sync.Mutex
	said *[]utterance
	way  int
}

type utterance struct {
	way  int
	data []byte
}

func (c taped) Write(b []byte) (int, error) {
	c.mu.Lock()
	*c.said = append(*c.said, utterance{c.way, bytes.Clone(b)})
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// hostileCapture has a handshake of TLS 1.2 for each name, with a certificate that has the name
// as its subject, over IPv4 or IPv6.
func hostileCapture(t *testing.T, names []string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var frames [][]byte
	for i, name := range names {
		// encoding/asn1 refuses text that is not UTF-8; whoever makes hostile certificates does not.
		subject, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(name)}}}})
		if err != nil {
			t.Fatal(err)
		}
		when := time.Unix(1_700_000_000, 0)
		template := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), RawSubject: subject, NotBefore: when.AddDate(-1, 0, 0), NotAfter: when.AddDate(0, 0, i%3-1)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var all []utterance
		a, b := net.Pipe()
		client := tls.Client(taped{a, &mu, &all, 0}, &tls.Config{InsecureSkipVerify: true, ServerName: name, MaxVersion: tls.VersionTLS12})
		server := tls.Server(taped{b, &mu, &all, 1}, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
		shaken := make(chan error, 1)
		go func() { shaken <- server.Handshake() }()
		_ = client.Handshake() // crypto/x509 refuses some of these certificates, when it has seen them
		a.Close()
		<-shaken
		b.Close()
		frames = append(frames, segments(t, i, all)...)
	}
	return writeFrames(t, frames)
}

// segments are the frames of what was said on the connection with a number.
func segments(t *testing.T, i int, all []utterance) (frames [][]byte) {
	addresses := [2]net.IP{net.IPv4(192, 0, 2, 1), net.IPv4(198, 51, 100, byte(i))}
	kind := layers.EthernetTypeIPv4
	if i%4 == 3 {
		addresses, kind = [2]net.IP{net.ParseIP("2001:db8::1"), net.ParseIP(fmt.Sprintf("2001:db8:1::%x", i+1))}, layers.EthernetTypeIPv6
	}
	ports := [2]layers.TCPPort{layers.TCPPort(40000 + i), 443}
	next := [2]uint32{1000, 2000}
	send := func(way int, flags func(*layers.TCP), data []byte) {
		tcp := &layers.TCP{SrcPort: ports[way], DstPort: ports[1-way], Seq: next[way], Ack: next[1-way], ACK: true, Window: 65535}
		flags(tcp)
		var network gopacket.SerializableLayer
		if kind == layers.EthernetTypeIPv6 {
			ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: addresses[way], DstIP: addresses[1-way]}
			_ = tcp.SetNetworkLayerForChecksum(ip)
			network = ip
		} else {
			ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: addresses[way], DstIP: addresses[1-way]}
			_ = tcp.SetNetworkLayerForChecksum(ip)
			network = ip
		}
		b := gopacket.NewSerializeBuffer()
		err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
			&layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(way)}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(1 - way)}, EthernetType: kind}, network, tcp, gopacket.Payload(data))
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, bytes.Clone(b.Bytes()))
		next[way] += uint32(len(data))
		if tcp.SYN || tcp.FIN {
			next[way]++
		}
	}
	send(0, func(h *layers.TCP) { h.SYN, h.ACK, h.Ack = true, false, 0 }, nil)
	send(1, func(h *layers.TCP) { h.SYN = true }, nil)
	send(0, func(*layers.TCP) {}, nil)
	for _, s := range all {
		for part := range slices.Chunk(s.data, 1400) {
			send(s.way, func(h *layers.TCP) { h.PSH = true }, part)
		}
	}
	send(0, func(h *layers.TCP) { h.FIN = true }, nil)
	send(1, func(h *layers.TCP) { h.FIN = true }, nil)
	send(0, func(*layers.TCP) {}, nil)
	return frames
}

// hostileInput is a capture of hostile names that has one itself, and captures with alerts.
func hostileInput(t *testing.T) []string {
	t.Helper()
	made := hostileCapture(t, hostileNames)
	named := filepath.Join(t.TempDir(), "=\u202e<b>`x`|y\x1b[2J.pcap")
	if err := os.Rename(made, named); err != nil {
		t.Logf("a file cannot be called so here: %v", err)
		named = made
	}
	odd, err := filepath.Abs("testdata/captures")
	if err != nil {
		t.Fatal(err)
	}
	return []string{named, odd}
}

var writtenAt = regexp.MustCompile(`Written at [-0-9: ]+ UTC\.`)

// readReport returns the files of a report by what is behind "case", without the time of writing.
func readReport(t *testing.T, page string) map[string]string {
	t.Helper()
	all := map[string]string{}
	base := strings.TrimSuffix(page, ".html")
	for _, end := range []string{".html", ".md", ".csv", "-servers.csv", "-alerts.csv", "-clients.csv"} {
		b, err := os.ReadFile(base + end)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if end == ".html" || end == ".md" {
			if n := len(writtenAt.FindAllString(text, -1)); n != 1 {
				t.Errorf("%s says %d times when it was written", end, n)
			}
			text = writtenAt.ReplaceAllString(text, "")
		}
		all[end] = text
	}
	if parts, _ := filepath.Glob(base + "*.part"); len(parts) > 0 {
		t.Errorf("left behind: %q", parts)
	}
	return all
}

func replayReport(t *testing.T, status int, args ...string) (stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if got := run(append([]string{"replay"}, args...), &out, &errs); got != status {
		t.Fatalf("status %d, not %d: %s", got, status, errs.String())
	}
	return errs.String()
}

// The same input gives the same report, whatever the number of workers, from a replay, from
// the inventory of a replay, and from captures.
func TestReportAgain(t *testing.T) {
	input := hostileInput(t)
	dir := t.TempDir()
	first := filepath.Join(dir, "case.html")
	replayReport(t, 0, append([]string{"--report", first, "--workers", "1"}, input...)...)
	want := readReport(t, first)
	second := filepath.Join(dir, "again", "case.html")
	if err := os.Mkdir(filepath.Dir(second), 0o700); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(dir, "inventory.db")
	replayReport(t, 0, append([]string{"--report", second, "--workers", "2"}, input...)...)
	replayReport(t, 0, append([]string{"--inventory", kept}, input...)...)
	for end, text := range readReport(t, second) {
		if text != want[end] {
			t.Errorf("case%s differs", end)
		}
	}
	for name, args := range map[string][]string{"the inventory": {kept}, "captures": input} {
		third := filepath.Join(dir, "third.html")
		var out, errs bytes.Buffer
		if got := run(append([]string{"report", "-o", third}, args...), &out, &errs); got != 0 {
			t.Fatalf("report of %s: status %d: %s", name, got, errs.String())
		}
		for end, text := range readReport(t, third) {
			if strings.HasSuffix(end, ".csv") && text != want[end] {
				t.Errorf("of %s: case%s differs", name, end)
			}
		}
	}
}

// A folder has other files than captures: the report does not say that they were read. Its
// alerts have the id that other commands take.
func TestReportOfFolder(t *testing.T) {
	dir := t.TempDir()
	b, err := os.ReadFile(oddCapture)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"odd.pcap": b, "empty.pcap": b[:24], "notes.txt": []byte("no capture")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "case.html")
	replayReport(t, 0, "--report", path, dir)
	for end, text := range readReport(t, path) {
		if strings.Contains(text, "notes.txt") {
			t.Errorf("case%s has a file that is no capture", end)
		}
		if end != ".html" && end != ".md" {
			continue
		}
		if !strings.Contains(text, "odd.pcap") || !strings.Contains(text, "empty.pcap") {
			t.Errorf("case%s does not have the captures", end)
		}
		id := regexp.MustCompile("Alert ID(?: `|</dt><dd><code data-copy>)([0-9a-f]{32})[`<]").FindStringSubmatch(text)
		if id == nil {
			t.Errorf("case%s does not have the id of the alert", end)
		} else if _, _, frames := cutOut(t, "--alert", id[1], filepath.Join(dir, "odd.pcap")); len(frames) == 0 {
			t.Errorf("case%s has the id %s, of which nothing is found", end, id[1])
		}
	}
}

func TestReportRefuses(t *testing.T) {
	odd := "testdata/captures/odd-certificate/capture.pcap"
	dir := t.TempDir()
	input := filepath.Join(dir, "input.html")
	b, err := os.ReadFile(odd)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(input, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--report", input, input}, "it is one of the files to read"},
		{[]string{"--report", filepath.Join(dir, "case.txt"), odd}, "ends in .html"},
		{[]string{"--report", "-", odd}, "ends in .html"},
		{[]string{"--report", filepath.Join(dir, "missing", "case.html"), odd}, "no such file"},
		{[]string{"--report", filepath.Join(dir, "case.html"), "--json", filepath.Join(dir, "case.md"), odd}, "the records go there"},
	} {
		if got := replayReport(t, 1, c.args...); !strings.Contains(got, c.want) {
			t.Errorf("%q: %s", c.args, got)
		}
	}
	if got, err := os.ReadFile(input); err != nil || !bytes.Equal(got, b) {
		t.Error("the input was written to")
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	if !slices.Equal(left, []string{input}) {
		t.Errorf("left behind: %q", left)
	}
	// A folder of captures may have a report from before.
	for range 2 {
		replayReport(t, 0, "--report", filepath.Join(dir, "case.html"), dir)
	}
	// Damaged input gives a report that says so, and the status of a replay.
	cut := filepath.Join(t.TempDir(), "cut.pcap")
	if err := os.WriteFile(cut, b[:len(b)-10], 0o600); err != nil {
		t.Fatal(err)
	}
	replayReport(t, 2, "--report", filepath.Join(dir, "cut.html"), cut)
	if got := readReport(t, filepath.Join(dir, "cut.html")); !strings.Contains(got[".html"], "Something was lost.") || !strings.Contains(got[".md"], "1 file not read completely") {
		t.Error("nothing is said of what was lost")
	}
}

// What names what is outside: nothing but links inside of the page and to nothing else.
func TestReportStandsAlone(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "case.html")
	replayReport(t, 0, append([]string{"--report", page}, hostileInput(t)...)...)
	files := readReport(t, page)
	doc, err := html.Parse(strings.NewReader(files[".html"]))
	if err != nil {
		t.Fatal(err)
	}
	ids, links, counts := map[string]int{}, []string{}, map[string]int{}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		counts[n.Data]++
		for _, a := range n.Attr {
			switch {
			case a.Key == "id":
				ids[a.Val]++
			case a.Key == "href":
				links = append(links, a.Val)
			case a.Key == "src", a.Key == "style", a.Key == "action", a.Key == "srcset", strings.HasPrefix(a.Key, "on"):
				t.Errorf("<%s %s=%.80q>", n.Data, a.Key, a.Val)
			}
		}
	}
	for _, name := range []string{"img", "link", "iframe", "object", "embed", "form", "base", "b"} {
		if counts[name] > 0 {
			t.Errorf("%d elements %s", counts[name], name)
		}
	}
	if counts["script"] != 1 || counts["style"] != 1 {
		t.Errorf("%d scripts, %d style sheets", counts["script"], counts["style"])
	}
	for _, l := range links {
		if !strings.HasPrefix(l, "#") || ids[l[1:]] != 1 {
			t.Errorf("a link to %q, which is there %d times", l, ids[strings.TrimPrefix(l, "#")])
		}
	}
	for id, n := range ids {
		if n != 1 {
			t.Errorf("%d elements are called %s", n, id)
		}
	}
	for _, want := range []string{"default-src &#39;none&#39;", "cut: 200 of ", `<span class="odd">\u202e</span>gnp.exe`, `<span class="odd">\x00</span>`, `&lt;script&gt;alert(1)&lt;/script&gt;`} {
		if !strings.Contains(files[".html"], want) {
			t.Errorf("%q is not there", want)
		}
	}
	for end, text := range files {
		if !strings.HasSuffix(end, ".csv") {
			continue
		}
		rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
		if err != nil {
			t.Errorf("case%s: %v", end, err)
		}
		for i, row := range rows {
			for _, cell := range row {
				if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") {
					t.Errorf("case%s, row %d: the formula %.40q", end, i, cell)
				}
			}
		}
		if len(rows) < 4 {
			t.Errorf("case%s has %d rows", end, len(rows))
		}
	}
}

// TestReportInBrowser has a browser read a report.
func TestReportInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	b := browsertest.Start(t)
	dir := t.TempDir()
	page := filepath.Join(dir, "case.html")
	replayReport(t, 0, append([]string{"--report", page, "--pack", "hygiene"}, hostileInput(t)...)...)
	url := "file://" + page
	for _, v := range []browsertest.View{{}, {Dark: true}, {Width: 390, Height: 844}, {Width: 390, Height: 844, Dark: true}} {
		name := fmt.Sprintf("report-%d-dark-%v", v.Width, v.Dark)
		t.Run(name, func(t *testing.T) {
			p := b.Open(t, url, v)
			if v.Dark == (v.Width != 0) { // each width and each scheme once: it takes a while
				p.Accessible()
			}
			p.Quiet(url)
			if wide := browsertest.Eval[int](p, `document.documentElement.scrollWidth - innerWidth`); wide > 0 {
				t.Errorf("the page is %d pixels too wide", wide)
			}
			p.Picture(name)
			if v.Dark {
				return
			}
			for _, part := range []string{"timeline", "certificates", "flags", "shared", "servers", "cryptography", "names", "clients", "input"} {
				p.Part(name+"-"+part, "#"+part)
			}
		})
	}

	p := b.Open(t, url, browsertest.View{})
	if n := browsertest.Eval[int](p, `document.querySelectorAll(".tools").length`); n < 5 {
		t.Errorf("%d tables have tools", n)
	}
	// A link from an alert into a closed part opens it, with the keyboard alone.
	p.Run(chromedp.Focus(`.alert.card h4 a`, chromedp.ByQuery), chromedp.KeyEvent("\r"), chromedp.Poll(`location.hash != ""`, nil))
	p.Run(chromedp.Poll(`document.getElementById(decodeURIComponent(location.hash.slice(1))).open`, nil))
	p.Run(chromedp.SendKeys(`#certificates input[type=search]`, "calc", chromedp.ByQuery), chromedp.Poll(`document.querySelector("#certificates [role=status]").textContent.startsWith("1 of ")`, nil))
	p.Run(chromedp.Focus(`#certificates-table th:nth-child(6) button`, chromedp.ByQuery), chromedp.KeyEvent("\r"), chromedp.Poll(`document.querySelector("#certificates-table th[aria-sort=ascending]")`, nil))
	sorted := browsertest.Eval[[]float64](p, `Array.from(document.querySelectorAll("#certificates-table tbody tr"), r => +r.cells[5].dataset.key)`)
	if !slices.IsSorted(sorted) {
		t.Errorf("not sorted: %v", sorted)
	}
	p.Quiet(url)

	// Without scripts all of it is there.
	still := b.Open(t, url, browsertest.View{NoScript: true})
	text := browsertest.Eval[string](still, `document.body.innerText`)
	for _, want := range []string{"Certificate that Microsoft's CA for Windows Update did not sign", "Nothing was lost.", "198.51.100.0:443", "frame "} {
		if !strings.Contains(text, want) {
			t.Errorf("without scripts %q is not there", want)
		}
	}
	if n := browsertest.Eval[int](still, `document.querySelectorAll("tbody tr").length`); n < 60 {
		t.Errorf("without scripts there are %d rows", n)
	}
	if n := browsertest.Eval[int](still, `document.querySelectorAll(".tools").length`); n != 0 {
		t.Error("a script has run")
	}

	// On paper, of A4 less its margins, tables fit, and no column is broken letter by letter.
	paper := b.Open(t, url, browsertest.View{Width: 688, Height: 1000})
	paper.Run(emulation.SetEmulatedMedia().WithMedia("print"))
	for what, script := range map[string]string{
		"tables that are too wide":    `Array.from(document.querySelectorAll(".scroll table"), e => e.offsetWidth - e.parentElement.clientWidth).filter(n => n > 0).length`,
		"columns that are too narrow": `Array.from(document.querySelectorAll("td.place, td.hash, td.address, td .flag")).filter(e => e.offsetWidth > 0 && e.offsetWidth < (e.className == "flag" ? 15 : 60)).length`,
		"arrows to sort by":           `Array.from(document.querySelectorAll("th button")).filter(e => getComputedStyle(e, "::after").content != "none").length`,
	} {
		if n := browsertest.Eval[int](paper, script); n > 0 {
			t.Errorf("%d %s", n, what)
		}
	}

	pdf := p.PDF()
	if dir := os.Getenv("ODDCERT_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "report.pdf"), pdf, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := exec.LookPath("pdftotext")
	if err != nil {
		t.Log("pdftotext is not installed: nobody reads the PDF")
		return
	}
	cmd := exec.Command(reader, "-layout", "-", "-")
	cmd.Stdin = bytes.NewReader(pdf)
	printed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	// Parts that are closed on the screen are printed, too.
	for _, want := range []string{"Case report", "Windows Update", "SHA-256 of the"} {
		if !strings.Contains(string(printed), want) {
			t.Errorf("%q is not printed", want)
		}
	}
}
