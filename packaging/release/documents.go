package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// file is a file of an archive.
type file struct {
	path string // in the archive, with slashes
	text []byte
	mode fs.FileMode
}

// notShared are the folders of packaging/ that do not go to share/.
var notShared = []string{"bench", "nfpm", "release", "systemd"}

// documents makes what is the same for all targets: the manual, completions, the
// configuration with every option in comments, and the assets for other programs.
func (r *release) documents(ctx context.Context) (all []file, err error) {
	program, err := r.build(ctx, target{os: runtime.GOOS, arch: runtime.GOARCH}, "manual")
	if err != nil {
		return nil, err
	}
	pages := filepath.Join(r.work, "man")
	if err := os.Mkdir(pages, 0o755); err != nil {
		return nil, err
	}
	if _, err := output(ctx, command{name: program, args: []string{"man", pages}, env: []string{r.epoch()}}); err != nil {
		return nil, err
	}
	if all, err = tree(pages, "man"); err != nil {
		return nil, err
	}
	// What the installed program is not asked: its command that writes the manual.
	if program, err = r.build(ctx, target{os: runtime.GOOS, arch: runtime.GOARCH}, ""); err != nil {
		return nil, err
	}
	for _, written := range []struct {
		path string
		args []string
	}{
		{"oddcert.yaml", []string{"config", "example"}},
		{"completions/oddcert.bash", []string{"completion", "bash"}},
		{"completions/_oddcert", []string{"completion", "zsh"}},
		{"completions/oddcert.fish", []string{"completion", "fish"}},
		{"completions/oddcert.ps1", []string{"completion", "powershell"}},
	} {
		text, err := output(ctx, command{name: program, args: written.args})
		if err != nil {
			return nil, err
		}
		all = append(all, file{path: written.path, text: []byte(text + "\n"), mode: 0o644})
	}
	for _, name := range []string{"LICENSE", "README.md"} {
		text, err := os.ReadFile(filepath.Join(r.root, name))
		if err != nil {
			return nil, err
		}
		all = append(all, file{path: name, text: text, mode: 0o644})
	}
	entries, err := os.ReadDir(filepath.Join(r.root, "packaging"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.IsDir() || slices.Contains(notShared, e.Name()) {
			continue
		}
		assets, err := tree(filepath.Join(r.root, "packaging", e.Name()), "share/"+e.Name())
		if err != nil {
			return nil, err
		}
		// The integration is a file of its own.
		all = append(all, slices.DeleteFunc(assets, func(f file) bool { return strings.HasPrefix(f.path, "share/elastic/integration/") })...)
	}
	return all, nil
}

// tree reads the files below dir, other than source code and what tests need. Their
// paths begin with to.
func tree(dir, to string) (all []file, err error) {
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "testdata":
			return fs.SkipDir
		case d.IsDir(), path.Ext(name) == ".go":
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is not a regular file", name)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		below, err := filepath.Rel(dir, name)
		all = append(all, file{path: path.Join(to, filepath.ToSlash(below)), text: text, mode: 0o644})
		return err
	})
	return all, err
}

// licence matches the names of files that the licence of a module asks to pass on.
var licence = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents|copyright)([.-].*)?$`)

// licences collects the licences of what is linked into the program for t.
func (r *release) licences(ctx context.Context, t target) (file, error) {
	all := file{path: "third-party-licenses.txt", mode: 0o644}
	text, err := output(ctx, command{dir: r.root, env: r.environment(t), name: "go", args: []string{"list", "-deps",
		"-f", `{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}` + "\t" + `{{.Dir}}{{end}}{{end}}`, "./sensor"}})
	if err != nil {
		return all, err
	}
	goroot, err := output(ctx, command{dir: r.root, env: r.environment(t), name: "go", args: []string{"env", "GOVERSION", "GOROOT"}})
	if err != nil {
		return all, err
	}
	modules := strings.Split(text, "\n")
	slices.Sort(modules)
	modules = append([]string{"Go " + strings.Replace(goroot, "\n", "\t", 1)}, slices.Compact(modules)...)
	for _, module := range modules {
		name, dir, ok := strings.Cut(module, "\t")
		if !ok {
			continue // of a package without a module
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return all, err
		}
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
		found := false
		for _, e := range entries {
			if !e.Type().IsRegular() || !licence.MatchString(e.Name()) {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return all, err
			}
			found = true
			all.text = fmt.Appendf(all.text, "%s\n%s: %s\n\n%s\n\n", strings.Repeat("=", 80), name, e.Name(), strings.TrimSpace(string(text)))
		}
		if !found {
			return all, errors.New(name + " has no file with a licence")
		}
	}
	return all, nil
}
