package pipeline

import (
	"time"

	"github.com/oddcert/oddcert/sensor/internal/capture"
)

// countInterval is the time between two collections of the workers' counters in a
// replay that follows its input, and the longest time that records are buffered
// for.
const countInterval = time.Second

// following is what a replay does by the wall clock when its input is written
// while it is read.
type following struct {
	pipeline *Pipeline
	source   capture.Source
	counted  []*counters // the last of each worker; nil before the first
	looked   time.Time
	flushed  time.Time
	reported time.Time
}

// follow returns nil for a replay that does not follow.
func (p *Pipeline) follow(source capture.Source, workers int) *following {
	if !p.config.Follow {
		return nil
	}
	now := time.Now()
	return &following{pipeline: p, source: source, counted: make([]*counters, workers), looked: now, flushed: now, reported: now}
}

// due reports, once in each countInterval, that it is time to count.
func (f *following) due() bool {
	if time.Since(f.looked) < countInterval {
		return false
	}
	f.looked = time.Now()
	return true
}

// report flushes the outputs, and makes a stats record when one is due. It is for
// the goroutine that writes records.
func (f *following) report(idle bool) error {
	p, now := f.pipeline, time.Now()
	if p.config.Idle != nil && (idle || now.Sub(f.flushed) >= countInterval) {
		p.config.Idle()
		f.flushed = now
	}
	if now.Sub(f.reported) < StatsInterval {
		return nil
	}
	f.reported = now
	p.total = counters{}
	for _, c := range f.counted {
		if c != nil {
			p.total.add(c)
		}
	}
	return p.stats(p.Counters(f.source.Stats()))
}
