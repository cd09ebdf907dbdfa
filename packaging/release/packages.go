package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// packages makes the .deb and the .rpm of a target, of the files of its archive.
func (r *release) packages(ctx context.Context, t target, files []file) error {
	stage := filepath.Join(r.work, "stage-"+t.String())
	recipes, err := tree(filepath.Join(r.root, "packaging/nfpm"), "")
	if err != nil {
		return err
	}
	changes, err := r.changes(ctx)
	if err != nil {
		return fmt.Errorf("write the changelog: %w", err)
	}
	staged := append(recipes, file{path: "changelog.yaml", text: changes, mode: 0o644})
	for _, f := range files {
		if f.path = installed(f.path); f.path == "" {
			continue
		}
		if strings.HasSuffix(f.path, ".gz") {
			if f.text, err = gzipped(f.text); err != nil {
				return err
			}
		}
		staged = append(staged, f)
	}
	for _, f := range staged {
		if err := r.stage(filepath.Join(stage, filepath.FromSlash(f.path)), f); err != nil {
			return err
		}
	}
	for _, packager := range []string{"deb", "rpm"} {
		r.say("%s: make the .%s", t, packager)
		if _, err := output(ctx, command{dir: stage, name: r.tool("nfpm"), env: []string{"ARCH=" + t.arch, "VERSION=" + r.full(), r.epoch()},
			args: []string{"package", "--config", "nfpm.yaml", "--packager", packager, "--target", r.out}}); err != nil {
			return err
		}
	}
	return nil
}

// stage writes a file. Its mode and time, and those of the folders, go into the package.
func (r *release) stage(name string, f file) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(name, f.text, f.mode); err != nil {
		return err
	}
	if err := os.Chmod(name, f.mode); err != nil { // whatever the umask is
		return err
	}
	return os.Chtimes(name, r.time, r.time)
}

// installed is where a file of the archive goes: below root/ what is in the packages as
// it stands, and elsewhere what nfpm.yaml names; empty for what is in no package.
func installed(name string) string {
	dir, base := path.Split(name)
	switch {
	case name == "oddcert":
		return "root/usr/bin/oddcert"
	case name == "oddcert.yaml":
		return "root/etc/oddcert/oddcert.yaml"
	case name == "LICENSE":
		return name
	case name == "completions/_oddcert":
		return "zsh-completion"
	case name == "completions/oddcert.bash":
		return "root/usr/share/bash-completion/completions/oddcert"
	case name == "completions/oddcert.fish":
		return "root/usr/share/fish/vendor_completions.d/oddcert.fish"
	case name == "completions/oddcert.ps1":
		return ""
	case dir == "man/":
		return "root/usr/share/man/man" + strings.TrimPrefix(path.Ext(base), ".") + "/" + base + ".gz"
	case name == "systemd/oddcert.sysusers.conf":
		return "root/usr/lib/sysusers.d/oddcert.conf"
	case dir == "systemd/":
		return "root/usr/lib/systemd/system/" + base
	case dir == "systemd/drop-ins/":
		return "root/usr/share/doc/oddcert/drop-ins/" + base
	case strings.HasPrefix(name, "share/"):
		return "root/usr/share/oddcert/" + strings.TrimPrefix(name, "share/")
	case name == "third-party-licenses.txt":
		return "root/usr/share/doc/oddcert/third-party-licenses.txt.gz"
	}
	return "root/usr/share/doc/oddcert/" + base
}

// maxChanges is how many changes the changelog of a package names.
const maxChanges = 100

// changes is the changelog, as nfpm reads it: the commits since the release before.
func (r *release) changes(ctx context.Context) ([]byte, error) {
	type change struct {
		Note string `json:"note"`
	}
	var changes []change
	git := func(args ...string) (string, error) {
		return output(ctx, command{dir: r.root, name: "git", args: args})
	}
	last, err := git("describe", "--tags", "--abbrev=0", "--match=v[0-9]*", "HEAD^")
	if err != nil { // there is none
		changes = []change{{"First release."}}
	} else {
		subjects, err := git("log", "--format=%s", fmt.Sprintf("--max-count=%d", maxChanges), last+"..HEAD")
		if err != nil {
			return nil, err
		}
		for subject := range strings.SplitSeq(subjects, "\n") {
			changes = append(changes, change{subject})
		}
	}
	return json.Marshal([]map[string]any{{ // JSON is YAML
		"semver": r.full() + "-1", "date": r.time.Format(time.RFC3339), "packager": maintainer, "changes": changes,
		"deb": map[string]any{"urgency": "medium", "distributions": []string{"stable"}},
	}})
}

// maintainer is who makes the packages; nfpm.yaml has the same.
const maintainer = "The oddcert authors <oddcert@users.noreply.github.com>"
