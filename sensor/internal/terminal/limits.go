package terminal

import "time"

// The limits of what is shown, each with its reason.
const (
	// maxValue bounds each value that comes from the wire, in bytes: a server name
	// can have 65,535, and would push the alerts before it off the screen.
	maxValue = 1024

	// maxLineValue is maxValue for the values of an alert in one line.
	maxLineValue = 256

	// maxRepeats bounds the alerts that are known to have been shown: a scan
	// through a network has one for each server. The one that was met longest ago is
	// forgotten, its count is shown, and it would be shown again.
	maxRepeats = 1024

	// maxRepeatClients bounds the clients that are told apart for each of them.
	maxRepeatClients = 64

	// repeatSpan is how long, in packet time, an alert must not have come for it to be
	// shown again: what is a day old is not on the screen any more.
	repeatSpan = 24 * time.Hour

	// repeatDelay is how long the count of repeated alerts waits in a live capture.
	repeatDelay = time.Minute

	// maxMeasured is how many rows of a table say how wide its columns are. They are
	// held until then.
	maxMeasured = 200

	// minColumn is the narrowest that a column of a table is made, where it does not say
	// how narrow it may be.
	minColumn = 10

	// maxBuffered is how many bytes of a table are held before they are written.
	maxBuffered = 64 << 10

	// closePatience is how long the end of a run waits for somebody to read the
	// last texts.
	closePatience = time.Second

	// progressDelay is the length of a run from which on progress is shown, and
	// progressInterval the time between two looks at what has been read.
	progressDelay    = time.Second
	progressInterval = 200 * time.Millisecond
)
