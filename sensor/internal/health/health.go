// Package health tells other programs how a live sensor is: Prometheus its metrics, a
// supervisor whether it is alive, and whoever waits for it whether it is ready.
//
// Make a [Monitor], give it to the pipeline as Config.Watch, and Serve it:
//
//	monitor := health.New(health.Config{Version: version, Log: log})
//	options.Watch = monitor.See
//	listener, err := health.Listen("127.0.0.1:9847")
//	go monitor.Serve(ctx, listener)
//
// All that it answers is made from what the pipeline told last, so that no request
// can hold up a capture.
package health

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Config is what a [Monitor] is made of.
type Config struct {
	Version  string           // of the program
	Revision string           // the commit that it was built from; may be empty
	Log      *slog.Logger     // nil for none
	Now      func() time.Time // the wall clock; nil for time.Now
}

// Monitor knows how a live sensor is. Its methods may be called by any goroutine.
type Monitor struct {
	config   Config
	begun    time.Time
	last     atomic.Pointer[snapshot]
	registry *prometheus.Registry
	latency  *prometheus.HistogramVec
	rules    bounded // the ids of rules that have a series
	frames   bounded // the names of what frames carry

	mu    sync.Mutex
	mark  mark // for packets a second
	loads loads
}

// snapshot is what the pipeline told at one time.
type snapshot struct {
	*output.Counters
	at   time.Time
	rate float64 // frames a second
}

// mark is how many frames there were at a time, and how many came a second before it.
type mark struct {
	at     time.Time
	frames uint64
	rate   float64
}

// loads is what became of the rules and lists.
type loads struct {
	rules, lists int           // that are in use
	took         time.Duration // the last load
	at           time.Time     // of the last that went well; zero when none did
	good, bad    uint64
	failed       bool // the last one
}

// New returns a monitor that has seen nothing.
func New(c Config) *Monitor {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	m := &Monitor{config: c, begun: c.Now(), registry: prometheus.NewRegistry()}
	m.latency = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "oddcert_output_delivery_seconds",
		Help:    "Time from a record's acceptance by the spool until a receiver acknowledged it.",
		Buckets: []float64{0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200},
	}, []string{"output"})
	m.registry.MustRegister(m.latency, (*collector)(m),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// See takes what was counted so far. It keeps c, which nobody may change any more.
func (m *Monitor) See(c *output.Counters) {
	now := m.config.Now()
	m.mu.Lock()
	since := now.Sub(m.mark.at)
	switch frames := c.Capture.Frames; {
	case m.mark.at.IsZero() || frames < m.mark.frames:
		m.mark = mark{at: now, frames: frames}
	case since >= rateInterval:
		m.mark = mark{at: now, frames: frames, rate: float64(frames-m.mark.frames) / since.Seconds()}
	}
	rate := m.mark.rate
	m.mu.Unlock()
	m.last.Store(&snapshot{c, now, rate})
}

// Reloaded notes that rules and lists were loaded, for the first time or again, how
// many there are, and how long it took. With an error those from before stay in use,
// and the numbers are not looked at.
func (m *Monitor) Reloaded(rules, lists int, took time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &m.loads
	l.took, l.failed = took, err != nil
	if err != nil {
		l.bad++
		return
	}
	l.good++
	l.rules, l.lists, l.at = rules, lists, m.config.Now()
}

// Delivered notes that a receiver has acknowledged a record of an output, and how long
// that took since the spool had accepted it. It is for delivery.Options.Delivered.
func (m *Monitor) Delivered(output string, took time.Duration) {
	m.latency.WithLabelValues(output).Observe(took.Seconds())
}
