package cert

import "time"

// Date is a moment in whole seconds and UTC, in the years 0 to 9999: those that a
// certificate can name (RFC 5280, section 4.1.2.5) and RFC 3339 can write. The
// zero Date stands for a missing date. time.Time could not say that: its zero is the first second
// of year 1, which certificates have.
type Date struct {
	unix  int64
	valid bool
}

// DateOf returns the second of t, or none when t is not in the years 0 to 9999.
func DateOf(t time.Time) Date {
	if year := t.UTC().Year(); year < 0 || year > 9999 {
		return Date{}
	}
	return Date{t.Unix(), true}
}

// IsValid reports whether there is a date.
func (d Date) IsValid() bool { return d.valid }

// Unix is in seconds since 1970, less than 0 before; 0 when there is no date.
func (d Date) Unix() int64 { return d.unix }

// Time is in UTC; it means nothing when there is no date.
func (d Date) Time() time.Time { return time.Unix(d.unix, 0).UTC() }

// String is the date in RFC 3339, empty when there is none.
func (d Date) String() string {
	if !d.valid {
		return ""
	}
	return d.Time().Format(time.RFC3339)
}

const day = 24 * 60 * 60

// The moments below are in nanoseconds since 1970, which reach from 1677 to 2262:
// dates do not, so that they are compared in seconds.

// Passed reports whether the moment is after the date.
func (d Date) Passed(now int64) bool { return d.DaysLeft(now) < 0 }

// Ahead reports whether the moment is before the date.
func (d Date) Ahead(now int64) bool { return floor(now, 1e9) < d.unix }

// DaysLeft is the whole days from the moment to the date, less than 0 when that
// has passed.
func (d Date) DaysLeft(now int64) int64 {
	second := floor(now, 1e9)
	if now%1e9 != 0 {
		second++ // which the moment is not after
	}
	return floor(d.unix-second, day)
}

// DaysSince is the whole days from the other date to this one, less than 0 when
// this is the earlier one.
func (d Date) DaysSince(other Date) int64 { return floor(d.unix-other.unix, day) }

// floor divides and rounds down.
func floor(n, by int64) int64 {
	q := n / by
	if n%by < 0 {
		q--
	}
	return q
}
