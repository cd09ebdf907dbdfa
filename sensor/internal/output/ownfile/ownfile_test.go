package ownfile

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestLock lets one open file have the lock at a time, and others read and write.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	first, err := Open(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := TryLock(first); err != nil {
		t.Fatal(err)
	}
	second, err := Open(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := TryLock(second); !errors.Is(err, ErrInUse) {
		t.Errorf("a second lock: %v", err)
	}
	if _, err := second.WriteString("text"); err != nil {
		t.Errorf("write beside the lock: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "text" {
		t.Errorf("read beside the lock: %q, %v", b, err)
	}
	waited := make(chan error)
	go func() { waited <- Lock(second) }()
	first.Close()
	if err := <-waited; err != nil {
		t.Errorf("a lock after the first: %v", err)
	}
}

// TestNoFollow opens no symbolic link.
func TestNoFollow(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Skip(err)
	}
	if runtime.GOOS == "windows" {
		t.Skip("links are followed on Windows")
	}
	if f, err := Open(link, os.O_RDWR|os.O_CREATE, 0o600); err == nil {
		f.Close()
		t.Error("opened a link")
	}
}

// TestOwner names the owner of a file.
func TestOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, user := range []int{os.Geteuid(), 12345} {
		if user != os.Geteuid() {
			if err := os.Chown(path, user, -1); err != nil {
				t.Skip(err)
			}
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, mine := Owner(info); runtime.GOOS != "windows" && got != user || mine != (user == os.Geteuid()) {
			t.Errorf("the owner is %d, mine: %v; want %d", got, mine, user)
		}
	}
}
