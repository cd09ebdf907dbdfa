package cert

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

// Every second of the years 0 to 9999 is a date, the zero of time.Time and that of
// Unix too, and nothing else is.
func TestDates(t *testing.T) {
	first, last := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	for _, at := range []time.Time{first, last, {}, time.Unix(0, 0), time.Unix(-1, 0), time.Unix(1<<31, 0), time.Unix(1<<33, 0),
		first.In(time.FixedZone("", 3600)), last.In(time.FixedZone("", -3600))} {
		d := DateOf(at)
		if !d.IsValid() || !d.Time().Equal(at) || d.Time().Location() != time.UTC || d.Unix() != at.Unix() || d.String() != at.UTC().Format(time.RFC3339) {
			t.Errorf("%v is %v, valid: %v", at, d, d.IsValid())
		}
	}
	for _, at := range []time.Time{first.Add(-1), last.Add(time.Second), time.Unix(math.MinInt64/2, 0), time.Unix(math.MaxInt64/2, 0)} {
		if d := DateOf(at); d != (Date{}) || d.IsValid() || d.String() != "" {
			t.Errorf("%v is %v", at, d)
		}
	}
}

// Dates are compared with moments without overflow, as exact numbers are.
func TestDateArithmetic(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	low, high := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
	const perDay = 24 * 60 * 60
	whole := func(nanoseconds *big.Int) int64 { // days, rounded down
		q, _ := new(big.Int).DivMod(nanoseconds, big.NewInt(perDay*1e9), new(big.Int))
		return q.Int64()
	}
	nanoseconds := func(unix int64) *big.Int { return new(big.Int).Mul(big.NewInt(unix), big.NewInt(1e9)) }
	for range 20_000 {
		a, b := DateOf(time.Unix(low+random.Int64N(high-low+1), 0)), DateOf(time.Unix(low+random.Int64N(high-low+1), 0))
		now := random.Int64()<<1 ^ random.Int64()
		switch random.IntN(4) {
		case 0:
			now = []int64{0, 1, -1, math.MinInt64, math.MaxInt64, -1e9, 1e9}[random.IntN(7)]
		case 1: // close to the date, where it can be
			if s := a.Unix(); s > -9e9 && s < 9e9 {
				now = s*1e9 + random.Int64N(2*perDay*1e9) - perDay*1e9
			}
		}
		left := new(big.Int).Sub(nanoseconds(a.Unix()), big.NewInt(now))
		if got := a.DaysLeft(now); got != whole(left) {
			t.Fatalf("%v has %d days left at %d, want %d", a, got, now, whole(left))
		}
		if a.Passed(now) != (left.Sign() < 0) || a.Ahead(now) != (left.Sign() > 0) {
			t.Fatalf("%v at %d: passed %v, ahead %v", a, now, a.Passed(now), a.Ahead(now))
		}
		if got, want := a.DaysSince(b), whole(new(big.Int).Sub(nanoseconds(a.Unix()), nanoseconds(b.Unix()))); got != want {
			t.Fatalf("%v is %d days after %v, want %d", a, got, b, want)
		}
	}
}
