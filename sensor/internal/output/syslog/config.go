package syslog

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/output/cef"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// Config says where the receiver is, and what it gets.
type Config struct {
	// URL is its address: tcp://siem.example.net:514, tls://siem.example.net:6514,
	// udp://siem.example.net:514 or unix:///dev/log. Without a port, it is the one of
	// the example.
	URL string

	Format     string // of the message: "json" (the default, the record), "cef" or "leef"
	Framing    string // over tcp and tls: "octet-counting" (the default) or "newline", see RFC 6587 section 3.4
	Facility   string // "kern" to "local7", default "local0"
	MaxMessage int    // bytes of a message with its header, 1024 to 16 MiB, over UDP to 65507; 0 for DefaultMaxMessage

	TLS endpoint.TLS // for tls://

	Sensor  string // the sensor's name, the HOSTNAME of each message
	Version string // of the program, for the headers of CEF and LEEF
}

// facilities by their number (RFC 5424 section 6.2.1), with the names of syslog(3);
// 12 to 15 have none there.
var facilities = []string{
	"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
	"", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
}

// formats of the message; nil is the record as it is.
var formats = map[string]cef.Format{"": nil, "json": nil, "cef": cef.CEF, "leef": cef.LEEF}

// ports are those without which an address stands: RFC 5426 section 3.3, RFC 5425
// section 4.1; over TCP none is assigned, and 514 is usual (RFC 6587 section 3.1).
var ports = map[string]string{"udp": "514", "tcp": "514", "tls": "6514"}

// Validate names everything that is wrong with c, as far as it shows without the
// files that c names: each is a [*endpoint.ConfigError].
func (c *Config) Validate() error {
	var errs []error
	bad := func(setting, format string, args ...any) {
		errs = append(errs, &endpoint.ConfigError{Setting: setting, Text: fmt.Sprintf(format, args...)})
	}
	u, err := c.Address()
	if err != nil {
		errs = append(errs, err)
		u = &url.URL{}
	}
	if _, ok := formats[c.Format]; !ok {
		bad("format", "%q is none of json, cef and leef", c.Format)
	}
	switch {
	case c.Framing != "" && c.Framing != "octet-counting" && c.Framing != "newline":
		bad("framing", "%q is neither octet-counting nor newline", c.Framing)
	case c.Framing != "" && (u.Scheme == "udp" || u.Scheme == "unix"):
		bad("framing", "has no effect over %s", u.Scheme)
	}
	if c.Facility != "" && !slices.Contains(facilities, c.Facility) {
		bad("facility", "%q is none of kern, user, daemon, auth, local0 to local7 and the others of syslog(3)", c.Facility)
	}
	most := maxMaxMessage
	if u.Scheme == "udp" {
		most = maxUDPMessage
	}
	if c.MaxMessage != 0 && (c.MaxMessage < minMaxMessage || c.MaxMessage > most) {
		bad("max_message_size", "%d is not from %d to %d bytes", c.MaxMessage, minMaxMessage, most)
	}
	errs = append(errs, c.TLS.Validate()...)
	if u.Scheme != "tls" && u.Scheme != "" {
		for setting, value := range map[string]string{
			"ca_file": c.TLS.CAFile, "fingerprint": c.TLS.Fingerprint, "certificate_file": c.TLS.CertificateFile, "key_file": c.TLS.KeyFile,
		} {
			if value != "" {
				bad(setting, "has no effect without an address such as tls://siem.example.net:6514")
			}
		}
	}
	return errors.Join(errs...)
}

// Address is URL, parsed, with a port. It is not repeated in an error, as it may hold a password.
func (c *Config) Address() (*url.URL, error) {
	u, err := url.Parse(c.URL)
	if err == nil && u.Scheme == "unix" {
		if u.Host != "" || u.User != nil || !strings.HasPrefix(u.Path, "/") || u.RawQuery != "" || u.Fragment != "" {
			return nil, &endpoint.ConfigError{Setting: "url", Text: "is not a socket such as unix:///dev/log"}
		}
		return u, nil
	}
	if err := endpoint.CheckURL("url", c.URL, "tcp", "tls", "udp"); err != nil {
		return nil, err
	}
	if u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, &endpoint.ConfigError{Setting: "url", Text: "has more or less than scheme, host and port"}
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), ports[u.Scheme])
	}
	return u, nil
}
