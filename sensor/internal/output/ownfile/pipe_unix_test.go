//go:build unix

package ownfile

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPipe opens pipes, without and with somebody at the other end: it waits for nobody,
// and neither is a file.
func TestPipe(t *testing.T) {
	dir := t.TempDir()
	folder, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	path := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	for _, ends := range []string{"none", "both"} {
		if ends == "both" {
			other, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Skip(err)
			}
			defer other.Close()
		}
		for _, flag := range []int{os.O_RDONLY, os.O_RDWR | os.O_CREATE, os.O_WRONLY | os.O_CREATE | os.O_TRUNC} {
			for name, open := range map[string]func() (*os.File, error){
				"Open":   func() (*os.File, error) { return Open(path, flag, 0o600) },
				"OpenIn": func() (*os.File, error) { return OpenIn(folder, "pipe", flag, 0o600) },
			} {
				f, err := open()
				if err == nil {
					f.Close()
				}
				noReader := ends == "none" && flag&os.O_WRONLY != 0 // ENXIO
				if err == nil || !noReader && !strings.HasSuffix(err.Error(), "it is not a file") {
					t.Errorf("%s, flags %#x, ends %s: %v", name, flag, ends, err)
				}
			}
		}
	}
}
