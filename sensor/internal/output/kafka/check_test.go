package kafka

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// TestCheck asks brokers for topics with which nothing, or something, is wrong.
func TestCheck(t *testing.T) {
	open := fake(t)
	closed := fake(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "sensor", "right"))
	alert := output.Set(0).Add(output.Alert)
	check := func(what string, cfg Config, want string) {
		t.Helper()
		err := newTest(t, cfg).Check(t.Context(), alert)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	check("all is well", Config{Brokers: open.ListenAddrs()}, "")
	check("no topic", Config{Brokers: open.ListenAddrs(), Topic: "soc.{dataset}"}, "make the topic")
	login := Config{Brokers: closed.ListenAddrs(), Mechanism: plainText, Username: "sensor"}
	login.Password.Env = "TEST_KAFKA_PASSWORD"
	t.Setenv("TEST_KAFKA_PASSWORD", "right")
	check("the right password", login, "")
	t.Setenv("TEST_KAFKA_PASSWORD", "wrong")
	check("a wrong password", login, "EOF") // a real broker says more than this cluster, which hangs up
	brokers := open.ListenAddrs()
	open.Close()
	check("nobody listens", Config{Brokers: brokers}, "refused")
}
