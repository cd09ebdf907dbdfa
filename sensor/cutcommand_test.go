package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

// allCaptures are the paths of all captures that are here, by names that folders can
// have.
func allCaptures(t *testing.T, most int64) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{capturesDir, filepath.Join(corpusDir(), "captures"), filepath.Join(corpusDir(), "../cases"), filepath.Join(corpusDir(), "../attacks")} {
		if !exists(dir) {
			t.Logf("without the captures in %s, which is not there (ODDCERT_CORPUS names the folder of the public ones)", dir)
			continue
		}
		filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() || slices.Contains([]string{".json", ".md", ".py", ".txt", ".pem", ".keys", ".log"}, filepath.Ext(path)) {
				return err
			}
			if info, err := entry.Info(); err != nil || info.Size() > most {
				return err
			}
			name := strings.NewReplacer("/", "+", ".", "_").Replace(filepath.Base(dir) + strings.TrimPrefix(path, dir))
			all[name], err = filepath.Abs(path)
			return err
		})
	}
	return all
}

// cutSensor is a sensor to find handshakes with.
func cutSensor(t *testing.T, c *cut) *sensor {
	t.Helper()
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	c.config.bind(cmd, cmd.Flags(), onInventory)
	s, err := newSensor(cmd, &c.config, false)
	if err != nil {
		t.Fatal(err)
	}
	s.screen.Close()
	s.screen = terminal.New(new(bytes.Buffer), new(bytes.Buffer), terminal.Options{})
	t.Cleanup(s.screen.Close)
	return s
}

// cutTo cuts flows out of a capture into a file. It returns how many frames there were;
// without any there is no file.
func cutTo(t *testing.T, c *cut, from, to string, flows []frames.Flow) uint64 {
	t.Helper()
	os.MkdirAll(filepath.Dir(to), 0o700)
	kept := new(keptSecrets)
	in, source, err := c.open([]string{from}, kept, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	one := *c
	one.out = to
	out := &cutFile{cut: &one, secrets: kept}
	stats, err := frames.Cut(t.Context(), source, flows, frames.Options{}, func(f *frames.Frame, _ []int) error { return out.write(f) })
	if err = out.close(err); err != nil {
		t.Fatal(err)
	}
	return stats.Frames
}

// handshakesAndAlerts returns the records of handshakes and alerts in a folder, by capture.
func handshakesAndAlerts(t *testing.T, dir string) map[string][]object {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if status := run([]string{"replay", "--json", "-", "--records", "handshake,alert", dir}, &stdout, &stderr); status != exitOK && status != exitInput {
		t.Fatalf("exit status %d: %s", status, stderr.Bytes())
	}
	return byCapture(t, stdout.Bytes())
}

// What is cut out of a capture says the same as the capture: whole flows all that is in
// records but the names of files and the numbers of frames.
func TestCutTellsTheSame(t *testing.T) {
	c := &cut{secrets: true}
	s := cutSensor(t, c)
	originals, whole, twice, parts := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	frameCount, handshakeFrames := uint64(0), uint64(0)
	for name, path := range allCaptures(t, 8<<20) {
		file := filepath.Join(name, name+ofCapture)
		os.MkdirAll(filepath.Join(originals, name), 0o700)
		if err := os.Symlink(path, filepath.Join(originals, file+filepath.Base(path))); err != nil {
			t.Fatal(err)
		}
		c.handshakes = false
		flows, err := c.find(s, &cutChoice{}, []string{path})
		if err != nil {
			t.Fatal(name, err)
		}
		n := cutTo(t, c, path, filepath.Join(whole, file+"c.pcapng"), flows)
		if (n > 0) != (len(flows) > 0) {
			t.Errorf("%s: %d frames of %d flows", name, n, len(flows))
		}
		frameCount += n
		if n == 0 {
			continue
		}
		for i := range flows {
			flows[i].Origin = nil
		}
		again := cutTo(t, c, filepath.Join(whole, file+"c.pcapng"), filepath.Join(twice, file+"c.pcapng"), flows)
		if a, b := framesIn(t, filepath.Join(whole, file+"c.pcapng")), framesIn(t, filepath.Join(twice, file+"c.pcapng")); again != n || !slices.Equal(a, b) {
			t.Errorf("%s: cut twice: %d frames, and %d the first time", name, again, n)
		}
		c.handshakes = true
		if flows, err = c.find(s, &cutChoice{}, []string{path}); err != nil {
			t.Fatal(name, err)
		}
		handshakeFrames += cutTo(t, c, path, filepath.Join(parts, file+"c.pcapng"), flows)
	}
	t.Logf("%d frames of flows with handshakes, %d of handshakes", frameCount, handshakeFrames)
	want := handshakesAndAlerts(t, originals)
	total := 0
	for _, records := range want {
		total += len(records)
	}
	t.Logf("%d captures with %d records", len(want), total)
	same(t, "whole flows", want, handshakesAndAlerts(t, whole), ofFile...)
	// A chain is judged once and a proof once a day, at the first of the handshakes that
	// end: that may be another one where flows end elsewhere.
	same(t, "handshakes", want, handshakesAndAlerts(t, parts), append(slices.Clone(ofFile), "oddcert key_proof", "oddcert trust")...)
}

// framesIn returns what frames a capture has, as text.
func framesIn(t *testing.T, path string) (list []string) {
	t.Helper()
	eachFrame(t, path, func(f *capture.Frame) {
		line, _ := json.Marshal([]any{f.Time, f.Length, f.LinkType, f.Data})
		list = append(list, string(line))
	})
	return list
}

// eachFrame calls see with each frame of a capture, which is lent.
func eachFrame(t *testing.T, path string, see func(*capture.Frame)) {
	t.Helper()
	files, err := capture.OpenFiles([]string{path}, capture.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	for {
		b, err := files.Next()
		if err != nil {
			return
		}
		for i := range b.Frames {
			see(&b.Frames[i])
		}
		b.Release()
	}
}

// cutOut runs oddcert cut with its file in a folder of its own, and returns what it
// says, its exit status and the numbers of frames that tshark or this program reads.
func cutOut(t *testing.T, args ...string) (said string, status int, frames []string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	path := filepath.Join(t.TempDir(), "out.pcapng")
	status = run(append([]string{"cut", "-o", path}, args...), &stdout, &stderr)
	if exists(path) {
		frames = framesIn(t, path)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.part"))
	if err != nil || len(left) > 0 {
		t.Errorf("files were left behind: %v (%v)", left, err)
	}
	return stdout.String() + stderr.String(), status, frames
}

// TestShownAlert holds that the id and the pack that are shown of an alert are those that
// other commands take, whether records are made or not.
func TestShownAlert(t *testing.T) {
	all, packs := len(framesIn(t, oddCapture)), filepath.Join(t.TempDir(), "packs")
	for _, args := range [][]string{nil, {"--oneline"}, {"--records", "handshake", "--json", filepath.Join(t.TempDir(), "records.json")}} {
		out, _ := oddcert(t, exitOK, append([]string{"replay", "--oneline=false", oddCapture}, args...)...)
		id := regexp.MustCompile(`(?m)(?:^  Alert ID  | id=)([0-9a-f]{32})$`).FindStringSubmatch(out)
		if id == nil || strings.Contains(out, "Evidence") {
			t.Fatal(out)
		}
		if _, _, frames := cutOut(t, "--alert", id[1], oddCapture); len(frames) != all {
			t.Errorf("%v: %d frames are cut out by the id, want %d", args, len(frames), all)
		}
	}
	out, _ := oddcert(t, exitOK, "replay", "--oneline=false", "--evidence", packs, oddCapture)
	shown := regexp.MustCompile(`(?s)  Alert ID  ([0-9a-f]{32})\n  Evidence  (.*?)\n  Verdict`).FindStringSubmatch(out)
	if shown == nil {
		t.Fatal(out)
	}
	pack := regexp.MustCompile(`\n +`).ReplaceAllString(shown[2], "") // it is longer than a line
	if filepath.Base(pack) != shown[1] {
		t.Errorf("alert %s has the pack %s", shown[1], pack)
	}
	oddcert(t, exitOK, "evidence", "verify", pack)
}

// What the selections of oddcert cut choose.
func TestCutSelections(t *testing.T) {
	all := len(framesIn(t, oddCapture))
	var alert, community string
	record, later := filepath.Join(t.TempDir(), "alert.json"), filepath.Join(t.TempDir(), "later.json")
	for _, r := range handshakesAndAlerts(t, filepath.Dir(oddCapture))["capture.pcap"] {
		if member(r, "event", "dataset") == "oddcert.alert" {
			alert, community = member(r, "event", "id").(string), member(r, "network", "community_id").(string)
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			start := member(r, "event", "start").(string)
			for path, text := range map[string]string{record: string(text), later: strings.ReplaceAll(string(text), start, "2027"+start[4:])} {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, test := range []struct {
		args   string
		frames int
	}{
		{"--server 192.0.2.2", all},
		{"--server 192.0.2.2:443", all},
		{"--server 192.0.2.0/24 --client 192.0.2.1", all},
		{"--server 192.0.2.2:444", 0},
		{"--server 192.0.2.1 --client 192.0.2.2", all}, // nobody looks which is the server
		{"--server 192.0.2.1 --client 192.0.2.2 --handshakes", 0},
		{"--server 198.51.100.1 --server 192.0.2.2", all},
		{"--server 192.0.2.2 --client 198.51.100.1", 0},
		{"--server www.update.microsoft.com", all},
		{"--server *.microsoft.com", all},
		{"--server www.example.net", 0},
		{"--certificate 149190E5", all},
		{"--certificate 14:91:90:e5:01:4f:43:22", all},
		{"--certificate 249190E5", 0},
		{"--certificate 149190E5 --client 198.51.100.1", 0},
		{"--alert " + alert, all},
		{"--alert " + strings.Repeat("0", 32), 0},
		{"--alert " + strings.Repeat("0", 32) + " --alert " + alert, all},
		{"--alert " + record, all},
		{"--alert " + record + " --alert " + record, all},
		{"--alert " + record + " --server 192.0.2.2:443", all},
		{"--alert " + record + " --server 192.0.2.2:444", 0},
		{"--alert " + record + " --certificate 149190E5", all},
		{"--alert " + record + " --handshakes", 9},
		{"--alert " + later, 0},
		{"--alert " + later + " --handshakes", 0},
		{"--alert " + later + " --alert " + record, all},
		{"--flow 192.0.2.1:44512-192.0.2.2:443/tcp", all},
		{"--flow 192.0.2.2:443-192.0.2.1:44512", all},
		{"--flow 192.0.2.2:443-192.0.2.1:44512/udp", 0},
		{"--flow [2001:db8::1]:443-[2001:db8::2]:44512", 0},
		{"--flow " + community, all},
		{"--flow 1:AAAAAAAAAAAAAAAAAAAAAAAAAAA=", 0},
		{"--flow " + community + " --certificate 149190E5", all},
		{"--handshakes", 9},
		{"--handshakes --filter udp", 0},
	} {
		said, status, frames := cutOut(t, append(strings.Fields(test.args), oddCapture)...)
		want := exitOK
		if test.frames == 0 {
			want = exitNothing
		}
		if status != want || len(frames) != test.frames {
			t.Errorf("%s: exit status %d, %d frames, want %d and %d: %s", test.args, status, len(frames), want, test.frames, said)
		}
		if other := strings.Contains(test.args, strings.Repeat("0", 32)); other != strings.Contains(said, "do not raise the alert "+strings.Repeat("0", 32)) || other != strings.Contains(said, "--alert FILE") {
			t.Errorf("%s: %s", test.args, said)
		}
		if frames := strings.Contains(said, " frames of "); frames && !strings.Contains(said, " frames of 1 flow,") {
			t.Errorf("%s: there is one flow: %s", test.args, said)
		}
		if test.args == "--alert "+later && !strings.Contains(said, "--flow 192.0.2.1:44512-192.0.2.2:443/tcp") {
			t.Errorf("%s: %s", test.args, said)
		}
	}
}

// What is wrong is said, and nothing is written.
func TestCutErrors(t *testing.T) {
	kept := filepath.Join(t.TempDir(), "inventory.db")
	oddcert(t, exitOK, "replay", "--quiet", "--inventory", kept, oddCapture)
	dir := t.TempDir()
	there := filepath.Join(dir, "there.pcapng")
	b, err := os.ReadFile(oddCapture)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(there, b, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.pcapng")
	if err := os.Symlink(there, link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, says string }{
		{"--server 192.0.2.2 " + oddCapture, "say where to write to"},
		{"-o " + dir + "/new --server 192.0.2.2", "no capture named"},
		{"-o " + dir + "/new " + oddCapture, "say what to cut out"},
		{"-o " + dir + "/new --server 192.0.2.2 " + kept, "is an inventory, which has no frames"},
		{"-o " + there + " --server 192.0.2.2 " + oddCapture, "is there"},
		{"-o " + link + " --server 192.0.2.2 " + oddCapture, "is there"},
		{"-o " + there + " --force --server 192.0.2.2 " + there, "one of the captures"},
		{"-o " + link + " --force --server 192.0.2.2 " + dir, "one of the captures"},
		{"-o " + dir + " --force --server 192.0.2.2 " + oddCapture, "no regular file"},
		{"-o " + dir + "/no/new --server 192.0.2.2 " + oddCapture, "no such file"},
		{"-o " + dir + "/new --certificate 1234 " + oddCapture, "is not a SHA-256"},
		{"-o " + dir + "/new --certificate 1234567g " + oddCapture, "is not a SHA-256"},
		{"-o " + dir + "/new --alert 1234 " + oddCapture, "nor a file with its record"},
		{"-o " + dir + "/new --alert " + dir + " " + oddCapture, "is a folder"},
		{"-o " + dir + "/new --alert " + oddCapture + " " + oddCapture, "record 1 cannot be read"},
		{"-o " + dir + "/new --alert /dev/null " + oddCapture, "no record of an alert"},
		{"-o " + dir + "/new --alert testdata/captures/odd-certificate/want.json " + oddCapture, "record 1 is not that of an alert"},
		{"-o " + dir + "/new --alert - -", "not both"},
		{"-o " + dir + "/new --flow a-b " + oddCapture, "is no flow"},
		{"-o " + dir + "/new --flow 192.0.2.1:1-[::1]:2 " + oddCapture, "is no flow"},
		{"-o " + dir + "/new --client www.example.net " + oddCapture, "is a name"},
		{"-o " + dir + "/new --server a/b " + oddCapture, "is no address"},
		{"-o " + dir + "/new --handshakes -", "can be read once"},
		{"-o " + dir + "/new --server 192.0.2.2 " + dir + "/missing", "nothing was found"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(append([]string{"cut"}, strings.Fields(test.args)...), &stdout, &stderr)
		if status != exitFailure || !strings.Contains(stderr.String(), test.says) {
			t.Errorf("%s: exit status %d, %s%s", test.args, status, stdout.Bytes(), stderr.Bytes())
		}
	}
	if after, err := os.ReadFile(there); err != nil || !bytes.Equal(after, b) {
		t.Errorf("%s was changed (%v)", there, err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("files were written: %v", files)
	}
}

// What could not be read is counted, and what was found before it is written.
func TestCutDamaged(t *testing.T) {
	b, err := os.ReadFile(oddCapture)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cut.pcap")
	if err := os.WriteFile(path, b[:len(b)-10], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"--server 192.0.2.2", "--certificate 149190E5"} {
		said, status, frames := cutOut(t, append(strings.Fields(args), path)...)
		if status != exitInput || len(frames) != len(framesIn(t, oddCapture))-1 || strings.Count(said, "cut short") != 1 {
			t.Errorf("%s: exit status %d, %d frames, %s", args, status, len(frames), said)
		}
	}
}

// Secrets in captures come along only if that is asked for.
func TestCutSecrets(t *testing.T) {
	path := filepath.Join(corpusDir(), "captures/FoxIO-LLC+ja4/pcap/chrome-cloudflare-quic-with-secrets.pcapng")
	if !exists(path) {
		t.Skipf("there is no %s (ODDCERT_CORPUS names the folder of public captures)", path)
	}
	for _, secrets := range []bool{false, true} {
		args := []string{"--server", "0.0.0.0/0", "--server", "::/0", path}
		if secrets {
			args = append(args, "--secrets")
		}
		out := filepath.Join(t.TempDir(), "out.pcapng")
		var stdout, stderr bytes.Buffer
		if status := run(append([]string{"cut", "-o", out}, args...), &stdout, &stderr); status != exitOK {
			t.Fatalf("exit status %d: %s", status, stderr.Bytes())
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("_TRAFFIC_SECRET")) != secrets {
			t.Errorf("with --secrets %v, that there are secrets is %v", secrets, !secrets)
		}
	}
}

// A capture in two files, and one that was merged with another, have the same frames of
// its flows as the capture.
func TestCutSplitAndMerged(t *testing.T) {
	all := capturesIn(t, capturesDir)
	if dir := filepath.Join(corpusDir(), "captures"); exists(dir) {
		all = append(all, capturesIn(t, dir)...)
	}
	r := rand.New(rand.NewPCG(1, 2))
	ends := make([]map[[2]netip.Addr]bool, len(all)) // pairs of addresses
	flows := make([][]frames.Flow, len(all))
	for n, c := range all {
		var d decode.Decoder
		var p decode.Packet
		ends[n] = map[[2]netip.Addr]bool{}
		seen := map[decode.Key]bool{}
		for i := range c.frames {
			for ok := d.Decode(&c.frames[i], &p) <= decode.Datagram; ok; ok = d.Next(&p) {
				p.Address()
				low, high := p.Key.Endpoints()
				ends[n][[2]netip.Addr{low.Addr(), high.Addr()}] = true
				if !low.IsValid() || seen[p.Key] || len(flows[n]) == 64 {
					continue
				}
				seen[p.Key] = true
				f := frames.Flow{Transport: p.Key.Transport(), Endpoints: [2]event.Endpoint{{Addr: low.Addr(), Port: low.Port()}, {Addr: high.Addr(), Port: high.Port()}}}
				flows[n] = append(flows[n], f)
				f.From = event.Moment{Time: c.frames[i].Time}
				flows[n] = append(flows[n], f)
			}
		}
	}
	cutBytes := func(flows []frames.Flow, files ...[]byte) []string {
		dir := t.TempDir()
		for i, b := range files {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("c_%d.pcap", i)), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		source, err := capture.OpenFiles([]string{dir}, capture.FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		list := make([]string, len(flows))
		h := fnv.New64a()
		if _, err = frames.Cut(t.Context(), source, flows, frames.Options{}, func(f *frames.Frame, of []int) error {
			for _, i := range of {
				h.Reset()
				h.Write(f.Data)
				list[i] += fmt.Sprintf(" %d:%d:%x", f.Time, f.Length, h.Sum64())
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return list
	}
	split, merged := 0, 0
	for n, c := range all {
		if len(flows[n]) == 0 || testing.Short() && n%8 != 0 {
			continue
		}
		want := cutBytes(flows[n], pcapOf(c.frames))
		inOrder := slices.IsSortedFunc(c.frames, func(a, b capture.Frame) int { return cmp.Compare(a.Time, b.Time) })
		if at := 1 + r.IntN(len(c.frames)-1); inOrder && c.rotates() && c.frames[at].Time != c.frames[0].Time && c.frames[min(at+4, len(c.frames)-1)].Time-c.frames[at-1].Time < 60e9 {
			split++
			if got := cutBytes(flows[n], pcapOf(c.frames[:at]), pcapOf(c.frames[at:])); !slices.Equal(got, want) {
				t.Errorf("%s: split at %d, other frames", c.name, at)
			}
		}
		other := (n + 1 + r.IntN(len(all)-1)) % len(all)
		if o := all[other]; o.frames[0].LinkType == c.frames[0].LinkType && !slices.ContainsFunc(slices.Collect(maps.Keys(ends[n])), func(pair [2]netip.Addr) bool { return ends[other][pair] }) {
			merged++
			both := slices.Clone(c.frames)
			at := 0
			for _, f := range o.frames { // in any order that keeps that of each; at the time of those of c
				at += r.IntN(2*(len(both)-at)/len(o.frames) + 1)
				at = min(at, len(both))
				f.Time = both[max(at-1, 0)].Time
				both = slices.Insert(both, at, f)
				at++
			}
			if got := cutBytes(flows[n], pcapOf(both)); !slices.Equal(got, want) {
				t.Errorf("%s: merged with %s, other frames", c.name, o.name)
			}
		}
	}
	t.Logf("%d captures were split, %d merged with others", split, merged)
}
