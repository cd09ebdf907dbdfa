package output

import "github.com/oddcert/oddcert/parsers"

// Inventory knows which certificates were seen on which server. It belongs to
// the one stage that has the handshakes in order, and is not safe for
// concurrent use.
type Inventory struct {
	pairs        generations[pair]
	certificates generations[[32]byte]
	fresh        []int
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
	transport parsers.Transport
}

// NewInventory returns an empty inventory.
func NewInventory() *Inventory {
	return &Inventory{
		pairs:        generations[pair]{limit: maxInventory},
		certificates: generations[[32]byte]{limit: maxInventory},
	}
}

// Seen returns the indexes in h.Chain of the certificates that its server had
// not shown before. Truncated ones are left out, since nothing tells which they
// are. The slice is lent until the next call.
func (v *Inventory) Seen(h *parsers.Handshake) []int {
	v.fresh = v.fresh[:0]
	server := &h.Flow.Endpoints[h.Client.Other()]
	for i := range h.Chain {
		c := &h.Chain[i]
		if c.Truncated || c.Certificate == nil || c.DER == nil {
			continue
		}
		if v.pairs.add(pair{c.SHA256, host(server), server.Port, h.Flow.Transport}) {
			v.certificates.add(c.SHA256)
			v.fresh = append(v.fresh, i)
		}
	}
	return v.fresh
}

// Stats returns the counters so far.
func (v *Inventory) Stats() InventoryStats {
	return InventoryStats{
		Certificates: v.certificates.added,
		Servers:      v.pairs.added,
		Forgotten:    v.pairs.forgotten,
	}
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
