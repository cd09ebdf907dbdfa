package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
	"github.com/oddcert/oddcert/sensor/internal/output/httpsend"
)

// Config says where requests go and what is in them. The settings have the names of
// the fields in snake_case.
type Config struct {
	URL     string // https://hooks.example.net/oddcert
	URLFile string // holds the address instead, where that is a secret
	Method  string // POST, the default, or PUT

	TemplateFile string            // of the body; without one the body is the record
	SecretFiles  map[string]string // what the template asks for with secret "NAME"; the file's name by NAME
	ContentType  string            // of the body; application/json by default
	BatchSize    int               // records in a request, 1 to 1000; 1 by default

	Headers     map[string]string // sent with each request
	HeaderFiles map[string]string // names of files that hold the values of headers that are secrets

	Username     string // for HTTP's basic authentication
	PasswordFile string
	TokenFile    string // for a bearer token, instead

	SigningSecretFile string // a secret as Standard Webhooks has it: whsec_ and base64; without one, nothing is signed

	DeadStatus int // an answer that refuses the record for good, besides 400, 413, 415 and 422; 0 for none

	TLS endpoint.TLS
}

// own are the headers that a webhook sets itself.
var own = []string{"Idempotency-Key", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"}

var secretNames = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

func (c *Config) options() httpsend.Options {
	return httpsend.Options{
		URL: c.URL, URLFile: c.URLFile, Headers: c.Headers, HeaderFiles: c.HeaderFiles,
		Username: c.Username, Password: endpoint.Secret{What: "password_file", File: c.PasswordFile},
		Token: endpoint.Secret{What: "token_file", File: c.TokenFile},
		TLS:   c.TLS,
	}
}

// Validate names everything that is wrong with c, as far as it shows without its
// files: each is a [*endpoint.ConfigError].
func (c *Config) Validate() error {
	options := c.options()
	errs := options.Validate(own...)
	bad := func(setting, format string, args ...any) {
		errs = append(errs, &endpoint.ConfigError{Setting: setting, Text: fmt.Sprintf(format, args...)})
	}
	if c.Method != "" && c.Method != http.MethodPost && c.Method != http.MethodPut {
		bad("method", "%q is neither POST nor PUT", c.Method)
	}
	if c.ContentType != "" {
		if _, _, err := mime.ParseMediaType(c.ContentType); err != nil {
			bad("content_type", "%q is not a media type such as application/json", c.ContentType)
		}
	}
	if c.BatchSize < 0 || c.BatchSize > maxBatch {
		bad("batch_size", "%d is not from 1 to %d", c.BatchSize, maxBatch)
	}
	if len(c.SecretFiles) > 0 && c.TemplateFile == "" {
		bad("secret_files", "are for a template, and there is no template_file")
	}
	for _, name := range slices.Sorted(maps.Keys(c.SecretFiles)) {
		if !secretNames.MatchString(name) {
			bad("secret_files", "%q is not a name of letters, digits and _", name)
		}
	}
	if c.DeadStatus != 0 && (c.DeadStatus < 400 || c.DeadStatus > 499) {
		bad("dead_status", "%d is not from 400 to 499", c.DeadStatus)
	}
	return errors.Join(errs...)
}

// readTemplate reads the file of the template.
func (c *Config) readTemplate() (string, error) {
	b, err := os.ReadFile(c.TemplateFile)
	if err != nil {
		return "", fmt.Errorf("read template_file: %w", err)
	}
	if len(b) > maxTemplate {
		return "", fmt.Errorf("read template_file: %s has more than %d bytes", c.TemplateFile, maxTemplate)
	}
	return string(b), nil
}

// signingKey reads the key of the signature, nil where there is none.
func (c *Config) signingKey() ([]byte, error) {
	s := endpoint.Secret{What: "signing_secret_file", File: c.SigningSecretFile}
	if !s.Given() {
		return nil, nil
	}
	text, err := s.Read()
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsec_"))
	if err != nil || len(key) < minKey || len(key) > maxKey {
		return nil, fmt.Errorf("read signing_secret_file: it is not whsec_ and the base64 of %d to %d bytes", minKey, maxKey)
	}
	return key, nil
}

// secrets reads what templates ask for.
func (c *Config) secrets() (map[string]string, error) {
	values := map[string]string{}
	for name, file := range c.SecretFiles {
		s := endpoint.Secret{What: "secret_files: " + name, File: file}
		value, err := s.Read()
		if err != nil {
			return nil, err
		}
		values[name] = value
	}
	return values, nil
}
