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

// Stats counts what became of records, since Open. In each dataset
//
//	Appended = Accepted + Refused + Pending
//	Recovered + Accepted = Settled + Dropped + Spooled
type Stats struct {
	Appended  Counts `json:"appended"`  // given to Append
	Pending   Counts `json:"pending"`   // not on disk yet
	Refused   Counts `json:"refused"`   // lost before they were on disk: no room, too large, or a failed write
	Accepted  Counts `json:"accepted"`  // on disk
	Recovered Counts `json:"recovered"` // found on disk by Open
	Settled   Counts `json:"settled"`
	Dropped   Counts `json:"dropped"` // accepted, then given up: for alerts, for age, or damaged on disk
	Spooled   Counts `json:"spooled"` // on disk, not settled

	// Bytes is what the spool uses of its limit: the size of the segments, and
	// of the records that wait for the disk, which are not compressed yet.
	Bytes int64 `json:"bytes"`

	Torn      uint64 `json:"torn"`       // tails cut off by Open
	TornBytes uint64 `json:"torn_bytes"` // their length
	Corrupt   uint64 `json:"corrupt"`    // damaged places that were skipped
	Failures  uint64 `json:"failures"`   // writes to the disk that failed

	// Missing counts records that an earlier process had accepted and that Open
	// did not find: somebody has deleted, emptied or cut a segment. They are in
	// no other count.
	Missing uint64 `json:"missing"`
}

// Stats returns the counts.
func (s *Spool) Stats() Stats {
	st := Stats{Bytes: s.used.Load()}
	for _, q := range s.queues {
		q.addStats(&st)
	}
	return st
}
