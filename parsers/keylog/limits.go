package keylog

import "time"

const (
	// maxHandshakes is how many handshakes have their secrets kept, at some 200
	// bytes each: against key logs that grow for ever.
	maxHandshakes = 1 << 18

	// maxLine is the longest line that is read, in bytes: against a file that is
	// no key log, and has none. The longest in use hold a configuration of
	// Encrypted Client Hello.
	maxLine = 16 << 10

	// pollInterval is the time between two looks at a file that is followed.
	pollInterval = 200 * time.Millisecond
)
