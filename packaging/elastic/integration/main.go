// Command integration makes the Elastic integration package of oddcert: the zip
// that Kibana takes under "Integrations", "Upload it as a .zip".
//
//	go run ./packaging/elastic/integration -o dist/oddcert-1.2.3.zip
//
// It is run in the root of the repository. The version of the package is that in
// the name of the file. The fields and the mappings are those of the program: it
// runs "oddcert es export" for them. The format is that of
// https://github.com/elastic/package-spec.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

func main() {
	out := flag.String("o", "", "`file` to write: oddcert-VERSION.zip; required")
	program := flag.String("program", "", "the `program` oddcert; made from ./sensor if empty")
	flag.Parse()
	if flag.NArg() > 0 || *out == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(context.Background(), *out, *program); err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		os.Exit(1)
	}
}

// fileName is the name that the file of a package has, with its version (as in
// https://semver.org, without a build).
var fileName = regexp.MustCompile(`^oddcert-((?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?)\.zip$`)

// run makes the package and writes it to the file out.
func run(ctx context.Context, out, program string) error {
	m := fileName.FindStringSubmatch(filepath.Base(out))
	if m == nil {
		return fmt.Errorf("%s: the name of a package is oddcert-VERSION.zip, such as oddcert-1.2.3.zip", out)
	}
	s, err := readSources(ctx, ".", program)
	if err != nil {
		return err
	}
	files, err := build(s, m[1])
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := writeZip(&b, "oddcert-"+m[1], files); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(out, b.Bytes(), 0o644)
}

// sources is what a package is made of.
type sources struct {
	templates map[string][]byte // what "oddcert es export" writes, by its path
	fields    []byte            // FIELDS.md
	license   []byte
	kibana    map[string][]byte // files of saved objects and of rules, NDJSON, by their names
}

// readSources reads the sources in the repository at root. It makes the program
// where none is given.
func readSources(ctx context.Context, root, program string) (*sources, error) {
	dir, err := os.MkdirTemp("", "oddcert-integration")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if program == "" {
		program = filepath.Join(dir, "oddcert")
		make := exec.CommandContext(ctx, "go", "build", "-o", program, "./sensor")
		make.Dir = root
		if text, err := make.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build oddcert: %w: %s", err, bytes.TrimSpace(text))
		}
	}
	exported := filepath.Join(dir, "templates")
	if text, err := exec.CommandContext(ctx, program, "es", "export", "--config", "", exported).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("export templates: %w: %s", err, bytes.TrimSpace(text))
	}
	s := &sources{}
	if s.templates, err = readFiles(exported, "*/*.json"); err != nil {
		return nil, err
	}
	if s.kibana, err = readFiles(filepath.Join(root, "packaging/elastic"), "*.ndjson"); err != nil {
		return nil, err
	}
	var errs [2]error
	s.fields, errs[0] = os.ReadFile(filepath.Join(root, "sensor/internal/output/schema/FIELDS.md"))
	s.license, errs[1] = os.ReadFile(filepath.Join(root, "LICENSE"))
	return s, errors.Join(errs[:]...)
}

// readFiles reads the files below dir that a pattern matches.
func readFiles(dir string, patterns ...string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, pattern := range patterns {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			relative, err := filepath.Rel(dir, name)
			if err != nil {
				return nil, err
			}
			if files[filepath.ToSlash(relative)], err = os.ReadFile(name); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}
