//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/sensor/internal/netlab"
)

// The drills in this file give the program as it is shipped the real fault, one
// kind of loss after the other: it is said when it begins, counted, and said
// when it ends, and stops nothing that is not concerned.

// endsWithin is how long the program may take to end after a signal, whatever
// hangs.
const endsWithin = 10 * time.Second

// inMounts runs the test again in a mount namespace of its own, which ends with
// it, and reports whether this is there. It skips the test where that is not
// allowed.
func inMounts(t *testing.T) bool {
	t.Helper()
	const env = "ODDCERT_DRILL_MOUNTS"
	if os.Getuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	if os.Getenv(env) != "" {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), env+"=1", drilledEnv+"="+drilled(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM):
		t.Skip("not allowed to make a mount namespace")
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP")):
		t.Skipf("%s", out)
	}
	return false
}

// smallDisk mounts a file system of some KiB that ends with the test.
func smallDisk(t *testing.T, size int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dk,mode=700", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// started is a run of the program.
type started struct {
	*exec.Cmd
	ended          chan error
	stdout, stderr lockedBuffer
}

// start starts a command whose outputs are collected, unless they are set.
func start(t *testing.T, cmd *exec.Cmd) *started {
	t.Helper()
	s := &started{Cmd: cmd, ended: make(chan error, 1)}
	if cmd.Stdout == nil {
		cmd.Stdout = &s.stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &s.stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return s
}

// says waits until the program has said something.
func (s *started) says(t *testing.T, what string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(s.stderr.String(), what); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not say %q: %s", what, s.stderr.String())
		}
	}
}

// end sends a signal, unless it is 0, and returns the exit status, which must
// come in time.
func (s *started) end(t *testing.T, signal syscall.Signal) int {
	t.Helper()
	within := patience
	if signal != 0 {
		within = endsWithin
		if err := s.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-s.ended:
	case <-time.After(within):
		t.Fatalf("does not end within %v: %s", within, s.stderr.String())
	}
	return s.ProcessState.ExitCode()
}

// summary is the end of what it has shown.
func (s *started) summary() string {
	text := s.stdout.String()
	return text[strings.LastIndex(text, "\n\n")+1:]
}

// wholeLines counts lines, each of which must be a record.
func wholeLines(t *testing.T, path string) (n int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if !json.Valid(line) || line[len(line)-1] != '\n' {
			t.Errorf("line %d of %s is none: %.200q", n+1, path, line)
		}
		n++
	}
	return n
}

// lostRecords reads the number in "N lost" of the closing error.
func lostRecords(t *testing.T, text string) int {
	t.Helper()
	found := regexp.MustCompile(`oddcert: write records to .*: (\d+) lost: `).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("no loss is said: %s", text)
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// manyHandshakes writes a capture of so many handshakes.
func manyHandshakes(t *testing.T, n int) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "many.pcap")
	b := []byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0}
	for i := range n {
		for k, f := range oddFrames(t, uint16(1024+i)) {
			b = binary.LittleEndian.AppendUint32(b, uint32(1_700_000_000+i/1000))
			b = binary.LittleEndian.AppendUint32(b, uint32(i%1000*1000+k))
			b = binary.LittleEndian.AppendUint32(b, uint32(len(f)))
			b = binary.LittleEndian.AppendUint32(b, uint32(len(f)))
			b = append(b, f...)
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// drillWire is a sensor in a namespace of its own, and somebody who sends frames
// to its interfaces.
type drillWire struct {
	sender, sensor *netlab.Namespace
	port           uint16 // of the next handshake
}

func newDrillWire(t *testing.T) *drillWire {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("network namespaces: ip is not installed")
	}
	w := &drillWire{sender: netlab.NewNamespace(t), sensor: netlab.NewNamespace(t), port: 1024}
	netlab.Silence(t, w.sender)
	netlab.Silence(t, w.sensor)
	w.join(t, "span0")
	return w
}

// join makes an interface of the sensor, with its other end at the sender under
// the same name.
func (w *drillWire) join(t *testing.T, iface string) {
	t.Helper()
	netlab.Join(t, w.sender, iface, w.sensor, iface)
}

// rawSocket returns a socket of this namespace that sends frames on an interface.
func rawSocket(t *testing.T, iface string) int {
	t.Helper()
	i, err := net.InterfaceByName(iface)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index}); err != nil {
		unix.Close(fd)
		t.Fatal(err)
	}
	return fd
}

// handshakes sends handshakes to an interface of the sensor.
func (w *drillWire) handshakes(t *testing.T, iface string, n int) {
	t.Helper()
	w.sender.Do(func() {
		fd := rawSocket(t, iface)
		defer unix.Close(fd)
		for range n {
			for _, f := range oddFrames(t, w.port) {
				if _, err := unix.Write(fd, f); err != nil {
					t.Fatal(err)
				}
			}
			w.port++
		}
	})
}

// live starts the program on span0.
func (w *drillWire) live(t *testing.T, configure func(*exec.Cmd), args ...string) *started {
	t.Helper()
	cmd := w.sensor.Command(drilled(t), append([]string{"live", "-i", "span0", "--rules", everyAlert(t)}, args...)...)
	if configure != nil {
		configure(cmd)
	}
	s := start(t, cmd)
	s.says(t, "listening")
	return s
}

// linesSoFar is how many lines a file has while somebody writes to it.
func linesSoFar(path string) int {
	text, _ := os.ReadFile(path)
	return bytes.Count(text, []byte{'\n'})
}

// A replay whose disk is full: what fits is whole, the rest is counted, and the
// file that was there stays.
func TestDrillReplayFullDisk(t *testing.T) {
	t.Parallel()
	if !inMounts(t) {
		return
	}
	dir := smallDisk(t, 256)
	file := filepath.Join(dir, "records.json")
	if err := os.WriteFile(file, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	input := manyHandshakes(t, 200)
	whole, status := replayed(t, "--rules", everyAlert(t), "--records", "alert,handshake", input)
	if status != exitOK || len(whole) != 400 {
		t.Fatalf("%d records, exit status %d", len(whole), status)
	}
	s := start(t, exec.Command(drilled(t), "replay", "--json", file, "--rules", everyAlert(t), "--records", "alert,handshake", input))
	if status := s.end(t, 0); status != exitFailure {
		t.Errorf("exit status %d", status)
	}
	said := s.stderr.String()
	if written := wholeLines(t, file+".part"); written == 0 || written+lostRecords(t, said) != len(whole) {
		t.Errorf("%d lines of %d; said %s", written, len(whole), said)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "{}\n" {
		t.Errorf("the file is now %q, %v", b, err)
	}
	for _, want := range []string{"no space left on device", "cannot be written", "the records so far are in " + file + ".part"} {
		if !strings.Contains(said, want) {
			t.Errorf("said %q, not %q", said, want)
		}
	}
	if !strings.Contains(s.stdout.String(), "json: lost") {
		t.Errorf("the summary: %s", s.summary())
	}
}

// A live capture whose disk is full, and gets room again: records wait, and are
// written from a clean line on.
func TestDrillLiveFullDisk(t *testing.T) {
	if !inMounts(t) {
		return
	}
	w := newDrillWire(t)
	dir := smallDisk(t, 1024)
	file, filler := filepath.Join(dir, "records.json"), filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 970<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	// The last run has left half a record.
	if err := os.WriteFile(file, []byte("{\"a\":1}\n{\"@timestamp\":\"2"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := w.live(t, nil, "--json", file, "--records", "alert")
	s.says(t, "cut a record whose end is missing")
	w.handshakes(t, "span0", 40)
	s.says(t, "no space left on device")
	before := wholeLines(t, file) // no half line is left behind either
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.says(t, "written again")
	waitFor(t, "the records that waited", func() bool { return linesSoFar(file) == 41 })
	w.handshakes(t, "span0", 3)
	waitFor(t, "new records", func() bool { return linesSoFar(file) == 44 })
	if status := s.end(t, syscall.SIGTERM); status != exitOK || before == 0 || wholeLines(t, file) != 44 {
		t.Errorf("exit status %d, %d lines before: %s", status, before, s.stderr.String())
	}
}

// Somebody who reads one line and goes.
func TestDrillClosedPipe(t *testing.T) {
	open := func(t *testing.T) (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		return r, w
	}
	t.Run("replay", func(t *testing.T) {
		r, w := open(t)
		cmd := exec.Command(drilled(t), "replay", "--json", "-", "--records", "handshake", manyHandshakes(t, 500))
		cmd.Stdout = w
		s := start(t, cmd)
		w.Close()
		line, err := bufio.NewReaderSize(r, 16).ReadString('\n')
		if err != nil || !json.Valid([]byte(line)) {
			t.Errorf("read %q, %v", line, err)
		}
		r.Close()
		if status := s.end(t, 0); status != exitFailure {
			t.Errorf("exit status %d", status)
		}
		if n := lostRecords(t, s.stderr.String()); n == 0 || n >= 500 || !strings.Contains(s.stderr.String(), "broken pipe") {
			t.Errorf("%d lost; said %s", n, s.stderr.String())
		}
	})
	t.Run("live", func(t *testing.T) {
		wire := newDrillWire(t)
		r, w := open(t)
		s := wire.live(t, func(cmd *exec.Cmd) { cmd.Stdout = w }, "--json", "-", "--records", "alert")
		w.Close()
		wire.handshakes(t, "span0", 1)
		if line, err := bufio.NewReaderSize(r, 16).ReadString('\n'); err != nil || !json.Valid([]byte(line)) {
			t.Errorf("read %q, %v", line, err)
		}
		r.Close()
		wire.handshakes(t, "span0", 2)
		s.says(t, "broken pipe")
		wire.handshakes(t, "span0", 3) // it goes on
		time.Sleep(time.Second / 2)
		if status := s.end(t, syscall.SIGTERM); status != exitFailure || lostRecords(t, s.stderr.String()) != 5 {
			t.Errorf("exit status %d: %s", status, s.stderr.String())
		}
	})
}

// Somebody who does not read: a replay waits for him, a live capture does not,
// and both end.
func TestDrillBlockedPipe(t *testing.T) {
	t.Parallel()
	t.Run("replay", func(t *testing.T) {
		t.Parallel()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cmd := exec.Command(drilled(t), "replay", "--json", "-", "--records", "handshake", manyHandshakes(t, 2000))
		cmd.Stdout = w
		s := start(t, cmd)
		w.Close()
		s.says(t, "they are not taken as fast as they come")
		status := s.end(t, syscall.SIGTERM)
		// What was read of the capture until then, but for what is in the pipe.
		if lost := lostRecords(t, s.stderr.String()); status != exitFailure || lost < 500 || lost > 2000 {
			t.Errorf("exit status %d, %d lost: %s", status, lost, s.stderr.String())
		}
	})
	t.Run("live", func(t *testing.T) {
		t.Parallel()
		wire := newDrillWire(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		s := wire.live(t, func(cmd *exec.Cmd) { cmd.Stdout = w }, "--json", "-")
		w.Close()
		const bursts, each = 24, 100
		for range bursts { // 24 MB of records, for a queue of 16 MiB and a pipe
			wire.handshakes(t, "span0", each)
			time.Sleep(20 * time.Millisecond)
		}
		s.says(t, "cannot be written")
		read := make(chan int)
		go func() {
			text, _ := io.ReadAll(r)
			for line := range bytes.Lines(text) {
				if !json.Valid(line) {
					t.Errorf("no record: %.200q", line)
				}
			}
			read <- bytes.Count(text, []byte(`"dataset":"oddcert.`))
		}()
		s.says(t, "written again")
		status := s.end(t, syscall.SIGTERM)
		lost := lostRecords(t, s.stderr.String())
		// Each handshake has two records; the certificate and statistics come on top.
		if n := <-read + lost; status != exitFailure || lost == 0 || n < 2*bursts*each || n > 2*bursts*each+10 {
			t.Errorf("exit status %d, %d read or lost: %s", status, n, s.stderr.String())
		}
	})
	t.Run("terminal", func(t *testing.T) {
		t.Parallel()
		wire := newDrillWire(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		file := filepath.Join(t.TempDir(), "records.json")
		s := wire.live(t, func(cmd *exec.Cmd) { cmd.Stdout = w }, "--json", file, "--records", "alert")
		w.Close()
		wire.handshakes(t, "span0", 200) // 200 kB of text for a pipe of 64 KiB
		waitFor(t, "all records", func() bool { return linesSoFar(file) == 200 })
		s.end(t, syscall.SIGTERM)
	})
}

// An interface that disappears costs itself alone, and comes back.
func TestDrillInterface(t *testing.T) {
	w := newDrillWire(t)
	w.join(t, "span1")
	file := filepath.Join(t.TempDir(), "records.json")
	s := w.live(t, nil, "-i", "span1", "--json", file, "--records", "alert")
	remove := func(iface string) {
		t.Helper()
		if out, err := w.sensor.Command("ip", "link", "delete", iface).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	w.handshakes(t, "span1", 1)
	waitFor(t, "a record of span1", func() bool { return linesSoFar(file) == 1 })
	remove("span1")
	s.says(t, "capture on span1: the interface is gone: going on without")
	w.handshakes(t, "span0", 1)
	waitFor(t, "a record of span0", func() bool { return linesSoFar(file) == 2 })
	// It is seen again once it is there and up.
	back := func(iface string, lines int) {
		t.Helper()
		w.join(t, iface)
		s.says(t, "capture on "+iface+": the interface is back after")
		waitFor(t, "another record of "+iface, func() bool {
			w.handshakes(t, iface, 1)
			time.Sleep(200 * time.Millisecond)
			return linesSoFar(file) >= lines
		})
	}
	back("span1", 3)
	remove("span1")
	remove("span0")
	s.says(t, "capture on span0: the interface is gone")
	back("span0", linesSoFar(file)+1)
	if status := s.end(t, syscall.SIGTERM); status != exitOK {
		t.Errorf("exit status %d: %s", status, s.stderr.String())
	}
	if !strings.Contains(s.stdout.String(), "times that an interface was gone") {
		t.Errorf("the summary: %s", s.summary())
	}
}

// Frames that the rings hold when the signal comes are read.
func TestDrillRings(t *testing.T) {
	w := newDrillWire(t)
	file := filepath.Join(t.TempDir(), "records.json")
	s := w.live(t, nil, "--json", file, "--records", "alert")
	const n = 300
	w.handshakes(t, "span0", n)
	if status := s.end(t, syscall.SIGTERM); status != exitOK || wholeLines(t, file) != n {
		t.Errorf("exit status %d, %d of %d alerts: %s", status, wholeLines(t, file), n, s.summary())
	}
}

// hanging is a server that takes connections and does what to them.
func hanging(t *testing.T, what func(net.Conn)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go what(c)
		}
	}()
	return "http://" + l.Addr().String()
}

// Whatever the server does, SIGTERM ends the program in time, and what it has
// not delivered is said and kept.
func TestDrillHangingServer(t *testing.T) {
	t.Parallel()
	input := manyHandshakes(t, 10_000) // records that take 3 MB on disk, for a spool of 1 MiB
	for name, what := range map[string]func(net.Conn){
		"never answers": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"never reads":   func(net.Conn) {},
		"trickles": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Elastic-Product: Elasticsearch\r\nContent-Type: application/json\r\n\r\n{")
			for {
				if _, err := io.WriteString(c, " "); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			config := filepath.Join(dir, "config.yaml")
			text := fmt.Sprintf("es: [%q]\nspool: %q\nspool_size: 1MiB\n", hanging(t, what), filepath.Join(dir, "spool"))
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			s := start(t, exec.Command(drilled(t), "replay", "--config", config, "--rules", everyAlert(t), "--json", filepath.Join(dir, "records.json"), input))
			waitFor(t, "records", func() bool { return linesSoFar(filepath.Join(dir, "records.json.part")) > 10 })
			if status := s.end(t, syscall.SIGTERM); status != exitFailure {
				t.Errorf("exit status %d", status)
			}
			if said := s.stderr.String(); !strings.Contains(said, "records kept in "+filepath.Join(dir, "spool")) || !strings.Contains(said, "stopped before the end") {
				t.Errorf("said %s", said)
			}
			if !strings.Contains(s.stdout.String(), "records that wait for elasticsearch") {
				t.Errorf("the summary: %s", s.summary())
			}
		})
	}
	t.Run("live", func(t *testing.T) {
		t.Parallel()
		w := newDrillWire(t)
		l := w.sensor.Listen(t, "127.0.0.1:0")
		go func() {
			for {
				if _, err := l.Accept(); err != nil {
					return
				}
			}
		}()
		spool := filepath.Join(t.TempDir(), "spool")
		s := w.live(t, nil, "--es", "http://"+l.Addr().String(), "--spool", spool, "--records", "alert")
		w.handshakes(t, "span0", 5)
		time.Sleep(time.Second)
		// What is kept is no failure: the next run delivers it.
		if status := s.end(t, syscall.SIGTERM); status != exitOK || !strings.Contains(s.stderr.String(), "5 records kept in "+spool) {
			t.Errorf("exit status %d: %s", status, s.stderr.String())
		}
	})
	t.Run("second signal", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		s := start(t, exec.Command(drilled(t), "replay", "--es", hanging(t, func(net.Conn) {}), "--spool", filepath.Join(dir, "spool"), oddCapture))
		time.Sleep(time.Second)
		if err := s.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second / 2)
		begin := time.Now()
		s.end(t, syscall.SIGTERM)
		if took := time.Since(begin); took > 5*time.Second { // without it, the delivery has 7
			t.Errorf("took %v", took)
		}
	})
}

// A replay that is killed leaves the file as it was; the next one is not
// confused by what is left.
func TestDrillKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "records.json")
	if err := os.WriteFile(file, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		// What is left is not to be taken for what the next one makes.
		if err := os.Remove(file + ".part"); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		cmd := exec.Command(drilled(t), "replay", "--json", file, "--records", "handshake", manyHandshakes(t, 100), "-")
		stdin, err := cmd.StdinPipe() // keeps it from ending
		if err != nil {
			t.Fatal(err)
		}
		s := start(t, cmd)
		waitFor(t, "the file", func() bool { _, err := os.Stat(file + ".part"); return err == nil })
		if signal == syscall.SIGTERM {
			// A reader that waits for its input need not notice: the end comes all the same.
			other := start(t, exec.Command(drilled(t), "replay", "--json", file, oddCapture))
			if status := other.end(t, 0); status != exitFailure || !strings.Contains(other.stderr.String(), "in use by another process") {
				t.Errorf("a second run: exit status %d: %s", status, other.stderr.String())
			}
		}
		s.end(t, signal)
		stdin.Close()
		if b, err := os.ReadFile(file); err != nil || string(b) != "{}\n" {
			t.Errorf("%v: the file is now %.100q, %v", signal, b, err)
		}
		if _, err := os.Stat(file + ".part"); err != nil {
			t.Errorf("%v: %v", signal, err)
		}
	}
	s := start(t, exec.Command(drilled(t), "replay", "--json", file, "--records", "handshake", oddCapture))
	if status := s.end(t, 0); status != exitOK || wholeLines(t, file) != 1 {
		t.Errorf("exit status %d: %s", status, s.stderr.String())
	}
	if _, err := os.Stat(file + ".part"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s.part: %v", file, err)
	}
}

// SIGHUP has the file of records opened anew, and ends nothing, at no time.
func TestDrillHangup(t *testing.T) {
	t.Run("live", func(t *testing.T) {
		w := newDrillWire(t)
		file := filepath.Join(t.TempDir(), "records.json")
		s := w.live(t, nil, "--json", file, "--records", "alert")
		for i := range 3 {
			w.handshakes(t, "span0", 2)
			waitFor(t, "records", func() bool { return linesSoFar(file) == 2 })
			if err := os.Rename(file, fmt.Sprint(file, i)); err != nil {
				t.Fatal(err)
			}
			if err := s.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "a new file", func() bool { _, err := os.Stat(file); return err == nil })
		}
		w.handshakes(t, "span0", 1)
		if err := s.Process.Signal(syscall.SIGHUP); err != nil { // without a move
			t.Fatal(err)
		}
		if status := s.end(t, syscall.SIGTERM); status != exitOK || wholeLines(t, file) != 1 || wholeLines(t, file+"2") != 2 {
			t.Errorf("exit status %d: %s", status, s.stderr.String())
		}
	})
	t.Run("replay", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "records.json")
		cmd := exec.Command(drilled(t), "replay", "--json", file, "--records", "handshake", manyHandshakes(t, 300), "-")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		s := start(t, cmd)
		waitFor(t, "the file", func() bool { return linesSoFar(file+".part") > 0 })
		if err := os.Rename(file+".part", file+".moved"); err != nil {
			t.Fatal(err)
		}
		if err := s.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		s.says(t, "opened anew")
		capture, err := os.ReadFile(oddCapture)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stdin.Write(capture); err != nil {
			t.Fatal(err)
		}
		stdin.Close()
		if status := s.end(t, 0); status != exitOK || wholeLines(t, file)+wholeLines(t, file+".moved") != 301 {
			t.Errorf("exit status %d, %d and %d lines: %s", status, wholeLines(t, file), wholeLines(t, file+".moved"), s.stderr.String())
		}
	})
	t.Run("at once", func(t *testing.T) {
		for delay := range 10 {
			s := start(t, exec.Command(drilled(t), "replay", manyHandshakes(t, 100)))
			// Its own code must run before it can be asked anything: first of all it
			// catches SIGHUP, and then ignores SIGPIPE.
			waitFor(t, "the program", func() bool {
				status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Process.Pid))
				_, after, _ := strings.Cut(string(status), "SigIgn:")
				line, _, _ := strings.Cut(after, "\n")
				ignored, _ := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
				return err != nil || ignored>>(syscall.SIGPIPE-1)&1 == 1
			})
			time.Sleep(time.Duration(delay) * 3 * time.Millisecond)
			_ = s.Process.Signal(syscall.SIGHUP)
			if status := s.end(t, 0); status != exitOK {
				t.Errorf("exit status %d: %s", status, s.stderr.String())
			}
		}
	})
}

// Segments of the spool that somebody deletes, empties or cuts while the program
// is away: how many records are lost is said, and counted.
func TestDrillSpool(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := "http://" + closed.Addr().String()
	closed.Close()
	for name, damage := range map[string]func(string) error{
		"deleted": os.Remove,
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"cut": func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return os.Truncate(path, info.Size()/2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spool := filepath.Join(t.TempDir(), "spool")
			keep := func(input string) *started {
				s := start(t, exec.Command(drilled(t), "replay", "--es", away, "--spool", spool, "--rules", everyAlert(t), "--records", "alert", input))
				time.Sleep(time.Second)
				if status := s.end(t, syscall.SIGTERM); status != exitFailure {
					t.Errorf("exit status %d: %s", status, s.stderr.String())
				}
				return s
			}
			if s := keep(manyHandshakes(t, 50)); !strings.Contains(s.stderr.String(), "50 records kept in "+spool) {
				t.Fatalf("said %s", s.stderr.String())
			}
			files, err := filepath.Glob(filepath.Join(spool, "alerts-*.spool"))
			if err != nil || len(files) != 1 {
				t.Fatalf("%q, %v", files, err)
			}
			if err := damage(files[0]); err != nil {
				t.Fatal(err)
			}
			s := keep(oddCapture)
			kept := 0
			if found := regexp.MustCompile(`(\d+) records? kept`).FindStringSubmatch(s.stderr.String()); found != nil {
				kept, _ = strconv.Atoi(found[1])
			}
			if want := fmt.Sprintf("records=%d", 51-kept); kept == 0 || kept == 51 || !strings.Contains(s.stderr.String(), "records are missing") || !strings.Contains(s.stderr.String(), want) {
				t.Errorf("%d kept, not %q: %s", kept, want, s.stderr.String())
			}
			if !regexp.MustCompile(fmt.Sprintf(`%d +outputs: elasticsearch missing`, 51-kept)).MatchString(s.stdout.String()) {
				t.Errorf("the summary: %s", s.summary())
			}
		})
	}
}

// Alerts that are refused for want of room: said when it begins, and when it
// ends, with their number.
func TestDrillRefusedAlerts(t *testing.T) {
	t.Parallel()
	if !inMounts(t) {
		return
	}
	w := newDrillWire(t)
	dir := smallDisk(t, 256)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 200<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	s := w.live(t, nil, "--es", "http://127.0.0.1:1", "--spool", filepath.Join(dir, "spool"), "--records", "alert")
	for range 1500 { // 11 MB of alerts: 8 MiB wait in memory
		w.handshakes(t, "span0", 1)
	}
	s.says(t, `"spool: cannot write, records wait in memory" queue=alerts`)
	s.says(t, `"spool: records lost" queue=alerts`)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.says(t, `"spool: writes again" queue=alerts`)
	time.Sleep(4 * time.Second) // none is refused for a while
	w.handshakes(t, "span0", 1)
	s.says(t, `"spool: takes records again" queue=alerts lost=`)
	s.end(t, syscall.SIGTERM)
	if !strings.Contains(s.stdout.String(), "spool: refused alert") {
		t.Errorf("the summary: %s", s.summary())
	}
}

// Records that the server will never take are in the summary and in the exit
// status: it is made when the delivery is over.
func TestDrillDeadLetters(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":{"type":"illegal","reason":"no \u001b[2J\u009b2J \u202e"},"status":400}`)
	}))
	defer server.Close()
	spool := filepath.Join(t.TempDir(), "spool")
	s := start(t, exec.Command(drilled(t), "replay", "--es", server.URL, "--spool", spool, "--records", "alert", oddCapture))
	if status := s.end(t, 0); status != exitFailure {
		t.Errorf("exit status %d: %s", status, s.stderr.String())
	}
	if !regexp.MustCompile(`1 +outputs: elasticsearch dead alert`).MatchString(s.stdout.String()) || strings.Contains(s.stdout.String(), "nothing lost") {
		t.Errorf("the summary: %s", s.summary())
	}
	if !strings.Contains(s.stderr.String(), "refused for good") {
		t.Errorf("said %s", s.stderr.String())
	}
	harmlessText(t, s)
}

// harmlessText wants that nothing that was written can move a cursor or change
// the order of what is read.
func harmlessText(t *testing.T, s *started) {
	t.Helper()
	for _, text := range []string{s.stdout.String(), s.stderr.String()} {
		if i := strings.IndexFunc(text, func(r rune) bool {
			return r < ' ' && r != '\n' || r >= 0x7F && r < 0xA0 || r == 0x202E || r == 0x2066
		}); i >= 0 {
			t.Errorf("%q", text)
		}
	}
}

// Names of files, of rules and of keys in a configuration that would do
// something to a terminal.
func TestDrillEscapes(t *testing.T) {
	const evil = "\x1b[2J\x1b]0;x\a\u009b2J\u202egpj"
	dir := t.TempDir()
	broken := filepath.Join(dir, "a"+evil+".pcap")
	config := filepath.Join(dir, "c"+evil+".yaml")
	rules := filepath.Join(dir, "r"+evil)
	if err := os.Mkdir(rules, 0o700); err != nil {
		t.Fatal(err)
	}
	rule := strings.NewReplacer("TITLE", strconv.QuoteToASCII("T"+evil)).Replace(`title: TITLE
id: 4b9f2f0e-7a6e-4a59-9e2f-0d3b1c8d7a10
status: test
description: A rule of this test.
logsource:
  product: oddcert
  category: tls
detection:
  selection:
    oddcert.chain.name|endswith: .microsoft.com
  condition: selection
level: low
`)
	rule = strings.ReplaceAll(rule, `\a`, `\u0007`)
	for path, text := range map[string]string{
		broken: "not a capture", config: "\"nm\\e[2J\": x\n", filepath.Join(rules, "r.yml"): rule,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"replay", broken},
		{"replay", "--config", config, oddCapture},
		{"replay", "--rules", rules, "--no-builtin", oddCapture},
		{"replay", "--rules", broken, oddCapture},
		{"replay", "--json", filepath.Join(broken, "x"), oddCapture},
		{"replay", "--filter", evil, oddCapture},
		{"live", "-i", strings.ReplaceAll(evil, "[", "")}, // else it is a pattern
		{"rules", "check", rules},
		{"rules", "check", broken},
		{evil},
	} {
		s := start(t, exec.Command(drilled(t), args...))
		s.end(t, 0)
		harmlessText(t, s)
		if s.stdout.String()+s.stderr.String() == "" {
			t.Errorf("%q says nothing", args)
		}
	}
}

// Secrets that others may read are said to be.
func TestDrillSecrets(t *testing.T) {
	type attempt struct {
		*started
		what        string
		says, plain bool
	}
	var all []attempt // at the same time: each tries to reach its server until it gives up
	for mode, says := range map[os.FileMode]bool{0o644: true, 0o640: false} {
		for address, plain := range map[string]bool{"http://192.0.2.1:9200": true, "http://127.0.0.1:1": false, "http://[::1]:1": false, "https://192.0.2.1:9200": false} {
			dir := t.TempDir()
			password := filepath.Join(dir, "password")
			if err := os.WriteFile(password, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(password, mode); err != nil {
				t.Fatal(err)
			}
			// Without an input that is there it says what it has to say, and ends.
			s := start(t, exec.Command(drilled(t), "replay", "--es", address, "--es-username", "u", "--es-password-file", password,
				"--spool", filepath.Join(dir, "spool"), filepath.Join(dir, "missing.pcap")))
			all = append(all, attempt{s, fmt.Sprintf("%v, %s", mode, address), says, plain})
		}
	}
	for _, s := range all {
		s.end(t, 0)
		said := s.stderr.String()
		if strings.Contains(said, "everybody on this machine may read this secret") != s.says || strings.Contains(said, "plain HTTP") != s.plain {
			t.Errorf("%s: %s", s.what, said)
		}
	}
}

// No crash writes what is in memory to the disk.
func TestDrillCore(t *testing.T) {
	cmd := exec.Command("sh", "-c", `ulimit -c unlimited 2>/dev/null; exec "$0" replay -`, drilled(t))
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "GOTRACEBACK=crash")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	s := start(t, cmd)
	limits := ""
	waitFor(t, "no core dumps", func() bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/limits", s.Process.Pid))
		limits = string(text)
		return regexp.MustCompile(`Max core file size +0 +0 `).Match(text)
	})
	s.end(t, syscall.SIGABRT)
	if status, ok := s.ProcessState.Sys().(syscall.WaitStatus); !ok || status.CoreDump() {
		t.Errorf("%v; limits %s", s.ProcessState, limits)
	}
	if left, _ := filepath.Glob(filepath.Join(cmd.Dir, "*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}
