package capture

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

const second = int64(time.Second)

// walk gives a clock the times of packets, of which those in a row are near one
// another, and fails when flow time goes back, or on by more than some seconds
// between two packets.
func walk(t *testing.T, c *Clock, times []int64) (flow []int64) {
	t.Helper()
	for i, at := range times {
		now, _ := c.See(0, at)
		if n := len(flow); n > 0 && (now < flow[n-1] || now > flow[n-1]+2*clockTolerance) {
			t.Fatalf("packet %d, of %d: flow time goes from %d to %d", i+1, at, flow[n-1], now)
		}
		flow = append(flow, now)
	}
	return flow
}

// busy is the times of n packets, a millisecond apart, some out of order.
func busy(r *rand.Rand, n int) (times []int64) {
	t := int64(1_764_000_000) * second
	for range n {
		t += int64(time.Millisecond)
		times = append(times, t-r.Int64N(int64(5*time.Millisecond)))
	}
	return times
}

// Where a clock is in order, flow time is the highest time so far.
func TestClockInOrder(t *testing.T) {
	times := busy(rand.New(rand.NewPCG(1, 1)), 5000)
	var c Clock
	high := int64(math.MinInt64)
	for i, now := range walk(t, &c, times) {
		if high = max(high, times[i]); now != high {
			t.Fatalf("packet %d: %d, want %d", i, now, high)
		}
	}
	if c.Jumps() != 0 {
		t.Errorf("%d jumps", c.Jumps())
	}
}

// Packets of any other time, wherever they are and up to half as many as it takes
// to prove a time, change flow time by little, and not after them.
func TestClockOutliers(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	mad := []int64{0, 1, -1, math.MaxInt64, math.MinInt64, 2_145_916_800 * second}
	for _, d := range []int64{-3600, 3600, 86400, -86400, -86400 * 365 * 40, 5, -5} {
		mad = append(mad, math.MinInt64/2+d) // stands for d from where it is
	}
	for _, to := range mad {
		for _, n := range []int{1, 5, clockProof / 2} {
			for _, at := range []int{0, 1, 700, 1998} {
				times := busy(r, 2000)
				good := append([]int64(nil), times...)
				for i := range n {
					v := to
					if d := to - math.MinInt64/2; -2e9 < d && d < 2e9 {
						v = times[min(at, len(times)-1)] + d*second
					}
					times = append(times[:min(at+i, len(times))], append([]int64{v}, times[min(at+i, len(times)):]...)...)
				}
				var c Clock
				flow := walk(t, &c, times)
				// At the beginning, a little back is silence.
				silence := at == 0 && (to == math.MinInt64/2-3600 || to == math.MinInt64/2-5)
				if c.Jumps() == 0 && at+n < 1990 && !silence {
					t.Errorf("%d packets of %d at %d: no jump is counted", n, to, at)
				}
				begun := flow[0]
				if want := good[len(good)-1] - good[0]; flow[len(flow)-1]-begun > want+3*clockTolerance || flow[len(flow)-1]-begun < want-clockTolerance-second/10 {
					t.Errorf("%d packets of %d at %d: %v passed, of %v", n, to, at, time.Duration(flow[len(flow)-1]-begun), time.Duration(want))
				}
			}
		}
	}
}

// A clock that is put to another time, ahead or back, and stays there goes on.
func TestClockSteps(t *testing.T) {
	for _, d := range []int64{-10 * 365 * 86400, -3600, -30, 30, 3600, 86400, 50 * 365 * 86400} {
		times := busy(rand.New(rand.NewPCG(3, 3)), 4000)
		for i := 1000; i < len(times); i++ {
			times[i] += d * second
		}
		var c Clock
		flow := walk(t, &c, times)
		passed := flow[len(flow)-1] - flow[0]
		if passed < 3*second || passed > 5*second+clockTolerance {
			t.Errorf("%ds: %v passed", d, time.Duration(passed))
		}
		if jumped := d < 0 || d*second > clockSilence; jumped != (c.Jumps() > 0) {
			t.Errorf("%ds: %d jumps", d, c.Jumps())
		}
	}
}

// Interfaces whose clocks differ share a flow time.
func TestClockOfInterfaces(t *testing.T) {
	times := busy(rand.New(rand.NewPCG(4, 4)), 4000)
	var c Clock
	var last int64
	for i, at := range times {
		now, jumped := c.See(i%3, at+int64(i%3)*3600*second)
		if jumped || now < last {
			t.Fatalf("packet %d: from %d to %d, jumped %v", i, last, now, jumped)
		}
		last = now
	}
	if want := times[len(times)-1]; last < want-second || last > want+second {
		t.Errorf("%d, want %d", last, want)
	}
}

// An interface that is silent for long, while another is not, is believed at once.
func TestClockOfSilentInterface(t *testing.T) {
	var c Clock
	at := int64(1_764_000_000) * second
	for i := range 100_000 {
		at += second
		iface := 0
		if i%9_999 == 0 {
			iface = 1
		}
		if now, jumped := c.See(iface, at); now != at || jumped {
			t.Fatalf("packet %d, of %d: flow time is %d, jumped %v", i, at, now, jumped)
		}
	}
}

// Silence is no jump, and what goes on after it does.
func TestClockSilence(t *testing.T) {
	var c Clock
	at := int64(1_764_000_000) * second
	for i := range 1000 {
		c.See(0, at)
		at += int64(i%7) * 10 * second
	}
	if c.Jumps() != 0 {
		t.Errorf("%d jumps", c.Jumps())
	}
}

// Where packets are rare, time passes all the same.
func TestClockOfRarePackets(t *testing.T) {
	var c Clock
	begun := int64(1_764_000_000) * second
	var now int64
	for i := range 10_000 {
		now, _ = c.See(0, begun+int64(i)*3*second)
	}
	if passed := now - begun; passed < 19_000*second || passed > 30_000*second {
		t.Errorf("%v of 30000 s", time.Duration(passed))
	}
}

// Whatever the times and the interfaces are, flow time never goes back, and goes
// on by no more than the packets that agree can say.
func FuzzClock(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz0123456789"))
	f.Add(make([]byte, 900))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Clock
		last := int64(math.MinInt64)
		for ; len(b) >= 9; b = b[9:] {
			at := int64(binary.LittleEndian.Uint64(b[1:]))
			if b[0]&0x80 != 0 { // near the flow time
				at = last + at%(5*second)
			}
			now, _ := c.See(int(b[0]&7), at)
			if last != math.MinInt64 && (now < last || now > last+(clockProof+1)*clockTolerance) {
				t.Fatalf("flow time goes from %d to %d", last, now)
			}
			last = now
		}
	})
}
