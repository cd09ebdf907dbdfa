package terminal

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"golang.org/x/term"

	"github.com/oddcert/oddcert/sensor/internal/harmless"
)

// Column is a column of a [Table].
type Column struct {
	Name  string // in lower case; a terminal shows it in upper case
	Right bool   // numbers, which are aligned at their right ends
	Gives bool   // it is made narrower where the window is too narrow
	Least int    // but not narrower than this; 0 for what is usual
}

// Cell is one value in a [Table]. Both texts are as they come from the wire.
type Cell struct {
	Text  string
	Short string // what a terminal shows in its place; empty for Text
	Tail  string // plain text of our own that a terminal shows behind, and never cuts
	Level string // of a rule: the cell has its colour; empty for none
}

// Table writes rows: aligned, in colour and as wide as the window where it writes to a
// terminal, and else with tabs between the values, and whole values. No value has a tab
// or the end of a line, which are written as escapes like all that does not print. The
// first line has the names of the columns; there is none where there is no row.
//
// The columns of a terminal are as wide as the first rows want them, so that the rows of
// any number need no memory.
type Table struct {
	printer *printer
	aligned bool
	columns []Column
	widths  []int
	rows    [][]Cell // that are not written yet; nil once the widths are known
	written bool
}

// NewTable returns a table that is written to w. Flush writes the last rows.
func NewTable(w io.Writer, columns []Column) *Table {
	t := &Table{printer: newPrinter(w), columns: columns, aligned: IsTerminal(w)}
	if width := windowWidth(w); width > 0 {
		t.printer.width = max(40, width)
	}
	return t
}

// windowWidth is how wide the window of a terminal is; 0 where that is not known.
func windowWidth(w io.Writer) int {
	if f, ok := w.(interface{ Fd() uintptr }); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return width
		}
	}
	return 0
}

// Write writes a row, with a cell for each column.
func (t *Table) Write(row ...Cell) error {
	if !t.aligned {
		if !t.written {
			t.written = true
			for i := range t.columns {
				t.separate(i, "\t")
				t.printer.buf.WriteString(t.columns[i].Name)
			}
			t.printer.buf.WriteByte('\n')
		}
		for i := range row {
			t.separate(i, "\t")
			t.printer.buf.WriteString(harmless.Text(row[i].Text))
		}
		t.printer.buf.WriteByte('\n')
		return t.full()
	}
	for i := range row {
		c := &row[i]
		if c.Short == "" {
			c.Short = c.Text
		}
		c.Short = printable(c.Short)
	}
	if t.widths != nil {
		t.align(row)
		return t.full()
	}
	if t.rows = append(t.rows, row); len(t.rows) == maxMeasured {
		t.measure()
	}
	return nil
}

// separate writes what is between the columns, before column i.
func (t *Table) separate(i int, text string) {
	if i > 0 {
		t.printer.buf.WriteString(text)
	}
}

// Flush writes what is left. After it no row can be written.
func (t *Table) Flush() error {
	if t.widths == nil && len(t.rows) > 0 {
		t.measure()
	}
	return t.printer.flush()
}

// full writes what there is once it is much.
func (t *Table) full() error {
	if t.printer.buf.Len() < maxBuffered {
		return nil
	}
	return t.printer.flush()
}

const gutter = "  " // between columns of a terminal

// measure finds how wide the columns are, and writes the rows that waited for it.
func (t *Table) measure() {
	t.widths = make([]int, len(t.columns))
	total := len(gutter) * (len(t.columns) - 1)
	for i, c := range t.columns {
		t.widths[i] = columns(c.Name)
		for _, row := range t.rows {
			t.widths[i] = max(t.widths[i], columns(row[i].Short)+len(row[i].Tail))
		}
		total += t.widths[i]
	}
	for total > t.printer.width { // the widest of those that can give way does, column by column
		widest := -1
		for i, c := range t.columns {
			if c.Gives && t.widths[i] > cmp.Or(c.Least, minColumn) && (widest < 0 || t.widths[i] > t.widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		t.widths[widest]--
		total--
	}
	head := make([]Cell, len(t.columns))
	for i, c := range t.columns {
		head[i].Short = strings.ToUpper(c.Name)
	}
	t.line(head, faint)
	for _, row := range t.rows {
		t.align(row)
	}
	t.rows = nil
}

func (t *Table) align(row []Cell) { t.line(row, "") }

// line writes one row. A value in the last column is not cut, as nothing stands behind.
func (t *Table) line(row []Cell, s style) {
	b := &t.printer.buf
	for i := range row {
		t.separate(i, gutter)
		text := row[i].Short
		last := i == len(row)-1
		if t.columns[i].Gives {
			text = truncated(text, t.widths[i]-len(row[i].Tail))
		}
		text += row[i].Tail
		space := strings.Repeat(" ", max(0, t.widths[i]-columns(text)))
		look := s
		if row[i].Level != "" {
			look = levels[row[i].Level]
		}
		switch text = t.printer.styled(look, text); {
		case t.columns[i].Right:
			b.WriteString(space + text)
		case last:
			b.WriteString(text)
		default:
			b.WriteString(text + space)
		}
	}
	b.WriteByte('\n')
}

// Page is text for a person: titles, values with labels, and lines. All text is as it
// comes from the wire. Methods write nothing before Flush.
type Page struct{ p *printer }

// NewPage returns a page that is written to w.
func NewPage(w io.Writer) *Page { return &Page{newPrinter(w)} }

// Title writes a line in bold. One with a level has its colour.
func (g *Page) Title(text, level string) {
	look := bold
	if level != "" {
		look = levels[level]
	}
	g.p.wrap("", 0, text, look)
}

// Field writes a value with its label, of at most 9 characters. An empty value is not
// shown.
func (g *Page) Field(label, value string) { g.p.field(label, value) }

// Point writes a line below a field, with a point before it.
func (g *Page) Point(text string) {
	g.p.wrap(strings.Repeat(" ", labelWidth)+"· ", labelWidth+2, text, "")
}

// Line writes text after head, which is plain text of our own. Further lines of the
// text begin below its first. Where is shown faintly in a line of its own, whole: it is
// there to be copied.
func (g *Page) Line(head, text, where string) {
	g.p.wrap(head, columns(head), text, "")
	if where != "" {
		fmt.Fprintf(&g.p.buf, "%*s%s\n", columns(head), "", g.p.styled(faint, harmless.Text(where)))
	}
}

// Gap writes an empty line.
func (g *Page) Gap() { g.p.buf.WriteByte('\n') }

// Flush writes what there is.
func (g *Page) Flush() error { return g.p.flush() }
