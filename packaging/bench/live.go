package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What measureLive calls its captures and programs.
const (
	liveBulk       = "live, bulk"
	liveHandshakes = "live, handshakes"
	withShunt      = "oddcert, live"
	withoutShunt   = "oddcert, no shunt"
	suricataLive   = "Suricata, workers"
)

// The ends of the wire: what goes into one comes out of the other.
const (
	sendingEnd   = "bench0"
	listeningEnd = "bench1"
)

// measureLive sends captures as fast as the sender can over a veth pair, in a
// network namespace that is made for it and taken down again, to programs that
// listen at its other end, one at a time.
//
// The wall clock is that of the sender. The CPU seconds are those of the
// program from when it listens until it has worked off what came. What the
// kernel does for a program, to filter and to copy, is the sender's.
func measureLive(ctx context.Context, b *bench, r *report) error {
	sender, err := exec.LookPath("tcpreplay")
	if err != nil || os.Getuid() != 0 {
		r.omitted = append(r.omitted, "live: it takes root and tcpreplay")
		return nil
	}
	wire, err := newWire(ctx)
	if err != nil {
		return err
	}
	defer wire.close()
	for _, c := range []struct{ name, capture string }{{liveBulk, bulk}, {liveHandshakes, handshakes}} {
		in, err := b.capture(ctx, c.capture, b.scale)
		if err != nil {
			return err
		}
		in.name = c.name
		if err := r.listen(ctx, b, wire, sender, in); err != nil {
			return err
		}
	}
	return nil
}

// listen compares the programs that listen on a capture.
func (r *report) listen(ctx context.Context, b *bench, wire wire, sender string, in input) error {
	programs := b.listeners()
	rows := make([]row, len(programs))
	for i, p := range programs {
		rows[i] = row{capture: in.name, program: p.name}
	}
	seen := make(map[[sha256.Size]byte]*verdict)
	for n := range b.runs {
		fmt.Fprintf(b.log, "%s: run %d of %d\n", in.name, n+1, b.runs)
		for i, p := range programs {
			w := &rows[i]
			if w.wrong != "" {
				continue
			}
			f, err := wire.once(ctx, p, sender, in.path)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				w.wrong, w.lost = err.Error(), errors.Is(err, errLost)
				continue
			}
			if w.verdict, err = b.judge(ctx, p, in.truth, seen); err != nil {
				return fmt.Errorf("judge %s: %w", p.name, err)
			}
			w.wrong = w.verdict.Wrong
			w.runs = append(w.runs, f)
		}
	}
	r.rows = append(r.rows, rows...)
	return nil
}

// listeners are the installed programs that listen.
func (b *bench) listeners() []program {
	records := filepath.Join(b.out, "records.json")
	args := []string{b.oddcert, "live", "-i", listeningEnd, "--json", records, "--records", "handshake,alert,stats"}
	all := []program{
		{name: withShunt, args: args, output: records, format: "records"},
		{name: withoutShunt, args: append(args[:len(args):len(args)], "--no-shunt"), output: records, format: "records"},
	}
	if path, ok := b.peers["suricata"]; ok {
		all = append(all, program{
			name: suricataLive,
			args: []string{path, "--af-packet=" + listeningEnd, "-c", filepath.Join(b.out, "suricata.yaml"),
				"-S", filepath.Join(b.out, "suricata.rules"), "-l", b.out, "-k", "none", "--runmode", "workers", "-v"},
			output: filepath.Join(b.out, "eve.json"),
			format: "eve",
		})
	}
	return all
}

// wire is a network namespace with a veth pair.
type wire struct{ namespace string }

func newWire(ctx context.Context) (wire, error) {
	w := wire{"oddcert-bench-" + strconv.Itoa(os.Getpid())}
	for _, args := range [][]string{
		{"ip", "netns", "add", w.namespace},
		w.inside("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"),
		{"ip", "-n", w.namespace, "link", "add", sendingEnd, "type", "veth", "peer", "name", listeningEnd},
		{"ip", "-n", w.namespace, "link", "set", sendingEnd, "up"},
		{"ip", "-n", w.namespace, "link", "set", listeningEnd, "up"},
	} {
		if _, err := output(ctx, args...); err != nil {
			w.close()
			return wire{}, err
		}
	}
	return w, nil
}

func (w wire) close() { _ = exec.Command("ip", "netns", "del", w.namespace).Run() }

// inside is a command that runs in the namespace. Its process is the command
// itself: ip becomes it.
func (w wire) inside(args ...string) []string {
	return append([]string{"ip", "netns", "exec", w.namespace}, args...)
}

// errLost says that the machine was too slow for the sender: a program may not
// be blamed for what it did not find then.
var errLost = errors.New("frames lost")

// once has p listen while the capture is sent, and fails when a frame is lost.
func (w wire) once(ctx context.Context, p program, sender, capture string) (f figures, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := os.Remove(p.output); err != nil && !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	args := w.inside(p.args...)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return f, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		if err != nil {
			_ = cmd.Process.Kill()
		}
	}()
	pid := cmd.Process.Pid
	if err := listening(ctx, pid, ended); err != nil {
		return f, fmt.Errorf("%s: %w", p.name, err)
	}
	before, err := cpu(pid)
	if err != nil {
		return f, err
	}
	start := time.Now()
	text, err := output(ctx, w.inside(sender, "-i", sendingEnd, "-t", "-K", capture)...)
	if err != nil {
		return f, err
	}
	f.wall = time.Since(start)
	sent, err := number(text, `Successful packets:\s+(\d+)`)
	if err != nil {
		return f, err
	}
	after, err := settled(ctx, pid)
	if err != nil {
		return f, err
	}
	f.cpu = after - before
	f.rss = peak(pid)
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		return f, err
	}
	if err := <-ended; err != nil {
		return f, err
	}
	if f.frames, err = received(p, said.Bytes()); err != nil {
		return f, err
	}
	if f.frames.all() != sent {
		return f, fmt.Errorf("%d of %d %w", sent-f.frames.all(), sent, errLost)
	}
	return f, nil
}

// listening waits until a process has a packet socket on an interface.
func listening(ctx context.Context, pid int, ended <-chan error) error {
	const iface = 4 // the column of the interface's index
	for {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/packet", pid))
		if err != nil {
			return err
		}
		rows := strings.Split(strings.TrimSpace(string(text)), "\n")
		for _, row := range rows[1:] {
			if columns := strings.Fields(row); len(columns) > iface && columns[iface] != "0" {
				// The socket is there; what stands behind it needs a moment.
				return sleep(ctx, time.Second)
			}
		}
		select {
		case err := <-ended:
			return fmt.Errorf("ended before it listened: %v", err)
		default:
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// settled waits until a process has used hardly any CPU for a second, and
// returns how much it has used by then.
func settled(ctx context.Context, pid int) (time.Duration, error) {
	last := time.Duration(-1)
	for {
		now, err := cpu(pid)
		if err != nil {
			return 0, err
		}
		if last >= 0 && now-last <= 20*time.Millisecond {
			return now, nil
		}
		last = now
		if err := sleep(ctx, time.Second); err != nil {
			return 0, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// cpu is what a process has used so far, of its own and for the system
// (proc_pid_stat(5)).
func cpu(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	const utime, tick = 11, 10 * time.Millisecond // counted from behind the name
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) <= utime+1 {
		return 0, fmt.Errorf("read /proc/%d/stat: %q", pid, text)
	}
	var sum time.Duration
	for _, field := range fields[utime : utime+2] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// peak is the most memory that a process has had, in bytes.
func peak(pid int) int64 {
	kib, _, _ := strings.Cut(field(fmt.Sprintf("/proc/%d/status", pid), "VmHWM"), " ")
	n, _ := strconv.ParseInt(kib, 10, 64)
	return n << 10
}

// frames are what a program that listens got of those that were sent.
type frames struct {
	read     uint64
	withheld uint64 // by the kernel, as the program wished
}

func (f frames) all() uint64 { return f.read + f.withheld }

// received reads what a program says of the frames.
func received(p program, said []byte) (f frames, err error) {
	if p.name == suricataLive {
		n, err := number(said, `packets: (\d+), drops:`)
		if err != nil {
			return f, err
		}
		drops, err := number(said, `packets: \d+, drops: (\d+)`)
		return frames{read: n - drops}, err
	}
	text, err := os.ReadFile(p.output)
	if err != nil {
		return f, err
	}
	at := bytes.LastIndex(text, []byte(`"capture":{`))
	if at < 0 {
		return f, errors.New("no statistics")
	}
	if f.read, err = number(text[at:], `"frames":(\d+)`); err != nil {
		return f, err
	}
	f.withheld, err = number(text[at:], `"shunted":(\d+)`)
	return f, err
}

// number is the first one that a pattern finds.
func number(text []byte, pattern string) (uint64, error) {
	m := regexp.MustCompile(pattern).FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("no %q in what it said", pattern)
	}
	return strconv.ParseUint(string(m[1]), 10, 64)
}
