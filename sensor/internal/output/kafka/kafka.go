// Package kafka sends records to Apache Kafka, or to what speaks its protocol.
//
// Each record is a message: its JSON is the value, the server that it is about the key,
// its time the timestamp, and the headers event.id and event.dataset say what it is.
// One is delivered when all replicas in sync have acknowledged it. Messages about a
// server are in one partition, in the order in which the records were made; alerts
// and the other records are in order among themselves.
//
// The producer is idempotent (KIP-98): brokers know a batch by the number of the
// producer and its own, and do not take it twice. As long as a [Destination]
// lives, a record is therefore written once, whatever becomes of connections and
// brokers. After the end of a process without leave, the records whose
// acknowledgement it did not note are written again, with the same key and the same
// event.id: consumers that count drop the second one. A transaction would not help, as
// it would have to hold the place in the queue on disk too.
package kafka

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// codecs are the compressions by name, each with what is used where a broker does
// not know it.
var codecs = map[string][]kgo.CompressionCodec{
	"zstd": {kgo.ZstdCompression(), kgo.Lz4Compression(), kgo.NoCompression()},
	"lz4":  {kgo.Lz4Compression(), kgo.NoCompression()},
	"none": {kgo.NoCompression()},
}

// Destination writes records to topics.
type Destination struct {
	cfg    Config
	topics [output.Datasets]string

	// Alerts have connections of their own, so that they wait for nothing else.
	alerts, rest *producer

	timeout time.Duration // of Send
}

// New makes a destination. It reads the files that cfg names, and does not connect
// yet.
func New(cfg Config, log *slog.Logger) (*Destination, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	d := &Destination{cfg: cfg, topics: cfg.topics(), timeout: sendTimeout}
	if _, err := d.cfg.TLS.Config(); err != nil {
		return nil, err
	}
	for _, s := range []*endpoint.Secret{&d.cfg.Password, &d.cfg.Token} {
		if _, err := s.Read(); err != nil {
			return nil, err
		}
	}
	for _, p := range []**producer{&d.alerts, &d.rest} {
		client, err := d.client()
		if err != nil {
			return nil, err
		}
		*p = &producer{d: d, client: client, flights: map[flightID]*flight{}, ids: map[string][16]byte{}}
	}
	for _, b := range cfg.plain() {
		log.Warn("kafka: the secret goes over the network unencrypted", "broker", b)
	}
	return d, nil
}

// client makes a client, which does not connect yet.
func (d *Destination) client() (*kgo.Client, error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(d.cfg.Brokers...),
		kgo.ClientID("oddcert"),
		kgo.DisableClientMetrics(), // brokers can ask clients for their counts (KIP-714)
		kgo.Dialer(d.dial),
		kgo.BrokerMaxReadBytes(maxAnswer),
		kgo.FetchMaxBytes(maxAnswer), // nothing is fetched, but the client compares the two
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(slices.Clone(codecs[d.cfg.Compression])...), // the client orders them in place
		kgo.ProducerBatchMaxBytes(int32(d.cfg.MaxMessageBytes)),
		kgo.ProduceRequestTimeout(produceTimeout),
		kgo.MaxBufferedRecords(2 * maxRecords),
		kgo.UnknownTopicRetries(-1), // retries have no limit, see producer
		kgo.RetryBackoffFn(func(n int) time.Duration { return min(retryMin<<min(n, 16), retryMax) }),
		kgo.MetadataMinAge(retryMin),

		// Nothing is sent before all records of a request are in the client. When a
		// batch fails, all that the client holds for that partition fails with it; what
		// came into the client later would overtake it.
		kgo.ManualFlushing(),
	}
	if m := d.mechanism(); m != nil {
		options = append(options, kgo.SASL(m))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("make kafka client: %w", err)
	}
	return client, nil
}

// mechanism logs in with the secret that there is then, nil when it is not to log in.
func (d *Destination) mechanism() sasl.Mechanism {
	scramAuth := func(context.Context) (scram.Auth, error) {
		password, err := read(&d.cfg.Password)
		return scram.Auth{User: d.cfg.Username, Pass: password}, err
	}
	switch d.cfg.Mechanism {
	case plainText:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			password, err := read(&d.cfg.Password)
			return plain.Auth{User: d.cfg.Username, Pass: password}, err
		})
	case scramSHA256:
		return scram.Sha256(scramAuth)
	case scramSHA512:
		return scram.Sha512(scramAuth)
	case oauthBearer:
		return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			token, err := read(&d.cfg.Token)
			return oauth.Auth{Token: token}, err
		})
	}
	return nil
}

func read(s *endpoint.Secret) (string, error) {
	text, err := s.Read()
	if err != nil {
		return "", fileError{err}
	}
	return text, nil
}

// dial connects to a broker. The files of TLS are read each time: somebody may have
// replaced them.
func (d *Destination) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, endpoint.DialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil || !d.cfg.Encrypt {
		return conn, err
	}
	cfg, err := d.cfg.TLS.Config()
	if err != nil {
		conn.Close()
		return nil, fileError{err}
	}
	if cfg.ServerName, _, err = net.SplitHostPort(address); err != nil {
		conn.Close()
		return nil, err
	}
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, tlsError{fmt.Errorf("handshake with %s: %w", address, err)}
	}
	return secure, nil
}

// Send writes records, and waits until the brokers have acknowledged them.
func (d *Destination) Send(ctx context.Context, records []*output.Record, verdicts []delivery.Verdict) *delivery.Trouble {
	if len(records) == 0 {
		return nil
	}
	if records[0].Dataset == output.Alert {
		return d.alerts.send(ctx, records, verdicts)
	}
	return d.rest.send(ctx, records, verdicts)
}

// Limits bound what Send is called with: one request at a time for each queue, which
// keeps records in order.
func (d *Destination) Limits() delivery.Limits {
	return delivery.Limits{Records: maxRecords, Bytes: maxBytes, Requests: 1}
}

// Close gives up what is not acknowledged, and closes the connections.
func (d *Destination) Close() error {
	d.alerts.close()
	d.rest.close()
	return nil
}

// String is the brokers and the topic.
func (d *Destination) String() string {
	return strings.Join(d.cfg.Brokers, ", ") + ", topic " + d.cfg.Topic
}

// message is the message of a record, which is only lent.
func (d *Destination) message(r *output.Record) *kgo.Record {
	return &kgo.Record{
		Topic: d.topics[r.Dataset],
		Key:   key(r.JSON),
		Value: append([]byte(nil), r.JSON...),
		Headers: []kgo.RecordHeader{
			{Key: "event.id", Value: []byte(r.ID)},
			{Key: "event.dataset", Value: []byte("oddcert." + r.Dataset.Form().String())},
		},
		Timestamp: time.Unix(0, r.Time),
	}
}
