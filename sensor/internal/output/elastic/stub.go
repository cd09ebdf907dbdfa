package elastic

import (
	"context"
	"log/slog"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

type Config struct {
	Addresses []string `yaml:"addresses"`
	Server, Username, PasswordFile, APIKeyFile, ServiceTokenFile, CAFile, CertificateFingerprint, Namespace string
	Spool struct{ Dir string }
}

func (Config) Validate() error { return nil }

type Options struct {
	Wait bool
	Log  *slog.Logger
}
type C struct{}

func New(Config, Options) (*C, error)        { return &C{}, nil }
func (*C) Write(*output.Record) error        { return nil }
func (*C) Close(context.Context) error       { return nil }
