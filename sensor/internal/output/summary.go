package output

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/rules"
)

// AppendSummary appends the record of the matches that were counted instead of
// raised. It is a record of alerts, with the rule and with what makes the matches
// alike; for the rest, see the alert that it names. Its time is the end of the
// window in which they were.
func (e *Encoder) AppendSummary(dst []byte, s *rules.Summary) ([]byte, Stamp) {
	e.setOrigin(s.Origin)
	e.event = e.appendSubject(e.event[:0], Alert)
	e.event = append(e.event, "summary"...)
	e.event = appendCounted(e.event, s.Rule.ID)
	e.event = appendCounted(e.event, s.Rule.Version)
	e.event = binary.BigEndian.AppendUint64(e.event, uint64(s.Raised))
	for _, v := range s.By {
		e.event = appendCounted(e.event, v.Value)
	}
	stamp := e.stamp(s.Time)
	dst = e.appendEvent(dst, Alert, stamp, s.Time)
	dst = e.clock.appendTime(dst, `"start":`, s.First)
	dst = appendInt(dst, `"duration":`, s.Last-s.First)
	dst = appendUint(dst, `"severity":`, uint64(s.Rule.Severity))
	dst = appendUint(dst, `"risk_score":`, uint64(s.Rule.RiskScore))
	reason := strconv.FormatUint(s.Count, 10) + " more matches like the alert before"
	if s.Count == 1 {
		reason = "One more match like the alert before"
	}
	if like := alike(s.By); like != "" {
		reason += ", of the same " + like
	}
	dst = appendText(dst, `"reason":`, reason+".")
	dst = end(dst, '}')
	dst = appendText(dst, `"message":`, s.Rule.Title+": "+strconv.FormatUint(s.Count, 10)+" more")
	dst = appendRule(dst, s.Rule)
	dst = appendThreat(dst, &rules.Match{Rule: s.Rule})
	for _, end := range [...]struct{ key, ecs, ours, domain string }{
		{`"source":{`, "source.", "client.", ""}, {`"destination":{`, "destination.", "server.", `"domain":`},
		{`"client":{`, "source.", "client.", ""}, {`"server":{`, "destination.", "server.", `"domain":`},
	} {
		dst = appendEnd(dst, end.key, end.ecs, end.ours, end.domain, s.By)
	}
	dst = append(dst, e.originJSON...)
	dst = appendRelatedEnds(dst, s.By)
	if name := valueOf(s.By, "tls.client.server_name"); name != "" {
		dst = append(dst, `"tls":{"client":{`...)
		dst = appendText(dst, `"server_name":`, name)
		dst = end(end(dst, '}'), '}')
	}
	dst = append(dst, `"oddcert":{`...)
	dst = appendVerdict(dst, &rules.Match{Rule: s.Rule, ChainIndex: -1})
	dst = append(dst, `"suppressed":{`...)
	dst = appendUint(dst, `"count":`, s.Count)
	dst = e.clock.appendTime(dst, `"from":`, s.First)
	dst = e.clock.appendTime(dst, `"to":`, s.Last)
	dst = appendText(dst, `"first_alert":`, s.FirstAlert)
	dst = appendByValues(dst, `"by":`, s.By)
	dst = end(dst, '}')
	return finish(dst), stamp
}

// alike names the fields of a list: "server.ip, server.port".
func alike(by []rules.ByValue) string {
	names := make([]string, len(by))
	for i, v := range by {
		names[i] = v.Field
	}
	return strings.Join(names, ", ")
}

// appendEnd appends an object with what values say of one end of flows.
func appendEnd(b []byte, key, ecs, ours, domain string, by []rules.ByValue) []byte {
	of := func(name string) string {
		if s := valueOf(by, ours+name); s != "" {
			return s
		}
		return valueOf(by, ecs+name)
	}
	from := len(b)
	b = append(b, key...)
	b = appendText(b, `"ip":`, of("ip"))
	if port, err := strconv.ParseUint(of("port"), 10, 16); err == nil {
		b = appendUint(b, `"port":`, port)
	}
	b = appendText(b, `"mac":`, of("mac"))
	if domain != "" {
		b = appendText(b, domain, valueOf(by, "tls.client.server_name"))
	}
	return closeOrDrop(b, from, '}')
}

// appendRelatedEnds appends the addresses and the name to search by.
func appendRelatedEnds(b []byte, by []rules.ByValue) []byte {
	all := len(b)
	b = append(b, `"related":{`...)
	var ips []string
	for _, end := range [...][2]string{{"client.ip", "source.ip"}, {"server.ip", "destination.ip"}} {
		for _, name := range end {
			if s := valueOf(by, name); s != "" && !slices.Contains(ips, s) {
				ips = append(ips, s)
			}
		}
	}
	b = appendTexts(b, `"ip":`, ips)
	if name := valueOf(by, "tls.client.server_name"); name != "" {
		b = appendTexts(b, `"hosts":`, []string{name})
	}
	return closeOrDrop(b, all, '}')
}

// valueOf returns the value of a field; empty when it is not among them.
func valueOf(by []rules.ByValue, field string) string {
	for _, v := range by {
		if v.Field == field {
			return v.Value
		}
	}
	return ""
}

// appendByValues appends a list of fields and their values.
func appendByValues(b []byte, key string, by []rules.ByValue) []byte {
	texts := make([]string, len(by))
	for i, v := range by {
		texts[i] = strings.TrimSpace(v.Field + " " + v.Value)
	}
	return appendTexts(b, key, texts)
}

// appendCorrelation appends what a correlation rule has counted.
func (e *Encoder) appendCorrelation(b []byte, c *rules.Correlation) []byte {
	if c == nil {
		return b
	}
	b = append(b, `"correlation":{`...)
	b = appendUint(b, `"count":`, uint64(c.Count))
	b = e.clock.appendTime(b, `"from":`, c.From)
	b = e.clock.appendTime(b, `"to":`, c.To)
	b = appendByValues(b, `"group":`, c.Group)
	return end(b, '}')
}
