package terminal

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// printer writes alerts and the summary, in colour and as wide as the window
// where it writes to a terminal.
type printer struct {
	w     io.Writer
	color bool
	width int // columns
	buf   bytes.Buffer

	captures map[string]string // names of captures, by their paths
}

// newPrinter returns a printer for w.
func newPrinter(w io.Writer) *printer {
	p := &printer{w: w, width: 80}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			p.width = max(40, min(width, 100))
		}
	}
	return p
}

// style is the parameters of an SGR sequence (ECMA-48, section 8.3.117).
type style string

const (
	bold  style = "1"
	faint style = "2"
	green style = "32"
)

// levels has the style of each level.
var levels = map[string]style{
	"critical":      "1;97;41",
	"high":          "1;31",
	"medium":        "1;33",
	"low":           "1;36",
	"informational": "1;34",
}

func (p *printer) styled(s style, text string) string {
	if !p.color || s == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// labelWidth is the column at which the values of an alert begin.
const labelWidth = 12

// field writes a label and a value, in several lines where the value is long. An
// empty value is not shown. The value is as it comes from the wire.
func (p *printer) field(label, value string) {
	if value != "" {
		p.wrap(p.styled(faint, fmt.Sprintf("  %-*s", labelWidth-2, label)), labelWidth, value, "")
	}
}

// wrap writes text after head, which is indent columns wide. Further lines begin
// at the same column.
func (p *printer) wrap(head string, indent int, text string, s style) {
	for _, line := range wrapped(printable(text), p.width-indent) {
		p.buf.WriteString(head + p.styled(s, line) + "\n")
		head = strings.Repeat(" ", indent)
	}
}

func (p *printer) flush() error {
	_, err := p.buf.WriteTo(p.w)
	p.buf.Reset()
	if err != nil {
		return fmt.Errorf("write to the terminal: %w", err)
	}
	return nil
}
