package elastic

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
)

// The environment variables that credentials may come from, where no file is
// configured for them.
const (
	EnvPassword     = "ODDCERT_ES_PASSWORD"
	EnvAPIKey       = "ODDCERT_ES_API_KEY"
	EnvServiceToken = "ODDCERT_ES_SERVICE_TOKEN"
)

// Config says where Elasticsearch is, and how to get in.
//
// At most one of password (with Username), API key and service token can be
// given, in a file or in the environment: a configuration file or a URL is no
// place for a secret.
type Config struct {
	Addresses []string // such as https://es.example.net:9200; without one the output is off
	Server    string   // "elasticsearch", the default, or "opensearch"

	Username         string
	PasswordFile     string
	APIKeyFile       string // id:key, or that in base64
	ServiceTokenFile string

	CAFile                 string // PEM; instead of the system's authorities
	CertificateFingerprint string // SHA-256 in hex of the server's certificate or of its authority's

	Namespace string // last part of the data streams' names; default "default"
}

// ConfigError is one thing that is wrong with a [Config].
type ConfigError struct {
	Option string // the option of the program that sets it, such as "es-server"
	Text   string // what is wrong with it
}

func (e *ConfigError) Error() string { return e.Option + ": " + e.Text }

// The names that Elasticsearch allows in a data stream's namespace, which
// cannot have a hyphen.
var namespaces = regexp.MustCompile(`^[a-z0-9][a-z0-9_.]{0,99}$`)

func (c *Config) namespace() string {
	if c.Namespace == "" {
		return "default"
	}
	return c.Namespace
}

func (c *Config) openSearch() bool { return c.Server == "opensearch" }

// Validate names everything that is wrong with c, as far as it shows without
// the files that c names: each is a [*ConfigError].
func (c *Config) Validate() error {
	var errs []error
	bad := func(option, format string, args ...any) {
		errs = append(errs, &ConfigError{option, fmt.Sprintf(format, args...)})
	}
	if len(c.Addresses) == 0 {
		bad("es", "no address is given")
	}
	for i, a := range c.Addresses {
		// What cannot be parsed is not repeated: it may hold a password.
		u, err := url.Parse(a)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			bad("es", "entry %d is not a URL such as https://es.example.net:9200", i+1)
		case u.User != nil:
			bad("es", "credentials in the URL of %s are refused: use es-username and es-password-file, or %s", u.Host, EnvPassword)
		case u.RawQuery != "" || u.Fragment != "":
			bad("es", "entry %d has more than scheme, host, port and path", i+1)
		}
	}
	if c.Server != "" && c.Server != "elasticsearch" && c.Server != "opensearch" {
		bad("es-server", "%q is neither elasticsearch nor opensearch", c.Server)
	}
	if c.PasswordFile != "" && c.Username == "" {
		bad("es-password-file", "es-username is missing")
	}
	var given []string
	for _, o := range []struct{ name, value string }{
		{"es-username", c.Username}, {"es-api-key-file", c.APIKeyFile}, {"es-service-token-file", c.ServiceTokenFile},
	} {
		if o.value != "" {
			given = append(given, o.name)
		}
	}
	if len(given) > 1 {
		bad(given[len(given)-1], "only one of %s can be given", strings.Join(given, ", "))
	}
	if _, err := c.fingerprint(); err != nil {
		bad("es-fingerprint", "%v", err)
	}
	if !namespaces.MatchString(c.namespace()) {
		bad("es-namespace", "%q is not up to 100 of a-z, 0-9, _ and .", c.Namespace)
	}
	return errors.Join(errs...)
}

// fingerprint is the pin, nil when there is none.
func (c *Config) fingerprint() ([]byte, error) {
	if c.CertificateFingerprint == "" {
		return nil, nil
	}
	b, err := hex.DecodeString(strings.ReplaceAll(c.CertificateFingerprint, ":", ""))
	if err != nil || len(b) != sha256.Size {
		return nil, errors.New("the fingerprint is not the 64 hex digits of a SHA-256")
	}
	return b, nil
}

// authorization is the header that lets us in, empty when there is none.
func (c *Config) authorization() (string, error) {
	explicit := c.Username != "" || c.APIKeyFile != "" || c.ServiceTokenFile != ""
	switch {
	case c.Username != "":
		password, err := secret("password", c.PasswordFile, EnvPassword)
		if err != nil {
			return "", err
		}
		if password == "" {
			return "", fmt.Errorf("read password: neither es-password-file nor %s is given", EnvPassword)
		}
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+password)), nil
	case c.APIKeyFile != "" || !explicit && os.Getenv(EnvAPIKey) != "":
		key, err := secret("API key", c.APIKeyFile, EnvAPIKey)
		if err != nil {
			return "", err
		}
		if strings.Contains(key, ":") {
			key = base64.StdEncoding.EncodeToString([]byte(key))
		}
		return "ApiKey " + key, nil
	case c.ServiceTokenFile != "" || !explicit && os.Getenv(EnvServiceToken) != "":
		token, err := secret("service token", c.ServiceTokenFile, EnvServiceToken)
		if err != nil {
			return "", err
		}
		return "Bearer " + token, nil
	}
	return "", nil
}

// secret reads one secret from its file, or else from the environment.
func secret(what, file, env string) (string, error) {
	s := os.Getenv(env)
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", what, err)
		}
		s = strings.TrimSpace(string(b))
		if s == "" {
			return "", fmt.Errorf("read %s: %s is empty", what, file)
		}
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7F }) {
		return "", fmt.Errorf("read %s: it has control characters", what)
	}
	return s, nil
}

// Plain returns the addresses that get credentials over plain HTTP, other than
// those of this machine.
func (c *Config) Plain() (plain []string) {
	if given, err := c.authorization(); given == "" || err != nil {
		return nil
	}
	for _, a := range c.Addresses {
		u, err := url.Parse(a)
		if err != nil || u.Scheme != "http" {
			continue
		}
		host := u.Hostname()
		ip, _ := netip.ParseAddr(host)
		if host != "localhost" && !ip.Unmap().IsLoopback() {
			plain = append(plain, a)
		}
	}
	return plain
}
