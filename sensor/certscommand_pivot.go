package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/query"
	"github.com/oddcert/oddcert/sensor/internal/safecsv"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

// maxDepth is how far a pivot goes. Farther on everything hangs together.
const maxDepth = 5

var pivotFormats = []string{"table", "csv", "graphml", "json"}

func (q *certs) pivotCommand() *cobra.Command {
	depth, format := 1, "table"
	cmd := &cobra.Command{
		Use:   "pivot [flags] HASH|KEY|NAME|ADDRESS [PATH…]",
		Short: "Show what hangs together with a certificate, key, name or address",
		Long: `Show the certificates, keys, servers, names, issuers and clients that hang
together with a start: the hash of a certificate or of a key
(SubjectPublicKeyInfo), a name (*.example.net for all below it), an address, a
network or address:port.

With --depth 1 these are the certificates of the start, and all around them.
With 2, certificates that have a key, a server or a name in common with those
are followed too, and so on. Issuers and clients are shown and not followed.`,
		Example: `  oddcert certs pivot 149190E5014F4322 capture.pcap
  oddcert certs pivot --depth 2 www.update.microsoft.com captures/
  oddcert certs pivot --format graphml 192.0.2.2 capture.pcap >graph.graphml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name the start: a hash, a name or an address")
			}
			if depth < 1 || depth > maxDepth {
				return fmt.Errorf("--depth: %d is not from 1 to %d", depth, maxDepth)
			}
			if q.json {
				format = "json"
			}
			if !slices.Contains(pivotFormats, format) {
				return fmt.Errorf("--format: %q is none of %s", format, strings.Join(pivotFormats, ", "))
			}
			store, err := q.open(cmd, args[1:])
			if err != nil {
				return err
			}
			defer store.Close()
			start, err := query.ParseStart(store, args[0])
			if err != nil {
				return found(cmd, 0, err)
			}
			g, err := query.Pivot(store, start, depth)
			if err != nil {
				return found(cmd, 0, err)
			}
			if g.LeftOut > 0 {
				warnTo(cmd)(fmt.Errorf("%d more hang together and are left out: begin with less, or with --depth 1", g.LeftOut))
			}
			return found(cmd, len(g.Nodes), writeGraph(cmd.OutOrStdout(), g, format))
		},
	}
	f := cmd.Flags()
	f.IntVar(&depth, "depth", 1, "how many certificates away from the start `n`")
	f.StringVar(&format, "format", "table", "`form` of the answer: "+strings.Join(pivotFormats, ", "))
	f.BoolVar(&q.json, "json", false, "write one JSON object a line, like --format json")
	inGroup(cmd, groupAnswer, "depth", "format", "json")
	complete(cmd, "format", pivotFormats...)
	return cmd
}

// graphColumns are the columns of the table, those of a terminal first.
var graphColumns = []terminal.Column{
	{Name: "depth", Right: true}, {Name: "kind"}, {Name: "value", Gives: true, Least: leastServer}, {Name: "label", Gives: true}, {Name: "flags", Gives: true},
	{Name: "links", Right: true}, {Name: "handshakes", Right: true}, {Name: "first"}, {Name: "last"}, {Name: "capture"}, {Name: "frame", Right: true}, {Name: "filter"},
}

// onTerminal is how many of them a terminal shows.
const onTerminal = 6

func graphRow(n *query.Node) []string {
	return []string{
		strconv.Itoa(n.Depth), string(n.Kind), n.Value, n.Label, strings.Join(n.Flags.Names(), " "), strconv.Itoa(n.Links()),
		strconv.FormatUint(n.Handshakes, 10), query.Time(n.First.Time), query.Time(n.Last.Time), query.Where(&n.Last), strconv.FormatUint(n.Last.Frame, 10), frames.Filter(n.Last.Flow),
	}
}

func writeGraph(w io.Writer, g *query.Graph, format string) error {
	switch format {
	case "graphml":
		return g.WriteGraphML(w)
	case "csv":
		t := safecsv.NewWriter(w)
		var head []string
		for _, c := range graphColumns {
			head = append(head, c.Name)
		}
		if err := t.Write(head...); err != nil {
			return err
		}
		for _, n := range g.Nodes {
			if err := t.Write(graphRow(n)...); err != nil {
				return err
			}
		}
		return t.Flush()
	case "json":
		return writeGraphJSON(w, g)
	}
	columns := graphColumns
	if terminal.IsTerminal(w) {
		columns = columns[:onTerminal]
	}
	t := terminal.NewTable(w, columns)
	for _, n := range g.Nodes {
		var row []terminal.Cell
		for i, text := range graphRow(n)[:len(columns)] {
			cell := terminal.Cell{Text: text}
			if columns[i].Name == "value" && (n.Kind == query.CertificateNode || n.Kind == query.KeyNode) {
				cell.Short = text[:min(len(text), 12)]
			}
			if columns[i].Name == "flags" && n.Certificate != nil {
				cell.Level = n.Certificate.Level
			}
			row = append(row, cell)
		}
		if err := t.Write(row...); err != nil {
			return err
		}
	}
	return t.Flush()
}

type nodeJSON struct {
	Kind       query.Kind `json:"kind"`
	Value      string     `json:"value"`
	Label      string     `json:"label,omitempty"`
	Depth      int        `json:"depth"`
	Flags      []string   `json:"flags,omitempty"`
	Handshakes uint64     `json:"handshakes"`
	First      placeJSON  `json:"first"`
	Last       placeJSON  `json:"last"`
	Links      []linkJSON `json:"links"` // that begin here
}

type linkJSON struct {
	Relation string     `json:"relation"`
	Kind     query.Kind `json:"kind"`
	Value    string     `json:"value"`
}

func writeGraphJSON(w io.Writer, g *query.Graph) error {
	from := map[*query.Node][]linkJSON{}
	for _, e := range g.Edges {
		from[e.From] = append(from[e.From], linkJSON{e.Relation, e.To.Kind, e.To.Value})
	}
	for _, n := range g.Nodes {
		links := from[n]
		if links == nil {
			links = []linkJSON{}
		}
		err := writeJSON(w, "", nodeJSON{n.Kind, n.Value, n.Label, n.Depth, n.Flags.Names(), n.Handshakes, placeOf(&n.First), placeOf(&n.Last), links})
		if err != nil {
			return err
		}
	}
	return nil
}
