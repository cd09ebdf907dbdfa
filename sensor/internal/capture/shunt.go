package capture

import "time"

const (
	// ShuntedFlows is how many flows a capture can withhold at once: the one
	// not heard of for longest gives way to the next. The kernel allocates
	// their memory, some 30 MiB, when the capture is opened.
	ShuntedFlows = 1 << 18

	// shuntSettle is how much later than the announcement of a flow a frame
	// must be to show that all frames from before it have been read: more than
	// a processor needs between the filter and the ring.
	shuntSettle = time.Millisecond

	// shuntRetry is how long frames of a withheld flow are taken for those that
	// were in the ring. Later ones are in a wrapping that the kernel's program
	// does not read, such as a tunnel, and asking again soon would not help; or
	// their flow gave way to another.
	shuntRetry = 10 * time.Second
)

// ShuntKey is what the kernel tells TCP flows apart by. Both directions of a
// flow have the same.
type ShuntKey struct {
	// The ends, the one with the lower address first, or with the lower port
	// where both have the same. An IPv4 address is the low half of the second
	// word.
	Low, High         [2]uint64
	LowPort, HighPort uint16

	// Stack is ShuntIPv6 or nothing, and of one VLAN tag ShuntOneTag and the
	// identifier << 20, of two also ShuntTwoTags and the inner identifier << 8.
	Stack uint32
}

// The bits of a [ShuntKey]'s stack.
const (
	ShuntIPv6    = 1 << 0
	ShuntOneTag  = 1 << 2
	ShuntTwoTags = 1 << 3
)

// ShuntState is what was asked for a flow so far; at first 0.
type ShuntState int64

// Shunter is a live source that can withhold the frames of TCP flows, which the
// kernel then neither copies nor hands over, but counts (Stats.Shunted).
//
// Only frames that are known to belong to the flow are withheld: TCP without
// SYN, FIN and RST over Ethernet with at most two VLAN tags or over no link
// layer, and IPv4 without fragments and options or IPv6 without extension
// headers. SYN, FIN and RST always come, and end the withholding, so that
// another connection on the same addresses and ports is seen from its first
// frame. What is given up is what the flow itself might still show: a second
// handshake on a connection that was decided, which a renegotiation of TLS 1.2
// encrypts anyway. Where more than ShuntedFlows go on at once, frames of some
// come again, and their flows may be shunted again.
type Shunter interface {
	// Shunt asks for the frames of a flow to be withheld. The caller has just
	// taken a frame of it that was captured at time seen, in nanoseconds since
	// the Unix epoch, and keeps the state that the last call for this flow has
	// returned. It must ask again with later frames, for a flow is withheld in
	// two steps: it is announced to the kernel, and it is withheld when a frame
	// comes that was captured later, if no SYN, FIN or RST came in between.
	// Such a SYN may be in the ring still, and what follows it must come.
	//
	// Shunt must be called by the goroutine that calls Next, while a batch is
	// lent.
	Shunt(flow ShuntKey, seen int64, state ShuntState) ShuntState
}
