package output

import (
	"github.com/oddcert/oddcert/parsers/event"
)

// Inventory knows which certificates were seen on which server, in each capture
// file for itself: what is said of a file does not depend on the others. It
// belongs to the one stage that has the handshakes in order, and is not safe for
// concurrent use.
type Inventory struct {
	file, before shelf // of the file at hand, and of the one before, whose last handshakes may still come
	past         shelf // of all others
	fresh        []int
}

// shelf is what was seen in one file, or live.
type shelf struct {
	path         string
	pairs        generations[pair]
	certificates generations[[32]byte]
}

func newShelf(path string) shelf {
	return shelf{path, generations[pair]{limit: maxInventory}, generations[[32]byte]{limit: maxInventory}}
}

// take adds what is in o.
func (s *shelf) take(o *shelf) {
	if s.pairs.added == 0 {
		*s = *o
		return
	}
	s.pairs.take(&o.pairs)
	s.certificates.take(&o.certificates)
}

// InventoryStats counts what an inventory has seen. Once something was
// forgotten the other figures may count it again.
type InventoryStats struct {
	Certificates uint64 `json:"certificates"` // distinct
	Servers      uint64 `json:"pairs"`        // distinct pairs of a certificate and a server
	Forgotten    uint64 `json:"forgotten"`    // pairs, for want of room
}

// pair is a certificate on a server, without pointers.
type pair struct {
	sha256    [32]byte
	host      [16]byte
	port      uint16
	transport event.Transport
}

// NewInventory returns an empty inventory.
func NewInventory() *Inventory {
	return &Inventory{file: newShelf(""), before: newShelf(""), past: newShelf("")}
}

// Renew says that what comes is of other captures than what came.
func (v *Inventory) Renew() {
	for _, s := range [...]*shelf{&v.before, &v.file} {
		if s.pairs.added > 0 {
			v.past.take(s)
			*s = newShelf("")
		}
	}
}

// open makes the shelf of a file the one at hand.
func (v *Inventory) open(path string) {
	if v.before.path != path {
		v.past.take(&v.before)
		v.before = newShelf(path)
	}
	v.file, v.before = v.before, v.file
}

// Seen returns the indexes in h.Chain of the certificates that its server had
// not shown before. Truncated ones are left out, since nothing tells which they
// are. The slice is lent until the next call.
func (v *Inventory) Seen(h *event.Handshake) []int {
	v.fresh = v.fresh[:0]
	if o := h.Flow.Origin; o != nil && o.Path != v.file.path {
		v.open(o.Path)
	}
	server := &h.Flow.Endpoints[h.Client.Other()]
	for i := range h.Chain {
		c := &h.Chain[i]
		if c.Truncated || c.Certificate == nil || c.DER == nil {
			continue
		}
		if v.file.pairs.add(pair{c.SHA256, host(server), server.Port, h.Flow.Transport}) {
			v.file.certificates.add(c.SHA256)
			v.fresh = append(v.fresh, i)
		}
	}
	return v.fresh
}

// Stats returns the counters so far. What is in the file at hand and in one
// before is counted twice until Renew.
func (v *Inventory) Stats() (s InventoryStats) {
	for _, shelf := range [...]*shelf{&v.past, &v.before, &v.file} {
		s.Certificates += shelf.certificates.added
		s.Servers += shelf.pairs.added
		s.Forgotten += shelf.pairs.forgotten
	}
	return s
}

// generations is a set that forgets what it has not seen for long: when the
// young generation is full it becomes the old one.
type generations[K comparable] struct {
	young, old map[K]struct{}
	limit      int // of one generation
	added      uint64
	forgotten  uint64
}

// add puts k into the set and says whether it was not there.
func (g *generations[K]) add(k K) bool {
	if _, ok := g.young[k]; ok {
		return false
	}
	_, known := g.old[k]
	if g.young == nil {
		g.young = make(map[K]struct{})
	}
	if len(g.young) >= g.limit {
		for old := range g.old {
			if _, ok := g.young[old]; !ok {
				g.forgotten++
			}
		}
		g.young, g.old = make(map[K]struct{}), g.young
	}
	g.young[k] = struct{}{}
	if !known {
		g.added++
	}
	return !known
}

// take adds what is in o.
func (g *generations[K]) take(o *generations[K]) {
	for k := range o.old {
		g.add(k)
	}
	for k := range o.young {
		g.add(k)
	}
	g.forgotten += o.forgotten
}
