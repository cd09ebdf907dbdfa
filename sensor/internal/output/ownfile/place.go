package ownfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Place is where a file is written. One that is to replace another is written beside it
// until it is complete.
type Place struct {
	Path string // as it was given
	Real string // the same without symbolic links
	Part string // where the file is until it is complete; empty where it replaces none
}

// Locate looks at path, which may name a file that is not there; a folder is an error. A
// pipe or a device cannot be replaced, and is written to as it is.
func Locate(path string, replace bool) (Place, error) {
	p := Place{Path: path, Real: path}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		p.Real = real
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return p, p.Failed("open", syscall.EISDIR)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return p, p.Failed("open", err)
	}
	if replace && (err != nil || info.Mode().IsRegular()) {
		p.Part = p.Real + ".part"
	}
	return p, nil
}

// Failed is an error of what was done with the file, which it names as it was given.
func (p *Place) Failed(what string, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		err = link.Err
	}
	return fmt.Errorf("%s %s: %w", what, p.Path, err)
}

// OpenPart opens the file at Part to append to it, and to read it. Where another process
// writes it, the error is [ErrInUse].
func (p *Place) OpenPart(mode os.FileMode) (*os.File, error) {
	part, err := Open(p.Part, os.O_RDWR|os.O_CREATE|os.O_APPEND, mode)
	if err != nil {
		return nil, p.Failed("open", err)
	}
	if err := TryLock(part); errors.Is(err, ErrInUse) { // some file systems have no locks
		part.Close()
		return nil, fmt.Errorf("open %s: %w", p.Part, err)
	}
	return part, nil
}

// CreatePart is OpenPart for a new run: nothing is in the file. Those who may not read
// the file that it is to replace may not read it either.
func (p *Place) CreatePart(mode os.FileMode) (*os.File, error) {
	part, err := p.OpenPart(mode)
	if err != nil {
		return nil, err
	}
	err = part.Truncate(0)
	if info, e := os.Stat(p.Real); err == nil && e == nil {
		err = part.Chmod(info.Mode().Perm())
	}
	if err != nil {
		part.Close()
		return nil, p.Failed("open", err)
	}
	return part, nil
}

// Commit replaces what is at the path with the complete file, as OpenPart has opened it.
func (p *Place) Commit(part *os.File) error {
	written, err := part.Stat()
	if err != nil {
		return p.Failed("write", err)
	}
	if there, err := os.Lstat(p.Part); err != nil || !os.SameFile(written, there) {
		return fmt.Errorf("write %s: %s was moved away", p.Path, p.Part)
	}
	if err := part.Sync(); err != nil {
		return p.Failed("write", err)
	}
	if err := os.Rename(p.Part, p.Real); err != nil {
		return p.Failed("write", err)
	}
	p.SyncFolder()
	return nil
}

// SyncFolder makes the name of the file durable, where the file system can.
func (p *Place) SyncFolder() {
	if folder, err := os.Open(filepath.Dir(p.Real)); err == nil {
		_ = SyncFolder(folder)
		folder.Close()
	}
}

// IsInput returns an error when a file that the run would write to is also one that it
// reads, under any name or in a folder. In a folder of captures a file that is empty, or
// whose first 32 bytes or fewer are ours, is no input: it is there from the last run.
func (p *Place) IsInput(inputs []string, ours func(beginning []byte) bool) error {
	for _, name := range []string{p.Real, p.Part} {
		mine, err := os.Stat(name)
		if err != nil || !mine.Mode().IsRegular() {
			continue // there is nothing to lose
		}
		for _, input := range inputs {
			there, inFolder := isAt(input, mine)
			if there && !(inFolder && isOurs(name, ours)) {
				return fmt.Errorf("write records to %s: it is one of the files to read", name)
			}
		}
	}
	return nil
}

// isAt reports whether the input is the file or holds it, and whether that is a folder.
func isAt(input string, mine fs.FileInfo) (there, inFolder bool) {
	if input == "-" {
		info, err := os.Stdin.Stat()
		return err == nil && os.SameFile(info, mine), false
	}
	info, err := os.Stat(input)
	if err != nil {
		return false, false
	}
	if !info.IsDir() {
		return os.SameFile(info, mine), false
	}
	_ = fs.WalkDir(os.DirFS(input), ".", func(at string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil // the capture reports it
		}
		if info, err := os.Stat(filepath.Join(input, filepath.FromSlash(at))); err == nil && os.SameFile(info, mine) {
			there = true
			return fs.SkipAll
		}
		return nil
	})
	return there, true
}

func isOurs(name string, ours func(beginning []byte) bool) bool {
	file, err := os.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	b := make([]byte, 32)
	n, err := io.ReadFull(file, b)
	return n == 0 && err == io.EOF || ours(b[:n])
}
