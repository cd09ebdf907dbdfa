package elastic

import (
	"net/http"
	"sync"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
)

// login puts the header that lets us in on each request. When the server has refused
// it, the next request reads the credentials again: somebody may have replaced them.
type login struct {
	cfg Config

	mu     sync.Mutex
	header string // empty for none
	stale  bool   // the server has refused it
}

func newLogin(cfg Config) (*login, error) {
	header, err := cfg.authorization()
	return &login{cfg: cfg, header: header}, err
}

func (l *login) authorization() (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stale {
		header, err := l.cfg.authorization()
		if err != nil {
			return "", &loginError{err}
		}
		l.header, l.stale = header, false
	}
	return l.header, nil
}

// refused notes that the server did not take header.
func (l *login) refused(header string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stale = l.stale || header == l.header
}

// loginError is why the credentials cannot be read.
type loginError struct{ error }

func (e *loginError) Unwrap() error { return e.error }

func (l *login) intercept(next elastictransport.RoundTripFunc) elastictransport.RoundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		header, err := l.authorization()
		if err != nil {
			return nil, err
		}
		if header != "" {
			req.Header.Set("Authorization", header)
		}
		res, err := next(req)
		if err == nil && res.StatusCode == http.StatusUnauthorized {
			l.refused(header)
		}
		return res, err
	}
}

// cure says how to replace what the server has refused.
func (l *login) cure() string {
	switch secret := l.cfg.secret(); {
	case secret == nil:
		return "no credentials are given: use api_key_file, or username and password_file"
	case secret.File != "":
		return "the credentials are wrong or have expired: put valid ones into " + secret.File + ", which is read again"
	default:
		return "the credentials in " + secret.Env + " are wrong or have expired"
	}
}
