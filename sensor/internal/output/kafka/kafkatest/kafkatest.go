// Package kafkatest runs a real broker of Apache Kafka for tests, without containers.
//
// Maven fetches the broker and its command-line tools once, into the user's cache. One
// process is broker and controller; it runs on the machine's Java, on loopback, with
// data of its own. It has a listener without TLS and login, for the test, and one with
// both, where only the users have rights that a test gives them.
//
// Where Maven, Java or the network is missing the test is skipped, with a line
// that begins with SKIP-REAL-KAFKA; with ODDCERT_REQUIRE_KAFKA=1 in the environment it
// fails instead.
package kafkatest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// startTimeout and toolTimeout are ample for a loaded machine; a start takes about 10 s,
// and a tool 3 s.
const startTimeout, toolTimeout = 3 * time.Minute, 2 * time.Minute

// The users of the listener with login, all of them with [Password]: one for each way to
// log in.
const (
	UserPlain       = "plain"
	UserScramSHA256 = "scram256"
	UserScramSHA512 = "scram512"
	Password        = "sesame-6a1f"
)

// Broker is a running broker.
type Broker struct {
	Address string // of the listener without TLS and login
	Secure  string // of the one with both, by the name localhost
	CAFile  string // the authority of its certificate

	lib        string // the program
	java       string
	dir        string // configuration and data
	controller string
	process    *process
	admin      *kgo.Client
}

// Message is a message as Kafka's own consumer shows it.
type Message struct {
	Timestamp int64 // milliseconds since the Unix epoch
	Partition int
	Offset    int64
	Headers   string // name:value,…
	Key       string // null for none
	Value     string
}

var shared struct {
	sync.Mutex
	broker *Broker
	err    error
}

// Shared is a broker that all tests of the package share. It is started when first
// asked for; the package's TestMain must be [Main].
func Shared(t testing.TB) *Broker {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.broker == nil && shared.err == nil {
		shared.broker, shared.err = start()
	}
	if shared.err != nil {
		missing(t, shared.err)
	}
	return shared.broker
}

// Main runs the tests of a package, and stops the shared broker after them. It
// returns the exit status.
func Main(m *testing.M) int {
	defer func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.broker != nil {
			shared.broker.remove()
		}
	}()
	return m.Run()
}

func missing(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("ODDCERT_REQUIRE_KAFKA") == "1" {
		t.Fatalf("start the broker: %v", err)
	}
	// Standard error shows without -v too.
	fmt.Fprintf(os.Stderr, "SKIP-REAL-KAFKA: %s: %v\n", t.Name(), err)
	t.Skipf("SKIP-REAL-KAFKA: %v", err)
}

func start() (*Broker, error) {
	b := &Broker{}
	var err error
	if b.java, err = exec.LookPath("java"); err != nil {
		return nil, fmt.Errorf("no Java on this machine")
	}
	if b.lib, err = install(); err != nil {
		return nil, err
	}
	if err := b.configure(); err != nil {
		b.remove()
		return nil, err
	}
	if err := b.run(); err != nil {
		b.remove()
		return nil, err
	}
	return b, nil
}

// command is the command line of one of the broker's programs.
func (b *Broker) command(class string, args ...string) []string {
	return append([]string{
		"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", // a short life: start soon
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
		"-Djava.io.tmpdir=" + b.dir, "-cp", filepath.Join(b.lib, "*"), class,
	}, args...)
}

// tool runs one of the programs, and returns what it prints.
func (b *Broker) tool(class string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.java, b.command(class, args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s %s", class, err, lastLines(out), lastLines(said.Bytes()))
	}
	return out, nil
}

// configure makes the folder of a broker.
func (b *Broker) configure() (err error) {
	if b.dir, err = os.MkdirTemp("", "oddcert-kafka"); err != nil {
		return err
	}
	var ports [3]string
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		ports[i] = strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	}
	b.Address, b.Secure, b.controller = "127.0.0.1:"+ports[0], "localhost:"+ports[1], "127.0.0.1:"+ports[2]
	b.CAFile = filepath.Join(b.dir, "ca.pem")
	if err := certify(b.CAFile, filepath.Join(b.dir, "broker.pem")); err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	config := filepath.Join(b.dir, "server.properties")
	if err := os.WriteFile(config, []byte(b.properties()), 0o600); err != nil {
		return err
	}
	_, err = b.tool("kafka.tools.StorageTool", "format", "-t", "b2RkY2VydC1rYWZrYS10ZQ", "-c", config,
		"--add-scram", "SCRAM-SHA-256=[name="+UserScramSHA256+",password="+Password+"]",
		"--add-scram", "SCRAM-SHA-512=[name="+UserScramSHA512+",password="+Password+"]")
	return err
}

// properties are the configuration of the broker.
func (b *Broker) properties() string {
	const modules = "org.apache.kafka.common.security."
	return strings.Join([]string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.voters=1@" + b.controller,
		"controller.listener.names=CONTROLLER",
		"listeners=OPEN://" + b.Address + ",SECURE://127.0.0.1" + strings.TrimPrefix(b.Secure, "localhost") + ",CONTROLLER://" + b.controller,
		"advertised.listeners=OPEN://" + b.Address + ",SECURE://" + b.Secure,
		"listener.security.protocol.map=OPEN:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT",
		"inter.broker.listener.name=OPEN",
		"log.dirs=" + filepath.Join(b.dir, "data"),
		"offsets.topic.replication.factor=1",
		"offsets.topic.num.partitions=1",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.num.partitions=1",
		"group.initial.rebalance.delay.ms=0",
		"auto.create.topics.enable=false",
		"broker.session.timeout.ms=1000", // so long a broker that was killed waits before it is back
		"broker.heartbeat.interval.ms=200",
		"ssl.keystore.type=PEM",
		"ssl.keystore.location=" + filepath.Join(b.dir, "broker.pem"),
		"sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
		"listener.name.secure.plain.sasl.jaas.config=" + modules + `plain.PlainLoginModule required user_` + UserPlain + `="` + Password + `";`,
		"listener.name.secure.scram-sha-256.sasl.jaas.config=" + modules + "scram.ScramLoginModule required;",
		"listener.name.secure.scram-sha-512.sasl.jaas.config=" + modules + "scram.ScramLoginModule required;",
		// Without a callback handler of its own the broker takes tokens without a signature.
		"listener.name.secure.oauthbearer.sasl.jaas.config=" + modules + `oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`,
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users=User:ANONYMOUS",
	}, "\n") + "\n"
}

// run starts the process and waits until it answers.
func (b *Broker) run() (err error) {
	if b.process, err = startProcess(b.java, b.command("kafka.Kafka", filepath.Join(b.dir, "server.properties")), b.dir); err != nil {
		return err
	}
	if b.admin == nil {
		if b.admin, err = kgo.NewClient(kgo.SeedBrokers(b.Address), kgo.DisableClientMetrics()); err != nil {
			return err
		}
	}
	deadline := time.After(startTimeout)
	for {
		select {
		case <-b.process.done:
			return fmt.Errorf("the broker ended: %s", b.process.tail())
		case <-deadline:
			b.process.kill()
			return fmt.Errorf("the broker does not answer after %v: %s", startTimeout, b.process.tail())
		case <-time.After(100 * time.Millisecond):
		}
		// A broker answers requests of clients once it is no longer fenced.
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		answer, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, b.admin)
		cancel()
		if err == nil && len(answer.Brokers) == 1 {
			return nil
		}
	}
}

// Kill ends the broker without leave, and keeps its data and ports for Restart.
func (b *Broker) Kill() { b.process.kill() }

// Restart starts the broker again.
func (b *Broker) Restart(t testing.TB) {
	t.Helper()
	if err := b.run(); err != nil {
		t.Fatal(err)
	}
}

// remove ends the broker; its data goes too, so it need not take leave.
func (b *Broker) remove() {
	if b.admin != nil {
		b.admin.Close()
	}
	if b.process != nil {
		b.process.kill()
	}
	if b.dir != "" {
		os.RemoveAll(b.dir)
	}
}

// Request sends a request without login, and returns the answer.
func (b *Broker) Request(t testing.TB, r kmsg.Request) kmsg.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	answer, err := b.admin.Request(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// Create makes a topic. Settings are pairs of name and value.
func (b *Broker) Create(t testing.TB, topic string, partitions int32, settings ...string) {
	t.Helper()
	r := kmsg.NewPtrCreateTopicsRequest()
	r.TimeoutMillis = 60_000
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, partitions, 1
	for i := 0; i+1 < len(settings); i += 2 {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = settings[i], kmsg.StringPtr(settings[i+1])
		rt.Configs = append(rt.Configs, c)
	}
	r.Topics = append(r.Topics, rt)
	answer := b.Request(t, r).(*kmsg.CreateTopicsResponse)
	if err := kerr.ErrorForCode(answer.Topics[0].ErrorCode); err != nil {
		t.Fatalf("make topic %s: %v", topic, err)
	}
}

// Delete deletes a topic.
func (b *Broker) Delete(t testing.TB, topic string) {
	t.Helper()
	r := kmsg.NewPtrDeleteTopicsRequest()
	r.TimeoutMillis = 60_000
	rt := kmsg.NewDeleteTopicsRequestTopic()
	rt.Topic = kmsg.StringPtr(topic)
	r.Topics, r.TopicNames = append(r.Topics, rt), append(r.TopicNames, topic)
	answer := b.Request(t, r).(*kmsg.DeleteTopicsResponse)
	if err := kerr.ErrorForCode(answer.Topics[0].ErrorCode); err != nil {
		t.Fatalf("delete topic %s: %v", topic, err)
	}
}

// Allow lets a user write to a topic.
func (b *Broker) Allow(t testing.TB, user, topic string) {
	t.Helper()
	r := kmsg.NewPtrCreateACLsRequest()
	c := kmsg.NewCreateACLsRequestCreation()
	c.ResourceType, c.ResourceName, c.ResourcePatternType = kmsg.ACLResourceTypeTopic, topic, kmsg.ACLResourcePatternTypeLiteral
	c.Principal, c.Host, c.Operation, c.PermissionType = "User:"+user, "*", kmsg.ACLOperationWrite, kmsg.ACLPermissionTypeAllow
	r.Creations = append(r.Creations, c)
	answer := b.Request(t, r).(*kmsg.CreateACLsResponse)
	if err := kerr.ErrorForCode(answer.Results[0].ErrorCode); err != nil {
		t.Fatalf("allow %s: %v", user, err)
	}
}

// Count is how many messages are in a topic.
func (b *Broker) Count(t testing.TB, topic string, partitions int32) (n int64) {
	t.Helper()
	r := kmsg.NewPtrListOffsetsRequest()
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	for i := range partitions {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = i, -1 // where the next message goes
		rt.Partitions = append(rt.Partitions, p)
	}
	r.Topics = append(r.Topics, rt)
	for _, p := range b.Request(t, r).(*kmsg.ListOffsetsResponse).Topics[0].Partitions {
		if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
			t.Fatalf("count messages of %s: %v", topic, err)
		}
		n += p.Offset
	}
	return n
}

// Read reads all messages of a topic with Kafka's own consumer, in the order of each
// partition. Values must not have line feeds.
func (b *Broker) Read(t testing.TB, topic string, partitions int32) []Message {
	t.Helper()
	n := b.Count(t, topic, partitions)
	if n == 0 {
		return nil
	}
	out, err := b.tool("org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", b.Address,
		"--topic", topic, "--from-beginning", "--max-messages", strconv.FormatInt(n, 10), "--timeout-ms", "60000",
		"--formatter-property", "print.timestamp=true", "--formatter-property", "print.partition=true",
		"--formatter-property", "print.offset=true", "--formatter-property", "print.headers=true",
		"--formatter-property", "print.key=true")
	if err != nil {
		t.Fatal(err)
	}
	var messages []Message
	for line := range strings.Lines(string(out)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 6)
		var m Message
		if len(parts) < 6 {
			t.Fatalf("the consumer printed %.200q", line)
		}
		if _, err := fmt.Sscanf(strings.Join(parts[:3], " "), "CreateTime:%d Partition:%d Offset:%d", &m.Timestamp, &m.Partition, &m.Offset); err != nil {
			t.Fatalf("the consumer printed %.200q: %v", line, err)
		}
		m.Headers, m.Key, m.Value = parts[3], parts[4], parts[5]
		messages = append(messages, m)
	}
	if int64(len(messages)) != n {
		t.Fatalf("the consumer read %d messages of %d", len(messages), n)
	}
	return messages
}
