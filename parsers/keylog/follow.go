package keylog

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// ReadFile adds the key log at path. warn is called once if lines are not lines of a
// key log.
func (s *Store) ReadFile(path string, warn func(error)) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	defer f.Close()
	l := s.Log(path, warn)
	if _, err := io.Copy(l, f); err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	return l.Close()
}

// Follow adds the key log at path: what is there until it returns, and what is
// appended until ctx ends. When another file takes the place of the first, or
// when it becomes shorter, it is read from its beginning. Pipes, which have no
// end to wait for, are read in the background. warn is told, from any
// goroutine, of what goes wrong later, and once for each file of lines that are
// none.
func (s *Store) Follow(ctx context.Context, path string, warn func(error)) error {
	t := &tail{store: s, path: path, warn: warn}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	if !info.Mode().IsRegular() {
		go func() {
			if err := s.ReadFile(path, warn); err != nil {
				warn(err)
			}
		}()
		return nil
	}
	if err := t.open(); err != nil {
		return err
	}
	if err := t.read(); err != nil {
		t.file.Close()
		return err
	}
	go t.follow(ctx)
	return nil
}

// tail is a file that is followed.
type tail struct {
	store  *Store
	path   string
	warn   func(error)
	file   *os.File
	log    *Log
	offset int64
}

func (t *tail) open() error {
	f, err := os.Open(t.path)
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	t.file, t.log, t.offset = f, t.store.Log(t.path, t.warn), 0
	return nil
}

// read adds what has been appended.
func (t *tail) read() error {
	n, err := io.Copy(t.log, t.file)
	t.offset += n
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	return nil
}

func (t *tail) follow(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	defer func() { t.file.Close() }()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := t.read()
		if err == nil && t.replaced() {
			old := t.file
			if err = t.open(); err == nil {
				old.Close()
				err = t.read()
			}
		}
		if err != nil && !failed {
			t.warn(err)
		}
		failed = err != nil
	}
}

// replaced reports whether another file is at the path now, or the file has
// become shorter. One that is gone may come back.
func (t *tail) replaced() bool {
	now, err := os.Stat(t.path)
	if err != nil {
		return false
	}
	mine, err := t.file.Stat()
	return err != nil || !os.SameFile(mine, now) || now.Size() < t.offset
}
