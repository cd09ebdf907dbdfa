package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

// reasonColumns bounds a reason in the table of dead letters.
const reasonColumns = 60

// deadLetters is what the commands about dead letters are told.
type deadLetters struct {
	config config
	dir    string // of the spool, empty for that of the configuration
	output string // only letters of this output; empty for all
	json   bool
	all    bool
}

func deadlettersCommand() *cobra.Command {
	var d deadLetters
	cmd := &cobra.Command{
		Use:   "deadletters",
		Short: "Show records that were refused for good, and send them again",
		Long: `A record that a receiver will never accept is a dead letter: it is kept in the
folder of the spool, with the receiver's reason, and holds up nothing. The files
are bounded; the oldest letters are given up first.`,
		Example: `  sudo oddcert deadletters list
  sudo oddcert deadletters show 00065b0d6d5cbd5e3d0a4d2f7a1f3c55
  sudo oddcert deadletters retry --output siem`,
	}
	list := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, the oldest first",
		Args:  noArguments,
		RunE:  d.list,
	}
	list.Flags().BoolVar(&d.json, "json", false, "write one JSON object a line, without the records")
	show := &cobra.Command{
		Use:   "show ID…",
		Short: "Show dead letters with their records, as JSON",
		RunE:  d.show,
	}
	retry := &cobra.Command{
		Use:   "retry {ID… | --all | --output NAME}",
		Short: "Have the outputs send dead letters again",
		Long: `Mark dead letters to be sent again, once what their receiver did not like has
been changed. The sensor that has the spool open sends them within seconds, or
else the next one that has their output; other outputs do not get them. A letter
that is delivered is removed. One that is refused again stays, with the new
reason.

Run it as the user of the sensor, for example
sudo -u oddcert oddcert deadletters retry --all --spool /var/lib/oddcert/spool`,
		RunE: d.retry,
	}
	retry.Flags().BoolVar(&d.all, "all", false, "all letters")
	d.config.bind(cmd, cmd.PersistentFlags(), 0)
	cmd.PersistentFlags().StringVar(&d.dir, "spool", "", "`folder` of the spool (default: that of the configuration)")
	_ = cmd.RegisterFlagCompletionFunc("spool", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return dirs() })
	for _, sub := range []*cobra.Command{list, show, retry} {
		sub.Flags().StringVar(&d.output, "output", "", "only letters of the output with this `name`")
	}
	return group(cmd, list, show, retry)
}

// open finds the dead letters, and has damaged lines of their files on standard error.
func (d *deadLetters) open(cmd *cobra.Command) (*delivery.DeadLetters, error) {
	var args []string
	if d.dir != "" {
		args = []string{d.dir}
	}
	dir, err := d.config.spoolFolder(cmd, args)
	if err != nil {
		return nil, err
	}
	if _, err := os.ReadDir(dir); err != nil { // without it, there would be no letters
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	return delivery.NewDeadLetters(dir), nil
}

// each calls f for each letter of the output. Lines that are none are said, and passed
// over.
func (d *deadLetters) each(cmd *cobra.Command, letters *delivery.DeadLetters, f func(l *delivery.DeadLetter) error) error {
	warn := warnTo(cmd)
	for l, err := range letters.All() {
		if err != nil {
			warn(err)
			continue
		}
		if !d.of(&l) {
			continue
		}
		if err := f(&l); err != nil {
			return err
		}
	}
	return nil
}

// of reports whether a letter is of the output that was named.
func (d *deadLetters) of(l *delivery.DeadLetter) bool { return d.output == "" || l.Output == d.output }

func (d *deadLetters) list(cmd *cobra.Command, _ []string) error {
	letters, err := d.open(cmd)
	if err != nil {
		return err
	}
	if d.json {
		return d.each(cmd, letters, func(l *delivery.DeadLetter) error {
			return writeJSON(cmd.OutOrStdout(), "", struct {
				*delivery.DeadLetter
				Document *struct{} `json:"document,omitempty"` // left out
			}{DeadLetter: l})
		})
	}
	out := terminal.Harmless(cmd.OutOrStdout())
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	n, again := 0, 0
	err = d.each(cmd, letters, func(l *delivery.DeadLetter) error {
		if n++; n == 1 {
			fmt.Fprintln(t, "TIME\tOUTPUT\tDATASET\tREASON\tID")
		}
		var plain strings.Builder // before it is cut and aligned
		fmt.Fprint(terminal.Harmless(&plain), strings.Join(strings.Fields(l.Reason), " "))
		reason := plain.String()
		if l.Again {
			again++
			reason = "(to be sent again) " + reason
		}
		if utf8.RuneCountInString(reason) > reasonColumns {
			reason = string([]rune(reason)[:reasonColumns-1]) + "…"
		}
		_, err := fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", l.Time.Format(time.RFC3339), l.Output, l.Dataset, reason, l.ID)
		return err
	})
	if err := errors.Join(err, t.Flush()); err != nil {
		return err
	}
	if n == 0 {
		fmt.Fprintln(out, "no dead letters")
	} else if again > 0 {
		fmt.Fprintf(out, "%d of %d wait to be sent again\n", again, n)
	}
	return nil
}

func (d *deadLetters) show(cmd *cobra.Command, ids []string) error {
	if len(ids) == 0 {
		return errors.New("name the letters by their ids, as deadletters list shows them")
	}
	letters, err := d.open(cmd)
	if err != nil {
		return err
	}
	missing := slices.Clone(ids)
	err = d.each(cmd, letters, func(l *delivery.DeadLetter) error {
		if !slices.Contains(ids, l.ID) {
			return nil
		}
		missing = slices.DeleteFunc(missing, func(id string) bool { return id == l.ID })
		return writeJSON(cmd.OutOrStdout(), "  ", l)
	})
	return errors.Join(err, d.unknown(missing))
}

// writeJSON writes v as JSON that is fit for a terminal, too: what could control it is
// escaped.
func writeJSON(w io.Writer, indent string, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, visibleJSON(b.String()))
	return err
}

// visibleJSON is JSON in which what could control a terminal is escaped, but for the
// ends of lines.
func visibleJSON(text string) string {
	var safe strings.Builder
	for _, r := range text {
		if r != '\n' && (unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r)) && r <= 0xFFFF {
			fmt.Fprintf(&safe, `\u%04x`, r) // within a string, as everything else is ASCII
		} else {
			safe.WriteRune(r)
		}
	}
	return safe.String()
}

// unknown is an error about ids that no letter has.
func (d *deadLetters) unknown(ids []string) (err error) {
	of := ""
	if d.output != "" {
		of = " of output " + d.output
	}
	for _, id := range ids {
		err = errors.Join(err, fmt.Errorf("no dead letter%s has the id %s", of, id))
	}
	return err
}

func (d *deadLetters) retry(cmd *cobra.Command, ids []string) error {
	if len(ids) == 0 && !d.all && d.output == "" {
		return errors.New("say which letters: their ids, --output NAME or --all")
	}
	if d.all && len(ids)+len(d.output) > 0 {
		return errors.New("--all means all letters: leave out the ids and --output, or --all")
	}
	letters, err := d.open(cmd)
	if err != nil {
		return err
	}
	chosen := func(l *delivery.DeadLetter) bool {
		return d.of(l) && (len(ids) == 0 || slices.Contains(ids, l.ID))
	}
	missing, waiting := slices.Clone(ids), map[string]int{}
	err = d.each(cmd, letters, func(l *delivery.DeadLetter) error {
		if chosen(l) {
			missing = slices.DeleteFunc(missing, func(id string) bool { return id == l.ID })
			waiting[l.Output]++
		}
		return nil
	})
	if err := errors.Join(err, d.unknown(missing)); err != nil {
		return err
	}
	if len(waiting) == 0 {
		return errors.New("there are no such dead letters")
	}
	if _, err := letters.SendAgain(chosen); err != nil {
		return err
	}
	w := terminal.Harmless(cmd.OutOrStdout())
	for _, name := range slices.Sorted(maps.Keys(waiting)) {
		fmt.Fprintf(w, "%s: %s to be sent again\n", name, terminal.Count(waiting[name], "dead letter", "dead letters"))
	}
	return nil
}
