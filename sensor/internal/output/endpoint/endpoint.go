// Package endpoint has what all outputs that go over the network need: TLS with
// pins and client certificates, and secrets from files or the environment.
//
// Files are read again when they have changed, so that an output goes on when
// somebody has replaced a key that expired.
package endpoint

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"
)

// DialTimeout bounds the time to connect, and that for the handshake of TLS after it.
const DialTimeout = 10 * time.Second

// ConfigError is one thing that is wrong with the configuration of an output.
type ConfigError struct {
	Setting string // its name, such as ca_file
	Text    string // what is wrong with it
}

func (e *ConfigError) Error() string { return e.Setting + ": " + e.Text }

// TLS says whom to trust, and how to show who we are.
type TLS struct {
	CAFile          string // PEM; instead of the authorities of the system
	Fingerprint     string // SHA-256 in hex of the server's certificate, or of its authority's
	CertificateFile string // PEM, of the client, with its chain
	KeyFile         string // PEM, of CertificateFile
}

// Validate names everything that is wrong with t, as far as it shows without its
// files: each is a [*ConfigError].
func (t *TLS) Validate() (errs []error) {
	if _, err := t.pin(); err != nil {
		errs = append(errs, &ConfigError{"fingerprint", err.Error()})
	}
	if t.CertificateFile != "" && t.KeyFile == "" {
		errs = append(errs, &ConfigError{"key_file", "is missing: certificate_file needs it"})
	}
	if t.KeyFile != "" && t.CertificateFile == "" {
		errs = append(errs, &ConfigError{"certificate_file", "is missing: key_file is that of a certificate"})
	}
	return errs
}

// pin is the fingerprint, nil when there is none.
func (t *TLS) pin() ([]byte, error) {
	if t.Fingerprint == "" {
		return nil, nil
	}
	b, err := hex.DecodeString(strings.ReplaceAll(t.Fingerprint, ":", ""))
	if err != nil || len(b) != sha256.Size {
		return nil, errors.New("the fingerprint is not the 64 hex digits of a SHA-256")
	}
	return b, nil
}

// Config is the configuration of a client. The certificate of the client is read
// for each connection; the authorities are read once.
func (t *TLS) Config() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read ca_file: no PEM certificate in %s", t.CAFile)
		}
	}
	if t.CertificateFile != "" {
		if _, err := tls.LoadX509KeyPair(t.CertificateFile, t.KeyFile); err != nil {
			return nil, fmt.Errorf("read certificate_file: %w", err)
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(t.CertificateFile, t.KeyFile)
			return &c, err
		}
	}
	pin, err := t.pin()
	if err != nil {
		return nil, fmt.Errorf("read fingerprint: %w", err)
	}
	if pin == nil {
		return cfg, nil
	}
	// The pin takes the place of the authorities, unless there is a CA file: then
	// both must hold.
	cfg.InsecureSkipVerify = t.CAFile == ""
	cfg.VerifyConnection = func(s tls.ConnectionState) error { return verifyPin(s, pin) }
	return cfg, nil
}

// ErrFingerprint is the error of a handshake with a server that has not the pinned
// certificate.
var ErrFingerprint = errors.New("fingerprint: no certificate that the server sent has it")

// verifyPin accepts the pinned certificate itself, and a certificate for this
// host name that the pinned one has signed.
func verifyPin(s tls.ConnectionState, pin []byte) error {
	for i, cert := range s.PeerCertificates {
		sum := sha256.Sum256(cert.Raw)
		if subtle.ConstantTimeCompare(sum[:], pin) == 0 {
			continue
		}
		if i == 0 {
			return nil
		}
		o := x509.VerifyOptions{DNSName: s.ServerName, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
		o.Roots.AddCert(cert)
		for _, between := range s.PeerCertificates[1:i] {
			o.Intermediates.AddCert(between)
		}
		_, err := s.PeerCertificates[0].Verify(o)
		return err
	}
	return ErrFingerprint
}

// Secret is a secret in a file, or else in a variable of the environment: a
// configuration file, a URL and a flag are no places for one.
type Secret struct {
	What string // it is, for messages: password
	File string // empty for none
	Env  string // the variable's name, empty for none
}

// Given reports whether somebody has said where the secret is.
func (s *Secret) Given() bool { return s.File != "" || s.Env != "" && os.Getenv(s.Env) != "" }

// Read returns the secret, empty when none is given. It reads the file every time,
// as somebody may have replaced it.
func (s *Secret) Read() (string, error) {
	text := ""
	if s.Env != "" {
		text = os.Getenv(s.Env)
	}
	if s.File != "" {
		b, err := os.ReadFile(s.File)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", s.What, err)
		}
		if text = strings.TrimSpace(string(b)); text == "" {
			return "", fmt.Errorf("read %s: %s is empty", s.What, s.File)
		}
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7F }) {
		return "", fmt.Errorf("read %s: it has control characters", s.What)
	}
	return text, nil
}

// CheckURL says what is wrong with the address of a server, nil when nothing is. It
// does not repeat what cannot be parsed, which may hold a password.
func CheckURL(setting, address string, schemes ...string) error {
	u, err := url.Parse(address)
	if err == nil && u.Host != "" {
		for _, s := range schemes {
			if u.Scheme != s {
				continue
			}
			if u.User != nil {
				return &ConfigError{setting, "credentials in the address of " + u.Host + " are refused"}
			}
			return nil
		}
	}
	return &ConfigError{setting, "is not an address such as " + schemes[0] + "://siem.example.net"}
}

// IsPlain reports whether what goes to an address can be read on the way: it is
// neither encrypted nor does it stay on this machine.
func IsPlain(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "https" || u.Scheme == "tls" || u.Scheme == "unix" {
		return false
	}
	host := u.Hostname()
	ip, _ := netip.ParseAddr(host)
	return host != "localhost" && !ip.Unmap().IsLoopback()
}
