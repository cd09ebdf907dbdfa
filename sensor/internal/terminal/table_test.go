package terminal

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

const foreign = "a\tb\nc\x1b[31m\u202e漢字\xff"

// TestTablePipe holds that each row is one line with as many values as there are columns.
func TestTablePipe(t *testing.T) {
	var b bytes.Buffer
	table := NewTable(&b, []Column{{Name: "one"}, {Name: "two", Right: true}, {Name: "three", Gives: true}})
	for range maxMeasured + 2 {
		if err := table.Write(Cell{Text: foreign, Short: "short"}, Cell{Text: "2"}, Cell{Text: strings.Repeat("x", 5000)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != maxMeasured+3 || lines[0] != "one\ttwo\tthree" {
		t.Errorf("%d lines, the first %q", len(lines), lines[0])
	}
	for _, line := range lines[1:] {
		if want := `a\x09b\x0ac\x1b[31m\u202e漢字\xff` + "\t2\t" + strings.Repeat("x", 5000); line != want {
			t.Fatalf("%q, want %q", line, want)
		}
	}
}

// aligned is a table as a terminal of a width shows it.
func aligned(t *testing.T, width int, columns []Column, rows ...[]Cell) []string {
	t.Helper()
	var b bytes.Buffer
	table := NewTable(&b, columns)
	table.aligned, table.printer.width = true, width
	for _, row := range rows {
		if err := table.Write(row...); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

// TestTableTerminal has the look of a table.
func TestTableTerminal(t *testing.T) {
	columns := []Column{{Name: "name", Gives: true}, {Name: "n", Right: true}, {Name: "flags"}}
	got := aligned(t, 40, columns,
		[]Cell{{Text: "漢字.example"}, {Text: "7"}, {Text: "a b"}},
		[]Cell{{Text: foreign, Short: "s\x1bt"}, {Text: "12345"}, {}},
		[]Cell{{Text: strings.Repeat("long", 20)}, {Text: "1"}, {Text: "flag"}})
	want := []string{
		"NAME                            N  FLAGS",
		"漢字.example                    7  a b",
		`s\x1bt                      12345  `,
		"longlonglonglonglonglongl…      1  flag",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestTableTail holds that what is shown behind a value is not cut with it.
func TestTableTail(t *testing.T) {
	got := aligned(t, 40, []Column{{Name: "server", Gives: true, Least: 18}, {Name: "hash"}},
		[]Cell{{Text: "62.109.224.120:443 62.109.229.158:443", Short: "62.109.224.120:443", Tail: " +15"}, {Text: strings.Repeat("A", 20)}},
		[]Cell{{Text: "192.0.2.2:443"}, {Text: "B"}})
	want := []string{
		"SERVER              HASH",
		"62.109.224.12… +15  AAAAAAAAAAAAAAAAAAAA",
		"192.0.2.2:443       B",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestTableWidth holds that a table is no wider than its window where its columns can
// give way, and that no line is wider for what comes after the rows that were measured.
func TestTableWidth(t *testing.T) {
	columns := []Column{{Name: "a", Gives: true}, {Name: "b", Gives: true}, {Name: "c", Gives: true}}
	for width := 40; width < 200; width += 7 {
		var rows [][]Cell
		for i := range 3 * maxMeasured {
			rows = append(rows, []Cell{{Text: strings.Repeat("漢", i%50)}, {Text: strings.Repeat("x", i%90)}, {Text: strings.Repeat(foreign, i%7)}})
		}
		for _, line := range aligned(t, width, columns, rows...) {
			if n := widthOf(line); n > width {
				t.Fatalf("%d columns in a window of %d: %q", n, width, line)
			}
		}
	}
}

// TestTableLeast holds that a column is not made narrower than it says, as long as others
// give way.
func TestTableLeast(t *testing.T) {
	columns := []Column{{Name: "server", Gives: true, Least: 18}, {Name: "name", Gives: true}, {Name: "issuer", Gives: true}}
	long := Cell{Text: strings.Repeat("x", 30)}
	got := aligned(t, 44, columns, []Cell{{Text: "192.0.2.2:50443 +3"}, long, long})
	if want := "192.0.2.2:50443 +3  xxxxxxxxxx…  xxxxxxxxxx…"; got[1] != want {
		t.Errorf("%q, want %q", got[1], want)
	}
}

func widthOf(s string) int { return columns(s) }

// TestTableGone holds that the error of a write comes out.
func TestTableGone(t *testing.T) {
	table := NewTable(gone{}, []Column{{Name: "a"}})
	var err error
	for i := 0; i < 100000 && err == nil; i++ {
		err = table.Write(Cell{Text: "value"})
	}
	if !errors.Is(err, errGone) {
		t.Error(err)
	}
}

var errGone = errors.New("gone")

type gone struct{}

func (gone) Write([]byte) (int, error) { return 0, errGone }

// TestPage has the look of a page, and keeps what is there to be copied in one piece.
func TestPage(t *testing.T) {
	var b bytes.Buffer
	p := NewPage(&b)
	p.Title("A title", "high")
	p.Field("Label", "value"+foreign)
	p.Field("Empty", "")
	p.Point("a point")
	p.Line("  └─ ", strings.Repeat("word ", 30), "ip.addr=="+strings.Repeat("1", 100)+"\x1b")
	p.Gap()
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	for _, want := range []string{"A title\n", "  Label     value" + `a\x09b\x0ac\x1b[31m\u202e漢字\xff` + "\n", "            · a point\n", "  └─ word", "     ip.addr==" + strings.Repeat("1", 100) + `\x1b` + "\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if strings.Contains(got, "Empty") || !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\t") {
		t.Errorf("%q", got)
	}
}
