//go:build unix

package ownfile

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// atOnce is the flag with which a pipe is opened without waiting for its other end.
const atOnce = syscall.O_NONBLOCK

func open(name string, flag int, mode os.FileMode) (*os.File, error) {
	return os.OpenFile(name, flag|syscall.O_NOFOLLOW|atOnce, mode)
}

func access(path string, write bool) error {
	if write {
		return unix.Access(path, unix.W_OK)
	}
	return unix.Access(path, unix.R_OK)
}

func syncFolder(folder *os.File) error { return folder.Sync() }

func lock(f *os.File, wait bool) error {
	how := syscall.LOCK_EX
	if !wait {
		how |= syscall.LOCK_NB
	}
	for {
		switch err := syscall.Flock(int(f.Fd()), how); {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return ErrInUse
		default:
			return err
		}
	}
}

func owner(info os.FileInfo) (user int, mine bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, true
	}
	return int(stat.Uid), int(stat.Uid) == os.Geteuid()
}
