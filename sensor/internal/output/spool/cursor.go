package spool

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
)

// position is a place in a lane: all records before it are settled. With it goes
// what tells later how many records are missing.
type position struct {
	segment uint64
	offset  int64
	record  uint64 // the number of the record there; 0 when it is not known
	next    uint64 // the number of the next record that will be on disk
	given   uint64 // records from record on that were given up, and counted then
}

func (p position) String() string {
	s := fmt.Sprintf("oddcert-spool 2 %d %d %d %d %d", p.segment, p.offset, p.record, p.next, p.given)
	return fmt.Sprintf("%s %08x\n", s, crc32.Checksum([]byte(s), table))
}

// readCursor reads a cursor file. Without one, or with a damaged one, all that
// is in the lane counts as unsettled, which at worst delivers it twice.
func readCursor(f folder, name string) (p position, damaged bool, err error) {
	b, _, err := f.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	_, err = fmt.Sscanf(string(b), "oddcert-spool 2 %d %d %d %d %d", &p.segment, &p.offset, &p.record, &p.next, &p.given)
	if err != nil || p.offset < 0 || p.String() != string(b) {
		return position{}, true, nil
	}
	return p, false, nil
}

// writeCursor replaces a cursor file, so that after a crash either the old or
// the new one is there.
func writeCursor(f folder, name string, p position) error {
	next := name + ".new"
	file, err := f.open(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = file.WriteString(p.String())
	if err == nil {
		err = file.Sync()
	}
	if e := file.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = f.rename(next, name)
	}
	if err != nil {
		_ = f.remove(next)
		return err
	}
	return f.sync()
}
