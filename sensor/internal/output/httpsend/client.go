// Package httpsend sends the requests of outputs that speak HTTP, and says what the
// answers mean to delivery.
//
// A [Client] makes one request at a time with [Client.Do], and never more: it follows
// no redirect and repeats nothing, since the engine of package delivery does that.
package httpsend

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// Client sends requests to one server. Its methods may be called by several
// goroutines.
type Client struct {
	options   Options
	transport *http.Transport
	http      *http.Client
	name      string
	timeout   time.Duration
}

// New makes a client. It reads the files that o names, and does not connect yet.
// Connections bounds the idle connections that are kept. It warns when a secret would
// go over the network in the clear.
func New(o Options, connections int, log *slog.Logger) (*Client, error) {
	login, err := o.read()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := o.TLS.Config()
	if err != nil {
		return nil, err
	}
	c := &Client{
		options: o,
		transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: endpoint.DialTimeout, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:        tlsConfig,
			TLSHandshakeTimeout:    endpoint.DialTimeout,
			MaxResponseHeaderBytes: 64 << 10,
			IdleConnTimeout:        time.Minute,
			MaxIdleConnsPerHost:    connections,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true, // answers are short, and one that is not must stay as long as it is
		},
		// The path and the query are left out: they may be a secret.
		name:    login.url.Scheme + "://" + login.url.Host,
		timeout: requestTimeout,
	}
	c.http = &http.Client{
		Transport: c.transport,
		Jar:       &jar{},
		// A redirect may lead to anybody, with our headers.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if len(login.secrets) > 0 && endpoint.IsPlain(login.url.String()) {
		log.Warn("credentials go over plain HTTP: use https://", "address", c.name)
	}
	return c, nil
}

// String is the scheme and the host of the server.
func (c *Client) String() string { return c.name }

// Close closes idle connections.
func (c *Client) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

// Request is one request.
type Request struct {
	Method string      // POST by default
	Path   string      // below that of the address; empty for the address itself
	Header http.Header // besides those of Options
	Body   []byte      // lent until Do returns, and not changed after that
	Gzip   bool        // compress the body

	Secrets []string // in the body: what the server says is told without them
}

// Answer is what a server has answered.
type Answer struct {
	Status int
	Body   []byte // as far as it is needed: of a longer one, its beginning
	After  time.Duration
	cut    error // why the body is not whole, nil where it is
	login  *login
	plain  bool // the request was not encrypted
}

// Do sends a request, and returns the answer, or the trouble that kept it from coming.
// It takes no longer than half a minute.
func (c *Client) Do(ctx context.Context, r Request) (*Answer, *delivery.Trouble) {
	login, err := c.options.read()
	if err != nil {
		return nil, &delivery.Trouble{Class: "secret", Err: err, Slow: true}
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	login.secrets = append(login.secrets, r.Secrets...)
	body, header := r.Body, login.header
	maps.Copy(header, r.Header)
	header.Set("User-Agent", "oddcert")
	if r.Gzip {
		body = compress(body)
		header.Set("Content-Encoding", "gzip")
	}
	if r.Method == "" {
		r.Method = http.MethodPost
	}
	address := login.url
	if r.Path != "" {
		address = address.JoinPath(r.Path)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, address.String(), bytes.NewReader(body))
	if err != nil {
		return nil, &delivery.Trouble{Class: "request", Err: errors.New("the request cannot be made from these settings"), Slow: true}
	}
	req.Header = header
	res, err := c.http.Do(req)
	if err != nil {
		return nil, explain(err, login)
	}
	defer res.Body.Close()
	a := &Answer{Status: res.StatusCode, After: delivery.RetryAfter(res.Header.Get("Retry-After"), time.Now()), login: login, plain: address.Scheme == "http"}
	a.Body, a.cut = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if len(a.Body) > maxAnswer {
		a.Body, a.cut = a.Body[:maxAnswer], fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	return a, nil
}

var writers = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return w
}}

func compress(body []byte) []byte {
	var b bytes.Buffer
	w := writers.Get().(*gzip.Writer)
	defer writers.Put(w)
	w.Reset(&b)
	w.Write(body)
	w.Close() // a bytes.Buffer takes everything
	return b.Bytes()
}

// explain is the trouble of a request without an answer, with the cure where it has a
// common one. The address is not repeated.
func explain(err error, l *login) *delivery.Trouble {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &authority):
		return &delivery.Trouble{Class: "certificate", Slow: true,
			Err: fmt.Errorf("%w: name its authority in ca_file, or the SHA-256 of its certificate in fingerprint", err)}
	case errors.As(err, &host):
		return &delivery.Trouble{Class: "certificate", Slow: true,
			Err: fmt.Errorf("%w: use a name that is in its certificate, or name the SHA-256 of that in fingerprint", err)}
	case errors.As(err, &verification), errors.Is(err, endpoint.ErrFingerprint):
		return &delivery.Trouble{Class: "certificate", Slow: true, Err: err}
	case errors.As(err, &header):
		return &delivery.Trouble{Class: "tls", Slow: true,
			Err: errors.New("the server does not speak TLS there: use http:// in its address")}
	case strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`): // an alert of TLS
		return &delivery.Trouble{Class: "tls", Slow: true,
			Err: errors.New("the server speaks TLS there: use https:// in its address")}
	case errors.Is(err, context.DeadlineExceeded):
		return &delivery.Trouble{Class: "network", Err: errors.New("no answer in time")}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &delivery.Trouble{Class: "network", Err: errors.New("the server hung up")}
	}
	return &delivery.Trouble{Class: "network", Err: errors.New(l.hide(err.Error()))}
}

// Whole is the body, or the trouble that it did not come whole.
func (a *Answer) Whole() ([]byte, *delivery.Trouble) {
	if a.cut != nil {
		return nil, &delivery.Trouble{Class: "answer", Err: fmt.Errorf("read answer: %w", a.cut)}
	}
	return a.Body, nil
}

// Reason is what the server says, without what is secret: at most
// delivery.MaxReason bytes of one line, and none of HTML.
func (a *Answer) Reason() string { return a.Clean(string(a.Body)) }

// Clean is text of a server as [Answer.Reason] has it.
func (a *Answer) Clean(text string) string {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "<") {
		return ""
	}
	text = a.login.hide(text)
	text = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7F {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	text = strings.Join(strings.Fields(text), " ")
	text = a.login.hide(text) // again: a byte that was taken out may have split one
	return delivery.Reason(text)
}

// Settle says in verdicts what the status means for all records of a request, and
// returns the trouble that it is, or nil. A status of 200 to 299 is a delivery.
//
// What the server cannot read is split until the record is found that is to blame,
// and that is dead. Trouble with the login or the address, and a redirect, waits for
// somebody who repairs it. All else goes again.
func (a *Answer) Settle(verdicts []delivery.Verdict, reason string) *delivery.Trouble {
	t := a.Trouble(reason)
	switch s := a.Status; {
	case s >= 200 && s < 300:
		settle(verdicts, delivery.Verdict{Fate: delivery.Delivered, Status: s})
		return nil
	case s == http.StatusBadRequest && a.plain && strings.Contains(reason, "HTTPS"):
		t.Slow = true
		t.Err = fmt.Errorf("%w: the server speaks TLS there: use https:// in its address", t.Err)
	case s == http.StatusBadRequest, s == http.StatusRequestEntityTooLarge, s == http.StatusUnsupportedMediaType,
		s == http.StatusUnprocessableEntity:
		return a.Refused(verdicts, reason)
	case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s == http.StatusTooManyRequests, s >= 500:
	default:
		t.Slow = true
	}
	settle(verdicts, delivery.Verdict{Status: a.Status, Reason: reason})
	return t
}

// Refused says that the server will never accept one of the records: the one that is
// alone in a request.
func (a *Answer) Refused(verdicts []delivery.Verdict, reason string) *delivery.Trouble {
	t := a.Trouble(reason)
	if len(verdicts) > 1 {
		t.Split = true
		return t
	}
	settle(verdicts, delivery.Verdict{Fate: delivery.Dead, Status: a.Status, Reason: delivery.Reason(t.Err.Error())})
	return nil
}

func settle(verdicts []delivery.Verdict, v delivery.Verdict) {
	for i := range verdicts {
		verdicts[i] = v
	}
}

// Trouble is that the status is what it is.
func (a *Answer) Trouble(reason string) *delivery.Trouble {
	return &delivery.Trouble{Class: fmt.Sprintf("status %d", a.Status), Err: a.error(reason), After: a.After}
}

// error is the status as an error, with the server's reason and the cure where there
// is a common one.
func (a *Answer) error(reason string) error {
	s := fmt.Sprintf("status %d", a.Status)
	if text := http.StatusText(a.Status); text != "" {
		s += " " + text
	}
	if reason != "" {
		s += ": " + strings.TrimSuffix(reason, ".")
	}
	switch {
	case a.Status >= 300 && a.Status < 400:
		s += ": redirects are not followed: put the address that the server names into the configuration"
	case a.Status == http.StatusUnauthorized:
		s += ": the credentials are missing or wrong"
	}
	return errors.New(s)
}
