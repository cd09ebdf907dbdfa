package shape

import (
	"net/netip"
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
	"github.com/oddcert/oddcert/rules/judgement"
)

// Shown knows which certificates servers showed in the clear, so that the encrypted
// records of the same server can be compared with them. It takes handshakes in the
// order of records, and is not safe for concurrent use.
//
// What is remembered of a capture does not depend on what was read before it.
type Shown struct {
	limit     int // of bytes
	servers   *generations.Cache[address, *server]
	forgotten uint64 // in captures before
}

// address is where a server is.
type address struct {
	addr netip.Addr
	port uint16
}

// server is what one server has shown, the last first.
type server struct{ leaves []leafShape }

// leafShape is a leaf, and the chain that came with it.
type leafShape struct {
	certificateShape
	chain int   // length of the entries of all certificates, without extensions; 0 where not all were seen whole
	last  int64 // when it was shown last, nanoseconds since the Unix epoch, UTC
}

// What an entry takes, in bytes.
const (
	serverCost = 160
	leafCost   = 80
)

// NewShown returns a Shown that knows nothing, and may remember a share, above 0 and at
// most 1, of the most that is remembered.
func NewShown(share float64) *Shown {
	limit := int(maxShown * share)
	return &Shown{limit: limit, servers: generations.New[address, *server](limit)}
}

// Next says that what comes is of another capture than what came.
func (s *Shown) Next() {
	if s.servers.Len() > 0 {
		s.forgotten += s.servers.Forgotten()
		s.servers = generations.New[address, *server](s.limit)
	}
}

// Forgotten returns how many servers were forgotten for want of room.
func (s *Shown) Forgotten() uint64 { return s.forgotten + s.servers.Forgotten() }

// addressOf returns where the server of h is; false over EAPOL, which has no addresses.
func addressOf(h *event.Handshake) (address, bool) {
	e := &h.Flow.Endpoints[h.Client.Other()]
	return address{e.Addr, e.Port}, e.Addr.IsValid()
}

// See remembers the certificates that h shows. It allocates nothing for a leaf that the
// server has shown before.
func (s *Shown) See(h *event.Handshake) {
	if len(h.Chain) == 0 || h.Chain[0].Truncated {
		return
	}
	at, ok := addressOf(h)
	if !ok {
		return
	}
	leaf := h.Chain[0].Certificate
	chain := 0
	for i := range h.Chain {
		if c := &h.Chain[i]; c.Truncated {
			chain = 0
			break
		} else {
			chain += entry + len(c.DER)
		}
	}
	x, known := s.servers.Get(at)
	if known {
		for i := range x.leaves {
			l := &x.leaves[i]
			if l.sha256 != leaf.SHA256 {
				continue
			}
			l.last = max(l.last, h.End.Time)
			if chain > 0 {
				l.chain = chain
			}
			if i > 0 {
				last := *l
				copy(x.leaves[1:i+1], x.leaves[:i])
				x.leaves[0] = last
			}
			return
		}
	}
	k, ok := keyOf(leaf)
	if !ok {
		return // it signs nothing in TLS 1.3
	}
	if !known {
		x = new(server)
	}
	if len(x.leaves) == maxLeaves {
		x.leaves = x.leaves[:maxLeaves-1]
	}
	x.leaves = slices.Insert(x.leaves, 0, leafShape{certificateShape{leaf.SHA256, len(leaf.DER), k}, chain, h.End.Time})
	s.servers.Put(at, x, serverCost+cap(x.leaves)*leafCost)
}

// Knows reports whether the server of h has shown a certificate.
func (s *Shown) Knows(h *event.Handshake) bool {
	at, ok := addressOf(h)
	if !ok {
		return false
	}
	_, ok = s.servers.Get(at)
	return ok
}

// Fits returns the SHA-256 of the leaves that x, which is of h, fits: the server that h
// is with has shown them to somebody within the last days, and would send records of
// exactly these lengths if it sent one of them alone, or with the chain that came with
// it then, without extensions. It allocates nothing where none fits.
func (s *Shown) Fits(x *judgement.Shape, h *event.Handshake) (leaves [][32]byte) {
	if x == nil {
		return nil
	}
	at, ok := addressOf(h)
	if !ok {
		return nil
	}
	v, ok := s.servers.Get(at)
	if !ok {
		return nil
	}
	for i := range v.leaves {
		l := &v.leaves[i]
		if h.End.Time-l.last > shownFor {
			continue
		}
		if fits(x, h, certificate+entry+l.bytes, l.key) || l.chain > 0 && fits(x, h, certificate+l.chain, l.key) {
			leaves = append(leaves, l.sha256)
		}
	}
	return leaves
}
