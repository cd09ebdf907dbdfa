package output

import (
	"strings"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
)

// appendEvaluation appends the members of event that a match has, closes event,
// and appends the message.
func appendEvaluation(b []byte, h *event.Handshake, m *rules.Match) []byte {
	b = appendUint(b, `"severity":`, uint64(m.Rule.Severity))
	b = appendUint(b, `"risk_score":`, uint64(m.Rule.RiskScore))
	b = appendText(b, `"reason":`, m.Reason)
	b = end(b, '}')
	return appendText(b, `"message":`, message(h, m))
}

// message returns one line for a list of alerts.
func message(h *event.Handshake, m *rules.Match) string {
	server, client := ends(h)
	var name string
	if h.ClientHello != nil && h.ClientHello.ServerName != "" {
		name = " (" + h.ClientHello.ServerName + ")"
	}
	return m.Rule.Title + ": server " + server + name + ", client " + client
}

// appendRule appends the rule object.
func appendRule(b []byte, r *rules.Rule) []byte {
	b = append(b, `"rule":{`...)
	b = appendText(b, `"id":`, r.ID)
	b = appendText(b, `"uuid":`, r.ID)
	b = appendText(b, `"name":`, r.Title)
	b = appendText(b, `"description":`, r.Description)
	b = appendText(b, `"category":`, r.Category)
	b = appendText(b, `"ruleset":`, r.Ruleset)
	b = appendText(b, `"version":`, r.Version)
	if r.Author != "" {
		b = appendTexts(b, `"author":`, []string{r.Author})
	}
	b = appendTexts(b, `"reference":`, r.References)
	b = appendText(b, `"license":`, r.License)
	b = appendText(b, `"level":`, r.Level)
	return end(b, '}')
}

// appendThreat appends the threat object: the entries of ATT&CK that the rule
// names, and the list that has the value.
func appendThreat(b []byte, m *rules.Match) []byte {
	from := len(b)
	b = append(b, `"threat":{`...)
	t := &m.Rule.Threat
	b = appendText(b, `"framework":`, t.Framework)
	b = appendThreatEntries(b, `"tactic":{`, t.Tactics)
	technique := len(b)
	b = appendThreatEntries(b, `"technique":{`, t.Techniques)
	if len(t.Subtechniques) > 0 {
		if len(b) == technique {
			b = append(b, `"technique":{`...)
		} else {
			b = append(b[:len(b)-2], ',') // open it again
		}
		b = appendThreatEntries(b, `"subtechnique":{`, t.Subtechniques)
		b = end(b, '}')
	}
	if m.List != "" {
		b = appendIndicator(b, m)
		b = append(b, `"enrichments":[{`...)
		b = appendIndicator(b, m)
		b = append(b, `"matched":{`...)
		b = appendText(b, `"atomic":`, m.Value)
		b = appendText(b, `"field":`, m.Field)
		b = appendText(b, `"type":`, "indicator_match_rule")
		b = end(end(end(b, '}'), '}'), ']')
	}
	return closeOrDrop(b, from, '}')
}

// appendIndicator appends the value that a list names, as ECS describes threat
// indicators.
func appendIndicator(b []byte, m *rules.Match) []byte {
	b = append(b, `"indicator":{`...)
	kind := indicatorType(m)
	b = appendText(b, `"type":`, kind)
	b = appendText(b, `"provider":`, m.List)
	b = appendText(b, `"name":`, m.Value)
	if strings.HasSuffix(kind, "-addr") {
		b = appendText(b, `"ip":`, m.Value)
	}
	return end(b, '}')
}

func appendThreatEntries(b []byte, key string, list []rules.ThreatEntry) []byte {
	from := len(b)
	b = append(b, key...)
	for _, member := range []struct {
		key string
		of  func(*rules.ThreatEntry) string
	}{
		{`"id":[`, func(e *rules.ThreatEntry) string { return e.ID }},
		{`"name":[`, func(e *rules.ThreatEntry) string { return e.Name }},
		{`"reference":[`, func(e *rules.ThreatEntry) string { return e.Reference }},
	} {
		from := len(b)
		b = append(b, member.key...)
		for i := range list {
			b = appendText(b, "", member.of(&list[i]))
		}
		b = closeOrDrop(b, from, ']')
	}
	return closeOrDrop(b, from, '}')
}

// indicatorType returns ECS's name for the kind of value that a list names; empty
// where ECS has none.
func indicatorType(m *rules.Match) string {
	switch f := m.Field; {
	case strings.HasSuffix(f, ".ip"):
		if strings.Contains(m.Value, ":") {
			return "ipv6-addr"
		}
		return "ipv4-addr"
	case strings.HasSuffix(f, ".server_name"), strings.HasSuffix(f, ".domain"),
		strings.HasSuffix(f, ".common_name"), strings.HasSuffix(f, ".alternative_names"):
		return "domain-name"
	case strings.Contains(f, ".hash."), strings.HasSuffix(f, ".sha256"),
		strings.HasSuffix(f, ".serial_number"), strings.HasSuffix(f, ".subject"), strings.HasSuffix(f, ".issuer"):
		return "x509-certificate"
	}
	return ""
}

// appendVerdict appends the members of oddcert that a match has.
func appendVerdict(b []byte, m *rules.Match) []byte {
	from := len(b)
	b = append(b, `"rule":{`...)
	b = appendTexts(b, `"false_positives":`, m.Rule.FalsePositives)
	b = closeOrDrop(b, from, '}')
	b = appendText(b, `"verdict":`, m.Rule.Verdict)
	b = appendTexts(b, `"verdict_reasons":`, m.Reasons)
	from = len(b)
	b = append(b, `"match":{`...)
	b = appendText(b, `"field":`, m.Field)
	b = appendText(b, `"value":`, m.Value)
	b = appendText(b, `"list":`, m.List)
	if m.ChainIndex >= 0 {
		b = appendUint(b, `"chain_index":`, uint64(m.ChainIndex))
	}
	return closeOrDrop(b, from, '}')
}

// ends returns the server's and the client's address and port.
func ends(h *event.Handshake) (server, client string) {
	s, c := h.Flow.Endpoints[h.Client.Other()], h.Flow.Endpoints[h.Client]
	return endpoint(&s), endpoint(&c)
}
