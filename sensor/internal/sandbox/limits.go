package sandbox

import "time"

const (
	// socketLimit is how long [Opener.Socket] waits. An opener that does not answer must
	// not hold up a capture.
	socketLimit = 5 * time.Second

	// closeLimit is how long [Opener.Close] waits for the end of the process.
	closeLimit = 5 * time.Second

	// openerBurst sockets can be had at once: as many as a capture can have rings
	// (64 interfaces, 256 workers). openerRate more come back each second. A sensor in
	// the hands of a stranger cannot have the kernel make sockets without end.
	openerBurst = 64 * 256
	openerRate  = 256

	// openerFiles is RLIMIT_NOFILE of the opener: its four, those of the Go runtime, and
	// a socket.
	openerFiles = 16

	// maxRequest is more than the bytes of a request or an answer. A longer one is none.
	maxRequest = 16
)
