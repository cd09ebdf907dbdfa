package elastic

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// deadLetters is the file of the records that the server will never accept, with
// its reasons, one JSON object a line.
type deadLetters struct {
	mu   sync.Mutex
	path string
	max  int64
}

func newDeadLetters(dir string) *deadLetters {
	return &deadLetters{path: filepath.Join(dir, "dead-letter.jsonl"), max: maxDeadLetters}
}

type deadLetter struct {
	Index    string          `json:"index"`
	ID       string          `json:"id"`
	Status   int             `json:"status"`
	Reason   string          `json:"reason"`
	Document json.RawMessage `json:"document"` // as a string when it is not JSON
}

// add makes letters durable.
func (d *deadLetters) add(letters []deadLetter) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b []byte
	for _, l := range letters {
		if !json.Valid(l.Document) {
			l.Document, _ = json.Marshal(string(l.Document))
		}
		line, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("encode dead letter: %w", err)
		}
		b = append(append(b, line...), '\n')
	}
	info, err := os.Stat(d.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write dead letter: %w", err)
	}
	if err == nil && info.Size() > 0 && info.Size()+int64(len(b)) > d.max {
		if err := os.Rename(d.path, d.path+".old"); err != nil {
			return fmt.Errorf("rotate dead letters: %w", err)
		}
	}
	f, err := os.OpenFile(d.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write dead letter: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("write dead letter: %w", err)
	}
	return nil
}

// letter is r as a dead letter.
func letter(r *output.Record, index string, v verdict) deadLetter {
	return deadLetter{Index: index, ID: r.ID, Status: v.status, Reason: v.reason, Document: r.JSON}
}
