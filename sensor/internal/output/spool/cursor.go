package spool

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
)

// cursor says what of a queue is still to be delivered, and how much of it must
// be there when the spool is opened next.
type cursor struct {
	record uint64 // the number of the first record that is not settled; 0 when it is not known
	next   uint64 // the number that the next accepted record gets
	left   uint64 // records from record on, below next, that are neither settled nor given up
}

func (c cursor) String() string {
	s := fmt.Sprintf("oddcert-spool 3 %d %d %d", c.record, c.next, c.left)
	return fmt.Sprintf("%s %08x\n", s, crc32.Checksum([]byte(s), castagnoli))
}

// parseCursor reads a cursor, also one of the program's releases that wrote
// segments of version 1. It reports false when line is not a sound one.
func parseCursor(line string) (c cursor, ok bool) {
	if _, err := fmt.Sscanf(line, "oddcert-spool 3 %d %d %d", &c.record, &c.next, &c.left); err == nil {
		return c, c.String() == line
	}
	var segment, offset, given uint64 // given: records from c.record on that were given up
	if _, err := fmt.Sscanf(line, "oddcert-spool 2 %d %d %d %d %d", &segment, &offset, &c.record, &c.next, &given); err != nil {
		return cursor{}, false
	}
	s := fmt.Sprintf("oddcert-spool 2 %d %d %d %d %d", segment, offset, c.record, c.next, given)
	if line != fmt.Sprintf("%s %08x\n", s, crc32.Checksum([]byte(s), castagnoli)) {
		return cursor{}, false
	}
	if all := c.next - min(c.next, c.record); all > given {
		c.left = all - given
	}
	return c, true
}

// readCursor reads a cursor file. Without one, or with a damaged one, all that
// is in the queue counts as unsettled, which at worst delivers it twice.
func readCursor(f folder, name string) (c cursor, damaged bool, err error) {
	b, err := f.read(name, maxCursor)
	if errors.Is(err, fs.ErrNotExist) {
		return c, false, nil
	}
	if err != nil {
		return c, false, err
	}
	c, ok := parseCursor(string(b))
	if !ok {
		return cursor{}, true, nil
	}
	return c, false, nil
}

// writeCursor replaces a cursor file, so that after a crash either the old or
// the new one is there.
func writeCursor(f folder, name string, c cursor) error {
	next := name + ".new"
	file, err := f.open(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = file.WriteString(c.String())
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
