//go:build unix

package spool

import (
	"path/filepath"
	"syscall"
	"testing"
)

// TestPipe has a pipe, whose other end nobody has, in the place of each file of a spool:
// nobody waits for it.
func TestPipe(t *testing.T) {
	cursor := cursorFile(onlyOutput, Alerts)
	for name, c := range map[string]struct{ opens, inspects bool }{
		"lock":                          {false, true}, // Inspect takes no lock
		"alerts-0000000000000001.spool": {false, false},
		cursor:                          {false, false},
		cursor + ".new":                 {true, true}, // it is removed when a cursor is written
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
				t.Skip(err)
			}
			if _, err := Inspect(dir); (err == nil) != c.inspects {
				t.Errorf("Inspect: %v", err)
			}
			s, err := Open(dir, withOutput(Options{}))
			if (err == nil) != c.opens {
				t.Errorf("Open: %v", err)
			}
			if err == nil {
				_ = s.Close() // it may say that the cursor was not written
			}
		})
	}
}
