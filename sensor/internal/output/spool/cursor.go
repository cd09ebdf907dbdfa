package spool

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

// position is a place in a lane: all records before it are settled.
type position struct {
	segment uint64
	offset  int64
}

func (p position) String() string {
	s := fmt.Sprintf("oddcert-spool 1 %d %d", p.segment, p.offset)
	return fmt.Sprintf("%s %08x\n", s, crc32.Checksum([]byte(s), table))
}

// readCursor reads a cursor file. Without one, or with a damaged one, all that
// is in the lane counts as unsettled, which at worst delivers it twice.
func readCursor(path string) (p position, damaged bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	if _, err := fmt.Sscanf(string(b), "oddcert-spool 1 %d %d", &p.segment, &p.offset); err != nil || p.offset < 0 || p.String() != string(b) {
		return position{}, true, nil
	}
	return p, false, nil
}

// writeCursor replaces a cursor file, so that after a crash either the old or
// the new one is there.
func writeCursor(path string, p position) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(p.String())
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		os.Remove(next)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}
