package output

import (
	"fmt"
	"strings"
)

// Set is a set of datasets.
type Set uint8

// Add returns s with d.
func (s Set) Add(d Dataset) Set { return s | 1<<d }

// Remove returns s without d.
func (s Set) Remove(d Dataset) Set { return s &^ (1 << d) }

// Has reports whether d is in s.
func (s Set) Has(d Dataset) bool { return s>>d&1 != 0 }

// ParseDatasets reads a list such as "alert,handshake".
func ParseDatasets(list string) (Set, error) {
	var s Set
next:
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		for d := range Datasets {
			if d.String() == name && Records.Has(d) {
				s = s.Add(d)
				continue next
			}
		}
		return 0, fmt.Errorf("unknown kind of record %q: the kinds are handshake, certificate, sighting, hello, alert and stats", name)
	}
	return s, nil
}

// Lines is an [Output] that writes JSON lines.
type Lines struct {
	*Sink
	set Set
}

// NewLines returns an output that writes the records of the datasets in set to
// s, one a line.
func NewLines(s *Sink, set Set) *Lines { return &Lines{Sink: s, set: set} }

// Write queues r if its dataset is wanted.
func (l *Lines) Write(r *Record) error {
	if !l.set.Has(r.Dataset) {
		return nil
	}
	return l.enqueue(r.JSON, "\n")
}
