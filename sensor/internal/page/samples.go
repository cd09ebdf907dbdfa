package page

import (
	"sync"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// totals are the counters of which the page has charts.
type totals struct {
	packets, handshakes, lost, dropped, matches uint64
}

func totalsOf(c *output.Counters) totals {
	t := totals{
		packets: c.Capture.Frames, dropped: c.Capture.Dropped,
		handshakes: c.Parser.Handshakes, lost: c.Parser.Outcomes[event.Lost],
	}
	for i := range c.Rules {
		t.matches += c.Rules[i].Matches
	}
	return t
}

// add adds what came from one look to another.
func (t *totals) add(from, to totals) {
	t.packets += to.packets - min(from.packets, to.packets)
	t.handshakes += to.handshakes - min(from.handshakes, to.handshakes)
	t.lost += to.lost - min(from.lost, to.lost)
	t.dropped += to.dropped - min(from.dropped, to.dropped)
	t.matches += to.matches - min(from.matches, to.matches)
}

// sample is what was counted until a time, by the wall clock.
type sample struct {
	at time.Time
	totals
}

// rates has the samples of the last hour. Its methods may be called by any goroutine.
type rates struct {
	mu   sync.Mutex
	list []sample // the oldest first, maxSamples+1 at most
}

// see takes what was counted until now, and reports whether there is another sample.
func (r *rates) see(c *output.Counters, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.list); n > 0 {
		took := now.Sub(r.list[n-1].at)
		if took >= 0 && took < sampleInterval {
			return false
		}
		if took < 0 { // somebody has set the clock
			r.list = nil
		}
	}
	if len(r.list) > maxSamples {
		r.list = append(r.list[:0], r.list[1:]...)
	}
	r.list = append(r.list, sample{now, totalsOf(c)})
	return true
}

// intervals returns what was counted in maxBars intervals at most, the oldest first, the
// times between which that was, and what came in the last sampleInterval.
func (r *rates) intervals() (list []totals, from, to time.Time, last totals, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.list)
	if n < 2 {
		return nil, from, to, last, 0
	}
	last.add(r.list[n-2].totals, r.list[n-1].totals)
	took = r.list[n-1].at.Sub(r.list[n-2].at)
	step := (n - 1 + maxBars - 1) / maxBars
	first := (n - 1) % step // so that the last interval is complete
	for i := first; i+step < n; i += step {
		var t totals
		t.add(r.list[i].totals, r.list[i+step].totals)
		list = append(list, t)
	}
	return list, r.list[first].at, r.list[n-1].at, last, took
}
