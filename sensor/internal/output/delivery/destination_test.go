package delivery

import (
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 29, 7, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                              0,
		"soon":                          0,
		"-1":                            0,
		"x":                             0,
		"3":                             3 * time.Second,
		"100000":                        MaxRetryAfter,
		"99999999999":                   MaxRetryAfter,
		"Mon, 01 Jan 2001 00:00:00 GMT": 0,
		"Fri, 01 Jan 2999 00:00:00 GMT": MaxRetryAfter,
		"0":                             0,
		"120":                           2 * time.Minute,
		"99999999":                      MaxRetryAfter,
		"Sun, 29 Nov 2026 07:00:30 GMT": 30 * time.Second,
		"Sun, 29 Nov 2026 06:00:30 GMT": 0,
		"Sun, 29 Nov 2037 07:00:30 GMT": MaxRetryAfter,
	} {
		if got := RetryAfter(value, now); got != want {
			t.Errorf("%q is %v, want %v", value, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "1", "Sun, 29 Nov 2026 07:00:30 GMT", "1e9", "18446744073709551616"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if d := RetryAfter(value, time.Unix(0, 0)); d < 0 || d > MaxRetryAfter {
			t.Errorf("%q is %v", value, d)
		}
	})
}
