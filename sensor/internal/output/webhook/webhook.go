// Package webhook delivers records with HTTP requests, one for each record unless
// batches are configured, in any form that a template can make.
//
// Requests have the headers of the Standard Webhooks specification (version 1.0.0):
// webhook-id is the id of the event, so that a receiver can drop what it has seen, and
// webhook-signature proves who has sent it. Idempotency-Key is the same as
// webhook-id.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/httpsend"
)

// Destination sends records to one address. It is a [delivery.Destination].
type Destination struct {
	config  Config
	client  *httpsend.Client
	body    *body // nil where the record is the body
	secrets atomic.Pointer[map[string]string]
}

var _ delivery.Destination = (*Destination)(nil)

// New makes a destination. It reads the files that cfg names, and does not connect
// yet.
func New(cfg Config, log *slog.Logger) (*Destination, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	client, err := httpsend.New(cfg.options(), 2, log)
	if err != nil {
		return nil, err
	}
	d := &Destination{config: cfg, client: client}
	if _, err := cfg.signingKey(); err != nil {
		return nil, err
	}
	if err := d.readSecrets(); err != nil {
		return nil, err
	}
	if cfg.TemplateFile == "" {
		return d, nil
	}
	source, err := cfg.readTemplate()
	if err != nil {
		return nil, err
	}
	if d.body, err = parseBody(filepath.Base(cfg.TemplateFile), source, d.secret); err != nil {
		return nil, fmt.Errorf("read template_file: %w", err)
	}
	return d, nil
}

// String is the scheme and the host of the server: the rest of a webhook's address is
// often a secret.
func (d *Destination) String() string { return d.client.String() }

// Close closes idle connections.
func (d *Destination) Close() error { return d.client.Close() }

// Limits are one request at a time, so that alerts arrive in their order.
func (d *Destination) Limits() delivery.Limits {
	return delivery.Limits{Records: max(d.config.BatchSize, 1), Bytes: maxBatchBytes, Requests: 1}
}

func (d *Destination) readSecrets() error {
	secrets, err := d.config.secrets()
	if err == nil {
		d.secrets.Store(&secrets)
	}
	return err
}

// secret is what a template asks for.
func (d *Destination) secret(name string) (string, error) {
	value, ok := (*d.secrets.Load())[name]
	if !ok {
		return "", fmt.Errorf("secret_files has no %q", name)
	}
	return value, nil
}

// Send sends records in one request. See [httpsend.Answer.Settle] for what answers
// mean; 409 says that the receiver had the records already.
func (d *Destination) Send(ctx context.Context, records []*output.Record, verdicts []delivery.Verdict) *delivery.Trouble {
	if err := d.readSecrets(); err != nil {
		return &delivery.Trouble{Class: "secret", Err: err, Slow: true}
	}
	key, err := d.config.signingKey()
	if err != nil {
		return &delivery.Trouble{Class: "secret", Err: err, Slow: true}
	}
	content, err := d.render(records)
	if err != nil {
		if len(records) > 1 {
			return &delivery.Trouble{Class: "template", Err: err, Split: true}
		}
		verdicts[0] = delivery.Verdict{Fate: delivery.Dead, Reason: delivery.Reason(err.Error())}
		return nil
	}
	answer, trouble := d.client.Do(ctx, httpsend.Request{
		Method: d.config.Method, Header: d.header(requestID(records), content, key), Body: content,
		Secrets: slices.Collect(maps.Values(*d.secrets.Load())),
	})
	if trouble != nil {
		return trouble
	}
	switch answer.Status {
	case d.config.DeadStatus:
		return answer.Refused(verdicts, answer.Reason())
	case http.StatusConflict:
		for i := range verdicts {
			verdicts[i] = delivery.Verdict{Fate: delivery.Duplicate, Status: answer.Status}
		}
		return nil
	}
	return answer.Settle(verdicts, answer.Reason())
}

// header is what goes with a request.
func (d *Destination) header(id string, content, key []byte) http.Header {
	h := http.Header{}
	h.Set("Content-Type", d.contentType())
	h.Set("Idempotency-Key", id)
	h.Set("Webhook-Id", id)
	now := time.Now().Unix()
	h.Set("Webhook-Timestamp", strconv.FormatInt(now, 10))
	if key != nil {
		h.Set("Webhook-Signature", sign(key, id, now, content))
	}
	return h
}

func (d *Destination) contentType() string {
	if d.config.ContentType == "" {
		return "application/json"
	}
	return d.config.ContentType
}

// isJSON reports whether the content type promises one JSON value (RFC 6839, section
// 3.1).
func (d *Destination) isJSON() bool {
	kind, _, err := mime.ParseMediaType(d.contentType())
	return err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json"))
}

// sign is a signature (Standard Webhooks, "Signature scheme").
func sign(key []byte, id string, seconds int64, content []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.", id, seconds)
	mac.Write(content)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// requestID is the id of the event, or one that is the same for the same events.
func requestID(records []*output.Record) string {
	if len(records) == 1 {
		return records[0].ID
	}
	h := sha256.New()
	for _, r := range records {
		h.Write([]byte(r.ID))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// render is the body of a request: with batches always a list, even of one record.
func (d *Destination) render(records []*output.Record) ([]byte, error) {
	batch := d.config.BatchSize > 1
	if d.body == nil {
		if !batch {
			// A server may answer before it has read the body, and the transport goes
			// on sending then, while the record is lent no longer.
			return bytes.Clone(records[0].JSON), nil
		}
		parts := make([][]byte, len(records))
		for i, r := range records {
			parts[i] = r.JSON
		}
		return slices.Concat([]byte("["), bytes.Join(parts, []byte(",\n")), []byte("]")), nil
	}
	list := make([]any, len(records))
	for i, r := range records {
		var err error
		if list[i], err = decode(r.JSON); err != nil {
			return nil, err
		}
	}
	data := list[0]
	if batch {
		data = list
	}
	content, err := d.body.make(data)
	if err != nil {
		return nil, err
	}
	if d.isJSON() && !json.Valid(content) {
		return nil, errors.New("what the template makes of this record is not JSON: use json for each value")
	}
	return content, nil
}
