package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
)

// The floods of the test, each with its size. They are large enough to fill
// what they are aimed at.
var testFloods = map[string]float64{
	"syn-flood":            0.4,
	"hello-flood":          0.4,
	"certificates":         1,
	"certificates-spoofed": 0.4,
	"new-chains":           0.2,
	"authorities":          0.4,
	"large-hellos":         0.5,
	"tcp-one-byte":         0.2,
	"tcp-rising":           0.5,
	"tcp-overlapped":       0.1,
	"ip-rising":            0.5,
	"ip-one-byte":          0.2,
	"dtls-rising":          0.5,
	"dtls-one-byte":        0.2,
	"dtls-hellos":          0.5,
	"quic-hellos":          0.3,
	"quic-one-byte":        0.3,
	"radius":               0.5,
	"openvpn":              0.5,
	"eapol":                0.3,
}

// floodLimit is the memory that the process is given, and the kernel allows it.
const floodLimit = 224 << 20

// TestFloods has the program read floods, within a control group where the test
// may make one: it keeps below its limit of memory, raises every alert for the
// honest handshakes among them, and accounts for every handshake.
func TestFloods(t *testing.T) {
	if testing.Short() {
		t.Skip("floods take half a minute")
	}
	group := memoryGroup(t, floodLimit)
	for name, scale := range testFloods {
		t.Run(name, func(t *testing.T) {
			// The program reads while the flood is made, as it would live.
			args := []string{"replay", "--rules", everyAlert(t), "--workers", "2", "--memory", strconv.Itoa(floodLimit), "--json", "-", "-"}
			cmd := exec.Command("oddcert", args...)
			if group != "" {
				cmd = exec.Command("sh", append([]string{"-c", `echo $$ > "$0" && exec oddcert "$@"`, filepath.Join(group, "cgroup.procs")}, args...)...)
			}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			peaks := watchPeak(cmd.Process.Pid)
			made := make(chan error, 1)
			var truth *traffic.Truth
			go func() {
				var err error
				truth, err = traffic.GenerateFlood(in, name, scale, 1)
				made <- errors.Join(err, in.Close())
			}()
			alerts, stats := readFlood(t, out)
			err = cmd.Wait()
			if e := <-made; e != nil {
				t.Fatalf("make the flood: %v; %v: %s", e, err, stderr.String())
			}
			if err != nil {
				t.Fatalf("%v: %s", err, stderr.String())
			}
			peak := peaks()
			t.Logf("%d MiB read, %d MiB at the peak, %d handshakes recorded and %d not", truth.Bytes>>20, peak>>20, stats.Records.Handshakes, stats.Records.Unrecorded)
			if peak > floodLimit {
				t.Errorf("%d MiB, the limit is %d", peak>>20, floodLimit>>20)
			}
			due, raised := 0, 0
			for i := range truth.Connections {
				c := &truth.Connections[i]
				if len(c.Chain) > 0 && truth.Certificates[c.Chain[0].Certificate].Plant != "" {
					due++
					if alerts[[2]netip.AddrPort{c.Client, c.Server}] {
						raised++
					}
				}
			}
			if raised != due || due == 0 {
				t.Errorf("%d of %d alerts", raised, due)
			}
			if n := stats.Records.Handshakes + stats.Records.Unrecorded; n != stats.Parser.Handshakes {
				t.Errorf("%d handshakes are recorded or counted, %d were seen", n, stats.Parser.Handshakes)
			}
		})
	}
}

// watchPeak watches the most memory that a process has had resident, in bytes, and
// returns a function that ends that and returns it. The kernel's own account of an
// ended process (ru_maxrss) begins with that of the process which started it.
func watchPeak(pid int) func() int {
	done, result := make(chan struct{}), make(chan int)
	go func() {
		peak := 0
		for {
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
				var kib int
				if _, err := fmt.Sscan(rest, &kib); err == nil {
					peak = max(peak, kib<<10)
				}
			}
			select {
			case <-done:
				result <- peak
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return func() int {
		close(done)
		return <-result
	}
}

// floodStats are the counters that are looked at.
type floodStats struct {
	Parser struct {
		Handshakes uint64 `json:"handshakes"`
	} `json:"parser"`
	Records struct {
		Handshakes uint64 `json:"handshakes"`
		Unrecorded uint64 `json:"handshakes_unrecorded"`
	} `json:"records"`
}

// readFlood reads records: who raised alerts, and the counters.
func readFlood(t *testing.T, r io.Reader) (alerts map[[2]netip.AddrPort]bool, stats floodStats) {
	t.Helper()
	type end struct {
		IP   netip.Addr `json:"ip"`
		Port uint16     `json:"port"`
	}
	alerts = map[[2]netip.AddrPort]bool{}
	lines := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return alerts, stats
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(line, []byte(`"oddcert.alert"`)) && !bytes.Contains(line, []byte(`"oddcert.stats"`)) {
			continue
		}
		var rec struct {
			Client  end `json:"source"`
			Server  end `json:"destination"`
			Oddcert struct {
				Stats floodStats `json:"stats"`
			} `json:"oddcert"`
		}
		if err := json.Unmarshal(line, &rec); err != nil {
			t.Fatal(err)
		}
		stats = rec.Oddcert.Stats // the stats record is the last
		alerts[[2]netip.AddrPort{netip.AddrPortFrom(rec.Client.IP, rec.Client.Port), netip.AddrPortFrom(rec.Server.IP, rec.Server.Port)}] = true
	}
}

// memoryGroup makes a control group whose processes may take limit bytes, and
// returns its folder; empty where that is not possible.
func memoryGroup(t *testing.T, limit int64) string {
	t.Helper()
	name := fmt.Sprintf("oddcert-test-%d", os.Getpid())
	for file, root := range map[string]string{"memory.max": "/sys/fs/cgroup", "memory.limit_in_bytes": "/sys/fs/cgroup/memory"} {
		dir := filepath.Join(root, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0) // it is there, or this is no control group for memory
		if err == nil {
			_, err = fmt.Fprint(f, limit)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			os.Remove(dir)
			continue
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		return dir
	}
	t.Log("no control group can be made here: the peak is looked at alone")
	return ""
}

// TestAllotment: what is divided is never more than there is, ample memory
// gives the defaults, and more memory never gives less of anything.
func TestAllotment(t *testing.T) {
	var before allotment
	for _, workers := range []int{1, 2, 8, 64} {
		for limit := int64(leastMemory); limit <= 64<<30; limit += limit / 4 {
			a := allot(limit, workers, workers, 0)
			state := int64(a.flows.Flows*costFlow + a.flows.Undecided*costUndecided + a.flows.Held + a.flows.Parsing +
				a.parsers.Sealed + a.parsers.Cached + a.encoders + workers*a.ring)
			if state > limit*3/4 && workers < 64 {
				t.Errorf("%d MiB for %d workers: %d MiB of state", limit>>20, workers, state>>20)
			}
			if limit > leastMemory && (a.flows.Flows < before.flows.Flows || a.flows.Undecided < before.flows.Undecided || a.flows.Parsing < before.flows.Parsing) {
				t.Errorf("%d MiB gives less than before: %+v", limit>>20, a)
			}
			before = a
		}
		if !strings.Contains(fmt.Sprint(before), "1048576") {
			t.Errorf("ample memory gives %+v", before)
		}
	}
}
