package pipeline

import (
	"bytes"
	"context"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// trickle is a source that says nothing for most of the time.
type trickle struct {
	capture.Source
	silent int // how often it says so before it goes on
	left   int
	series int
}

func (s *trickle) Next() (*capture.Batch, error) {
	if s.left > 0 {
		s.left--
		return &capture.Batch{Origin: new(event.Origin), Series: s.series}, nil
	}
	s.left = s.silent
	b, err := s.Source.Next()
	if err == nil {
		s.series = b.Series
	}
	return b, err
}

// What comes out does not depend on when it came in, but when it is written does,
// and so which of two handshakes at a time something is told with that is told once.
func TestFollow(t *testing.T) {
	path, _ := generate(t, named(t, "truth", 0.02))
	var want map[string]int
	for _, workers := range []int{1, 2, 8} {
		for _, silent := range []int{0, 1, 3} {
			files, err := capture.OpenFiles([]string{path}, capture.FileOptions{Warn: func(err error) { t.Error(err) }})
			if err != nil {
				t.Fatal(err)
			}
			var lines bytes.Buffer
			var idle atomic.Int64
			p := New(Config{
				Workers: workers, Rules: builtin(t), Records: output.Options{Datasets: everything}, Limits: flow.DefaultLimits,
				Outputs: []output.Output{output.NewLines(output.NewSink(&lines, output.SinkOptions{Block: true}), everything)},
				Follow:  silent > 0, Now: func() time.Time { return time.Unix(1e9, 0) }, Idle: func() { idle.Add(1) },
			})
			if err := p.Replay(context.Background(), &trickle{Source: files, silent: silent}); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if err := p.config.Outputs[0].Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			for line := range bytes.Lines(lines.Bytes()) {
				for _, once := range []string{"certificate", "sighting", "hello"} {
					if bytes.Contains(line, []byte(`"oddcert.`+once+`"`)) {
						line = []byte(once)
					}
				}
				got[string(line)]++
			}
			if want == nil {
				want = got
			}
			missing := 0
			for line, n := range want {
				if got[line] != n {
					missing++
				}
			}
			if missing > 0 || len(got) != len(want) {
				t.Errorf("%d workers, silent %d times: %d records, %d of %d are not there", workers, silent, len(got), missing, len(want))
			}
			if silent > 0 && idle.Load() == 0 {
				t.Errorf("%d workers: nothing is written while nothing comes", workers)
			}
		}
	}
}

// Statistics are made while the input goes on.
func TestFollowStatistics(t *testing.T) {
	path, _ := generate(t, named(t, "truth", 0.02))
	files, err := capture.OpenFiles([]string{path}, capture.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	p := New(Config{Rules: builtin(t), Records: output.Options{Datasets: output.Set(0).Add(output.Stats)}, Follow: true})
	f := p.follow(files, 2)
	f.counted[0] = &counters{flows: flow.Stats{Flows: 3}}
	f.counted[1] = &counters{flows: flow.Stats{Flows: 4}}
	if err := f.report(true); err != nil || p.delivered[output.Stats] != 0 {
		t.Errorf("%d records before their time, %v", p.delivered[output.Stats], err)
	}
	f.reported = f.reported.Add(-StatsInterval)
	for range 2 {
		if err := f.report(false); err != nil {
			t.Fatal(err)
		}
	}
	if p.delivered[output.Stats] != 1 || p.total.flows.Flows != 7 {
		t.Errorf("%d records, %d flows", p.delivered[output.Stats], p.total.flows.Flows)
	}
}
