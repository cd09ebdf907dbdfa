package delivery

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// DeadLetter is a record that a receiver will never accept, with its reason.
type DeadLetter struct {
	Time     time.Time       `json:"time"` // when it was refused
	Output   string          `json:"output"`
	Dataset  string          `json:"dataset"`
	ID       string          `json:"id"`
	Status   int             `json:"status,omitempty"`
	Reason   string          `json:"reason"`
	Again    bool            `json:"again,omitempty"` // the output is to send it once more: see [DeadLetters.SendAgain]
	Document json.RawMessage `json:"document"`        // as a string when it is not JSON
}

// Record is the record that was refused.
func (l *DeadLetter) Record() (*output.Record, error) {
	for d := range output.Datasets {
		if d.String() != l.Dataset {
			continue
		}
		b := []byte(l.Document)
		var text string
		if json.Unmarshal(b, &text) == nil {
			b = []byte(text)
		}
		return &output.Record{Dataset: d, ID: l.ID, JSON: b}, nil
	}
	return nil, fmt.Errorf("dead letter %s: unknown dataset %q", l.ID, l.Dataset)
}

// DeadLetters are the files of dead letters in a folder, one JSON object a line:
// one for alerts and one for the rest, and the ones before them. Several processes
// may use them.
type DeadLetters struct {
	dir string
	max int64

	mu sync.Mutex
}

// NewDeadLetters returns those in a folder.
func NewDeadLetters(dir string) *DeadLetters { return &DeadLetters{dir: dir, max: maxDeadLetters} }

// old is what the name of a full file ends in.
const old = ".old"

func (d *DeadLetters) path(q spool.Queue) string {
	return filepath.Join(d.dir, "dead-"+q.String()+".jsonl")
}

// paths are the files of a queue, the one before it first.
func (d *DeadLetters) paths(q spool.Queue) []string { return []string{d.path(q) + old, d.path(q)} }

// add makes letters durable. It returns how many older ones it gave up for them.
func (d *DeadLetters) add(q spool.Queue, letters []DeadLetter) (lost int, err error) {
	var b []byte
	for _, l := range letters {
		if !json.Valid(l.Document) {
			l.Document, _ = json.Marshal(string(l.Document))
		}
		line, err := json.Marshal(l)
		if err != nil {
			return 0, fmt.Errorf("encode dead letter: %w", err)
		}
		b = append(append(b, line...), '\n')
	}
	err = d.locked(func() error {
		path := d.path(q)
		info, err := os.Stat(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && info.Size() > 0 && info.Size()+int64(len(b)) > d.max {
			lost = countLines(path + old)
			if err := os.Rename(path, path+old); err != nil {
				return err
			}
		}
		return appendFile(path, b)
	})
	if err != nil {
		return 0, fmt.Errorf("write dead letters: %w", err)
	}
	return lost, nil
}

// appendFile makes b durable at the end of a file, of which no line is torn.
func appendFile(path string, b []byte) error {
	f, err := ownfile.Open(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err = f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			b = append([]byte{'\n'}, b...) // the end of a line that a crash or a full disk has torn
		}
	}
	if err == nil {
		_, err = f.Write(b)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

func countLines(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	return bytes.Count(b, []byte{'\n'})
}

// locked calls f while nobody else changes the files.
func (d *DeadLetters) locked(f func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	lock, err := ownfile.Open(filepath.Join(d.dir, "dead.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := ownfile.Lock(lock); err != nil {
		return err
	}
	return f()
}

// All yields all letters, alerts first and the oldest first, with the number of
// lines that are none.
func (d *DeadLetters) All() iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		for q := range spool.Queues {
			for _, path := range d.paths(q) {
				if !eachLetter(path, yield) {
					return
				}
			}
		}
	}
}

func eachLetter(path string, yield func(DeadLetter, error) bool) (more bool) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return yield(DeadLetter{}, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxDeadLetter)
	lines.Split(wholeLines)
	for n := 1; lines.Scan(); n++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var l DeadLetter
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			err = fmt.Errorf("%s:%d: not a dead letter: %w", path, n, err)
			if !yield(DeadLetter{}, err) {
				return false
			}
			continue
		}
		if !yield(l, nil) {
			return false
		}
	}
	if err := lines.Err(); err != nil {
		return yield(DeadLetter{}, fmt.Errorf("%s: %w", path, err))
	}
	return true
}

// wholeLines is bufio.ScanLines, but leaves out a last line without an end: it is being
// written, or a crash has torn it, and then the next letter ends it.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if atEOF && bytes.IndexByte(data, '\n') < 0 {
		return len(data), nil, nil
	}
	return bufio.ScanLines(data, atEOF)
}

// Remove removes the letters for which is holds, and returns how many these are.
// Lines that are no letters stay.
func (d *DeadLetters) Remove(is func(*DeadLetter) bool) (removed int, err error) {
	err = d.locked(func() error {
		for q := range spool.Queues {
			for _, path := range d.paths(q) {
				n, err := rewriteLetters(path, func(l *DeadLetter, line []byte) []byte {
					if is(l) {
						return nil
					}
					return line
				})
				removed += n
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return removed, fmt.Errorf("remove dead letters: %w", err)
	}
	return removed, nil
}

// rewriteLetters puts what change returns in the place of each letter and its line. It
// returns how many lines are others then.
func rewriteLetters(path string, change func(l *DeadLetter, line []byte) []byte) (changed int, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var rest []byte
	for line := range bytes.Lines(b) {
		var l DeadLetter
		next := line
		if json.Unmarshal(line, &l) == nil {
			next = change(&l, line)
		}
		if !bytes.Equal(next, line) {
			changed++
		}
		rest = append(rest, next...)
	}
	if changed == 0 {
		return 0, nil
	}
	return changed, replaceFile(path, rest)
}

// replaceFile gives a file another content, so that after a crash either the old or
// the new one is there.
func replaceFile(path string, b []byte) error {
	next := path + ".new"
	f, err := ownfile.Open(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewReader(b))
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
		_ = os.Remove(next)
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return ownfile.SyncFolder(dir)
}
