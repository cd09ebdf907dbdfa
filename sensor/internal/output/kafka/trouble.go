package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

// fileError is a file that cannot be read, such as that of a secret.
type fileError struct{ error }

func (e fileError) Unwrap() error { return e.error }

// tlsError is a handshake of TLS that came to no good end.
type tlsError struct{ error }

func (e tlsError) Unwrap() error { return e.error }

// errUnacknowledged is that the brokers answer, and have not acknowledged records in
// time.
var errUnacknowledged = errors.New("the brokers have not acknowledged the records in time")

// tooLarge are the errors of a batch that the brokers never take as it is: one of its
// records is the cause, or their number (Kafka protocol guide, "Error Codes").
var tooLarge = []error{
	kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.CorruptMessage, kerr.InvalidRecord, kerr.InvalidTimestamp,
}

// blocking are the errors that last until somebody changes something, with what that
// is; the others of the protocol pass, or may.
var blocking = []struct {
	err  error
	cure string
}{
	{kerr.UnknownTopicOrPartition, "make the topic"},
	{kerr.UnknownTopicID, "make the topic"},
	{kerr.InvalidTopicException, "choose another name for the topic"},
	{kerr.TopicAuthorizationFailed, "allow the user to describe the topic and to write to it"},
	{kerr.ClusterAuthorizationFailed, "allow the user IdempotentWrite on the cluster, which brokers before 2.8 ask for"},
	{kerr.SaslAuthenticationFailed, "the secret or the user is wrong, or the token has expired"},
	{kerr.UnsupportedSaslMechanism, "choose a mechanism that the brokers allow"},
	{kerr.IllegalSaslState, "this listener has no logins: use another port, or no sasl_mechanism"},
	{kerr.SecurityDisabled, "switch on an authorizer"},
	{kerr.PolicyViolation, "change the policy, or the topic"},
	{kerr.UnsupportedCompressionType, "choose another compression"},
	{kerr.InvalidConfig, "correct the topic's configuration"},
	{kerr.UnsupportedVersion, "a broker of 0.11 or later is needed"},
}

// explain says what err means for the records that it is about.
func explain(err error, encrypted bool) *delivery.Trouble {
	for _, e := range tooLarge {
		if errors.Is(err, e) {
			return &delivery.Trouble{Class: name(err), Err: err, Split: true}
		}
	}
	for _, b := range blocking {
		if errors.Is(err, b.err) {
			return &delivery.Trouble{Class: name(err), Err: fmt.Errorf("%w: %s", err, b.cure), Slow: true}
		}
	}
	var (
		secret     fileError
		handshake  tlsError
		authority  x509.UnknownAuthorityError
		host       x509.HostnameError
		header     tls.RecordHeaderError
		first      *kgo.ErrFirstReadEOF
		network    net.Error
		operation  *net.OpError
		ofProtocol *kerr.Error
	)
	switch {
	case errors.As(err, &secret):
		return &delivery.Trouble{Class: "file", Err: err, Slow: true}
	case errors.As(err, &authority):
		err = fmt.Errorf("%w: give its authority with ca_file, or the SHA-256 of its certificate with fingerprint", err)
		return &delivery.Trouble{Class: "tls", Err: err, Slow: true}
	case errors.As(err, &host):
		err = fmt.Errorf("%w: the names that brokers tell (advertised.listeners) have to be in their certificates", err)
		return &delivery.Trouble{Class: "tls", Err: err, Slow: true}
	case errors.As(err, &header):
		return &delivery.Trouble{Class: "tls", Err: fmt.Errorf("%w: the broker does not speak TLS on this port", err), Slow: true}
	case errors.As(err, &operation) && operation.Op == "remote error": // an alert of TLS
		return &delivery.Trouble{Class: "tls", Err: err, Slow: true}
	case errors.As(err, &handshake) && !isNetwork(handshake.error):
		return &delivery.Trouble{Class: "tls", Err: err, Slow: true}
	case errors.As(err, &first) && !encrypted, strings.Contains(err.Error(), "plaintext connection"):
		return &delivery.Trouble{Class: "hung up", Err: fmt.Errorf("%w: if the broker speaks TLS there, use tls", err)}
	case errors.As(err, &ofProtocol):
		return &delivery.Trouble{Class: name(err), Err: err}
	case errors.Is(err, errUnacknowledged):
		return &delivery.Trouble{Class: "not acknowledged", Err: err}
	case errors.As(err, &network), isNetwork(err), kgo.IsRetryableBrokerErr(err):
		return &delivery.Trouble{Class: "network", Err: err}
	}
	return &delivery.Trouble{Class: "client", Err: err}
}

// isNetwork reports whether err is of the network below TLS and Kafka.
func isNetwork(err error) bool {
	var syscall *os.SyscallError
	return errors.As(err, &syscall) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// name is the name that the protocol has for err, such as NOT_ENOUGH_REPLICAS.
func name(err error) string {
	var e *kerr.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return "client"
}
