// Package views has the pieces that the report and the live page are made of: text,
// tables, cards of alerts and certificates, charts, and their style sheet and script.
//
// Nothing that comes from the wire, from a file or from a rule becomes markup. What would
// not be seen as it is, such as controls of direction, is shown as an escape that is
// marked, and what is too long is cut with a mark that says how much there was.
//
// All of a page is there without its script.
package views

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html"
	"html/template"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/sensor/internal/harmless"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// HTML is markup that can stand in a page as it is.
type HTML = template.HTML

// Style and Script are the style sheet and the script of all pages.
var (
	//go:embed style.css
	Style string
	//go:embed table.js
	Script string
)

// Policy is a Content-Security-Policy (CSP level 3) for a page that holds Style and
// Script itself: nothing else runs, and nothing is asked for anywhere.
func Policy() string {
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; style-src " + hash(Style) + "; script-src " + hash(Script) +
		"; base-uri 'none'; form-action 'none'"
}

// Text returns foreign text of at most MaxText bytes.
func Text(s string) HTML { return Short(s, MaxText) }

// Sentence returns text of at most MaxSentence bytes.
func Sentence(s string) HTML { return Short(s, MaxSentence) }

// Short returns at most n bytes of foreign text. Its direction is its own: what is not
// ASCII is in an element that keeps it from what is around. ASCII needs none, and a
// report has tens of thousands of such texts.
func Short(s string, n int) HTML {
	if s == "" {
		return ""
	}
	whole := len(s)
	if whole <= n && isASCII(s) {
		return HTML(html.EscapeString(s))
	}
	if whole > n {
		for i := n; i > max(0, n-utf8.UTFMax); i-- {
			if utf8.RuneStart(s[i]) {
				n = i // no character is cut
				break
			}
		}
		s = s[:n]
	}
	var b strings.Builder
	b.WriteString("<bdi>")
	marked := false
	for part, escape := range harmless.Parts(s) {
		switch {
		case escape && !marked:
			b.WriteString(`<span class="odd">`)
		case !escape && marked:
			b.WriteString(`</span>`)
		}
		marked = escape
		b.WriteString(html.EscapeString(part))
	}
	if marked {
		b.WriteString(`</span>`)
	}
	b.WriteString("</bdi>")
	if len(s) < whole {
		fmt.Fprintf(&b, ` <span class="cut">cut: %s of %s bytes</span>`, Count(uint64(len(s))), Count(uint64(whole)))
	}
	return HTML(b.String())
}

// isASCII reports whether all of s is visible ASCII.
func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Count writes a number with separators of thousands.
func Count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Counted writes a count, and says where it is an estimate.
func Counted(c inventory.Count) string {
	if c.Estimated {
		return "about " + Count(c.N)
	}
	return Count(c.N)
}

// Bytes is a number of bytes in decimal units.
func Bytes(n int64) string {
	f, unit := float64(n), 0
	for f >= 999.5 && unit < 4 {
		f, unit = f/1000, unit+1
	}
	if unit == 0 || f >= 99.95 {
		return fmt.Sprintf("%.0f %s", f, [...]string{"bytes", "kB", "MB", "GB", "TB"}[unit])
	}
	return fmt.Sprintf("%.1f %s", f, [...]string{"bytes", "kB", "MB", "GB", "TB"}[unit])
}

// Time is a time in nanoseconds since the Unix epoch, to the second, in UTC; a dash
// for 0.
func Time(ns int64) string {
	if ns == 0 {
		return "–"
	}
	return time.Unix(0, ns).UTC().Format(time.DateTime)
}

// Date is the day of a time in seconds since the Unix epoch, in UTC; a dash for 0.
func Date(seconds int64) string {
	if seconds == 0 {
		return "–"
	}
	return time.Unix(seconds, 0).UTC().Format(time.DateOnly)
}

// Hash is a hash in upper-case hex, of which the beginning is shown and all is copied.
func Hash(h []byte) HTML {
	return HTML(fmt.Sprintf(`<code class="short" data-copy>%X</code>`, h))
}

// Filter is a display filter, of which the beginning is shown and all is copied.
func Filter(s string) HTML {
	if s == "" {
		return ""
	}
	return HTML(`<code class="filter" data-copy>` + html.EscapeString(harmless.Text(s)) + `</code>`)
}

// Level is a level of a rule.
func Level(level string) HTML {
	switch level {
	case "":
		return ""
	case "critical", "high", "medium", "low", "informational":
		return HTML(`<span class="level level-` + level + `">` + level + `</span>`)
	}
	return HTML(`<span class="level">` + string(Text(level)) + `</span>`)
}

// Flags are short words.
func Flags(words []string) HTML {
	var b strings.Builder
	for _, w := range words {
		b.WriteString(`<span class="flag">` + html.EscapeString(w) + `</span> `)
	}
	return HTML(b.String())
}

// Link is a link with markup in it; without an address it is the markup alone.
func Link(address string, inside HTML) HTML {
	if address == "" {
		return inside
	}
	return HTML(`<a href="` + html.EscapeString(address) + `">` + string(inside) + `</a>`)
}

// ServerName is the address and port of a server, with its carrier where that is not
// plain TLS: "192.0.2.2:25 starttls-smtp".
func ServerName(k inventory.ServerKey) string {
	s := net.HardwareAddr(k.MAC[:]).String()
	if k.Address.IsValid() {
		s = netip.AddrPortFrom(k.Address, k.Port).String()
	}
	switch {
	case k.Transport == event.UDP:
		s += "/udp"
	case k.Transport == event.SCTP:
		s += "/sctp"
	}
	if k.Carrier != "" && k.Carrier != "tls" {
		s += " " + harmless.Short(k.Carrier, 64)
	}
	return s
}

// ClientName is the address and port of a client; empty where it has none.
func ClientName(f inventory.Flow) string {
	switch {
	case f.Client.IsValid():
		return f.Client.String()
	case f.ClientMAC != [6]byte{}:
		return net.HardwareAddr(f.ClientMAC[:]).String()
	}
	return ""
}

// Version is the name of a version on the wire, such as "TLS 1.2".
func Version(v uint16) string {
	if protocol, number := tls.VersionName(v); number != "" {
		return strings.ToUpper(protocol) + " " + number
	}
	return fmt.Sprintf("0x%04X", v)
}

// Suite is the name of a cipher suite.
func Suite(v uint16) string { return named(tls.CipherSuiteName(v), v) }

// Group is the name of a named group.
func Group(v uint16) string { return named(tls.GroupName(v), v) }

func named(name string, v uint16) string {
	if name == "" {
		return fmt.Sprintf("0x%04X", v)
	}
	return name
}

// Place says in which capture and frame something was seen. For a table, filter makes the
// display filter of its flow, and the path has its last two parts only.
func Place(p inventory.Place, filter func(...inventory.Flow) string) HTML {
	where := harmless.Short(p.Path, MaxText)
	if where == "" {
		where = harmless.Short(p.Interface, MaxText)
	}
	if where == "-" {
		where = "standard input"
	}
	shown := where
	if filter != nil { // in a table, where there is no room for all of it
		if parts := strings.Split(where, "/"); len(parts) > 3 {
			shown = "…/" + strings.Join(parts[len(parts)-2:], "/")
		}
	}
	var b strings.Builder
	b.WriteString("<bdi")
	if shown != where {
		b.WriteString(` data-full="` + html.EscapeString(where) + `" title="` + html.EscapeString(where) + `"`)
	}
	b.WriteString(">" + html.EscapeString(shown) + "</bdi>")
	if p.Frame != 0 {
		b.WriteString(`, <span class="nowrap">frame ` + Count(p.Frame) + `</span>`)
	}
	if filter != nil {
		b.WriteString(string(Filter(filter(p.Flow))))
	}
	return HTML(b.String())
}

// CSS and JS are Style and Script as they can stand in a template.
func CSS() template.CSS { return template.CSS(Style) }

// JS is Script as it can stand in a template.
func JS() template.JS { return template.JS(Script) }
