package doctor

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/netlab"
)

// TestReadInterface reads interfaces of a namespace, and holds what it reads against
// ip and ethtool.
func TestReadInterface(t *testing.T) {
	lab := netlab.New(t)
	read := func(name string) (i *Interface) {
		t.Helper()
		var err error
		lab.Server.Do(func() { i, err = ReadInterface(name) })
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	i := read(lab.ServerIface)
	if i.Missing || !i.Up || !i.Carrier || i.Loopback || i.MTU != 1500 || i.Driver != "veth" || i.Speed != 10000 || i.Duplex != "full" || i.Queues == 0 {
		t.Errorf("%+v", i)
	}
	if text := strings.Join(i.Addresses, " "); !strings.Contains(text, lab.ServerIP+"/24") || !strings.Contains(text, lab.ServerIP6+"/64") {
		t.Errorf("addresses are %s", text)
	}
	received, _ := lab.Server.Counters(t, lab.ServerIface)
	if again := read(lab.ServerIface); again.Count.Frames < received || received == 0 || again.Count.Bytes < 14*again.Count.Frames {
		t.Errorf("%+v, and the kernel's table says %d frames", again.Count, received)
	}
	if !read("absent0").Missing {
		t.Error("an interface that is not there is not missing")
	}
	if !read("lo").Loopback {
		t.Error("loopback is not loopback")
	}
	if _, err := exec.LookPath("ethtool"); err != nil {
		t.Skip("ethtool is not installed")
	}
	for _, state := range []string{"on", "off"} {
		if out, err := lab.Server.Command("ethtool", "-K", lab.ServerIface, "gro", state).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if i := read(lab.ServerIface); i.Features["rx-gro"] != (state == "on") {
			t.Errorf("GRO is %s, and %v is read", state, i.Features["rx-gro"])
		}
	}
	for _, change := range []struct {
		args        []string
		up, carrier bool
	}{{[]string{"down"}, false, false}, {[]string{"up"}, true, true}} {
		if out, err := lab.Server.Command("ip", append([]string{"link", "set", lab.ServerIface}, change.args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if i := read(lab.ServerIface); i.Up != change.up || i.Carrier != change.carrier {
			t.Errorf("%v: up %v, carrier %v", change.args, i.Up, i.Carrier)
		}
	}
}
