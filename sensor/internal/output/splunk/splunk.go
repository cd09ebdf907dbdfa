// Package splunk delivers records to Splunk's HTTP Event Collector.
//
// With indexer acknowledgement a record is delivered when the indexer says so. An
// acknowledgement can be lost, by a collector that was started again or by a load
// balancer that leads the question to another one: the records then go again, and are
// indexed twice. The id of the event, event_id, is the same in both.
//
// The protocol is that of Splunk Enterprise, Getting Data In: "Format events for HTTP
// Event Collector", "About HTTP Event Collector Indexer Acknowledgment" and
// "Troubleshoot HTTP Event Collector".
package splunk

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/httpsend"
)

// Destination sends records to one collector. It is a [delivery.Destination].
type Destination struct {
	config  Config
	client  *httpsend.Client
	channel string      // our own; acknowledgements are numbered in it
	checked atomic.Bool // the token has indexer acknowledgement

	ackTimeout, ackPoll time.Duration // see limits.go
}

var _ delivery.Destination = (*Destination)(nil)

// New makes a destination. It reads the files that cfg names, and does not connect
// yet.
func New(cfg Config, log *slog.Logger) (*Destination, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	client, err := httpsend.New(cfg.options(), 2*maxRequests, log)
	if err != nil {
		return nil, err
	}
	return &Destination{config: cfg, client: client, channel: newGUID(), ackTimeout: ackTimeout, ackPoll: ackPollMin}, nil
}

// newGUID makes a random UUID (RFC 9562, section 5.4).
func newGUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0F|0x40, b[8]&0x3F|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (d *Destination) source() string {
	if d.config.Source == "" {
		return "oddcert"
	}
	return d.config.Source
}

// String is the scheme and the host of the collector.
func (d *Destination) String() string { return d.client.String() }

// Close closes idle connections.
func (d *Destination) Close() error { return d.client.Close() }

// Limits allow several requests at a time: Splunk puts events in the order of their
// times.
func (d *Destination) Limits() delivery.Limits {
	return delivery.Limits{Records: maxBatchRecords, Bytes: maxBatchBytes, Requests: maxRequests}
}

// reply is what the collector answers to events.
type reply struct {
	Text    string `json:"text"`
	Code    *int   `json:"code"`
	Ack     *int64 `json:"ackId"`
	Invalid *int   `json:"invalid-event-number"` // of the first event in the request that is at fault, from 0
}

// The codes of the collector that its status does not explain ("Troubleshoot HTTP
// Event Collector", "Possible error codes").
const (
	codeDataFormat      = 6
	codeIndex           = 7
	codeChannelMissing  = 10
	codeChannelInvalid  = 11
	codeEventRequired   = 12
	codeEventBlank      = 13
	codeAckDisabled     = 14
	codeFields          = 15
	codeQueryStringAuth = 16
)

// Send sends records in one request, and waits until the indexer has acknowledged
// them.
func (d *Destination) Send(ctx context.Context, records []*output.Record, verdicts []delivery.Verdict) *delivery.Trouble {
	if d.config.ack() && !d.checked.Load() {
		// Before any event: a token without acknowledgement would take the same events
		// again and again.
		if trouble := d.check(ctx); trouble != nil {
			return trouble
		}
	}
	var body bytes.Buffer
	var sent []int // indexes of records that are in the request
	for i, r := range records {
		e, err := d.encode(r)
		if err != nil {
			verdicts[i] = delivery.Verdict{Fate: delivery.Dead, Reason: err.Error()}
			continue
		}
		body.Write(e)
		body.WriteByte('\n')
		sent = append(sent, i)
	}
	if len(sent) == 0 {
		return nil
	}
	answer, trouble := d.post(ctx, "/services/collector/event", d.channel, body.Bytes())
	if trouble != nil {
		return trouble
	}
	rep, trouble := readReply(answer)
	if trouble != nil {
		return trouble
	}
	if !accepted(answer) {
		return refused(answer, rep, sent, verdicts)
	}
	if d.config.ack() {
		if rep.Ack == nil {
			d.checked.Store(false)
			return &delivery.Trouble{Class: "no ack", Slow: true, Err: errNoAck}
		}
		if trouble := d.await(ctx, *rep.Ack); trouble != nil {
			return trouble
		}
	}
	for _, i := range sent {
		verdicts[i] = delivery.Verdict{Fate: delivery.Delivered, Status: answer.Status}
	}
	return nil
}

var errNoAck = errors.New("the token has no indexer acknowledgement: turn it on for the token, or set ack to false")

func (d *Destination) post(ctx context.Context, path, channel string, body []byte) (*httpsend.Answer, *delivery.Trouble) {
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("X-Splunk-Request-Channel", channel)
	return d.client.Do(ctx, httpsend.Request{Path: path, Header: h, Body: body, Gzip: true})
}

// accepted reports whether the status is that of a success: 200, and of others that
// speak Splunk's protocol any between that and 299. There must be a reply, too.
func accepted(answer *httpsend.Answer) bool { return answer.Status >= 200 && answer.Status < 300 }

// readReply reads an answer to events. One with a status that is no success need not
// be the collector's: a proxy may have answered.
func readReply(answer *httpsend.Answer) (reply, *delivery.Trouble) {
	var rep reply
	body, trouble := answer.Whole()
	if !accepted(answer) {
		json.Unmarshal(body, &rep)
		return rep, nil
	}
	if trouble != nil {
		return rep, trouble
	}
	if err := json.Unmarshal(body, &rep); err != nil || rep.Code == nil && rep.Ack == nil {
		return rep, &delivery.Trouble{Class: "answer", Slow: true, Err: errors.New("what answers is not an HTTP Event Collector")}
	}
	return rep, nil
}

// refused says what became of records when the collector did not take them.
func refused(answer *httpsend.Answer, rep reply, sent []int, verdicts []delivery.Verdict) *delivery.Trouble {
	reason, code := answer.Reason(), -1
	if rep.Code != nil {
		code = *rep.Code
		reason = answer.Clean(fmt.Sprintf("code %d, %s", code, rep.Text))
	}
	switch code {
	case codeIndex, codeChannelMissing, codeChannelInvalid, codeAckDisabled, codeQueryStringAuth:
		// These are 400, but it is the configuration that is wrong, here or there.
		trouble := answer.Trouble(reason)
		trouble.Class, trouble.Slow = fmt.Sprintf("code %d", code), true
		return trouble
	case codeDataFormat, codeEventRequired, codeEventBlank, codeFields:
		if n := rep.Invalid; n != nil && *n >= 0 && *n < len(sent) && len(sent) > 1 {
			// The others go again. Splunk may have taken those before this one.
			verdicts[sent[*n]] = delivery.Verdict{Fate: delivery.Dead, Status: answer.Status, Reason: reason}
			return answer.Trouble(reason)
		}
	}
	fates := make([]delivery.Verdict, len(sent))
	trouble := answer.Settle(fates, reason)
	for n, i := range sent {
		verdicts[i] = fates[n]
	}
	return trouble
}

// check asks whether the token has indexer acknowledgement. It does so in another
// channel: in ours the answer could be the acknowledgement that another request waits
// for, and that is given once.
func (d *Destination) check(ctx context.Context) *delivery.Trouble {
	if _, trouble := d.ask(ctx, newGUID(), 0); trouble != nil {
		return trouble
	}
	d.checked.Store(true)
	return nil
}

// ask asks whether a request is acknowledged.
func (d *Destination) ask(ctx context.Context, channel string, ack int64) (bool, *delivery.Trouble) {
	answer, trouble := d.post(ctx, "/services/collector/ack", channel, fmt.Appendf(nil, `{"acks":[%d]}`, ack))
	if trouble != nil {
		return false, trouble
	}
	body, trouble := answer.Whole()
	if !accepted(answer) {
		var rep reply
		if json.Unmarshal(body, &rep) == nil && rep.Code != nil && *rep.Code == codeAckDisabled {
			return false, &delivery.Trouble{Class: "no ack", Slow: true, Err: errNoAck}
		}
		reason := answer.Reason()
		if rep.Text != "" {
			reason = answer.Clean(rep.Text)
		}
		// A question is no record: whatever is wrong with it, it is asked again, and
		// slowly where waiting does not help.
		trouble := answer.Trouble(reason)
		trouble.Slow = answer.Status < 500 && answer.Status != http.StatusTooManyRequests
		return false, trouble
	}
	if trouble != nil {
		return false, trouble
	}
	var acks struct {
		Acks map[string]bool `json:"acks"`
	}
	if err := json.Unmarshal(body, &acks); err != nil || acks.Acks == nil {
		return false, &delivery.Trouble{Class: "answer", Slow: true, Err: errors.New("what answers is not an HTTP Event Collector")}
	}
	return acks.Acks[strconv.FormatInt(ack, 10)], nil
}

// await asks until a request is acknowledged. A question without an answer does not
// end it: the acknowledgement may still be there.
func (d *Destination) await(ctx context.Context, ack int64) *delivery.Trouble {
	ctx, cancel := context.WithTimeout(ctx, d.ackTimeout)
	defer cancel()
	wait := d.ackPoll
	err := errors.New("no acknowledgement of the indexer in time: the records go again")
	for {
		select {
		case <-ctx.Done():
			return &delivery.Trouble{Class: "ack", Err: err}
		case <-time.After(wait):
		}
		done, trouble := d.ask(ctx, d.channel, ack)
		if done {
			return nil
		}
		if trouble != nil && trouble.Slow {
			return trouble // the token is no longer good, say
		}
		if trouble != nil && ctx.Err() == nil {
			err = fmt.Errorf("ask for the acknowledgement: %w", trouble.Err)
		}
		wait = min(2*wait, ackPollMax)
	}
}
