package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/query"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

func (q *certs) diffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff [flags] A B",
		Short: "Compare two inventories, or captures",
		Long: `Show the certificates and the servers that only A or only B has, and the servers
of both that showed other certificates of their own in B than in A. A and B are
inventories, captures, or folders of captures.

Where nothing differs, there is no answer, and standard error says so.

A terminal shows few columns and short values, a pipe gets more, and whole ones.`,
		Example: `  oddcert certs diff captures/ capture.pcap
  oddcert certs diff --json capture.pcap monday.pcapng.zst`,
		RunE: q.diff,
	}
	cmd.Flags().BoolVar(&q.json, "json", false, "write one JSON object a line")
	inGroup(cmd, groupAnswer, "json")
	return cmd
}

// changeJSON is what differs, in JSON.
type changeJSON struct {
	Change string     `json:"change"` // only-a, only-b, changed
	Kind   string     `json:"kind"`   // certificate, server
	Value  string     `json:"value"`
	Name   string     `json:"name,omitempty"`
	Issuer string     `json:"issuer,omitempty"`
	Flags  []string   `json:"flags,omitempty"`
	A      []string   `json:"a,omitempty"` // of changed: the hashes of certificates that only A has of the server
	B      []string   `json:"b,omitempty"`
	Place  *placeJSON `json:"last"`
}

func describe(c *query.Change) *changeJSON {
	d := &changeJSON{Change: "only-" + strings.ToLower(c.In), Kind: c.What}
	var last *inventory.Place
	if r := c.Certificate; r != nil {
		d.Value, d.Name, d.Issuer, d.Flags, last = fmt.Sprintf("%X", r.SHA256), r.Name(), r.Issuer, r.Flags.Names(), &r.Last
	} else {
		k := c.Server.ServerKey
		d.Value, d.Name, last = query.ServerName(k)+"/"+k.Transport.String(), k.Carrier, &c.Server.Last
	}
	if c.What == "changed" {
		d.Change, d.Kind = "changed", "server"
		for i, list := range []*[]string{&d.A, &d.B} {
			for _, r := range c.Only[i] {
				*list = append(*list, fmt.Sprintf("%X", r.SHA256))
			}
		}
	}
	at := placeOf(last)
	d.Place = &at
	return d
}

// diffColumns are the columns of the table, those of a terminal first: the others would
// leave none of them room.
var diffColumns = []terminal.Column{
	{Name: "change"}, {Name: "kind"}, {Name: "value", Gives: true}, {Name: "name", Gives: true}, {Name: "flags", Gives: true}, {Name: "a", Gives: true}, {Name: "b", Gives: true},
	{Name: "capture"}, {Name: "frame", Right: true}, {Name: "filter"},
}

// diffOnTerminal is how many of them a terminal has.
const diffOnTerminal = 7

func (q *certs) diff(cmd *cobra.Command, args []string) error {
	if len(args) != 2 {
		return errors.New("name two inventories, or captures, to compare")
	}
	var stores [2]*inventory.Store
	for i, path := range args {
		store, err := q.open(cmd, []string{path})
		if err != nil {
			return err
		}
		defer store.Close()
		stores[i] = store
	}
	w := cmd.OutOrStdout()
	columns := diffColumns
	if terminal.IsTerminal(w) {
		columns = columns[:diffOnTerminal]
	}
	t := terminal.NewTable(w, columns)
	n := 0
	for c, err := range query.Diff(stores[0], stores[1]) {
		if err == nil {
			err = cmd.Context().Err()
		}
		if err != nil {
			return errors.Join(err, t.Flush())
		}
		n++
		d := describe(c)
		if q.json {
			if err := writeJSON(w, "", d); err != nil {
				return found(cmd, 1, err)
			}
			continue
		}
		short := ""
		if c.Certificate != nil {
			short = d.Value[:12]
		}
		frame := ""
		if d.Place.Frame > 0 {
			frame = fmt.Sprint(d.Place.Frame)
		}
		row := []terminal.Cell{{Text: d.Change}, {Text: d.Kind}, {Text: d.Value, Short: short}, {Text: d.Name}, {Text: strings.Join(d.Flags, " ")}, hashCell(d.A), hashCell(d.B),
			{Text: cmp.Or(d.Place.Path, d.Place.Interface)}, {Text: frame}, {Text: d.Place.Filter}}
		if err := t.Write(row[:len(columns)]...); err != nil {
			return found(cmd, 1, err)
		}
	}
	if n == 0 {
		totals, err := stores[0].Totals()
		if err != nil {
			return err
		}
		warnTo(cmd)(fmt.Errorf("nothing differs: A and B have the same %s, on the same %s",
			terminal.Count(int(totals.Certificates), "certificate", "certificates"), terminal.Count(int(totals.Servers), "server", "servers")))
	}
	return found(cmd, 1, t.Flush())
}

// hashCell is hashes, which a terminal cuts.
func hashCell(list []string) terminal.Cell {
	var short []string
	for _, hash := range list {
		short = append(short, hash[:12])
	}
	return terminal.Cell{Text: strings.Join(list, " "), Short: strings.Join(short, " ")}
}
