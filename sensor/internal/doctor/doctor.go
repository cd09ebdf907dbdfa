// Package doctor says what keeps a sensor from seeing and telling everything: a card
// that merges frames, a mirror port that shows one direction only, a clock that nobody
// sets, a spool that others may write to.
//
// [ReadInterface] and [ReadMachine] read what the kernel says, and a [Listener] hears
// what a capture brings. What they found is judged by functions that ask nobody, and
// becomes a list of [Finding]. Nothing is changed and nothing is sent.
package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Warning Level = "warning" // something is lost or slow, or may be one day
	Problem Level = "problem" // the sensor cannot do what it is for
)

// Finding is one thing that was looked at.
type Finding struct {
	Group   string `json:"group"`             // such as "interface"
	Subject string `json:"subject,omitempty"` // which one, such as "span0"; empty where there is one only
	Check   string `json:"check"`             // what was looked at, such as "ring"; the same in every run
	Level   Level  `json:"level"`
	Text    string `json:"text"`          // one sentence of evidence, without a full stop
	Fix     string `json:"fix,omitempty"` // the command that mends it; empty where there is none
}

// The groups of findings, in the order in which people are shown them.
const (
	GroupConfig    = "configuration"
	GroupMachine   = "machine"
	GroupInterface = "interface"
	GroupTraffic   = "traffic"
	GroupOutput    = "output"
)

// Worst is the worst level among findings, OK where there are none.
func Worst(findings []Finding) Level {
	worst := OK
	for _, f := range findings {
		switch {
		case f.Level == Problem:
			return Problem
		case f.Level == Warning:
			worst = Warning
		}
	}
	return worst
}

// Count is how many findings have a level.
func Count(findings []Finding, level Level) (n int) {
	for _, f := range findings {
		if f.Level == level {
			n++
		}
	}
	return n
}

// WriteJSON writes each finding as one JSON object on a line.
func WriteJSON(w io.Writer, findings []Finding) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, f := range findings {
		if err := e.Encode(f); err != nil {
			return fmt.Errorf("write findings: %w", err)
		}
	}
	return nil
}

// report collects the findings about one subject.
type report struct {
	group, subject string
	findings       []Finding
}

func (r *report) add(level Level, check, fix, format string, args ...any) {
	r.findings = append(r.findings, Finding{Group: r.group, Subject: r.subject, Check: check, Level: level, Text: fmt.Sprintf(format, args...), Fix: fix})
}

func (r *report) ok(check, format string, args ...any) { r.add(OK, check, "", format, args...) }

func (r *report) warn(check, fix, format string, args ...any) {
	r.add(Warning, check, fix, format, args...)
}

func (r *report) problem(check, fix, format string, args ...any) {
	r.add(Problem, check, fix, format, args...)
}

// share is n of all, in percent; 0 of nothing.
func share(n, all uint64) float64 {
	if all == 0 {
		return 0
	}
	return 100 * float64(n) / float64(all)
}

// percent writes a share for people.
func percent(n, all uint64) string {
	s := share(n, all)
	if s > 0 && s < 1 {
		return fmt.Sprintf("%.2g %%", s)
	}
	return fmt.Sprintf("%.0f %%", s)
}

// bits writes a rate for people.
func bits(perSecond float64) string {
	units := []string{"bit/s", "kbit/s", "Mbit/s", "Gbit/s"}
	for perSecond >= 999.5 && len(units) > 1 {
		perSecond, units = perSecond/1000, units[1:]
	}
	return fmt.Sprintf("%.3g %s", perSecond, units[0])
}

// sortedKeys are the keys of m with the largest values first, at most n of them.
func sortedKeys(m map[string]uint64, n int) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		switch {
		case m[a] > m[b]:
			return -1
		case m[a] < m[b] || a > b:
			return 1
		}
		return -1
	})
	return keys[:min(n, len(keys))]
}
