// Package testcache is where tests keep what they have fetched.
package testcache

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
)

// Open returns the folder for what tests have fetched, which outlives a run. Until unlock
// is called, test binaries that open it with the same lock wait.
func Open(lock string) (dir string, unlock func() error, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir = filepath.Join(cache, "oddcert-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", nil, err
	}
	if err := ownfile.Lock(f); err != nil {
		f.Close()
		return "", nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return dir, f.Close, nil
}
