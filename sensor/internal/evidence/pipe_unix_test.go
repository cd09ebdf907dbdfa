//go:build unix

package evidence

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPipe has a pipe, to which nobody writes, where the chain must be, where a pack must
// be, and in a pack: verifying waits for nobody.
func TestPipe(t *testing.T) {
	dir := packs(t, 2, false, nil)
	id := strings.Repeat("0", 32)
	for _, name := range []string{filepath.Join(dir, chainName), filepath.Join(dir, strings.Repeat("f", 32)+zipSuffix), filepath.Join(dir, id, captureName)} {
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(name, 0o600); err != nil {
			t.Skip(err)
		}
	}
	said := strings.Join(wrong(t, dir, VerifyOptions{}), "\n")
	for _, want := range []string{"the chain cannot be read: it is not a file", "is neither a folder nor a file", captureName + " has 0 bytes"} {
		if !strings.Contains(said, want) {
			t.Errorf("%s\nhas not %q", said, want)
		}
	}
}
