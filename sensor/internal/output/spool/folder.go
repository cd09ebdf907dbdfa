package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
)

// folder is the directory of a spool. Its files are opened in it, whatever
// becomes of the path, and no link leads out of it: they hold what others must
// not read, and are written with the rights of the sensor.
type folder struct{ root *os.Root }

// openFolder opens a directory, which it makes when it is not there. It refuses
// one in which others could put files or links of theirs.
func openFolder(path string) (folder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return folder{}, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return folder{}, err
	}
	info, err := root.Stat(".")
	if err == nil {
		err = mayUse(path, info)
	}
	if err != nil {
		root.Close()
		return folder{}, err
	}
	return folder{root}, nil
}

func (f folder) close() error { return f.root.Close() }

// ErrOwner is why a folder is refused that belongs to another user.
var ErrOwner = errors.New("belongs to another user")

// CheckFolder says why [Open] would refuse a folder; nil where it would not, or would
// make it. It changes nothing.
func CheckFolder(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = mayUse(path, info)
	}
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	return nil
}

func mayUse(path string, info os.FileInfo) error {
	user, mine := ownfile.Owner(info)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", path)
	case !mine:
		return fmt.Errorf("%s %w (%d)", path, ErrOwner, user)
	case info.Mode()&0o022 != 0 && runtime.GOOS != "windows": // which has no such modes
		return fmt.Errorf("others may write to %s: chmod go-w", path)
	}
	return nil
}

// open opens a file. With os.O_CREATE nobody else may read it. A pipe is no file.
func (f folder) open(name string, flag int) (*os.File, error) {
	return ownfile.OpenIn(f.root, name, flag, 0o600)
}

func (f folder) path(name string) string { return filepath.Join(f.root.Name(), name) }

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
	dir, err := f.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

func (f folder) remove(name string) error { return f.root.Remove(name) }

func (f folder) rename(from, to string) error { return f.root.Rename(from, to) }

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
func (f folder) sync() error {
	dir, err := f.root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return ownfile.SyncFolder(dir)
}
