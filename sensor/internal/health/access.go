package health

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// AccessFiles are the files with what others need to know, and with what they know us
// by. Empty names are those of nothing.
type AccessFiles struct {
	Token       string // with the token, in one line
	Certificate string // PEM, with its chain
	Key         string // PEM
}

// Validate returns what is wrong with the names: a certificate and its key belong
// together.
func (f AccessFiles) Validate() error {
	if (f.Certificate == "") != (f.Key == "") {
		return errors.New("a certificate and its key belong together: name both files")
	}
	return nil
}

// Access says who may ask the listener: whoever has the token, over TLS. A nil Access
// lets everybody ask, without TLS. Its methods may be called by any goroutine.
type Access struct {
	files   AccessFiles
	now     func() time.Time
	current atomic.Pointer[credentials]
	refused atomic.Uint64 // requests without the token, or with another
}

// credentials are what the files hold.
type credentials struct {
	token       []byte           // nil for none
	certificate *tls.Certificate // nil for none
}

// OpenAccess reads the files. Without any it returns nil.
func OpenAccess(files AccessFiles) (*Access, error) {
	if files == (AccessFiles{}) {
		return nil, nil
	}
	a := &Access{files: files, now: time.Now}
	return a, a.Reload()
}

// Reload reads the files again. With an error, what was in use stays. Sessions end with
// the token that they began with.
func (a *Access) Reload() error {
	if a == nil {
		return nil
	}
	if err := a.files.Validate(); err != nil {
		return err
	}
	var c credentials
	if a.files.Token != "" {
		text, err := os.ReadFile(a.files.Token)
		if err != nil {
			return fmt.Errorf("read the token: %w", err)
		}
		if c.token = bytes.TrimSpace(text); len(c.token) < minToken || len(c.token) > maxToken || bytes.ContainsAny(c.token, " \t\r\n") {
			return fmt.Errorf("read the token: %s: it has %d to %d characters and no space between them; openssl rand -hex 32 makes one", a.files.Token, minToken, maxToken)
		}
	}
	if a.files.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(a.files.Certificate, a.files.Key)
		if err != nil {
			return fmt.Errorf("read the listener's certificate: %s, %s: %w", a.files.Certificate, a.files.Key, err)
		}
		c.certificate = &pair
	}
	a.current.Store(&c)
	return nil
}

// config is for a listener; nil where there is no certificate. Each connection gets the
// certificate that was loaded last.
func (a *Access) config() *tls.Config {
	if a == nil || a.current.Load().certificate == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return a.current.Load().certificate, nil
		},
	}
}

// Closed reports whether only those may ask who have the token.
func (a *Access) Closed() bool { return a != nil && a.current.Load().token != nil }

// Encrypted reports whether the listener speaks TLS.
func (a *Access) Encrypted() bool { return a != nil && a.current.Load().certificate != nil }

// Refused is how many requests came without the token, or with another.
func (a *Access) Refused() uint64 {
	if a == nil {
		return 0
	}
	return a.refused.Load()
}

// Allows reports whether a request has the token (RFC 6750 section 2.1), or the cookie
// of who has shown it.
func (a *Access) Allows(r *http.Request) bool {
	if !a.Closed() {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") && a.knows(strings.TrimSpace(token)) {
		return true
	}
	if c, err := r.Cookie(a.cookieName()); err == nil && a.hasSession(c.Value) {
		return true
	}
	a.refused.Add(1)
	return false
}

// knows reports whether a text is the token. How long that takes says nothing of it.
func (a *Access) knows(text string) bool {
	given, wanted := sha256.Sum256([]byte(text)), sha256.Sum256(a.current.Load().token)
	return subtle.ConstantTimeCompare(given[:], wanted[:]) == 1
}

// SignIn returns the cookie for a browser whose user has typed the token; nil for
// another text, and where there is no token. The cookie says when the session ends and has a code over that, made
// with the token: nothing has to be kept, and a restart ends no session.
func (a *Access) SignIn(token string) *http.Cookie {
	if !a.Closed() {
		return nil
	}
	if !a.knows(strings.TrimSpace(token)) {
		a.refused.Add(1)
		return nil
	}
	ends := a.now().Add(sessionLimit)
	return &http.Cookie{
		Name:     a.cookieName(),
		Value:    a.session(ends.Unix()),
		Path:     "/",
		Secure:   a.Encrypted(),
		HttpOnly: true,
		SameSite: http.SameSiteStrictMode,
	}
}

// cookieName is the name of the cookie. Over TLS no other host of a domain can set it
// (RFC 6265bis section 4.1.3).
func (a *Access) cookieName() string {
	if a.Encrypted() {
		return "__Host-oddcert"
	}
	return "oddcert"
}

// session is the value of a cookie whose session ends at a second since the Unix epoch.
func (a *Access) session(ends int64) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(ends))
	code := hmac.New(sha256.New, a.current.Load().token)
	code.Write([]byte("session of the page until "))
	code.Write(b)
	return base64.RawURLEncoding.EncodeToString(code.Sum(b))
}

func (a *Access) hasSession(value string) bool {
	b, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || len(b) != 8+sha256.Size {
		return false
	}
	ends := int64(binary.BigEndian.Uint64(b))
	return hmac.Equal([]byte(a.session(ends)), []byte(value)) && a.now().Unix() < ends
}

// Named reports whether a request is for this listener: by an address, as localhost, or
// by a name in the certificate. Any other name may be one that somebody has made lead
// here, so that the scripts of a web page may read the answers (DNS rebinding).
func (a *Access) Named(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(host, "]"), "["), ".")
	if _, err := netip.ParseAddr(host); err == nil || strings.EqualFold(host, "localhost") {
		return true
	}
	if !a.Encrypted() || host == "" {
		return false
	}
	leaf := a.current.Load().certificate.Leaf
	return leaf != nil && (*x509.Certificate).VerifyHostname(leaf, host) == nil
}

// IsLoopback reports whether only this machine can reach an address for [Listen], as far
// as its text says.
func IsLoopback(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return host == "" || strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// isLocal reports whether only this machine can reach a listener.
func isLocal(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}
