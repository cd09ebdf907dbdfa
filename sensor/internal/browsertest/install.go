package browsertest

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/testcache"
)

// version is that of axe-core. It is MPL-2.0, and so it is fetched for tests and never
// part of oddcert.
const version = "4.14.1"

// axe returns the script of axe-core, fetched with npm if need be. Test binaries that run
// at the same time wait for one another.
func axe() (script string, err error) {
	cache, unlock, err := testcache.Open("lock-axe")
	if err != nil {
		return "", err
	}
	defer unlock()
	packed := filepath.Join(cache, "axe-core-"+version+".tgz")
	if _, err := os.Stat(packed); err != nil {
		if err := fetch(cache); err != nil {
			return "", err
		}
	}
	return unpack(packed, "package/axe.min.js")
}

// fetch gets the package with npm, and puts it into dir.
func fetch(dir string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return errors.New("no npm on this machine")
	}
	temporary, err := os.MkdirTemp(dir, "fetch")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", "axe-core@"+version)
	cmd.Dir = temporary
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch axe-core %s with npm: %w: %s", version, err, out)
	}
	name := "axe-core-" + version + ".tgz"
	return os.Rename(filepath.Join(temporary, name), filepath.Join(dir, name))
}

// unpack returns a file of a package.
func unpack(path, name string) (string, error) {
	packed, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", path, err)
	}
	for files := tar.NewReader(z); ; {
		h, err := files.Next()
		if err != nil {
			return "", fmt.Errorf("find %s in %s: %w", name, path, err)
		}
		if h.Name == name {
			b, err := io.ReadAll(files)
			return string(b), err
		}
	}
}
