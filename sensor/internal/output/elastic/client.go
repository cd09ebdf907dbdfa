package elastic

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// Client talks to Elasticsearch, or to OpenSearch.
//
// It sends the requests of esapi over elastic-transport, which leaves an address that
// does not answer out for a minute, and longer each time. The client of package
// elasticsearch, which does the same, imports the 860 packages of the typed API,
// and nothing here uses those. What that client does for its requests, [NewClient]
// sets up.
type Client struct {
	transport *elastictransport.Client
	http      *http.Transport
	login     *login
	server    string       // what must answer; empty for either
	found     atomic.Value // what has answered: a string, empty for what is not known
	addresses int
	name      string // for messages
	timeout   time.Duration
}

// What may answer.
const (
	elasticsearch = "elasticsearch"
	openSearch    = "opensearch"
)

// The errors of an answer by something else than the server that is configured.
var (
	errProduct    = errors.New("what answers is neither Elasticsearch nor OpenSearch: look at the address")
	errOpenSearch = errors.New("what answers is OpenSearch: leave the setting server out, or set it to opensearch")
)

// StatusError is an answer with a status of 300 or more.
type StatusError struct {
	Status int
	Type   string // the server's name of the error, empty when it gave none
	Reason string // the server's words
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("status %d", e.Status)
	if e.Type != "" {
		s += " " + e.Type
	}
	if e.Reason != "" {
		s += ": " + strings.TrimSuffix(e.Reason, ".")
	}
	return s
}

// NewClient makes a client. It reads the files that cfg names, and does not
// connect yet.
func NewClient(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	login, err := newLogin(cfg)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := cfg.TLS.Config()
	if err != nil {
		return nil, err
	}
	addresses, err := cfg.URLs()
	if err != nil {
		return nil, err
	}
	names := make([]string, len(addresses))
	for i, a := range addresses {
		names[i] = a.String()
	}
	c := &Client{
		http: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: endpoint.DialTimeout, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:       tlsConfig,
			TLSHandshakeTimeout:   endpoint.DialTimeout,
			ExpectContinueTimeout: time.Second,
			IdleConnTimeout:       time.Minute,
			MaxIdleConnsPerHost:   2 * maxRequests,
			ForceAttemptHTTP2:     true,
		},
		login:     login,
		server:    cfg.Server,
		addresses: len(addresses),
		name:      strings.Join(names, ", "),
		timeout:   requestTimeout,
	}
	c.transport, err = elastictransport.NewClient(
		elastictransport.WithURLs(addresses...),
		elastictransport.WithTransport(c.http),
		elastictransport.WithHeader(http.Header{"Accept": {"application/json"}}),
		elastictransport.WithUserAgent(userAgent),
		elastictransport.WithDisableRetry(), // the spool keeps what has to go again, item by item
		elastictransport.WithInterceptors(c.product, login.intercept),
	)
	if err != nil {
		return nil, fmt.Errorf("make elasticsearch client: %w", err)
	}
	return c, nil
}

// userAgent names the program and the library to the server.
var userAgent = fmt.Sprintf("oddcert (%s %s; go-elasticsearch %s)", runtime.GOOS, runtime.GOARCH, esapi.Version)

// product checks which server answers. Elasticsearch names itself in a header of
// each answer, OpenSearch 3 in another one; OpenSearch 2 has to be asked. An error
// may come from a proxy in front of them.
func (c *Client) product(next elastictransport.RoundTripFunc) elastictransport.RoundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		res, err := next(req)
		if err != nil && c.addresses > 1 {
			return nil, fmt.Errorf("%s: %w", req.URL.Host, err)
		}
		if err != nil {
			return nil, err
		}
		unnamed := false
		switch {
		case res.Header.Get("X-Elastic-Product") == "Elasticsearch":
			c.found.Store(elasticsearch)
			return res, nil
		case res.Header.Get("X-OpenSearch-Version") != "":
			c.found.Store(openSearch)
		default:
			unnamed = true
		}
		switch {
		case c.server == openSearch, res.StatusCode >= 300, unnamed && req.Context().Value(asking{}) != nil:
			return res, nil
		case unnamed && c.found.Load() != openSearch:
			c.found.Store("") // somebody may have put another one there: ask again
			err = errProduct
		case c.server == elasticsearch:
			err = errOpenSearch
		default:
			return res, nil
		}
		res.Body.Close()
		return nil, err
	}
}

// known reports whether an answer has said what the server is.
func (c *Client) known() bool {
	found, _ := c.found.Load().(string)
	return found != ""
}

// asking marks the request that asks a server what it is.
type asking struct{}

// ask asks the server what it is.
func (c *Client) ask(ctx context.Context) error {
	res, err := esapi.InfoRequest{}.Do(context.WithValue(ctx, asking{}, true), c.transport)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if c.known() {
		return nil // a header has said it
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxError))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	var info struct {
		Version struct{ Distribution string } `json:"version"`
	}
	switch status := statusError(res.StatusCode, b); {
	case status.Status == http.StatusForbidden && status.Type == "security_exception":
		// The right to ask is missing. Elasticsearch would have named itself.
	case status.Status == http.StatusForbidden, status.Status == http.StatusNotFound, status.Status == http.StatusMethodNotAllowed:
		return fmt.Errorf("%w: %w", status, errProduct)
	case status.Status >= 300:
		return status
	case json.Unmarshal(b, &info) != nil || info.Version.Distribution != openSearch:
		return errProduct
	}
	c.found.Store(openSearch)
	return nil
}

// send sends a request, which make makes, to one address after the other until one
// answers. When others before it did not, missed is why. The body of the answer is
// the caller's to close.
func (c *Client) send(ctx context.Context, make func() esapi.Request) (res *esapi.Response, missed, err error) {
	for range c.addresses {
		missed, err = err, nil
		if c.server == "" && !c.known() {
			err = c.ask(ctx)
		}
		if err == nil {
			res, err = make().Do(ctx, c.transport)
		}
		var status *StatusError
		var login *loginError
		if err == nil || ctx.Err() != nil || errors.As(err, &login) || errors.As(err, &status) && !errors.Is(err, errProduct) {
			break
		}
	}
	return res, missed, err
}

// String is the client's addresses.
func (c *Client) String() string { return c.name }

// do sends one request of the setup, and returns the body of the answer.
func (c *Client) do(ctx context.Context, make func() esapi.Request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	res, _, err := c.send(ctx, make)
	if err != nil {
		return nil, c.explain(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if res.StatusCode >= 300 {
		return nil, c.explain(statusError(res.StatusCode, b))
	}
	return b, nil
}

// trouble is what becomes of a request that got no answer.
func (c *Client) trouble(err error) *delivery.Trouble {
	var login *loginError
	var status *StatusError
	switch {
	case errors.Is(err, errProduct), errors.Is(err, errOpenSearch):
		return &delivery.Trouble{Class: "product", Err: err, Slow: true}
	case errors.As(err, &login):
		return &delivery.Trouble{Class: "credentials", Err: err, Slow: true}
	case errors.As(err, &status): // to the question what the server is
		t := c.refusal(nil, status)
		t.Slow, t.Split = t.Slow || t.Split, false
		return t
	case isTLS(err):
		return &delivery.Trouble{Class: "tls", Err: c.explain(err), Slow: true}
	}
	return &delivery.Trouble{Class: "network", Err: c.explain(err)}
}

// isTLS reports whether no connection can be made until somebody changes a
// certificate or the configuration.
func isTLS(err error) bool {
	var verify *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var header tls.RecordHeaderError
	return errors.Is(err, endpoint.ErrFingerprint) || errors.As(err, &verify) || errors.As(err, &authority) ||
		errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &header) || refusedUs(err)
}

// refusedUs reports whether the server has ended the handshake: what it says of our
// certificate is an alert.
func refusedUs(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// explain adds the cure to errors that have a common one.
func (c *Client) explain(err error) error {
	var status *StatusError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &header):
		return fmt.Errorf("%w: the server does not speak TLS there: use http:// in its address", err)
	case strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`), // a TLS alert
		errors.As(err, &status) && status.Status == http.StatusBadRequest && status.Type == "" && strings.Contains(status.Reason, "HTTPS"):
		return fmt.Errorf("%w: the server speaks TLS there: use https:// in its address", err)
	case errors.Is(err, io.EOF) && strings.Contains(c.name, "http://"):
		return fmt.Errorf("%w: the server hung up: if it speaks TLS there, use https:// in its address", err)
	case errors.As(err, &authority):
		return fmt.Errorf("%w: give its authority with ca_file, or the SHA-256 of its certificate with fingerprint", err)
	case errors.As(err, &host):
		return fmt.Errorf("%w: use a name that is in its certificate, or give the SHA-256 of that with fingerprint", err)
	case errors.Is(err, endpoint.ErrFingerprint):
		return fmt.Errorf("%w: the server has a new certificate, or is another one: compare the SHA-256 of its certificate", err)
	case refusedUs(err):
		return fmt.Errorf("%w: the server wants a certificate of the client that it knows: look at certificate_file", err)
	case errors.As(err, &status) && status.Status == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s", err, c.login.cure())
	case errors.As(err, &status) && status.Status < 400:
		return fmt.Errorf("%w: redirections are not followed: use the address that the server is at", err)
	}
	return err
}

// close closes idle connections.
func (c *Client) close() { c.http.CloseIdleConnections() }

// statusError reads the error of an answer. The body need not be that of
// Elasticsearch: a proxy may have answered.
func statusError(status int, body []byte) *StatusError {
	e := &StatusError{Status: status}
	var answer struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(body, &answer) == nil {
		e.Type, e.Reason = errorText(answer.Error)
	} else {
		e.Reason = firstLine(body)
	}
	return e
}

// firstLine is the first line of a body, empty when that is HTML.
func firstLine(body []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if strings.HasPrefix(line, "<") {
		return ""
	}
	return delivery.Reason(line)
}

// errorText reads the error of an item or an answer: an object, or a string. The
// innermost cause says what to change.
func errorText(raw json.RawMessage) (kind, reason string) {
	type cause struct {
		Type   string `json:"type"`
		Reason string `json:"reason"`
	}
	var e struct {
		cause
		CausedBy *struct {
			cause
			CausedBy *struct {
				cause
			} `json:"caused_by"`
		} `json:"caused_by"`
	}
	if json.Unmarshal(raw, &e) != nil || e.Type == "" {
		if json.Unmarshal(raw, &reason) != nil {
			reason = string(raw)
		}
		return "", delivery.Reason(reason)
	}
	reason = e.Reason
	add := func(more string) {
		if more != "" && !strings.Contains(reason, more) {
			reason += ": " + more
		}
	}
	if e.CausedBy != nil {
		add(e.CausedBy.Reason)
		if e.CausedBy.CausedBy != nil {
			add(e.CausedBy.CausedBy.Reason)
		}
	}
	return delivery.Reason(e.Type), delivery.Reason(reason)
}
