package elastic

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/elastic/go-elasticsearch/v8/esapi"
)

// Client talks to Elasticsearch, or to OpenSearch.
//
// It sends the requests of esapi over elastic-transport. The client of package
// elasticsearch, which does the same, imports the 860 packages of the typed API,
// and nothing here uses those. What that client does for its requests, [NewClient]
// sets up.
type Client struct {
	transport  *elastictransport.Client
	http       *http.Transport
	openSearch bool
	name       string // for messages
	timeout    time.Duration
}

// The errors of an answer by something else than the server that is configured.
var (
	errProduct    = errors.New("what answers is not Elasticsearch (for OpenSearch use es-server opensearch)")
	errOpenSearch = errors.New("what answers is OpenSearch: use es-server opensearch")
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
	authorization, err := cfg.authorization()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	addresses := make([]*url.URL, len(cfg.Addresses))
	for i, a := range cfg.Addresses {
		if addresses[i], err = url.Parse(strings.TrimRight(a, "/")); err != nil {
			return nil, fmt.Errorf("read address %d: %w", i+1, err)
		}
	}
	c := &Client{
		http: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:       tlsConfig,
			TLSHandshakeTimeout:   dialTimeout,
			ExpectContinueTimeout: time.Second,
			IdleConnTimeout:       time.Minute,
			MaxIdleConnsPerHost:   4,
			ForceAttemptHTTP2:     true,
		},
		openSearch: cfg.openSearch(),
		name:       strings.Join(cfg.Addresses, ", "),
		timeout:    requestTimeout,
	}
	header := http.Header{"Accept": {"application/json"}}
	if authorization != "" {
		header.Set("Authorization", authorization)
	}
	c.transport, err = elastictransport.NewClient(
		elastictransport.WithURLs(addresses...),
		elastictransport.WithTransport(c.http),
		elastictransport.WithHeader(header),
		elastictransport.WithUserAgent(userAgent),
		elastictransport.WithDisableRetry(), // the spool keeps what has to go again, item by item
		elastictransport.WithInterceptors(c.product),
	)
	if err != nil {
		return nil, fmt.Errorf("make elasticsearch client: %w", err)
	}
	return c, nil
}

// userAgent names the program and the library to the server.
var userAgent = fmt.Sprintf("oddcert (%s %s; go-elasticsearch %s)", runtime.GOOS, runtime.GOARCH, esapi.Version)

// product checks which server answers. Elasticsearch names itself in a header of
// each answer; an error may come from a proxy in front of it.
func (c *Client) product(next elastictransport.RoundTripFunc) elastictransport.RoundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		res, err := next(req)
		if err != nil || c.openSearch || res.StatusCode >= 300 || res.Header.Get("X-Elastic-Product") == "Elasticsearch" {
			return res, err
		}
		res.Body.Close()
		if res.Header.Get("X-OpenSearch-Version") != "" {
			return nil, errOpenSearch
		}
		return nil, errProduct
	}
}

// tls is the configuration of the client's TLS.
func (c *Config) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read es-ca-file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read es-ca-file: no PEM certificate in %s", c.CAFile)
		}
	}
	pin, err := c.fingerprint()
	if err != nil || pin == nil {
		return cfg, err
	}
	// The pin takes the place of the authorities, unless there is a CA file: then
	// both must hold.
	cfg.InsecureSkipVerify = c.CAFile == ""
	cfg.VerifyConnection = func(s tls.ConnectionState) error { return verifyPin(s, pin) }
	return cfg, nil
}

// verifyPin accepts the pinned certificate itself, and a certificate for this
// host name that the pinned one has signed.
func verifyPin(s tls.ConnectionState, pin []byte) error {
	for i, cert := range s.PeerCertificates {
		sum := sha256.Sum256(cert.Raw)
		if subtle.ConstantTimeCompare(sum[:], pin) == 0 {
			continue
		}
		if i == 0 {
			return nil
		}
		o := x509.VerifyOptions{DNSName: s.ServerName, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
		o.Roots.AddCert(cert)
		for _, between := range s.PeerCertificates[1:i] {
			o.Intermediates.AddCert(between)
		}
		_, err := s.PeerCertificates[0].Verify(o)
		return err
	}
	return errors.New("certificate_fingerprint: no certificate that the server sent has it")
}

// String is the client's addresses.
func (c *Client) String() string { return c.name }

// do sends one request of the setup, and returns the body of the answer.
func (c *Client) do(ctx context.Context, r esapi.Request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	res, err := r.Do(ctx, c.transport)
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
		return fmt.Errorf("%w: give its authority with es-ca-file, or the SHA-256 of its certificate with es-fingerprint", err)
	case errors.As(err, &host):
		return fmt.Errorf("%w: use a name that is in its certificate, or give the SHA-256 of that with es-fingerprint", err)
	case errors.As(err, &status) && status.Status == http.StatusUnauthorized:
		return fmt.Errorf("%w: the credentials are missing or wrong", err)
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
	return strings.ToValidUTF8(line[:min(len(line), maxReason)], "")
}

// errorText reads the error of an item or an answer: an object, or a string.
func errorText(raw json.RawMessage) (kind, reason string) {
	var cause struct {
		Type     string `json:"type"`
		Reason   string `json:"reason"`
		CausedBy struct {
			Reason string `json:"reason"`
		} `json:"caused_by"`
	}
	if json.Unmarshal(raw, &cause) == nil && cause.Type != "" {
		reason = cause.Reason
		if cause.CausedBy.Reason != "" && !strings.Contains(reason, cause.CausedBy.Reason) {
			reason += ": " + cause.CausedBy.Reason
		}
	} else if json.Unmarshal(raw, &reason) != nil {
		reason = string(raw)
	}
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "")
	}
	return cause.Type, reason
}
