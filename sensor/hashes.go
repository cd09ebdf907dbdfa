package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"sync"
)

// hashes are those of the captures that a run has read: each file is read once for them,
// whoever asks. Its method may be called by several goroutines.
type hashes struct {
	mu    sync.Mutex
	known map[string]hashed // by whole path
}

// hashed is the SHA-256 of a file and its size in bytes, or why there is none.
type hashed struct {
	sum  [32]byte
	size int64
	err  error
}

// of returns the hash of the capture at path.
func (k *hashes) of(ctx context.Context, path string) hashed {
	path = wholePath(path)
	k.mu.Lock()
	defer k.mu.Unlock()
	h, ok := k.known[path]
	if !ok {
		if k.known == nil {
			k.known = map[string]hashed{}
		}
		h.sum, h.size, h.err = hashFile(ctx, path)
		k.known[path] = h
	}
	return h
}

// hashFile returns the SHA-256 of a regular file, and its size.
func hashFile(ctx context.Context, path string) (sum [32]byte, size int64, err error) {
	if path == "-" {
		return sum, 0, errors.New("it was standard input")
	}
	f, err := os.Open(path)
	if err != nil {
		return sum, 0, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return sum, 0, errors.New("it is not a regular file")
	}
	h := sha256.New()
	if size, err = io.Copy(h, reader{ctx, f}); err != nil {
		return sum, 0, err
	}
	h.Sum(sum[:0])
	return sum, size, nil
}

// reader reads until ctx is done.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}
