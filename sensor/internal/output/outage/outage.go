// Package outage decides when the log says that something does not work: when it
// begins, again after intervals that grow, and when it is over.
package outage

import "time"

// The intervals at which the log repeats that an outage goes on.
const (
	FirstInterval = time.Minute
	LastInterval  = time.Hour
)

// Outage is the state of one thing that may fail. The zero value is that of one
// that works. It is not safe for concurrent use.
type Outage struct {
	cause string    // the class of the failure; empty when all is well
	since time.Time // when it began
	next  time.Time // when the log repeats it
	wait  time.Duration
}

// Fails notes a failure of a class, the same for failures that are the same to who
// reads the log, and reports whether the log is to say so now.
func (o *Outage) Fails(class string) bool {
	now := time.Now()
	if o.cause == "" {
		o.since = now
	}
	if o.cause != class {
		o.cause, o.wait = class, FirstInterval
		o.next = now.Add(o.wait)
		return true
	}
	if now.Before(o.next) {
		return false
	}
	o.wait = min(2*o.wait, LastInterval)
	o.next = now.Add(o.wait)
	return true
}

// Works notes that all is well. It returns how long the outage was, and reports
// whether there was one.
func (o *Outage) Works() (lasted time.Duration, was bool) {
	if o.cause == "" {
		return 0, false
	}
	lasted = time.Since(o.since)
	*o = Outage{}
	return lasted, true
}

// Class is what was last given to Fails, empty when all is well.
func (o *Outage) Class() string { return o.cause }

// Since is when the outage began.
func (o *Outage) Since() time.Time { return o.since }
