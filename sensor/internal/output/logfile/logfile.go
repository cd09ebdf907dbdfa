// Package logfile delivers records to files, one line or several for each record,
// and each once, also when the process is killed.
//
// The engine sends again what it has not settled. So [New] reads the ends of the
// files, and a line that is there already is not written again: not after a crash
// between the write and the settling, and not after a full disk. A line whose end is
// missing is cut off first.
package logfile

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
)

// Format makes the lines of files from records. The same record always has the same
// lines: that is how what is there already is found.
type Format interface {
	// Files are the files, always the same. A single one without a name is at the
	// path of the output; else the path is a folder, and the names are those in it.
	Files() []File

	// Format gives the lines of r to emit, without line feeds, each with the index of
	// its file in Files; they are lent. A record without a line has no form here. An
	// error means that it never will: the record is a dead letter.
	Format(r *output.Record, emit func(file int, line []byte)) error
}

// File is one file of a [Format].
type File struct {
	Name string

	// Header and Footer are the first and the last lines of a file, each with its
	// line feed; nil for none. All lines of both begin with '#'. The length of a
	// header is always the same.
	Header, Footer func(at time.Time) []byte
}

// JSON is the format of the records themselves: JSON lines.
type JSON struct{}

// Files is the file at the path.
func (JSON) Files() []File { return []File{{}} }

// Format gives the record as it is.
func (JSON) Format(r *output.Record, emit func(int, []byte)) error {
	emit(0, r.JSON)
	return nil
}

// Config says where files are and when they are rotated.
type Config struct {
	Path string      // of the file, or of the folder
	Mode fs.FileMode // of new files, without the bits of the umask; 0 for 0640

	// A file is renamed to NAME-YYYYMMDDTHHMMSSZ.EXT (UTC) before it gets larger than
	// RotateSize bytes, and when a new interval of RotateAge has begun: with 24 hours
	// at midnight UTC, with the first record after it. 0 for never.
	RotateSize int64
	RotateAge  time.Duration
	Keep       int // so many rotated files; 0 for all

	// Replay is for a run with an end. The files are written under the name of
	// NAME.part, and replace the others with [Destination.Commit]; nothing is looked
	// up in files that are there, and only Commit waits for the disk. Times of headers
	// and footers are those of records.
	Replay bool
	Append bool     // of a replay: write to the end of the files that are there
	Inputs []string // of a replay: what it reads, and New refuses to write to
}

// Validate names everything that is wrong with c: each is a [*endpoint.ConfigError].
func (c *Config) Validate() error {
	var errs []error
	wrong := func(setting, text string) { errs = append(errs, &endpoint.ConfigError{Setting: setting, Text: text}) }
	if c.Path == "" {
		wrong("path", "is missing")
	}
	if c.Mode&^fs.ModePerm != 0 || c.Mode != 0 && c.Mode&0o200 == 0 {
		wrong("mode", "is not one such as 0640 with which the owner can write")
	}
	if c.RotateSize != 0 && c.RotateSize < minRotateSize {
		wrong("rotate_size", fmt.Sprintf("is less than %d MiB", minRotateSize>>20))
	}
	if c.RotateAge != 0 && c.RotateAge < minRotateAge {
		wrong("rotate_age", fmt.Sprintf("is less than %s", minRotateAge))
	}
	if c.Keep < 0 {
		wrong("keep", "is less than 0")
	}
	if c.Keep > 0 && c.RotateSize == 0 && c.RotateAge == 0 {
		wrong("keep", "is without effect: neither rotate_size nor rotate_age is set")
	}
	return errors.Join(errs...)
}

// Destination writes records to files.
type Destination struct {
	cfg    Config
	format Format
	log    *slog.Logger

	mu    sync.Mutex
	files []*file
	text  []byte // the lines of a record
	lines []line
	first time.Time // of the first record with a line
	last  time.Time // of the last one
}

// line is a line in the text of a record.
type line struct {
	file       int
	start, end int
}

// New opens the files, and creates those that are missing. A folder of several
// files is created too, but not the folders that it is in.
func New(cfg Config, format Format, log *slog.Logger) (*Destination, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.Mode == 0 {
		cfg.Mode = 0o640
	}
	d := &Destination{cfg: cfg, format: format, log: log}
	for _, of := range format.Files() {
		f := &file{File: of, cfg: &d.cfg, log: log, Place: ownfile.Place{Path: cfg.Path}, unsure: !cfg.Replay}
		if of.Name != "" {
			f.Path, f.folder = filepath.Join(cfg.Path, of.Name), cfg.Path
		}
		d.files = append(d.files, f)
	}
	for _, f := range d.files {
		if err := f.locate(); err != nil {
			return nil, err
		}
	}
	for _, f := range d.files {
		if err := f.IsInput(cfg.Inputs, isLines); err != nil {
			return nil, err
		}
	}
	for _, f := range d.files {
		if err := f.create(); err != nil && !errors.Is(err, syscall.ENXIO) { // nobody reads the pipe yet
			_ = d.Close()
			return nil, err
		}
	}
	return d, nil
}

// Send appends the lines of records, and waits for the disk unless it is a replay.
func (d *Destination) Send(ctx context.Context, records []*output.Record, verdicts []delivery.Verdict) *delivery.Trouble {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return trouble(err)
	}
	for _, f := range d.files {
		if err := f.ready(); err != nil {
			return trouble(err)
		}
	}
	for i, r := range records {
		verdicts[i] = d.take(r)
	}
	err := d.write(ctx)
	for _, f := range d.files {
		f.buf = kept(f.buf)
	}
	d.text = kept(d.text)
	if err == nil {
		return nil
	}
	for _, f := range d.files {
		f.abandon()
	}
	for i := range verdicts {
		if fate := verdicts[i].Fate; fate == delivery.Delivered || fate == delivery.Duplicate {
			verdicts[i] = delivery.Verdict{}
		}
	}
	return trouble(err)
}

// kept is an empty buffer with the memory of b, unless that is too much to keep.
func kept(b []byte) []byte {
	if cap(b) > keptBuffer {
		return nil
	}
	return b[:0]
}

func trouble(err error) *delivery.Trouble {
	t := &delivery.Trouble{Class: "file", Err: err}
	var number syscall.Errno
	if errors.As(err, &number) {
		t.Class = number.Error()
	}
	return t
}

// take adds the lines of r to what is to be written, without those that are there.
func (d *Destination) take(r *output.Record) delivery.Verdict {
	d.text, d.lines = d.text[:0], d.lines[:0]
	err := d.format.Format(r, func(file int, text []byte) {
		start := len(d.text)
		d.text = append(append(d.text, text...), '\n')
		d.lines = append(d.lines, line{file: file, start: start, end: len(d.text)})
	})
	if err != nil {
		return delivery.Verdict{Fate: delivery.Dead, Reason: delivery.Reason(err.Error())}
	}
	if len(d.lines) == 0 {
		return delivery.Verdict{Fate: delivery.Skipped}
	}
	at := time.Unix(0, r.Time).UTC()
	if d.first.IsZero() {
		d.first = at
	}
	d.last = at
	fate := delivery.Duplicate
	for _, l := range d.lines {
		f, text := d.files[l.file], d.text[l.start:l.end]
		if !f.has(text) {
			f.buf = append(f.buf, text...)
			fate = delivery.Delivered
		}
	}
	return delivery.Verdict{Fate: fate}
}

// write writes what take has added.
func (d *Destination) write(ctx context.Context) error {
	now := time.Now()
	for _, f := range d.files {
		if len(f.buf) == 0 {
			continue
		}
		if err := f.rotateIfDue(now); err != nil {
			return err
		}
		if err := f.begin(ctx, d.at(d.first)); err != nil {
			return err
		}
		if err := f.write(ctx, f.buf); err != nil {
			return err
		}
	}
	if d.cfg.Replay {
		return nil
	}
	for _, f := range d.files {
		if err := f.sync(); err != nil {
			return err
		}
	}
	return nil
}

// at is the time of a header or a footer: of a record in a replay, whose files are
// the same each time, or else now.
func (d *Destination) at(record time.Time) time.Time {
	if d.cfg.Replay && !record.IsZero() {
		return record
	}
	return time.Now().UTC()
}

// Limits are those of all files.
func (d *Destination) Limits() delivery.Limits {
	return delivery.Limits{Records: maxBatchRecords, Bytes: maxBatchBytes, Requests: 1}
}

// Reopen opens files anew that somebody has moved away, and pipes. Send does so too
// for files: Reopen is for when there are no records for a while. What fails is tried
// again with the next records.
func (d *Destination) Reopen() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.files {
		if f.special {
			f.close()
		}
		_ = f.ready()
	}
}

// Commit is the end of a replay whose input was read completely: it replaces the
// other files. Files get on the disk first.
func (d *Destination) Commit() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.files {
		if f.special {
			continue
		}
		if err := f.ready(); err != nil {
			return err
		}
		if err := f.begin(context.Background(), d.at(d.first)); err != nil {
			return err
		}
		if err := f.finish(d.at(d.last)); err != nil {
			return err
		}
	}
	for _, f := range d.files {
		if err := f.commit(); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the files. Those of a replay without Commit are left as NAME.part.
func (d *Destination) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, f := range d.files {
		if f.fd != nil && !d.cfg.Replay {
			errs = append(errs, f.finish(time.Now().UTC()))
		}
		f.removeEmptyPart()
		f.close()
	}
	return errors.Join(errs...)
}

// String is the path.
func (d *Destination) String() string { return d.cfg.Path }

// Part is the path under which a replay writes until Commit; empty where it does
// not.
func (d *Destination) Part() string {
	f := d.files[0]
	switch {
	case f.Part == "":
		return ""
	case f.folder != "":
		return filepath.Join(f.folder, "*.part")
	}
	return f.Part
}

// sum is what is remembered of a line.
type sum [16]byte

func sumOf(line []byte) sum {
	s := sha256.Sum256(line)
	return sum(s[:])
}

// rotatedName is the name of the file at path from when it was rotated, the n-th at
// that time.
func rotatedName(path string, at time.Time, n int) string {
	ext := filepath.Ext(path)
	name := strings.TrimSuffix(path, ext) + "-" + at.UTC().Format(rotatedTime)
	if n > 0 {
		name += fmt.Sprintf(".%d", n)
	}
	return name + ext
}

// rotatedTime sorts as time does, and has no character that file systems refuse.
const rotatedTime = "20060102T150405Z"
