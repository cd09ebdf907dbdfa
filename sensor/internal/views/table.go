package views

import (
	"html"
	"html/template"
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// Cell is one cell of a table.
type Cell struct {
	HTML HTML
	Key  string // what the row is sorted by, where that is not the text of the cell
}

// Column is one column of a table.
type Column struct {
	Name  string
	Class string // number, time, hash, name, address, flags, place or nowrap; empty for text
}

// Number is a cell that counts.
func Number(n uint64) Cell { return Cell{HTML(Count(n)), strconv.FormatUint(n, 10)} }

// Distinct is a cell that counts what is distinct.
func Distinct(c inventory.Count) Cell { return Cell{HTML(Counted(c)), strconv.FormatUint(c.N, 10)} }

// When is a cell with a time in nanoseconds since the Unix epoch.
func When(ns int64) Cell { return Cell{HTML(Time(ns)), strconv.FormatInt(ns, 10)} }

// Words is a cell with foreign text.
func Words(s string) Cell { return Cell{HTML: Text(s)} }

// Table is a table that can be sorted, filtered and copied.
type Table struct {
	ID      string // unique in its page
	Caption string
	Columns []Column
	Total   uint64 // how many rows there would be; the rest is in Rest
	Rest    string // where the rows are that are not shown
	Budget  int    // bytes of markup that its rows may have; 0 for any number
	Plain   bool   // it is short: nobody sorts or filters it

	rows []byte
	n    int
	full bool
}

// Add adds a row, unless the budget is used up. It reports whether there may be more.
func (t *Table) Add(cells ...Cell) bool {
	if t.full {
		return false
	}
	from := len(t.rows)
	b := append(t.rows, "<tr>"...)
	for i, c := range cells {
		tag := "td"
		if i == 0 {
			tag = "th"
		}
		b = append(append(b, '<'), tag...)
		if i == 0 {
			b = append(b, ` scope="row"`...)
		}
		if class := t.Columns[i].Class; class != "" {
			b = append(append(append(b, ` class="`...), class...), '"')
		}
		if c.Key != "" {
			b = append(append(append(b, ` data-key="`...), html.EscapeString(c.Key)...), '"')
		}
		b = append(append(b, '>'), c.HTML...)
		b = append(append(append(b, "</"...), tag...), '>')
	}
	b = append(b, "</tr>\n"...)
	if t.Budget > 0 && len(b) > t.Budget {
		t.rows, t.full = b[:from], true
		return false
	}
	t.rows = b
	t.n++
	return true
}

// Shown returns how many rows the table has.
func (t *Table) Shown() int { return t.n }

// Full reports whether a row did not fit.
func (t *Table) Full() bool { return t.full }

// HTML returns the table; a line where it has no rows.
func (t *Table) HTML() HTML {
	if t.n == 0 {
		return HTML(`<p class="soft">None.</p>`)
	}
	var b strings.Builder
	class := "scroll"
	if t.n >= longTable {
		class = "scroll long"
	}
	b.WriteString(`<div class="` + class + `" role="region" tabindex="0" aria-label="` + html.EscapeString(t.Caption) + `"><table`)
	if !t.Plain {
		b.WriteString(` data-tools`)
	}
	if t.ID != "" {
		b.WriteString(` id="` + html.EscapeString(t.ID) + `"`)
	}
	b.WriteString(`><caption class="hidden">` + html.EscapeString(t.Caption) + `</caption><thead><tr>`)
	for _, c := range t.Columns {
		b.WriteString(`<th scope="col"`)
		if c.Class != "" {
			b.WriteString(` class="` + c.Class + `"`)
		}
		b.WriteString(`>` + html.EscapeString(c.Name) + `</th>`)
	}
	b.WriteString("</tr></thead><tbody>\n")
	b.Write(t.rows)
	b.WriteString("</tbody></table></div>\n")
	b.WriteString(string(More(uint64(t.n), t.Total, t.Rest)))
	return HTML(b.String())
}

// More says how many of total are shown where that is not all of them, and where the rest is.
func More(shown, total uint64, rest string) HTML {
	if total <= shown {
		return ""
	}
	s := `<p class="more">` + Count(shown) + ` of ` + Count(total) + ` are shown.`
	if rest != "" {
		s += ` All are in ` + template.HTMLEscapeString(rest) + `.`
	}
	return HTML(s + "</p>\n")
}
