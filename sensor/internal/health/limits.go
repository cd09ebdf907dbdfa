package health

import "time"

const (
	// aliveAfter is how old what was seen last may be. The pipeline tells each second.
	aliveAfter = 15 * time.Second

	// startLimit is how long a sensor may take until it sees something for the first
	// time.
	startLimit = time.Minute

	// stallLimit is how long a worker may be busy with one batch of frames. It is done
	// with one in milliseconds, and waits for the next 0.1 s at most.
	stallLimit = 30 * time.Second

	// rateInterval is the time over which packets a second are counted for [Monitor.Status].
	rateInterval = 5 * time.Second

	// maxStatus bounds the line of [Monitor.Status], and maxReason each reason in it,
	// in bytes: a part of them comes from servers.
	maxStatus = 480
	maxReason = 160

	// maxNames bounds the series of a metric that has a label whose values come from
	// the network or from rules, as each series costs memory in Prometheus. What comes
	// after the first maxNames values is counted under otherNames.
	maxNames = 1000

	// maxLabel bounds the value of a label, in bytes.
	maxLabel = 200
)

// The server.
const (
	// maxConnections is how many clients are served at a time, beside the streams of the
	// page. Others wait until one of these is served, or its time is over.
	maxConnections = 64

	// maxScrapes is how many answers with metrics are made at a time, so that whoever
	// asks takes no more than so many cores. Others wait for their turn.
	maxScrapes = 1

	// scrapeLimit is how long an answer with metrics may take to be made, with the
	// waiting. After that it is 503.
	scrapeLimit = 5 * time.Second

	// readLimit is how long a request may take to arrive, writeLimit how long request
	// and answer together may take, and idleLimit how long a connection may wait for
	// its next request.
	readLimit  = 5 * time.Second
	writeLimit = 15 * time.Second
	idleLimit  = 30 * time.Second

	// maxHeader bounds a request without its body, which is refused. The server of the
	// standard library takes 4 KiB more.
	maxHeader = 8 << 10

	// minToken and maxToken bound a token, in bytes. Nobody guesses one of 24 characters
	// of Base64, at any number of requests.
	minToken = 24
	maxToken = 512

	// sessionLimit is how long who has shown the token in a browser need not again: a
	// working day.
	sessionLimit = 12 * time.Hour
)
