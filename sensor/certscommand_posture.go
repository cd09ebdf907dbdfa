package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/cbom"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/posture"
	"github.com/oddcert/oddcert/sensor/internal/query"
	"github.com/oddcert/oddcert/sensor/internal/safecsv"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

func (q *certs) postureCommand() *cobra.Command {
	csv := false
	cmd := &cobra.Command{
		Use:   "posture [flags] [PATH…]",
		Short: "List what cryptography servers were seen with",
		Long: `List the servers with what they were seen with: the versions, cipher suites,
groups of the key exchange and signature schemes that were negotiated, the
groups that clients offered, the keys of certificates. A terminal has room for
some of it; in a pipe, in CSV and with --json each value has the number of its
handshakes.

The key exchange ("exchange") is
  hybrid        ML-KEM or Kyber beside a curve, in one handshake at least
  post-quantum  ML-KEM alone, in one handshake at least
  offered       classical, though a client offered one of these
  classical     no client offered anything else
  unknown       nothing of it was seen
What clients offer is in their supported_groups.

The server's certificate ("leaf") was
  seen, encrypted (TLS 1.3 without keys), lost (not seen completely),
  resumed (only in sessions that were resumed, which show none),
  none (anonymous, a raw key, a PSK or refused)`,
		Example: `  oddcert certs posture capture.pcap
  oddcert certs posture --json captures/
  oddcert certs export --format cyclonedx -o cbom.json capture.pcap`,
		RunE: func(cmd *cobra.Command, paths []string) error { return q.posture(cmd, csv, paths) },
	}
	cmd.Flags().BoolVar(&q.json, "json", false, "write one JSON object a line")
	cmd.Flags().BoolVar(&csv, "csv", false, "write a table for spreadsheets")
	inGroup(cmd, groupAnswer, "json", "csv")
	return cmd
}

// postureColumn is a column of the table of servers.
type postureColumn struct {
	name  string
	short bool // it is on a terminal, too
	text  func(*posture.Posture) string
	brief func(*posture.Posture) string // what a terminal shows; nil for text
}

var postureColumns = []postureColumn{
	{name: "server", short: true, text: func(p *posture.Posture) string { return query.ServerName(p.Server.ServerKey) }},
	{name: "transport", text: func(p *posture.Posture) string { return p.Server.Transport.String() }},
	{name: "carrier", text: func(p *posture.Posture) string { return p.Server.Carrier }},
	valuesColumn("versions", true, func(p *posture.Posture) []posture.Value { return p.Versions }),
	valuesColumn("suites", false, func(p *posture.Posture) []posture.Value { return p.Suites }),
	valuesColumn("groups", true, func(p *posture.Posture) []posture.Value { return p.Groups }),
	valuesColumn("offered", false, func(p *posture.Posture) []posture.Value { return p.Offered }),
	valuesColumn("signatures", false, func(p *posture.Posture) []posture.Value { return p.Signatures }),
	valuesColumn("keys", false, func(p *posture.Posture) []posture.Value { return p.Keys }),
	valuesColumn("signed", false, func(p *posture.Posture) []posture.Value { return p.Signed }),
	{name: "exchange", short: true, text: func(p *posture.Posture) string { return p.Exchange.String() }},
	{name: "post_quantum", text: func(p *posture.Posture) string { return strconv.FormatUint(p.PostQuantum, 10) }},
	{name: "leaf", short: true, text: func(p *posture.Posture) string { return p.Leaf.String() }},
	outcomeColumn(event.Extracted), outcomeColumn(event.Encrypted), outcomeColumn(event.Resumed), outcomeColumn(event.None), outcomeColumn(event.Lost),
	{name: "weak", short: true, text: func(p *posture.Posture) string { return strings.Join(p.Weak, ", ") }},
	{name: "handshakes", text: func(p *posture.Posture) string { return strconv.FormatUint(p.Server.Handshakes, 10) }},
	{name: "clients", text: func(p *posture.Posture) string { return strconv.FormatUint(p.Server.Clients.N, 10) }},
	{name: "first", text: func(p *posture.Posture) string { return query.Time(p.Server.First.Time) }},
	{name: "last", text: func(p *posture.Posture) string { return query.Time(p.Server.Last.Time) }},
	{name: "capture", text: func(p *posture.Posture) string { return query.Where(&p.Server.Last) }},
	{name: "frame", text: func(p *posture.Posture) string { return strconv.FormatUint(p.Server.Last.Frame, 10) }},
	{name: "filter", text: func(p *posture.Posture) string { return frames.Filter(p.Server.Last.Flow) }},
}

// valuesColumn is a column of values with the number of each; a terminal shows the values
// alone.
func valuesColumn(name string, short bool, of func(*posture.Posture) []posture.Value) postureColumn {
	join := func(list []posture.Value, text func(posture.Value) string) string {
		parts := make([]string, len(list))
		for i, v := range list {
			parts[i] = text(v)
		}
		return strings.Join(parts, ", ")
	}
	return postureColumn{name: name, short: short,
		text: func(p *posture.Posture) string { return join(of(p), posture.Value.String) },
		brief: func(p *posture.Posture) string {
			return join(of(p), func(v posture.Value) string { return v.Name })
		}}
}

func outcomeColumn(o event.Outcome) postureColumn {
	return postureColumn{name: o.String(), text: func(p *posture.Posture) string { return strconv.FormatUint(p.Server.Outcomes[o], 10) }}
}

func (q *certs) posture(cmd *cobra.Command, csv bool, paths []string) error {
	if csv && q.json {
		return errors.New("--csv and --json: give one of them")
	}
	store, err := q.open(cmd, paths)
	if err != nil {
		return err
	}
	defer store.Close()
	write, flush := postureTable(cmd.OutOrStdout())
	switch {
	case q.json:
		write, flush = postureJSON(cmd.OutOrStdout()), func() error { return nil }
	case csv:
		write, flush = postureCSV(cmd.OutOrStdout())
	}
	n := 0
	for p, err := range posture.All(store) {
		if err == nil {
			err = cmd.Context().Err()
		}
		if err == nil {
			err = write(p)
		}
		if err != nil {
			return found(cmd, n, errors.Join(err, flush()))
		}
		n++
	}
	return found(cmd, n, flush())
}

func postureTable(w io.Writer) (write func(*posture.Posture) error, flush func() error) {
	var chosen []postureColumn
	var columns []terminal.Column
	for _, c := range postureColumns {
		if !terminal.IsTerminal(w) || c.short {
			chosen = append(chosen, c)
			columns = append(columns, terminal.Column{Name: c.name, Gives: c.name != "server"})
		}
	}
	t := terminal.NewTable(w, columns)
	return func(p *posture.Posture) error {
		var row []terminal.Cell
		for _, c := range chosen {
			cell := terminal.Cell{Text: c.text(p)}
			if c.brief != nil {
				cell.Short = c.brief(p)
			}
			if c.name == "weak" {
				cell.Level = "medium"
			}
			row = append(row, cell)
		}
		return t.Write(row...)
	}, t.Flush
}

func postureCSV(w io.Writer) (write func(*posture.Posture) error, flush func() error) {
	out := safecsv.NewWriter(w)
	row := make([]string, len(postureColumns))
	for i, c := range postureColumns {
		row[i] = c.name
	}
	head := out.Write(row...)
	return func(p *posture.Posture) error {
		for i, c := range postureColumns {
			row[i] = c.text(p)
		}
		return errors.Join(head, out.Write(row...))
	}, out.Flush
}

// postureJSON writes lines with the names of fields that records have, where there is
// one.
func postureJSON(w io.Writer) func(*posture.Posture) error {
	return func(p *posture.Posture) error {
		v := p.Server
		outcomes := map[string]uint64{}
		for o, n := range v.Outcomes {
			outcomes[event.Outcome(o).String()] = n
		}
		destination := map[string]any{"ip": v.Address, "port": v.Port}
		if !v.Address.IsValid() {
			destination = map[string]any{"mac": query.ServerName(v.ServerKey)}
		}
		var line bytes.Buffer
		e := json.NewEncoder(&line)
		e.SetEscapeHTML(false) // for the filters
		err := e.Encode(map[string]any{
			"@timestamp":  query.Time(v.Last.Time),
			"destination": destination,
			"network":     map[string]any{"transport": v.Transport.String()},
			"log":         map[string]any{"file": map[string]any{"path": v.Last.Path}},
			"oddcert": map[string]any{
				"carrier": v.Carrier,
				"pcap":    map[string]any{"packet_number": v.Last.Frame, "filter": frames.Filter(v.Last.Flow)},
				"inventory": map[string]any{
					"first": query.Time(v.First.Time), "handshakes": v.Handshakes, "clients": v.Clients.N,
				},
				"posture": map[string]any{
					"versions": numbers(p.Versions), "suites": numbers(p.Suites), "groups": numbers(p.Groups), "offered": numbers(p.Offered),
					"signatures": numbers(p.Signatures), "keys": numbers(p.Keys), "signed": numbers(p.Signed),
					"exchange":     p.Exchange.String(),
					"post_quantum": p.PostQuantum,
					"leaf":         p.Leaf.String(),
					"outcomes":     outcomes,
					"weak":         append([]string{}, p.Weak...),
					"left_out":     p.LeftOut,
				},
			},
		})
		if err == nil {
			_, err = io.WriteString(w, visibleJSON(line.String()))
		}
		return err
	}
}

// numbers are values with the number of each.
func numbers(list []posture.Value) map[string]uint64 {
	m := make(map[string]uint64, len(list))
	for _, v := range list {
		m[v.Name] = v.N
	}
	return m
}

// writeCycloneDX writes a bill of materials: of everything, or of what was chosen, with
// the chains of the certificates.
func writeCycloneDX(w io.Writer, x *export) (int, error) {
	o := cbom.Options{Version: version()}
	if !x.everything {
		o.Certificates = map[inventory.Hash]struct{}{}
		for r, err := range x.rows {
			if err != nil {
				return 0, err
			}
			for _, id := range append([]inventory.Hash{r.SHA256}, r.Chain...) {
				if len(o.Certificates) == cbom.MaxCertificates {
					return 0, errors.New("write a bill of materials: too many certificates were chosen: choose fewer, or all of them")
				}
				o.Certificates[id] = struct{}{}
			}
		}
		if len(o.Certificates) == 0 {
			return 0, nil
		}
	}
	written, err := cbom.Write(w, x.store, o)
	return int(written.Certificates + written.Servers), err
}
