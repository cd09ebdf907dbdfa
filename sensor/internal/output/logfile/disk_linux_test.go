package logfile

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

// TestDiskFull fills a real, small file system, in a mount namespace of its own that
// ends with the process, and makes it read-only, and repairs both.
func TestDiskFull(t *testing.T) {
	const env = "ODDCERT_LOGFILE_MOUNTS"
	if os.Getuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	if os.Getenv(env) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDiskFull$", "-test.v")
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
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k,mode=700"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, 0)
	ballast, path := filepath.Join(dir, "ballast"), filepath.Join(dir, "records.json")
	if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	d := open(t, Config{Path: path}, JSON{})
	const batch, n = 100, 500
	delivered, refused := 0, 0
	for delivered < n {
		all := records(delivered, batch)
		verdicts := make([]delivery.Verdict, batch)
		tr := d.Send(t.Context(), all, verdicts)
		if tr == nil {
			delivered += batch
			continue
		}
		refused++
		if !errors.Is(tr.Err, syscall.ENOSPC) || tr.Class != syscall.ENOSPC.Error() || fates(verdicts)[delivery.Again] != batch {
			t.Fatalf("trouble %v, %v", tr, fates(verdicts))
		}
		// No torn line is left, and a reader has seen nothing that is not there.
		ids := idsIn(t, path)
		wantIDs(t, ids, len(ids))
		if len(ids) < delivered {
			t.Fatalf("%d of %d records are there", len(ids), delivered)
		}
		if refused == 3 {
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=1m"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if refused != 3 {
		t.Errorf("refused %d times", refused)
	}
	wantIDs(t, idsIn(t, path), n)
	d.Close()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Path: path}, JSON{}, nil); !errors.Is(err, syscall.EROFS) {
		t.Errorf("read-only: %v", err)
	}
}
