package ownfile

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// atOnce is no flag: named pipes are in no folder.
const atOnce = 0

// open opens the file in its folder, as that lets others rename and remove it
// (FILE_SHARE_DELETE). Links are followed: only administrators may make them.
func open(name string, flag int, mode os.FileMode) (*os.File, error) {
	folder, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	return folder.OpenFile(filepath.Base(name), flag, mode)
}

// access says nothing: access control lists are looked at when a file is opened.
func access(string, bool) error { return nil }

// syncFolder has nothing to do: NTFS keeps a journal of names, and a folder cannot be
// flushed.
func syncFolder(*os.File) error { return nil }

func lock(f *os.File, wait bool) error {
	how := uint32(windows.LOCKFILE_EXCLUSIVE_LOCK)
	if !wait {
		how |= windows.LOCKFILE_FAIL_IMMEDIATELY
	}
	// What is locked cannot be read or written by others: a byte that no file has.
	at := windows.Overlapped{Offset: 1<<32 - 2, OffsetHigh: 1<<31 - 1}
	err := windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, &at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrInUse
	}
	return err
}

func owner(os.FileInfo) (user int, mine bool) { return 0, true }
