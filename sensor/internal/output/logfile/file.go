package logfile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
)

// file is a file that is written. The mutex of its Destination guards it.
type file struct {
	File
	ownfile.Place // of a replay that replaces files, else without Part
	cfg           *Config
	log           *slog.Logger
	folder        string // to be created; empty for none

	fd      *os.File // nil when it must be opened
	info    fs.FileInfo
	special bool      // a pipe or a device: it has no end to look at, and is not rotated
	fresh   bool      // the header is to be written
	size    int64     // as it was last written
	synced  int64     // of size, what is on disk
	wrote   time.Time // when the file was last written

	unsure bool        // lines that are sent next may be there: this is the start, or the last write failed
	there  map[sum]int // how often such a line is there
	buf    []byte      // to be written
}

// locate looks at the path.
func (f *file) locate() (err error) {
	if err = f.makeFolder(); err == nil {
		f.Place, err = ownfile.Locate(f.Path, f.cfg.Replay && !f.cfg.Append)
	}
	return err
}

func (f *file) makeFolder() error {
	if f.folder == "" {
		return nil
	}
	if err := os.Mkdir(f.folder, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return f.Failed("open", err)
	}
	return nil
}

// create opens the file for the first time.
func (f *file) create() error {
	if f.Part == "" {
		return f.ready()
	}
	fd, err := f.CreatePart(f.cfg.Mode)
	if err != nil {
		return err
	}
	f.fd = fd
	f.size, f.fresh = 0, true
	return nil
}

// lock refuses a file that another process writes: it would cut off what it takes for a
// torn line.
func lock(fd *os.File) error {
	if err := ownfile.TryLock(fd); errors.Is(err, ownfile.ErrInUse) {
		return err
	}
	return nil // some file systems have no locks
}

// ready makes sure that f is open, and is the file that is at its path.
func (f *file) ready() error {
	if f.fd != nil && !f.special && f.Part == "" {
		info, err := os.Stat(f.Real)
		switch {
		case err == nil && os.SameFile(info, f.info):
			if info.Size() < f.size { // somebody has copied and truncated it
				f.size, f.synced = info.Size(), info.Size()
			}
		case err == nil || errors.Is(err, fs.ErrNotExist):
			err := f.finish(time.Now().UTC()) // it was moved away
			f.close()
			if err != nil {
				f.log.Warn("file: cannot end a file that was moved away", "file", f.Path, "err", err)
			}
		default:
			return f.Failed("open", err)
		}
	}
	if f.fd == nil {
		if err := f.open(); err != nil {
			f.close()
			return err
		}
	}
	if f.special {
		return nil
	}
	f.fresh = f.fresh || f.size == 0
	if f.cfg.Replay {
		return nil // the header has the time of the first record
	}
	return f.begin(context.Background(), time.Now().UTC())
}

// open opens the file to append to it, with its end mended, and remembers the lines
// that may be sent again.
func (f *file) open() error {
	if f.Part != "" {
		fd, err := f.OpenPart(f.cfg.Mode)
		if err != nil {
			return err
		}
		f.fd = fd
	} else if err := f.openPath(); err != nil {
		return err
	}
	if f.special {
		f.fresh = true
		return nil
	}
	t, err := f.mend()
	if err != nil {
		return f.Failed("open", err)
	}
	if f.isEnded(t) {
		if !f.cfg.Replay {
			if err := f.rotate(time.Now()); err != nil {
				return err
			}
			return f.open()
		}
		f.fresh = true
	}
	if f.unsure {
		// What is taken for delivered from now on must be on disk.
		if err := f.fd.Sync(); err != nil {
			return f.Failed("write", err)
		}
		f.there = make(map[sum]int, len(t.sums))
		f.remember(t)
		if f.size < tailBytes {
			f.rememberPredecessor()
		}
	}
	f.synced, f.unsure = f.size, false
	return nil
}

func (f *file) openPath() error {
	if err := f.makeFolder(); err != nil {
		return err
	}
	access := os.O_RDWR // the end is looked at
	info, err := os.Stat(f.Real)
	if f.special = err == nil && !info.Mode().IsRegular(); f.special {
		access = os.O_WRONLY
		if info.Mode().Type() == fs.ModeNamedPipe {
			access |= syscall.O_NONBLOCK // else it waits for a reader
		}
	}
	fd, err := os.OpenFile(f.Real, access|os.O_CREATE|os.O_APPEND, f.cfg.Mode)
	if err != nil {
		return f.Failed("open", err)
	}
	f.fd = fd
	if f.special {
		return nil
	}
	if info == nil {
		f.SyncFolder() // else a file could be lost whose lines are on disk
	}
	if err := lock(fd); err != nil {
		return f.Failed("open", err)
	}
	if f.info, err = fd.Stat(); err != nil {
		return f.Failed("open", err)
	}
	f.wrote = f.info.ModTime()
	return nil
}

// mend makes the next line begin on a line of its own: a line whose end is missing,
// because the disk was full or the machine failed, is cut off. It returns the end of
// the file, and sets its size.
func (f *file) mend() (tail, error) {
	info, err := f.fd.Stat()
	if err != nil {
		return tail{}, err
	}
	f.size = info.Size()
	if torn, err := f.isHeaderTorn(); torn || err != nil {
		if err == nil {
			err = f.fd.Truncate(0)
		}
		f.size = 0
		return tail{}, err
	}
	t, err := f.readTail()
	if err != nil || t.torn == 0 {
		return t, err
	}
	start := f.size - t.torn
	ours, err := f.isOurs(start, t.torn)
	if err != nil {
		return t, err
	}
	if !ours {
		if _, err := f.fd.Write([]byte{'\n'}); err != nil {
			return t, err
		}
		f.size++
		return f.readTail()
	}
	if err := f.fd.Truncate(start); err != nil {
		return t, err
	}
	f.log.Warn("file: cut a line whose end is missing", "file", f.Path, "bytes", t.torn)
	f.size, t.torn = start, 0
	return t, nil
}

// isHeaderTorn reports whether there is nothing but the beginning of a header.
func (f *file) isHeaderTorn() (bool, error) {
	if f.Header == nil || f.size == 0 {
		return false, nil
	}
	header := f.Header(time.Time{})
	if f.size >= int64(len(header)) {
		return false, nil
	}
	first := make([]byte, 1)
	_, err := f.fd.ReadAt(first, 0)
	return first[0] == header[0], err
}

func (f *file) readTail() (tail, error) {
	from := max(0, f.size-tailBytes)
	return readTail(io.NewSectionReader(f.fd, from, f.size-from), from > 0)
}

// isOurs reports whether what is at the end of the file is the beginning of a line
// of ours, and not the last line of somebody's text.
func (f *file) isOurs(start, n int64) (bool, error) {
	line := make([]byte, n)
	if _, err := f.fd.ReadAt(line, start); err != nil {
		return false, err
	}
	if line[0] == '{' {
		return !json.Valid(line) && (n == 1 || line[1] == '"'), nil
	}
	_, err := f.fd.ReadAt(line[:1], 0)
	return f.Header != nil && line[0] == '#', err
}

// isEnded reports whether the last line is the footer: nothing may come after it.
func (f *file) isEnded(t tail) bool {
	if f.Footer == nil {
		return false
	}
	word, _, _ := bytes.Cut(f.Footer(time.Time{}), []byte{'\t'})
	return len(t.last) > 0 && bytes.HasPrefix(t.last, word)
}

func (f *file) remember(t tail) {
	for _, s := range t.sums {
		f.there[s]++
	}
}

// rememberPredecessor does so with the file that was here before, which may have been
// rotated, by us or somebody else, after a crash or shortly before it.
func (f *file) rememberPredecessor() {
	var newest fs.FileInfo
	dir, base := filepath.Split(f.Real)
	entries, _ := os.ReadDir(filepath.Clean(dir + "."))
	for _, e := range entries {
		if !e.Type().IsRegular() || !isRotated(e.Name(), base) {
			continue
		}
		if info, err := e.Info(); err == nil && (newest == nil || info.ModTime().After(newest.ModTime())) {
			newest = info
		}
	}
	if newest == nil {
		return
	}
	fd, err := os.Open(filepath.Join(dir, newest.Name()))
	if err != nil {
		return // it is not ours to read: nothing of ours is in it
	}
	defer fd.Close()
	from := max(0, newest.Size()-(tailBytes-f.size))
	if t, err := readTail(io.NewSectionReader(fd, from, newest.Size()-from), from > 0); err == nil {
		f.remember(t)
	}
}

// isRotated reports whether name is that of a rotated file of base: ours, or
// logrotate's with numbers (eve.json.1) or dates (eve.json-20261129).
func isRotated(name, base string) bool {
	for _, prefix := range []string{strings.TrimSuffix(base, filepath.Ext(base)) + "-", base + "-", base + "."} {
		if rest, ok := strings.CutPrefix(name, prefix); ok && rest != "" && '0' <= rest[0] && rest[0] <= '9' {
			return true
		}
	}
	return false
}

// has reports whether line, with its line feed, is in the file already, where it
// may be sent again. Each line that is there is found once.
func (f *file) has(line []byte) bool {
	if len(f.there) == 0 {
		return false
	}
	s := sumOf(line)
	n := f.there[s]
	if n == 1 {
		delete(f.there, s)
	} else if n > 1 {
		f.there[s]--
	}
	return n > 0
}

// begin writes the header where it is missing.
func (f *file) begin(ctx context.Context, at time.Time) error {
	if !f.fresh || f.Header == nil {
		f.fresh = false
		return nil
	}
	if err := f.write(ctx, f.Header(at)); err != nil {
		return err
	}
	f.fresh = false
	return nil
}

// write appends b.
func (f *file) write(ctx context.Context, b []byte) error {
	if f.special {
		_ = f.fd.SetWriteDeadline(time.Time{}) // a device has none
		defer context.AfterFunc(ctx, func() { _ = f.fd.SetWriteDeadline(time.Unix(1, 0)) })()
	}
	n, err := f.fd.Write(b)
	f.size += int64(n)
	if err != nil {
		return f.Failed("write", err)
	}
	f.wrote = time.Now()
	return nil
}

// sync waits until all is on disk. What may not be there is cut off, so that it is
// written anew: the system does not try again.
func (f *file) sync() error {
	if f.special || f.fd == nil || f.synced == f.size {
		return nil
	}
	if err := f.fd.Sync(); err != nil {
		_ = f.fd.Truncate(f.synced) // else its lines are found there
		return f.Failed("write", err)
	}
	f.synced = f.size
	return nil
}

// abandon closes the file after a failure. It is opened and looked at before it is
// written again.
func (f *file) abandon() {
	if f.fd != nil && !f.special {
		_, _ = f.mend() // or when it is opened
	}
	f.close()
	f.unsure = true
}

// finish writes the footer, and waits for the disk.
func (f *file) finish(at time.Time) error {
	if f.fd == nil {
		return nil
	}
	if f.Footer != nil && !f.special {
		if err := f.write(context.Background(), f.Footer(at)); err != nil {
			return err
		}
	}
	return f.sync()
}

func (f *file) close() {
	if f.fd != nil {
		f.fd.Close()
		f.fd = nil
	}
}

// rotateIfDue rotates the file when what is to be written belongs to the next.
func (f *file) rotateIfDue(now time.Time) error {
	if f.special || f.cfg.Replay || f.size == 0 || f.Header != nil && f.size <= int64(len(f.Header(now))) {
		return nil
	}
	full := f.cfg.RotateSize > 0 && f.size+int64(len(f.buf)) > f.cfg.RotateSize
	old := f.cfg.RotateAge > 0 && !now.Truncate(f.cfg.RotateAge).Equal(f.wrote.Truncate(f.cfg.RotateAge))
	if !full && !old {
		return nil
	}
	err := f.finish(now.UTC())
	if err == nil {
		err = f.rotate(now)
	}
	if err != nil {
		return err
	}
	return f.ready()
}

// rotate gives the file its name for good, and closes it.
func (f *file) rotate(now time.Time) error {
	name := ""
	for n := 0; ; n++ {
		name = rotatedName(f.Real, now, n)
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return f.Failed("rotate", err)
		}
	}
	if err := os.Rename(f.Real, name); err != nil {
		return f.Failed("rotate", err)
	}
	f.close()
	f.SyncFolder()
	if f.cfg.Keep > 0 {
		f.prune()
	}
	return nil
}

// prune removes the oldest of the rotated files.
func (f *file) prune() {
	type rotated struct {
		name, at string
		n        int
	}
	var all []rotated
	dir, base := filepath.Split(f.Real)
	ext := filepath.Ext(base)
	stem := strings.TrimSuffix(base, ext) + "-"
	entries, err := os.ReadDir(filepath.Clean(dir + "."))
	for _, e := range entries {
		middle, begins := strings.CutPrefix(e.Name(), stem)
		middle, ends := strings.CutSuffix(middle, ext)
		if !begins || !ends || !e.Type().IsRegular() {
			continue
		}
		at, number, _ := strings.Cut(middle, ".")
		n, _ := strconv.Atoi(number)
		if t, err := time.Parse(rotatedTime, at); err == nil && rotatedName(base, t, n) == e.Name() {
			all = append(all, rotated{e.Name(), at, n})
		}
	}
	slices.SortFunc(all, func(a, b rotated) int {
		if c := strings.Compare(a.at, b.at); c != 0 {
			return c
		}
		return a.n - b.n
	})
	for _, r := range all[:max(0, len(all)-f.cfg.Keep)] {
		if e := os.Remove(filepath.Join(dir, r.name)); err == nil {
			err = e
		}
	}
	if err != nil {
		f.log.Warn("file: cannot remove old files", "file", f.Path, "err", err)
	}
}

// commit replaces the other file with the complete one.
func (f *file) commit() error {
	if f.special || f.fd == nil {
		return nil
	}
	if f.Part == "" {
		if err := f.fd.Sync(); err != nil {
			return f.Failed("write", err)
		}
		return nil
	}
	if err := f.Commit(f.fd); err != nil {
		return err
	}
	f.close()
	return nil
}

// removeEmptyPart removes the file of a replay in which nothing was written.
func (f *file) removeEmptyPart() {
	if f.Part == "" || f.fd == nil {
		return
	}
	if info, err := f.fd.Stat(); err == nil && info.Size() == 0 {
		_ = os.Remove(f.Part)
	}
}

// isLines reports whether a file begins as one of ours does, and no capture does.
func isLines(beginning []byte) bool {
	return bytes.HasPrefix(beginning, []byte(`{"`)) || bytes.HasPrefix(beginning, []byte("#"))
}
