package memory

const (
	// maxSpare is what a pool keeps of buffers that are free, in bytes, to use
	// again: a flood of unfinished messages must not stay in memory once it is over.
	maxSpare = 4 << 20

	// longestBits is the logarithm of the longest buffer, in bytes: a handshake
	// message of the greatest length that is read, and what lies around it.
	longestBits = 21
)
