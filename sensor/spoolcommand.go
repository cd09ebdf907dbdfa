package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

func spoolCommand() *cobra.Command {
	var c config
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "spool",
		Short: "Show what waits on disk for the outputs",
		Long: `Look after the spool: the folder where records wait for the outputs. Without DIR
it is the one that the configuration names.`,
		Example: `  sudo oddcert spool status
  sudo oddcert spool status --json /var/lib/oddcert/spool
  sudo oddcert spool forget old-siem`,
	}
	status := &cobra.Command{
		Use:   "status [DIR]",
		Short: "Show what waits for each output, also while a sensor is running",
		Long: `Show for each output how many records of which kind wait, the time of the
oldest, the bytes on disk that they are in, and the number of the first that the
output has not settled. Only files are read: a sensor that is running is not
disturbed.`,
		Args: atMostOneFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := c.spoolFolder(cmd, args)
			if err != nil {
				return err
			}
			st, err := spool.Inspect(dir)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(st)
			}
			return writeStatus(terminal.Harmless(cmd.OutOrStdout()), st, time.Now())
		},
	}
	status.Flags().BoolVar(&asJSON, "json", false, "write one JSON object")
	forget := &cobra.Command{
		Use:   "forget OUTPUT [DIR]",
		Short: "Drop what is kept for an output that is no longer configured",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name the output to forget, as spool status shows it")
			}
			return atMostOneFolder(cmd, args[1:])
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := c.spoolFolder(cmd, args[1:])
			if err != nil {
				return err
			}
			return spool.Forget(dir, args[0])
		},
	}
	c.bind(cmd, cmd.PersistentFlags(), 0)
	return group(cmd, status, forget)
}

func atMostOneFolder(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("%s takes one folder, not %d", cmd.CommandPath(), len(args))
	}
	return nil
}

// spoolFolder is the folder that args name, or else that of the configuration.
func (c *config) spoolFolder(cmd *cobra.Command, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	if err := c.load(cmd); err != nil {
		return "", err
	}
	if c.Spool != "" {
		return c.Spool, nil
	}
	return defaultSpool()
}

// writeStatus writes the status of a spool for people.
func writeStatus(w io.Writer, st *spool.Status, now time.Time) error {
	files := 0
	for _, q := range st.Queues {
		files += q.Segments
	}
	fmt.Fprintf(w, "%s: %d bytes in %s\n", st.Dir, st.Bytes, terminal.Count(files, "file", "files"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(st.Outputs) > 0 {
		fmt.Fprintln(t, "OUTPUT\tQUEUE\tOLDEST\tBYTES\tCURSOR\tWAITING")
	}
	for _, o := range st.Outputs {
		oldest, cursor := "-", strconv.FormatUint(o.Cursor, 10)
		if !o.Oldest.IsZero() {
			oldest = o.Oldest.Format(time.RFC3339)
			if age := now.Sub(o.Oldest); age > 0 {
				oldest += " (" + ago(age) + ")"
			}
		}
		switch {
		case o.Damaged:
			cursor = "damaged"
		case o.Cursor == 0:
			cursor = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", o.Output, o.Queue, oldest, o.Bytes, cursor, kindsOf(o.Waiting))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, q := range st.Queues {
		taken := false
		for _, o := range st.Outputs {
			taken = taken || o.Queue == q.Queue
		}
		if !taken && q.Records.Total() > 0 {
			fmt.Fprintf(w, "%s: %s for no output\n", q.Queue, kindsOf(q.Records))
		}
		if q.Damaged > 0 {
			fmt.Fprintf(w, "%s: %s, which cannot be read\n", q.Queue, terminal.Count(q.Damaged, "damaged place", "damaged places"))
		}
	}
	return nil
}

// ago writes how long something is ago, in its two largest units.
func ago(d time.Duration) string {
	if days := d / (24 * time.Hour); days > 0 {
		return fmt.Sprintf("%dd%dh ago", days, d%(24*time.Hour)/time.Hour)
	}
	if d < time.Minute {
		return d.Truncate(time.Second).String() + " ago"
	}
	return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s") + " ago"
}

// kindsOf writes how many records of which kind there are.
func kindsOf(n spool.Counts) string {
	var all []string
	for d := range output.Datasets {
		if n[d] > 0 {
			all = append(all, fmt.Sprintf("%d %s", n[d], d))
		}
	}
	return cmp.Or(strings.Join(all, ", "), "nothing")
}
