// Package syslog delivers records to syslog receivers: rsyslog, syslog-ng, and SIEMs
// that speak syslog.
//
// Messages are those of RFC 5424, with the record, or its form in CEF or LEEF, as
// their text. They go over TCP (RFC 6587), TLS (RFC 5425), UDP (RFC 5426) or a socket
// of the machine.
//
// # What is guaranteed
//
// Syslog has no acknowledgements. Over TCP and TLS a record counts as delivered when
// the receiver's kernel has acknowledged each of its bytes (on Linux; elsewhere when
// it is written) and the connection is more than a second old and still open. A
// receiver that ends, or is cut off, may have bytes in its buffers that it never
// reads. So the last messages of a connection (4 MiB, of the last minute) go again
// when it has ended without our doing, soon and before anything else. They have the
// same event.id. Lost is what a receiver has read and not kept, what exceeds these
// limits, and what has no copy because oddcert ends, too, before it was read.
//
// A socket of the machine does better on Linux: its kernel tells when the receiver
// has read a message.
//
// UDP sends and knows no more: each message may be lost without a trace, unless the
// receiver's host answers that nobody listens.
package syslog

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/cef"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

// Destination is a [delivery.Destination].
type Destination struct {
	url     *url.URL
	message message
	links   [2]link // for alerts and for the others: these wait for each other in no way
}

var _ delivery.Destination = (*Destination)(nil)

// New makes a destination. It reads the files that cfg names, and does not connect
// yet. log hears what is no failure.
func New(cfg Config, log *slog.Logger) (*Destination, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	u, err := cfg.Address()
	if err != nil {
		return nil, err
	}
	d := &Destination{url: u, message: newMessage(&cfg)}
	var config *tls.Config
	if u.Scheme == "tls" {
		if config, err = cfg.TLS.Config(); err != nil {
			return nil, err
		}
		config.ServerName = u.Hostname()
	}
	for i := range d.links {
		l := &d.links[i]
		l.url, l.tls, l.newline, l.young = u, config, cfg.Framing == "newline", probation
		l.open, l.end = context.WithCancel(context.Background())
	}
	if u.Scheme == "udp" {
		log.Warn("syslog: messages over UDP are lost without a trace; use tcp or tls where it matters", "address", d.String())
	}
	return d, nil
}

// Limits are small enough to be acknowledged soon. Requests would not arrive in their
// order if there were several at a time.
func (d *Destination) Limits() delivery.Limits {
	return delivery.Limits{Records: maxBatchRecords, Bytes: maxBatchBytes, Requests: 1}
}

// String is the address.
func (d *Destination) String() string { return d.url.String() }

// Close ends the connections.
func (d *Destination) Close() error {
	for i := range d.links {
		l := &d.links[i]
		l.end()
		l.mu.Lock()
		l.close()
		l.mu.Unlock()
	}
	return nil
}

// Send sends records: a trouble is that of the connection. A record that cannot be
// made short enough is dead.
func (d *Destination) Send(ctx context.Context, records []*output.Record, verdicts []delivery.Verdict) *delivery.Trouble {
	l := &d.links[0]
	if len(records) > 0 && records[0].Dataset != output.Alert {
		l = &d.links[1]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin()
	var sent []int
	for i, r := range records {
		text, err := d.message.format(r)
		switch {
		case errors.Is(err, cef.ErrNoForm):
			verdicts[i].Fate = delivery.Skipped
		case err != nil:
			verdicts[i] = delivery.Verdict{Fate: delivery.Dead, Reason: err.Error()}
		default:
			l.add(text)
			sent = append(sent, i)
		}
	}
	if len(sent) == 0 {
		return nil
	}
	tooLong, t := l.send(ctx)
	if t != nil {
		return t
	}
	for n, i := range sent {
		verdicts[i].Fate = delivery.Delivered
		if slices.Contains(tooLong, n) {
			reason := fmt.Sprintf("the socket takes no message of %d bytes; max_message_size is too large", l.size(n))
			verdicts[i] = delivery.Verdict{Fate: delivery.Dead, Reason: reason}
		}
	}
	return nil
}
