package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/netlab"
)

// A supplicant signs in at an authenticator with an EAP server inside, over a
// wire, by three methods that carry TLS in fragments. The certificates
// are those that the server was given, as tshark finds them too.
func TestEAPOL(t *testing.T) {
	for _, tool := range []string{"hostapd", "wpa_supplicant", "openssl", "tcpdump"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("signing in over EAPOL: %s is not installed", tool)
		}
	}
	lab := netlab.New(t)
	dir := t.TempDir()
	sums := issue(t, dir)
	var bundle []byte
	for _, name := range []string{"leaf.pem", "chain.pem"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		bundle = append(bundle, b...)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("bundle.pem", string(bundle))
	write("users", "\"card\" TLS\n* PEAP,TTLS\n\"user\" MSCHAPV2,TTLS-MSCHAPV2 \"password\" [2]\n")
	chain := []string{sums["leaf"], sums["middle"], sums["root"]}
	mac := func(n *netlab.Namespace, iface string) string {
		out, err := n.Command("ip", "-o", "link", "show", "dev", iface).Output()
		if err != nil {
			t.Fatal(err)
		}
		_, address, _ := strings.Cut(string(out), "link/ether ")
		address, _, _ = strings.Cut(address, " ")
		return strings.ToUpper(strings.ReplaceAll(address, ":", "-"))
	}

	for _, c := range []struct {
		name, carrier, network string
		group                  int // whether the authenticator sends to the group address
		times                  int
		client                 []string
	}{
		{"EAP-TLS", "eap-tls", "eap=TLS\nidentity=\"card\"\nclient_cert=\"client.pem\"\nprivate_key=\"client.key\"\nfragment_size=300", 0, 1, []string{sums["client"]}},
		{"PEAP", "peap", "eap=PEAP\nidentity=\"user\"\npassword=\"password\"\nphase2=\"auth=MSCHAPV2\"", 0, 1, nil},
		{"TTLS", "ttls", "eap=TTLS\nidentity=\"user\"\npassword=\"password\"\nphase2=\"auth=MSCHAPV2\"", 1, 2, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			capture := filepath.Join(t.TempDir(), "eapol.pcap")
			stop := recording(t, lab, capture)
			launched(t, lab.Server, dir, "AP-ENABLED", "hostapd", write("hostapd.conf", fmt.Sprintf(`interface=%s
driver=wired
ieee8021x=1
eap_server=1
eap_user_file=users
ca_cert=client.pem
server_cert=bundle.pem
private_key=leaf.key
fragment_size=200
use_pae_group_addr=%d
`, lab.ServerIface, c.group)))
			for range c.times {
				peer := launched(t, lab.Client, dir, "CTRL-EVENT-EAP-SUCCESS", "wpa_supplicant", "-Dwired", "-i"+lab.ClientIface,
					"-c"+write("supplicant.conf", "ap_scan=0\nnetwork={\nkey_mgmt=IEEE8021X\neapol_flags=0\n"+c.network+"\n}\n"))
				if err := peer.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				peer.Wait()
			}
			stop()

			records, status := replayed(t, "--records", "handshake", capture)
			if status != 0 || len(records) != c.times {
				t.Fatalf("%d handshakes, exit status %d", len(records), status)
			}
			for _, r := range records {
				if r.Network.Transport != "eapol" || r.Oddcert.Carrier != c.carrier || !slices.Equal(r.Oddcert.Chain, chain) || !slices.Equal(r.Oddcert.ClientChain, c.client) {
					t.Errorf("over %s, %s: certificates %s, of the client %s", r.Network.Transport, r.Oddcert.Carrier, r.Oddcert.Chain, r.Oddcert.ClientChain)
				}
				if r.Client.MAC != mac(lab.Client, lab.ClientIface) || r.Server.MAC != mac(lab.Server, lab.ServerIface) || r.Client.IP != "" || r.Server.Port != 0 {
					t.Errorf("from %+v to %+v", r.Client, r.Server)
				}
			}
			if tshark, err := exec.LookPath("tshark"); err == nil {
				out, err := exec.Command(tshark, "-r", capture, "-Y", "eap && tls.handshake.certificate", "-T", "fields", "-E", "occurrence=a", "-e", "tls.handshake.certificate").Output()
				if err != nil {
					t.Fatal(err)
				}
				seen := strings.FieldsFunc(string(out), func(r rune) bool { return r == ',' || r == '\n' })
				if want := c.times * (len(chain) + len(c.client)); len(seen) != want {
					t.Errorf("tshark sees %d certificates, not %d", len(seen), want)
				}
			}
		})
	}
}

// launched starts a program in a folder, waits until it says that it is ready,
// and ends it with the test.
func launched(t *testing.T, n *netlab.Namespace, dir, ready string, args ...string) *exec.Cmd {
	t.Helper()
	cmd, said := n.Command(args[0], args[1:]...), new(lockedBuffer)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, said, said
	if _, err := cmd.StdinPipe(); err != nil { // at its end some servers would stop
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	waitFor(t, args[0]+" to say "+ready, func() bool { return strings.Contains(said.String(), ready) })
	return cmd
}

// recording has tcpdump write what passes the mirror port to a file, until stop
// is called.
func recording(t *testing.T, lab *netlab.Lab, capture string) (stop func()) {
	t.Helper()
	dump := launched(t, lab.Sensor, "", "listening on", "tcpdump", "-i", lab.SensorIface, "-U", "--immediate-mode", "-Z", "root", "-w", capture)
	return func() {
		if err := dump.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		dump.Wait()
	}
}
