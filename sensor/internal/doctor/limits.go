package doctor

import "time"

const (
	// maxFlows bounds the flows of one listener whose directions are counted; a flow
	// takes some 64 bytes. Those that come when it is full are not judged.
	maxFlows = 1 << 17

	// recent is how many packets a listener compares the next one with.
	recent = 1 << 15

	// doubledWithin is how soon the copy of a frame comes, where a frame is mirrored
	// twice. A sender that sends again waits longer (RFC 6298, section 2.4).
	doubledWithin = 20 * time.Millisecond

	// maxKinds bounds how many VLANs, and how many kinds of tunnels, are told apart.
	maxKinds = 256

	// Patience bounds the question to one output.
	Patience = 15 * time.Second
)
