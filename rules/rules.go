// Package rules is a stand-in until the real one is merged.
package rules

// Rule is one rule.
type Rule struct {
	ID, Title, Description, Category, Ruleset, Version, Author, License, Status string

	References, Tags, FalsePositives []string

	Level               string
	Severity, RiskScore int
	Verdict             string
	Threat              Threat
}

// Threat names ATT&CK entries.
type Threat struct {
	Framework                          string
	Tactics, Techniques, Subtechniques []ThreatEntry
}

// ThreatEntry is one of them.
type ThreatEntry struct{ ID, Name, Reference string }

// Match is one rule that matched one handshake.
type Match struct {
	Rule               *Rule
	Field, Value, List string
	ChainIndex         int
	Reason             string
	Reasons            []string
}
