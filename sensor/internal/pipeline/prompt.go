package pipeline

import (
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
)

// alerted is what the stage that orders has made of a handshake that was not over. It
// goes with the handshake, as its notes. Its methods take nil too, for any other one.
type alerted struct {
	rules  []string // ids of those that have matched; the handshake may outlive a set
	alerts int      // what they, and the correlations that look at them, came to
	judged bool     // its key was, and its timestamps
}

// alertedOf returns the notes on h; nil where it was never emitted unfinished.
func alertedOf(h *event.Handshake) *alerted {
	if h.Notes == nil {
		return nil
	}
	if h.Notes.Made == nil {
		h.Notes.Made = new(alerted)
	}
	return h.Notes.Made.(*alerted)
}

// news returns the matches of rules that have not matched before, in the place of
// matches, and notes them.
func (a *alerted) news(matches []rules.Match) []rules.Match {
	if a == nil {
		return matches
	}
	matches = slices.DeleteFunc(matches, func(m rules.Match) bool { return slices.Contains(a.rules, m.Rule.ID) })
	for i := range matches {
		a.rules = append(a.rules, matches[i].Rule.ID)
	}
	return matches
}

// count adds the alerts that a handshake has raised now, and returns how many that is
// with those before.
func (a *alerted) count(n int) int {
	if a == nil {
		return n
	}
	a.alerts += n
	return a.alerts
}
