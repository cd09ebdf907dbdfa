package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
	"github.com/oddcert/oddcert/sensor/internal/report"
)

// recordsFile is a file of JSON lines. One that replaces another file is written
// beside it, under the name of part, until it is complete.
type recordsFile struct {
	path string // as it was given
	real string // the same without symbolic links
	part string // empty when records are appended
	log  *slog.Logger
}

// newRecordsFile looks at path. A pipe or a device cannot be replaced, and is
// written to as it is.
func newRecordsFile(path string, replace bool, log *slog.Logger) (*recordsFile, error) {
	f := &recordsFile{path: path, real: path, log: log}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		f.real = real
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil, f.failed("open", syscall.EISDIR)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, f.failed("open", err)
	}
	if replace && (err != nil || info.Mode().IsRegular()) {
		f.part = f.real + ".part"
	}
	return f, nil
}

// failed is an error that names the file as it was given.
func (f *recordsFile) failed(what string, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("%s %s: %w", what, f.path, err)
}

// create opens the file for a new run.
func (f *recordsFile) create() (*os.File, error) {
	if f.part == "" {
		return f.open()
	}
	file, err := f.openPart()
	if err != nil {
		return nil, err
	}
	err = file.Truncate(0)
	if info, e := os.Stat(f.real); err == nil && e == nil {
		err = file.Chmod(info.Mode().Perm()) // a file that others may not read stays so
	}
	if err != nil {
		file.Close()
		return nil, f.failed("open", err)
	}
	return file, nil
}

// open opens the file to append to it.
func (f *recordsFile) open() (*os.File, error) {
	if f.part != "" {
		return f.openPart()
	}
	access := os.O_RDWR // the end is looked at
	if info, err := os.Stat(f.real); err == nil && !info.Mode().IsRegular() {
		access = os.O_WRONLY
	}
	file, err := os.OpenFile(f.real, access|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, f.failed("open", err)
	}
	if access == os.O_RDWR {
		if err := f.mend(file); err != nil {
			file.Close()
			return nil, f.failed("open", err)
		}
	}
	return file, nil
}

// openPart opens the file that is to replace the other. Two runs must not write to
// the same file.
func (f *recordsFile) openPart() (*os.File, error) {
	file, err := ownfile.Open(f.part, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, f.failed("open", err)
	}
	if err := ownfile.TryLock(file); errors.Is(err, ownfile.ErrInUse) { // some file systems have no locks
		file.Close()
		return nil, fmt.Errorf("open %s: %w", f.part, err)
	}
	return file, nil
}

// Of a file that is appended to.
const (
	lastLine  = 8 << 20 // bytes at its end that are searched for a torn record
	beginning = `{"`    // how a record begins
)

// mend makes the next record begin on a line of its own. A record whose end is
// missing, because the disk was full or the machine failed, is cut off.
func (f *recordsFile) mend(file *os.File) error {
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	tail := make([]byte, min(info.Size(), 1))
	if _, err := file.ReadAt(tail, info.Size()-1); err != nil || tail[0] == '\n' {
		return err
	}
	tail = make([]byte, min(info.Size(), lastLine))
	if _, err := file.ReadAt(tail, info.Size()-int64(len(tail))); err != nil && err != io.EOF {
		return err
	}
	line := tail[bytes.LastIndexByte(tail, '\n')+1:]
	if !strings.HasPrefix(string(line), beginning) || json.Valid(line) {
		_, err = file.Write([]byte{'\n'})
		return err
	}
	f.log.Warn("records: cut a record whose end is missing", "file", f.path, "bytes", len(line))
	return file.Truncate(info.Size() - int64(len(line)))
}

// commit replaces the other file with the complete one.
func (f *recordsFile) commit(file *os.File) error {
	if f.part == "" {
		return nil
	}
	written, err := file.Stat()
	if err != nil {
		return f.failed("write", err)
	}
	if there, err := os.Lstat(f.part); err != nil || !os.SameFile(written, there) {
		return fmt.Errorf("write %s: %s was moved away", f.path, f.part)
	}
	if err := file.Sync(); err != nil {
		return f.failed("write", err)
	}
	if err := os.Rename(f.part, f.real); err != nil {
		return f.failed("write", err)
	}
	dir, err := os.Open(filepath.Dir(f.real))
	if err != nil {
		return f.failed("write", err)
	}
	defer dir.Close()
	_ = dir.Sync() // some file systems cannot
	return nil
}

// isInput returns an error when a file that the run would write to is also one
// that it reads, under any name or in a folder. A file of records in a folder of
// captures is not an input: it is there from the last run.
func (f *recordsFile) isInput(paths []string) error {
	for _, name := range []string{f.real, f.part} {
		mine, err := os.Stat(name)
		if err != nil || !mine.Mode().IsRegular() {
			continue // there is nothing to lose
		}
		for _, path := range paths {
			if reads(path, mine, name) {
				return fmt.Errorf("write records to %s: it is one of the files to read", name)
			}
		}
	}
	return nil
}

// reads reports whether the input path is the file or holds it.
func reads(path string, mine fs.FileInfo, name string) (found bool) {
	if path == "-" {
		info, err := os.Stdin.Stat()
		return err == nil && os.SameFile(info, mine)
	}
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	if !info.IsDir() {
		return os.SameFile(info, mine)
	}
	_ = fs.WalkDir(os.DirFS(path), ".", func(at string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil // the capture reports it
		}
		if info, err := os.Stat(filepath.Join(path, filepath.FromSlash(at))); err == nil && os.SameFile(info, mine) {
			found = !holdsRecords(name)
			return fs.SkipAll
		}
		return nil
	})
	return found
}

// holdsRecords reports whether a file is empty or begins as a record or a file of a
// report does, and no capture does.
func holdsRecords(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	b := make([]byte, 32)
	n, err := io.ReadFull(file, b)
	return n == 0 && err == io.EOF || strings.HasPrefix(string(b[:n]), beginning) || report.Begins(b[:n])
}
