// Package judge says of a handshake what it does not say itself: whether its chain
// is trusted, whether the server holds the key, where it is, and what was seen of it
// before.
//
// [Load] makes the [Tables] that all share. Each worker has a [Judge], which answers
// what needs no other handshake. The one stage that has all handshakes in order has
// an [Order], which remembers, and answers everything.
package judge

import (
	"errors"
	"io/fs"
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/judge/memory"
	"github.com/oddcert/oddcert/sensor/internal/judge/network"
	"github.com/oddcert/oddcert/sensor/internal/judge/possession"
	"github.com/oddcert/oddcert/sensor/internal/judge/shape"
	"github.com/oddcert/oddcert/sensor/internal/judge/transparency"
	"github.com/oddcert/oddcert/sensor/internal/judge/trust"
)

// Tables are what is known before the first packet. They are immutable, and safe for
// concurrent use.
type Tables struct {
	stores   *trust.Stores
	networks *network.Tables
	watched  *shape.Watched
}

// Options say what there is to know.
type Options struct {
	Packs     fs.FS    // files of rule packs: PACK/{roots,intermediates,networks}/… and PACK/watched.txt
	Roots     []string // the operator's authorities: files of PEM or DER, and folders of them
	Networks  []string // the operator's lists of networks: files, and folders of *.txt
	Databases []string // in MaxMind's format
}

// Load loads the tables. When something is wrong with the files, the error is all
// that is wrong.
func Load(o Options) (*Tables, error) {
	stores, wrongStores := trust.Load(o.Packs, o.Roots)
	networks, wrongNetworks := network.Load(network.Options{Packs: o.Packs, Lists: o.Networks, Databases: o.Databases})
	watched, wrongWatched := shape.Load(o.Packs)
	if err := errors.Join(wrongStores, wrongNetworks, wrongWatched); err != nil {
		return nil, err
	}
	return &Tables{stores, networks, watched}, nil
}

// Size returns about how many bytes of memory lists of networks and databases take.
func (t *Tables) Size() int64 { return t.networks.Size() }

// Prepare does at once what else is done when the first chain is judged, and takes
// some time.
func (t *Tables) Prepare() { t.stores.Prepare() }

// Judge answers for one goroutine. It is a [judgement.Judge].
type Judge struct {
	tables   *Tables
	verifier *trust.Verifier
	prover   *possession.Prover
	lookup   *network.Lookup
	logs     *transparency.Judge
	seen     *trust.Seen // nil for a worker, who has no order
}

// NewJudge returns a judge for one goroutine, which remembers certificates and answers
// in about that many bytes.
func (t *Tables) NewJudge(cache int) *Judge {
	return &Judge{
		tables: t, verifier: t.stores.NewVerifier(cache), prover: possession.New(),
		lookup: t.networks.NewLookup(), logs: transparency.New(),
	}
}

// Use makes g judge by other tables from now on. What was seen before, and what does
// not depend on tables, is still known.
func (g *Judge) Use(t *Tables) {
	g.tables, g.lookup = t, t.networks.NewLookup()
	g.verifier.Use(t.stores)
}

// Locate sets in j where client and server are, if the operator has said anything
// about networks: then all records tell it, and not only those that a rule asks for.
func (g *Judge) Locate(h *event.Handshake, j *judgement.Judgement) {
	if g.tables.networks.Configured() {
		j.Client, j.Server, j.Direction = g.lookup.Places(h)
	}
}

// Trust implements [judgement.Judge].
func (g *Judge) Trust(h *event.Handshake) (t *judgement.Trust, pending bool) {
	return g.verifier.Verify(h, g.seen)
}

// KeyProof implements [judgement.Judge]. To verify a signature is left to the order:
// it takes as long as all else that a worker does for some handshakes.
func (g *Judge) KeyProof(h *event.Handshake) (p *judgement.KeyProof, pending bool) {
	if h.Proof.Missing == event.ProofSeen && len(h.Chain) > 0 {
		return nil, true
	}
	return g.prover.Prove(h), false
}

// Places implements [judgement.Judge].
func (g *Judge) Places(h *event.Handshake) (client, server *judgement.Place, d judgement.Direction) {
	return g.lookup.Places(h)
}

// Transparency implements [judgement.Judge].
func (g *Judge) Transparency(h *event.Handshake) *judgement.Transparency {
	return g.logs.Judge(h, nil)
}

// Shape implements [judgement.Judge].
func (g *Judge) Shape(h *event.Handshake) *judgement.Shape {
	s := shape.Of(h)
	if s != nil {
		s.Fits = g.tables.watched.Fits(s, h, s.Fits)
	}
	return s
}

// Order judges with what was seen before. It belongs to the stage that has the
// handshakes in order: for each it calls See, asks what it wants to know, and calls
// Learn.
type Order struct {
	*Judge
	shown  *shape.Shown
	memory *memory.Memory
	due    bool // the handshake at hand is one to learn from again
	keeps  bool // see Keep
}

// NewOrder returns an order that has seen nothing. It remembers certificates and
// answers as a [Judge] does, and of what was seen before a share, above 0 and at most
// 1, of the most: see the limits of the packages.
func (t *Tables) NewOrder(cache int, share float64) *Order {
	o := &Order{Judge: t.NewJudge(cache), shown: shape.NewShown(share), memory: memory.New(share)}
	o.seen = trust.NewSeen(share)
	return o
}

// See takes the next handshake, and adds to j what follows from those before. It
// reports whether that may be news to rules. What j refers to then is lent until the
// next call.
func (o *Order) See(h *event.Handshake, j *judgement.Judgement) (news bool) {
	j.Memory = o.memory.See(h)
	news = j.Memory.Notable()
	if o.due = o.memory.Due(h); o.due {
		if j.Trust == nil {
			j.Trust, _ = o.Trust(h)
		}
		if j.KeyProof == nil {
			j.KeyProof, _ = o.KeyProof(h)
		}
		if j.Transparency == nil {
			j.Transparency = o.Transparency(h)
		}
		news = true
	}
	if h.Flight.Records > 0 && h.Outcome == event.Encrypted && o.fits(h, j) {
		news = true
	}
	return news
}

// fits adds to the shape of h the certificates that its server has shown in the clear
// and that h is consistent with, and reports whether there are any.
func (o *Order) fits(h *event.Handshake, j *judgement.Judgement) bool {
	if !o.shown.Knows(h) {
		return false
	}
	s := j.Shape
	if s == nil {
		s = o.Shape(h)
	}
	if s == nil {
		return false
	}
	fits := o.shown.Fits(s, h)
	if len(fits) == 0 {
		return false
	}
	all := slices.Clone(s.Fits)
	for _, sum := range fits {
		if !slices.Contains(all, sum) {
			all = append(all, sum)
		}
	}
	more := *s
	more.Fits = all
	j.Shape = &more
	return true
}

// KeyProof implements [judgement.Judge], and verifies what is to verify.
func (o *Order) KeyProof(h *event.Handshake) (p *judgement.KeyProof, pending bool) {
	return o.prover.Prove(h), false
}

// Complete adds to j all that can be said of h, for the record of an alert.
func (o *Order) Complete(h *event.Handshake, j *judgement.Judgement) {
	if j.Trust == nil {
		j.Trust, _ = o.Trust(h)
	}
	if j.KeyProof == nil {
		j.KeyProof, _ = o.KeyProof(h)
	}
	if j.Client == nil && j.Server == nil {
		j.Client, j.Server, j.Direction = o.Places(h)
	}
	if j.Transparency == nil {
		j.Transparency = o.Transparency(h)
	}
	if j.Shape == nil {
		j.Shape = o.Shape(h)
	}
}

// Flag remembers that an alert was raised for the server of h.
func (o *Order) Flag(h *event.Handshake, f judgement.Flagged) { o.memory.Flag(h, f) }

// Keep makes o keep what was seen from one capture to the next, and returns its memory,
// for what was seen before the first.
func (o *Order) Keep() *memory.Memory {
	o.keeps = true
	return o.memory
}

// Contact takes a flow to a port whose number says what runs there.
func (o *Order) Contact(c event.Contact) { o.memory.Contact(c) }

// Stats are what the order remembers, and what it forgot for want of room.
type Stats struct {
	memory.Stats
	Intermediates uint64 `json:"intermediates_forgotten"` // certificates of authorities
	Shown         uint64 `json:"servers_forgotten"`       // with what they showed in the clear
}

// Stats returns the counters so far.
func (o *Order) Stats() Stats {
	return Stats{o.memory.Stats(), o.seen.Forgotten(), o.shown.Forgotten()}
}

// Learn takes for later what h, which See took last, shows: the intermediates of its
// chain, and what its server looks like in the clear. Unless that is news, it does so
// once a day.
func (o *Order) Learn(h *event.Handshake, news bool) {
	if len(h.Chain) > 0 && (news || o.due) {
		o.seen.Add(h)
		o.shown.See(h)
	}
}

// Next says that what comes is of another capture than what came.
func (o *Order) Next() {
	if o.keeps {
		return
	}
	o.seen.Next()
	o.shown.Next()
	o.memory.Next()
}
