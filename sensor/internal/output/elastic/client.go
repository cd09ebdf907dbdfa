package elastic

import (
	"bytes"
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
	"os"
	"strings"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/elastic/go-elasticsearch/v8"
)

// Client talks to Elasticsearch, or to OpenSearch.
type Client struct {
	es            *elasticsearch.BaseClient
	transport     *http.Transport
	authorization string
	openSearch    bool
	name          string // for messages
	timeout       time.Duration
}

// errProduct is what stands in for an answer of something else.
var errProduct = errors.New("what answers is not Elasticsearch (for OpenSearch set server: opensearch)")

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
		s += ": " + e.Reason
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
	c := &Client{
		transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:       tlsConfig,
			TLSHandshakeTimeout:   dialTimeout,
			ExpectContinueTimeout: time.Second,
			IdleConnTimeout:       time.Minute,
			MaxIdleConnsPerHost:   4,
			ForceAttemptHTTP2:     true,
		},
		authorization: authorization,
		openSearch:    cfg.openSearch(),
		name:          strings.Join(cfg.Addresses, ", "),
		timeout:       requestTimeout,
	}
	c.es, err = elasticsearch.NewBaseClient(elasticsearch.Config{
		Addresses:         cfg.Addresses,
		DisableRetry:      true, // what goes again is decided by item, with the spool behind it
		DisableMetaHeader: true,
		Transport:         c.transport,
		Interceptors:      []elastictransport.InterceptorFunc{c.product},
	})
	if err != nil {
		return nil, fmt.Errorf("make elasticsearch client: %w", err)
	}
	return c, nil
}

// product checks who answers, in place of the library's check, which has no
// error value to tell it by and would refuse OpenSearch.
func (c *Client) product(next elastictransport.RoundTripFunc) elastictransport.RoundTripFunc {
	const header = "X-Elastic-Product"
	return func(req *http.Request) (*http.Response, error) {
		res, err := next(req)
		if err != nil {
			return nil, err
		}
		if c.openSearch {
			res.Header.Set(header, "Elasticsearch")
		} else if res.StatusCode < 300 && res.Header.Get(header) != "Elasticsearch" {
			res.Body.Close()
			return nil, errProduct
		}
		return res, nil
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
	// The pin stands in for the authorities, unless there is a CA file: then
	// both must hold.
	cfg.InsecureSkipVerify = c.CAFile == ""
	cfg.VerifyConnection = func(s tls.ConnectionState) error { return verifyPin(s, pin) }
	return cfg, nil
}

// verifyPin accepts the pinned certificate itself, and one for this host name
// that the pinned one has signed.
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
	return errors.New("certificate_fingerprint: the server showed no certificate with it")
}

// String is the client's addresses.
func (c *Client) String() string { return c.name }

// Ping says whether a server answers and lets us in.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodGet, "/", nil)
	var status *StatusError
	if errors.As(err, &status) && (status.Status == http.StatusForbidden || status.Status == http.StatusMethodNotAllowed) {
		return nil // a key that may only ship records, or a server without this handler
	}
	if err != nil {
		return fmt.Errorf("reach elasticsearch at %s: %w", c.name, err)
	}
	return nil
}

// request sends one request. The caller closes the body of the answer.
func (c *Client) request(ctx context.Context, method, path, contentType string, gzipped bool, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) == 0 {
		req.Body = http.NoBody
	} else {
		req.Header.Set("Content-Type", contentType)
	}
	if gzipped {
		req.Header.Set("Content-Encoding", "gzip")
	}
	req.Header.Set("Accept", "application/json")
	if c.authorization != "" {
		req.Header.Set("Authorization", c.authorization)
	}
	return c.es.Perform(req)
}

// do sends one request of the setup, and returns the body of the answer.
func (c *Client) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	res, err := c.request(ctx, method, path, "application/json", false, body)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if res.StatusCode >= 300 {
		return nil, statusError(res.StatusCode, b)
	}
	return b, nil
}

// close lets go of idle connections.
func (c *Client) close() { c.transport.CloseIdleConnections() }

// statusError reads the error of an answer, whatever shape it has.
func statusError(status int, body []byte) *StatusError {
	e := &StatusError{Status: status}
	var answer struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(body, &answer) == nil {
		e.Type, e.Reason = errorText(answer.Error)
	}
	return e
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
