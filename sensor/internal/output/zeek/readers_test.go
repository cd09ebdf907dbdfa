package zeek

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// TestReaders reads the logs with programs that others have written for Zeek's: the
// Python packages parsezeeklogs and zlogging.
func TestReaders(t *testing.T) {
	list := append(records(t, "records.txt"), records(t, "public.txt")...)
	for form, logs := range map[string][]string{"tsv": write(t, false, list...), "json": write(t, true, list...)} {
		for i, text := range logs {
			file := filepath.Join(t.TempDir(), headers[i].path+".log")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Run("parsezeeklogs/"+form+"/"+headers[i].path, func(t *testing.T) {
				got := python(t, "parsezeeklogs", `
for record in parsezeeklogs.read_zeek(sys.argv[1]):
    print(json.dumps(record))`, file)
				var want []values
				if form == "tsv" {
					_, _, want = parse(t, text)
				} else {
					want = parseJSON(t, text)
				}
				if lines := parseJSON(t, flat(t, got)); !reflect.DeepEqual(lines, want) {
					t.Errorf("%d lines, want %d; first %s", len(lines), len(want), got)
				}
			})
			if form == "tsv" { // of JSON it wants to know the columns beforehand
				t.Run("zlogging/"+headers[i].path, func(t *testing.T) {
					out := python(t, "zlogging", `
import warnings
warnings.simplefilter("ignore") # it knows the notes of Zeek alone
print(len(zlogging.parse(sys.argv[1]).data))`, file)
					_, _, want := parse(t, text)
					if strings.TrimSpace(out) != strconv.Itoa(len(want)) {
						t.Errorf("read %q lines, want %d", out, len(want))
					}
				})
			}
		}
	}
}

// python runs a script that imports a module, and skips the test where it is missing.
func python(t *testing.T, module, script, file string) string {
	t.Helper()
	path, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is missing")
	}
	if exec.Command(path, "-c", "import "+module).Run() != nil {
		t.Skipf("the Python package %s is missing", module)
	}
	out, err := exec.Command(path, "-c", "import json, sys, "+module+script, file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// flat leaves out what is null, and writes times as the logs have them.
func flat(t *testing.T, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		v := values{}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		for name, x := range v {
			switch x := x.(type) {
			case nil:
				delete(v, name)
			case float64:
				if strings.Contains(name, "not_valid") || name == "ts" {
					v[name] = json.Number(strconv.FormatFloat(x, 'f', 6, 64))
				}
			}
		}
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(out, '\n'))
	}
	return b.String()
}
