package flow

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// Standing is how a flow stands after a packet.
type Standing uint8

// The standings.
const (
	Unfollowed Standing = iota // the packet is of no flow, or changes nothing
	Undecided                  // the flow may still show a certificate; this begins with its SYN
	Over                       // the flow is decided or at its end
	LongOver                   // it was decided by another segment than this
)

// Follow is [Tracker.Packet] for those who want to know how the flow of p stands now,
// and whether p is the first packet of it.
func (t *Tracker) Follow(p *decode.Packet, origin *event.Origin) (s Standing, first bool) {
	before := t.table.opened
	t.slot = 0
	t.Packet(p, origin)
	if t.slot == 0 {
		return Unfollowed, false
	}
	e := t.table.at(t.slot)
	switch e.state {
	case embryonic, established, undecided, reset:
		return Undecided, t.table.opened != before
	case decided, closed, aborted:
		if e.since > 0 { // shunt counts too
			return LongOver, false
		}
		if t.Shunter == nil {
			e.since = 1
		}
	}
	return Over, t.table.opened != before
}
