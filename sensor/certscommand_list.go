package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/query"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

// Columns of a table where nobody says which.
const (
	shortColumns = "server,name,issuer,until,flags,hash"
	pipeColumns  = "hash,server,name,issuer,from,until,flags,servers,clients,first,last,capture,frame,filter"
)

// leastServer is how narrow the column of the server may be in a terminal: one without
// its port says little.
const leastServer = 18

// listing is the form of a list.
type listing struct {
	columns, sort string
	limit         int
}

func (q *certs) listCommand() *cobra.Command {
	var l listing
	var choice criteria
	cmd := &cobra.Command{
		Use:   "list [flags] [PATH…]",
		Short: "List certificates",
		Long: `List the certificates of servers that all flags together choose. Each is one
line, with the server that showed it last and how many more did.

A certificate is expired if it was shown after its end, by the time of the
packets, once at least; --at now says which are expired today.

The flags of the column "flags" are those that choose, and can be combined. What
is weak is the same as for oddcert.trust.status in records.

A terminal shows few columns and short values, a pipe gets more, and whole ones.

Columns:
` + columnTable(),
		Example: `  oddcert certs list capture.pcap
  oddcert certs list --sort until --server '192.0.2.0/24' captures/
  oddcert certs list --issuer microsoft --columns server,name,trust captures/
  oddcert certs list --where 'oddcert.carrier|startswith: tls' capture.pcap`,
		RunE: func(cmd *cobra.Command, paths []string) error { return q.list(cmd, &choice, &l, paths) },
	}
	choice.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&l.columns, "columns", "", "`names` of columns, with commas (default: the most useful ones)")
	f.StringVar(&l.sort, "sort", "", "`names` of columns to sort by; - before one is descending (default: hash)")
	f.IntVar(&l.limit, "limit", 0, fmt.Sprintf("only the first `n` (default: all; sorted, %d)", query.MaxSorted))
	f.BoolVar(&q.json, "json", false, "write one JSON object a line")
	inGroup(cmd, groupAnswer, "columns", "sort", "limit", "json")
	for _, name := range []string{"columns", "sort"} {
		complete(cmd, name, query.ColumnNames()...)
	}
	return cmd
}

// columnTable says what the columns are, for the help.
func columnTable() string {
	var b strings.Builder
	for _, c := range query.Columns {
		fmt.Fprintf(&b, "  %-11s %s\n", c.Name, c.Help)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (q *certs) list(cmd *cobra.Command, choice *criteria, l *listing, paths []string) error {
	if l.limit < 0 {
		return fmt.Errorf("--limit: %d is less than 0", l.limit)
	}
	names := commaList(l.columns)
	if l.columns == "" {
		names = commaList(pipeColumns)
		if terminal.IsTerminal(cmd.OutOrStdout()) {
			names = commaList(shortColumns)
		}
	}
	columns, err := columnsNamed(names)
	if err != nil {
		return fmt.Errorf("--columns: %w", err)
	}
	var orders []query.Order
	if l.sort != "" {
		if orders, err = query.ParseOrder(l.sort); err != nil {
			return fmt.Errorf("--sort: %w", err)
		}
	}
	store, err := q.open(cmd, paths)
	if err != nil {
		return err
	}
	defer store.Close()
	s, err := choice.selection(store)
	if err != nil {
		return err
	}
	rows := s.Certificates(store)
	left := 0
	if orders != nil {
		rows, left = sorted(rows, orders, l.limit)
		if l.limit > 0 {
			left = 0
		}
	}
	n, err := q.write(cmd, cmd.OutOrStdout(), rows, columns, l.limit)
	if left > 0 && err == nil {
		warnTo(cmd)(fmt.Errorf("%s are left out after the first %d: choose fewer, or leave --sort out", terminal.Count(left, "certificate", "certificates"), query.MaxSorted))
	}
	return found(cmd, n, err)
}

// sorted are the first rows in an order, and how many are left out.
func sorted(rows iter.Seq2[*query.Row, error], orders []query.Order, limit int) (iter.Seq2[*query.Row, error], int) {
	if limit == 0 {
		limit = query.MaxSorted
	}
	first, total, err := query.Sorted(rows, orders, limit)
	return func(yield func(*query.Row, error) bool) {
		if err != nil {
			yield(nil, err)
			return
		}
		for _, r := range first {
			if !yield(r, nil) {
				return
			}
		}
	}, total - len(first)
}

// columnsNamed are the columns of some names.
func columnsNamed(names []string) (columns []*query.Column, err error) {
	for _, name := range names {
		c := query.ColumnNamed(name)
		if c == nil {
			hint := didYouMean("", name, query.ColumnNames())
			if hint == "" {
				hint = ": there are " + strings.Join(query.ColumnNames(), ", ")
			}
			return nil, fmt.Errorf("there is no column %q%s", name, hint)
		}
		columns = append(columns, c)
	}
	if len(columns) == 0 {
		return nil, errors.New("name one column at least")
	}
	return columns, nil
}

// write writes rows as a table or as JSON, at most limit where that is not 0, and returns
// how many.
func (q *certs) write(cmd *cobra.Command, w io.Writer, rows iter.Seq2[*query.Row, error], columns []*query.Column, limit int) (n int, err error) {
	var of []terminal.Column
	for _, c := range columns {
		one := terminal.Column{Name: c.Name, Right: c.Number() && c.Name != "from" && c.Name != "until" && c.Name != "first" && c.Name != "last",
			Gives: !c.Number() && c.Name != "hash"}
		if c.Name == "server" {
			one.Least = leastServer
		}
		of = append(of, one)
	}
	t := terminal.NewTable(w, of)
	for r, err := range rows {
		if err == nil {
			err = cmd.Context().Err()
		}
		if err != nil {
			return n, errors.Join(err, t.Flush())
		}
		if n++; q.json {
			err = writeDocument(w, r, false)
		} else {
			_, err = r.Sightings() // so that no column has to tell of an error
			if err == nil {
				err = t.Write(cells(r, columns)...)
			}
		}
		if err != nil {
			return n, err
		}
		if n == limit {
			break
		}
	}
	return n, t.Flush()
}

// cells are the values of a row.
func cells(r *query.Row, columns []*query.Column) (row []terminal.Cell) {
	for _, c := range columns {
		cell := terminal.Cell{Text: c.Text(r), Short: c.Short(r), Tail: c.Tail(r)}
		switch {
		case c.Name == "flags" && r.Flags&query.Alerting != 0, c.Name == "level":
			cell.Level = r.Level
		case c.Name == "flags" && r.Flags&^query.Shared != 0:
			cell.Level = "medium"
		}
		row = append(row, cell)
	}
	return row
}

// writeDocument writes what is known of a certificate as a line of JSON.
func writeDocument(w io.Writer, r *query.Row, der bool) error {
	document, err := r.Document(der)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, visibleJSON(string(document)))
	return err
}

// rowOf is a certificate with what is asked of it.
func rowOf(store *inventory.Store, text string) (*query.Row, error) {
	c, err := query.FindOne(store, text)
	if err != nil {
		return nil, err
	}
	return query.NewRow(store, c, 0)
}
