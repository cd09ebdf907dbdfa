// Package summary says in words what a run has seen, what became of it, and what was
// lost and why: the same on the terminal, in a report and on a page.
package summary

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Row is one line of a summary. Names in it come from frames, files and rules: whoever
// shows it makes them harmless.
type Row struct {
	N     uint64
	Label string // what is counted; spaces at its begin where it is part of the row before
	Note  string
	Level string // of the rule that the row is about; empty for others
}

// Summary is what a run has seen.
type Summary struct {
	Groups [][]Row // what was seen, and what became of it
	Lost   []Row   // what was lost, and why; empty when nothing was
}

// whyLost explains the causes of a loss.
var whyLost = [event.Losses]string{
	event.Gap:        "bytes of the stream were not captured",
	event.Evicted:    "the flow was evicted by others",
	event.Malformed:  "the bytes are not TLS",
	event.Limit:      "a limit was reached",
	event.EndOfInput: "the capture or the flow ended first",
}

// outcomeNotes explains the outcomes.
var outcomeNotes = [event.Outcomes]string{
	event.Extracted: "the certificate was seen",
	event.Encrypted: "TLS 1.3, no keys",
	event.Resumed:   "a session resumed without one",
	event.None:      "anonymous, raw key, PSK or refused",
	event.Lost:      "not seen completely",
}

// Outcome says what o means for the certificate.
func Outcome(o event.Outcome) string { return outcomeNotes[o] }

// noun is what is counted, in the singular and in the plural, with a note.
type noun struct{ one, many, note string }

// ignored is the note of packets that change nothing.
const ignored = "ignored, as the endpoints do"

// words has the counters that most runs have, by section and JSON name. Others
// are shown under their own names.
var words = map[string]noun{
	"decoded: tcp":       {"packet of TCP", "packets of TCP", ""},
	"decoded: udp":       {"packet of UDP", "packets of UDP", ""},
	"decoded: sctp":      {"message of SCTP", "messages of SCTP", ""},
	"decoded: eapol":     {"packet of EAP", "packets of EAP", ""},
	"decoded: other_ip":  {"packet of another protocol over IP", "packets of other protocols over IP", ""},
	"decoded: not_ip":    {"frame without IP", "frames without IP", ""},
	"decoded: fragments": {"fragment that completes nothing", "fragments that complete nothing", ""},
	"decoded: malformed": {"malformed packet", "malformed packets", "headers that contradict themselves or are cut"},

	"memory: keys forgotten":    {"key of a server forgotten", "keys of servers forgotten", "with who showed and saw them"},
	"memory: openvpn forgotten": {"server of OpenVPN forgotten", "servers of OpenVPN forgotten", ""},
	"memory: flagged forgotten": {"server with an alert forgotten", "servers with an alert forgotten", "who talks to it again is not reported"},
	"suppression: suppressed":   {"match counted instead of raised", "matches counted instead of raised", "like an alert before; summaries say how many"},

	"flows: total":             {"flow", "flows", ""},
	"flows: embryonic":         {"  without payload", "  without payload", ""},
	"flows: decided":           {"  decided", "  decided", "the handshake is over, or it is not TLS"},
	"flows: undecided":         {"  undecided", "  undecided", "ended before it showed what it is"},
	"flows: expired":           {"  expired", "  expired", "silent for too long"},
	"flows: open":              {"  open", "  open", "at the end of the capture"},
	"flows: resets":            {"flow ended by a reset", "flows ended by a reset", ""},
	"flows: unverified":        {"segment with an unverified checksum", "segments with unverified checksums", "the sender's network card fills them in"},
	"flows: evicted_undecided": {"flow evicted before it was decided", "flows evicted before they were decided", ""},
	"flows: parser_failures":   {"failure of the program", "failures of the program", "each cost one flow or one handshake"},
	"flows: forged conflict":   {"segment that conflicts with an earlier one", "segments that conflict with earlier ones", "both copies are tried"},
	"flows: forged fin":        {"forged FIN", "forged FIN", ignored},
	"flows: forged rst":        {"forged RST", "forged RST", ignored},
	"flows: forged syn":        {"forged SYN", "forged SYN", ignored},
	"flows: forged data":       {"segment outside of the window", "segments outside of the window", ignored},
	"flows: forged checksum":   {"bad checksum", "bad checksums", ignored},
	"flows: forged ack":        {"impossible acknowledgement", "impossible acknowledgements", ignored},
	"flows: forged timestamp":  {"timestamp from the past", "timestamps from the past", ignored},
	"flows: retransmitted":     {"segment retransmitted", "segments retransmitted", ""},
	"flows: out_of_order":      {"segment out of order", "segments out of order", ""},
	"flows: overlapping":       {"segment that overlaps others", "segments that overlap others", ""},
	"flows: padding":           {"acknowledgement with padding", "acknowledgements with padding", ""},
	"flows: gaps":              {"gap in a flow", "gaps in flows", "segments were not captured"},
	"flows: gap_bytes":         {"byte in gaps", "bytes in gaps", ""},
	"flows: cut_bytes":         {"byte cut off by the snaplen", "bytes cut off by the snaplen", ""},

	"fragments: total":       {"fragment", "fragments", ""},
	"fragments: reassembled": {"  reassembled", "  reassembled", ""},
	"fragments: datagrams":   {"datagram made of fragments", "datagrams made of fragments", ""},
	"keys: secrets":          {"secret in key logs", "secrets in key logs", ""},
	"keys: other":            {"other line in key logs", "other lines in key logs", "of no use here"},
	"keys: malformed":        {"malformed line in key logs", "malformed lines in key logs", ""},

	"parser: quic_blind":    {"QUIC packet that could not be opened", "QUIC packets that could not be opened", "the client's first was not captured"},
	"parser: opaque":        {"flow of OpenVPN that is encrypted as a whole", "flows of OpenVPN that are encrypted as a whole", ""},
	"parser: decrypted":     {"handshake decrypted", "handshakes decrypted", ""},
	"inventory: pairs":      {"pair of a certificate and a server", "pairs of a certificate and a server", ""},
	"records: handshakes":   {"handshake record", "handshake records", ""},
	"records: certificates": {"certificate record", "certificate records", ""},
	"records: sightings":    {"sighting record", "sighting records", ""},
	"records: hellos":       {"hello record", "hello records", ""},
	"records: stats":        {"statistics record", "statistics records", ""},
	"records: alerts":       {"alert record", "alert records", ""},
}

// counted is a row of n things.
func counted(n uint64, w noun) Row {
	if n == 1 {
		return Row{N: n, Label: w.one, Note: w.note}
	}
	return Row{N: n, Label: w.many, Note: w.note}
}

// Of returns the summary of a run with the counters c. name is what a capture is called,
// by its path.
func Of(c *output.Counters, name func(path string) string) (Summary, error) {
	var lost []Row
	for _, r := range []Row{
		counted(c.Capture.Broken, noun{"file not read completely", "files not read completely", ""}),
		counted(c.Capture.Corrupt, noun{"packet record that could not be read", "packet records that could not be read", ""}),
		counted(c.Capture.Ignored, noun{"packet of an unknown link type", "packets of unknown link types", ""}),
		counted(c.Capture.Unassembled, noun{"datagram whose fragments the kernel could not put together", "datagrams whose fragments the kernel could not put together", ""}),
		counted(c.Capture.Dropped, noun{"packet dropped by the kernel", "packets dropped by the kernel", "the ring was full"}),
		counted(c.Capture.Unread, noun{"packet left in the rings at the end", "packets left in the rings at the end", ""}),
		counted(c.Capture.Gone, noun{"time that an interface was gone", "times that an interface was gone", "its packets were not seen meanwhile"}),
	} {
		lost = appendRow(lost, r)
	}
	for l := range event.Losses {
		lost = appendRow(lost, counted(c.Parser.Losses[l],
			noun{"certificate lost: " + l.String(), "certificates lost: " + l.String(), whyLost[l]}))
	}
	groups := [][]Row{captured(c, name)}
	for _, s := range append([]output.Section{{Name: "parser", Value: c.Parser, Lost: []string{"wrong_secrets", "sealed_limit",
		"evicted_streams", "evicted_datagrams", "evicted_quic", "evicted_quic_connections", "evicted_sessions",
		"quic_cut", "quic_limit", "carving_limit", "chain_limit", "packet_limit"}}}, c.Sections...) {
		all, err := numbers(s.Value)
		if err != nil {
			return Summary{}, fmt.Errorf("read the counters of %s: %w", s.Name, err)
		}
		var group []Row
		for _, number := range all {
			switch r := number.row(s.Name); {
			case slices.Contains(s.Lost, number.name):
				lost = appendRow(lost, r)
			case s.Name == "parser" && number.name == "handshakes": // among the outcomes
			case s.Books && words[s.Name+": "+number.name] == (noun{}):
			default:
				group = appendRow(group, r)
			}
		}
		for _, l := range s.Lines {
			group = appendRow(group, counted(l.N, noun{l.One, l.Many, l.Note}))
		}
		groups = append(groups, group)
	}
	groups = append(groups, carried(c.NoTLS, "no TLS"), outcomes(c), alerts(c))
	lost = append(lost, weird(c.Weird)...)
	lost = append(lost, carried(c.Unread, "not read")...)
	return Summary{Groups: groups, Lost: lost}, nil
}

// captured is what was read.
func captured(c *output.Counters, name func(path string) string) []Row {
	rows := []Row{counted(c.Capture.Frames, noun{"packet", "packets", size(c.Capture.Bytes) + span(c.Start, c.End)})}
	for _, r := range []Row{
		counted(c.Capture.Files, noun{"file read completely", "files read completely", ""}),
		counted(c.Capture.Skipped, noun{"file in a folder skipped", "files in folders skipped", "not a capture of a network"}),
		counted(c.Capture.Foreign, noun{"packet of a bus that is not a network", "packets of buses that are not a network", ""}),
		counted(c.Capture.Jumps, noun{"jump of the clock", "jumps of the clock", first(c.Capture.Jump, name)}),
		counted(c.Capture.Shunted, noun{"packet of a decided flow withheld by the kernel", "packets of decided flows withheld by the kernel", ""}),
		counted(c.Capture.Fragments, noun{"fragment put together by the kernel", "fragments put together by the kernel", "in the packets above"}),
	} {
		rows = appendRow(rows, r)
	}
	return rows
}

func first(at capture.Jump, name func(path string) string) string {
	if at == (capture.Jump{}) {
		return ""
	}
	return fmt.Sprintf("first at packet %d of %s", at.Frame, name(at.Path))
}

// outcomes is what became of the handshakes.
func outcomes(c *output.Counters) []Row {
	rows := []Row{counted(c.Parser.Handshakes, noun{"handshake", "handshakes", ""})}
	for o := range event.Outcomes {
		rows = appendRow(rows, Row{N: c.Parser.Outcomes[o], Label: "  " + o.String(), Note: outcomeNotes[o]})
	}
	return append(rows, counted(c.Told.Certificates, noun{"distinct certificate", "distinct certificates", ""}))
}

// alerts is what the rules found, the highest level first.
func alerts(c *output.Counters) []Row {
	var total uint64
	for _, r := range c.Rules {
		total += r.Matches
	}
	if total == 0 {
		return []Row{{Label: "alerts", Note: "no server was seen with a certificate that a rule names"}}
	}
	rows := []Row{counted(total, noun{"alert", "alerts", ""})}
	byLevel := slices.Clone(c.Rules)
	slices.SortStableFunc(byLevel, func(a, b output.RuleCount) int { return b.Rule.Severity - a.Rule.Severity })
	for _, r := range byLevel {
		rows = appendRow(rows, Row{
			N: r.Matches, Label: "  " + r.Rule.Level, Note: r.Rule.Title, Level: r.Rule.Level,
		})
	}
	return rows
}

// carried makes rows of what frames carry in the place of a packet.
func carried(list []decode.FrameCount, note string) (rows []Row) {
	for i, c := range list {
		if i < maxCarried {
			rows = append(rows, counted(c.Frames, noun{"frame of " + c.Name, "frames of " + c.Name, note}))
			continue
		}
		if i == maxCarried {
			rows = append(rows, Row{Label: "frames of other kinds", Note: note})
		}
		rows[maxCarried].N += c.Frames
	}
	return rows
}

// weird makes rows of what is wrong with malformed frames, the most frequent first.
func weird(list []decode.FrameCount) (rows []Row) {
	for _, c := range list[:min(len(list), maxWeird)] {
		rows = append(rows, counted(c.Frames, noun{"malformed frame: " + c.Name, "malformed frames: " + c.Name, ""}))
	}
	return rows
}

// appendRow appends a row unless it counts nothing.
func appendRow(rows []Row, r Row) []Row {
	if r.N == 0 {
		return rows
	}
	return append(rows, r)
}

// number is one number of a struct of counters: its JSON name, after the names of
// the objects that hold it, with spaces between them.
type number struct {
	name string
	n    uint64
}

// row is the line that shows a number of a section.
func (n number) row(section string) Row {
	if w, ok := words[section+": "+n.name]; ok {
		return counted(n.n, w)
	}
	return Row{N: n.n, Label: section + ": " + strings.NewReplacer("_", " ", "-", " ").Replace(n.name)}
}

// numbers returns the numbers of a struct of counters in their order.
func numbers(v any) ([]number, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return readNumbers(d, "")
}

func readNumbers(d *json.Decoder, path string) ([]number, error) {
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	var all []number
	switch tok := tok.(type) {
	case json.Number:
		if n, err := strconv.ParseUint(tok.String(), 10, 64); err == nil {
			all = append(all, number{path, n})
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
			inner, err := readNumbers(d, under)
			if err != nil {
				return nil, err
			}
			all = append(all, inner...)
		}
		if _, err := d.Token(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// LostOf returns what a section counts as lost and is not zero, by the names that
// [output.Section] has.
func LostOf(s output.Section) (map[string]uint64, error) {
	all, err := numbers(s.Value)
	if err != nil {
		return nil, fmt.Errorf("read the counters of %s: %w", s.Name, err)
	}
	lost := map[string]uint64{}
	for _, number := range all {
		if number.n > 0 && slices.Contains(s.Lost, number.name) {
			lost[number.name] = number.n
		}
	}
	return lost, nil
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
