package safecsv

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/oddcert/oddcert/sensor/internal/harmless"
)

var hostile = [][]string{
	{"plain", "", "a,b", `say "hi"`, "two\nlines", "CN=x, O=y"},
	{"=cmd|'/C calc'!A0", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1"},
	{"＝1", "＋1", "－1", "＠x", "'=1", "''=1", "'", "''"},
	{"2", "10", "C=DE", " =1", ";=1", "a\r\nb", "\x00"},
}

func TestCell(t *testing.T) {
	for _, text := range hostile[1] {
		if got := Cell(text); got != "'"+text {
			t.Errorf("%q: %q", text, got)
		}
	}
	for _, text := range hostile[0] {
		if got := Cell(text); got != text {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// TestPython has Python read the rows back.
func TestPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	var b bytes.Buffer
	w := NewWriter(&b)
	var want [][]string
	for _, row := range hostile {
		if err := w.Write(row...); err != nil {
			t.Fatal(err)
		}
		var cells []string
		for _, text := range row {
			cells = append(cells, Cell(harmless.Text(text)))
		}
		want = append(want, cells)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c",
		"import csv,io,json,sys; print(json.dumps(list(csv.reader(io.StringIO(sys.stdin.buffer.read().decode(), newline='')))))")
	cmd.Stdin = &b
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got [][]string
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%q, want %q", got, want)
	}
}

// FuzzCell holds that no cell is a formula, that its text is found again, and that the
// reader of the standard library finds the cell.
func FuzzCell(f *testing.F) {
	for _, row := range hostile {
		for _, text := range row {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		cell := Cell(text)
		if first, _ := utf8.DecodeRuneInString(cell); cell != "" && strings.ContainsRune(formulas, first) {
			t.Errorf("%q begins like a formula", cell)
		}
		if got := Plain(cell); got != text {
			t.Errorf("%q came back as %q", text, got)
		}
		var b bytes.Buffer
		w := NewWriter(&b)
		if err := w.Write("x", text); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		row, err := csv.NewReader(&b).Read()
		if err != nil || row[1] != Cell(harmless.Text(text)) {
			t.Errorf("%q: %q, %v", text, row, err)
		}
	})
}
