package output

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
)

// Set is a set of datasets.
type Set uint8

// Add returns s with d.
func (s Set) Add(d Dataset) Set { return s | 1<<d }

// Has says whether d is in s.
func (s Set) Has(d Dataset) bool { return s>>d&1 != 0 }

// ParseDatasets reads a list such as "alert,handshake".
func ParseDatasets(list string) (Set, error) {
	var s Set
next:
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		for d := range Datasets {
			if d.String() == name {
				s = s.Add(d)
				continue next
			}
		}
		return 0, fmt.Errorf("unknown kind of record %q: the kinds are handshake, certificate, alert and stats", name)
	}
	return s, nil
}

// Lines is an [Output] that writes JSON lines.
type Lines struct {
	w   *bufio.Writer
	set Set
	err error
}

// NewLines returns an output that writes the records of the datasets in set to
// w, one a line, through a buffer. Closing it does not close w.
func NewLines(w io.Writer, set Set) *Lines {
	return &Lines{w: bufio.NewWriterSize(w, 1<<18), set: set}
}

// Write writes r if its dataset is wanted. After an error nothing more is
// written, and each call returns that same error.
func (l *Lines) Write(r *Record) error {
	if l.err != nil || !l.set.Has(r.Dataset) {
		return l.err
	}
	l.w.Write(r.JSON) // the error sticks to the buffer
	return l.failed(l.w.WriteByte('\n'))
}

// Flush writes what is in the buffer.
func (l *Lines) Flush() error {
	if l.err != nil {
		return l.err
	}
	return l.failed(l.w.Flush())
}

// Close is [Lines.Flush].
func (l *Lines) Close(context.Context) error { return l.Flush() }

func (l *Lines) failed(err error) error {
	if err != nil {
		l.err = fmt.Errorf("write records: %w", err)
	}
	return l.err
}
