package terminal

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/doctor"
)

// findingStyles has the style of each level.
var findingStyles = map[doctor.Level]style{doctor.OK: green, doctor.Warning: "1;33", doctor.Problem: "1;31"}

// findingIndent is the column at which the text of a finding begins: its level and its
// check come first.
const findingIndent = 2 + 9 + 14

// Findings shows findings by group and subject, and how many there are of each level.
func Findings(w io.Writer, findings []doctor.Finding) error {
	p := newPrinter(w)
	for _, group := range []string{doctor.GroupConfig, doctor.GroupMachine, doctor.GroupInterface, doctor.GroupTraffic, doctor.GroupOutput} {
		var subjects []string
		for _, f := range findings {
			if f.Group == group && !slices.Contains(subjects, f.Subject) {
				subjects = append(subjects, f.Subject)
			}
		}
		for _, subject := range subjects {
			fmt.Fprintf(&p.buf, "%s\n", p.styled(bold, strings.TrimSpace(strings.ToUpper(group[:1])+group[1:]+" "+printable(subject))))
			for _, f := range findings {
				if f.Group == group && f.Subject == subject {
					p.finding(&f)
				}
			}
			p.buf.WriteByte('\n')
		}
	}
	fmt.Fprintf(&p.buf, "%d ok, %s, %s\n", doctor.Count(findings, doctor.OK),
		Count(doctor.Count(findings, doctor.Warning), "warning", "warnings"), Count(doctor.Count(findings, doctor.Problem), "problem", "problems"))
	return p.flush()
}

// finding writes a finding. Its command is not wrapped, so that it can be copied.
func (p *printer) finding(f *doctor.Finding) {
	head := "  " + p.styled(findingStyles[f.Level], fmt.Sprintf("%-9s", f.Level)) + p.styled(faint, fmt.Sprintf("%-14s", f.Check))
	p.wrap(head, findingIndent, f.Text, "")
	if f.Fix != "" {
		fmt.Fprintf(&p.buf, "%*s%s\n", findingIndent, "", p.styled(bold, "$ "+printable(f.Fix)))
	}
}
