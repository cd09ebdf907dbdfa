package spool

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// folder is the directory of a spool. Its files are opened in it, whatever
// becomes of the path, and without following links: they hold what others must
// not read, and are written with the rights of the sensor.
type folder struct{ dir *os.File }

// openFolder opens a directory, which it makes when it is not there. It refuses
// one in which others could put files or links of theirs.
func openFolder(path string) (folder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return folder{}, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return folder{}, err
	}
	info, err := dir.Stat()
	if err == nil {
		err = mayUse(path, info)
	}
	if err != nil {
		dir.Close()
		return folder{}, err
	}
	return folder{dir}, nil
}

func mayUse(path string, info os.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", path)
	case ok && int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to another user (%d)", path, stat.Uid)
	case info.Mode()&0o022 != 0:
		return fmt.Errorf("others may write to %s: chmod go-w", path)
	}
	return nil
}

// open opens a file. With os.O_CREATE nobody else may read it.
func (f folder) open(name string, flag int) (*os.File, error) {
	fd, err := unix.Openat(int(f.dir.Fd()), name, flag|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: f.path(name), Err: err}
	}
	return os.NewFile(uintptr(fd), f.path(name)), nil
}

func (f folder) path(name string) string { return filepath.Join(f.dir.Name(), name) }

// read returns the first size bytes of a file, or all of it where it has fewer.
func (f folder) read(name string, size int64) ([]byte, error) {
	file, err := f.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, size))
}

// names are those of all files.
func (f folder) names() ([]string, error) {
	dir, err := f.open(".", os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

func (f folder) remove(name string) error {
	if err := unix.Unlinkat(int(f.dir.Fd()), name, 0); err != nil {
		return &os.PathError{Op: "remove", Path: f.path(name), Err: err}
	}
	return nil
}

func (f folder) rename(from, to string) error {
	if err := unix.Renameat(int(f.dir.Fd()), from, int(f.dir.Fd()), to); err != nil {
		return &os.PathError{Op: "rename", Path: f.path(from), Err: err}
	}
	return nil
}

// truncate cuts a file.
func (f folder) truncate(name string, size int64) error {
	file, err := f.open(name, os.O_WRONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Truncate(size)
}

// sync makes the names in the folder durable.
func (f folder) sync() error { return f.dir.Sync() }
