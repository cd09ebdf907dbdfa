package spool

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// TestRealDiskFull fills a real, small file system, in a mount namespace of its
// own that ends with the process.
func TestRealDiskFull(t *testing.T) {
	const env = "ODDCERT_SPOOL_MOUNTS"
	if os.Getuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	if os.Getenv(env) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRealDiskFull$", "-test.v")
		cmd.Env = append(os.Environ(), env+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) {
			t.Skip("not allowed to make a mount namespace")
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k,mode=700"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, 0)
	s := open(t, dir, Options{delay: 1, segment: 50_000, pending: 100_000, retry: time.Millisecond})
	defer s.Close()
	const n = 100
	appendAll := func(d output.Dataset, from int) (refused int) {
		for i := range n {
			before := stats(s)
			switch err := s.Append(ctx, large(d, from+i, 8_000)); {
			case errors.Is(err, ErrFull):
				refused++
			case err != nil:
				t.Fatal(err)
			}
			// Until it is written, or cannot be.
			for now := before; now.Pending.Total() > 0 && now.Failures == before.Failures; now = stats(s) {
				time.Sleep(time.Millisecond)
			}
		}
		return refused
	}
	if n := appendAll(output.Handshake, 0); n < 10 || n > 60 {
		t.Errorf("refused %d of 800 kB of telemetry with 512 kB of disk and 200 kB of memory", n)
	}
	if n := appendAll(output.Alert, n); n < 10 || n > 60 {
		t.Errorf("refused %d of 800 kB of alerts with 512 kB of disk and 200 kB of memory", n)
	}
	st := checkSums(t, s)
	if st.Dropped[output.Handshake] == 0 || st.Dropped[output.Alert] != 0 {
		t.Errorf("dropped %v", st.Dropped)
	}
	// Settling makes room again, though the cursor could not be written at first.
	for st.Waiting[output.Alert] > 0 || st.Pending[output.Alert] > 0 {
		batch, err := next(ctx, s, Alerts, 10, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range batch {
			if want := large(r.Dataset, int(r.Time), 8_000); string(r.JSON) != string(want.JSON) {
				t.Fatalf("got %s", r.JSON)
			}
		}
		if err := settle(s, Alerts, len(batch)); err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		st = checkSums(t, s)
	}
	if err := s.Append(ctx, record(output.Alert, 3*n)); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(ctx); err != nil {
		t.Errorf("sync: %v", err)
	}
	checkSums(t, s)
}
