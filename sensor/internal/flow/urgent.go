package flow

import (
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// urgent notes the urgent byte of a segment that the endpoint takes, whose payload begins
// at seq. Hosts take that byte out of the stream unless the program asks for it inline
// (RFC 6093, section 3), and nobody else sees which: from the first one on the flow is
// parsed both ways.
func (t *Tracker) urgent(i uint32, d event.Direction, p *decode.Packet, seq uint32) {
	off, ok := p.Urgent()
	if !ok {
		return
	}
	e := t.table.at(i)
	r := t.reassemblies[e.reassembly]
	at := seq + off
	s := &r.streams[d]
	if s.started && distance(s.next, at) < 0 || slices.Contains(s.urgent, at) {
		return // it has gone by
	}
	if len(s.urgent) == limitUrgent {
		t.stats.Untried++
		return
	}
	for a := r; a != nil; a = a.alternative {
		if s := &a.streams[d]; len(s.urgent) < limitUrgent {
			s.urgent = append(s.urgent, at)
		}
	}
	if a := r.alternative; a == nil || a.done || !a.outOfBand {
		t.reread(i, d, &segment{seq: at}, urgent)
	}
}

// withoutUrgent returns data, whose first byte has the number seq, without urgent bytes.
// Where there is one it is a copy.
func (s *stream) withoutUrgent(seq uint32, data []byte) []byte {
	within := func(at uint32) bool { return distance(seq, at) >= 0 && distance(seq, at) < len(data) }
	if !slices.ContainsFunc(s.urgent, within) {
		return data
	}
	kept := make([]byte, 0, len(data)-1)
	for k, b := range data {
		if !slices.Contains(s.urgent, seq+uint32(k)) {
			kept = append(kept, b)
		}
	}
	return kept
}
