package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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
		v.Reason += ": " + reason
	}
	switch s := it.Status; {
	case s == http.StatusOK || s == http.StatusCreated:
		v.Fate = delivery.Delivered
	case s == http.StatusConflict:
		v.Fate = delivery.Duplicate
	case s == http.StatusUnauthorized || s == http.StatusForbidden || kind == "index_not_found_exception" || missingPipeline.MatchString(reason):
		// The cause is not the record: a right, a stream or a pipeline is missing.
		v.Fate = delivery.Blocked
	case s >= 400 && s < 500 && s != http.StatusTooManyRequests:
		v.Fate = delivery.Dead
	default:
		v.Fate = delivery.Again
	}
	return v
}

// missingPipeline matches the reason that a server gives when the settings of a
// stream name an ingest pipeline that somebody deleted.
var missingPipeline = regexp.MustCompile(`^pipeline with id \[.*\] does not exist`)

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
	ctx, cancel := context.WithTimeout(ctx, d.client.timeout)
	defer cancel()
	request := esapi.BulkRequest{
		// The body is not reused: a server may answer before it has read all of
		// it, and the transport goes on sending then.
		Body:       bytes.NewReader(d.encode(records)),
		FilterPath: answerFields,
		Header:     http.Header{"Content-Type": {"application/x-ndjson"}, "Content-Encoding": {"gzip"}},
	}
	res, err := request.Do(ctx, d.client.transport)
	if errors.Is(err, errProduct) || errors.Is(err, errOpenSearch) {
		return &delivery.Trouble{Class: "product", Err: err, Slow: true}
	}
	if err != nil {
		return &delivery.Trouble{Class: "network", Err: d.client.explain(err)}
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		return readAnswer(io.LimitReader(res.Body, maxAnswer), records, verdicts)
	}
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer)) // the status alone is enough to go on
	return refusal(res.Header, statusError(res.StatusCode, body))
}

// refusal decides what to do about an error answer to the request as a whole.
func refusal(header http.Header, err *StatusError) *delivery.Trouble {
	t := &delivery.Trouble{Class: "status " + strconv.Itoa(err.Status), Err: err}
	switch s := err.Status; {
	case s == http.StatusRequestEntityTooLarge:
		t.Split = true
	case s == http.StatusBadRequest && err.Type != "":
		// Elasticsearch itself cannot read the request because of one of the records.
		t.Split = true
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s >= 500:
		t.After = retryAfter(header.Get("Retry-After"))
	default:
		t.Slow = true
	}
	return t
}

// retryAfter reads a Retry-After header (RFC 9110, section 10.2.3).
func retryAfter(s string) time.Duration {
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return min(time.Duration(min(n, 1<<20))*time.Second, maxRetryAfter)
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, min(time.Until(t), maxRetryAfter))
	}
	return 0
}

// encode makes the compressed body of a request.
func (d *Destination) encode(records []*output.Record) []byte {
	var body bytes.Buffer
	zip := d.zips.Get().(*gzip.Writer)
	defer d.zips.Put(zip)
	zip.Reset(&body)
	var action []byte
	for _, r := range records {
		action = append(action[:0], `{"create":{"_index":"`...)
		action = append(action, d.index[r.Dataset]...)
		action = append(action, `","_id":"`...)
		action = append(action, r.ID...)
		action = append(action, "\"}}\n"...)
		zip.Write(action) // a bytes.Buffer takes everything
		zip.Write(r.JSON)
		zip.Write([]byte{'\n'})
	}
	zip.Close()
	return body.Bytes()
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
