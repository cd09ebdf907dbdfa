package output

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// Counters is what the program has seen and lost, for the stats record and the
// summary at the end.
type Counters struct {
	Time       int64         // of the wall clock, nanoseconds since the Unix epoch, UTC
	Uptime     time.Duration // since the run began, by the wall clock
	Stalled    time.Duration // the longest that a worker of a live capture has been busy with one batch, or without one
	Lag        time.Duration // the longest that a packet waited in a live capture until it was read
	Start, End int64         // times of the first and the last packet, in the same unit; 0 before the first
	Origin     *event.Origin // nil where there is more than one
	Captures   []string      // the whole paths of the captures read so far, or of the first of them
	Unnamed    uint64        // how many captures are not in Captures

	Interfaces []capture.Interface // of a live capture

	Capture  capture.Stats
	Parser   parsers.Stats
	Told     ToldStats
	Failure  string // the first panic that cost a flow or a handshake; empty where there was none
	Rules    []RuleCount
	Sections []Section

	// Frames in which no packet was found, by what they carry, the most
	// frequent first.
	NoTLS  []decode.FrameCount // what is known to carry no TLS
	Unread []decode.FrameCount // what might have carried it

	// Malformed frames by what is wrong with them, the most frequent first.
	Weird []decode.FrameCount
}

// RuleCount is how often a rule matched.
type RuleCount struct {
	Rule    *rules.Rule
	Matches uint64
}

// Section is a named group of further counters, such as those of the flow
// table. The fields of Value, a struct, are counters with JSON names.
type Section struct {
	Name  string
	Value any
	Lost  []string // the fields that count something lost: the path of JSON names to each, with spaces between
	Books bool     // it is for who looks into the program: people are told what was lost, and what there is a word for
	Lines []Line   // what people are told beside that
}

// Line is a number with words for what it counts, in the singular and in the plural,
// and a note.
type Line struct {
	N         uint64
	One, Many string
	Note      string
}

// AppendStats appends the stats record of c. It is not for hot paths.
func (e *Encoder) AppendStats(dst []byte, c *Counters) ([]byte, Stamp, error) {
	stats, err := e.appendCounters(nil, c)
	if err != nil {
		return dst, Stamp{}, err
	}
	e.setOrigin(c.Origin)
	e.event = e.appendSubject(e.event[:0], Stats)
	e.event = binary.BigEndian.AppendUint64(e.event, uint64(c.Time))
	e.event = append(e.event, stats...)
	stamp := e.stamp(c.Time)
	e.setJudged(nil)
	dst = e.appendEvent(dst, Stats, stamp, c.Time)
	dst = end(dst, '}')
	origin := e.originJSON
	if len(e.about) == 0 { // the version is told in this dataset alone
		dst = append(dst, `"observer":{`...)
		dst = appendText(dst, `"version":`, e.observer.Version)
		if rest, ok := bytes.CutPrefix(origin, []byte(`"observer":{`)); ok {
			dst, origin = append(dst, rest...), nil
		} else {
			dst = end(dst, '}')
		}
	}
	dst = append(dst, origin...)
	dst = append(dst, `"oddcert":{"stats":`...)
	dst = append(dst, stats...)
	return append(dst, '}', '}'), stamp, nil
}

func (e *Encoder) appendCounters(b []byte, c *Counters) ([]byte, error) {
	sections := []Section{
		{Name: "capture", Value: c.Capture},
		{Name: "parser", Value: c.Parser},
		{Name: "told", Value: c.Told},
	}
	b = append(b, '{')
	if c.Start != 0 {
		b = append(b, `"packets":{`...)
		b = e.clock.appendTime(b, `"first":`, c.Start)
		b = e.clock.appendTime(b, `"last":`, c.End)
		b = end(b, '}')
	}
	b = e.appendInterfaces(b, c)
	b = appendTexts(b, `"captures":`, c.Captures)
	if c.Unnamed > 0 {
		b = appendUint(b, `"captures_unnamed":`, c.Unnamed)
	}
	b = appendText(b, `"failure":`, c.Failure)
	for _, s := range append(sections, c.Sections...) {
		v, err := marshal(s.Value)
		if err != nil {
			return nil, fmt.Errorf("encode the counters of %s: %w", s.Name, err)
		}
		b = appendString(b, s.Name)
		b = append(b, ':')
		b = append(b, v...)
		b = append(b, ',')
	}
	b = append(b, `"certificates":{`...)
	for o := range event.Outcomes {
		b = appendUint(b, `"`+o.String()+`":`, c.Parser.Outcomes[o])
	}
	b = end(b, '}')
	b = append(b, `"loss":{`...)
	for l := event.NoLoss + 1; l < event.Losses; l++ {
		b = appendUint(b, `"`+l.String()+`":`, c.Parser.Losses[l])
	}
	b = end(b, '}')
	for _, list := range []struct {
		name   string
		counts []decode.FrameCount
	}{{"no_tls", c.NoTLS}, {"unread", c.Unread}, {"weird", c.Weird}} {
		from := len(b)
		b = append(appendString(b, list.name), ":["...)
		for i := range list.counts {
			b = append(b, '{')
			b = appendText(b, `"name":`, list.counts[i].Name)
			b = appendUint(b, `"frames":`, list.counts[i].Frames)
			b = end(b, '}')
		}
		b = closeOrDrop(b, from, ']')
	}
	from := len(b)
	b = append(b, `"rules":[`...)
	for _, r := range c.Rules {
		b = append(b, '{')
		b = appendText(b, `"id":`, r.Rule.ID)
		b = appendText(b, `"name":`, r.Rule.Title)
		b = appendUint(b, `"matches":`, r.Matches)
		b = end(b, '}')
	}
	b = closeOrDrop(b, from, ']')
	b[len(b)-1] = '}'
	return b, nil
}

// appendInterfaces appends what tells a live sensor on a quiet interface from one with
// a dead link, and both from one that is not there any more: how long it has run, how
// old the last packet is, and the links.
func (e *Encoder) appendInterfaces(b []byte, c *Counters) []byte {
	if c.Interfaces == nil {
		return b
	}
	b = appendUint(b, `"uptime":`, uint64(c.Uptime))
	if c.Lag > 0 {
		b = appendUint(b, `"lag":`, uint64(c.Lag))
	}
	var down, silent []string
	b = append(b, `"interfaces":[`...)
	for i := range c.Interfaces {
		n := &c.Interfaces[i]
		quiet := n.Silence(time.Unix(0, c.Time))
		switch {
		case n.State != capture.LinkUp:
			down = append(down, n.Name)
		case quiet >= capture.SilentAfter:
			silent = append(silent, n.Name)
		}
		b = append(b, '{')
		b = appendText(b, `"name":`, n.Name)
		b = appendText(b, `"state":`, string(n.State))
		if !n.Since.IsZero() {
			b = e.clock.appendTime(b, `"since":`, n.Since.UnixNano())
		}
		b = appendUint(b, `"silence":`, uint64(quiet))
		b = appendUint(b, `"changes":`, n.Changes)
		if n.MTU > 0 {
			b = appendUint(b, `"mtu":`, uint64(n.MTU))
		}
		if n.Speed > 0 {
			b = appendUint(b, `"speed":`, n.Speed)
		}
		b = appendUint(b, `"frames":`, n.Frames)
		b = appendUint(b, `"dropped":`, n.Dropped)
		b = end(b, '}')
	}
	b = end(b, ']')
	b = append(b, `"links":{`...)
	b = appendUint(b, `"up":`, uint64(len(c.Interfaces)-len(down)))
	b = appendTexts(b, `"down":`, down)
	b = appendTexts(b, `"silent":`, silent)
	return end(b, '}')
}

// marshal is json.Marshal without the escapes for HTML.
func marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}

// endpoint is the address and port of e, or its MAC address where it has none.
func endpoint(e *event.Endpoint) string {
	if !e.Addr.IsValid() {
		return net.HardwareAddr(e.MAC[:]).String()
	}
	return netip.AddrPortFrom(e.Addr, e.Port).String()
}
