package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startOpener starts an opener that ends with the test.
func startOpener(t *testing.T) *Opener {
	t.Helper()
	o, err := StartOpener()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func needRaw(t *testing.T) {
	t.Helper()
	if has, err := permitted(); err != nil || has&(1<<unix.CAP_NET_RAW) == 0 {
		t.Skip("needs CAP_NET_RAW")
	}
}

// TestOpenerSockets has many goroutines ask at once.
func TestOpenerSockets(t *testing.T) {
	needRaw(t)
	o := startOpener(t)
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			for range 50 {
				fd, err := o.Socket()
				if err != nil {
					t.Error(err)
					return
				}
				for option, want := range map[int]int{unix.SO_DOMAIN: unix.AF_PACKET, unix.SO_TYPE: unix.SOCK_RAW} {
					if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option); err != nil || got != want {
						t.Errorf("socket option %d is %d, %v; want %d", option, got, err, want)
					}
				}
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("flags %#x, %v: not closed on exec", flags, err)
				}
				address, err := unix.Getsockname(fd)
				if link, ok := address.(*unix.SockaddrLinklayer); err != nil || !ok || link.Ifindex != 0 || link.Protocol != 0 {
					t.Errorf("bound to %+v, %v", address, err)
				}
				unix.Close(fd)
			}
		})
	}
	asking.Wait()
}

// TestOpenerRights looks at what the process has.
func TestOpenerRights(t *testing.T) {
	needRaw(t)
	const secret = "ODDCERT_TEST_SECRET"
	t.Setenv(secret, "secret")
	// A descriptor that a careless parent has left open.
	stray, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stray)
	o := startOpener(t)
	fd, err := o.Socket() // it has confined itself by then
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	pid := o.process.Pid
	raw := fmt.Sprintf("%016x", 1<<unix.CAP_NET_RAW)
	want := map[string]string{"CapInh": "0000000000000000", "CapPrm": raw, "CapEff": raw, "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"}
	if os.Geteuid() == 0 {
		want["CapBnd"] = "0000000000000000"
	}
	checkThreads(t, pid, want)
	read := func(name string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if name := strings.TrimSpace(read("comm")); name != openerName {
		t.Errorf("its name is %q", name)
	}
	if args := read("cmdline"); args != openerName+"\x00" {
		t.Errorf("its arguments are %q", args)
	}
	if env := read("environ"); env != strings.Join(openerEnvironment, "\x00")+"\x00" {
		t.Errorf("its environment is %q", env)
	}
	strangers := descriptorsOf(t, pid)
	for end := time.Now().Add(30 * time.Second); strangers != nil && time.Now().Before(end); strangers = descriptorsOf(t, pid) {
		time.Sleep(10 * time.Millisecond) // it may not yet have closed the socket that it sent
	}
	if strangers != nil {
		t.Errorf("it has %q", strangers)
	}
	for line := range strings.Lines(read("status")) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") || strings.HasPrefix(line, "Threads") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// descriptorsOf are the descriptors that an opener need not have.
func descriptorsOf(t *testing.T, pid int) (strangers []string) {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // closed by now
		case err != nil:
			t.Fatal(err)
		case link == "/dev/null", e.Name() == "2", e.Name() == "3" && strings.HasPrefix(link, "socket:"):
		case strings.HasPrefix(link, "anon_inode:[event"): // of the Go runtime
		default:
			strangers = append(strangers, e.Name()+" "+link)
		}
	}
	return strangers
}

// TestOpenerEnds has the opener end with its parent, also when that is killed.
func TestOpenerEnds(t *testing.T) {
	needRaw(t)
	k := lookAround(t)
	p := k.confine(t, root)
	var openers []int
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, _ := os.ReadFile(f)
		for field := range strings.FieldsSeq(string(text)) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err == nil {
				openers = append(openers, pid)
			}
		}
	}
	if len(openers) != 1 {
		t.Fatalf("%d children", len(openers))
	}
	// Signals that a terminal or a service manager sends to all are not for it.
	for _, s := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTERM} {
		if err := unix.Kill(openers[0], s); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	go chatter(stop)
	for _, o := range p.do(t, "capture") {
		if o.Text != "" {
			t.Errorf("after the signals: %s: %s", o.Step, o.Text)
		}
	}
	close(stop)
	p.killed = true
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone := func() bool { return errors.Is(unix.Kill(openers[0], 0), unix.ESRCH) }
	for end := time.Now().Add(30 * time.Second); !gone(); time.Sleep(10 * time.Millisecond) {
		if state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", openers[0])); strings.Contains(string(state), ") Z ") {
			return // it has ended, and init has not yet noticed
		}
		if time.Now().After(end) {
			t.Fatal("the opener is still there")
		}
	}
}

// TestOpenerDies has the opener killed: the sensor goes on, and is told.
func TestOpenerDies(t *testing.T) {
	o := startOpener(t)
	if err := o.process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-o.over
	for range 2 {
		if fd, err := o.Socket(); err == nil {
			t.Errorf("socket %d of a dead process", fd)
		}
	}
}

// TestOpenerSilent has an opener that does not answer.
func TestOpenerSilent(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the time limit")
	}
	o := startOpener(t)
	if err := o.process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if fd, err := o.Socket(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("socket %d, %v", fd, err)
	}
	if fd, err := o.Socket(); err == nil {
		t.Errorf("socket %d after an error that is final", fd)
	}
	if err := o.process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// TestOpenerRefuses has the kernel refuse, and the limit of the rate.
func TestOpenerRefuses(t *testing.T) {
	if _, err := parseAnswer(binary.NativeEndian.AppendUint32(nil, uint32(unix.EPERM)), nil, 0); !errors.Is(err, refusal(unix.EPERM)) {
		t.Error(err)
	}
	now := time.Unix(1, 0)
	b := newBucket(now)
	count := func() (n int) {
		for b.take(now) {
			n++
		}
		return n
	}
	if n := count(); n != openerBurst {
		t.Errorf("%d at once, want %d", n, openerBurst)
	}
	if now = now.Add(2 * time.Second); true {
		if n := count(); n != 2*openerRate {
			t.Errorf("%d after two seconds, want %d", n, 2*openerRate)
		}
	}
	now = now.Add(-time.Hour) // the clock was set back
	if n := count(); n != 0 {
		t.Errorf("%d when time goes back", n)
	}
}

// TestServeAlone starts an opener as a user might.
func TestServeAlone(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{openerName}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "started by nobody") {
		t.Errorf("%v: %q", err, out)
	}
}

// FuzzAnswer has what comes from the opener be anything.
func FuzzAnswer(f *testing.F) {
	good := binary.NativeEndian.AppendUint32(nil, 0)
	f.Add(good, unix.UnixRights(5), 0, uint8(1))
	f.Add(binary.NativeEndian.AppendUint32(nil, uint32(unix.EPERM)), []byte{}, 0, uint8(0))
	f.Add(good, unix.UnixRights(5, 6), unix.MSG_CTRUNC, uint8(2))
	f.Add([]byte{}, []byte{1, 2, 3}, 0, uint8(0))
	f.Fuzz(func(t *testing.T, answer, control []byte, flags int, count uint8) {
		// Descriptors that are really there, however many, come with what was made up.
		var fds []int
		for range count % 4 {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			fds = append(fds, fd)
		}
		if len(fds) > 0 {
			control = unix.UnixRights(fds...)
		} else if named := descriptors(control); len(named) > 0 {
			return // they are those of the test
		}
		fd, err := parseAnswer(answer, control, flags)
		if err == nil {
			if len(fds) != 1 || fd != fds[0] || !slices.Equal(answer, good) || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
				t.Fatalf("socket %d of %d in %x with flags %#x", fd, fds, answer, flags)
			}
			unix.Close(fd)
		} else if fd != -1 {
			t.Fatalf("socket %d and an error", fd)
		}
		for _, fd := range fds {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
				t.Fatalf("descriptor %d is still open", fd)
			}
		}
	})
}
