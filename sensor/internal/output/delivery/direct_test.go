package delivery

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// TestDirect delivers in order, also when requests fail, and loses what is left when
// nothing may wait any more.
func TestDirect(t *testing.T) {
	var said logBuffer
	late, end := context.WithCancel(context.Background())
	n, away := 0, false
	dest := &receiver{}
	dest.answer = func(records []*output.Record, verdicts []Verdict) *Trouble {
		n++
		for i := range verdicts {
			if away || n%2 == 1 && i >= len(verdicts)/2 {
				return &Trouble{Class: "disk", Err: errors.New("no space")}
			}
			switch records[i].Time {
			case 5:
				verdicts[i] = Verdict{Fate: Dead, Reason: "never"}
			case 6:
				verdicts[i].Fate = Skipped
			default:
				verdicts[i].Fate = Delivered
			}
		}
		return nil
	}
	d := NewDirect(Output{Name: "files", Destination: dest, Severity: 47}, everything.Remove(output.Hello), late, Options{Log: said.logger(), Backoff: fast})
	for i := range 100 {
		for _, set := range []output.Dataset{output.Hello, output.Alert} {
			if err := d.Write(record(set, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.Close(late); err != nil {
		t.Fatal(err)
	}
	s := d.Stats()
	if len(dest.got) != 73 || !slices.IsSorted(dest.got) || s.Delivered.Total() != 73 || s.Dead.Total() != 1 || s.Skipped.Total() != 1 || s.Filtered.Total() != 25 || s.Accepted.Total() != 100 {
		t.Errorf("got %v, %+v", dest.got, s)
	}
	if !strings.Contains(said.String(), "the replay waits") || !strings.Contains(said.String(), "delivers again") {
		t.Errorf("said %s", said.String())
	}
	away = true
	end()
	if err := d.Write(record(output.Alert, 101)); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(late); err == nil || d.Stats().Dropped.Total() != 1 {
		t.Errorf("closed: %v, %+v", err, d.Stats())
	}
}
