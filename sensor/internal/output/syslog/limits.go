package syslog

import "time"

const (
	// DefaultMaxMessage is what rsyslog takes unless it is told otherwise
	// (maxMessageSize): it cuts off the rest. Others should take a little more, 8192
	// (RFC 5425 section 4.3.1).
	DefaultMaxMessage = 8096

	// minMaxMessage leaves room for the header, and for the most important pairs of
	// CEF and LEEF.
	minMaxMessage = 1024

	// maxMaxMessage is above the longest record.
	maxMaxMessage = 16 << 20

	// maxUDPMessage is the longest payload of a datagram over IPv4 (RFC 5426 section
	// 3.2).
	maxUDPMessage = 65507

	// maxBatchBytes and maxBatchRecords bound what is sent before the receiver has
	// to acknowledge it.
	maxBatchBytes   = 1 << 20
	maxBatchRecords = 1000

	// maxTail and maxTailAge bound the messages that go again when a connection has
	// ended. The first is about what a receiver's socket buffer holds (tcp_rmem of
	// Linux is 6 MiB with its overhead); it is the memory that a connection costs.
	// What is older has been read, and would only be doubled.
	maxTail    = 4 << 20
	maxTailAge = time.Minute

	// maxAgain bounds how often a message goes again: a receiver that closes each
	// connection after a few seconds must not get the same messages for ever.
	maxAgain = 8

	// maxSpare bounds the buffer that is kept for the next batch.
	maxSpare = 2 << 20

	// chunk is what one call writes; it may take up to stall. The receiver may take
	// as long to acknowledge something. A link of 20 kbit/s is fast enough.
	chunk = 64 << 10
	stall = 30 * time.Second

	// probation is how long a new connection must live until what was sent over it
	// counts. A server of TLS 1.3 refuses a client's certificate only after the
	// handshake, and a load balancer without a server behind it closes what it has
	// accepted.
	probation = time.Second

	// reconnectMin and reconnectMax bound the wait before a connection that has ended is
	// made again, where there is no record to send and something to send again.
	reconnectMin = time.Second
	reconnectMax = time.Minute

	// A burst of datagrams has to fit into the receiver's socket buffer (208 KiB on
	// Linux): after so many bytes there is a pause.
	burst      = 64 << 10
	burstPause = 2 * time.Millisecond
)
