package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/query"
)

// certs is what the commands that ask about certificates are told.
type certs struct {
	config config
	json   bool
}

func certsCommand() *cobra.Command {
	q := new(certs)
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Ask an inventory, or captures, about certificates",
		Long: `Ask about certificates. PATH is an inventory, or captures and folders of them,
which are read first. Without PATH it is the inventory that the configuration
names, or the one of the sensor that runs here.

The answer is a table on a terminal, has tabs between its values in a pipe, and
is one JSON object a line with --json, with the names that records have.

Exit status:
  0  something was found; of diff: both were read
  1  nothing was found, or wrong use`,
		Example: `  oddcert certs list --untrusted capture.pcap
  oddcert certs list --sort -servers --limit 1 captures/
  oddcert certs show 149190E5014F4322 capture.pcap
  oddcert certs pivot 192.0.2.2 capture.pcap
  oddcert certs export --alerting capture.pcap
  oddcert certs diff captures/a.pcap capture.pcap`,
	}
	q.config.bind(cmd, cmd.PersistentFlags(), onInventory)
	return group(cmd, q.listCommand(), q.showCommand(), q.pivotCommand(), q.exportCommand(), q.diffCommand(), q.postureCommand())
}

// open opens what paths name: an inventory, or captures. It finds out which by content.
func (q *certs) open(cmd *cobra.Command, paths []string) (*inventory.Store, error) {
	if len(paths) == 0 {
		if err := q.config.load(cmd); err != nil {
			return nil, err
		}
		path := q.config.inventoryFile(true)
		if path == "" {
			return nil, errors.New("there is no inventory of a sensor here: name one, or captures")
		}
		return inventory.OpenForReading(path)
	}
	for _, path := range paths {
		is, err := isInventory(path)
		if err != nil {
			return nil, err
		}
		if is && len(paths) > 1 {
			return nil, fmt.Errorf("%s is an inventory: ask one alone, or captures", path)
		}
		if is {
			return inventory.OpenForReading(path)
		}
	}
	return readInventory(cmd, &q.config, paths)
}

// criteria are what certificates are chosen by, as it was written.
type criteria struct {
	flags                                        []bool // of query.FlagNames
	role                                         string
	hashes                                       []string
	issuer, server, client, seenSince, at, where string
}

// none reports whether nothing was chosen.
func (c *criteria) none() bool {
	return !slices.Contains(c.flags, true) && c.hashes == nil && c.issuer+c.server+c.client+c.seenSince+c.where == "" && c.role == "leaf"
}

// bind registers the flags.
func (c *criteria) bind(cmd *cobra.Command) {
	c.flags = make([]bool, len(query.FlagNames()))
	for i, name := range query.FlagNames() {
		cmd.Flags().BoolVar(&c.flags[i], name, false, flagHelp[name])
	}
	f := cmd.Flags()
	f.StringArrayVar(&c.hashes, "hash", nil, "only the one with this `hash`; can be repeated")
	f.StringVar(&c.issuer, "issuer", "", "issuer's distinguished name has this `text`, in any case")
	f.StringVar(&c.server, "server", "", "shown by this server, or for it: an `address`, network, address:port, name or *.name")
	f.StringVar(&c.client, "client", "", "shown to this client: an `address` or a network")
	f.StringVar(&c.seenSince, "seen-since", "", "last shown at this `time` or later: 2026-11-22, 2026-11-22T08:00:00Z, or 7d before the last handshake of all")
	f.StringVar(&c.where, "where", "", "a `selection` as in a rule, over the fields that --json shows")
	f.StringVar(&c.role, "role", "leaf", "where it stood in chains, a `word`: leaf, issuer, client or any")
	f.StringVar(&c.at, "at", "", "judge validity at this `time`, or now, and not when the certificate was shown")
	inGroup(cmd, groupChoice, append(slices.Clone(query.FlagNames()), "hash", "issuer", "server", "client", "seen-since", "where", "role", "at")...)
	complete(cmd, "role", roleNames...)
	complete(cmd, "at", "now")
}

var flagHelp = map[string]string{
	"expired":       "shown after its end",
	"not-yet-valid": "shown before its begin",
	"self-signed":   "issuer and subject are the same",
	"weak":          "weak key, or weak hash in the signature of somebody else",
	"untrusted":     "no chain of good signatures to a trusted root",
	"shared":        "shown by servers of several addresses",
	"alerting":      "alerts were raised for it",
}

var roleNames = []string{"leaf", "issuer", "client", "any"}

// inGroup puts flags into a group of the help.
func inGroup(cmd *cobra.Command, group string, names ...string) {
	for _, name := range names {
		cmd.Flags().Lookup(name).Annotations = map[string][]string{groupAnnotation: {group}}
	}
	cmd.Flags().SortFlags = false
}

// complete has a shell complete the values of a flag.
func complete(cmd *cobra.Command, name string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // it fails only where the flag is missing or has one
}

// selection is what was chosen, for an inventory.
func (c *criteria) selection(store *inventory.Store) (*query.Selection, error) {
	s := &query.Selection{Issuer: c.issuer}
	var errs []error
	fail := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	for i, on := range c.flags {
		if on {
			s.Flags |= 1 << i
		}
	}
	switch i := slices.Index(roleNames, c.role); {
	case i < 0:
		fail("role", fmt.Errorf("%q is none of %s", c.role, strings.Join(roleNames, ", ")))
	case c.role != "any":
		s.Roles = 1 << i
	}
	var err error
	if c.server != "" {
		s.Server, err = query.ParsePeer(c.server)
		fail("server", err)
	}
	if c.client != "" {
		s.Client, err = query.ParsePeer(c.client)
		fail("client", err)
	}
	if c.where != "" {
		s.Where, err = rules.ParseSelection(c.where, query.Fields())
		fail("where", err)
	}
	if c.at == "now" {
		s.At = time.Now().UnixNano()
	} else if c.at != "" {
		s.At, err = parseMoment(c.at)
		fail("at", err)
	}
	if c.seenSince != "" {
		s.Since, err = since(c.seenSince, store)
		fail("seen-since", err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	for _, text := range c.hashes {
		found, err := query.FindOne(store, text)
		if errors.Is(err, inventory.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.Hashes = append(s.Hashes, found.SHA256)
	}
	if len(c.hashes) > 0 {
		s.Roles = 0
		if s.Hashes == nil {
			s.Hashes = []inventory.Hash{} // none, and not any
		}
	}
	return s, nil
}

// parseMoment reads a moment, in nanoseconds since the Unix epoch.
func parseMoment(text string) (int64, error) {
	for _, layout := range []string{time.DateOnly, time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04"} {
		if t, err := time.Parse(layout, text); err == nil && t.Year() >= 1700 && t.Year() < 2262 {
			return t.UnixNano(), nil
		}
	}
	return 0, fmt.Errorf("%q is no time, such as 2026-11-22 or 2026-11-22T08:00:00Z", text)
}

// since reads a moment, or a duration that counts back from the last handshake of an
// inventory: captures may be of any year.
func since(text string, store *inventory.Store) (int64, error) {
	if moment, err := parseMoment(text); err == nil {
		return moment, nil
	}
	d, err := parseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no time and no duration, such as 2026-11-22, 2026-11-22T08:00:00Z or 7d", text)
	}
	totals, err := store.Totals()
	return totals.Last - int64(d), err
}

// found is the error and the exit status of a question that was answered with so many
// things.
func found(cmd *cobra.Command, n int, err error) error {
	switch {
	case errors.Is(err, syscall.EPIPE): // whoever reads has enough
		return nil
	case errors.Is(err, inventory.ErrNotFound) && err != inventory.ErrNotFound:
		warnTo(cmd)(err)
		return exit(exitNothing)
	case err != nil && err != inventory.ErrNotFound:
		return err
	case n == 0:
		warnTo(cmd)(errors.New("nothing was found"))
		return exit(exitNothing)
	}
	return nil
}

// isInventory reports whether a path is a file of an inventory, which begins as those of
// bbolt do, and not a capture.
func isInventory(path string) (bool, error) {
	if path == "-" {
		return false, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		var wrong *fs.PathError
		if errors.As(err, &wrong) {
			err = wrong.Err
		}
		return false, fmt.Errorf("open %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return false, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, 20)
	n, _ := f.ReadAt(head, 0) // a file that is shorter is none
	magic := string(head[16:20])
	return n == len(head) && (magic == "\xed\xda\x0c\xed" || magic == "\xed\x0c\xda\xed"), nil
}

// commaList reads names with commas between them.
func commaList(text string) (names []string) {
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}
