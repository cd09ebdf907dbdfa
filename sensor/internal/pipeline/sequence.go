package pipeline

import (
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// sequence decides on matches what only the sequence of handshakes can tell: which
// correlation rules hold, and which matches are counted instead of raised. It belongs
// to the goroutine that writes records.
type sequence struct {
	correlator *rules.Correlator
	suppressor *rules.Suppressor
	failed     *failures
	failures   uint64          // handshakes on which it failed
	summaries  []rules.Summary // lent by due and end
}

func newSequence(set *rules.Set, judge judgement.Judge, share float64, failed *failures) *sequence {
	return &sequence{correlator: set.NewCorrelator(judge, share), suppressor: rules.NewSuppressor(judge, share), failed: failed}
}

// see returns what matches for a handshake: with what correlation rules make of it,
// and without what only they look at. It is lent until the next call.
func (s *sequence) see(it *item, matches []rules.Match) (all []rules.Match) {
	defer s.failed.survive("correlate matches", &s.failures)
	return s.correlator.See(it.h, it.judged, matches)
}

// admit reports whether a match is to be raised; else it is counted. What it fails
// on is raised.
func (s *sequence) admit(it *item, m *rules.Match) (raise bool) {
	raise = true
	defer s.failed.survive("suppress matches", &s.failures)
	return s.suppressor.Admit(it.h, it.judged, m)
}

// due returns the summaries of what has ended before the packet time now. They are
// lent until the next call of due or end.
func (s *sequence) due(now int64) []rules.Summary {
	s.summaries = s.suppressor.Due(now, s.summaries[:0])
	return s.summaries
}

// end returns the summaries of all that is under way, and forgets everything: what
// follows is another capture. They are lent until the next call of due or end.
func (s *sequence) end() []rules.Summary {
	s.correlator.Next()
	s.summaries = s.suppressor.Flush(s.summaries[:0])
	return s.summaries
}

// sections are the counters for statistics.
func (s *sequence) sections() []output.Section {
	return []output.Section{
		{Name: "correlation", Value: s.correlator.Stats(), Books: true, Lost: []string{"given_up", "cut"}},
		{Name: "suppression", Value: s.suppressor.Stats(), Books: true},
	}
}
