//go:build manual

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manualCommands has the command that writes the manual: a page for each command, and
// one for the configuration file. The text is that of the help.
func manualCommands() []*cobra.Command {
	return []*cobra.Command{{
		Use:     "man DIR",
		Short:   "Write the pages of the manual",
		Long:    `Write the pages of the manual into a folder. They have the date that SOURCE_DATE_EPOCH gives.`,
		Example: "  oddcert man pages",
		Hidden:  true,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			date, err := manualDate()
			if err != nil {
				return err
			}
			return writeManual(cmd.Root(), args[0], date)
		},
	}}
}

// manualDate is the date of the pages.
func manualDate() (time.Time, error) {
	var seconds int64
	if _, err := fmt.Sscan(os.Getenv("SOURCE_DATE_EPOCH"), &seconds); err != nil {
		return time.Time{}, errors.New("SOURCE_DATE_EPOCH must be set to the seconds since 1970 of the pages' date")
	}
	return time.Unix(seconds, 0).UTC(), nil
}

func writeManual(root *cobra.Command, dir string, date time.Time) error {
	pages := map[string][]byte{"oddcert.yaml.5": configurationPage(date)}
	var add func(cmd *cobra.Command)
	add = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" {
			return
		}
		pages[manualName(cmd)+".1"] = commandPage(cmd, date)
		for _, below := range cmd.Commands() {
			add(below)
		}
	}
	add(root)
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return fmt.Errorf("write the manual: %w", err)
		}
	}
	return nil
}

// manualName is the name of a command's page, such as oddcert-es-setup.
func manualName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// commandPage is the page of one command.
func commandPage(cmd *cobra.Command, date time.Time) []byte {
	var p manPage
	p.title(manualName(cmd), "1", "User Commands", date)
	p.section("NAME")
	p.line(manualName(cmd) + ` \- ` + escaped(firstLower(cmd.Short)))
	p.section("SYNOPSIS")
	name, rest := cmd.CommandPath(), strings.TrimPrefix(cmd.UseLine(), cmd.CommandPath())
	if cmd.HasAvailableSubCommands() {
		rest = " COMMAND [flags]"
	}
	p.line(bold(name) + escaped(rest))
	p.section("DESCRIPTION")
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	p.text(text)
	var see []string
	if cmd.HasParent() {
		see = append(see, reference(manualName(cmd.Parent()), "1"))
	}
	if cmd.HasAvailableSubCommands() {
		p.section("COMMANDS")
		for _, below := range cmd.Commands() {
			if below.IsAvailableCommand() && below.Name() != "help" {
				p.item(bold(below.CommandPath()), below.Short+".")
				see = append(see, reference(manualName(below), "1"))
			}
		}
	}
	p.flags(cmd)
	if cmd.Name() == "replay" || cmd.Name() == "live" || !cmd.HasParent() {
		p.section("EXIT STATUS")
		for _, s := range exitStatuses {
			p.item(bold(fmt.Sprint(s.status)), sentence(strings.Join(strings.Fields(s.meaning), " ")))
		}
	}
	if cmd.Flags().Lookup("config") != nil || !cmd.HasParent() {
		p.section("FILES")
		p.item(italic(defaultConfig), "The configuration file, where no other is named.")
		p.item(italic("/var/lib/oddcert/spool"), "Records that wait for the outputs.")
		see = append(see, reference("oddcert.yaml", "5"))
	}
	if cmd.HasExample() {
		p.section("EXAMPLES")
		p.text(cmd.Example)
	}
	p.section("SEE ALSO")
	p.line(strings.Join(see, ", "))
	return p.Bytes()
}

// flags writes the flags of a command by group, as its help has them.
func (p *manPage) flags(cmd *cobra.Command) {
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	grouped := map[string][]*pflag.Flag{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		group := groupOther
		if g := f.Annotations[groupAnnotation]; len(g) > 0 {
			group = g[0]
		}
		if !f.Hidden {
			grouped[group] = append(grouped[group], f)
		}
	})
	p.section("OPTIONS")
	for _, group := range groups {
		if len(grouped[group]) > 0 && len(grouped) > 1 {
			p.subsection(group)
		}
		for _, f := range grouped[group] {
			name := bold("--" + f.Name)
			if f.Shorthand != "" {
				name = bold("-"+f.Shorthand) + ", " + name
			}
			kind, usage := pflag.UnquoteUsage(f)
			if kind != "" {
				name += " " + italic(kind)
			}
			p.item(name, sentence(usage))
		}
	}
}

// configurationPage is the page of the configuration file.
func configurationPage(date time.Time) []byte {
	var p manPage
	c := new(config)
	p.title("oddcert.yaml", "5", "File Formats", date)
	p.section("NAME")
	p.line(`oddcert.yaml \- configuration of oddcert`)
	p.section("SYNOPSIS")
	p.line(italic(defaultConfig))
	p.section("DESCRIPTION")
	p.text(configCommand().Long)
	p.section("OPTIONS")
	p.text("Each option has an example of its value.")
	for o, first := range c.grouped() {
		if first {
			p.subsection(o.group)
		}
		p.item(bold(o.key()+":")+" "+escaped(o.example), sentence(withDefault(o.usage, o.standard)))
	}
	p.section("OUTPUTS")
	p.text("An output has a name, and the settings of its type. They stand under its name in the option output. All types have these:")
	settings := new(outputConfig).table()
	list := func(which func(*setting) bool) {
		for _, s := range settings {
			if which(s) {
				p.item(bold(s.key+":")+" "+escaped(s.example), sentence(withDefault(s.usage, s.standard)))
			}
		}
	}
	list(func(s *setting) bool { return s.types == nil })
	var encrypting []string
	for _, t := range outputTypes {
		if slices.ContainsFunc(settings, func(s *setting) bool { return s.tls && s.has(t.name) }) {
			encrypting = append(encrypting, t.name)
		}
		p.subsection("Type " + t.name)
		p.text(sentence(t.usage))
		list(func(s *setting) bool { return s.types != nil && !s.tls && s.has(t.name) })
	}
	p.subsection("TLS")
	p.text("Types that can use TLS, which are " + strings.Join(encrypting, ", ") + ", have these too:")
	list(func(s *setting) bool { return s.tls })
	p.section("FILES")
	p.item(italic(defaultConfig), "The configuration file, where no other is named.")
	p.section("EXAMPLES")
	p.text(`  name: span-1
  interface: [eth1, eth2]
  es: [https://es.example.net:9200]
  es_api_key_file: /etc/oddcert/api-key
  output:
    qradar: {type: syslog, url: "tls://qradar.example.net:6514", format: leef}`)
	p.section("SEE ALSO")
	p.line(reference("oddcert", "1") + ", " + reference("oddcert-live", "1") + ", " + reference("oddcert-config", "1"))
	return p.Bytes()
}

func withDefault(usage, standard string) string {
	if standard == "" {
		return usage
	}
	return usage + " (default: " + standard + ")"
}

// sentence makes one of a text of the help.
func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

func firstLower(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// manPage is a page in the language of man(7).
type manPage struct{ bytes.Buffer }

func (p *manPage) line(s string) { p.WriteString(s + "\n") }

func (p *manPage) title(name, number, volume string, date time.Time) {
	// Left-aligned: the examples of options have no places to break a line at.
	fmt.Fprintf(p, ".TH %q %s %s %q %q\n.ad l\n", escaped(strings.ToUpper(name)), number, date.Format(time.DateOnly), escaped("oddcert "+version()), volume)
}

func (p *manPage) section(name string) { fmt.Fprintf(p, ".SH %q\n", name) }

func (p *manPage) subsection(name string) { fmt.Fprintf(p, ".SS %q\n", name) }

// item writes a paragraph with a tag before it; the tag has its fonts already.
func (p *manPage) item(tag, text string) { fmt.Fprintf(p, ".TP\n%s\n%s\n", tag, escaped(text)) }

// text writes paragraphs. Lines that are indented stay as they are.
func (p *manPage) text(s string) {
	const begin, end = ".RS 4\n.nf", ".fi\n.RE"
	for i, paragraph := range strings.Split(s, "\n\n") {
		if i > 0 {
			p.line(".PP")
		}
		kept := false
		for line := range strings.SplitSeq(paragraph, "\n") {
			text, indented := strings.CutPrefix(line, "  ")
			if indented && !kept {
				p.line(begin)
			} else if kept && !indented {
				p.line(end)
			}
			kept = indented
			p.line(escaped(text))
		}
		if kept {
			p.line(end)
		}
	}
}

func bold(s string) string   { return `\fB` + escaped(s) + `\fR` }
func italic(s string) string { return `\fI` + escaped(s) + `\fR` }

func reference(name, number string) string { return bold(name) + "(" + number + ")" }

// escaped is s without a character that man(7) would take for something else: a
// backslash, a hyphen that is a minus sign, quotes that would be curly, and a dot or an
// apostrophe at the begin of a line.
func escaped(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", `\&...`).Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}
