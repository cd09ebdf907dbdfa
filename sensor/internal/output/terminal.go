package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/flow"
)

// Terminal writes alerts and a closing summary for people. What comes from the
// wire cannot do anything to the terminal: characters that do not print are
// shown as escapes.
type Terminal struct {
	w     io.Writer
	color bool
	width int
	buf   bytes.Buffer
}

// NewTerminal returns a Terminal that writes to w. It uses colours, and the
// width of the window up to 100 columns, when w is a terminal; NO_COLOR
// (https://no-color.org) takes the colours away.
func NewTerminal(w io.Writer) *Terminal {
	t := &Terminal{w: w, width: 80}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		t.color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			t.width = max(40, min(width, 100))
		}
	}
	return t
}

// Through makes t write to w what is meant for the window that it was made for.
func (t *Terminal) Through(w io.Writer) { t.w = w }

// style is the parameters of an SGR sequence (ECMA-48, section 8.3.117).
type style string

const (
	bold  style = "1"
	faint style = "2"
	green style = "32"
)

// levels has the style of each level.
var levels = map[string]style{
	"critical":      "1;97;41",
	"high":          "1;31",
	"medium":        "1;33",
	"low":           "1;36",
	"informational": "1;34",
}

func (t *Terminal) styled(s style, text string) string {
	if !t.color || s == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// labelWidth is the column at which the values of an alert begin.
const labelWidth = 12

// field writes a labelled value, wrapped, if there is one. The value is as it
// comes from the wire.
func (t *Terminal) field(label, value string) {
	if value != "" {
		t.wrap(t.styled(faint, fmt.Sprintf("  %-*s", labelWidth-2, label)), labelWidth, value, "")
	}
}

// wrap writes text after head, which is indent columns wide, and goes on below
// at the same column.
func (t *Terminal) wrap(head string, indent int, text string, s style) {
	for _, line := range wrapped(printable(text), t.width-indent) {
		t.buf.WriteString(head + t.styled(s, line) + "\n")
		head = strings.Repeat(" ", indent)
	}
}

func (t *Terminal) flush() error {
	_, err := t.buf.WriteTo(t.w)
	t.buf.Reset()
	if err != nil {
		return fmt.Errorf("write to the terminal: %w", err)
	}
	return nil
}

// Alert writes a match, readable in 80 columns, with an empty line after it.
func (t *Terminal) Alert(h *event.Handshake, m *rules.Match) error {
	level := strings.ToUpper(m.Rule.Level)
	t.wrap(t.styled(levels[m.Rule.Level], level)+"  ", len(level)+2, m.Rule.Title, bold)

	at := completed(h)
	seen := time.Unix(0, at.Time).UTC().Format("2006-01-02 15:04:05.000 MST")
	if at.Frame != 0 {
		seen += ", packet " + thousands(at.Frame)
	}
	if o := h.Flow.Origin; o != nil && o.Path != "" {
		seen += " of " + filepath.Base(o.Path)
	} else if o != nil && o.Interface != "" {
		seen += " on " + o.Interface
	}
	t.field("Seen", seen)
	server, client := ends(h)
	t.field("Server", server+" → client "+client+", "+protocol(h))
	if h.ClientHello != nil {
		t.field("SNI", h.ClientHello.ServerName)
	}
	chain, whose := h.Chain, "server"
	if ofClient(m.Field) {
		chain, whose = h.ClientChain, "client"
	}
	if index := max(0, m.ChainIndex); index < len(chain) && chain[index].Certificate != nil {
		c := chain[index]
		place := "the only certificate"
		if len(chain) > 1 {
			place = fmt.Sprintf("certificate %d of the %d", index+1, len(chain))
		}
		t.field("Chain", place+" that the "+whose+" sent")
		t.field("Subject", c.Subject.String)
		t.field("Issuer", c.Issuer.String)
		if c.NotBefore.IsValid() && c.NotAfter.IsValid() {
			t.field("Valid", c.NotBefore.Time().Format(time.DateOnly)+" to "+c.NotAfter.Time().Format(time.DateOnly))
		}
		if c.DER != nil && !c.Truncated {
			t.field("SHA-256", string(appendHex(nil, c.SHA256[:])))
		}
	} else {
		t.field("Chain", "no certificate: "+whatOutcome[h.Outcome])
	}
	t.field("Verdict", m.Rule.Verdict)
	t.field("Reason", m.Reason)
	for _, reason := range m.Reasons {
		if reason != m.Reason {
			t.wrap(strings.Repeat(" ", labelWidth)+"· ", labelWidth+2, reason, "")
		}
	}
	t.buf.WriteByte('\n')
	return t.flush()
}

// ofClient says whether a field is one of the client's certificates.
func ofClient(field string) bool {
	for _, prefix := range []string{"oddcert.client_chain.", "tls.client.x509.", "tls.client.hash."} {
		if strings.HasPrefix(field, prefix) {
			return true
		}
	}
	return field == "tls.client.subject" || field == "tls.client.issuer"
}

// protocol is what was spoken, such as "TLS 1.2 in starttls-smtp".
func protocol(h *event.Handshake) string {
	s := "TLS"
	if h.Datagram {
		s = "DTLS"
	}
	if protocol, number := tls.VersionName(h.Version); number != "" {
		s = strings.ToUpper(protocol) + " " + number
	}
	if h.Carrier != "" && h.Carrier != "tls" && h.Carrier != "dtls" {
		s += " in " + h.Carrier
	}
	return s
}

// whyLost explains the causes of a loss.
var whyLost = [event.Losses]string{
	event.Gap:        "bytes of the stream were not captured",
	event.Evicted:    "the flow gave way to others",
	event.Malformed:  "the bytes are no TLS",
	event.Limit:      "a limit was reached",
	event.EndOfInput: "the capture or the flow ended first",
}

// whatOutcome explains the outcomes.
var whatOutcome = [event.Outcomes]string{
	event.Extracted: "the certificate was there",
	event.Encrypted: "TLS 1.3, no keys",
	event.Resumed:   "a session resumed without one",
	event.None:      "anonymous, raw key, PSK or refused",
	event.Lost:      "not seen whole",
}

// row is one line of the summary.
type row struct {
	n       uint64
	label   string
	note    string
	style   style // of label
	heading bool  // n is nothing to show
}

// Summary writes what was seen, what became of it, and what was lost and why.
func (t *Terminal) Summary(c *Counters) error {
	seen := []row{{n: c.Capture.Frames, label: "packets", note: size(c.Capture.Bytes) + span(c.Start, c.End)}}
	if c.Capture.Files > 0 {
		seen = append(seen, row{n: c.Capture.Files, label: "files read to the end"})
	}
	seen = appendRow(seen, row{n: c.Capture.Skipped, label: "files in folders skipped", note: "no captures of a network"})
	jumps := row{n: c.Capture.Jumps, label: "jumps of the clock"}
	if c.Capture.Jump != "" {
		jumps.note = "first at " + printable(c.Capture.Jump)
	}
	seen = appendRow(seen, jumps)
	if c.Capture.Shunted > 0 {
		seen = append(seen, row{n: c.Capture.Shunted, label: "packets of decided flows withheld by the kernel"})
	}
	if c.Capture.Fragments > 0 {
		seen = append(seen, row{n: c.Capture.Fragments, label: "fragments taken by the kernel, before the packets"})
	}
	var lost []row
	for _, r := range []row{
		{n: c.Capture.Broken, label: "files not read whole"},
		{n: c.Capture.Corrupt, label: "records that could not be read"},
		{n: c.Capture.Ignored, label: "packets of unknown link types"},
		{n: c.Capture.Unassembled, label: "datagrams whose fragments the kernel could not put together"},
		{n: c.Capture.Dropped, label: "packets dropped by the kernel", note: "no room in the ring"},
		{n: c.Capture.Unread, label: "packets left in the rings at the end"},
		{n: c.Capture.Gone, label: "times that an interface was gone", note: "what came meanwhile was not seen"},
	} {
		lost = appendRow(lost, r)
	}

	outcomes := []row{{n: c.Parser.Handshakes, label: "handshakes"}}
	for o := range event.Outcomes {
		outcomes = appendRow(outcomes, row{n: c.Parser.Outcomes[o], label: "  " + o.String(), note: whatOutcome[o]})
	}
	outcomes = append(outcomes, row{n: c.Told.Certificates, label: "distinct certificates"})
	for l := range event.Losses {
		lost = appendRow(lost, row{n: c.Parser.Losses[l], label: "certificates: " + l.String(), note: whyLost[l]})
	}

	var alerts []row
	var total uint64
	for _, r := range c.Rules {
		total += r.Matches
	}
	alerts = append(alerts, row{n: total, label: "alerts"})
	byLevel := slices.Clone(c.Rules)
	slices.SortStableFunc(byLevel, func(a, b RuleCount) int { return b.Rule.Severity - a.Rule.Severity })
	for _, r := range byLevel {
		alerts = appendRow(alerts, row{
			n: r.Matches, label: "  " + r.Rule.Level, note: printable(r.Rule.Title), style: levels[r.Rule.Level],
		})
	}

	groups := [][]row{seen}
	for _, s := range append([]Section{{Name: "parser", Value: c.Parser, Lost: []string{"wrong_secrets", "sealed_limit",
		"evicted_streams", "evicted_datagrams", "evicted_quic", "evicted_sessions"}}}, c.Sections...) {
		rows, err := counters(s.Value)
		if err != nil {
			return fmt.Errorf("read the counters of %s: %w", s.Name, err)
		}
		var group []row
		for _, r := range rows {
			name := r.label
			r.label = printable(s.Name + ": " + strings.NewReplacer("_", " ", "-", " ").Replace(name))
			switch {
			case r.label == "flows: unverified":
				r.note = "bad checksums, left to the card of the sender"
			case strings.HasPrefix(r.label, "flows: forged "):
				r.note = "ignored, as by the endpoints"
			}
			switch {
			case slices.Contains(s.Lost, name):
				lost = appendRow(lost, r)
			case s.Name == "parser" && name == "handshakes": // counted above
			default:
				group = appendRow(group, r)
			}
		}
		groups = append(groups, group)
	}
	groups = append(groups, carried(c.NoTLS, "no TLS"), outcomes, alerts)
	lost = append(lost, carried(c.Unread, "not read")...)
	if len(lost) == 0 {
		groups = append(groups, []row{{heading: true, label: "nothing lost", style: green}})
	} else {
		groups = append(groups, append([]row{{heading: true, label: "lost:", style: bold}}, lost...))
	}
	t.table(groups)
	return t.flush()
}

// maxCarried is how many kinds of what frames carry the summary names.
const maxCarried = 12

// carried makes rows of what frames carry in the place of a packet.
func carried(list []flow.Carried, note string) (rows []row) {
	for i, c := range list {
		if i < maxCarried {
			rows = append(rows, row{n: c.Frames, label: "frames of " + printable(c.Name), note: note})
			continue
		}
		if i == maxCarried {
			rows = append(rows, row{label: "frames of other kinds", note: note})
		}
		rows[maxCarried].n += c.Frames
	}
	return rows
}

// appendRow appends a row unless it counts nothing.
func appendRow(rows []row, r row) []row {
	if r.n == 0 {
		return rows
	}
	return append(rows, r)
}

// table writes groups of rows: numbers in one column, notes in one for each
// group.
func (t *Terminal) table(groups [][]row) {
	numbers := 0
	for _, group := range groups {
		for _, r := range group {
			numbers = max(numbers, len(thousands(r.n)))
		}
	}
	for _, group := range groups {
		labels := 0
		for _, r := range group {
			if r.note != "" {
				labels = max(labels, columns(r.label))
			}
		}
		for _, r := range group {
			number := thousands(r.n)
			if r.heading {
				number = ""
			}
			line := fmt.Sprintf("%*s  %s", numbers, number, t.styled(r.style, r.label))
			if r.note != "" {
				line += strings.Repeat(" ", labels-columns(r.label)+2)
				line += t.styled(faint, truncated(r.note, t.width-numbers-labels-4))
			}
			t.buf.WriteString(line + "\n")
		}
	}
}

// counters reads the numbers of a struct of counters in their order, by their
// JSON names.
func counters(v any) ([]row, error) {
	b, err := marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return readCounters(d, "")
}

func readCounters(d *json.Decoder, path string) ([]row, error) {
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	var rows []row
	switch tok := tok.(type) {
	case json.Number:
		if n, err := strconv.ParseUint(tok.String(), 10, 64); err == nil {
			rows = append(rows, row{n: n, label: path})
		}
	case json.Delim:
		for d.More() {
			under := path
			if tok == '{' {
				key, err := d.Token()
				if err != nil {
					return nil, err
				}
				under = strings.TrimSpace(path + " " + key.(string))
			}
			inner, err := readCounters(d, under)
			if err != nil {
				return nil, err
			}
			rows = append(rows, inner...)
		}
		if _, err := d.Token(); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// printable makes s harmless on a terminal, and bounds its length.
func printable(s string) string {
	if len(s) > maxTerminalText {
		return escaped(s[:maxTerminalText], "") + "…"
	}
	return escaped(s, "")
}

// escaped shows characters that do not print as escapes, but for those in kept.
func escaped(s, kept string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r) || strings.ContainsRune(kept, r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default: // controls of direction among them, which can reorder what is read
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		s = s[size:]
	}
	return b.String()
}

// Harmless returns a writer of text for people, such as warnings and lines of
// the log. What they repeat of files, of servers and of the wire cannot do
// anything to the terminal that they may be written to: characters that do not
// print are shown as escapes. Each call of Write must have whole characters.
func Harmless(w io.Writer) io.Writer { return harmlessWriter{w} }

type harmlessWriter struct{ w io.Writer }

func (h harmlessWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(h.w, escaped(string(p), "\n\t")); err != nil {
		return 0, err
	}
	return len(p), nil
}

// narrow measures characters as terminals outside of East Asia show them.
var narrow = &runewidth.Condition{}

// columns is how wide printable text is.
func columns(s string) (n int) {
	for _, r := range s {
		n += narrow.RuneWidth(r)
	}
	return n
}

// fitting is how many bytes of s fit into width columns, at least one character.
func fitting(s string, width int) int {
	used := 0
	for i, r := range s {
		if used += narrow.RuneWidth(r); used > width && i > 0 {
			return i
		}
	}
	return len(s)
}

// wrapped breaks s into lines, between words where it can.
func wrapped(s string, width int) (lines []string) {
	for {
		n := fitting(s, width)
		if n == len(s) {
			return append(lines, s)
		}
		line := s[:n]
		if space := strings.LastIndexByte(s[:n+1], ' '); space > 0 {
			line = s[:space]
		}
		lines = append(lines, strings.TrimRight(line, " "))
		if s = strings.TrimLeft(s[len(line):], " "); s == "" {
			return lines
		}
	}
}

// truncated is s in at most width columns.
func truncated(s string, width int) string {
	if columns(s) <= width {
		return s
	}
	return s[:fitting(s, width-1)] + "…"
}

// thousands is n with separators.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size is a number of bytes in decimal units.
func size(n uint64) string {
	f, unit := float64(n), 0
	for f >= 999.5 && unit < 4 {
		f, unit = f/1000, unit+1
	}
	format := "%.1f %s"
	if unit == 0 || f >= 99.95 {
		format = "%.0f %s"
	}
	return fmt.Sprintf(format, f, [...]string{"B", "kB", "MB", "GB", "TB"}[unit])
}

// span says from when to when packets were seen.
func span(start, end int64) string {
	if start == 0 && end == 0 {
		return ""
	}
	from, to := time.Unix(0, start).UTC(), time.Unix(0, end).UTC()
	layout := time.DateTime
	if from.Format(time.DateOnly) == to.Format(time.DateOnly) {
		layout = time.TimeOnly
	}
	return ", " + from.Format(time.DateTime) + " to " + to.Format(layout) + " UTC"
}
