package otlp

import (
	"errors"
	"net/url"

	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
	"github.com/oddcert/oddcert/sensor/internal/output/httpsend"
)

// EnvToken is the variable of the environment that the token may come from, where no
// file is configured for it and no username.
const EnvToken = "ODDCERT_OTLP_TOKEN"

// Config says where the receiver is. The settings have the names of the fields in
// snake_case.
type Config struct {
	URL string // https://collector.example.net:4318; without a path, /v1/logs is added

	Headers     map[string]string // sent with each request
	HeaderFiles map[string]string // names of files that hold the values of headers that are secrets

	Username     string // for HTTP's basic authentication
	PasswordFile string
	TokenFile    string // for a bearer token, instead

	TLS endpoint.TLS

	Version string // of oddcert, for service.version: no setting
}

func (c *Config) options() httpsend.Options {
	o := httpsend.Options{
		URL: c.URL, Headers: c.Headers, HeaderFiles: c.HeaderFiles,
		Username: c.Username, Password: endpoint.Secret{What: "password_file", File: c.PasswordFile},
		Token: endpoint.Secret{What: "token_file", File: c.TokenFile},
		TLS:   c.TLS,
	}
	if c.Username == "" {
		o.Token.Env = EnvToken
	}
	// An address without a path is that of all signals, as in the variables of
	// OpenTelemetry's exporters; one with a path is taken as it is.
	if u, err := url.Parse(c.URL); err == nil && (u.Path == "" || u.Path == "/") {
		u.Path = "/v1/logs"
		o.URL = u.String()
	}
	return o
}

// Validate names everything that is wrong with c, as far as it shows without its
// files: each is a [*endpoint.ConfigError].
func (c *Config) Validate() error {
	if c.URL == "" {
		return errors.Join(&endpoint.ConfigError{Setting: "url", Text: "is missing"})
	}
	options := c.options()
	return errors.Join(options.Validate()...)
}
