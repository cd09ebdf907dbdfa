package outage

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestOutage has one failure a second for a day.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o Outage
		start := time.Now()
		var said []time.Duration
		for time.Since(start) < 24*time.Hour {
			if o.Fails("network") {
				said = append(said, time.Since(start))
			}
			time.Sleep(time.Second)
		}
		if len(said) < 20 || len(said) > 30 || said[0] != 0 || said[1] != FirstInterval {
			t.Errorf("said %d times: %v", len(said), said)
		}
		for i := 2; i < len(said); i++ {
			if gap := said[i] - said[i-1]; gap < FirstInterval || gap > LastInterval+time.Second {
				t.Errorf("said after %v", gap)
			}
		}
		if !o.Fails("login") {
			t.Error("another cause is not said at once")
		}
		if lasted, was := o.Works(); !was || lasted != 24*time.Hour {
			t.Errorf("lasted %v, %v", lasted, was)
		}
		if _, was := o.Works(); was {
			t.Error("over twice")
		}
		if !o.Fails("login") {
			t.Error("a new outage is not said")
		}
	})
}
