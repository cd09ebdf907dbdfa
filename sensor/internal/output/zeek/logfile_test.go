package zeek

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/logfile"
)

// TestLogfile writes a folder of logs, stops, and gets the same records again: each
// record has its line once, in a file that ends as Zeek's do.
func TestLogfile(t *testing.T) {
	list := records(t, "public.txt")
	folder := filepath.Join(t.TempDir(), "zeek")
	for _, fate := range []delivery.Fate{delivery.Delivered, delivery.Duplicate} {
		d, err := logfile.New(logfile.Config{Path: folder}, New(false), nil)
		if err != nil {
			t.Fatal(err)
		}
		verdicts := make([]delivery.Verdict, len(list))
		if trouble := d.Send(t.Context(), list, verdicts); trouble != nil {
			t.Fatal(trouble.Err)
		}
		for i, v := range verdicts {
			if v.Fate != fate {
				t.Errorf("%s: fate %d, want %d", list[i].Dataset, v.Fate, fate)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]int{"ssl": 1, "x509": 6, "notice": 0, "known_certs": 1} {
			names, err := filepath.Glob(filepath.Join(folder, path+"*"))
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, name := range names {
				text, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				_, _, lines := parse(t, string(text))
				n += len(lines)
			}
			if n != want {
				t.Errorf("%d lines of %s, want %d", n, path, want)
			}
		}
	}
}
