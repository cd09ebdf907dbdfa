package frames

import "time"

// What a search holds of fragments whose datagram is not whole yet, and of the frames
// after them, which wait so that the order stays. Stops a flood of fragments that
// nothing ever completes. The oldest datagrams are given up, and their fragments
// counted in Stats.GivenUp.
const (
	limitWaiting   = 64 << 20 // bytes of frames, with what they cost beside their data
	limitDatagrams = 1 << 13  // of fragments, that are remembered
	waitingCost    = 192      // of a frame beside its data
)

// Times in flow time.
const (
	// Fragments wait no longer than package decode puts them together. A repetition of
	// one that comes later is of another datagram.
	timeoutDatagram = int64(30 * time.Second)
	// Frames so long before From may be of the flow: what does not make the sensor look,
	// such as an acknowledgement, or a SYN that it took for another flow's.
	earlier = timeoutDatagram
	// A silence after which a SYN with another number, or any datagram, begins another
	// flow, though nobody has seen the end of the one before.
	silenceTCP   = int64(time.Minute)
	silenceOther = int64(5 * time.Minute)
)

// disorder is how far the times of frames may be out of their order. It is the same
// that package event takes for a clock that has not jumped.
const disorder = int64(2 * time.Second)
