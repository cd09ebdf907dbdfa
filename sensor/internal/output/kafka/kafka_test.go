package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/kafka/kafkatest"
)

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

// start is the time of the first record: an hour ago, as brokers may delete messages
// that are older than their retention.
var start = time.Now().Add(-time.Hour).Truncate(time.Millisecond)

// record makes the nth record, about one of 37 servers.
func record(dataset output.Dataset, n int) *output.Record {
	at := start.Add(time.Duration(n) * time.Millisecond)
	id := fmt.Sprintf("%08x%024x", 7, n)
	return &output.Record{Dataset: dataset, ID: id, Time: at.UnixNano(), JSON: fmt.Appendf(nil,
		`{"@timestamp":%q,"event":{"dataset":"oddcert.%s","id":%q},"source":{"ip":"198.51.100.7","port":%d},"destination":{"ip":"192.0.2.%d","port":443},"n":%d,"text":%q}`,
		at.UTC().Format(time.RFC3339Nano), dataset.Form(), id, 1024+n%50000, n%37, n, strings.Repeat("certificate ", n%40))}
}

func records(dataset output.Dataset, n int) []*output.Record {
	all := make([]*output.Record, n)
	for i := range all {
		all[i] = record(dataset, i)
	}
	return all
}

func newTest(t *testing.T, cfg Config) *Destination {
	t.Helper()
	d, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// deliver sends records as the engine does, until each has a fate, and returns the
// fates and the classes of the troubles on the way. It waits little, and calls repair
// before each request after the first.
func deliver(t *testing.T, d *Destination, all []*output.Record, repair func()) (fates map[string]delivery.Verdict, troubles []string) {
	t.Helper()
	fates = map[string]delivery.Verdict{}
	limit := d.Limits()
	most := limit.Records
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	for round := 0; len(all) > 0; round++ {
		if ctx.Err() != nil {
			t.Fatalf("%d records are left; troubles %v", len(all), troubles)
		}
		if round > 0 && repair != nil {
			repair()
		}
		n, bytes := 0, 0
		for n < min(most, len(all)) && (n == 0 || bytes+len(all[n].JSON) <= limit.Bytes) {
			bytes += len(all[n].JSON)
			n++
		}
		verdicts := make([]delivery.Verdict, n)
		trouble := d.Send(ctx, all[:n], verdicts)
		var again []*output.Record
		for i, v := range verdicts {
			switch v.Fate {
			case delivery.Again, delivery.Blocked:
				again = append(again, all[i])
			default:
				fates[all[i].ID] = v
			}
		}
		if (trouble != nil) != (len(again) > 0) {
			t.Fatalf("%d of %d records go again, and the trouble is %v", len(again), n, trouble)
		}
		all = append(again, all[n:]...)
		if trouble == nil {
			continue
		}
		if !slices.Contains(troubles, trouble.Class) {
			troubles = append(troubles, trouble.Class)
			t.Logf("trouble %q: %v", trouble.Class, trouble.Err)
		}
		if trouble.Split {
			most = max(1, n/2)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fates, troubles
}

// wantFate tests that each of the records has this fate.
func wantFate(t *testing.T, fates map[string]delivery.Verdict, records []*output.Record, want delivery.Fate) {
	t.Helper()
	for _, r := range records {
		if v, ok := fates[r.ID]; !ok || v.Fate != want {
			t.Fatalf("the fate of %s is %+v (%v), want %d", r.ID, v, ok, want)
		}
	}
}

// fake is a cluster in this process.
func fake(t *testing.T, options ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.SeedTopics(4, "oddcert")}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// messages reads n messages of a topic, and reports an error when there are more.
func messages(t *testing.T, c *kfake.Cluster, topic string, n int) []*kgo.Record {
	t.Helper()
	consumer, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	var got []*kgo.Record
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for len(got) < n && ctx.Err() == nil {
		got = append(got, consumer.PollFetches(ctx).Records()...)
	}
	total := int64(0)
	for i := range 4 {
		total += c.PartitionInfo(topic, int32(i)).HighWatermark
	}
	if len(got) != n || total != int64(n) {
		t.Fatalf("read %d messages, and there are %d, want %d", len(got), total, n)
	}
	return got
}

// inOrder tests that the messages of each server are in the order of their records.
func inOrder(t *testing.T, got []*kgo.Record) {
	t.Helper()
	last := map[string]int{}
	where := map[string]int32{}
	for _, m := range got {
		var v struct{ N int }
		if err := json.Unmarshal(m.Value, &v); err != nil {
			t.Fatal(err)
		}
		k := string(m.Key)
		if n, ok := last[k]; ok && v.N <= n {
			t.Fatalf("record %d of %s comes after %d", v.N, k, n)
		}
		if p, ok := where[k]; ok && p != m.Partition {
			t.Fatalf("%s is in partitions %d and %d", k, p, m.Partition)
		}
		last[k], where[k] = v.N, m.Partition
	}
}

// TestFaults has brokers answer with an error now and then: in the end each record is
// there once, in order, and the error had a name.
func TestFaults(t *testing.T) {
	const passes = "not acknowledged" // the client retries by itself
	for _, test := range []struct {
		err   *kerr.Error
		class string
		slow  bool
	}{
		{kerr.NotEnoughReplicas, passes, false},
		{kerr.NotEnoughReplicasAfterAppend, passes, false},
		{kerr.NotLeaderForPartition, passes, false},
		{kerr.KafkaStorageError, passes, false},
		{kerr.TopicAuthorizationFailed, "TOPIC_AUTHORIZATION_FAILED", true},
		{kerr.ClusterAuthorizationFailed, "CLUSTER_AUTHORIZATION_FAILED", true},
		{kerr.PolicyViolation, "POLICY_VIOLATION", true},
	} {
		t.Run(test.err.Message, func(t *testing.T) {
			t.Parallel()
			c := fake(t)
			var broken atomic.Bool
			var requests atomic.Int32
			c.ControlKey(0, func(r kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				// Two requests go well, then all go wrong until somebody repairs it.
				if requests.Add(1) == 3 {
					broken.Store(true)
				}
				if !broken.Load() {
					return nil, nil, false
				}
				return refuse(r.(*kmsg.ProduceRequest), test.err), nil, true
			})
			// Small batches make many requests.
			d := newTest(t, Config{Brokers: c.ListenAddrs(), MaxMessageBytes: 64 << 10, Compression: "none"})
			d.timeout = 300 * time.Millisecond
			all := records(output.Handshake, 3000)
			var failed int
			fates, troubles := deliver(t, d, all, func() {
				if broken.Load() {
					if failed++; failed == 3 {
						broken.Store(false)
						requests.Store(100)
					}
				}
			})
			wantFate(t, fates, all, delivery.Delivered)
			// On a machine with much to do any answer may come late.
			for _, class := range troubles {
				if class != test.class && class != passes && class != "network" {
					t.Errorf("trouble %s", class)
				}
			}
			if !slices.Contains(troubles, test.class) {
				t.Errorf("troubles %v, want %s", troubles, test.class)
			}
			inOrder(t, messages(t, c, "oddcert", len(all)))
			if got := explain(test.err, false).Slow; got != test.slow {
				t.Errorf("slow is %v", got)
			}
		})
	}
}

// refuse answers a request with an error for each partition.
func refuse(r *kmsg.ProduceRequest, err *kerr.Error) kmsg.Response {
	answer := r.ResponseKind().(*kmsg.ProduceResponse)
	for _, topic := range r.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = topic.Topic, topic.TopicID
		for _, p := range topic.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, err.Code
			rt.Partitions = append(rt.Partitions, rp)
		}
		answer.Topics = append(answer.Topics, rt)
	}
	return answer
}

// TestOrder refuses one batch of a request. What the client has of that partition goes
// again with it, so that nothing overtakes it.
func TestOrder(t *testing.T) {
	c := fake(t, kfake.NumBrokers(1))
	var requests atomic.Int32
	c.ControlKey(0, func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if n := requests.Add(1); n%3 == 0 && n < 30 {
			return refuse(r.(*kmsg.ProduceRequest), kerr.TopicAuthorizationFailed), nil, true
		}
		return nil, nil, false
	})
	// Small batches make many requests of one Send.
	d := newTest(t, Config{Brokers: c.ListenAddrs(), MaxMessageBytes: minMessage, Compression: "none"})
	all := records(output.Handshake, 4000)
	fates, _ := deliver(t, d, all, nil)
	wantFate(t, fates, all, delivery.Delivered)
	inOrder(t, messages(t, c, "oddcert", len(all)))
	if requests.Load() < 30 {
		t.Errorf("only %d requests: the test shows nothing", requests.Load())
	}
}

// TestLostAnswers cuts connections after brokers have written, and Send gives up while
// answers are due: still each record is there once.
func TestLostAnswers(t *testing.T) {
	c := fake(t)
	var lost, asked atomic.Int32
	c.ControlKey(0, func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if n := asked.Add(1); n%3 != 1 || n > 20 {
			return nil, nil, false
		}
		// The same batch is written by another connection, and this one hears nothing.
		lost.Add(1)
		request := *r.(*kmsg.ProduceRequest)
		go func() {
			writer, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
			if err != nil {
				return
			}
			defer writer.Close()
			writer.Broker(int(c.LeaderFor("oddcert", request.Topics[0].Partitions[0].Partition))).Request(context.Background(), &request)
		}()
		return nil, errors.New("cut"), true
	})
	d := newTest(t, Config{Brokers: c.ListenAddrs()})
	all := records(output.Handshake, 3000)
	fates := map[string]delivery.Verdict{}
	left := all
	for len(left) > 0 {
		n := min(500, len(left))
		verdicts := make([]delivery.Verdict, n)
		ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
		d.Send(ctx, left[:n], verdicts)
		cancel()
		var again []*output.Record
		for i, v := range verdicts {
			if v.Fate == delivery.Delivered {
				fates[left[i].ID] = v
			} else {
				again = append(again, left[i])
			}
		}
		left = append(again, left[n:]...)
	}
	wantFate(t, fates, all, delivery.Delivered)
	inOrder(t, messages(t, c, "oddcert", len(all)))
	if lost.Load() == 0 {
		t.Error("no answer was lost")
	}
}

// TestSilence has a broker that takes a request and says nothing. Send returns soon
// when it is told to, and the next one waits for the same messages.
func TestSilence(t *testing.T) {
	c := fake(t)
	var once sync.Once
	c.ControlKey(0, func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		c.SleepControl(func() { once.Do(func() { time.Sleep(time.Second) }) })
		return nil, nil, false
	})
	d := newTest(t, Config{Brokers: c.ListenAddrs()})
	all := records(output.Handshake, 100)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if trouble := d.Send(ctx, all, make([]delivery.Verdict, len(all))); trouble == nil || trouble.Class != "network" {
		t.Errorf("the trouble is %+v", trouble)
	}
	fates, _ := deliver(t, d, all, nil)
	wantFate(t, fates, all, delivery.Delivered)
	inOrder(t, messages(t, c, "oddcert", len(all)))
}

// TestSecretsStay logs in with a wrong password and a wrong token: no trouble has them.
func TestSecretsStay(t *testing.T) {
	c := fake(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "sensor", "right"), kfake.Superuser("SCRAM-SHA-256", "sensor", "right"))
	t.Setenv("TEST_KAFKA_PASSWORD", "hidden-5577")
	for _, mechanism := range []string{plainText, scramSHA256, oauthBearer} {
		cfg := Config{Brokers: c.ListenAddrs(), Mechanism: mechanism}
		if mechanism == oauthBearer {
			cfg.Token.Env = "TEST_KAFKA_PASSWORD"
		} else {
			cfg.Username, cfg.Password.Env = "sensor", "TEST_KAFKA_PASSWORD"
		}
		d := newTest(t, cfg)
		trouble := d.Send(context.Background(), records(output.Alert, 1), make([]delivery.Verdict, 1))
		if trouble == nil {
			t.Fatalf("%s: no trouble", mechanism)
		}
		if strings.Contains(trouble.Err.Error()+trouble.Class+d.String(), "hidden-5577") {
			t.Errorf("%s: the trouble has the secret: %v", mechanism, trouble.Err)
		}
		t.Logf("%s: %v", mechanism, trouble.Err)
	}
}

// TestTroubleWithFiles has a file of a secret that is gone when it is needed.
func TestTroubleWithFiles(t *testing.T) {
	c := fake(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "sensor", "right"))
	file := t.TempDir() + "/password"
	if err := os.WriteFile(file, []byte("right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Brokers: c.ListenAddrs(), Mechanism: "plain", Username: "sensor"}
	cfg.Password.File = file
	d := newTest(t, cfg)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	all := records(output.Alert, 10)
	fates, troubles := deliver(t, d, all, func() {
		if err := os.WriteFile(file, []byte("right\n"), 0o600); err != nil {
			t.Error(err)
		}
	})
	wantFate(t, fates, all, delivery.Delivered)
	if !slices.Equal(troubles, []string{"file"}) {
		t.Errorf("troubles %v", troubles)
	}
}

// TestTopics writes each dataset to a topic of its own.
func TestTopics(t *testing.T) {
	topics := []string{"soc.alert", "soc.handshake", "soc.stats"}
	c := fake(t, kfake.SeedTopics(4, topics...))
	d := newTest(t, Config{Brokers: c.ListenAddrs(), Topic: "soc.{dataset}"})
	for _, dataset := range []output.Dataset{output.Alert, output.FullHandshake, output.Stats} {
		all := records(dataset, 20)
		fates, _ := deliver(t, d, all, nil)
		wantFate(t, fates, all, delivery.Delivered)
	}
	for _, topic := range topics {
		for _, m := range messages(t, c, topic, 20) {
			if len(m.Headers) != 2 || string(m.Headers[1].Value) != "oddcert."+strings.TrimPrefix(topic, "soc.") {
				t.Fatalf("headers %v in %s", m.Headers, topic)
			}
		}
	}
}

// TestTwice has an event twice in a request: it is written once.
func TestTwice(t *testing.T) {
	c := fake(t)
	d := newTest(t, Config{Brokers: c.ListenAddrs()})
	all := records(output.Handshake, 10)
	verdicts := make([]delivery.Verdict, 11)
	if trouble := d.Send(context.Background(), append(slices.Clip(all), all[3]), verdicts); trouble != nil {
		t.Fatal(trouble.Err)
	}
	if verdicts[3].Fate != delivery.Delivered || verdicts[10].Fate != delivery.Duplicate {
		t.Errorf("verdicts %+v", verdicts)
	}
	inOrder(t, messages(t, c, "oddcert", len(all)))
}

// TestBounds has the client hold no more than its limits, whatever is sent while no
// broker answers.
func TestBounds(t *testing.T) {
	c := fake(t)
	c.ControlKey(0, func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return nil, errors.New("cut"), true
	})
	d := newTest(t, Config{Brokers: c.ListenAddrs()})
	for i := range 5 {
		batch := make([]*output.Record, maxRecords)
		for j := range batch {
			batch[j] = record(output.Handshake, i*maxRecords+j)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		if trouble := d.Send(ctx, batch, make([]delivery.Verdict, len(batch))); trouble == nil {
			t.Fatal("no trouble")
		}
		cancel()
		if n := d.rest.client.BufferedProduceRecords(); n > 2*maxRecords || len(d.rest.flights) > 2*maxRecords {
			t.Fatalf("the client holds %d records, and %d are known", n, len(d.rest.flights))
		}
	}
}
