// Package safecsv writes tables of foreign text for spreadsheets.
package safecsv

import (
	"encoding/csv"
	"io"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/harmless"
)

// Writer writes rows as RFC 4180 has them, with CRLF at the ends of lines. What does not
// print is written as package harmless escapes it. A cell that a
// spreadsheet would take for a formula gets an apostrophe before it, which means text
// to spreadsheets: certificates hold what their makers like, and a formula in one could
// fetch an address or start a program of whoever opens the table. Programs that read
// the table back take the apostrophe away, see [Plain].
type Writer struct {
	w   *csv.Writer
	row []string
}

// NewWriter returns a writer to w. What it writes is buffered until Flush.
func NewWriter(w io.Writer) *Writer {
	c := csv.NewWriter(w)
	c.UseCRLF = true
	return &Writer{w: c}
}

// Write writes a row. It keeps nothing of it.
func (w *Writer) Write(row ...string) error {
	w.row = w.row[:0]
	for _, cell := range row {
		w.row = append(w.row, Cell(harmless.Text(cell)))
	}
	return w.w.Write(w.row)
}

// Flush writes what is buffered, and returns the first error of any write.
func (w *Writer) Flush() error {
	w.w.Flush()
	return w.w.Error()
}

// formulas begin cells that are not taken for text: those that OWASP names (CSV
// Injection), with the wide forms, which Excel takes for the narrow ones where Japanese
// or Chinese is its language.
const formulas = "=+-@\t\r\n＝＋－＠"

// Cell returns text as a cell that is no formula. A cell that begins with apostrophes
// before a formula gets one more, so that Plain finds what there was.
func Cell(text string) string {
	if formula(text) {
		return "'" + text
	}
	return text
}

// Plain returns the text that Cell has made a cell of.
func Plain(cell string) string {
	if rest, ok := strings.CutPrefix(cell, "'"); ok && formula(rest) {
		return rest
	}
	return cell
}

// formula reports whether text is a formula, perhaps behind apostrophes.
func formula(text string) bool {
	for _, r := range strings.TrimLeft(text, "'") {
		return strings.ContainsRune(formulas, r)
	}
	return false
}
