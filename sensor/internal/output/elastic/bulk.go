package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/elastic/go-elasticsearch/v8/esapi"
	"github.com/klauspost/compress/gzip"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

// judge reads the answer for one item.
func judge(it *item) delivery.Verdict {
	v := delivery.Verdict{Status: it.Status, Redirected: it.FailureStore == "used"}
	kind, reason := errorText(it.Error)
	if v.Reason = kind; reason != "" {
		v.Reason = delivery.Reason(kind + ": " + reason)
	}
	switch s := it.Status; {
	case s == http.StatusOK || s == http.StatusCreated:
		v.Fate = delivery.Delivered
	case s == http.StatusConflict:
		v.Fate = delivery.Duplicate
	case s == http.StatusUnauthorized || s == http.StatusForbidden || notOfTheRecord(s, kind, reason):
		v.Fate = delivery.Blocked
	case s >= 400 && s < 500 && s != http.StatusTooManyRequests:
		v.Fate = delivery.Dead
	default:
		v.Fate = delivery.Again
	}
	return v
}

// notOfTheRecord reports whether the cause of an error is the state of the server:
// each other record would get the same answer, until somebody has changed that.
func notOfTheRecord(status int, kind, reason string) bool {
	switch kind {
	case "index_not_found_exception", "index_closed_exception":
		return true
	case "cluster_block_exception":
		// 503 is a cluster without a master. Else an index was made read-only, by
		// somebody (403) or as the disk is nearly full (429).
		return status < 500
	case "validation_exception":
		return tooManyShards.MatchString(reason)
	case "illegal_argument_exception":
		return missingPipeline.MatchString(reason)
	}
	return false
}

var (
	// missingPipeline matches the reason that a server gives when the settings of a
	// stream name an ingest pipeline that somebody deleted.
	missingPipeline = regexp.MustCompile(`^pipeline with id \[.*\] does not exist`)

	// tooManyShards matches the reason for which a server makes no new index.
	tooManyShards = regexp.MustCompile(`maximum .*shards open`)
)

// item is the answer for one action of a bulk request.
type item struct {
	ID           string          `json:"_id"`
	Status       int             `json:"status"`
	Error        json.RawMessage `json:"error"`
	FailureStore string          `json:"failure_store"`
}

// answerFields are the parts of an answer that are read.
var answerFields = []string{"errors", "took", "items.*.status", "items.*.error", "items.*.failure_store", "items.*._id"}

// Send sends records in one request. Ids make it safe to send any of them again:
// op_type create refuses an id that is there already.
func (d *Destination) Send(ctx context.Context, records []*output.Record, verdicts []delivery.Verdict) *delivery.Trouble {
	t := d.send(ctx, records, verdicts)
	switch {
	case t == nil && !d.checked.Swap(true):
		d.checkTemplates(ctx)
	case t != nil && t.Class == "network":
		d.checked.Store(false) // it may come back as another one
	}
	return t
}

func (d *Destination) send(ctx context.Context, records []*output.Record, verdicts []delivery.Verdict) *delivery.Trouble {
	ctx, cancel := context.WithTimeout(ctx, d.client.timeout)
	defer cancel()
	body := d.encode(records)
	res, missed, err := d.client.send(ctx, func() esapi.Request {
		return esapi.BulkRequest{
			// The body is not used again after this call: a server may answer before
			// it has read all of it, and the transport goes on sending then.
			Body:       bytes.NewReader(body),
			FilterPath: answerFields,
			Header:     http.Header{"Content-Type": {"application/x-ndjson"}, "Content-Encoding": {"gzip"}},
		}
	})
	if err != nil {
		return d.client.trouble(err)
	}
	defer res.Body.Close()
	if missed != nil {
		d.log.Warn("elasticsearch: an address does not answer, another one does", "err", d.client.explain(missed))
	}
	if res.StatusCode == http.StatusOK {
		return readAnswer(io.LimitReader(res.Body, maxAnswer), records, verdicts)
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxError)) // the status alone is enough to go on
	return d.client.refusal(res.Header, statusError(res.StatusCode, text))
}

// refusal decides what to do about an error answer to the request as a whole.
func (c *Client) refusal(header http.Header, err *StatusError) *delivery.Trouble {
	t := &delivery.Trouble{Class: "status " + strconv.Itoa(err.Status), Err: c.explain(err)}
	switch s := err.Status; {
	case s == http.StatusRequestEntityTooLarge:
		t.Split = true
	case notOfTheRecord(s, err.Type, err.Reason):
		t.Slow = true
	case s == http.StatusBadRequest && err.Type != "":
		// Elasticsearch itself cannot read the request because of one of the records.
		t.Split = true
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s >= 500:
		t.After = delivery.RetryAfter(header.Get("Retry-After"), time.Now())
	default:
		t.Slow = true
	}
	return t
}

// encode makes the compressed body of a request.
func (d *Destination) encode(records []*output.Record) []byte {
	var body bytes.Buffer
	zip := d.zips.Get().(*gzip.Writer)
	defer d.zips.Put(zip)
	zip.Reset(&body)
	var lines []byte
	for _, r := range records {
		lines = append(lines[:0], `{"create":{"_index":"`...)
		lines = append(lines, d.streams[r.Dataset].name...)
		lines = append(lines, `","_id":`...)
		lines = strconv.AppendQuote(lines, r.ID) // which the spool keeps to printable ASCII
		lines = append(lines, "}}\n"...)
		lines = append(d.appendDocument(lines, r), '\n')
		zip.Write(lines) // a bytes.Buffer takes everything
	}
	zip.Close()
	return body.Bytes()
}

// appendDocument appends r with what names its data stream. Elastic's own tools look
// for these members, and a constant of a template cannot take their place: no server
// knows the namespace there, and not each server has such constants.
func (d *Destination) appendDocument(b []byte, r *output.Record) []byte {
	const member = `"data_stream":{`
	s := &d.streams[r.Dataset]
	// A record that has its constants lacks only the namespace. No text of the wire
	// can pose as the member: a quote within a text has a backslash before it.
	if before, after, has := bytes.Cut(r.JSON, []byte(member)); has {
		b = append(append(b, before...), member...)
		return append(append(append(b, s.namespace...), ','), after...)
	}
	after, isObject := bytes.CutPrefix(r.JSON, []byte(`{"`))
	if !isObject {
		return append(b, r.JSON...)
	}
	b = append(append(b, '{'), member...)
	b = append(append(append(append(b, s.typeAndDataset...), ','), s.namespace...), `},"`...)
	return append(b, after...)
}

// readAnswer reads the verdicts out of an answer, as far as it goes. Items are
// in the order of the request; those that are missing keep their zero verdict.
func readAnswer(r io.Reader, records []*output.Record, verdicts []delivery.Verdict) *delivery.Trouble {
	next, answered := 0, 0
	err := eachItem(json.NewDecoder(r), func(it *item) {
		for i := next; i < len(records); i++ {
			if records[i].ID == it.ID {
				verdicts[i] = judge(it)
				next = i + 1
				answered++
				return
			}
		}
	})
	if err != nil {
		return &delivery.Trouble{Class: "answer", Err: fmt.Errorf("read answer: %w", err)}
	}
	if answered < len(records) {
		return &delivery.Trouble{Class: "answer", Err: fmt.Errorf("answer has %d of %d items", answered, len(records))}
	}
	return nil
}

// eachItem calls f for each item of a bulk answer.
func eachItem(d *json.Decoder, f func(*item)) error {
	if err := expect(d, json.Delim('{')); err != nil {
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		if key != "items" {
			var other json.RawMessage
			if err := d.Decode(&other); err != nil {
				return err
			}
			continue
		}
		if err := expect(d, json.Delim('[')); err != nil {
			return err
		}
		for d.More() {
			var action map[string]*item
			if err := d.Decode(&action); err != nil {
				return err
			}
			for _, it := range action {
				if it != nil {
					f(it)
				}
			}
		}
		if err := expect(d, json.Delim(']')); err != nil {
			return err
		}
	}
	return expect(d, json.Delim('}'))
}

func expect(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("found %v where %v was expected", t, want)
	}
	return nil
}
