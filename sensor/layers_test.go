package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// The layers of the program are written down once, for the linter. They hold
// where nobody runs the linter, too: who may import what is part of the design.
func TestLayers(t *testing.T) {
	type layer struct {
		Files, Allow []string
		Deny         []struct{ Pkg, Desc string }
	}
	var config struct {
		Linters struct {
			Settings struct {
				Depguard struct{ Rules map[string]layer }
			}
		}
	}
	text, err := os.ReadFile("../.golangci.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	layers := config.Linters.Settings.Depguard.Rules
	if len(layers) == 0 {
		t.Fatal(".golangci.yml has no layers")
	}

	list := exec.CommandContext(t.Context(), "go", "list", "-json=Dir,ImportPath,Imports", "./...")
	list.Dir = ".."
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	type pkg struct {
		Dir, ImportPath string
		Imports         []string
	}
	var ours []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		ours = append(ours, p)
	}

	// covers reports whether a pattern is about the files of a folder. There are
	// two kinds: all files, and all below a folder.
	covers := func(pattern, dir string) bool {
		if pattern == "$all" {
			return true
		}
		above, ok := strings.CutSuffix(strings.Replace(pattern, "**/", root+"/", 1), "**")
		if !ok {
			t.Errorf("pattern %s has another form than $all or **/FOLDER/**", pattern)
		}
		return strings.HasPrefix(dir+"/", above)
	}
	imports := func(path, what string) bool { // "$" at the end: this one alone
		if exact, ok := strings.CutSuffix(what, "$"); ok {
			return path == exact
		}
		return strings.HasPrefix(path, what)
	}
	for name, l := range layers {
		held := 0
		for _, p := range ours {
			in := false
			for _, pattern := range l.Files {
				if not, ok := strings.CutPrefix(pattern, "!"); !ok {
					in = in || covers(pattern, p.Dir)
				} else if not != "$test" && covers(not, p.Dir) {
					in = false
				}
			}
			if !in {
				continue
			}
			held++
			for _, path := range p.Imports {
				if slices.ContainsFunc(l.Allow, func(what string) bool { return imports(path, what) }) {
					continue // each of these is longer than what it is an exception of
				}
				for _, d := range l.Deny {
					if imports(path, d.Pkg) {
						t.Errorf("%s imports %s, against layer %s: %s", p.ImportPath, path, name, d.Desc)
					}
				}
			}
		}
		if held == 0 {
			t.Errorf("layer %s holds for no package", name)
		}
	}
}
