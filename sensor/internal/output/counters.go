package output

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// Counters is what the program has seen and lost, for the stats record and the
// closing summary.
type Counters struct {
	Start, End int64         // times of the first and the last packet, nanoseconds since the Unix epoch
	Origin     *event.Origin // nil when there is more than one

	Capture   capture.Stats
	Parser    parsers.Stats
	Inventory InventoryStats
	Rules     []RuleCount
	Sections  []Section

	// Frames in which no packet was found, by what they carry, the most
	// frequent first.
	NoTLS  []decode.FrameCount // what is known to carry no TLS
	Unread []decode.FrameCount // what may have carried it

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
	Lost  []string // the JSON names of those fields that count something lost, each after those that it is in, with spaces between
}

// AppendStats appends the stats record of c. It is not for hot paths.
func (e *Encoder) AppendStats(dst []byte, c *Counters) ([]byte, Stamp, error) {
	stats, err := appendCounters(nil, c)
	if err != nil {
		return dst, Stamp{}, err
	}
	e.setOrigin(c.Origin)
	e.event = append(e.event[:0], byte(Stats))
	e.event = appendCounted(e.event, e.originName)
	e.event = binary.BigEndian.AppendUint64(e.event, uint64(c.Start))
	e.event = binary.BigEndian.AppendUint64(e.event, uint64(c.End))
	e.event = append(e.event, stats...)
	stamp := e.stamp(c.End)
	dst = e.appendEvent(dst, Stats, stamp, c.Start, c.End)
	dst = end(dst, '}')
	dst = append(dst, e.originJSON...)
	dst = append(dst, `"oddcert":{"stats":`...)
	dst = append(dst, stats...)
	return append(dst, '}', '}'), stamp, nil
}

func appendCounters(b []byte, c *Counters) ([]byte, error) {
	sections := []Section{
		{Name: "capture", Value: c.Capture},
		{Name: "parser", Value: c.Parser},
		{Name: "inventory", Value: c.Inventory},
	}
	b = append(b, '{')
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
		b = closed(b, from, ']')
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
	b = closed(b, from, ']')
	b[len(b)-1] = '}'
	return b, nil
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
