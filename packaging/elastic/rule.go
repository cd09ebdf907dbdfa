package elastic

import (
	"fmt"
	"strings"
	"time"
)

// Rule is a detection rule as Kibana imports it. The names and what they mean are
// those of the API of Elastic Security for rules.
type Rule struct {
	RuleID          string   `json:"rule_id"`
	Type            string   `json:"type"` // query, threshold, new_terms or esql
	Name            string   `json:"name"`
	Description     string   `json:"description"`
	Severity        Severity `json:"severity"`
	RiskScore       int      `json:"risk_score"`
	SeverityMapping []Mapped `json:"severity_mapping,omitempty"`
	RiskMapping     []Mapped `json:"risk_score_mapping,omitempty"`
	NameOverride    string   `json:"rule_name_override,omitempty"`
	FalsePositives  []string `json:"false_positives"`
	Threat          []Threat `json:"threat"`
	Note            string   `json:"note"`
	References      []string `json:"references"`
	Tags            []string `json:"tags"`
	Author          []string `json:"author"`
	License         string   `json:"license"`
	Version         int      `json:"version"`
	Enabled         bool     `json:"enabled"`

	Index             []string     `json:"index,omitempty"` // an ES|QL query names its own
	Language          string       `json:"language"`
	Query             string       `json:"query"`
	TimestampOverride string       `json:"timestamp_override,omitempty"`
	From              string       `json:"from"`
	To                string       `json:"to"`
	Interval          string       `json:"interval"`
	MaxSignals        int          `json:"max_signals"`
	Suppression       *Suppression `json:"alert_suppression"`

	Threshold          *Threshold `json:"threshold,omitempty"`
	NewTermsFields     []string   `json:"new_terms_fields,omitempty"`
	HistoryWindowStart string     `json:"history_window_start,omitempty"`
}

// Mapped takes a value from the record.
type Mapped struct {
	Field    string   `json:"field"`
	Operator string   `json:"operator"`
	Value    string   `json:"value"`
	Severity Severity `json:"severity,omitempty"`
}

// Threshold is met by a combination of values of Field in Value records that have
// Cardinality.
type Threshold struct {
	Field       []string      `json:"field"`
	Value       int           `json:"value"`
	Cardinality []Cardinality `json:"cardinality,omitempty"`
}

// Cardinality is a number of different values.
type Cardinality struct {
	Field string `json:"field"`
	Value int    `json:"value"`
}

// Suppression says of which records an alert is raised once within a time.
type Suppression struct {
	GroupBy  []string  `json:"group_by,omitempty"` // a threshold has its own
	Duration *Duration `json:"duration"`
	Missing  string    `json:"missing_fields_strategy,omitempty"`
}

// Duration is a number of units: s, m or h.
type Duration struct {
	Value int    `json:"value"`
	Unit  string `json:"unit"`
}

// Threat is a tactic of MITRE ATT&CK with techniques.
type Threat struct {
	Framework string      `json:"framework"`
	Tactic    Technique   `json:"tactic"`
	Technique []Technique `json:"technique"`
}

// Technique is a tactic, a technique or a subtechnique.
type Technique struct {
	ID           string      `json:"id"`
	Name         string      `json:"name"`
	Reference    string      `json:"reference"`
	Subtechnique []Technique `json:"subtechnique,omitempty"`
}

const attack = "https://attack.mitre.org/"

// webTunnel is traffic that is dressed up as something else.
var webTunnel = Threat{
	Framework: "MITRE ATT&CK",
	Tactic:    Technique{ID: "TA0011", Name: "Command and Control", Reference: attack + "tactics/TA0011/"},
	Technique: []Technique{
		{ID: "T1573", Name: "Encrypted Channel", Reference: attack + "techniques/T1573/"},
		{ID: "T1001", Name: "Data Obfuscation", Reference: attack + "techniques/T1001/", Subtechnique: []Technique{
			{ID: "T1001.003", Name: "Protocol or Service Impersonation", Reference: attack + "techniques/T1001/003/"},
		}},
	},
}

// impaired is a sensor that sees less than it should.
var impaired = Threat{
	Framework: "MITRE ATT&CK",
	Tactic:    Technique{ID: "TA0005", Name: "Defense Evasion", Reference: attack + "tactics/TA0005/"},
	Technique: []Technique{{ID: "T1562", Name: "Impair Defenses", Reference: attack + "techniques/T1562/"}},
}

// Rule returns d as a detection rule.
func (d *Detection) Rule() *Rule {
	r := &Rule{
		RuleID: d.ID, Name: d.Name, Description: d.Description, Severity: d.Severity, RiskScore: riskScores[d.Severity],
		FalsePositives: d.FalsePositives, Threat: d.Threat, Note: d.Guide, References: []string{},
		Tags: []string{"oddcert", "Data Source: oddcert"}, Author: []string{"oddcert"}, License: "Apache-2.0", Version: 1,
		Index: []string{d.Stream}, Language: "lucene", Query: d.Query,
		From: before(d.Window), To: "now", Interval: span(d.Every), MaxSignals: 1000,
		Suppression: &Suppression{GroupBy: d.GroupBy, Duration: duration(d.Once), Missing: "doNotSuppress"},
	}
	if r.Threat == nil {
		r.Threat = []Threat{}
	}
	if d.Stream != stats { // what comes late, or from a replay, is judged when it comes
		r.TimestampOverride = "event.ingested"
	}
	if d.FromRecord {
		r.NameOverride = "rule.name"
		r.RiskMapping = []Mapped{{Field: "event.risk_score", Operator: "equals"}}
		for _, s := range []Severity{Low, Medium, High, Critical} {
			r.SeverityMapping = append(r.SeverityMapping, Mapped{"event.severity", "equals", fmt.Sprint(riskScores[s]), s})
		}
	}
	d.When.rule(d, r)
	return r
}

func (c Count) rule(d *Detection, r *Rule) {
	r.Type = "query"
	if c.AtLeast > 1 {
		r.threshold(&Threshold{Field: d.GroupBy, Value: c.AtLeast})
	}
}

func (c Distinct) rule(d *Detection, r *Rule) {
	r.threshold(&Threshold{Field: d.GroupBy, Value: 1, Cardinality: []Cardinality{{c.Field, c.AtLeast}}})
}

func (r *Rule) threshold(t *Threshold) {
	r.Type, r.Threshold = "threshold", t
	r.Suppression = &Suppression{Duration: r.Suppression.Duration}
}

func (c New) rule(d *Detection, r *Rule) {
	r.Type = "new_terms"
	r.NewTermsFields, r.HistoryWindowStart = d.GroupBy, r.From
	r.From = before(c.Recent)
}

func (c Absent) rule(d *Detection, r *Rule) {
	r.esql(d,
		"STATS last_report = MAX(`@timestamp`) BY "+quoted(d.GroupBy...),
		"WHERE last_report < NOW() - "+words(c.For),
	)
	// An alert for each time that it becomes silent.
	r.Suppression.GroupBy = append(d.GroupBy[:len(d.GroupBy):len(d.GroupBy)], "last_report")
}

func (c Growth) rule(d *Detection, r *Rule) {
	r.esql(d,
		fmt.Sprintf("STATS part = MAX(%[1]s) - MIN(%[1]s), rest = MAX(%[2]s) - MIN(%[2]s) BY %[3]s", quoted(c.Part), quoted(c.Rest), quoted(d.GroupBy...)),
		"WHERE part > 0",
		"EVAL share = TO_DOUBLE(part) / (part + rest)",
		fmt.Sprintf("WHERE share >= %v", c.Share),
	)
}

// esql makes r a rule whose query selects as d does and goes on with steps. Kibana
// adds the range of time.
func (r *Rule) esql(d *Detection, steps ...string) {
	r.Type, r.Language, r.Index = "esql", "esql", nil
	var conditions []string
	for _, term := range strings.Split(d.Query, " AND ") {
		field, missing := strings.CutPrefix(strings.TrimSuffix(term, ":*"), "NOT ")
		if missing {
			conditions = append(conditions, quoted(field)+" IS NULL")
		} else {
			conditions = append(conditions, quoted(field)+" IS NOT NULL")
		}
	}
	r.Query = "FROM " + d.Stream + "\n| WHERE " + strings.Join(conditions, " AND ") + "\n| " + strings.Join(steps, "\n| ")
}

// quoted are the names of fields as ES|QL takes them whatever words are in them: some,
// such as first, are words of its own.
func quoted(fields ...string) string { return "`" + strings.Join(fields, "`, `") + "`" }

// before is a time relative to now, in Elasticsearch's syntax.
func before(d time.Duration) string { return "now-" + span(d) }

// span is d in one unit.
func span(d time.Duration) string {
	n := duration(d)
	return fmt.Sprint(n.Value) + n.Unit
}

// words is d as ES|QL says it.
func words(d time.Duration) string {
	n := duration(d)
	return fmt.Sprint(n.Value, map[string]string{"s": " seconds", "m": " minutes", "h": " hours"}[n.Unit])
}

// duration is d in the largest unit in which it is whole.
func duration(d time.Duration) *Duration {
	switch {
	case d%time.Hour == 0:
		return &Duration{int(d / time.Hour), "h"}
	case d%time.Minute == 0:
		return &Duration{int(d / time.Minute), "m"}
	default:
		return &Duration{int(d / time.Second), "s"}
	}
}
