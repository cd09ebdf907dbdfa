package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// killedEnv has the configuration of a process that is to be killed.
const killedEnv = "ODDCERT_DRILL_KILLED"

// killsEnv is how often it is killed, where that is not the standard.
const killsEnv = "ODDCERT_DRILL_KILLS"

// killed is what a process that is to be killed does.
type killed struct {
	Dir     string
	Outputs string // as a configuration file has them
	From    int    // the number of the first record
	End     bool   // deliver what is there, and write nothing
}

// TestKillOutputs kills a process that writes records and delivers them to three
// outputs, at random moments: what it said was accepted is in each of them in the end,
// once.
func TestKillOutputs(t *testing.T) {
	kills := 40
	if testing.Short() {
		kills = 5
	}
	if n, err := strconv.Atoi(os.Getenv(killsEnv)); err == nil {
		kills = n
	}
	var mu sync.Mutex
	hooked, repeated := map[string]bool{}, 0
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		defer mu.Unlock()
		id := r.Header.Get("webhook-id")
		if hooked[id] {
			repeated++
		}
		hooked[id] = true
	}))
	defer hook.Close()
	server := estest.Shared(t)
	namespace := estest.Namespace(t)
	var said bytes.Buffer
	if status := run([]string{"es", "setup", "--portable", "--es", server.URL}, &said, &said); status != exitOK {
		t.Fatalf("es setup: exit status %d: %s", status, said.String())
	}
	dir := t.TempDir()
	do := killed{Dir: dir, Outputs: fmt.Sprintf(`output:
  log: {type: file, path: %q, rotate_size: 1MiB}
  hook: {type: webhook, url: %q, records: alert}
  siem: {type: elasticsearch, url: %q, namespace: %q}
`, filepath.Join(dir, "records.json"), hook.URL, server.URL, namespace)}

	accepted := map[string]bool{}
	r := rand.New(rand.NewPCG(1, 2))
	for kill := range kills {
		do.From = kill * 1_000_000
		cmd, lines := startKilled(t, do)
		var timer *time.Timer
		for lines.Scan() {
			accepted[lines.Text()] = true
			if timer == nil { // it is at work
				timer = time.AfterFunc(time.Duration(r.IntN(150))*time.Millisecond, func() { _ = cmd.Process.Kill() })
			}
		}
		if err := cmd.Wait(); err == nil || timer == nil {
			t.Fatalf("kill %d: the process ended by itself: %v", kill, err)
		}
	}
	do.End = true
	cmd, lines := startKilled(t, do)
	for lines.Scan() {
		t.Log(lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}

	logged := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(dir, "records*.json"))
	if err != nil || len(files) == 0 || len(files) < 2 && !testing.Short() { // a short run may not fill one
		t.Fatalf("files %q, %v", files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			var rec struct{ Event struct{ ID string } }
			if err := json.Unmarshal(line, &rec); err != nil {
				t.Fatalf("%s: %v: %s", file, err, line)
			}
			if logged[rec.Event.ID] {
				t.Errorf("%s is there twice", rec.Event.ID)
			}
			logged[rec.Event.ID] = true
		}
	}
	documents := server.Search(t, "*-oddcert.*-"+namespace) // fails where one is there twice
	alerts := 0
	for id := range accepted {
		if !logged[id] {
			t.Errorf("%s is not in the file", id)
		}
		if documents[id] == nil {
			t.Errorf("%s is not in Elasticsearch", id)
		}
		if isAlert := strings.HasSuffix(id, fmt.Sprintf("%x", output.Alert)); isAlert {
			alerts++
			if !hooked[id] {
				t.Errorf("%s was not posted", id)
			}
		}
	}
	t.Logf("%d kills: %d records accepted, %d of them alerts; %d lines in %d files, %d documents, %d posts and %d repeated",
		kills, len(accepted), alerts, len(logged), len(files), len(documents), len(hooked), repeated)
	if len(accepted) < 20*kills {
		t.Errorf("too few records for %d kills", kills)
	}
}

// startKilled starts a process that does what do says, and returns the lines that it
// writes.
func startKilled(t *testing.T, do killed) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	b, err := json.Marshal(do)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), killedEnv+"="+string(b))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// TestKilled is the process that is killed. It is not a test.
func TestKilled(t *testing.T) {
	text := os.Getenv(killedEnv)
	if text == "" {
		t.Skip("only in the process that TestKillOutputs kills")
	}
	var do killed
	if err := json.Unmarshal([]byte(text), &do); err != nil {
		t.Fatal(err)
	}
	if err := do.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0) // without the lines of a test
}

// run writes and delivers, and says what was accepted.
func (do killed) run() error {
	c := &config{file: "killed.yaml"}
	if err := c.applyYAML([]byte(do.Outputs)); err != nil {
		return err
	}
	if err := c.checkOutputs(); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	o := spool.Options{Logger: log}
	var outs []delivery.Output
	for _, out := range c.Outputs {
		d, err := outputTypeNamed(out.Type).open(out, "x", log)
		if err != nil {
			return err
		}
		outs = append(outs, delivery.Output{Name: out.name, Destination: d})
		o.Outputs = append(o.Outputs, spool.Output{Name: out.name, Datasets: out.datasets()})
	}
	sp, err := spool.Open(filepath.Join(do.Dir, "spool"), o)
	if err != nil {
		return err
	}
	engine := delivery.Start(sp, outs, delivery.Options{Log: log})
	if do.End {
		within, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		err := engine.Close(within)
		for _, out := range engine.Outputs() {
			st := out.Stats()
			fmt.Printf("%s: recovered %d, delivered %d, duplicates %d, missing %d, corrupt %d\n",
				out.Name, st.Recovered.Total(), st.Delivered.Total(), st.Duplicates.Total(), st.Missing, st.Corrupt)
		}
		return err
	}
	for n := do.From; ; n += 20 {
		var ids strings.Builder
		for i := n; i < n+20; i++ {
			d := []output.Dataset{output.Alert, output.Handshake, output.Alert, output.Stats}[i%4]
			id := fmt.Sprintf("%08x%024x", i, d)
			if err := engine.Write(&output.Record{Dataset: d, ID: id, Time: int64(i) * 1e9, JSON: fmt.Appendf(nil,
				`{"@timestamp":%q,"ecs":{"version":"9.4.0"},"event":{"id":%q,"dataset":"oddcert.%s","kind":"event"}}`,
				time.Unix(int64(i), 0).UTC().Format(time.RFC3339Nano), id, d)}); err != nil {
				return err
			}
			ids.WriteString(id + "\n")
		}
		if err := sp.Sync(context.Background()); err != nil {
			return err
		}
		os.Stdout.WriteString(ids.String())
	}
}
