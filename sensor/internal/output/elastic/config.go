package elastic

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
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
	Addresses []string // such as https://es.example.net:9200; one that does not answer is left out for a while
	CloudID   string   // in the place of Addresses, as Elastic Cloud shows it
	Server    string   // "elasticsearch" or "opensearch"; empty for what the answers say

	Username         string
	PasswordFile     string
	APIKeyFile       string // id:key, or that in base64
	ServiceTokenFile string

	TLS endpoint.TLS

	Namespace string // last part of the data streams' names; default "default"
}

// Given reports whether c says where a server is.
func (c *Config) Given() bool { return len(c.Addresses) > 0 || c.CloudID != "" }

// The names that Elasticsearch allows in a data stream's namespace, which
// cannot have a hyphen.
var namespaces = regexp.MustCompile(`^[a-z0-9][a-z0-9_.]{0,99}$`)

func (c *Config) namespace() string {
	if c.Namespace == "" {
		return "default"
	}
	return c.Namespace
}

// Validate names everything that is wrong with c, as far as it shows without
// the files that c names: each is an [*endpoint.ConfigError].
func (c *Config) Validate() error {
	var errs []error
	bad := func(setting, format string, args ...any) {
		errs = append(errs, &endpoint.ConfigError{Setting: setting, Text: fmt.Sprintf(format, args...)})
	}
	switch {
	case len(c.Addresses) == 0 && c.CloudID == "":
		bad("url", "no address is given")
	case len(c.Addresses) > 0 && c.CloudID != "":
		bad("cloud_id", "only one of url, cloud_id can be given")
	case c.CloudID != "":
		if _, err := cloudAddress(c.CloudID); err != nil {
			bad("cloud_id", "%v", err)
		}
	}
	for i, a := range c.Addresses {
		// What cannot be parsed is not repeated: it may hold a password.
		u, err := url.Parse(a)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			bad("url", "entry %d is not a URL such as https://es.example.net:9200", i+1)
		case u.User != nil:
			bad("url", "credentials in the URL of %s are refused: use username and password_file, or %s", u.Host, EnvPassword)
		case u.RawQuery != "" || u.Fragment != "":
			bad("url", "entry %d has more than scheme, host, port and path", i+1)
		}
	}
	if c.Server != "" && c.Server != "elasticsearch" && c.Server != "opensearch" {
		bad("server", "%q is neither elasticsearch nor opensearch", c.Server)
	}
	if c.PasswordFile != "" && c.Username == "" {
		bad("password_file", "username is missing")
	}
	var given []string
	for _, o := range []struct{ name, value string }{
		{"username", c.Username}, {"api_key_file", c.APIKeyFile}, {"service_token_file", c.ServiceTokenFile},
	} {
		if o.value != "" {
			given = append(given, o.name)
		}
	}
	if len(given) > 1 {
		bad(given[len(given)-1], "only one of %s can be given", strings.Join(given, ", "))
	}
	errs = append(errs, c.TLS.Validate()...)
	if !namespaces.MatchString(c.namespace()) {
		bad("namespace", "%q is not up to 100 of a-z, 0-9, _ and .", c.Namespace)
	}
	return errors.Join(errs...)
}

// URLs are those of the servers, without a slash at their end.
func (c *Config) URLs() ([]*url.URL, error) {
	texts := c.Addresses
	if c.CloudID != "" {
		a, err := cloudAddress(c.CloudID)
		if err != nil {
			return nil, fmt.Errorf("read cloud_id: %w", err)
		}
		texts = []string{a}
	}
	urls := make([]*url.URL, len(texts))
	for i, a := range texts {
		u, err := url.Parse(strings.TrimRight(a, "/"))
		if err != nil {
			return nil, fmt.Errorf("read address %d", i+1) // url.Parse repeats what it cannot parse
		}
		urls[i] = u
	}
	return urls, nil
}

// cloudAddress is the address of Elasticsearch in a Cloud ID:
//
//	[label:]base64(host[:port]$id of Elasticsearch[:port][$id of Kibana])
//
// The name of the server is its id and the host; the port is that of the id, or else
// that of the host, or else 443. Source: libbeat's reference, "Configure the output
// for Elasticsearch Service on Elastic Cloud", and its package cloudid.
func cloudAddress(id string) (string, error) {
	bad := errors.New("is not a Cloud ID such as the deployment's page in Elastic Cloud shows")
	text, err := base64.StdEncoding.DecodeString(id[strings.LastIndexByte(id, ':')+1:])
	if err != nil {
		return "", bad
	}
	parts := strings.Split(string(text), "$")
	if len(parts) < 2 {
		return "", bad
	}
	host, hostPort, _ := strings.Cut(parts[0], ":")
	name, port, _ := strings.Cut(parts[1], ":")
	if port == "" {
		port = hostPort
	}
	if port == "" {
		port = "443"
	}
	if !hostNames.MatchString(name+"."+host) || !ports.MatchString(port) {
		return "", bad
	}
	return "https://" + name + "." + host + ":" + port, nil
}

var (
	hostNames = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
	ports     = regexp.MustCompile(`^[0-9]{1,5}$`)
)

// The secrets that let us in.
func (c *Config) password() endpoint.Secret {
	return endpoint.Secret{What: "password", File: c.PasswordFile, Env: EnvPassword}
}

func (c *Config) apiKey() endpoint.Secret {
	return endpoint.Secret{What: "API key", File: c.APIKeyFile, Env: EnvAPIKey}
}

func (c *Config) serviceToken() endpoint.Secret {
	return endpoint.Secret{What: "service token", File: c.ServiceTokenFile, Env: EnvServiceToken}
}

// secret is the one of them that is in use, or nil. What is configured has
// precedence over what is only in the environment.
func (c *Config) secret() *endpoint.Secret {
	password, key, token := c.password(), c.apiKey(), c.serviceToken()
	switch {
	case c.Username != "":
		return &password
	case c.APIKeyFile != "":
		return &key
	case c.ServiceTokenFile != "":
		return &token
	case key.Given():
		return &key
	case token.Given():
		return &token
	}
	return nil
}

// authorization reads the header that lets us in, empty when there is none.
func (c *Config) authorization() (string, error) {
	secret := c.secret()
	if secret == nil {
		return "", nil
	}
	text, err := secret.Read()
	if err != nil {
		return "", err
	}
	switch secret.Env {
	case EnvPassword:
		if text == "" {
			return "", fmt.Errorf("read password: neither password_file nor %s is given", EnvPassword)
		}
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+text)), nil
	case EnvAPIKey:
		if strings.Contains(text, ":") {
			text = base64.StdEncoding.EncodeToString([]byte(text))
		}
		return "ApiKey " + text, nil
	}
	return "Bearer " + text, nil
}

// Plain returns the addresses that get credentials over plain HTTP, other than
// those of this machine.
func (c *Config) Plain() (plain []string) {
	if given, err := c.authorization(); given == "" || err != nil {
		return nil
	}
	for _, a := range c.Addresses {
		if strings.HasPrefix(a, "http:") && endpoint.IsPlain(a) {
			plain = append(plain, a)
		}
	}
	return plain
}
