package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// question is one of the ten of the documents: the command that answers it over the
// public captures, and the answer.
type question struct {
	name    string
	command []string // with the captures at the end
	check   func(t *testing.T, out string)
}

// TestQuestions has each question of the documents answered by its command, and by
// others: testdata/questions/reckon.py reckons with the records, with what tshark,
// Suricata and Zeek saw in the captures, and with openssl; times are tshark's.
func TestQuestions(t *testing.T) {
	corpus := publicCorpus(t)
	captures := filepath.Join(corpus, "captures")
	var truth struct {
		Expired, Flagged, Starttls []string
		SelfSigned                 []string `json:"self_signed"`
		MostServers                string   `json:"most_servers"`
		Clients                    map[string][]string
		OnlyA                      []string `json:"only_a"`
		OnlyB                      []string `json:"only_b"`
		Shown                      map[string]map[string]uint64
	}
	reckon(t, corpus, captures, &truth)
	most := truth.MostServers
	a, b := filepath.Join(captures, "FoxIO-LLC+ja4"), filepath.Join(captures, "seladb+PcapPlusPlus")

	// tsv are the values of the first column of a table.
	tsv := func(out string) (values []string) {
		for line := range strings.Lines(out) {
			value, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			values = append(values, value)
		}
		if len(values) > 0 {
			values = values[1:]
		}
		slices.Sort(values)
		return values
	}
	same := func(want []string) func(*testing.T, string) {
		return func(t *testing.T, out string) {
			t.Helper()
			if got := tsv(out); !slices.Equal(got, want) {
				t.Errorf("%d: %v\nwant %d: %v", len(got), got, len(want), want)
			}
		}
	}
	for _, q := range []question{
		{"which servers show a certificate that is over", []string{"list", "--expired"}, same(truth.Expired)},
		{"which certificate is on most servers", []string{"list", "--sort", "-servers", "--limit", "1"}, same([]string{most})},
		{"which are self-signed", []string{"list", "--self-signed"}, same(truth.SelfSigned)},
		{"which clients were shown it", []string{"show", "--json", most}, func(t *testing.T, out string) { clientsAre(t, out, truth.Clients[most]) }},
		{"which come behind STARTTLS", []string{"list", "--where", "oddcert.carrier|startswith: starttls"}, same(truth.Starttls)},
		{"the certificate of an alert as PEM", []string{"export", "--alerting"}, func(t *testing.T, out string) { readByOpenSSL(t, out, truth.Flagged) }},
		{"the flow of an alert as a small capture", nil, func(t *testing.T, _ string) { alertsAreCut(t, captures) }},
		{"a report to hand over", nil, func(t *testing.T, _ string) { reportHasAlerts(t, captures) }},
		{"what differs between two captures", nil, func(t *testing.T, _ string) {
			var onlyA, onlyB []string
			for line := range strings.Lines(answered(t, "diff", "--json", a, b)) {
				var change struct{ Change, Kind, Value string }
				if err := json.Unmarshal([]byte(line), &change); err != nil {
					t.Fatal(err)
				}
				switch {
				case change.Kind != "certificate":
				case change.Change == "only-a":
					onlyA = append(onlyA, change.Value)
				case change.Change == "only-b":
					onlyB = append(onlyB, change.Value)
				}
			}
			if !slices.Equal(onlyA, truth.OnlyA) || !slices.Equal(onlyB, truth.OnlyB) {
				t.Errorf("only in A: %d of %d, in B: %d of %d", len(onlyA), len(truth.OnlyA), len(onlyB), len(truth.OnlyB))
			}
		}},
		{"what happened to it, and when", []string{"show", "--json", most}, func(t *testing.T, out string) { timeLineIs(t, out, truth.Shown[most]) }},
	} {
		t.Run(strings.ReplaceAll(q.name, " ", "-"), func(t *testing.T) {
			out := ""
			if q.command != nil {
				out = answered(t, append(q.command, captures)...)
			}
			q.check(t, out)
		})
	}
	for hash, clients := range truth.Clients {
		clientsAre(t, answered(t, "show", "--json", hash, captures), clients)
	}
	t.Logf("%d expired, %d self-signed, %d behind STARTTLS, %d with alerts; %s on most servers; %d and %d only in one of two",
		len(truth.Expired), len(truth.SelfSigned), len(truth.Starttls), len(truth.Flagged), most[:12], len(truth.OnlyA), len(truth.OnlyB))
}

// alerted is an alert, as records have it.
type alerted struct {
	Event   struct{ ID string }
	Log     struct{ File struct{ Path string } }
	Oddcert struct{ Pcap struct{ Filter string } }
}

// alertsOf are the alerts of captures.
func alertsOf(t *testing.T, captures string) (all []alerted) {
	t.Helper()
	var out, errs bytes.Buffer
	if status := run([]string{"replay", "--json", "-", "--records", "alert", captures}, &out, &errs); status != exitOK && status != exitInput {
		t.Fatalf("exit status %d: %s", status, &errs)
	}
	for line := range bytes.Lines(out.Bytes()) {
		var a alerted
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	if len(all) == 0 {
		t.Fatal("no alert")
	}
	return all
}

// alertsAreCut has the flow of each alert cut out of all captures, and finds the frames
// there that tshark finds in the capture of the alert.
func alertsAreCut(t *testing.T, captures string) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed")
	}
	for _, a := range alertsOf(t, captures) {
		path := filepath.Join(t.TempDir(), "flow.pcapng")
		var out, errs bytes.Buffer
		if status := run([]string{"cut", "--alert", a.Event.ID, "-o", path, captures}, &out, &errs); status != exitOK && status != exitInput {
			t.Errorf("%s: exit status %d: %s", a.Event.ID, status, &errs)
			continue
		}
		frames := func(args ...string) []string {
			out, err := exec.Command(tshark, append(args, "-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len")...).Output()
			if err != nil {
				t.Fatal(err)
			}
			return slices.Collect(strings.Lines(string(out)))
		}
		want := 0
		err := filepath.WalkDir(captures, func(file string, _ os.DirEntry, err error) error {
			if err == nil && filepath.Base(file) == a.Log.File.Path {
				want++
				if got, want := frames("-r", path), frames("-r", file, "-Y", a.Oddcert.Pcap.Filter); !slices.Equal(got, want) {
					t.Errorf("%s of %s: %d frames, tshark has %d", a.Event.ID, file, len(got), len(want))
				}
			}
			return err
		})
		if err != nil || want != 1 {
			t.Errorf("%d captures %s, %v", want, a.Log.File.Path, err)
		}
	}
}

// reportHasAlerts holds a report against the records: its table of alerts and its page have
// each alert.
func reportHasAlerts(t *testing.T, captures string) {
	page := filepath.Join(t.TempDir(), "case.html")
	var out, errs bytes.Buffer
	if status := run([]string{"report", "-o", page, captures}, &out, &errs); status != exitOK && status != exitInput {
		t.Fatalf("exit status %d: %s", status, &errs)
	}
	var ids []string
	for _, a := range alertsOf(t, captures) {
		ids = append(ids, a.Event.ID)
	}
	for _, file := range []string{page, strings.TrimSuffix(page, ".html") + "-alerts.csv"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			if !bytes.Contains(b, []byte(id)) {
				t.Errorf("%s does not have the alert %s", filepath.Base(file), id)
			}
		}
	}
}

// answered is what oddcert certs answers, which has to find something.
func answered(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if status := run(append([]string{"certs"}, args...), &stdout, &stderr); status != exitOK {
		t.Errorf("%v: exit status %d: %s", args, status, &stderr)
	}
	return stdout.String()
}

// reckon has the script reckon, with the records of a replay.
func reckon(t *testing.T, corpus, captures string, truth any) {
	t.Helper()
	for _, program := range []string{"python3", "openssl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	path := filepath.Join(t.TempDir(), "records.json")
	if status := run([]string{"replay", "--json", path, "--records", "handshake,certificate,alert", captures}, new(bytes.Buffer), new(bytes.Buffer)); status != exitOK && status != exitInput {
		t.Fatalf("replay: exit status %d", status)
	}
	cmd := exec.CommandContext(t.Context(), "python3", "testdata/questions/reckon.py", path, filepath.Join(corpus, "expected.json"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, truth); err != nil {
		t.Fatal(err)
	}
}

// happened is a place in the answer of show.
type happened struct {
	Time   time.Time `json:"@timestamp"`
	Path   string
	Frame  uint64 `json:"packet_number"`
	Filter string
	Event  string
}

func clientsAre(t *testing.T, out string, want []string) {
	t.Helper()
	var answer struct{ Clients []struct{ Client string } }
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, c := range answer.Clients {
		all[c.Client] = true
	}
	if got := slices.Sorted(maps.Keys(all)); !slices.Equal(got, want) {
		t.Errorf("clients %v, want %v", got, want)
	}
}

// timeLineIs holds a time line against the servers that showed the certificate, with how
// many handshakes, and its times against tshark.
func timeLineIs(t *testing.T, out string, want map[string]uint64) {
	t.Helper()
	var answer struct {
		Servers []struct {
			Server, Transport string
			Handshakes        uint64
		}
		TimeLine []happened `json:"time_line"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, s := range answer.Servers {
		got[s.Server+"/"+s.Transport] += s.Handshakes
	}
	if !maps.Equal(got, want) {
		t.Errorf("servers %v, want %v", got, want)
	}
	if !slices.IsSortedFunc(answer.TimeLine, func(a, b happened) int { return a.Time.Compare(b.Time) }) {
		t.Error("the time line is not in order")
	}
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed")
	}
	checked := 0
	for _, e := range answer.TimeLine {
		if e.Frame == 0 || checked == 10 {
			continue
		}
		checked++
		at := strings.TrimSpace(string(tsharkFields(t, tshark, e.Path, "frame.number=="+strconv.FormatUint(e.Frame, 10)+"&&("+e.Filter+")", "frame.time_epoch")))
		seconds, fraction, _ := strings.Cut(at, ".")
		if want := strconv.FormatInt(e.Time.Unix(), 10); seconds != want || fraction != strings.TrimSpace(e.Time.Format(".000000000"))[1:] {
			t.Errorf("%s: frame %d of %s: %s, by tshark %s", e.Event, e.Frame, e.Path, e.Time, at)
		}
	}
	if checked == 0 {
		t.Error("no event has a frame")
	}
}

// readByOpenSSL holds that openssl reads the certificates of a PEM file, and that they
// have these hashes.
func readByOpenSSL(t *testing.T, text string, want []string) {
	t.Helper()
	var got []string
	for _, block := range regexp.MustCompile(`(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n`).FindAllString(text, -1) {
		cmd := exec.CommandContext(t.Context(), "openssl", "x509", "-noout", "-fingerprint", "-sha256")
		cmd.Stdin = strings.NewReader(block)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		_, sum, _ := strings.Cut(strings.TrimSpace(string(out)), "=")
		got = append(got, strings.ReplaceAll(sum, ":", ""))
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
