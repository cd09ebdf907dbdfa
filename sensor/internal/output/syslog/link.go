package syslog

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// link sends batches of messages over one connection at a time.
type link struct {
	url     *url.URL
	tls     *tls.Config   // nil for none
	newline bool          // the framing over TCP and TLS, instead of counts
	young   time.Duration // how old a connection must be until what was sent over it counts

	open context.Context // done when the link is closed for good
	end  context.CancelFunc

	mu    sync.Mutex // guards the rest
	alive bool       // keep runs
	conn  *conn      // nil for none
	batch batch      // that is made and sent
	tail  []batch    // the last ones that were delivered
	held  int        // bytes of tail
}

// batch is messages in their frames, one after the other.
type batch struct {
	data []byte
	ends []int // of each frame in data

	time  time.Time // when it was delivered, or went again
	again int       // how often it went again
}

// conn is a connection.
type conn struct {
	net.Conn
	raw      syscall.Conn // of the socket below
	datagram bool
	since    time.Time
	gone     chan struct{} // closed when the receiver has ended it
	err      error         // why, once gone is closed
	until    time.Time     // when, once gone is closed
}

var (
	errClosed = errors.New("the receiver has closed the connection")
	errAnswer = errors.New("the receiver answers, which no syslog receiver does")
	errStall  = fmt.Errorf("the receiver has acknowledged nothing for %v", stall)
)

// begin begins a batch.
func (l *link) begin() {
	if cap(l.batch.data) > maxSpare {
		l.batch.data = nil
	}
	l.batch.data, l.batch.ends = l.batch.data[:0], l.batch.ends[:0]
}

// add adds a message, which has no line feed, to the batch.
func (l *link) add(message []byte) {
	b := l.batch.data
	stream := l.url.Scheme == "tcp" || l.url.Scheme == "tls"
	switch {
	case stream && !l.newline:
		b = append(strconv.AppendInt(b, int64(len(message)), 10), ' ') // RFC 6587 section 3.4.1, RFC 5425 section 4.3
		b = append(b, message...)
	case l.url.Scheme == "udp":
		b = append(b, message...)
	default:
		// RFC 6587 section 3.4.2. Receivers of a socket of the machine expect lines,
		// where it is a stream, and ignore the line feed of a datagram.
		b = append(append(b, message...), '\n')
	}
	l.batch.data, l.batch.ends = b, append(l.batch.ends, len(b))
}

// size is how long a frame of the batch is.
func (l *link) size(n int) int { return len(l.batch.frame(n)) }

func (b *batch) frame(n int) []byte {
	start := 0
	if n > 0 {
		start = b.ends[n-1]
	}
	return b.data[start:b.ends[n]]
}

// send sends the batch, and returns the messages that are too long for the socket.
func (l *link) send(ctx context.Context) (tooLong []int, t *delivery.Trouble) {
	if t := l.connect(ctx); t != nil {
		return nil, t
	}
	tooLong, err := l.conn.send(ctx, &l.batch)
	if err == nil {
		err = l.conn.settle(ctx, l.young)
	}
	if err != nil {
		return nil, l.fail(err)
	}
	l.remember()
	return tooLong, nil
}

// connect connects where there is no connection, and sends what the end of the last
// one has made doubtful.
func (l *link) connect(ctx context.Context) *delivery.Trouble {
	if l.conn != nil {
		if l.conn.ended() == nil {
			return nil
		}
		l.forget(l.conn.until)
		l.close()
	}
	c, t := l.dial(ctx)
	if t != nil {
		return t
	}
	l.conn = c
	for i := range l.tail {
		if _, err := c.send(ctx, &l.tail[i]); err != nil {
			return l.fail(err)
		}
		l.tail[i].time = time.Now()
		l.tail[i].again++
	}
	if !l.alive && l.url.Scheme != "udp" {
		l.alive = true
		go l.keep()
	}
	return nil
}

// keep connects again when a connection has ended: what is doubtful must not wait for
// the next alert, which may be days away.
func (l *link) keep() {
	wait := reconnectMin
	for {
		l.mu.Lock()
		c := l.conn
		l.mu.Unlock()
		if c != nil {
			select {
			case <-c.gone:
			case <-l.open.Done():
				return
			}
		}
		select {
		case <-time.After(wait):
		case <-l.open.Done():
			return
		}
		l.mu.Lock()
		wait = min(2*wait, reconnectMax)
		if len(l.tail) == 0 || l.connect(l.open) == nil { // a trouble is the engine's to tell, once it has a record
			wait = reconnectMin
		}
		l.mu.Unlock()
	}
}

// fail gives the connection up.
func (l *link) fail(err error) *delivery.Trouble {
	until := time.Now()
	if why := l.conn.ended(); why != nil {
		err = why // and not that the write failed
		until = l.conn.until
	}
	l.forget(until)
	l.close()
	if errors.Is(err, errAnswer) || alerted(err) {
		return &delivery.Trouble{Class: "refused", Err: err, Slow: true}
	}
	return &delivery.Trouble{Class: "network", Err: err}
}

// close ends the connection.
func (l *link) close() {
	if l.conn == nil {
		return
	}
	_ = l.conn.Close() // over TLS it says goodbye (RFC 5425 section 4.4), which a receiver that has ended does not hear
	l.conn = nil
}

// remember keeps a copy of the batch that was delivered. Over UDP nothing tells that
// it should go again.
func (l *link) remember() {
	if l.url.Scheme == "udp" {
		return
	}
	l.tail = append(l.tail, batch{
		data: append([]byte(nil), l.batch.data...), ends: append([]int(nil), l.batch.ends...), time: time.Now(),
	})
	l.held += len(l.batch.data)
	l.forget(time.Now())
}

// forget drops what is too much, went again too often, or was too old when the
// connection ended, the oldest first. While there is no connection nothing gets older.
func (l *link) forget(now time.Time) {
	n := 0
	for n < len(l.tail) && (l.held > maxTail || l.tail[n].again >= maxAgain || now.Sub(l.tail[n].time) > maxTailAge) {
		l.held -= len(l.tail[n].data)
		l.tail[n] = batch{}
		n++
	}
	l.tail = append(l.tail[:0], l.tail[n:]...)
}

// dial connects.
func (l *link) dial(ctx context.Context) (*conn, *delivery.Trouble) {
	ctx, cancel := context.WithTimeout(ctx, 2*endpoint.DialTimeout)
	defer cancel()
	dialer := net.Dialer{Timeout: endpoint.DialTimeout}
	networks, address := []string{"tcp"}, l.url.Host
	switch l.url.Scheme {
	case "udp":
		networks = []string{"udp"}
	case "unix": // as syslog(3) tries them
		networks, address = []string{"unixgram", "unix"}, l.url.Path
	}
	var socket net.Conn
	var err error
	for _, network := range networks {
		if socket, err = dialer.DialContext(ctx, network, address); !errors.Is(err, syscall.EPROTOTYPE) {
			break
		}
	}
	if err != nil {
		return nil, &delivery.Trouble{Class: "network", Err: err}
	}
	raw, _ := socket.(syscall.Conn) // all sockets are one
	network := socket.LocalAddr().Network()
	c := &conn{Conn: socket, raw: raw, datagram: network == "udp" || network == "unixgram", gone: make(chan struct{})}
	if l.tls != nil {
		t := tls.Client(socket, l.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = socket.Close()
			err = fmt.Errorf("connect with TLS: %w", err)
			if interrupted(err) {
				return nil, &delivery.Trouble{Class: "network", Err: err}
			}
			return nil, &delivery.Trouble{Class: "refused", Err: err, Slow: true}
		}
		c.Conn = t
	}
	c.since = time.Now()
	go c.watch()
	return c, nil
}

// alerted reports whether the receiver has ended TLS with an alert: it does not like
// what it was shown.
func alerted(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// interrupted reports whether a handshake of TLS failed for the network, and not for
// what one of the two has shown, or for a file that cannot be read.
func interrupted(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !alerted(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// watch waits for the end of the connection. Nobody else reads from it: a receiver
// has nothing to say.
func (c *conn) watch() {
	b := make([]byte, 512)
	for {
		n, err := c.Read(b)
		switch {
		case n > 0 && c.datagram:
			continue // anybody can send a datagram in the receiver's name
		case n > 0:
			c.err = errAnswer
		case errors.Is(err, io.EOF):
			c.err = errClosed
		default:
			c.err = err
		}
		c.until = time.Now()
		close(c.gone)
		return
	}
}

// ended returns why the receiver has ended the connection, nil while it is open.
func (c *conn) ended() error {
	select {
	case <-c.gone:
		return c.err
	default:
		return nil
	}
}

// send writes a batch, and returns the messages that are too long for the socket.
func (c *conn) send(ctx context.Context, b *batch) (tooLong []int, err error) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if !c.datagram {
		for rest := b.data; len(rest) > 0; {
			n := min(len(rest), chunk)
			if err := c.write(ctx, rest[:n]); err != nil {
				return nil, err
			}
			rest = rest[n:]
		}
		return nil, nil
	}
	sent := 0
	for i := range b.ends {
		frame := b.frame(i)
		err := c.write(ctx, frame)
		if errors.Is(err, syscall.EMSGSIZE) {
			tooLong = append(tooLong, i)
			continue
		}
		if err != nil {
			return nil, err
		}
		if sent += len(frame); sent >= burst {
			sent = 0
			time.Sleep(burstPause)
		}
	}
	return tooLong, nil
}

func (c *conn) write(ctx context.Context, b []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(stall)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // it may have set the deadline before
		return err
	}
	_, err := c.Write(b)
	return err
}

// settle waits until the receiver's kernel has acknowledged all that was written, and
// the connection is old enough to be trusted. Over UDP the bytes have left the
// machine then, and its answer that nobody listens has come if there is one.
func (c *conn) settle(ctx context.Context, young time.Duration) error {
	last, progress := 0, time.Now()
	for wait := time.Millisecond / 4; ; wait = min(2*wait, 50*time.Millisecond) {
		n, err := unacknowledged(c.raw)
		if err != nil {
			return fmt.Errorf("ask for what is not acknowledged: %w", err)
		}
		if why := c.ended(); why != nil {
			return why
		}
		if n == 0 && time.Since(c.since) >= young {
			return nil
		}
		if n < last || n == 0 {
			progress = time.Now()
		}
		last = n
		if time.Since(progress) > stall {
			return errStall
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.gone:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
	}
}
