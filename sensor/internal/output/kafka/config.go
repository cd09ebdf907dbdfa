package kafka

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// Config says where the brokers are, how to get in, and what to write.
type Config struct {
	// Brokers are host:port of some of the brokers, from which the others are
	// learned. Without a port it is 9092.
	Brokers []string

	// Topic is the topic, "oddcert" when empty. {dataset} in it stands for the kind of
	// the record, such as alert. Topics are not made.
	Topic string

	// Encrypt asks for TLS. A setting of TLS asks for it too.
	Encrypt bool
	TLS     endpoint.TLS

	// Mechanism is how to log in (SASL): PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or
	// OAUTHBEARER, in any case; empty for not at all. The first three need Username
	// and Password, the last one Token. Both secrets are read for each login.
	Mechanism string
	Username  string
	Password  endpoint.Secret
	Token     endpoint.Secret // a JSON Web Token, as a rule

	// Compression of batches is zstd, the default, lz4 or none.
	Compression string

	// MaxMessageBytes bounds a batch, and so a record, before compression: 1,000,000
	// when 0, which fits brokers as they are by default. It is not to be more than
	// max.message.bytes of the topic.
	MaxMessageBytes int
}

// The mechanisms of SASL, as Kafka names them.
const (
	plainText   = "PLAIN"         // RFC 4616
	scramSHA256 = "SCRAM-SHA-256" // RFC 7677
	scramSHA512 = "SCRAM-SHA-512"
	oauthBearer = "OAUTHBEARER" // RFC 7628
)

const dataset = "{dataset}" // in the name of a topic

// withDefaults is c with the defaults of what is not given.
func (c Config) withDefaults() Config {
	if c.Topic == "" {
		c.Topic = "oddcert"
	}
	if c.Compression == "" {
		c.Compression = "zstd"
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = defaultMessage
	}
	c.Mechanism = strings.ToUpper(c.Mechanism)
	c.Encrypt = c.Encrypt || c.TLS != endpoint.TLS{}
	c.Password.What, c.Token.What = "password", "token"
	return c
}

// Validate names everything that is wrong with c, as far as it shows without the
// files that c names: each is a [*endpoint.ConfigError].
func (c *Config) Validate() error {
	errs := c.TLS.Validate()
	bad := func(setting, format string, args ...any) {
		errs = append(errs, &endpoint.ConfigError{Setting: setting, Text: fmt.Sprintf(format, args...)})
	}
	if n := len(c.Brokers); n == 0 || n > maxBrokers {
		bad("brokers", "has %d entries: 1 to %d are needed", n, maxBrokers)
	}
	for i, b := range c.Brokers {
		// What is not an address is not repeated: it may hold a password.
		if !isAddress(b) {
			bad("brokers", "entry %d is not an address such as kafka.example.net:9092", i+1)
		}
	}
	d := c.withDefaults()
	for _, name := range d.topics() {
		if !isTopic(name) {
			bad("topic", "%q is not up to %d of a-z, A-Z, 0-9, ., _ and -, where {dataset} stands for the kind of a record", c.Topic, maxTopic)
			break
		}
	}
	switch d.Mechanism {
	case "":
		if c.Username != "" || c.Password.File != "" || c.Token.File != "" {
			bad("sasl_mechanism", "is missing: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER")
		}
	case plainText, scramSHA256, scramSHA512:
		if c.Username == "" {
			bad("username", "is missing: %s needs it", d.Mechanism)
		}
		if !c.Password.Given() {
			bad("password_file", "is missing: %s needs it", d.Mechanism)
		}
		if c.Token.File != "" {
			bad("token_file", "is for OAUTHBEARER")
		}
	case oauthBearer:
		if !c.Token.Given() {
			bad("token_file", "is missing: OAUTHBEARER needs it")
		}
		if c.Username != "" || c.Password.File != "" {
			bad("username", "and password_file are not for OAUTHBEARER")
		}
	default:
		bad("sasl_mechanism", "%q is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER", c.Mechanism)
	}
	if _, ok := codecs[d.Compression]; !ok {
		bad("compression", "%q is none of zstd, lz4 and none", c.Compression)
	}
	if d.MaxMessageBytes < minMessage || d.MaxMessageBytes > maxMessage {
		bad("max_message_bytes", "%d is not between %d and %d", c.MaxMessageBytes, minMessage, maxMessage)
	}
	return errors.Join(errs...)
}

// topics are the topics of the datasets.
func (c *Config) topics() (topics [output.Datasets]string) {
	for i := range topics {
		topics[i] = strings.ReplaceAll(c.Topic, dataset, output.Dataset(i).Form().String())
	}
	return topics
}

// isTopic reports whether a topic can have this name (org.apache.kafka.common.internals.Topic).
func isTopic(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxTopic &&
		!strings.ContainsFunc(name, func(r rune) bool { return !isTopicRune(r) })
}

func isTopicRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '_' || r == '-'
}

// isAddress reports whether s is a host with or without a port.
func isAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"), "9092"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return false
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host != "" && len(host) <= 253 && !strings.ContainsFunc(host, func(r rune) bool { return !isTopicRune(r) })
}

// plain are the brokers that get the secret in the clear, other than this machine.
func (c *Config) plain() (plain []string) {
	if c.Encrypt || c.Mechanism != plainText && c.Mechanism != oauthBearer {
		return nil
	}
	for _, b := range c.Brokers {
		if endpoint.IsPlain("kafka://" + b) {
			plain = append(plain, b)
		}
	}
	return plain
}
