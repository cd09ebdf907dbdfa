package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// socketMode lets the owner and the group of a socket ask.
const socketMode = 0o660

// CheckAddress returns what is wrong with an address for [Listen].
func CheckAddress(address string) error {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("%q: the path of a socket begins with a slash", address)
		}
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil || port == "" {
		return fmt.Errorf("%q is neither host:port nor unix:/path", address)
	}
	return nil
}

// Listen listens on host:port, or on unix:/path. Without a host it is 127.0.0.1, so that
// other machines can ask only where somebody has named another address. A socket that a
// process has left is replaced; others than its owner and group cannot use it.
func Listen(address string) (net.Listener, error) {
	if err := CheckAddress(address); err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	listen := func() (net.Listener, error) {
		host, port, _ := net.SplitHostPort(address)
		if host == "" {
			host = "127.0.0.1"
		}
		return net.Listen("tcp", net.JoinHostPort(host, port))
	}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		listen = func() (net.Listener, error) { return listenUnix(path) }
	}
	l, err := listen()
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	return l, nil
}

func listenUnix(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		other, err := net.Dial("unix", path)
		if err == nil {
			other.Close()
			return nil, fmt.Errorf("listen on %s: another process does", path)
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Service is what a listener answers beside metrics, and whom.
type Service struct {
	Access *Access      // nil: everybody may ask, without TLS
	Page   http.Handler // what answers all other paths; nil for nothing
	// Streams is how many requests Page may answer for as long as it likes. So many
	// connections may be open more.
	Streams int
}

// Check returns why a service must not be had at an address: other machines can reach it,
// and it has a page that everybody could read.
func (s Service) Check(a net.Addr) error {
	if s.Page == nil || isLocal(a) || s.Access.Closed() && s.Access.Encrypted() {
		return nil
	}
	return fmt.Errorf("serve the page on %s: other machines can reach it, so it needs a token, a certificate and a key", a)
}

// Serve answers requests on l, which it closes, until ctx is done:
//
//	/metrics  the metrics, in the text format of Prometheus or as OpenMetrics
//	/healthz  200, or 503 and why the process does no work: see [Monitor.Alive]
//	/readyz   200, or 503 and each reason why not: see [Monitor.Ready]
//
// Whatever else there is the page answers. It asks for the token itself, so that it can
// show a form; other machines can reach it only with a token and over TLS. Of these three
// there is nothing but GET and HEAD without a body. The error is nil when ctx is done.
func (m *Monitor) Serve(ctx context.Context, l net.Listener, s Service) error {
	if err := s.Check(l.Addr()); err != nil {
		l.Close()
		return err
	}
	if !isLocal(l.Addr()) && !s.Access.Closed() {
		m.config.Log.Warn("metrics: other machines can read them", "address", l.Addr().String())
	}
	server := &http.Server{
		Handler:                      m.handler(s),
		TLSConfig:                    s.Access.config(),
		ReadTimeout:                  readLimit,
		WriteTimeout:                 writeLimit,
		IdleTimeout:                  idleLimit,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(complaints{m.config.Log}, "", 0),
		// A connection of HTTP/2 has any number of requests at a time, and the limits
		// here count connections.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	limited := netutil.LimitListener(l, maxConnections+s.Streams)
	var err error
	if server.TLSConfig != nil {
		err = server.ServeTLS(limited, "", "")
	} else {
		err = server.Serve(limited)
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve metrics on %s: %w", l.Addr(), err)
}

// complaints logs what the server of the standard library has to say, but for handshakes
// that fail: whoever connects can make any number of them.
type complaints struct{ log *slog.Logger }

func (c complaints) Write(text []byte) (int, error) {
	if !bytes.Contains(text, []byte("TLS handshake error")) {
		c.log.Warn(string(bytes.TrimSpace(text)))
	}
	return len(text), nil
}

// handler answers requests.
func (m *Monitor) handler(s Service) http.Handler {
	answer := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog:          slog.NewLogLogger(m.config.Log.Handler(), slog.LevelWarn),
		ErrorHandling:     promhttp.ContinueOnError,
		EnableOpenMetrics: true,
	})
	// With a time limit an answer is complete before it is sent, so that who reads
	// slowly keeps nobody waiting.
	turns := make(chan struct{}, maxScrapes)
	metrics := http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
			answer.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}), scrapeLimit, "too many requests\n")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own := r.URL.Path == "/metrics" || r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
		switch {
		case !own && s.Page != nil:
			s.Page.ServeHTTP(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, "only GET and HEAD")
		case r.ContentLength != 0:
			refuse(w, http.StatusBadRequest, "no body")
		case !s.Access.Allows(r):
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "the token is missing, or it is another")
		case r.URL.Path == "/metrics":
			metrics.ServeHTTP(w, r)
		case r.URL.Path == "/healthz":
			say(w, m.Alive(m.config.Now()))
		case r.URL.Path == "/readyz":
			say(w, m.Ready())
		default:
			refuse(w, http.StatusNotFound, "only /metrics, /healthz and /readyz")
		}
	})
}

// refuse answers a request that nobody should have sent, and ends its connection,
// whatever more it may bring.
func refuse(w http.ResponseWriter, status int, reason string) {
	w.Header().Set("Connection", "close")
	http.Error(w, reason, status)
}

// say answers with what is wrong, one reason a line, or that nothing is.
func say(w http.ResponseWriter, wrong error) {
	if wrong != nil {
		http.Error(w, wrong.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n") // who asked may be gone
}
