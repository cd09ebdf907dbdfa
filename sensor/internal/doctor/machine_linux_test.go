package doctor

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReadMachine holds what is read against uname and capsh.
func TestReadMachine(t *testing.T) {
	m, err := ReadMachine()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("uname", "-r").Output()
	if err != nil {
		t.Fatal(err)
	}
	if m.Kernel != strings.TrimSpace(string(out)) || m.Processors < 1 || m.OpenFiles == 0 {
		t.Errorf("%+v", m)
	}
	// A socket says whether the right to open it is there.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	if (err == nil) != (m.Capabilities&capNetRaw != 0) {
		t.Errorf("a packet socket: %v, and capabilities are %#x", err, m.Capabilities)
	}
}

// TestReadFolder reads where folders are that are there, and that are not.
func TestReadFolder(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "a", "b", "c")} {
		f, err := ReadFolder(path, 1)
		if err != nil {
			t.Fatal(err)
		}
		if f.Path != path || f.On != dir || f.Free <= 0 {
			t.Errorf("%+v", f)
		}
	}
	// What the kernel mounts itself is no disk of the network.
	if f, err := ReadFolder("/proc", 1); err != nil || f.System != "" {
		t.Errorf("/proc: %+v, %v", f, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFolder(filepath.Join(file, "below"), 1); err == nil {
		t.Error("a folder below a file is no error")
	}
}
