package terminal

import (
	"fmt"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/summary"
)

// row is one line of the summary.
type row struct {
	n       uint64
	label   string
	note    string
	style   style // of label
	heading bool  // there is no number to show
}

// summary writes what was seen, what became of it, and what was lost and why.
func (p *printer) summary(c *output.Counters) error {
	sum, err := summary.Of(c, p.capture)
	if err != nil {
		return err
	}
	var groups [][]row
	for _, group := range sum.Groups {
		groups = append(groups, rowsOf(group))
	}
	if len(sum.Lost) == 0 {
		groups = append(groups, []row{{heading: true, label: "nothing lost", style: green}})
	} else {
		groups = append(groups, append([]row{{heading: true, label: "lost:", style: bold}}, rowsOf(sum.Lost)...))
	}
	p.table(groups)
	return p.flush()
}

// rowsOf makes rows of a summary fit to be shown.
func rowsOf(list []summary.Row) (rows []row) {
	for _, r := range list {
		rows = append(rows, row{n: r.N, label: printable(r.Label), note: printable(r.Note), style: levels[r.Level]})
	}
	return rows
}

// maxLabel is the widest label that the notes of its group stand behind; the note
// of a wider one stands behind that alone.
const maxLabel = 34

// table writes groups of rows: the numbers in one column, and the notes of each
// group in another.
func (p *printer) table(groups [][]row) {
	digits := 0
	for _, group := range groups {
		for _, r := range group {
			digits = max(digits, len(thousands(r.n)))
		}
	}
	for _, group := range groups {
		labels := 0
		for _, r := range group {
			if n := columns(r.label); r.note != "" && n <= maxLabel {
				labels = max(labels, n)
			}
		}
		for _, r := range group {
			number := thousands(r.n)
			if r.heading {
				number = ""
			}
			line := fmt.Sprintf("%*s  %s", digits, number, p.styled(r.style, r.label))
			column := max(labels, columns(r.label))
			if room := p.width - digits - column - 4; r.note != "" && room > 0 {
				line += strings.Repeat(" ", column-columns(r.label)+2)
				line += p.styled(faint, truncated(r.note, room))
			}
			p.buf.WriteString(line + "\n")
		}
	}
}
