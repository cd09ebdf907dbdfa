package query

const (
	// MaxSorted is how many certificates are sorted where nobody limits them. What comes
	// after them in the order is counted.
	MaxSorted = 100_000

	// MaxNodes and MaxEdges bound what hangs together: one certificate of a content
	// delivery network leads to all others.
	MaxNodes = 10_000
	MaxEdges = 50_000

	// MaxEvents bounds a time line. The first and the last events are kept.
	MaxEvents = 200

	// maxSightings is how many servers of a certificate are told with it in a row or a
	// document. All of them are counted.
	maxSightings = 64

	// MinPrefix is how many digits of a hash have to be given.
	MinPrefix = 8

	// maxCandidates is how many certificates an ambiguous prefix names.
	maxCandidates = 5
)
