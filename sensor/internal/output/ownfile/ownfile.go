// Package ownfile opens and locks files that one process writes and others must not
// interfere with, on each system by its own means.
package ownfile

import (
	"errors"
	"io/fs"
	"os"
)

// ErrInUse is the error of [TryLock] where another process, or another open file of
// this one, has the lock.
var ErrInUse = errors.New("in use by another process")

// Open is os.OpenFile, and fails where name is a symbolic link: a folder that others
// can write to could have one to a file that only this process may write. It fails where
// name is anything else than a file, too, and does not wait for who reads or writes a pipe.
// A file that is open can be renamed and removed.
func Open(name string, flag int, mode os.FileMode) (*os.File, error) {
	return regular(open(name, flag, mode))
}

// OpenIn is Open for a file in a folder. A link is followed where it stays in the folder.
func OpenIn(folder *os.Root, name string, flag int, mode os.FileMode) (*os.File, error) {
	return regular(folder.OpenFile(name, flag|atOnce, mode))
}

// regular returns f where it is a file. What was opened is looked at, and not what had its
// name before.
func regular(f *os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: errors.New("it is not a file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Lock locks f until it is closed, and waits for who has the lock. Only those who ask for
// the lock heed it. Some file systems have no locks: that is the error.
func Lock(f *os.File) error { return lock(f, true) }

// TryLock is Lock that does not wait, and returns [ErrInUse] instead.
func TryLock(f *os.File) error { return lock(f, false) }

// Access returns why this process may not read a file or folder, or may not write to it;
// nil where it may, and where the system does not say.
func Access(path string, write bool) error { return access(path, write) }

// SyncFolder makes the names in a folder durable.
func SyncFolder(folder *os.File) error { return syncFolder(folder) }

// Owner returns the user who owns a file, and whether that is this process's user. On
// systems without such owners it is.
func Owner(info os.FileInfo) (user int, mine bool) { return owner(info) }
