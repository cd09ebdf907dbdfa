// Package otlp delivers records as log records of OpenTelemetry, over OTLP/HTTP in
// JSON.
//
// The protocol is that of the OTLP Specification, "OTLP/HTTP". Its attributes have
// the names of the record's fields, and those of OpenTelemetry's semantic conventions
// beside them where these differ. A receiver that gets a record twice can tell by
// log.record.uid.
package otlp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/httpsend"
)

// Destination sends records to one receiver. It is a [delivery.Destination].
type Destination struct {
	config Config
	client *httpsend.Client
	log    *slog.Logger

	mu      sync.Mutex
	warning string // the last one of the receiver
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
	return &Destination{config: cfg, client: client, log: log}, nil
}

// String is the scheme and the host of the receiver.
func (d *Destination) String() string { return d.client.String() }

// Close closes idle connections.
func (d *Destination) Close() error { return d.client.Close() }

// Limits allow several requests at a time: log records have their times.
func (d *Destination) Limits() delivery.Limits {
	return delivery.Limits{Records: maxBatchRecords, Bytes: maxBatchBytes, Requests: maxRequests}
}

// Send sends records in one request.
func (d *Destination) Send(ctx context.Context, records []*output.Record, verdicts []delivery.Verdict) *delivery.Trouble {
	errs := make([]error, len(records))
	body, err := d.encode(records, errs, time.Now())
	if err != nil {
		return &delivery.Trouble{Class: "encode", Err: err, Split: len(records) > 1}
	}
	var sent []int // indexes of records that are in the request
	for i := range records {
		if errs[i] != nil {
			verdicts[i] = delivery.Verdict{Fate: delivery.Dead, Reason: errs[i].Error()}
			continue
		}
		sent = append(sent, i)
	}
	if len(sent) == 0 {
		return nil
	}
	answer, trouble := d.client.Do(ctx, httpsend.Request{
		Header: http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}}, Body: body, Gzip: true,
	})
	if trouble != nil {
		return trouble
	}
	fates := make([]delivery.Verdict, len(sent))
	trouble = d.settle(answer, fates)
	for n, i := range sent {
		verdicts[i] = fates[n]
	}
	return trouble
}

// settle says what an answer means.
func (d *Destination) settle(answer *httpsend.Answer, fates []delivery.Verdict) *delivery.Trouble {
	switch {
	case answer.Status >= 200 && answer.Status < 300:
		return d.accepted(answer, fates)
	case answer.Status >= 500 && answer.Status != http.StatusBadGateway &&
		answer.Status != http.StatusServiceUnavailable && answer.Status != http.StatusGatewayTimeout:
		// Such a failure is permanent: the same data must not be sent again
		// ("Retryable Response Codes"). Less of it may be fine.
		return answer.Refused(fates, reason(answer))
	}
	return answer.Settle(fates, reason(answer))
}

// reason is the message in an answer that is a Status ("Failures"), or the answer.
func reason(answer *httpsend.Answer) string {
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(answer.Body, &status) == nil && status.Message != "" {
		return answer.Clean(status.Message)
	}
	return answer.Reason()
}

// accepted reads the answer to a request that was accepted, at least in part. An
// answer without a body is that of all accepted: so is the message in binary.
func (d *Destination) accepted(answer *httpsend.Answer, fates []delivery.Verdict) *delivery.Trouble {
	body, trouble := answer.Whole()
	if trouble != nil {
		return trouble
	}
	var r struct {
		PartialSuccess struct {
			Rejected json.RawMessage `json:"rejectedLogRecords"`
			Message  string          `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &r); err != nil {
			return &delivery.Trouble{Class: "answer", Slow: true, Err: errors.New("what answers is not a receiver of OTLP in JSON")}
		}
	}
	verdict := delivery.Verdict{Fate: delivery.Delivered, Status: answer.Status}
	message := answer.Clean(r.PartialSuccess.Message)
	// A 64-bit number is a string, and a receiver may send it as a number all the same.
	rejected, _ := strconv.ParseInt(strings.Trim(string(r.PartialSuccess.Rejected), `"`), 10, 64)
	switch {
	case rejected > 0:
		// They must not be sent again ("Partial Success"), and the receiver does not
		// say which ones they are: all of them are kept where somebody can look.
		verdict.Fate = delivery.Dead
		verdict.Reason = fmt.Sprintf("the receiver rejected %d of the %d records of a request", rejected, len(fates))
		if message != "" {
			verdict.Reason += ": " + message
		}
		verdict.Reason = delivery.Reason(verdict.Reason)
	case message != "":
		d.warn(message)
	}
	for i := range fates {
		fates[i] = verdict
	}
	return nil
}

// warn logs a warning of the receiver, once for as long as it is the same.
func (d *Destination) warn(message string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if message == d.warning {
		return
	}
	d.warning = message
	d.log.Warn("otlp: the receiver warns", "address", d.String(), "message", message)
}
