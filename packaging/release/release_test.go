package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// folder is for all that the tests make, in which packages can be the same for several.
var folder string

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "oddcert-packages-"); err != nil {
		panic(err)
	}
	status := m.Run()
	_ = os.RemoveAll(folder)
	os.Exit(status)
}

// made is a release for the machine's processor, of the files as they are, and of
// another version of the same.
var made = map[string]func() (*release, error){
	"1.0.0": sync.OnceValues(func() (*release, error) { return makeRelease("1.0.0", "one") }),
	"1.1.0": sync.OnceValues(func() (*release, error) { return makeRelease("1.1.0", "one") }),
}

// releaseOf returns one of the releases.
func releaseOf(t *testing.T, version string) *release {
	t.Helper()
	if testing.Short() {
		t.Skip("a release takes minutes")
	}
	if runtime.GOOS != "linux" {
		t.Skip("packages are tested on Linux")
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	r, err := made[version]()
	if errors.Is(err, errNoTool) { // its version is pinned: it is not us
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// makeRelease makes a release from a clone of its own.
func makeRelease(version, clone string) (*release, error) {
	root := filepath.Join(folder, clone, "clone")
	if _, err := os.Stat(root); err != nil {
		if err := commitTree(root); err != nil {
			return nil, err
		}
	}
	r := &release{root: root, out: filepath.Join(folder, clone, "dist-"+version), version: version,
		targets: []target{{os: "linux", arch: runtime.GOARCH}}, log: os.Stderr}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	return r, r.make(ctx)
}

// commitTree makes a repository with one commit, of the files that are here: always the
// same commit for the same files.
func commitTree(root string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("sh", "-ec", `
		top=$(git rev-parse --show-toplevel)
		git -C "$top" ls-files -z --cached --others --exclude-standard | (cd "$top" && tar -c --null --ignore-failed-read -T - 2>/dev/null) | tar -x -C "$1"
		cd "$1"
		git init --quiet --initial-branch=main
		git add --all --force
		git -c user.name=test -c user.email=test@example.net -c commit.gpgsign=false commit --quiet --message=test`, "sh", root)
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_DATE=2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z")
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// file of a release whose name matches.
func (r *release) file(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(r.out, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v", pattern, found, err)
	}
	return found[0]
}

// runProgram runs a program and returns what it writes. A test that lacks it is skipped.
func runProgram(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestArguments(t *testing.T) {
	for want, args := range map[string][]string{
		`-version "" is not a version`:    {},
		`-version "v1.2.3" is not`:        {"-version", "v1.2.3"},
		`-version "1.2" is not`:           {"-version", "1.2"},
		`-version "1.2.3; id" is not`:     {"-version", "1.2.3; id"},
		`"dist" is not a flag`:            {"-version", "1.2.3", "dist"},
		"flag provided but not defined":   {"-sign"},
		"release_test.go: not a director": {"-version", "1.2.3", "-o", "release_test.go"},
		" is not empty":                   {"-version", "1.2.3-rc.1", "-o", "."},
	} {
		if err := run(t.Context(), args, new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", args, err, want)
		}
	}
}

// TestReproducible makes the same release from another clone: all files are the same.
func TestReproducible(t *testing.T) {
	one := releaseOf(t, "1.0.0")
	other, err := makeRelease("1.0.0", "other")
	if err != nil {
		t.Fatal(err)
	}
	if err := same(one.out, other.out); err != nil {
		t.Error(err)
	}
	if err := same(one.out, releaseOf(t, "1.1.0").out); err == nil {
		t.Error("releases of two versions are the same")
	}
	cmd := exec.Command("sha256sum", "--check", "--strict", "--quiet", sums)
	cmd.Dir = one.out
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestArchive holds that an archive has the program, which says its version, and what
// goes with it.
func TestArchive(t *testing.T) {
	r := releaseOf(t, "1.0.0")
	dir := t.TempDir()
	runProgram(t, "tar", "-xzf", r.file(t, "*.tar.gz"), "-C", dir)
	top := filepath.Join(dir, "oddcert-1.0.0-linux-"+runtime.GOARCH)
	if got := runProgram(t, filepath.Join(top, "oddcert"), "--version"); got != "oddcert version v1.0.0\n" {
		t.Errorf("--version says %q", got)
	}
	if out, err := exec.Command(filepath.Join(top, "oddcert"), "man", dir).CombinedOutput(); err == nil {
		t.Errorf("the program has the command that writes the manual: %s", out)
	}
	runProgram(t, filepath.Join(top, "oddcert"), "config", "check", filepath.Join(top, "oddcert.yaml"))
	for _, name := range []string{"LICENSE", "README.md", "third-party-licenses.txt", "man/oddcert-live.1", "completions/_oddcert",
		"systemd/oddcert@.service", "share/webhook/slack.tmpl", "share/sigma/oddcert.yml"} {
		if info, err := os.Stat(filepath.Join(top, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestComponents holds the list of components against the modules of the binary, and
// their licences against those that may be linked into a program under Apache-2.0.
func TestComponents(t *testing.T) {
	r := releaseOf(t, "1.0.0")
	text, err := os.ReadFile(r.file(t, "*.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Components []struct {
			Name, Version string
			Evidence      struct {
				Licenses []struct{ License struct{ ID string } }
			}
		}
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	fine := regexp.MustCompile(`^(Apache-2\.0|MIT|ISC|0BSD|BSD-[23]-Clause|BSD-Source-Code|MPL-2\.0)$`)
	// Its licence is "BSD-3-Clause OR GPL-2.0-only", of which we take the first. The tool
	// sees the second.
	const either = "kernel.org/pub/linux/libs/security/libcap/psx"
	var got []string
	for _, c := range list.Components {
		if c.Name == "std" {
			continue
		}
		got = append(got, c.Name+" "+c.Version)
		if len(c.Evidence.Licenses) == 0 {
			t.Errorf("%s: no licence is known", c.Name)
		}
		for _, l := range c.Evidence.Licenses {
			if !fine.MatchString(l.License.ID) && c.Name != either {
				t.Errorf("%s: licence %s", c.Name, l.License.ID)
			}
		}
	}
	dir := t.TempDir()
	runProgram(t, "tar", "-xzf", r.file(t, "*.tar.gz"), "-C", dir, "--strip-components=1")
	licences, err := os.ReadFile(filepath.Join(dir, "third-party-licenses.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for line := range strings.Lines(runProgram(t, "go", "version", "-m", filepath.Join(dir, "oddcert"))) {
		if f := strings.Fields(line); len(f) >= 3 && f[0] == "dep" {
			want = append(want, f[1]+" "+f[2])
			if !bytes.Contains(licences, []byte("\n"+f[1]+" "+f[2]+": ")) {
				t.Errorf("third-party-licenses.txt lacks %s", f[1])
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || len(want) == 0 {
		t.Errorf("components are\n%q\nthe binary has\n%q", got, want)
	}
}

// TestManual holds the pages against two formatters.
func TestManual(t *testing.T) {
	r := releaseOf(t, "1.0.0")
	dir := t.TempDir()
	runProgram(t, "tar", "-xzf", r.file(t, "*.tar.gz"), "-C", dir, "--strip-components=1")
	pages, err := filepath.Glob(filepath.Join(dir, "man", "*"))
	if err != nil || len(pages) < 10 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		if out := runProgram(t, "mandoc", "-T", "lint", "-W", "warning", page); out != "" {
			t.Error(out)
		}
	}
	for _, page := range pages {
		cmd := exec.Command("groff", "-ww", "-man", "-Tutf8", "-Kutf8", "-z", page)
		if cmd.Err != nil {
			t.Skip("groff is not installed")
		}
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v: %s", page, err, out)
		}
	}
}

// TestDeb has lintian look at the package.
func TestDeb(t *testing.T) {
	r := releaseOf(t, "1.0.0")
	out := runProgram(t, "lintian", "--allow-root", "--no-tag-display-limit", "--fail-on=none", "--display-level=>=warning", r.file(t, "*.deb"))
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "E: ") || strings.HasPrefix(line, "W: ") {
			t.Error(line)
		}
	}
}

// TestRPM has rpm and rpmlint look at the package, and compares it with the .deb.
func TestRPM(t *testing.T) {
	r := releaseOf(t, "1.0.0")
	rpm := r.file(t, "*.rpm")
	if out := runProgram(t, "rpm", "-K", "--nosignature", rpm); !strings.HasSuffix(strings.TrimSpace(out), "digests OK") {
		t.Error(out)
	}
	// It is not signed, its program is static, nfpm marks no files as documentation, the
	// units are in /usr/lib: rpmlint may say so.
	lint := exec.Command("rpmlint", rpm)
	usual := regexp.MustCompile(`: [EW]: (no-signature|not-listed-as-documentation|no-documentation|manpage-not-compressed|invalid-license|statically-linked-binary|files-duplicate|only-non-binary-in-usr-lib|position-independent-executable-suggested|no-manual-page-for-binary)\b`)
	if lint.Err == nil {
		// It unpacks the package, and below / where names of files are absolute.
		if names := runProgram(t, "sh", "-c", "rpm2cpio "+rpm+" | cpio --list --quiet"); strings.HasPrefix(names, "/") || strings.Contains(names, "\n/") {
			t.Fatalf("the names of files are absolute:\n%s", names)
		}
		out, _ := lint.CombinedOutput() // its status counts errors
		for line := range strings.Lines(string(out)) {
			if (strings.Contains(line, ": E: ") || strings.Contains(line, ": W: ")) && !usual.MatchString(line) {
				t.Error(line)
			}
		}
	}
	// Path, size, time, digest, mode, owner, group, configuration, documentation.
	files := map[string][]string{}
	for line := range strings.Lines(runProgram(t, "rpm", "-qp", "--dump", rpm)) {
		f := strings.Fields(line)
		files[f[0]] = f
		if f[5] != "root" || f[6] != "root" {
			t.Errorf("owner: %s", line)
		}
	}
	for name, f := range files {
		if configuration := name == "/etc/oddcert/oddcert.yaml"; (f[7] == "1") != configuration {
			t.Errorf("configuration: %q", f)
		}
	}
	if len(files) == 0 || files["/etc/oddcert/oddcert.yaml"] == nil || files["/usr/bin/oddcert"][4] != "0100755" {
		t.Errorf("%q", files)
	}
	flags := runProgram(t, "rpm", "-qp", "--queryformat", `[%{FILENAMES} %{FILEFLAGS:fflags}\n]`, rpm)
	if !strings.Contains(flags, "/etc/oddcert/oddcert.yaml cn\n") {
		t.Errorf("oddcert.yaml is not noreplace: %s", flags)
	}
	// Both packages have the same files, but for the places that distributions differ in.
	var theirs []string
	deb := exec.Command("sh", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -t`, "sh", r.file(t, "*.deb"))
	list, err := deb.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		if name := strings.TrimPrefix(strings.TrimSpace(line), "."); !strings.HasSuffix(name, "/") {
			theirs = append(theirs, name)
		}
	}
	differ := regexp.MustCompile(`^/usr/share/(zsh|lintian|licenses|doc/oddcert/(copyright|changelog))`)
	for _, name := range theirs {
		if files[name] == nil && !differ.MatchString(name) {
			t.Errorf("the .rpm lacks %s", name)
		}
	}
	for name, f := range files {
		if strings.HasPrefix(f[4], "0100") && !slices.Contains(theirs, name) && !differ.MatchString(name) {
			t.Errorf("the .deb lacks %s", name)
		}
	}

}

// TestScripts holds that the shells of distributions can read the maintainer scripts.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("../nfpm/*/*")
	if err != nil || len(scripts) != 7 {
		t.Fatalf("%q, %v", scripts, err)
	}
	for _, script := range scripts {
		for _, shell := range []string{"sh", "bash"} {
			runProgram(t, shell, "-n", script)
		}
	}
}

// TestUnits holds that the unit and its template differ only in what an instance has of
// its own, and that systemd finds little that either exposes.
func TestUnits(t *testing.T) {
	own := regexp.MustCompile(`^(Description|Environment|EnvironmentFile|ExecStart|StateDirectory|LogsDirectory|SyslogIdentifier)=`)
	var common [2][]string
	for i, name := range []string{"oddcert.service", "oddcert@.service"} {
		text, err := os.ReadFile("../systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "#") && !own.MatchString(line) {
				common[i] = append(common[i], line)
			}
		}
	}
	if !slices.Equal(common[0], common[1]) {
		t.Errorf("the unit has\n%q\nand the template\n%q", common[0], common[1])
	}
	for _, name := range []string{"oddcert.service", "oddcert@.service"} {
		runProgram(t, "systemd-analyze", "security", "--offline=yes", "--threshold=20", "../systemd/"+name) // 2.0
	}
}
