package splunk

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
	"github.com/oddcert/oddcert/sensor/internal/output/httpsend"
)

// EnvToken is the variable of the environment that the token may come from, where no
// file is configured for it.
const EnvToken = "ODDCERT_SPLUNK_TOKEN"

// Config says where the HTTP Event Collector is. The settings have the names of the
// fields in snake_case.
type Config struct {
	URL       string // https://splunk.example.net:8088; paths below /services/collector are added
	TokenFile string // holds the token of the collector
	Ack       string // true, the default, or false: the token has no indexer acknowledgement, and what was accepted counts as delivered

	Index  string // where records go; without one, where the token says
	Source string // oddcert by default

	TLS endpoint.TLS
}

// indexes are the names that Splunk allows for an index (Managing Indexers and
// Clusters, "Create custom indexes").
var indexes = regexp.MustCompile(`^[a-z0-9_][a-z0-9_-]{0,254}$`)

func (c *Config) options() httpsend.Options {
	return httpsend.Options{
		URL:   strings.TrimSuffix(strings.TrimRight(c.URL, "/"), "/services/collector"),
		Token: c.token(), Scheme: "Splunk", TLS: c.TLS,
	}
}

func (c *Config) ack() bool { return c.Ack != "false" }

func (c *Config) token() endpoint.Secret {
	return endpoint.Secret{What: "token_file", File: c.TokenFile, Env: EnvToken}
}

// Validate names everything that is wrong with c, as far as it shows without its
// files: each is a [*endpoint.ConfigError].
func (c *Config) Validate() error {
	options := c.options()
	errs := options.Validate()
	bad := func(setting, format string, args ...any) {
		errs = append(errs, &endpoint.ConfigError{Setting: setting, Text: fmt.Sprintf(format, args...)})
	}
	if strings.ContainsAny(c.URL, "?#") || strings.Contains(options.URL, "/services/collector") {
		bad("url", "has more than scheme, host, port and path of the server")
	}
	if token := c.token(); !token.Given() {
		bad("token_file", "is missing, and so is %s", EnvToken)
	}
	if c.Ack != "" && c.Ack != "true" && c.Ack != "false" {
		bad("ack", "%q is neither true nor false", c.Ack)
	}
	if c.Index != "" && !indexes.MatchString(c.Index) {
		bad("index", "%q is not the name of an index", c.Index)
	}
	return errors.Join(errs...)
}
