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
	"strconv"
	"strings"
	"time"
)

// The environment variables that credentials may come from, where no file is
// configured for them.
const (
	EnvPassword     = "ODDCERT_ELASTICSEARCH_PASSWORD"
	EnvAPIKey       = "ODDCERT_ELASTICSEARCH_API_KEY"
	EnvServiceToken = "ODDCERT_ELASTICSEARCH_SERVICE_TOKEN"
)

// Config says where Elasticsearch is, and with which credentials to use it.
//
// At most one of password (with Username), API key and service token can be
// given, in a file or in the environment. A configuration file or a URL cannot
// hold a secret.
type Config struct {
	Addresses []string `yaml:"addresses"` // such as https://es.example.net:9200; none switches the output off
	Server    string   `yaml:"server"`    // "elasticsearch", the default, or "opensearch"

	Username         string `yaml:"username"`
	PasswordFile     string `yaml:"password_file"`
	APIKeyFile       string `yaml:"api_key_file"` // id:key, or that in base64
	ServiceTokenFile string `yaml:"service_token_file"`

	CAFile                 string `yaml:"ca_file"`                 // PEM; instead of the system's authorities
	CertificateFingerprint string `yaml:"certificate_fingerprint"` // SHA-256 in hex of the server's certificate or of its authority's

	Namespace string      `yaml:"namespace"` // last part of the data streams' names; default "default"
	Spool     SpoolConfig `yaml:"spool"`
}

// SpoolConfig says where records wait for Elasticsearch.
type SpoolConfig struct {
	Dir  string        `yaml:"dir"`
	Size Size          `yaml:"size"` // limit on disk, such as 1GiB
	Age  time.Duration `yaml:"age"`  // limit for telemetry, such as 168h
}

// Size is a number of bytes, written with or without a unit: 4096, 512MiB, 2GiB.
type Size int64

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	number, shift := string(text), 0
	for unit, n := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40} {
		if rest, ok := strings.CutSuffix(number, unit); ok {
			number, shift = strings.TrimSpace(rest), n
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return fmt.Errorf("size %q is not a number of bytes, such as 4096, 512MiB or 2GiB", text)
	}
	*s = Size(n << shift)
	return nil
}

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

// Validate returns everything that is wrong with c, without reading the files that
// c names.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Addresses) == 0 {
		bad("addresses: none given")
	}
	for i, a := range c.Addresses {
		// What cannot be parsed is not repeated: it may hold a password.
		u, err := url.Parse(a)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			bad("addresses: entry %d is not a URL such as https://es.example.net:9200", i+1)
		case u.User != nil:
			bad("addresses: credentials in the URL of %s are refused: use username and password_file, or %s", u.Host, EnvPassword)
		case u.RawQuery != "" || u.Fragment != "":
			bad("addresses: entry %d has more than scheme, host, port and path", i+1)
		}
	}
	if c.Server != "" && c.Server != "elasticsearch" && c.Server != "opensearch" {
		bad("server: %q is neither elasticsearch nor opensearch", c.Server)
	}
	if c.PasswordFile != "" && c.Username == "" {
		bad("password_file: given without username")
	}
	given := []string{}
	for _, k := range []struct{ key, value string }{
		{"username", c.Username}, {"api_key_file", c.APIKeyFile}, {"service_token_file", c.ServiceTokenFile},
	} {
		if k.value != "" {
			given = append(given, k.key)
		}
	}
	if len(given) > 1 {
		bad("%s: only one of them can be given", strings.Join(given, ", "))
	}
	if _, err := c.fingerprint(); err != nil {
		errs = append(errs, err)
	}
	if !namespaces.MatchString(c.namespace()) {
		bad("namespace: %q is not up to 100 of a-z, 0-9, _ and .", c.Namespace)
	}
	return errors.Join(errs...)
}

// fingerprint is the pinned SHA-256, nil without one.
func (c *Config) fingerprint() ([]byte, error) {
	if c.CertificateFingerprint == "" {
		return nil, nil
	}
	b, err := hex.DecodeString(strings.ReplaceAll(c.CertificateFingerprint, ":", ""))
	if err != nil || len(b) != sha256.Size {
		return nil, errors.New("certificate_fingerprint: not the 64 hex digits of a SHA-256")
	}
	return b, nil
}

// authorization is the Authorization header, empty without credentials.
func (c *Config) authorization() (string, error) {
	explicit := c.Username != "" || c.APIKeyFile != "" || c.ServiceTokenFile != ""
	switch {
	case c.Username != "":
		password, err := secret("password", c.PasswordFile, EnvPassword)
		if err != nil {
			return "", err
		}
		if password == "" {
			return "", fmt.Errorf("read password: neither password_file nor %s is given", EnvPassword)
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

// Plain returns the addresses of other machines to which credentials would go over
// plain HTTP.
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
