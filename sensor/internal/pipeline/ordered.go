package pipeline

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// ordered decides on matches what only the order of handshakes can tell: which
// correlation rules hold, and which matches are counted instead of raised. It belongs
// to the goroutine that writes records.
type ordered struct {
	correlator *rules.Correlator
	suppressor *rules.Suppressor
	failed     *failures
	failures   uint64          // handshakes on which it failed
	raised     []rules.Match   // lent by decide
	summaries  []rules.Summary // lent by due and end
}

func newOrdered(set *rules.Set, failed *failures) *ordered {
	return &ordered{correlator: set.NewCorrelator(), suppressor: rules.NewSuppressor(), failed: failed}
}

// decide returns all that matches for h, with what correlation rules make of it and
// without what only they look at; and of these, what is to be raised. Both are lent
// until the next call.
func (o *ordered) decide(h *event.Handshake, matches []rules.Match) (all, raised []rules.Match) {
	clear(o.raised)
	o.raised = o.raised[:0]
	defer func() { raised = o.raised }()
	defer o.failed.survive("correlate matches", &o.failures)
	all = o.correlator.See(h, nil, matches)
	for i := range all {
		if o.suppressor.Admit(h, nil, &all[i]) {
			o.raised = append(o.raised, all[i])
		}
	}
	return all, o.raised
}

// due returns the summaries of what has ended before the packet time now. They are
// lent until the next call of due or end.
func (o *ordered) due(now int64) []rules.Summary {
	o.summaries = o.suppressor.Due(now, o.summaries[:0])
	return o.summaries
}

// end returns the summaries of all that is under way, and forgets everything: what
// follows is another capture. They are lent until the next call of due or end.
func (o *ordered) end() []rules.Summary {
	o.correlator.Next()
	o.summaries = o.suppressor.Flush(o.summaries[:0])
	return o.summaries
}

// sections are the counters for statistics.
func (o *ordered) sections() []output.Section {
	return []output.Section{
		{Name: "correlation", Value: o.correlator.Stats(), Lost: []string{"given_up", "cut"}},
		{Name: "suppression", Value: o.suppressor.Stats()},
	}
}
