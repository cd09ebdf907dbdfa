// Package judge says of a handshake what it does not say itself: whether its chain
// is trusted, whether the server holds the key, where it is, and what was seen of it
// before.
//
// [Load] makes the [Tables] that all share. Each worker has a [Judge], which answers
// what needs no other handshake. The one stage that has all handshakes in order has
// an [Order], which remembers, and answers everything.
package judge

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// Tables are what is known before the first packet. They are immutable, and safe for
// concurrent use.
type Tables struct{}

// Options say what the operator knows.
type Options struct{}

// Load loads the tables.
func Load(Options) (*Tables, error) { return &Tables{}, nil }

// Judge answers for one goroutine. It is a [judgement.Judge].
type Judge struct {
	tables *Tables
}

// NewJudge returns a judge for one goroutine.
func (t *Tables) NewJudge() *Judge { return &Judge{tables: t} }

// Locate sets in j where client and server are, if the operator has said anything
// about networks: then all records tell it, and not only those that a rule asks for.
func (g *Judge) Locate(h *event.Handshake, j *judgement.Judgement) {}

// Trust implements [judgement.Judge].
func (g *Judge) Trust(h *event.Handshake) (t *judgement.Trust, pending bool) { return nil, false }

// KeyProof implements [judgement.Judge].
func (g *Judge) KeyProof(h *event.Handshake) *judgement.KeyProof { return nil }

// Places implements [judgement.Judge].
func (g *Judge) Places(h *event.Handshake) (client, server *judgement.Place, d judgement.Direction) {
	return nil, nil, ""
}

// Transparency implements [judgement.Judge].
func (g *Judge) Transparency(h *event.Handshake) *judgement.Transparency { return nil }

// Shape implements [judgement.Judge].
func (g *Judge) Shape(h *event.Handshake) *judgement.Shape { return nil }

// Order judges with what was seen before. It belongs to the stage that has the
// handshakes in order.
type Order struct {
	*Judge
}

// NewOrder returns an order that has seen nothing.
func (t *Tables) NewOrder() *Order { return &Order{t.NewJudge()} }

// See takes the next handshake, and adds to j what follows from those before. It
// reports whether that may be news to rules.
func (o *Order) See(h *event.Handshake, j *judgement.Judgement) (news bool) { return false }

// Complete adds to j all that can be said of h, for the record of an alert.
func (o *Order) Complete(h *event.Handshake, j *judgement.Judgement) {
	if j.Trust == nil {
		j.Trust, _ = o.Trust(h)
	}
	if j.KeyProof == nil {
		j.KeyProof = o.KeyProof(h)
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
func (o *Order) Flag(h *event.Handshake, f judgement.Flagged) {}

// Next says that what comes is of another capture than what came.
func (o *Order) Next() {}
