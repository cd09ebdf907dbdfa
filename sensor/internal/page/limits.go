package page

import "time"

// Requests. Whoever can reach the page may be hostile, and the sensor has other work.
const (
	// MaxStreams is how many streams of events are open at a time, for each a goroutine
	// and a connection. Others get 503, and are to come again.
	MaxStreams = 100

	// maxAnswers is how many pages are made at a time. Others wait turnLimit for their
	// turn, and get 503 then.
	maxAnswers = 2
	turnLimit  = 4 * time.Second

	// maxDownloads is how many evidence packs are sent at a time, maxPack how much of one
	// is sent, in bytes, and maxPackFiles in how many files.
	maxDownloads = 2
	maxPack      = 512 << 20
	maxPackFiles = 10_000

	// sendLimit is how long a reader may take nothing of a stream or of a pack. One who
	// takes a little now and then is bounded by the buffers of the kernel.
	sendLimit = 10 * time.Second

	// packLimit is how long a pack may take to be sent.
	packLimit = 15 * time.Minute

	// complainInterval is the time between two lines of the log about tokens that are
	// others, in seconds.
	complainInterval = 60

	// maxForm bounds the form in which the token is sent, in bytes.
	maxForm = 2 << 10

	// maxText bounds what may be searched for, in bytes.
	maxText = 256
)

// Events.
const (
	// maxEvents is how many events are kept for streams that are slow, or come back. A
	// stream that has missed some is told so.
	maxEvents = 128

	// streamInterval is the time between two writes to a stream, so that a flood of alerts
	// costs each stream no more than maxEvents events in this time.
	streamInterval = 500 * time.Millisecond

	// beatInterval is the time after which a stream with nothing to say says so: a reader
	// that is gone is noticed by that.
	beatInterval = 15 * time.Second

	// refreshLimit is how old a page may be that many ask for.
	refreshLimit = 500 * time.Millisecond
)

// What is kept.
const (
	// maxAlerts is how many alerts are kept, and maxAlertBytes how much their records and
	// texts may take. The oldest are forgotten first.
	maxAlerts     = 1000
	maxAlertBytes = 16 << 20

	// sampleInterval is the time between two points of a chart, maxSamples how many
	// there are: an hour.
	sampleInterval = 10 * time.Second
	maxSamples     = 360

	// maxBars is how many bars a chart has.
	maxBars = 60
)

// Questions to the inventory, which may have millions of entries.
const (
	// maxRows is how many rows a page has.
	maxRows = 100

	// maxCards is how many alerts and certificates the first page has.
	maxCards = 5

	// maxBriefReasons is how many reasons of an alert the first page has, and
	// maxBriefReason how long each of them and the sentence above is, in bytes.
	maxBriefReasons = 8
	maxBriefReason  = 512

	// maxTable is how much markup the rows of a table may have, in bytes.
	maxTable = 150 << 10

	// maxBarsOfList is how many values of a server a chart has.
	maxBarsOfList = 12

	// maxRecord bounds a record that is shown, in bytes. A longer one is in the outputs.
	maxRecord = 48 << 10

	// maxNewest is how many of the newest certificates are listed by when they were first
	// seen. The others are listed by their hashes.
	maxNewest = 1000

	// searchLimit is how long one search goes on. Then what was found is shown, and a
	// link goes on from there.
	searchLimit = 2 * time.Second

	// surveyLimit is how long a look at the whole inventory may take, and surveyShare the
	// share of the time that such looks may take in all: 1 of so many parts.
	surveyLimit    = 20 * time.Second
	surveyShare    = 100
	surveyInterval = 2 * time.Second

	// maxRelated is how many servers of a certificate, certificates of a server and
	// clients that met it are listed.
	maxRelated = 100
)
