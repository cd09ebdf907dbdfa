package health

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// Alive returns why the process does no work at the time now, so that only another
// process would help: the pipeline has told nothing for some seconds, or a worker is
// stuck. A quiet network, a dead link and a receiver that is away are no reasons.
func (m *Monitor) Alive(now time.Time) error {
	last := m.last.Load()
	if last == nil {
		if waited := now.Sub(m.begun); waited > startLimit {
			return fmt.Errorf("the capture has not begun after %v", waited.Round(time.Second))
		}
		return nil
	}
	if age := now.Sub(last.at); age > aliveAfter {
		return fmt.Errorf("the pipeline has told nothing for %v", age.Round(time.Second))
	}
	if last.Stalled > stallLimit {
		return fmt.Errorf("a worker is busy with one batch of frames for %v", last.Stalled.Round(time.Second))
	}
	return nil
}

// Ready returns why what happens on the network now would not become alerts that
// somebody gets, all reasons at once: the capture is not open or stuck, no interface has
// a link, no rules were loaded, records do not get into the spool, or an output delivers
// nothing until somebody does something, such as to replace a key.
//
// A receiver that is only away is no reason, as its records are kept. Neither is a link
// that is dead beside another, nor rules that could not be loaded again: the sensor goes
// on with those that it has. There are alerts for these.
func (m *Monitor) Ready() error {
	last := m.last.Load()
	errs := []error{m.Alive(m.config.Now())}
	if last == nil {
		errs = append(errs, errors.New("the capture has not begun"))
	} else {
		if n := len(last.Interfaces); n > 0 && len(last.dead()) == n {
			errs = append(errs, errors.New("no interface has a link: "+strings.Join(last.dead(), ", ")))
		}
		if trouble := last.spool().Trouble; trouble != "" {
			errs = append(errs, errors.New("spool: "+trouble))
		}
		outs := last.outputs()
		for _, name := range slices.Sorted(maps.Keys(outs)) {
			if st := outs[name]; st.Blocked {
				errs = append(errs, fmt.Errorf("output %s delivers nothing until somebody does something: %s", name, st.Trouble))
			}
		}
	}
	m.mu.Lock()
	loaded := m.loads.good > 0
	m.mu.Unlock()
	if !loaded {
		errs = append(errs, errors.New("no rules are loaded"))
	}
	return errors.Join(errs...)
}

// Status is a line for people, such as systemd's status: what the sensor does, and what
// is in trouble. It has no more than maxStatus bytes.
func (m *Monitor) Status() string {
	last := m.last.Load()
	if last == nil {
		return "starting"
	}
	alerts, dropped := uint64(0), last.Capture.Dropped
	for _, r := range last.Rules {
		alerts += r.Matches
	}
	parts := []string{fmt.Sprintf("%.0f packets/s, %d matches of rules, %d packets dropped", last.rate, alerts, dropped)}
	if err := m.Alive(m.config.Now()); err != nil {
		parts = append(parts, err.Error())
	}
	parts = append(parts, last.dead()...)
	for i := range last.Interfaces {
		n := &last.Interfaces[i]
		if quiet := n.Silence(last.at); quiet >= capture.SilentAfter {
			parts = append(parts, fmt.Sprintf("%s is silent for %v", n.Name, quiet.Round(time.Second)))
		}
	}
	if trouble := last.spool().Trouble; trouble != "" {
		parts = append(parts, "spool: "+trouble)
	}
	outs := last.outputs()
	for _, name := range slices.Sorted(maps.Keys(outs)) {
		if st := outs[name]; st.Trouble != "" {
			parts = append(parts, fmt.Sprintf("%s is in trouble for %d s: %s", name, st.Outage, st.Trouble))
		}
	}
	m.mu.Lock()
	if m.loads.failed {
		parts = append(parts, "the last load of rules and lists failed")
	}
	m.mu.Unlock()
	for i := range parts {
		parts[i] = line(parts[i], maxReason)
	}
	return line(strings.Join(parts, "; "), maxStatus)
}

// line is text as one line of valid UTF-8 with no more than limit bytes.
func line(text string, limit int) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > limit {
		text = text[:limit-len("…")]
		return strings.ToValidUTF8(text, "") + "…"
	}
	return strings.ToValidUTF8(text, "")
}

// dead names the interfaces without a link, with what is the matter.
func (s *snapshot) dead() (names []string) {
	for i := range s.Interfaces {
		if n := &s.Interfaces[i]; n.State != capture.LinkUp {
			names = append(names, n.Name+" is "+string(n.State))
		}
	}
	return names
}

// section returns the counters of a name.
func section[T any](s *snapshot, name string) (value T) {
	for i := range s.Sections {
		if s.Sections[i].Name == name {
			value, _ = s.Sections[i].Value.(T)
		}
	}
	return value
}

// spool returns the counts of the spool.
func (s *snapshot) spool() spool.Stats { return section[spool.Stats](s, "spool") }

// outputs returns the counts of the outputs by name.
func (s *snapshot) outputs() map[string]delivery.Stats {
	return section[map[string]delivery.Stats](s, "outputs")
}
