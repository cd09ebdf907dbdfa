package logfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
)

// record returns the n-th of some records.
func record(n int) *output.Record {
	id := fmt.Sprintf("%032x", n)
	return &output.Record{
		Dataset: output.Handshake, ID: id, Time: time.Date(2026, 11, 29, 0, 0, n, 0, time.UTC).UnixNano(),
		JSON: fmt.Appendf(nil, `{"event":{"id":"%s"},"pad":"%s"}`, id, strings.Repeat("x", n%300)),
	}
}

func records(from, n int) (all []*output.Record) {
	for i := range n {
		all = append(all, record(from+i))
	}
	return all
}

func open(t *testing.T, cfg Config, f Format) *Destination {
	t.Helper()
	d, err := New(cfg, f, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// send sends records and returns how many had each fate.
func send(t *testing.T, d *Destination, all []*output.Record) map[delivery.Fate]int {
	t.Helper()
	verdicts := make([]delivery.Verdict, len(all))
	if tr := d.Send(t.Context(), all, verdicts); tr != nil {
		t.Fatalf("send: %v", tr.Err)
	}
	return fates(verdicts)
}

func fates(verdicts []delivery.Verdict) map[delivery.Fate]int {
	n := map[delivery.Fate]int{}
	for _, v := range verdicts {
		n[v.Fate]++
	}
	return n
}

// idsIn returns the ids of the records in files, in order, and fails for a line that
// is no record.
func idsIn(t *testing.T, paths ...string) (ids []string) {
	t.Helper()
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			var r struct{ Event struct{ ID string } }
			if err := json.Unmarshal([]byte(line), &r); err != nil || !strings.HasSuffix(line, "\n") || r.Event.ID == "" {
				t.Fatalf("%s has the line %q: %v", path, line, err)
			}
			ids = append(ids, r.Event.ID)
		}
	}
	return ids
}

// wantIDs fails unless ids are those of n records, each once and in order.
func wantIDs(t *testing.T, ids []string, n int) {
	t.Helper()
	for i, id := range ids {
		if want := record(i).ID; id != want {
			t.Fatalf("at %d is %s, want %s", i, id, want)
		}
	}
	if len(ids) != n {
		t.Fatalf("%d records are there, want %d", len(ids), n)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// logs is a format of two files with headers and footers: each record is in one or
// in both.
type logs struct{}

func (logs) Files() []File {
	header := func(at time.Time) []byte { return at.UTC().AppendFormat(nil, "#open\t2006-01-02-15-04-05\n") }
	footer := func(at time.Time) []byte { return at.UTC().AppendFormat(nil, "#close\t2006-01-02-15-04-05\n") }
	return []File{{Name: "a.log", Header: header, Footer: footer}, {Name: "b.log", Header: header, Footer: footer}}
}

func (logs) Format(r *output.Record, emit func(int, []byte)) error {
	switch r.Dataset {
	case output.Stats:
		return nil
	case output.Hello:
		emit(0, []byte("never"))
		return errors.New("no such hello")
	}
	emit(0, []byte(r.ID))
	if r.Time/1e9%2 == 0 {
		emit(1, []byte(r.ID))
	}
	return nil
}

func TestFates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	d := open(t, Config{Path: dir}, logs{})
	all := records(0, 4)
	all[1].Dataset, all[2].Dataset = output.Stats, output.Hello
	verdicts := make([]delivery.Verdict, 4)
	if tr := d.Send(t.Context(), all, verdicts); tr != nil {
		t.Fatal(tr.Err)
	}
	want := []delivery.Verdict{
		{Fate: delivery.Delivered}, {Fate: delivery.Skipped}, {Fate: delivery.Dead, Reason: "no such hello"}, {Fate: delivery.Delivered},
	}
	if !slices.Equal(verdicts, want) {
		t.Errorf("verdicts %v", verdicts)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(filepath.Join(dir, "a.log"))
	lines := strings.Split(string(a), "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[0], "#open\t") || lines[1] != all[0].ID || lines[2] != all[3].ID || !strings.HasPrefix(lines[3], "#close\t") {
		t.Errorf("a.log has %q", a)
	}
}

// TestAgain sends all records again to a destination that starts anew, as after a
// crash that kept them from being settled.
func TestAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.json")
	d := open(t, Config{Path: path}, JSON{})
	send(t, d, records(0, 100))
	// A second one must not write to the same file.
	if _, err := New(Config{Path: path}, JSON{}, nil); !errors.Is(err, ownfile.ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, Config{Path: path}, JSON{})
	if n := send(t, d, records(50, 100)); n[delivery.Duplicate] != 50 || n[delivery.Delivered] != 50 {
		t.Errorf("fates %v", n)
	}
	wantIDs(t, idsIn(t, path), 150)
}

// TestTornAnywhere cuts the file at each offset: what is left of a line is cut off,
// and the record is written again.
func TestTornAnywhere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "records.json")
	var whole []byte
	for i := range 5 {
		whole = append(append(whole, record(i).JSON...), '\n')
	}
	for cut := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		d := open(t, Config{Path: path}, JSON{})
		send(t, d, records(0, 5))
		d.Close()
		if b, _ := os.ReadFile(path); !bytes.Equal(b, whole) {
			t.Fatalf("cut at %d: %q", cut, b)
		}
	}
	// The same with headers: both files of the format are cut.
	d := open(t, Config{Path: filepath.Join(dir, "logs")}, logs{})
	send(t, d, records(0, 5))
	for _, f := range d.files {
		f.close()
	}
	a, b := filepath.Join(dir, "logs", "a.log"), filepath.Join(dir, "logs", "b.log")
	wholeA, _ := os.ReadFile(a)
	wholeB, _ := os.ReadFile(b)
	for cut := range len(wholeA) + 1 {
		os.WriteFile(a, wholeA[:cut], 0o600)
		os.WriteFile(b, wholeB[:min(cut, len(wholeB))], 0o600)
		d := open(t, Config{Path: filepath.Join(dir, "logs")}, logs{})
		send(t, d, records(0, 5))
		for _, f := range d.files {
			f.close()
		}
		gotA, _ := os.ReadFile(a)
		gotB, _ := os.ReadFile(b)
		_, bodyA, _ := bytes.Cut(gotA, []byte("\n"))
		_, bodyB, _ := bytes.Cut(gotB, []byte("\n"))
		if !bytes.HasPrefix(gotA, []byte("#open\t")) || !bytes.HasSuffix(wholeA, bodyA) || len(gotA) != len(wholeA) ||
			!bytes.HasPrefix(gotB, []byte("#open\t")) || !bytes.HasSuffix(wholeB, bodyB) || len(gotB) != len(wholeB) {
			t.Fatalf("cut at %d: %q, %q", cut, gotA, gotB)
		}
	}
}

// TestForeignFile leaves the last line of somebody's text as it is.
func TestForeignFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes")
	for _, text := range []string{"a note", "{}", `{"complete":true}`, "{a note}"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d := open(t, Config{Path: path}, JSON{})
		d.Close()
		if b, _ := os.ReadFile(path); string(b) != text+"\n" {
			t.Errorf("%q became %q", text, b)
		}
	}
}

// TestMoved moves and deletes the file between batches, as log rotation does.
func TestMoved(t *testing.T) {
	dir := t.TempDir()
	path, old := filepath.Join(dir, "records.json"), filepath.Join(dir, "records.json.1")
	d := open(t, Config{Path: path}, JSON{})
	send(t, d, records(0, 10))
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	d.Reopen()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o137 != 0 {
		t.Errorf("after Reopen: %v, %v", info, err)
	}
	send(t, d, records(10, 10))
	wantIDs(t, idsIn(t, old, path), 20)
	// Without a signal too.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	send(t, d, records(20, 10))
	if ids := idsIn(t, path); len(ids) != 10 || ids[0] != record(20).ID {
		t.Errorf("after it was deleted: %v", ids)
	}
	// A crash right after a rotation: the records that come again are in the old file.
	d.Close()
	os.Remove(old)
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	d = open(t, Config{Path: path}, JSON{})
	if n := send(t, d, records(20, 11)); n[delivery.Duplicate] != 10 {
		t.Errorf("fates %v", n)
	}
}

// TestLogrotate has logrotate rotate the file in its two ways.
func TestLogrotate(t *testing.T) {
	logrotate, err := exec.LookPath("logrotate")
	if err != nil {
		t.Skip("logrotate is not installed")
	}
	for _, style := range []string{"create", "nocreate", "copytruncate"} {
		t.Run(style, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "records.json")
			rules := filepath.Join(dir, "rules")
			if err := os.WriteFile(rules, []byte(path+" {\n rotate 10\n "+style+"\n}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			d := open(t, Config{Path: path}, JSON{})
			for i := range 4 {
				send(t, d, records(i*10, 10))
				if i == 3 {
					break
				}
				cmd := exec.Command(logrotate, "--force", "--state", filepath.Join(dir, "state"), rules)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("logrotate: %v\n%s", err, out)
				}
			}
			wantIDs(t, idsIn(t, path+".3", path+".2", path+".1", path), 40)
		})
	}
}

// TestRotate rotates by size, more often than once a second, and keeps some files.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Path: filepath.Join(dir, "records.json"), RotateSize: minRotateSize}
	other := filepath.Join(dir, "records-of-mine.json")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const rounds, n = 4, 8000
	for round := range rounds {
		if round == rounds-1 {
			cfg.Keep = 3
		}
		d := open(t, cfg, JSON{})
		for i := range 8 {
			send(t, d, records(round*n+i*n/8, n/8))
		}
		d.Close()
	}
	var ids []string
	rotated := glob(t, filepath.Join(dir, "records-2*Z*.json"))
	slices.SortFunc(rotated, func(a, b string) int { return strings.Compare(order(a), order(b)) })
	if len(rotated) != 3 {
		t.Fatalf("kept %v", rotated)
	}
	for _, path := range append(rotated, cfg.Path) {
		info, err := os.Stat(path)
		if err != nil || info.Size() > minRotateSize {
			t.Errorf("%s: %v, %v", path, info, err)
		}
		ids = append(ids, idsIn(t, path)...)
	}
	// The newest are kept, without a gap, up to the last record.
	for i, id := range ids {
		if want := record(rounds*n - len(ids) + i).ID; id != want {
			t.Fatalf("at %d of %d is %s, want %s", i, len(ids), id, want)
		}
	}
	if _, err := os.Stat(other); err != nil {
		t.Error("removed a file of somebody else")
	}
}

// order makes the names of rotated files sort by number too.
func order(path string) string {
	name := strings.TrimSuffix(path, ".json")
	at, n, _ := strings.Cut(name, "Z")
	return fmt.Sprintf("%s%08s", at, strings.TrimPrefix(n, "."))
}

func TestRotateByAge(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Path: dir, RotateAge: 24 * time.Hour}
	d := open(t, cfg, logs{})
	send(t, d, records(0, 10))
	a := filepath.Join(dir, "a.log")
	yesterday := time.Now().Add(-24 * time.Hour)
	d.files[0].wrote = yesterday
	send(t, d, records(10, 10))
	rotated := glob(t, filepath.Join(dir, "a-*Z.log"))
	if len(rotated) != 1 || len(glob(t, filepath.Join(dir, "b-*"))) != 0 {
		t.Fatalf("rotated %v", rotated)
	}
	old, _ := os.ReadFile(rotated[0])
	if lines := strings.Split(string(old), "\n"); len(lines) != 13 || !strings.HasPrefix(lines[11], "#close\t") {
		t.Errorf("rotated: %q", old)
	}
	// The time of the last write survives a restart; what was ended begins anew.
	d.Close()
	if got := len(glob(t, filepath.Join(dir, "a-*Z*.log"))); got != 1 {
		t.Errorf("%d rotated files after Close", got)
	}
	d = open(t, cfg, logs{})
	if got := len(glob(t, filepath.Join(dir, "a-*Z*.log"))); got != 2 {
		t.Errorf("%d rotated files after a start", got)
	}
	if n := send(t, d, records(10, 10)); n[delivery.Duplicate] != 10 {
		t.Errorf("fates %v", n)
	}
	for _, f := range d.files {
		f.close() // without a footer, as a crash does
	}
	os.Chtimes(a, yesterday, yesterday)
	d = open(t, cfg, logs{})
	send(t, d, records(20, 1))
	if got := len(glob(t, filepath.Join(dir, "a-*Z*.log"))); got != 2 {
		t.Errorf("%d rotated files: one that holds only its header was rotated", got)
	}
}

// TestFolderGone removes the folder, and makes it read-only, and repairs that.
func TestFolderGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "records.json")
	d := open(t, Config{Path: path}, JSON{})
	send(t, d, records(0, 10))
	away := dir + ".away"
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	verdicts := make([]delivery.Verdict, 10)
	for range 2 {
		tr := d.Send(t.Context(), records(10, 10), verdicts)
		if tr == nil || !errors.Is(tr.Err, fs.ErrNotExist) || tr.Class != syscall.ENOENT.Error() || fates(verdicts)[delivery.Again] != 10 {
			t.Fatalf("trouble %v, %v", tr, verdicts)
		}
	}
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	send(t, d, records(10, 10))
	wantIDs(t, idsIn(t, path), 20)
}

func TestReplay(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "records.json")
	if err := os.WriteFile(path, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Path: link, Replay: true}
	d := open(t, cfg, JSON{})
	send(t, d, records(0, 10))
	if b, _ := os.ReadFile(path); string(b) != "old\n" {
		t.Errorf("before Commit: %q", b)
	}
	if got := d.Part(); got != path+".part" {
		t.Errorf("part %q", got)
	}
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, idsIn(t, path), 10)
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("the link became %v, %v", info, err)
	}
	// The same records again are not duplicates, and an abandoned run leaves its part.
	d = open(t, cfg, JSON{})
	if n := send(t, d, records(0, 10)); n[delivery.Delivered] != 10 {
		t.Errorf("fates %v", n)
	}
	d.Close()
	wantIDs(t, idsIn(t, path+".part"), 10)
	// Appended.
	d = open(t, Config{Path: path, Replay: true, Append: true}, JSON{})
	send(t, d, records(10, 10))
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, idsIn(t, path), 20)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	// A run without records leaves no part behind, but an empty result with Commit.
	d = open(t, cfg, JSON{})
	d.Close()
	if _, err := os.Stat(path + ".part"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty part: %v", err)
	}
	d = open(t, cfg, JSON{})
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, idsIn(t, path), 0)
}

// TestReplayIsTheSame writes several files twice: headers and footers have the times
// of records.
func TestReplayIsTheSame(t *testing.T) {
	dir := t.TempDir()
	var all [2]string
	for i := range all {
		d := open(t, Config{Path: dir, Replay: true}, logs{})
		for at := range 10 {
			send(t, d, records(at*10, 10))
		}
		if err := d.Commit(); err != nil {
			t.Fatal(err)
		}
		a, _ := os.ReadFile(filepath.Join(dir, "a.log"))
		b, _ := os.ReadFile(filepath.Join(dir, "b.log"))
		all[i] = string(a) + string(b)
	}
	if all[0] != all[1] || !strings.HasPrefix(all[0], "#open\t2026-11-29-00-00-00\n") || !strings.HasSuffix(all[0], "#close\t2026-11-29-00-01-39\n") {
		t.Errorf("first %q\nthen %q", all[0], all[1])
	}
}

// TestInputs refuses to write to what a replay reads.
func TestInputs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.pcap")
	for _, name := range []string{path, path + ".part"} {
		if err := os.WriteFile(name, []byte("\xd4\xc3\xb2\xa1"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, input := range []string{name, dir} {
			if _, err := New(Config{Path: path, Replay: true, Inputs: []string{input}}, JSON{}, nil); err == nil {
				t.Errorf("would write to %s, which is read by %s", name, input)
			}
		}
		if b, _ := os.ReadFile(name); len(b) != 4 {
			t.Errorf("%s has %q", name, b)
		}
		os.Remove(name)
	}
	records := filepath.Join(dir, "records.json")
	os.WriteFile(records, []byte(`{"a":1}`+"\n"), 0o600)
	open(t, Config{Path: records, Replay: true, Inputs: []string{dir}}, JSON{})
}

func TestValidate(t *testing.T) {
	bad := Config{Mode: 0o440, RotateSize: 100, RotateAge: time.Second, Keep: -1}
	var settings []string
	for _, err := range bad.Validate().(interface{ Unwrap() []error }).Unwrap() {
		var c *endpoint.ConfigError
		if !errors.As(err, &c) {
			t.Fatal(err)
		}
		settings = append(settings, c.Setting)
	}
	if want := []string{"path", "mode", "rotate_size", "rotate_age", "keep"}; !slices.Equal(settings, want) {
		t.Errorf("wrong are %v", settings)
	}
	good := Config{Path: "x", Mode: 0o644, RotateSize: 1 << 30, RotateAge: time.Hour, Keep: 10}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	if err := (&Config{Path: "x", Keep: 1}).Validate(); err == nil {
		t.Error("keep without rotation passes")
	}
	if _, err := New(Config{Path: t.TempDir()}, JSON{}, nil); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("a folder as a file: %v", err)
	}
}

func TestIsRotated(t *testing.T) {
	for name, want := range map[string]bool{
		"eve-20261129T070000Z.json": true, "eve-20261129T070000Z.1.json": true, "eve.json.1": true, "eve.json-20261129": true,
		"eve.json": false, "eve.json.part": false, "eve-alerts.json": false, "eve-": false, "eves.json.1": false,
	} {
		if got := isRotated(name, "eve.json"); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := rotatedName("/log/alerts", time.Date(2026, 11, 29, 7, 0, 0, 0, time.UTC), 2); got != "/log/alerts-20261129T070000Z.2" {
		t.Errorf("without an extension: %s", got)
	}
}

func BenchmarkSend(b *testing.B) {
	for _, replay := range []bool{false, true} {
		b.Run(fmt.Sprintf("replay=%v", replay), func(b *testing.B) {
			d, err := New(Config{Path: filepath.Join(b.TempDir(), "records.json"), Replay: replay}, JSON{}, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			all := records(0, 1000)
			verdicts := make([]delivery.Verdict, len(all))
			size := 0
			for _, r := range all {
				r.JSON = bytes.Repeat([]byte("x"), 3000)
				size += len(r.JSON)
			}
			b.SetBytes(int64(size))
			for b.Loop() {
				if tr := d.Send(b.Context(), all, verdicts); tr != nil {
					b.Fatal(tr.Err)
				}
			}
		})
	}
}
