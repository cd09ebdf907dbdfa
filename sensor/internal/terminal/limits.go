package terminal

import "time"

// The limits of what is shown, each with its reason.
const (
	// maxValue bounds each value that comes from the wire, in bytes: a server name
	// can have 65,535, and would push the alerts before it off the screen.
	maxValue = 1024

	// maxCarried bounds the kinds of frames without a packet that the summary
	// names: somebody can send frames of 65,536 EtherTypes.
	maxCarried = 12

	// maxWeird bounds the kinds of malformed frames that the summary names.
	maxWeird = 4

	// closePatience is how long the end of a run waits for somebody to read the
	// last texts.
	closePatience = time.Second

	// progressDelay is the length of a run from which on progress is shown, and
	// progressInterval the time between two looks at what has been read.
	progressDelay    = time.Second
	progressInterval = 200 * time.Millisecond
)
