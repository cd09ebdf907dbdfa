// Package delivery takes records from the queue on disk to where they go.
//
// A [Destination] knows one way to send records, and what the answers mean. All
// else is the same for all of them, and is here: which records an output wants,
// batches, requests that go again after a while, dead letters, what the log says,
// and the counts.
package delivery

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Destination takes records to a server or to a file.
//
// Its methods may be called by several goroutines.
type Destination interface {
	// Send sends records, which are lent until it returns, and says in verdicts,
	// which are as many and all zero, what became of each. What has no verdict goes
	// again: an id makes it safe to send a record twice only where the receiver
	// looks at ids. Records of one queue are to arrive in their order, unless
	// Limits allows several requests at a time.
	//
	// Send returns what is wrong with the request as a whole, or nil. It returns
	// soon when ctx is done.
	Send(ctx context.Context, records []*output.Record, verdicts []Verdict) *Trouble

	// Limits bound what Send is called with.
	Limits() Limits

	// Close gives back what the destination holds. Nothing is sent any more.
	Close() error

	// String is where records go, as people know it: an address without secrets.
	String() string
}

// Limits bound the batches of a [Destination].
type Limits struct {
	Records  int // in one request
	Bytes    int // of their JSON
	Requests int // that may be under way at a time, for each queue of the spool
}

// Fate is what became of one record.
type Fate uint8

// The fates.
const (
	Again     Fate = iota // no answer, or one that says to send it again
	Delivered             // the receiver has it, and will not lose it
	Duplicate             // the receiver had it already
	Dead                  // the receiver will never accept it
	Blocked               // the receiver accepts it only after somebody has changed something
	Skipped               // the destination has no form for a record of this kind

	filtered // the output does not want the record: no destination says so
)

// Verdict is the fate of one record, with the receiver's reason.
type Verdict struct {
	Fate       Fate
	Redirected bool   // the receiver has put it where what it cannot read goes
	Status     int    // of the protocol, 0 where it has none
	Reason     string // of Dead, Blocked and Again, in the receiver's words, at most MaxReason bytes
}

// Trouble is why a whole request, or some of its records, must go again.
type Trouble struct {
	Class string // the same for troubles that are the same to the reader of the log
	Err   error
	Split bool          // the request was too large, or cannot be read as a whole: smaller ones may be
	Slow  bool          // it will not change unless somebody does something
	After time.Duration // the receiver asked to wait so long
}

// MaxReason bounds the reason of a [Verdict]: it is repeated in the log and in dead
// letters.
const MaxReason = 2048

// Reason is text as the reason of a [Verdict]: at most MaxReason bytes of valid UTF-8.
func Reason(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), MaxReason)], "")
}

// MaxRetryAfter bounds the wait that a receiver may ask for.
const MaxRetryAfter = 5 * time.Minute

// RetryAfter reads a Retry-After header (RFC 9110, section 10.2.3): at most
// MaxRetryAfter from now, and 0 where it says nothing.
func RetryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(MaxRetryAfter/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(value); err == nil {
		return min(max(t.Sub(now), 0), MaxRetryAfter)
	}
	return 0
}
