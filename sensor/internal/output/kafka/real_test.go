package kafka

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
	"github.com/oddcert/oddcert/sensor/internal/output/kafka/kafkatest"
)

const partitions = 4

// topic makes a topic for one test.
func topic(t *testing.T, b *kafkatest.Broker, settings ...string) string {
	t.Helper()
	name := topicName(t)
	b.Create(t, name, partitions, settings...)
	return name
}

func topicName(t *testing.T) string {
	return fmt.Sprintf("%s-%x", strings.ReplaceAll(t.Name(), "/", "."), time.Now().UnixNano())
}

// wantMessages reads a topic with Kafka's consumer, and tests that it holds each of the
// records once, as it is, and those of a server in order.
func wantMessages(t *testing.T, b *kafkatest.Broker, topic string, records []*output.Record) {
	t.Helper()
	want := map[string]*output.Record{}
	for _, r := range records {
		want[r.ID] = r
	}
	last := map[string]int{}
	where := map[string]int{}
	for _, m := range b.Read(t, topic, partitions) {
		var v struct {
			Event       struct{ ID, Dataset string }
			Destination struct {
				IP   string
				Port int
			}
			N int
		}
		if err := json.Unmarshal([]byte(m.Value), &v); err != nil {
			t.Fatal(err)
		}
		r := want[v.Event.ID]
		if r == nil {
			t.Fatalf("%s is there twice, or is nobody's", v.Event.ID)
		}
		delete(want, v.Event.ID)
		server := fmt.Sprintf("%s:%d", v.Destination.IP, v.Destination.Port)
		headers := "event.id:" + v.Event.ID + ",event.dataset:" + v.Event.Dataset
		if m.Value != string(r.JSON) || m.Key != server || m.Headers != headers || m.Timestamp != r.Time/int64(time.Millisecond) {
			t.Fatalf("the message %+v is not that of %s", m, r.JSON)
		}
		if n, ok := last[server]; ok && (v.N <= n || where[server] != m.Partition) {
			t.Fatalf("record %d of %s in partition %d comes after %d in %d", v.N, server, m.Partition, n, where[server])
		}
		last[server], where[server] = v.N, m.Partition
	}
	if len(want) > 0 {
		t.Fatalf("%d records are not there", len(want))
	}
}

// TestRealDelivery writes 10,000 records with each compression. The broker unpacks
// all batches to look at their records.
func TestRealDelivery(t *testing.T) {
	b := kafkatest.Shared(t)
	for _, compression := range []string{"zstd", "lz4", "none"} {
		t.Run(compression, func(t *testing.T) {
			name := topic(t, b)
			d := newTest(t, Config{Brokers: []string{b.Address}, Topic: name, Compression: compression})
			all := records(output.Handshake, 10_000)
			began := time.Now()
			fates, troubles := deliver(t, d, all, nil)
			t.Logf("%d records in %v", len(all), time.Since(began))
			wantFate(t, fates, all, delivery.Delivered)
			if troubles != nil {
				t.Errorf("troubles %v", troubles)
			}
			if compression == "zstd" {
				wantMessages(t, b, name, all)
			} else if n := b.Count(t, name, partitions); n != int64(len(all)) {
				t.Errorf("%d messages, want %d", n, len(all))
			}
		})
	}
}

// TestRealRestart kills the broker while Send is at work. Nothing is lost, and nothing
// is there twice.
func TestRealRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the broker again")
	}
	b := kafkatest.Shared(t)
	name := topic(t, b)
	d := newTest(t, Config{Brokers: []string{b.Address}, Topic: name, MaxMessageBytes: minMessage})
	d.timeout = time.Second
	all := records(output.Handshake, 12_000)
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		for b.Count(t, name, partitions) < 2000 {
			time.Sleep(time.Millisecond)
		}
		b.Kill()
	}()
	restarted := false
	fates, troubles := deliver(t, d, all, func() {
		if !restarted {
			<-killed
			b.Restart(t)
			restarted = true
		}
	})
	t.Logf("troubles %v", troubles)
	if !restarted {
		t.Error("all was delivered before the broker was killed")
	}
	wantFate(t, fates, all, delivery.Delivered)
	wantMessages(t, b, name, all)
}

// TestRealLogin logs in over TLS in each way, first with a secret that is wrong: the
// trouble says so, and somebody puts the right one into the file.
func TestRealLogin(t *testing.T) {
	b := kafkatest.Shared(t)
	token := func(life time.Duration) string {
		now := time.Now()
		part := func(format string, args ...any) string {
			return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, format, args...))
		}
		return part(`{"alg":"none"}`) + "." + part(`{"sub":"bearer","iat":%d,"exp":%d}`, now.Add(-2*time.Hour).Unix(), now.Add(life).Unix()) + "."
	}
	for _, test := range []struct{ mechanism, user, wrong, right string }{
		{"plain", kafkatest.UserPlain, "wrong-77", kafkatest.Password},
		{"scram-sha-256", kafkatest.UserScramSHA256, "wrong-77", kafkatest.Password},
		{"SCRAM-SHA-512", kafkatest.UserScramSHA512, "wrong-77", kafkatest.Password},
		{"OAUTHBEARER", "bearer", token(-time.Hour), token(time.Hour)},
	} {
		t.Run(test.mechanism, func(t *testing.T) {
			name := topic(t, b)
			file := filepath.Join(t.TempDir(), "secret")
			write := func(s string) {
				if err := os.WriteFile(file, []byte(s+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(test.wrong)
			cfg := Config{Brokers: []string{b.Secure}, Topic: name, Mechanism: test.mechanism, TLS: endpoint.TLS{CAFile: b.CAFile}}
			if test.mechanism == oauthBearer {
				cfg.Token.File = file
			} else {
				cfg.Username, cfg.Password.File = test.user, file
			}
			d := newTest(t, cfg)
			all := records(output.Alert, 200)
			trouble := d.Send(context.Background(), all, make([]delivery.Verdict, len(all)))
			if trouble == nil || !trouble.Slow || trouble.Class != "SASL_AUTHENTICATION_FAILED" || strings.Contains(trouble.Err.Error(), test.wrong) {
				t.Fatalf("the trouble is %+v", trouble)
			}
			t.Log(trouble.Err)
			// The secret is right, and the user may not write; then he may.
			write(test.right)
			trouble = d.Send(context.Background(), all, make([]delivery.Verdict, len(all)))
			if trouble == nil || !trouble.Slow || trouble.Class != "TOPIC_AUTHORIZATION_FAILED" {
				t.Fatalf("the trouble is %+v", trouble)
			}
			t.Log(trouble.Err)
			b.Allow(t, test.user, name)
			fates, _ := deliver(t, d, all, nil)
			wantFate(t, fates, all, delivery.Delivered)
			if n := b.Count(t, name, partitions); n != int64(len(all)) {
				t.Errorf("%d messages, want %d", n, len(all))
			}
		})
	}
}

// TestRealTLS meets a certificate that it has no reason to trust, then is given one.
func TestRealTLS(t *testing.T) {
	b := kafkatest.Shared(t)
	name := topic(t, b)
	b.Allow(t, kafkatest.UserPlain, name)
	t.Setenv("TEST_KAFKA_PASSWORD", kafkatest.Password)
	cfg := Config{Brokers: []string{b.Secure}, Topic: name, Encrypt: true, Mechanism: plainText, Username: kafkatest.UserPlain}
	cfg.Password.Env = "TEST_KAFKA_PASSWORD"
	all := records(output.Alert, 1)
	send := func(cfg Config) *delivery.Trouble {
		t.Helper()
		trouble := newTest(t, cfg).Send(context.Background(), all, make([]delivery.Verdict, 1))
		if trouble == nil {
			t.Fatal("no trouble")
		}
		t.Log(trouble.Err)
		return trouble
	}
	for what, change := range map[string]func(*Config){
		"unknown authority": func(*Config) {},
		"other fingerprint": func(c *Config) { c.TLS.Fingerprint = hex.EncodeToString(make([]byte, 32)) },
		"no TLS there":      func(c *Config) { c.Brokers = []string{b.Address} },
	} {
		c := cfg
		change(&c)
		if trouble := send(c); what != "no TLS there" && (trouble.Class != "tls" || !trouble.Slow) {
			t.Errorf("%s: the trouble is %+v", what, trouble)
		}
	}
	open := cfg
	open.Encrypt = false
	if trouble := send(open); !strings.Contains(trouble.Err.Error(), "TLS") {
		t.Errorf("without TLS the trouble is %v", trouble.Err)
	}
	// The file of authorities has the wrong one, and is repaired.
	file := filepath.Join(t.TempDir(), "ca.pem")
	pem, err := os.ReadFile(b.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, other, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.TLS.CAFile = file
	fates, troubles := deliver(t, newTest(t, cfg), all, func() {
		if err := os.WriteFile(file, pem, 0o600); err != nil {
			t.Error(err)
		}
	})
	wantFate(t, fates, all, delivery.Delivered)
	if !slices.Equal(troubles, []string{"tls"}) {
		t.Errorf("troubles %v", troubles)
	}
}

// TestRealTopicMissing has no topic; then somebody makes it, deletes it and makes it
// again.
func TestRealTopicMissing(t *testing.T) {
	b := kafkatest.Shared(t)
	name := topicName(t)
	d := newTest(t, Config{Brokers: []string{b.Address}, Topic: name})
	d.timeout = 2 * time.Second
	all := records(output.Handshake, 300)
	made := false
	fates, troubles := deliver(t, d, all[:100], func() {
		if !made {
			b.Create(t, name, partitions)
			made = true
		}
	})
	wantFate(t, fates, all[:100], delivery.Delivered)
	if !slices.Equal(troubles, []string{"UNKNOWN_TOPIC_OR_PARTITION"}) {
		t.Errorf("troubles %v", troubles)
	}
	b.Delete(t, name)
	made = false
	fates, troubles = deliver(t, d, all[100:], func() {
		if !made {
			b.Create(t, name, partitions)
			made = true
		}
	})
	wantFate(t, fates, all[100:], delivery.Delivered)
	t.Logf("troubles %v", troubles)
	if n := b.Count(t, name, partitions); n != 200 {
		t.Errorf("%d messages, want 200", n)
	}
}

// TestRealTooLarge writes records that the broker refuses, and some for which it does
// not even come to that. The others are delivered, in order.
func TestRealTooLarge(t *testing.T) {
	b := kafkatest.Shared(t)
	name := topic(t, b, "max.message.bytes", "20000")
	d := newTest(t, Config{Brokers: []string{b.Address}, Topic: name, MaxMessageBytes: 200_000})
	all := records(output.Handshake, 300)
	var dead, fine []*output.Record
	for i, r := range all {
		switch i {
		case 40, 41, 299: // over the topic's limit
			r.JSON = grow(r.JSON, 60_000)
		case 70: // over ours
			r.JSON = grow(r.JSON, 200_000)
		default:
			fine = append(fine, r)
			continue
		}
		dead = append(dead, r)
	}
	// The broker takes no record whose time is more than an hour ahead.
	late := all[200]
	late.Time = time.Now().Add(48 * time.Hour).UnixNano()
	fine = slices.DeleteFunc(fine, func(r *output.Record) bool { return r == late })
	dead = append(dead, late)
	fates, _ := deliver(t, d, all, nil)
	wantFate(t, fates, fine, delivery.Delivered)
	wantFate(t, fates, dead, delivery.Dead)
	for _, r := range dead {
		if v := fates[r.ID]; v.Reason == "" {
			t.Errorf("no reason for %s", r.ID)
		} else {
			t.Logf("%d bytes: %s", len(r.JSON), v.Reason)
		}
	}
	wantMessages(t, b, name, fine)
}

// grow adds n bytes that cannot be compressed to much less.
func grow(record []byte, n int) []byte {
	random := make([]byte, n/2)
	rand.Read(random)
	return fmt.Appendf(nil, `%s,"random":"%x"}`, record[:len(record)-1], random)
}

// TestRealProcess writes the same records from two destinations, as a sensor does that
// was killed before it noted what was delivered: each is there twice, which is what
// consumers have to expect.
func TestRealProcess(t *testing.T) {
	b := kafkatest.Shared(t)
	name := topic(t, b)
	all := records(output.Alert, 50)
	for range 2 {
		d := newTest(t, Config{Brokers: []string{b.Address}, Topic: name})
		fates, _ := deliver(t, d, all, nil)
		wantFate(t, fates, all, delivery.Delivered)
	}
	if n := b.Count(t, name, partitions); n != int64(2*len(all)) {
		t.Errorf("%d messages, want %d", n, 2*len(all))
	}
}
