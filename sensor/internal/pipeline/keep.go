package pipeline

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/frames"
)

// keeper is what a worker has where the frames of flows are kept.
type keeper struct {
	frames *frames.Part // that the worker fills
	pieces *frames.Part // with the fragments: filled by whoever decodes them
	fates  [decodeAhead]frames.Fate
}

// keepers gives each of n workers what it needs to keep frames. Where the fragments are
// decoded by a dispatcher it returns the part that the dispatcher fills.
func (p *Pipeline) keepers(workers []*worker, dispatched bool) (pieces *frames.Part) {
	if p.config.Frames == nil {
		return nil
	}
	parts, pieces := p.config.Frames.Parts(len(workers), dispatched)
	for i, w := range workers {
		w.keeper = &keeper{frames: parts[i], pieces: pieces}
		if !dispatched {
			w.keeper.pieces = parts[i]
		}
	}
	return pieces
}

// end ends the interval and returns it, for the stage that orders.
func (w *worker) end() *interval {
	if w.keeper != nil {
		w.now.kept, w.now.number = w.keeper.frames, w.keeper.frames.End()
	}
	return w.now
}

// keep is frame where frames are kept.
func (w *worker) keep(f *capture.Frame, origin *event.Origin) {
	noted := 0
	p := &w.packets[w.waiting]
	for c, more := w.decoder.Decode(f, p), true; more; more = w.decoder.Next(p) {
		if list := w.decoder.Pieces(); len(list) > noted {
			w.keeper.pieces.Pieces(f, origin, list[noted:])
			noted = len(list)
		}
		if ofUse(&w.decoder, p, c, w.wants) {
			p = w.take(origin)
		}
	}
}

// keep gives the packets of a frame to the workers, where frames are kept.
func (d *dispatcher) keep(f *capture.Frame, origin *event.Origin) {
	noted := 0
	p := &d.packet
	for c, more := d.decoder.Decode(f, p), true; more; more = d.decoder.Next(p) {
		if list := d.decoder.Pieces(); len(list) > noted {
			d.pieces.Pieces(f, origin, list[noted:])
			noted = len(list)
		}
		if ofUse(&d.decoder, p, c, d.wants) {
			d.give(p)
		}
	}
}

// ofUse reports whether the packet p, or the part of one, is tracked or sets up an
// association of SCTP, whose frames are those of a flow.
func ofUse(d *decode.Decoder, p *decode.Packet, c decode.Class, wants func(*decode.Packet) bool) bool {
	if c > decode.Datagram {
		return c != decode.NotIP && d.OfAssociation(p)
	}
	return wants(p)
}

// follow tracks packets, and keeps the frames of those whose flows are not decided.
func (w *worker) follow(packets []decode.Packet, origin *event.Origin) {
	k := w.keeper
	for i := range packets {
		p := &packets[i]
		k.fates[i] = frames.Unfollowed
		if !w.wants(p) {
			continue
		}
		before := len(w.now.items)
		standing, first := w.trackers[p.Shard&w.shards].Follow(p, origin)
		fate := [...]frames.Fate{flow.Unfollowed: frames.Unfollowed, flow.Undecided: frames.Undecided, flow.Over: frames.Over, flow.LongOver: frames.Unwanted}[standing]
		if fate == frames.Over && len(w.now.items) > before {
			fate = frames.Shown
		}
		if first {
			fate |= frames.First
		}
		k.fates[i] = fate
	}
	k.frames.Take(packets, k.fates[:len(packets)], origin, k.pieces)
}
