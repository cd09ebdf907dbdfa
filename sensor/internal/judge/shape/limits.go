package shape

import "time"

const (
	// maxSums is how many lengths of a whole flight may be said to fit one certificate:
	// as many as the signature of one elliptic curve has lengths. Where a hello leaves
	// the server more choices, each of another length, a fit says too little.
	maxSums = signatures

	// maxWatched is how many certificates are looked for, and maxWatchedFile how long a
	// file of them may be, in bytes.
	maxWatched     = 1 << 12
	maxWatchedFile = 1 << 20

	// maxShown bounds what is remembered of servers, over both generations, in bytes:
	// an address scan must not fill the memory. What is forgotten is counted.
	maxShown = 8 << 20

	// maxLeaves is how many certificates of one server are remembered: those that it
	// showed last. Servers of many names have more.
	maxLeaves = 4

	// shownFor is how long a server's certificate is remembered after it was shown, in
	// nanoseconds of packet time. Certificates are renewed.
	shownFor = int64(7 * 24 * time.Hour)
)
