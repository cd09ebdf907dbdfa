package spool

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// cursor says what of a queue is still to be delivered to an output, and how much
// of it must be there when the spool is opened next.
type cursor struct {
	record uint64 // the number of the first record that is not settled; 0 when it is not known
	next   uint64 // the number that the next accepted record gets
	left   uint64 // records of set from record on, below next, neither settled nor given up

	set output.Set // the datasets that the output wants; 0 when it is not known
}

// cursorFile is the name of the cursor of an output in a queue.
func cursorFile(name string, q Queue) string { return name + "." + q.String() + ".cursor" }

// cursorOf is the opposite of cursorFile.
func cursorOf(file string) (name string, q Queue, ok bool) {
	for q := range Queues {
		if name, ok := strings.CutSuffix(file, "."+q.String()+".cursor"); ok && ValidName(name) {
			return name, q, true
		}
	}
	return "", 0, false
}

// outputsOf returns the names of the outputs that have cursors among files.
func outputsOf(files []string) (names []string) {
	for _, file := range files {
		if name, _, ok := cursorOf(file); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// onlyOutput is the output that had the cursors of a spool while it could have no
// more than one.
const onlyOutput = "elasticsearch"

// adoptCursors renames the cursors of a spool from when it had one output, whose
// names have no output in them.
func adoptCursors(f folder, files []string) error {
	for q := range Queues {
		old, now := q.String()+".cursor", cursorFile(onlyOutput, q)
		if slices.Contains(files, old) && !slices.Contains(files, now) {
			if err := f.rename(old, now); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c cursor) String() string {
	s := fmt.Sprintf("oddcert-spool 4 %d %d %d %d", c.record, c.next, c.left, c.set)
	return fmt.Sprintf("%s %08x\n", s, crc32.Checksum([]byte(s), castagnoli))
}

// allDatasets is what the only output wanted, when a spool could have no more than one.
const allDatasets = output.Records

// parseCursor reads a cursor, also one of the program's earlier releases. It reports
// false when line is not a sound one.
func parseCursor(line string) (c cursor, ok bool) {
	text := line[:max(strings.LastIndexByte(line, ' '), 0)]
	if line != fmt.Sprintf("%s %08x\n", text, crc32.Checksum([]byte(text), castagnoli)) {
		return cursor{}, false
	}
	if n, _ := fmt.Sscanf(text, "oddcert-spool 4 %d %d %d %d", &c.record, &c.next, &c.left, &c.set); n == 4 {
		return c, c.String() == line
	}
	c.set = allDatasets
	if n, _ := fmt.Sscanf(text, "oddcert-spool 3 %d %d %d", &c.record, &c.next, &c.left); n == 3 {
		return c, true
	}
	var segment, offset, given uint64 // given: records from c.record on that were given up
	if n, _ := fmt.Sscanf(text, "oddcert-spool 2 %d %d %d %d %d", &segment, &offset, &c.record, &c.next, &given); n != 5 {
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
