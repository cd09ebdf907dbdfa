package trust

import (
	"slices"
	"sync/atomic"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
)

// Seen is the intermediates that servers have sent before, in the order of
// handshakes. It is for one goroutine.
type Seen struct {
	limit     int // of bytes
	entries   map[[32]byte]*seen
	byName    map[name][]*seen
	order     []*seen // by when they came, those that are gone among them
	bytes     int
	epoch     uint64 // another one when anything has changed, and never that of another Seen
	forgotten uint64
}

type seen struct {
	*certificate
	size int
	used bool // since it was last looked at for one to forget
	gone bool
}

var epochs atomic.Uint64

// NewSeen returns an empty Seen, which may remember a share, above 0 and at most 1, of
// the most that is remembered.
func NewSeen(share float64) *Seen {
	s := &Seen{limit: int(maxSeenBytes * share)}
	s.Next()
	return s
}

// Next forgets everything: another capture begins.
func (s *Seen) Next() {
	s.entries = make(map[[32]byte]*seen)
	s.byName = make(map[name][]*seen)
	s.order, s.bytes = nil, 0
	s.epoch = epochs.Add(1)
}

// Forgotten returns how many were forgotten for want of room.
func (s *Seen) Forgotten() uint64 { return s.forgotten }

// Add remembers the intermediates that the server of h sent. Where all of them are
// known, it allocates nothing.
func (s *Seen) Add(h *event.Handshake) {
	if len(h.Chain) < 2 {
		return
	}
	for i := range h.Chain[1:] {
		c := &h.Chain[1+i]
		if c.Truncated || !c.IsCA || c.SelfSigned || c.DER == nil {
			continue
		}
		if e, ok := s.entries[c.SHA256]; ok {
			e.used = true
			continue
		}
		s.add(c.Certificate)
	}
}

func (s *Seen) add(c *cert.Certificate) {
	e := &seen{certificate: newCertificate(c), size: c.Size()}
	if e.size > s.limit/64 { // it would drive out too many others
		s.forgotten++
		return
	}
	if same := s.byName[e.subject]; len(same) >= maxSameName {
		s.forget(same)
	}
	for len(s.entries) >= maxSeen || s.bytes+e.size > s.limit {
		s.order = s.order[s.forget(s.order):]
	}
	if len(s.order) >= 2*maxSeen {
		s.order = slices.DeleteFunc(s.order, func(e *seen) bool { return e.gone })
	}
	s.entries[c.SHA256] = e
	s.byName[e.subject] = append(s.byName[e.subject], e)
	s.order = append(s.order, e)
	s.bytes += e.size
	s.epoch = epochs.Add(1)
}

// forget forgets the first of list that was not sent again since it was last looked
// at, or else the first. It returns how many at the front are gone.
func (s *Seen) forget(list []*seen) int {
	at := slices.IndexFunc(list, func(e *seen) bool {
		if e.gone {
			return false
		}
		unused := !e.used
		e.used = false
		return unused
	})
	if at < 0 {
		at = slices.IndexFunc(list, func(e *seen) bool { return !e.gone })
	}
	e := list[at]
	e.gone = true
	delete(s.entries, e.SHA256)
	s.bytes -= e.size
	s.forgotten++
	if same := s.byName[e.subject]; len(same) == 1 {
		delete(s.byName, e.subject)
	} else {
		s.byName[e.subject] = slices.DeleteFunc(slices.Clone(same), func(x *seen) bool { return x == e })
	}
	front := 0
	for front < len(list) && list[front].gone {
		front++
	}
	return front
}

// has reports whether c is one of those that were seen.
func (s *Seen) has(c *certificate) bool {
	e, ok := s.entries[c.SHA256]
	return ok && e.certificate == c
}
