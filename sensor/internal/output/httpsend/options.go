package httpsend

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// Options say where requests go, and how to get in. Settings have the names in
// brackets.
//
// Where the address itself lets one in, as that of a chat's webhook does, URLFile has
// it. At most one of password and token can be given.
type Options struct {
	URL     string // (url) http:// or https://
	URLFile string // (url_file) holds the address, if that is a secret

	Headers     map[string]string // (headers) sent with each request
	HeaderFiles map[string]string // (header_files) files that hold the values of headers that are secrets

	Username string
	Password endpoint.Secret // (password_file) of Username
	Token    endpoint.Secret // (token_file)
	Scheme   string          // of the token in the Authorization header; Bearer by default

	TLS endpoint.TLS
}

// reserved are the headers that are the connection's, or that are made from other settings.
var reserved = []string{"Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host", "Keep-Alive",
	"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// Validate names everything that is wrong with o, as far as it shows without its
// files: each is a [*endpoint.ConfigError]. It refuses the headers in own, too.
func (o *Options) Validate(own ...string) (errs []error) {
	bad := func(setting, format string, args ...any) {
		errs = append(errs, &endpoint.ConfigError{Setting: setting, Text: fmt.Sprintf(format, args...)})
	}
	switch {
	case o.URL == "" && o.URLFile == "":
		bad("url", "is missing")
	case o.URL != "" && o.URLFile != "":
		bad("url_file", "only one of url and url_file can be given")
	case o.URL != "":
		if err := checkURL("url", o.URL); err != nil {
			errs = append(errs, err)
		}
	}
	login := o.Username != "" || o.Token.File != ""
	for _, headers := range []struct {
		setting string
		values  map[string]string
	}{{"headers", o.Headers}, {"header_files", o.HeaderFiles}} {
		for _, name := range slices.Sorted(maps.Keys(headers.values)) {
			key := http.CanonicalHeaderKey(name)
			switch {
			case !isToken(name):
				bad(headers.setting, "%q is not the name of a header", name)
			case slices.Contains(reserved, key) || slices.Contains(own, key):
				bad(headers.setting, "%s is made from other settings", name)
			case key == "Authorization" && login:
				bad(headers.setting, "%s is made from username or token_file already", name)
			case headers.setting == "headers" && !isHeaderValue(headers.values[name]):
				bad(headers.setting, "%s has control characters, or more than %d bytes", name, maxHeader)
			case headers.setting == "headers" && (key == "Authorization" || key == "Proxy-Authorization" || key == "Cookie"):
				bad(headers.setting, "%s is a secret: name a file that holds it in header_files", name)
			case headers.setting == "header_files" && o.Headers[name] != "":
				bad(headers.setting, "%s is in headers too", name)
			}
		}
	}
	if o.Username != "" && !o.Password.Given() {
		bad("password_file", "is missing: username needs it")
	}
	if o.Password.File != "" && o.Username == "" {
		bad("username", "is missing: password_file is for one")
	}
	if strings.Contains(o.Username, ":") {
		bad("username", "has a colon") // RFC 7617, section 2
	}
	if o.Username != "" && o.Token.File != "" {
		bad("token_file", "only one of username and token_file can be given")
	}
	return append(errs, o.TLS.Validate()...)
}

// checkURL says what is wrong with an address that requests go to.
func checkURL(setting, address string) error {
	if err := endpoint.CheckURL(setting, address, "https", "http"); err != nil {
		return err
	}
	if u, _ := url.Parse(address); u.Fragment != "" {
		return &endpoint.ConfigError{Setting: setting, Text: "has a fragment (#)"}
	}
	return nil
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2), as the name of a
// header must be.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7F || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// isHeaderValue reports whether s can be sent as the value of a header (RFC 9110,
// section 5.5).
func isHeaderValue(s string) bool {
	return len(s) <= maxHeader && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7F })
}

// login is the address and the headers of a request, and what in them nobody may
// read.
type login struct {
	url     *url.URL
	header  http.Header
	secrets []string
}

// read reads the files that o names. It is done for each request: what somebody has
// replaced holds from the next one on.
func (o *Options) read() (*login, error) {
	l := &login{header: http.Header{}}
	secret := func(s endpoint.Secret) (string, error) {
		text, err := s.Read()
		if err == nil && len(text) > maxHeader {
			err = fmt.Errorf("read %s: it has more than %d bytes", s.What, maxHeader)
		}
		if err == nil && text != "" {
			l.secrets = append(l.secrets, text)
		}
		return text, err
	}
	address := o.URL
	if o.URLFile != "" {
		var err error
		if address, err = secret(endpoint.Secret{What: "url_file", File: o.URLFile}); err != nil {
			return nil, err
		}
		if err := checkURL("url_file", address); err != nil {
			return nil, err
		}
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, &endpoint.ConfigError{Setting: "url", Text: "is not an address"}
	}
	l.url = u
	for name, value := range o.Headers {
		l.header.Set(name, value)
	}
	for name, file := range o.HeaderFiles {
		value, err := secret(endpoint.Secret{What: "header_files: " + name, File: file})
		if err != nil {
			return nil, err
		}
		l.header.Set(name, value)
	}
	switch {
	case o.Username != "":
		password, err := secret(o.Password)
		if err != nil {
			return nil, err
		}
		basic := base64.StdEncoding.EncodeToString([]byte(o.Username + ":" + password))
		l.secrets = append(l.secrets, basic)
		l.header.Set("Authorization", "Basic "+basic)
	case o.Token.Given():
		token, err := secret(o.Token)
		if err != nil {
			return nil, err
		}
		scheme := o.Scheme
		if scheme == "" {
			scheme = "Bearer"
		}
		l.header.Set("Authorization", scheme+" "+token)
	}
	return l, nil
}

// hide takes secrets out of what a server says: some repeat the token that they
// refuse.
func (l *login) hide(text string) string {
	for _, s := range l.secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "[secret]")
		}
	}
	return text
}
