package spool

import (
	"encoding/json"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Counts counts records by dataset.
type Counts [output.Datasets]uint64

// Total is the sum over the datasets.
func (c Counts) Total() (n uint64) {
	for _, v := range c {
		n += v
	}
	return n
}

// MarshalJSON names the datasets.
func (c Counts) MarshalJSON() ([]byte, error) {
	named := make(map[string]uint64, len(c))
	for d, n := range c {
		named[output.Dataset(d).String()] = n
	}
	return json.Marshal(named)
}

func (c *Counts) add(o Counts) {
	for d, v := range o {
		c[d] += v
	}
}

func (c *Counts) subtract(o Counts) {
	for d, v := range o {
		c[d] -= v
	}
}

// has reports whether c has at least o of each dataset.
func (c *Counts) has(o Counts) bool {
	for d, v := range o {
		if c[d] < v {
			return false
		}
	}
	return true
}

// of returns those of c that are of datasets in s.
func (c Counts) of(s output.Set) Counts {
	for d := range c {
		if !s.Has(output.Dataset(d)) {
			c[d] = 0
		}
	}
	return c
}

// QueueStats counts what became of records on their way to the disk, since Open. In
// each dataset
//
//	Appended = Accepted + Refused + Pending
type QueueStats struct {
	Appended Counts `json:"appended"` // given to Append
	Pending  Counts `json:"pending"`  // not on disk yet
	Refused  Counts `json:"refused"`  // lost before they were on disk: no room, too large, or the end came first
	Accepted Counts `json:"accepted"` // on disk

	Torn      uint64 `json:"torn"`       // tails cut off by Open
	TornBytes uint64 `json:"torn_bytes"` // their length
	Failures  uint64 `json:"failures"`   // writes to the disk that failed; they are tried again
}

// Stats are the counts of a spool.
type Stats struct {
	QueueStats

	// Bytes is what the spool uses of its limit: the size of its segments.
	Bytes int64 `json:"bytes"`
	Limit int64 `json:"limit_bytes"`

	// Trouble is why records do not get to the disk now: it cannot be written, or
	// records are lost for want of room. Empty when all is well.
	Trouble string `json:"-"`
}

// Stats returns the counts.
func (s *Spool) Stats() Stats {
	st := Stats{Bytes: s.used.Load(), Limit: s.limit}
	for _, q := range s.queues {
		q.addStats(&st)
	}
	return st
}

// ReaderStats counts what became of the records that an output wants, since Open.
// In each dataset
//
//	Recovered + Accepted = Settled + Dropped + Waiting
type ReaderStats struct {
	Recovered Counts `json:"recovered"` // found on disk by Open
	Accepted  Counts `json:"accepted"`  // on disk since
	Settled   Counts `json:"settled"`
	Dropped   Counts `json:"dropped"` // accepted, then given up: for want of space, for age, or damaged on disk
	Waiting   Counts `json:"waiting"` // not settled

	Backlog Backlogs `json:"backlog"` // Waiting by queue

	Corrupt uint64 `json:"corrupt"` // damaged places that were skipped, and cursors

	// Missing counts records that an earlier process had accepted and that Open
	// did not find: somebody has deleted, emptied or cut a segment. They are in
	// no other count.
	Missing uint64 `json:"missing"`
}

// Backlog is what a queue holds that an output has not settled.
type Backlog struct {
	Records int64 `json:"records"`
	Bytes   int64 `json:"bytes"`       // of the segments that they are in
	Age     int64 `json:"age_seconds"` // since the oldest of them was accepted; 0 where there is none
}

// Backlogs are those of each queue.
type Backlogs [Queues]Backlog

// MarshalJSON names the queues.
func (b Backlogs) MarshalJSON() ([]byte, error) {
	named := make(map[string]Backlog, len(b))
	for q := range b {
		named[Queue(q).String()] = b[q]
	}
	return json.Marshal(named)
}

// Stats returns the counts of the output.
func (r *Reader) Stats() (st ReaderStats) {
	for _, of := range r.readings {
		if of != nil {
			of.addStats(&st)
		}
	}
	return st
}
