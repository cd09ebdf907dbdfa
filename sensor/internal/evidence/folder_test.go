package evidence

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

var testRule = &rules.Rule{ID: "r", Title: "A title\x1b[31m \u202e", Version: "1", Level: "high", RiskScore: 50, Text: "title: A title"}

// found is a finding with n alerts, the numbers of which begin with first.
func found(first, n int) *finding.Finding {
	der := []byte("a certificate")
	c := &cert.Certificate{DER: der, SHA256: sha256.Sum256(der)}
	flow := &event.Flow{
		Transport: event.TCP, Start: 1e18, Origin: &event.Origin{Path: "a.pcap"},
		Endpoints: [2]event.Endpoint{{Addr: netip.MustParseAddr("192.0.2.1"), Port: 40000}, {Addr: netip.MustParseAddr("192.0.2.2"), Port: 443}},
	}
	f := &finding.Finding{Handshake: &event.Handshake{
		Flow: flow, Carrier: "tls", Start: event.Moment{Time: 1e18, Frame: 1}, Certificate: event.Moment{Time: 1e18 + 1, Frame: 2},
		End: event.Moment{Time: 1e18 + 2, Frame: 3}, Chain: []event.ChainEntry{{Certificate: c}},
	}}
	for i := range n {
		id := fmt.Sprintf("%032x", first+i)
		record := fmt.Sprintf(`{"event":{"id":"%s"},"rule":{"id":"r","version":"1","name":"A title"},"tls":{"server":{"hash":{"sha256":"%X"}}}}`, id, c.SHA256)
		f.Alerts = append(f.Alerts, finding.Alert{ID: id, Match: &rules.Match{Rule: testRule, Reason: "Because.", Reasons: []string{"It is so."}}, Record: []byte(record)})
	}
	return f
}

// flowFrames are the three frames of the handshake of found.
func flowFrames() (list []frames.Frame) {
	for i := range 3 {
		list = append(list, frames.Frame{
			Origin: &event.Origin{Path: "a.pcap"}, Number: uint64(i + 1), Time: 1e18 + int64(i), Length: 60, LinkType: linktype.Ethernet,
			Data: bytes.Repeat([]byte{byte(i)}, 60),
		})
	}
	return list
}

// cutAll gives all flows the frames of flowFrames.
func cutAll(_ context.Context, flows []frames.Flow, each func(*frames.Frame, []int) error) error {
	of := make([]int, len(flows))
	for i := range of {
		of[i] = i
	}
	for _, f := range flowFrames() {
		if err := each(&f, of); err != nil {
			return err
		}
	}
	return nil
}

// warnings are what a collector has said.
type warnings struct {
	mu   sync.Mutex
	list []string
}

func (w *warnings) warn(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, err.Error())
}

func collector(t testing.TB, dir string, zip bool, size int64, key *Key) (*Collector, *warnings) {
	t.Helper()
	f, err := OpenFolder(dir, zip, size, key)
	if err != nil {
		t.Fatal(err)
	}
	w := new(warnings)
	return NewCollector(Config{
		Folder: f, Sensor: Sensor{Name: "test"}, Warn: w.warn,
		Losses: func() Losses { return Losses{Lost: map[string]uint64{"capture.dropped": 3}} },
		Hash:   func(context.Context, string) (string, int64, error) { return strings.Repeat("ab", 32), 4711, nil },
	}), w
}

// packs writes n packs into a folder, in archives or not, and returns the folder.
func packs(t testing.TB, n int, zip bool, key *Key) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "evidence")
	c, w := collector(t, dir, zip, DefaultSize, key)
	c.See(found(0, n))
	if err := c.Look(t.Context(), cutAll); err != nil {
		t.Fatal(err)
	}
	if s := c.Stats(); s.Packs != uint64(n) || s.Waiting != 0 || len(w.list) > 0 {
		t.Fatalf("%+v, %q", s, w.list)
	}
	return dir
}

// wrong is what Verify says is wrong.
func wrong(t testing.TB, path string, o VerifyOptions) (all []string) {
	t.Helper()
	r, err := Verify(t.Context(), path, o)
	if err != nil {
		return []string{err.Error()}
	}
	for _, p := range r.Packs {
		all = append(all, p.Problems...)
	}
	return append(all, r.Problems...)
}

// TestPacks has packs that are good, in folders and in archives, signed or not, checked
// here and by sha256sum and ssh-keygen.
func TestPacks(t *testing.T) {
	key, err := ReadKey(keygen(t, "-t", "ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	for _, zip := range []bool{false, true} {
		for _, key := range []*Key{nil, key} {
			dir := packs(t, 3, zip, key)
			r, err := Verify(t.Context(), dir, VerifyOptions{})
			if err != nil || r.Wrong() > 0 || len(r.Packs) != 3 || r.Chain != 3 || r.Head == "" {
				t.Fatalf("%+v, %v", r, err)
			}
			for i, p := range r.Packs {
				if p.ID != fmt.Sprintf("%032x", i) || p.Title != "A title" || (key != nil) != (p.SignedBy != "") {
					t.Errorf("%+v", p)
				}
				if w := wrong(t, p.Path, VerifyOptions{}); len(w) > 0 {
					t.Errorf("%s alone: %q", p.Path, w)
				}
			}
			info, err := os.Stat(dir)
			if err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			pack := r.Packs[1].Path
			if zip {
				program, err := exec.LookPath("unzip")
				if err != nil {
					continue
				}
				pack = t.TempDir()
				if out, err := exec.Command(program, "-q", r.Packs[1].Path, "-d", pack).CombinedOutput(); err != nil {
					t.Fatalf("unzip: %v %s", err, out)
				}
			}
			if text := read(t, filepath.Join(pack, textName)); bytes.ContainsAny(text, "\x1b\u202e") || !bytes.Contains(text, []byte(`A title\x1b[31m \u202e`)) {
				t.Errorf("the text is %q", text)
			}
			check := exec.Command("sha256sum", "--strict", "-c", sumsName)
			check.Dir = pack
			if out, err := check.CombinedOutput(); err != nil && !errors.Is(err, exec.ErrNotFound) {
				t.Errorf("sha256sum: %v %s", err, out)
			}
			if key != nil {
				sshKeygen(t, read(t, filepath.Join(pack, manifestName)), "-Y", "check-novalidate", "-n", Namespace, "-s", filepath.Join(pack, signatureName))
			}
		}
	}
}

// TestFlip names each bit that is flipped in a pack, whichever file it is in, and each
// that is flipped in an archive or in the chain.
func TestFlip(t *testing.T) {
	key, err := ReadKey(keygen(t, "-t", "ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	dir := packs(t, 1, false, key)
	id := fmt.Sprintf("%032x", 0)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	files, err := readPack(root, id)
	if err != nil {
		t.Fatal(err)
	}
	bits := 0
	for i := range files {
		data := files[i].data
		for at := range data {
			changed := bytes.Clone(data)
			changed[at] ^= 1 << (at % 8)
			files[i].data = changed
			if p := check(t.Context(), "p", id, files, nil, VerifyOptions{}); len(p.Problems) == 0 || !strings.Contains(strings.Join(p.Problems, "\n"), strings.TrimSuffix(files[i].name, ".sig")) &&
				files[i].name != manifestName {
				t.Fatalf("%s, byte %d: %q", files[i].name, at, p.Problems)
			}
			bits++
		}
		files[i].data = data
	}
	archive, err := archived(files)
	if err != nil {
		t.Fatal(err)
	}
	for at := range archive {
		changed := bytes.Clone(archive)
		changed[at] ^= 1 << (at % 8)
		files, err := unarchived(changed)
		if p := check(t.Context(), "p", id, files, err, VerifyOptions{}); len(p.Problems) == 0 {
			t.Fatalf("byte %d of the archive", at)
		}
		bits++
	}
	chain := filepath.Join(dir, chainName)
	text := read(t, chain)
	for at := range text {
		changed := bytes.Clone(text)
		changed[at] ^= 1 << (at % 8)
		write(t, chain, changed)
		if w := wrong(t, dir, VerifyOptions{}); len(w) == 0 {
			t.Fatalf("byte %d of the chain", at)
		}
		bits++
	}
	t.Logf("%d bits were flipped", bits)
}

// TestChain names packs that were taken out, added, exchanged or renamed.
func TestChain(t *testing.T) {
	id := func(i int) string { return fmt.Sprintf("%032x", i) }
	line := func(t *testing.T, dir string, without int) {
		lines := strings.SplitAfter(string(read(t, filepath.Join(dir, chainName))), "\n")
		write(t, filepath.Join(dir, chainName), []byte(strings.Join(slices.Delete(lines, without, without+1), "")))
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		want   string
	}{
		"removed":   {func(t *testing.T, dir string) { os.RemoveAll(filepath.Join(dir, id(1))) }, "the pack " + id(1) + " is missing: line 2"},
		"unchained": {func(t *testing.T, dir string) { line(t, dir, 1) }, "the chain does not have it"},
		"both": {func(t *testing.T, dir string) { line(t, dir, 1); os.RemoveAll(filepath.Join(dir, id(1))) },
			"line 2 of the chain does not follow"},
		"renamed": {func(t *testing.T, dir string) {
			os.Rename(filepath.Join(dir, id(1)), filepath.Join(dir, id(7)))
		}, "has the name of another"},
		"exchanged": {func(t *testing.T, dir string) {
			os.Rename(filepath.Join(dir, id(1)), filepath.Join(dir, "x"))
			os.Rename(filepath.Join(dir, id(2)), filepath.Join(dir, id(1)))
			os.Rename(filepath.Join(dir, "x"), filepath.Join(dir, id(2)))
		}, "is not the one of line 2"},
		"reordered": {func(t *testing.T, dir string) {
			lines := strings.SplitAfter(string(read(t, filepath.Join(dir, chainName))), "\n")
			lines[0], lines[1] = lines[1], lines[0]
			write(t, filepath.Join(dir, chainName), []byte(strings.Join(lines, "")))
		}, "does not follow"},
		"added":  {func(t *testing.T, dir string) { write(t, filepath.Join(dir, id(1), "more"), nil) }, `"more" is not in the manifest`},
		"a file": {func(t *testing.T, dir string) { write(t, filepath.Join(dir, "more"), nil) }, `"more" is not a pack`},
		"less":   {func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, id(1), captureName)) }, captureName + " is missing"},
		"a link": {func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, id(1), captureName))
			os.Symlink("/etc/passwd", filepath.Join(dir, id(1), captureName))
		}, captureName + " has 0 bytes"},
		"manifest": {func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, id(1), manifestName)) }, manifestName + " is missing"},
		"no chain": {func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, chainName)) }, "the chain cannot be read"},
		"a folder": {func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, chainName))
			os.Mkdir(filepath.Join(dir, chainName), 0o700)
		}, "the chain cannot be read: it is not a file"},
		"long line": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, chainName), append(bytes.Repeat([]byte{'0'}, 3*maxLine), read(t, filepath.Join(dir, chainName))...))
		}, "line 1 of the chain cannot be read"},
		"endless":   {func(t *testing.T, dir string) { os.Truncate(filepath.Join(dir, chainName), maxChain+1) }, "the chain cannot be read: it has"},
		"cut chain": {func(t *testing.T, dir string) { os.Truncate(filepath.Join(dir, chainName), 400) }, "line 3 of the chain cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := packs(t, 3, false, nil)
			c.change(t, dir)
			if w := strings.Join(wrong(t, dir, VerifyOptions{}), "\n"); !strings.Contains(w, c.want) {
				t.Errorf("%s\nhas not %q", w, c.want)
			}
		})
	}
}

// TestSigned names a pack that somebody else has signed, or nobody any more.
func TestSigned(t *testing.T) {
	file := keygen(t, "-t", "ed25519")
	key, err := ReadKey(file)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ReadKey(keygen(t, "-t", "ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	allowed := write(t, filepath.Join(t.TempDir(), "allowed"), append([]byte("me "), read(t, file+".pub")...))
	signers, err := ReadSigners(allowed)
	if err != nil {
		t.Fatal(err)
	}
	o := VerifyOptions{Signers: signers}
	if w := wrong(t, packs(t, 1, false, key), o); len(w) > 0 {
		t.Errorf("%q", w)
	}
	for name, c := range map[string]struct {
		dir, want string
	}{
		"of another key": {packs(t, 1, false, other), "not one of the allowed signers"},
		"not signed":     {packs(t, 1, false, nil), "it is not signed"},
	} {
		if w := strings.Join(wrong(t, c.dir, o), "\n"); !strings.Contains(w, c.want) {
			t.Errorf("%s: %s", name, w)
		}
	}
	dir := packs(t, 1, false, key)
	if err := os.Remove(filepath.Join(dir, fmt.Sprintf("%032x", 0), signatureName)); err != nil {
		t.Fatal(err)
	}
	if w := strings.Join(wrong(t, dir, VerifyOptions{}), "\n"); !strings.Contains(w, signatureName+" is missing") {
		t.Errorf("%s", w)
	}
}

// TestFolder names a folder that cannot be used, and touches nothing in it.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	link, file, open := filepath.Join(dir, "link"), filepath.Join(dir, "file"), filepath.Join(dir, "open")
	for _, err := range []error{os.Mkdir(target, 0o700), os.Symlink(target, link), os.WriteFile(file, nil, 0o600), os.Mkdir(open, 0o700), os.Chmod(open, 0o777)} {
		if err != nil {
			t.Skip(err)
		}
	}
	linked := filepath.Join(dir, "linked")
	if err := errors.Join(os.Mkdir(linked, 0o700), os.Symlink(file, filepath.Join(linked, chainName))); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		link: "it is a symbolic link", file: "it is not a folder", open: "others can write to it",
		filepath.Join(dir, "a", "b"): "no such file", linked: "is not a file",
	} {
		_, err := OpenFolder(path, false, DefaultSize, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
		if checked := CheckFolder(path); path != linked && (checked == nil || !strings.Contains(checked.Error(), want)) {
			t.Errorf("check %s: %v, want %q", path, checked, want)
		}
	}
	if list, err := os.ReadDir(target); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestAgain leaves packs as they are that are there already, and counts them.
func TestAgain(t *testing.T) {
	for _, zip := range []bool{false, true} {
		dir := packs(t, 2, zip, nil)
		before := tree(t, dir)
		c, w := collector(t, dir, !zip, DefaultSize, nil)
		c.See(found(0, 2))
		if err := c.Look(t.Context(), cutAll); err != nil {
			t.Fatal(err)
		}
		if s := c.Stats(); s.Existing != 2 || s.Packs != 0 || s.Differing != 0 || len(w.list) > 0 {
			t.Errorf("%+v %q", s, w.list)
		}
		f := found(1, 1)
		f.Handshake.Chain[0].Certificate = &cert.Certificate{DER: []byte("another")}
		c.See(f)
		if err := c.Look(t.Context(), cutAll); err != nil {
			t.Fatal(err)
		}
		if s := c.Stats(); s.Differing != 1 || len(w.list) != 1 || !strings.Contains(w.list[0], "not replaced") {
			t.Errorf("%+v %q", s, w.list)
		}
		if after := tree(t, dir); after != before {
			t.Errorf("before\n%s\nafter\n%s", before, after)
		}
	}
}

// tree is the names of all files below dir, with the hashes of what they have.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			fmt.Fprintf(&b, "%s %s\n", path, sum(read(t, path)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestFull stops at the size that is allowed, says so once, and goes on when there is
// room again.
func TestFull(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "evidence")
	size := int64(0)
	for _, text := range strings.Fields(string(read(t, filepath.Join(packs(t, 1, false, nil), chainName))))[3:] {
		fmt.Sscan(text, &size)
	}
	c, w := collector(t, dir, false, 5*size/2, nil)
	c.See(found(0, 10))
	if err := c.Look(t.Context(), cutAll); err != nil {
		t.Fatal(err)
	}
	if s := c.Stats(); s.Packs != 2 || s.OverSize != 8 || len(w.list) != 1 || !strings.Contains(w.list[0], "--evidence-size") {
		t.Errorf("%+v, %q", s, w.list)
	}
	if r := wrong(t, dir, VerifyOptions{}); len(r) > 0 {
		t.Errorf("%q", r)
	}
	if err := os.RemoveAll(filepath.Join(dir, fmt.Sprintf("%032x", 0))); err != nil {
		t.Fatal(err)
	}
	c, _ = collector(t, dir, false, 5*size/2, nil)
	c.See(found(20, 2))
	if err := c.Look(t.Context(), cutAll); err != nil {
		t.Fatal(err)
	}
	if s := c.Stats(); s.Packs != 1 || s.OverSize != 1 {
		t.Errorf("when one was moved away: %+v", s)
	}
}

// TestGone counts packs that cannot be written because the folder was removed or replaced
// while the sensor runs, and writes again when it is back.
func TestGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "evidence")
	other := t.TempDir()
	c, w := collector(t, dir, false, DefaultSize, nil)
	look := func(n int) {
		c.See(found(n, 1))
		if err := c.Look(t.Context(), cutAll); err != nil {
			t.Fatal(err)
		}
	}
	look(0)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	look(1)
	if err := os.Symlink(other, dir); err != nil {
		t.Skip(err)
	}
	look(2)
	if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	look(3)
	if s := c.Stats(); s.Packs != 2 || s.Failed != 2 || len(w.list) != 2 || !strings.Contains(w.list[0], "no such file") || !strings.Contains(w.list[1], "written again") {
		t.Errorf("%+v, %q", s, w.list)
	}
	if list, err := os.ReadDir(other); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
	if r := wrong(t, dir, VerifyOptions{}); len(r) > 0 {
		t.Errorf("%q", r)
	}
}

// TestKilled goes on from what a process has left that was killed: a pack in the making,
// packs without their lines, and half a line.
func TestKilled(t *testing.T) {
	for _, zip := range []bool{false, true} {
		dir := packs(t, 1, zip, nil)
		before, _ := collector(t, dir, zip, DefaultSize, nil)
		for _, first := range []int{5, 3} {
			before.See(found(first, 1))
			if err := before.Look(t.Context(), cutAll); err != nil {
				t.Fatal(err)
			}
		}
		chain := filepath.Join(dir, chainName)
		lines := strings.SplitAfter(string(read(t, chain)), "\n")
		write(t, chain, []byte(lines[0]+lines[1][:50]))
		if err := os.Mkdir(filepath.Join(dir, "."+fmt.Sprintf("%032x", 9)+partSuffix), 0o700); err != nil {
			t.Fatal(err)
		}
		c, _ := collector(t, dir, zip, DefaultSize, nil)
		c.See(found(10, 1))
		if err := c.Look(t.Context(), cutAll); err != nil {
			t.Fatal(err)
		}
		if w := wrong(t, dir, VerifyOptions{}); len(w) > 0 {
			t.Errorf("%q", w)
		}
		if after := string(read(t, chain)); !strings.HasPrefix(after, strings.Join(lines, "")) {
			t.Errorf("the chain was\n%s and is\n%s", strings.Join(lines, ""), after)
		}
	}
}

// TestTogether writes packs together. One that the disk does not take has an error, and
// the others are in the chain.
func TestTogether(t *testing.T) {
	for _, zip := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "evidence")
		f, err := OpenFolder(dir, zip, DefaultSize, nil)
		if err != nil {
			t.Fatal(err)
		}
		root, err := f.open()
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		chain, err := f.lock(root)
		if err != nil {
			t.Fatal(err)
		}
		list := make([]*entry, 5)
		head := none
		for i := range list {
			list[i] = &entry{manifest: &Manifest{Format: format, ID: fmt.Sprintf("%032x", i)}, files: []file{{textName, []byte("a text")}}}
			if err := f.make(root, list[i], head, 0); err != nil {
				t.Fatal(err)
			}
			head = list[i].sum
		}
		list[2].open[0].Close() // the disk fails
		if failed := f.commit(root, chain, list); failed != list[2] || failed.err == nil {
			t.Errorf("the pack that failed is %+v", failed)
		}
		chain.Close()
		f.write(list[3:])
		var names, want []string
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		for i, e := range list {
			if i != 2 {
				want = append(want, e.name)
			}
			if (e.err == nil) != (i != 2) {
				t.Errorf("pack %d: %v", i, e.err)
			}
		}
		if want = append(want, chainName); !slices.Equal(names, want) {
			t.Errorf("there are %q", names)
		}
		previous := none
		for i, text := range strings.Fields(string(read(t, filepath.Join(dir, chainName)))) {
			switch i % 4 {
			case 0:
				if text+filepath.Ext(want[i/4]) != want[i/4] {
					t.Errorf("line %d is of %s", i/4, text)
				}
			case 2:
				if text != previous {
					t.Errorf("line %d goes on from %s", i/4, text)
				}
				previous = strings.Fields(string(read(t, filepath.Join(dir, chainName))))[i-1]
			}
		}
	}
}

// TestTwo has several collectors write to one folder at the same time: the chain is one.
func TestTwo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "evidence")
	var all sync.WaitGroup
	for i := range 4 {
		c, _ := collector(t, dir, i%2 == 0, DefaultSize, nil)
		all.Go(func() {
			for n := range 5 {
				c.See(found(100*i+n, 2)) // the second is the first of the next
				if err := c.Look(t.Context(), cutAll); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	r, err := Verify(t.Context(), dir, VerifyOptions{})
	if err != nil || r.Wrong() > 0 || r.Chain != 24 {
		t.Errorf("%+v, %v", r, err)
	}
}

// buffer is a Buffer that has all frames, or none.
type buffer bool

func (b buffer) Frames(frames.Flow) ([]frames.Frame, bool) {
	if !b {
		return flowFrames()[:1], false
	}
	return flowFrames(), true
}

// TestFollow writes packs while alerts come: of a handshake that goes on when it is over,
// or when nothing comes of it.
func TestFollow(t *testing.T) {
	for _, complete := range []bool{true, false} {
		dir := filepath.Join(t.TempDir(), "evidence")
		c, _ := collector(t, dir, false, DefaultSize, nil)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.Follow(ctx, buffer(complete)); close(done) }()
		first := found(0, 1)
		end := first.Handshake.End
		first.Handshake.Unfinished, first.Handshake.Notes = true, new(event.Notes)
		first.Handshake.End = first.Handshake.Certificate
		c.See(first)
		c.See(found(1, 1))
		repeated := found(0, 1)
		repeated.Alerts[0].Counted = true
		c.See(repeated)
		for c.Stats().Waiting > 1 {
			time.Sleep(time.Millisecond)
		}
		over := found(0, 0)
		over.Handshake.Notes, over.Handshake.End = first.Handshake.Notes, end
		c.See(over)
		c.See(found(2, 1))
		stop()
		<-done
		s := c.Stats()
		if s.Packs != 3 || s.Suppressed != 1 || s.Waiting != 0 || (s.Incomplete == 0) != complete {
			t.Errorf("%+v", s)
		}
		m, err := parseManifest(read(t, filepath.Join(dir, fmt.Sprintf("%032x", 0), manifestName)))
		if err != nil || m.Subject.End != timeText(end.Time) || m.Suppressed != 1 || (m.Frames.Missing == "") != complete {
			t.Errorf("%+v, %v", m, err)
		}
		if w := wrong(t, dir, VerifyOptions{}); len(w) > 0 {
			t.Errorf("%q", w)
		}
	}
}

// TestQueue gives up alerts of the rule with most of them, of the least severe, and
// counts them.
func TestQueue(t *testing.T) {
	c, _ := collector(t, filepath.Join(t.TempDir(), "evidence"), false, DefaultSize, nil)
	severe := found(1<<20, 1)
	severe.Alerts[0].Match = &rules.Match{Rule: &rules.Rule{ID: "severe", RiskScore: 99}}
	rare := found(1<<21, 1)
	rare.Alerts[0].Match = &rules.Match{Rule: &rules.Rule{ID: "rare", RiskScore: 50}}
	c.See(severe)
	c.See(rare)
	record := make([]byte, 1<<20)
	for i := range 200 {
		f := found(i, 1)
		f.Alerts[0].Record = record
		c.See(f)
		if c.bytes > maxQueue {
			t.Fatalf("%d bytes", c.bytes)
		}
	}
	s := c.Stats()
	list := c.take(true)
	has := func(id string) bool { return slices.ContainsFunc(list, func(a *alert) bool { return a.id == id }) }
	if s.GivenUp+s.Waiting != 202 || s.GivenUp < 130 || !has(severe.Alerts[0].ID) || !has(rare.Alerts[0].ID) || !has(fmt.Sprintf("%032x", 199)) || has(fmt.Sprintf("%032x", 0)) {
		t.Errorf("%+v", s)
	}
	if c.bytes != 0 || len(c.waiting) > 0 || len(c.byID) > 0 {
		t.Errorf("%d bytes, %d rules, %d alerts are left", c.bytes, len(c.waiting), len(c.byID))
	}
}

// TestTooMuch cuts a pack at its limits, and says so in it.
func TestTooMuch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "evidence")
	c, _ := collector(t, dir, false, DefaultSize, nil)
	c.See(found(0, 1))
	err := c.Look(t.Context(), func(_ context.Context, _ []frames.Flow, each func(*frames.Frame, []int) error) error {
		data := make([]byte, 64<<10)
		for i := range 1000 {
			if err := each(&frames.Frame{Number: uint64(100 + i), Time: 1e18, Length: 64 << 10, LinkType: linktype.Ethernet, Data: data}, []int{0}); err != nil {
				return err
			}
		}
		return nil
	})
	m, missing := parseManifest(read(t, filepath.Join(dir, fmt.Sprintf("%032x", 0), manifestName)))
	if err != nil || missing != nil || m.Frames.Bytes > maxPackBytes || m.Frames.Missing == "" || c.Stats().Incomplete != 1 {
		t.Errorf("%+v, %v, %v", m.Frames.Missing, err, missing)
	}
}

// zipped is an archive with these files, deflated.
func zipped(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for name, text := range files {
		to, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := to.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestHostileArchive refuses names that leave the archive, and contents without end.
func TestHostileArchive(t *testing.T) {
	for name, want := range map[string]string{
		"../x": "is not the name", "/etc/passwd": "is not the name", "a/b": "is not the name", `a\b`: "is not the name", ".x": "is not the name", "": "is not the name",
	} {
		if _, err := unarchived(zipped(t, map[string]string{name: "x"})); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	bomb := zipped(t, map[string]string{"a": strings.Repeat("a", maxFile+1)})
	if _, err := unarchived(bomb); err == nil || !strings.Contains(err.Error(), "more in it than a pack has") {
		t.Errorf("%d bytes that become %d: %v", len(bomb), maxFile+1, err)
	}
	files := map[string]string{}
	for i := range maxFiles + 1 {
		files[fmt.Sprintf("f%d", i)] = ""
	}
	if _, err := unarchived(zipped(t, files)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

// FuzzArchive checks archives that may be anybody's: only one that was written here is
// good.
func FuzzArchive(f *testing.F) {
	dir := packs(f, 1, true, nil)
	id := fmt.Sprintf("%032x", 0)
	good := read(f, filepath.Join(dir, id+zipSuffix))
	f.Add(good)
	f.Add(zipped(f, map[string]string{manifestName: `{"format": "oddcert-evidence/1"}`, "../x": ""}))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := unarchived(data)
		p := check(t.Context(), "p", id, files, err, VerifyOptions{})
		if len(p.Problems) == 0 {
			if again, err := archived(files); err != nil || !bytes.Equal(again, data) {
				t.Error("an archive is good that is not written like this")
			}
		}
		if len(p.Problems) > maxProblems+1 {
			t.Errorf("%d problems", len(p.Problems))
		}
	})
}

// FuzzManifest reads manifests that may be anybody's: what is read is written again as it
// was.
func FuzzManifest(f *testing.F) {
	f.Add(read(f, filepath.Join(packs(f, 1, false, nil), fmt.Sprintf("%032x", 0), manifestName)))
	f.Add([]byte(`{"format":"oddcert-evidence/1","files":[{"name":"../x","size":-1}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseManifest(text)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("%s, %v", again, err)
		}
		for _, f := range m.Files {
			if filepath.Base(f.Name) != f.Name || strings.HasPrefix(f.Name, ".") {
				t.Errorf("a file is called %q", f.Name)
			}
		}
	})
}

// FuzzLine reads lines of chains that may be anybody's.
func FuzzLine(f *testing.F) {
	f.Add(strings.Repeat("0", 32) + " " + none + " " + none + " 4711\n")
	f.Fuzz(func(t *testing.T, text string) {
		if l, ok := parseLine(text); ok {
			if again := fmt.Sprintf("%s %s %s %d", l.id, l.manifest, l.previous, l.size); again != strings.TrimSuffix(text, "\n") {
				t.Errorf("%q is read as %q", text, again)
			}
		}
	})
}

// TestManifestLimit refuses a manifest that is longer than any, before it is read; the
// longest that there can be is not.
func TestManifestLimit(t *testing.T) {
	m := &Manifest{Format: format, ID: strings.Repeat("0", 32), Previous: none, Losses: Losses{Lost: map[string]uint64{}}}
	for i := range maxPackFrames {
		m.Frames.List = append(m.Frames.List, At{1 << 40, timeText(int64(i)), 1 << 50})
	}
	for i := range maxFiles {
		m.Files = append(m.Files, FileHash{fmt.Sprintf("%064d", i), maxFile, none})
	}
	text, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseManifest(text); err != nil {
		t.Errorf("%d bytes: %v", len(text), err)
	}
	if _, err := parseManifest(append(text, make([]byte, maxManifest)...)); err == nil || !strings.Contains(err.Error(), "are more than") {
		t.Error(err)
	}
}

// TestCompressed has a capture in a pack that is compressed: what it becomes has no bound,
// so that the rules are not run over it.
func TestCompressed(t *testing.T) {
	p := Checked{}
	files := []file{{captureName, []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0}}}
	p.again(t.Context(), &Manifest{}, files, VerifyOptions{
		Version: func(string) string { return "1" },
		Replay: func(context.Context, string) ([]Found, error) {
			t.Error("it is replayed")
			return nil, nil
		},
	})
	if !slices.ContainsFunc(p.Problems, func(s string) bool { return strings.Contains(s, "is not a capture as a pack has it") }) {
		t.Errorf("%q", p.Problems)
	}
}
