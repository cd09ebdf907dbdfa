//go:build unix

package rules

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPipe has pipes, to which nobody writes, where files of rules and lists must be.
func TestPipe(t *testing.T) {
	dir := t.TempDir()
	lists := filepath.Join(dir, "lists")
	if err := os.Mkdir(lists, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(dir, "pipe.yml"), filepath.Join(lists, "x.txt")} {
		if err := unix.Mkfifo(name, 0o600); err != nil {
			t.Skip(err)
		}
	}
	text := rule("a:\n  server.ip|expand: '%x%'\ncondition: a")
	if err := os.WriteFile(filepath.Join(dir, "r.yml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(Dir(dir))
	if err == nil || strings.Count(err.Error(), "it is not a file") != 2 {
		t.Error(err)
	}
}

// swapped is a directory in which each name was that of a file when it was looked at.
type swapped struct{ directory }

func (s swapped) Stat(string) (fs.FileInfo, error) { return os.Stat(os.Args[0]) }

// TestPipeOpened has a pipe take the place of a file that was just looked at.
func TestPipeOpened(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "r.yml"), 0o600); err != nil {
		t.Skip(err)
	}
	if _, err := readFile(swapped{Dir(dir).FS.(directory)}, "r.yml"); err == nil || err.Error() != "it is not a file" {
		t.Error(err)
	}
}
