package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
)

// TestTruthBesideCapture asks that the truth survives its way through the file.
func TestTruthBesideCapture(t *testing.T) {
	spec, err := traffic.Named("truth", 0.01, 3)
	if err != nil {
		t.Fatal(err)
	}
	generate := func(w io.Writer) (*traffic.Truth, error) { return traffic.Generate(w, spec) }
	path := filepath.Join(t.TempDir(), "x.pcap")
	if err := write(path, generate); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path + ".truth.json")
	if err != nil {
		t.Fatal(err)
	}
	var got traffic.Truth
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Bytes != info.Size() {
		t.Errorf("truth says %d bytes, the file has %d", got.Bytes, info.Size())
	}
	again := filepath.Join(t.TempDir(), "y.pcap")
	if err := write(again, generate); err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(again + ".truth.json")
	if err != nil {
		t.Fatal(err)
	}
	var same traffic.Truth
	if err := json.Unmarshal(other, &same); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, same) {
		t.Error("the same seed gives another truth")
	}
	if err := write(filepath.Join(t.TempDir(), "no", "such", "folder"), func(w io.Writer) (*traffic.Truth, error) { return traffic.Generate(w, spec) }); err == nil {
		t.Error("a file that cannot be made passes")
	}
}
