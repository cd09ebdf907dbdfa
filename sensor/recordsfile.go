package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
	"github.com/oddcert/oddcert/sensor/internal/report"
)

// recordsFile is a file of JSON lines, or of a report.
type recordsFile struct {
	ownfile.Place
	log *slog.Logger
}

// modeRecords is the mode of a new file, which tells who talks to whom.
const modeRecords = 0o640

// newRecordsFile looks at path.
func newRecordsFile(path string, replace bool, log *slog.Logger) (*recordsFile, error) {
	place, err := ownfile.Locate(path, replace)
	if err != nil {
		return nil, err
	}
	return &recordsFile{place, log}, nil
}

// create opens the file for a new run.
func (f *recordsFile) create() (*os.File, error) {
	if f.Part == "" {
		return f.open()
	}
	return f.CreatePart(modeRecords)
}

// open opens the file to append to it.
func (f *recordsFile) open() (*os.File, error) {
	if f.Part != "" {
		return f.OpenPart(modeRecords)
	}
	access := os.O_RDWR // the end is looked at
	if info, err := os.Stat(f.Real); err == nil && !info.Mode().IsRegular() {
		access = os.O_WRONLY
	}
	file, err := os.OpenFile(f.Real, access|os.O_CREATE|os.O_APPEND, modeRecords)
	if err != nil {
		return nil, f.Failed("open", err)
	}
	if access == os.O_RDWR {
		if err := f.mend(file); err != nil {
			file.Close()
			return nil, f.Failed("open", err)
		}
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
	f.log.Warn("records: cut a record whose end is missing", "file", f.Path, "bytes", len(line))
	return file.Truncate(info.Size() - int64(len(line)))
}

// commit replaces the other file with the complete one.
func (f *recordsFile) commit(file *os.File) error {
	if f.Part == "" {
		return nil
	}
	return f.Commit(file)
}

// isInput returns an error when the file is one of those that are read.
func (f *recordsFile) isInput(inputs []string) error {
	return f.IsInput(inputs, func(b []byte) bool { return bytes.HasPrefix(b, []byte(beginning)) || report.Begins(b) })
}
