package netlab

import (
	"io"
	"net"
	"os"
	"testing"
)

func TestNew(t *testing.T) {
	lab := New(t)
	home, err := os.Readlink(threadNamespace)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{home: true}
	for _, n := range []*Namespace{lab.Client, lab.Server, lab.Sensor} {
		n.Do(func() {
			name, err := os.Readlink(threadNamespace)
			if err != nil || seen[name] {
				t.Errorf("%s is not a namespace of its own: %v", name, err)
			}
			seen[name] = true
		})
	}
	if name, _ := os.Readlink(threadNamespace); name != home {
		t.Errorf("in %s after Do", name)
	}

	_, before := lab.Server.Counters(t, lab.MirrorIface)
	for _, ip := range []string{lab.ServerIP, lab.ServerIP6} {
		listener := lab.Server.Listen(t, net.JoinHostPort(ip, "443"))
		go func() {
			conn, err := listener.Accept()
			if err == nil {
				conn.Write([]byte("hello"))
				conn.Close()
			}
		}()
		got, err := io.ReadAll(lab.Client.Dial(t, net.JoinHostPort(ip, "443")))
		if err != nil || string(got) != "hello" {
			t.Errorf("%s: read %q, %v", ip, got, err)
		}
	}
	// Three handshake segments, data and two ends, of each connection at least.
	if _, after := lab.Server.Counters(t, lab.MirrorIface); after-before < 12 {
		t.Errorf("%d frames were mirrored", after-before)
	}
	received, sent := lab.Sensor.Counters(t, lab.SensorIface)
	if received < 12 || sent != 0 {
		t.Errorf("the sensor received %d frames and sent %d", received, sent)
	}
}
