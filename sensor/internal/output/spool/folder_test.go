package spool

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestCheckFolder holds that Open refuses a folder exactly where CheckFolder says so,
// and that CheckFolder makes nothing.
func TestCheckFolder(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T, dir string) error
		want bool // it can be used
	}{
		"missing":           {func(*testing.T, string) error { return nil }, true},
		"own":               {func(_ *testing.T, dir string) error { return os.Mkdir(dir, 0o700) }, true},
		"others may read":   {func(_ *testing.T, dir string) error { return os.Mkdir(dir, 0o755) }, true},
		"others may write":  {func(_ *testing.T, dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o702)) }, false},
		"a group may write": {func(_ *testing.T, dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o770)) }, false},
		"a file":            {func(_ *testing.T, dir string) error { return os.WriteFile(dir, nil, 0o600) }, false},
		"of somebody else": {func(t *testing.T, dir string) error {
			if os.Geteuid() != 0 {
				t.Skip("only root can give a folder away")
			}
			return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 12345, 12345))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "spool")
			if err := c.make(t, dir); err != nil {
				t.Fatal(err)
			}
			_, missing := os.Stat(dir)
			err := CheckFolder(dir)
			if (err == nil) != c.want || errors.Is(err, ErrOwner) != (name == "of somebody else") {
				t.Errorf("CheckFolder: %v", err)
			}
			if _, after := os.Stat(dir); (after == nil) != (missing == nil) {
				t.Errorf("CheckFolder has made the folder, or removed it: %v", after)
			}
			s, opened := Open(dir, Options{})
			if opened == nil {
				opened = errors.Join(s.Close())
			}
			if (opened == nil) != c.want {
				t.Errorf("Open: %v", opened)
			}
		})
	}
}
