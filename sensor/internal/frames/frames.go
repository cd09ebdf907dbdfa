// Package frames finds the frames that made a flow: those of its packets, of the
// tunnels that carried them, and all fragments that they came in.
package frames

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// Frame is one frame of a flow. It owns its bytes.
type Frame struct {
	Origin   *event.Origin
	Number   uint64 // as capture.Frame has it
	Offset   int64  // as capture.Batch.Offset has it; -1 where it is not known
	Time     int64  // nanoseconds since the Unix epoch, UTC
	Length   uint32 // bytes on the wire
	LinkType linktype.Type
	Data     []byte
}

// Flow names the frames that are wanted: those of one flow, in both directions, from
// one moment to another. What endpoints ignore is among them: bare acknowledgements,
// retransmissions, segments with bad checksums. Errors of ICMP that quote the flow are
// not. VLAN tags do not tell flows apart here.
type Flow struct {
	Transport event.Transport
	Endpoints [2]event.Endpoint // in any order; the ports of EAPOL do not count
	Origin    *event.Origin     // where From is; nil for any
	// From and To are the first and the last frame, both included. Without From, all
	// flows are wanted that the endpoints have. With From and without To, it is the
	// flow that goes on at From, up to the next one: a SYN with another number begins
	// that where the flow was closed, or was silent for a minute, and over other
	// transports any frame after a silence of 5 minutes.
	//
	// Where Frame is 0, the time alone counts, and of From also what came within half a
	// minute before and no other flow divides from it. Else the frame with this number
	// and this time is meant; in a capture that does not have it, all within 2 s are
	// included.
	From, To event.Moment
}

// Of returns the flow of h, from its first packet to the last of the handshake. Where
// endpoints ignore some of its packets it goes on to the end: what shows that may come
// after the handshake.
func Of(h *event.Handshake) Flow {
	f := WholeOf(h)
	if h.Forged == 0 {
		f.To = h.End
	}
	return f
}

// WholeOf returns the flow of h, from its first packet to its last.
func WholeOf(h *event.Handshake) Flow {
	return Flow{
		Transport: h.Flow.Transport,
		Endpoints: h.Flow.Endpoints,
		Origin:    h.Flow.Origin,
		From:      event.Moment{Time: h.Flow.Start},
	}
}
