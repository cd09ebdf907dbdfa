package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// gather returns all metrics by name.
func gather(t testing.TB, m *Monitor) map[string]*dto.MetricFamily {
	t.Helper()
	list, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*dto.MetricFamily{}
	for _, f := range list {
		all[f.GetName()] = f
	}
	return all
}

// filler puts another number into each field, so that none can stand in for another.
type filler struct{ next uint64 }

func (f *filler) fill(v reflect.Value) {
	f.next += 1 + f.next%3
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				f.fill(v.Field(i))
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Map:
		filled := reflect.MakeMap(v.Type())
		for _, key := range v.MapKeys() {
			member := reflect.New(v.Type().Elem()).Elem()
			f.fill(member)
			filled.SetMapIndex(key, member)
		}
		v.Set(filled)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(f.next)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.next))
	}
}

// filled returns the counters of a pipeline, with another number in each place.
func filled(c *output.Counters) *output.Counters {
	f := &filler{next: 1e6}
	full := &output.Counters{Failure: c.Failure}
	f.fill(reflect.ValueOf(&full.Capture).Elem())
	f.fill(reflect.ValueOf(&full.Parser).Elem())
	f.fill(reflect.ValueOf(&full.Told).Elem())
	for _, s := range c.Sections {
		v := reflect.New(reflect.TypeOf(s.Value)).Elem()
		v.Set(reflect.ValueOf(s.Value))
		f.fill(v)
		full.Sections = append(full.Sections, output.Section{Name: s.Name, Value: v.Interface()})
	}
	number := func() uint64 { f.next += 7; return f.next }
	full.Time = 1.8e18 + int64(number())
	full.Start, full.End = full.Time-int64(number()*1e6), full.Time-int64(number()*1e3)
	full.Uptime, full.Lag, full.Unnamed = time.Duration(number()), time.Duration(number()), number()
	for _, name := range []string{"eth1", "eth2"} {
		full.Interfaces = append(full.Interfaces, capture.Interface{Name: name, State: capture.LinkUp, Since: time.Unix(0, full.Time-int64(number()*1e5)),
			Changes: number(), MTU: int(number()), Speed: number(), Frames: number(), Dropped: number()})
	}
	for _, list := range []*[]decode.FrameCount{&full.NoTLS, &full.Unread, &full.Weird} {
		for _, name := range []string{"one", "two"} {
			*list = append(*list, decode.FrameCount{Name: name, Frames: number()})
		}
	}
	for _, id := range []string{"a", "b"} {
		full.Rules = append(full.Rules, output.RuleCount{Rule: &rules.Rule{ID: id, Title: "Rule " + id}, Matches: number()})
	}
	return full
}

// numbers calls found with each number in a value of JSON, and with times as well.
func numbers(path string, v any, found func(path string, value float64)) {
	switch v := v.(type) {
	case map[string]any:
		for key, member := range v {
			numbers(path+"."+key, member, found)
		}
	case []any:
		for i, member := range v {
			numbers(fmt.Sprintf("%s[%d]", path, i), member, found)
		}
	case json.Number:
		n, _ := v.Float64()
		found(path, n)
	case string:
		if at, err := time.Parse(time.RFC3339Nano, v); err == nil {
			found(path, float64(at.UnixNano()))
		}
	}
}

// TestEveryNumberOfTheRecord compares the stats record with the metrics: each number of
// the record is the value of a metric, in its unit.
func TestEveryNumberOfTheRecord(t *testing.T) {
	r := start(t, linked, now)
	c := filled(r.wait(t, "anything", func(*output.Counters) bool { return true }))
	line, _, err := output.NewEncoder(output.Observer{Version: "test"}, output.Options{}, 0).AppendStats(nil, c)
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		Oddcert struct {
			Stats map[string]any `json:"stats"`
		} `json:"oddcert"`
	}
	d := json.NewDecoder(strings.NewReader(string(line)))
	d.UseNumber()
	if err := d.Decode(&record); err != nil {
		t.Fatal(err)
	}
	m := New(Config{})
	m.See(c)
	values := map[float64]string{}
	for name, f := range gather(t, m) {
		if strings.HasPrefix(name, "oddcert_") {
			for _, one := range f.Metric {
				values[one.GetGauge().GetValue()+one.GetCounter().GetValue()] = name
			}
		}
	}
	count := 0
	numbers("", record.Oddcert.Stats, func(path string, value float64) {
		count++
		want := value
		switch last := path[strings.LastIndexByte(path, '.')+1:]; last {
		case "first", "last", "since", "silence", "uptime", "lag":
			want = value / 1e9
		case "speed":
			want = value * 1e6 / 8
		}
		name, ok := values[want]
		if !ok {
			t.Errorf("%s, which is %v, is in no metric", path, value)
			return
		}
		// The words of the path are those of the name, but for what became a label.
		words := strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' })
		if section := strings.TrimSuffix(words[0], "s"); !strings.HasPrefix(name, "oddcert_"+section) {
			t.Errorf("%s is in %s", path, name)
		}
	})
	if count < 300 {
		t.Errorf("only %d numbers were compared", count)
	}
}

// TestCountersOnlyGrow watches a live pipeline whose receiver refuses all for a while:
// what falls meanwhile is no counter, and what rises and falls is known as a gauge.
func TestCountersOnlyGrow(t *testing.T) {
	r := start(t, linked, now)
	before := map[string]float64{}
	fell := map[string]bool{}
	look := func() {
		for name, f := range gather(t, r.Monitor) {
			for _, one := range f.Metric {
				key := name + fmt.Sprint(one.GetLabel())
				value := one.GetGauge().GetValue() + one.GetCounter().GetValue()
				if value < before[key] {
					if f.GetType() != dto.MetricType_GAUGE {
						t.Errorf("%s, a %s, fell from %v to %v", key, f.GetType(), before[key], value)
					}
					fell[name] = true
				}
				before[key] = value
			}
		}
	}
	r.receiver.set(&delivery.Trouble{Class: "401", Err: errors.New("status 401"), Slow: true})
	for n := 0; n < 3; n++ {
		r.wait(t, "records that wait", func(c *output.Counters) bool {
			look()
			return (&snapshot{Counters: c}).outputs()["siem"].Waiting.Total() > 0
		})
	}
	if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "output siem delivers nothing until somebody does something") {
		t.Errorf("ready while a receiver refuses all: %v", err)
	}
	r.receiver.set(nil)
	r.wait(t, "delivery", func(c *output.Counters) bool { look(); return delivered(c) })
	look()
	for _, name := range []string{"oddcert_output_waiting", "oddcert_output_backlog_records", "oddcert_output_backlog_bytes", "oddcert_output_blocked"} {
		if !fell[name] {
			t.Errorf("%s never fell", name)
		}
	}
	if err := r.Ready(); err != nil {
		t.Error(err)
	}
	r.wait(t, "as many records as the histogram of delivery", func(c *output.Counters) bool {
		h := gather(t, r.Monitor)["oddcert_output_delivery_seconds"].Metric[0].GetHistogram()
		return h.GetSampleCount() == (&snapshot{Counters: c}).outputs()["siem"].Delivered.Total() && h.GetSampleSum() > 1
	})
}

// TestNames holds the forms of names that Prometheus asks for, and those that no program
// looks at: what is by its name a gauge, is one.
func TestNames(t *testing.T) {
	r := start(t, linked, now)
	r.See(filled(r.wait(t, "anything", func(*output.Counters) bool { return true })))
	named := map[string]bool{}
	for name, f := range gather(t, r.Monitor) {
		if !strings.HasPrefix(name, "oddcert_") {
			continue
		}
		for _, one := range f.Metric {
			for _, l := range one.GetLabel() {
				if l.GetName() == "name" && !strings.HasSuffix(name, "_frames_total") {
					t.Errorf("%s: a map has a label without a name of its own", name)
				}
			}
		}
		if strings.HasSuffix(name, "_total") != (f.GetType() == dto.MetricType_COUNTER) {
			t.Errorf("%s is a %s", name, f.GetType())
		}
		for gauge := range gauges {
			named[gauge] = named[gauge] || strings.HasSuffix(name, "_"+gauge)
		}
	}
	for gauge := range gauges {
		if !named[gauge] {
			t.Errorf("no gauge has the name %q", gauge)
		}
	}
}

// TestNamesAreBounded has the network say more names than there may be series.
func TestNamesAreBounded(t *testing.T) {
	m := New(Config{})
	sum := 0.0
	series := func() (n int, total float64) {
		for _, one := range gather(t, m)["oddcert_unread_frames_total"].Metric {
			n++
			total += one.GetCounter().GetValue()
		}
		return n, total
	}
	for round := range 3 {
		c := new(output.Counters)
		sum = 0
		for i := range 900 * (round + 1) {
			// The most frequent come first, and these are others each time.
			c.Unread = append(c.Unread, decode.FrameCount{Name: fmt.Sprint(900*(round+1)-i, "\xff\n", strings.Repeat("x", 1000)), Frames: 2})
			sum += 2
		}
		m.See(c)
		if n, total := series(); n > maxNames+1 || total != sum {
			t.Errorf("%d series with %v frames, want %v", n, total, sum)
		}
	}
	for _, one := range gather(t, m)["oddcert_unread_frames_total"].Metric {
		if v := one.GetLabel()[0].GetValue(); len(v) > maxLabel || strings.ToValidUTF8(v, "") != v {
			t.Errorf("a label of %d bytes: %q", len(v), v)
		}
	}
}

// TestCheckMetrics has Prometheus' own tool look at names, types and help.
func TestCheckMetrics(t *testing.T) {
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	r := start(t, linked, now)
	r.wait(t, "delivery", delivered)
	cmd := exec.CommandContext(t.Context(), path, "check", "metrics")
	cmd.Stdin = strings.NewReader(get(t, serve(t, r.Monitor), "/metrics"))
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// BenchmarkScrape makes an answer with metrics of counters that are all in use.
func BenchmarkScrape(b *testing.B) {
	c := filled(&output.Counters{Sections: []output.Section{
		{Name: "spool", Value: spool.Stats{}},
		{Name: "outputs", Value: map[string]delivery.Stats{"a": {}, "b": {}, "c": {}}},
	}})
	m := New(Config{})
	m.See(c)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSee is what the pipeline's goroutine does each second.
func BenchmarkSee(b *testing.B) {
	m := New(Config{})
	c := new(output.Counters)
	b.ReportAllocs()
	for b.Loop() {
		m.See(c)
	}
}

// BenchmarkDelivered is what each record costs that is delivered.
func BenchmarkDelivered(b *testing.B) {
	m := New(Config{})
	b.ReportAllocs()
	for b.Loop() {
		m.Delivered("siem", time.Millisecond)
	}
}
