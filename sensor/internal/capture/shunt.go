package capture

import "time"

const (
	// ShuntedFlows is how many flows a capture can withhold at once. When there are
	// more, the flow that has been silent for longest is evicted. The kernel
	// allocates their memory, some 30 MiB, when the capture is opened.
	ShuntedFlows = 1 << 18

	// shuntSettle is how much later than the announcement of a flow a frame
	// must be to show that all frames from before it have been read: more than
	// a processor needs between the filter and the ring.
	shuntSettle = time.Millisecond

	// shuntRetry is how long frames of a withheld flow are taken for those that were
	// in the ring. Later ones are in an encapsulation that the program in the kernel
	// does not read, such as a tunnel, and asking again soon would not help; or
	// their flow was evicted.
	shuntRetry = 10 * time.Second
)

// ShuntKey identifies a TCP flow in the kernel. Both directions of a flow have the
// same key.
type ShuntKey struct {
	// The endpoints: first the one with the lower address, or with the lower port
	// where the addresses are equal. An IPv4 address is the low half of the second
	// word.
	Low, High         [2]uint64
	LowPort, HighPort uint16

	// Stack has ShuntIPv6 or not; with a VLAN tag ShuntOneTag and its identifier << 20;
	// with a second one also ShuntTwoTags and the inner identifier << 8.
	Stack uint32
}

// The bits of a [ShuntKey]'s stack.
const (
	ShuntIPv6    = 1 << 0
	ShuntOneTag  = 1 << 2
	ShuntTwoTags = 1 << 3
)

// ShuntState is what was asked for a flow so far; 0 at first.
type ShuntState int64

// Shunter is a live source that can withhold the frames of TCP flows: the kernel then
// neither copies them nor hands them over, but counts them (Stats.Shunted). Zeek calls
// this shunting, Suricata bypass.
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
