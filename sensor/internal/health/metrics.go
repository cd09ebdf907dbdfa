package health

import (
	"cmp"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// Every number of a stats record is a metric. The name follows from that in the record:
// oddcert.stats.flows.gap_bytes is oddcert_flows_gap_bytes_total. What a map or a list
// is by becomes a label.
//
// A number of an unsigned type is a counter, and one of a signed type a gauge. Those of
// these names are unsigned, and tell of what there is now all the same.
var gauges = map[string]bool{"held": true, "open": true, "pending": true, "waiting": true}

// labels are what the members of maps are by.
var labels = map[string]string{"decoded": "class", "output": "output"}

// sections are those with another name in metrics: that of one output among several.
var sections = map[string]string{"outputs": "output"}

// units are the names of gauges that say no unit by themselves.
var units = map[string]string{"memory": "memory_bytes"}

// otherNames is the label of what has no series of its own.
const otherNames = "others"

// collector is a Monitor that collects metrics from what was seen last.
type collector Monitor

// Describe describes nothing: which metrics there are depends on the outputs.
func (m *collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends all metrics.
func (m *collector) Collect(ch chan<- prometheus.Metric) {
	s := samples{at: map[string]int{}}
	s.gauge("build_info", "Of which version this program is.", 1, label{"version", m.config.Version}, label{"revision", m.config.Revision}, label{"goversion", runtime.Version()})
	m.loaded(&s)
	if last := m.last.Load(); last != nil {
		s.gauge("snapshot_age_seconds", "Time since the pipeline told last what it has counted.", m.config.Now().Sub(last.at).Seconds())
		s.gauge("stalled_seconds", "The longest that a worker has been busy with one batch of frames.", last.Stalled.Seconds())
		m.counters(&s, last.Counters)
		for name, st := range last.outputs() {
			s.gauge("output_up", "Whether an output delivers.", truth(st.Trouble == ""), label{"output", name})
			s.gauge("output_blocked", "Whether an output delivers nothing until somebody does something.", truth(st.Blocked), label{"output", name})
		}
		s.gauge("spool_up", "Whether records get into the spool.", truth(last.spool().Trouble == ""))
	}
	for i := range s.list {
		ch <- s.list[i].metric()
	}
}

// loaded adds what is known of rules and lists.
func (m *collector) loaded(s *samples) {
	m.mu.Lock()
	l := m.loads
	m.mu.Unlock()
	s.gauge("rules_loaded", "Rules in use.", float64(l.rules))
	s.gauge("lists_loaded", "Lists in use.", float64(l.lists))
	const reloads = "Loads of rules and lists, the first one included."
	s.counter("reloads_total", reloads, float64(l.good), label{"result", "success"})
	s.counter("reloads_total", reloads, float64(l.bad), label{"result", "failure"})
	s.gauge("reload_last_successful", "Whether the last load of rules and lists went well.", truth(l.good > 0 && !l.failed))
	if l.good+l.bad > 0 {
		s.gauge("reload_seconds", "How long the last load of rules and lists took.", l.took.Seconds())
	}
	if !l.at.IsZero() {
		s.gauge("reload_last_success_timestamp_seconds", "When rules and lists were loaded last without an error.", seconds(l.at.UnixNano()))
	}
}

// counters adds all that a stats record has.
func (m *collector) counters(s *samples, c *output.Counters) {
	s.gauge("uptime_seconds", "Time since the run began.", c.Uptime.Seconds())
	s.gauge("lag_seconds", "The longest that a packet waited until it was read.", c.Lag.Seconds())
	if c.Start != 0 {
		s.gauge("packets_first_timestamp_seconds", "Time of the first packet.", seconds(c.Start))
		s.gauge("packets_last_timestamp_seconds", "Time of the last packet.", seconds(c.End))
	}
	s.counter("captures_unnamed_total", told("captures_unnamed"), float64(c.Unnamed))
	s.gauge("failed", "Whether a flow or a handshake was lost to a failure of the program.", truth(c.Failure != ""))
	s.interfaces(c)
	s.walk([]string{"capture"}, nil, reflect.ValueOf(c.Capture))
	s.walk([]string{"parser"}, nil, reflect.ValueOf(c.Parser))
	s.walk([]string{"told"}, nil, reflect.ValueOf(c.Told))
	for i := range c.Sections {
		name := c.Sections[i].Name
		s.walk([]string{cmp.Or(sections[name], name)}, nil, reflect.ValueOf(c.Sections[i].Value))
	}
	for o := range event.Outcomes {
		s.counter("certificates_total", "Handshakes by what became of their certificate.", float64(c.Parser.Outcomes[o]), label{"outcome", o.String()})
	}
	for l := event.NoLoss + 1; l < event.Losses; l++ {
		s.counter("loss_total", "Handshakes whose certificate is lost, by the cause.", float64(c.Parser.Losses[l]), label{"cause", l.String()})
	}
	for _, list := range []struct {
		name, help string
		counts     []decode.FrameCount
	}{
		{"no_tls", "Frames without a packet, by what they carry: it is known to be no TLS.", c.NoTLS},
		{"unread", "Frames without a packet, by what they carry: it might have been TLS.", c.Unread},
		{"weird", "Malformed frames, by what is wrong with them.", c.Weird},
	} {
		for i := range list.counts {
			s.counter(list.name+"_frames_total", list.help, float64(list.counts[i].Frames), label{"name", m.frames.name(list.name, list.counts[i].Name)})
		}
	}
	for _, r := range c.Rules {
		id, title := m.rules.name("", cmp.Or(r.Rule.ID, r.Rule.Title)), r.Rule.Title
		if id == otherNames {
			title = otherNames
		}
		s.counter("rule_matches_total", "Matches of a rule.", float64(r.Matches), label{"rule", id}, label{"title", title})
	}
}

// interfaces adds what is known of the interfaces.
func (s *samples) interfaces(c *output.Counters) {
	up := 0
	for i := range c.Interfaces {
		n := &c.Interfaces[i]
		on := label{"interface", n.Name}
		for _, state := range []capture.LinkState{capture.LinkUp, capture.LinkNoCarrier, capture.LinkDown, capture.LinkGone} {
			s.gauge("interface_state", "Whether the link of an interface is in a state.", truth(n.State == state), on, label{"state", string(state)})
		}
		if n.State == capture.LinkUp {
			up++
		}
		if !n.Since.IsZero() {
			s.gauge("interface_state_timestamp_seconds", "When the state of the link began.", seconds(n.Since.UnixNano()), on)
		}
		if !n.Last.IsZero() {
			s.gauge("interface_last_frame_timestamp_seconds", "When a frame was read last.", seconds(n.Last.UnixNano()), on)
		}
		s.gauge("interface_silence_seconds", "Time since a frame came or the link came up, whichever is later; 0 where the link is not up.", n.Silence(time.Unix(0, c.Time)).Seconds(), on)
		s.counter("interface_changes_total", "Changes of the state of the link.", float64(n.Changes), on)
		if n.MTU > 0 {
			s.gauge("interface_mtu_bytes", "The longest packet that a frame holds.", float64(n.MTU), on)
		}
		if n.Speed > 0 {
			s.gauge("interface_speed_bytes", "Speed of the link, in bytes a second.", float64(n.Speed)*1e6/8, on)
		}
		s.counter("interface_frames_total", "Frames that were read.", float64(n.Frames), on)
		s.counter("interface_dropped_total", "Frames that the kernel dropped because a ring was full.", float64(n.Dropped), on)
	}
	if c.Interfaces != nil {
		s.gauge("links_up", "Interfaces that have a link.", float64(up))
		s.gauge("links", "Interfaces that are captured on.", float64(len(c.Interfaces)))
	}
}

// samples are the values of metrics. Values with the same name and labels are added.
type samples struct {
	list []sample
	at   map[string]int // where in list, by name and labels
}

// sample is a value of a metric.
type sample struct {
	name, help string
	kind       prometheus.ValueType
	labels     []label
	value      float64
}

type label struct{ name, value string }

func (s *samples) gauge(name, help string, value float64, of ...label) {
	s.add(sample{name, help, prometheus.GaugeValue, of, value})
}

func (s *samples) counter(name, help string, value float64, of ...label) {
	s.add(sample{name, help, prometheus.CounterValue, of, value})
}

func (s *samples) add(v sample) {
	var key strings.Builder
	key.WriteString(v.name)
	for i := range v.labels {
		l := &v.labels[i]
		l.value = line(l.value, maxLabel)
		key.WriteByte(0)
		key.WriteString(l.value)
	}
	if at, ok := s.at[key.String()]; ok {
		s.list[at].value += v.value
		return
	}
	s.at[key.String()] = len(s.list)
	s.list = append(s.list, v)
}

// walk adds the numbers in v, whose names are those in JSON.
func (s *samples) walk(path []string, of []label, v reflect.Value) {
	name := path[len(path)-1]
	switch c := v.Interface().(type) {
	case spool.Counts:
		for d, n := range c {
			s.number(path, append(of[:len(of):len(of)], label{"dataset", output.Dataset(d).String()}), float64(n), gauges[name])
		}
		return
	case spool.Backlogs:
		for q := range c {
			s.walk(path, append(of[:len(of):len(of)], label{"queue", spool.Queue(q).String()}), reflect.ValueOf(c[q]))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			switch {
			case !field.IsExported() || tag == "-":
			case tag == "" && field.Anonymous:
				s.walk(path, of, v.Field(i))
			default:
				s.walk(append(path[:len(path):len(path)], tag), of, v.Field(i))
			}
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			s.walk(path, append(of[:len(of):len(of)], label{cmp.Or(labels[name], "name"), key.String()}), v.MapIndex(key))
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		s.number(path, of, float64(v.Uint()), gauges[name])
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		s.number(path, of, float64(v.Int()), true)
	}
}

// number adds a number of a stats record.
func (s *samples) number(path []string, of []label, value float64, gauge bool) {
	help := told(strings.Join(path, "."))
	last := path[len(path)-1]
	name := strings.Join(append(path[:len(path)-1:len(path)-1], cmp.Or(units[last], last)), "_")
	if gauge {
		s.gauge(name, help, value, of...)
		return
	}
	s.counter(strings.TrimSuffix(name, "_total")+"_total", help, value, of...)
}

// told is the help of a metric whose meaning is that of a member of a stats record.
func told(member string) string { return "As oddcert.stats." + member + " in stats records." }

// metric is v for the library.
func (v *sample) metric() prometheus.Metric {
	names, values := make([]string, len(v.labels)), make([]string, len(v.labels))
	for i, l := range v.labels {
		names[i], values[i] = l.name, l.value
	}
	desc := prometheus.NewDesc("oddcert_"+v.name, v.help, names, nil)
	m, err := prometheus.NewConstMetric(desc, v.kind, v.value, values...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return m
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds is a time in nanoseconds since the Unix epoch as Prometheus has it.
func seconds(nanoseconds int64) float64 { return float64(nanoseconds) / 1e9 }

// bounded keeps names from becoming too many, for each metric. A name that has a series
// keeps it, so that no counter ever falls.
type bounded struct {
	mu    sync.Mutex
	known map[string]map[string]bool
}

// name is name with at most maxLabel bytes, or otherNames when a metric has enough
// others.
func (b *bounded) name(metric, name string) string {
	name = line(name, maxLabel)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known == nil {
		b.known = map[string]map[string]bool{}
	}
	of := b.known[metric]
	if of == nil {
		of = map[string]bool{}
		b.known[metric] = of
	}
	if !of[name] {
		if len(of) >= maxNames {
			return otherNames
		}
		of[name] = true
	}
	return name
}
