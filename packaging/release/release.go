package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// target is a system that a binary is for.
type target struct{ os, arch string }

func (t target) String() string { return t.os + "-" + t.arch }

// targets are all of them.
var targets = []target{
	{"linux", "amd64"},
	{"linux", "arm64"},
	{"darwin", "amd64"},
	{"darwin", "arm64"},
	{"freebsd", "amd64"},
	{"windows", "amd64"},
}

// The tools that are run. Their modules are no requirements of this one.
const (
	nfpm      = "github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.48.0"
	cyclonedx = "github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0"
)

// sums is the name of the file of hashes.
const sums = "SHA256SUMS"

// release is one release.
type release struct {
	root    string // of the clone
	out     string // folder that the files go to
	version string // without the v
	targets []target
	cache   string // of the go command; empty for the usual one
	log     io.Writer

	time    time.Time // of all files
	changed bool      // the clone has changes that are not in the commit
	work    string    // folder for what is in between
}

// name is how the files and folders of the release begin.
func (r *release) name() string { return "oddcert-" + r.full() }

// full is the version with a mark where the files are not those of the commit.
func (r *release) full() string {
	if r.changed {
		return r.version + "+dirty"
	}
	return r.version
}

// make makes all files.
func (r *release) make(ctx context.Context) (err error) {
	if err := empty(r.out); err != nil {
		return err
	}
	if err := r.readClone(ctx); err != nil {
		return err
	}
	if r.work, err = os.MkdirTemp("", "oddcert-release-"); err != nil {
		return err
	}
	defer os.RemoveAll(r.work)
	if err := r.install(ctx); err != nil {
		return err
	}
	documents, err := r.documents(ctx)
	if err != nil {
		return fmt.Errorf("make the documents: %w", err)
	}
	for _, t := range r.targets {
		if err := r.makeTarget(ctx, t, documents); err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
	}
	if err := r.integration(ctx); err != nil {
		return fmt.Errorf("make the integration: %w", err)
	}
	return r.sum()
}

// makeTarget makes the files of one target.
func (r *release) makeTarget(ctx context.Context, t target, documents []file) error {
	binary, err := r.build(ctx, t, "")
	if err != nil {
		return err
	}
	licences, err := r.licences(ctx, t)
	if err != nil {
		return fmt.Errorf("collect licences: %w", err)
	}
	text, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	all := append([]file{{path: "oddcert" + t.suffix(), text: text, mode: 0o755}, licences}, documents...)
	if t.os == "linux" {
		units, err := tree(filepath.Join(r.root, "packaging/systemd"), "systemd")
		if err != nil {
			return err
		}
		all = append(all, units...)
	}
	if err := r.archive(t, all); err != nil {
		return fmt.Errorf("make the archive: %w", err)
	}
	if err := r.components(ctx, t, binary); err != nil {
		return fmt.Errorf("list the components: %w", err)
	}
	if t.os == "linux" {
		return r.packages(ctx, t, all)
	}
	return nil
}

// empty makes dir, which must not hold anything.
func empty(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is not empty", dir)
	}
	return err
}

// readClone finds out what commit this is.
func (r *release) readClone(ctx context.Context) error {
	seconds := os.Getenv("SOURCE_DATE_EPOCH")
	if seconds == "" {
		var err error
		if seconds, err = output(ctx, command{dir: r.root, name: "git", args: []string{"log", "-1", "--format=%ct"}}); err != nil {
			return fmt.Errorf("read the time of the commit: %w", err)
		}
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %q is not a number of seconds", seconds)
	}
	r.time = time.Unix(n, 0).UTC()
	status, err := output(ctx, command{dir: r.root, name: "git", args: []string{"status", "--porcelain"}})
	if err != nil {
		return fmt.Errorf("look for changes: %w", err)
	}
	if r.changed = status != ""; r.changed {
		r.say("some files are not those of the commit: the version is %s", r.full())
	}
	return nil
}

// suffix is how the name of a program ends.
func (t target) suffix() string {
	if t.os == "windows" {
		return ".exe"
	}
	return ""
}

// build builds the program, with a build tag or without.
func (r *release) build(ctx context.Context, t target, tag string) (path string, err error) {
	r.say("%s: build %s", t, strings.TrimSpace("oddcert "+tag))
	path = filepath.Join(r.work, t.String()+tag, "oddcert"+t.suffix())
	_, err = output(ctx, command{dir: r.root, env: r.environment(t), name: "go", args: []string{"build",
		"-trimpath", "-buildvcs=true", "-tags=" + tag, "-ldflags=-s -w -X main.release=v" + r.full(), "-o", path, "./sensor"}})
	return path, err
}

// environment is what the go command is told for t: nothing of what the caller has set
// may change the bytes.
func (r *release) environment(t target) []string {
	env := []string{"GOOS=" + t.os, "GOARCH=" + t.arch, "GOAMD64=v1", "GOARM64=v8.0", "CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off"}
	if r.cache != "" {
		env = append(env, "GOCACHE="+r.cache)
	}
	return append(env, r.epoch())
}

// epoch is the variable that tools take their times from.
func (r *release) epoch() string { return fmt.Sprintf("SOURCE_DATE_EPOCH=%d", r.time.Unix()) }

// components writes the list of the components of a binary, in CycloneDX.
func (r *release) components(ctx context.Context, t target, binary string) error {
	r.say("%s: list the components", t)
	// A build does not need what is known of the versions of modules, and the tool does,
	// without asking anybody.
	modules, err := output(ctx, command{dir: r.root, env: r.environment(t), name: "go",
		args: []string{"list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}}{{end}}{{end}}", "./sensor"}})
	if err != nil {
		return err
	}
	list := strings.Fields(modules)
	slices.Sort(list)
	if _, err = output(ctx, command{dir: r.root, env: []string{"GOFLAGS="}, name: "go", args: append([]string{"mod", "download"}, slices.Compact(list)...)}); err != nil {
		return err
	}
	_, err = output(ctx, command{name: r.tool("cyclonedx-gomod"), env: []string{"GOPROXY=off", "GOFLAGS="}, // all that was built is in the cache
		args: []string{"bin", "-json", "-licenses", "-std", "-noserial", "-notimestamp", "-version", "v" + r.full(),
			"-output", filepath.Join(r.out, r.name()+"-"+t.String()+".cdx.json"), binary}})
	return err
}

// errNoTool is the error of a tool that cannot be had, such as one whose modules nobody
// serves here.
var errNoTool = errors.New("a tool cannot be built")

// install builds the tools.
func (r *release) install(ctx context.Context) error {
	for _, tool := range []string{nfpm, cyclonedx} {
		r.say("build %s", tool)
		// The list of components names the hash of its tool.
		if _, err := output(ctx, command{dir: r.work, name: "go", args: []string{"install", tool},
			env: []string{"GOBIN=" + filepath.Join(r.work, "tools"), "GOOS=", "GOARCH=", "GOFLAGS=-trimpath", "CGO_ENABLED=0"}}); err != nil {
			return fmt.Errorf("%w: %w", errNoTool, err)
		}
	}
	return nil
}

// tool is the path of a tool that was installed.
func (r *release) tool(name string) string { return filepath.Join(r.work, "tools", name) }

// integration makes the integration for Kibana.
func (r *release) integration(ctx context.Context) error {
	r.say("make the integration for Kibana")
	_, err := output(ctx, command{dir: r.root, env: []string{r.epoch()}, name: "go",
		args: []string{"run", "./packaging/elastic/integration", "-o", filepath.Join(r.out, "oddcert-"+r.version+".zip")}})
	return err
}

// sum writes the hashes of all files, as sha256sum -c reads them.
func (r *release) sum() error {
	entries, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(r.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(text), e.Name())
	}
	return os.WriteFile(filepath.Join(r.out, sums), b.Bytes(), 0o644)
}

// verify makes the release once more and compares the hashes.
func (r *release) verify(ctx context.Context) error {
	if r.changed {
		return errors.New("-verify: some files are not those of the commit")
	}
	dir, err := os.MkdirTemp("", "oddcert-verify-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	again := &release{root: filepath.Join(dir, "clone"), out: filepath.Join(dir, "dist"), cache: filepath.Join(dir, "cache"),
		version: r.version, targets: r.targets, log: r.log}
	if _, err := output(ctx, command{name: "git", args: []string{"clone", "--quiet", "--no-hardlinks", r.root, again.root}}); err != nil {
		return err
	}
	r.say("once more, in %s", again.root)
	if err := again.make(ctx); err != nil {
		return err
	}
	return same(r.out, again.out)
}

// same compares the hashes of two releases, and names the files that differ.
func same(a, b string) error {
	var lines [2][]string
	for i, dir := range []string{a, b} {
		text, err := os.ReadFile(filepath.Join(dir, sums))
		if err != nil {
			return err
		}
		lines[i] = strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	var errs []error
	for i := range lines {
		for _, line := range lines[i] {
			if !slices.Contains(lines[1-i], line) {
				errs = append(errs, fmt.Errorf("not reproducible: %s", line))
			}
		}
	}
	return errors.Join(errs...)
}

func (r *release) say(format string, args ...any) { fmt.Fprintf(r.log, format+"\n", args...) }
