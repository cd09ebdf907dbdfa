package frames

import "time"

// DefaultBuffer is the memory of a [Buffer] where nobody says anything, and MinBuffer
// the least that makes sense, in bytes.
const (
	DefaultBuffer = 64 << 20
	MinBuffer     = 4 << 20
)

// What a part of a buffer holds.
const (
	// sharePieces is the share of the memory for fragments where one goroutine decodes
	// them all.
	sharePieces = 8

	// averageFrame is how many bytes of frames there are for each record. Where frames
	// are shorter, the records are what there is too little of.
	averageFrame = 448

	// shareUsed is the share of the memory that is used before any flow that has ended is
	// removed, at least, and timesLive how many times as much is used as what flows of
	// use take.
	shareUsed = 8
	timesLive = 6

	// limitFrame is the share of the bytes that one frame may take.
	limitFrame = 4

	// limitFlow is the share of what is kept that one flow may take where room is made.
	// A flow that goes on undecided, as a mail session before STARTTLS does, gives up
	// its oldest frames.
	limitFlow = 4

	// limitOrigins is how many captures or interfaces the frames in a part may come
	// from. Only a stream of many captures, one after the other, has more: all frames
	// are then given up.
	limitOrigins = 256
)

// How long frames are more than what makes room first, in flow time.
const (
	// timeoutShown is for flows with a handshake, from when it is over, where nobody says
	// that all its alerts are known. Rules are asked at the next tick, after 0.1 s at
	// most, and correlations a tick later.
	timeoutShown = int64(time.Second)

	// timeoutHeld is for flows with an alert. The evidence of a handshake that is not
	// over waits some seconds for its end.
	timeoutHeld = int64(time.Minute)

	// timeoutPieces is for fragments. No receiver waits longer for the others (RFC 791,
	// section 3.2, and RFC 8200, section 4.5, say 15 and 60 s).
	timeoutPieces = int64(30 * time.Second)

	// timeoutSilent is for flows that are not decided: nothing has come of them for so
	// long that nothing will.
	timeoutSilent = int64(time.Minute)
)
