package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/posture"
	"github.com/oddcert/oddcert/sensor/internal/query"
	"github.com/oddcert/oddcert/sensor/internal/safecsv"
	"github.com/oddcert/oddcert/sensor/internal/views"
)

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

func hexOf(h inventory.Hash) string {
	if h == (inventory.Hash{}) {
		return ""
	}
	return fmt.Sprintf("%X", h)
}

// countOf is a count, with a tilde before an estimate.
func countOf(c inventory.Count) string {
	if c.Estimated {
		return "~" + decimal(c.N)
	}
	return decimal(c.N)
}

var placeColumns = []string{"capture", "interface", "frame", "display_filter"}

func placeCells(p inventory.Place) []string {
	frame := ""
	if p.Frame != 0 {
		frame = decimal(p.Frame)
	}
	return []string{p.Path, p.Interface, frame, frames.Filter(p.Flow)}
}

var serverColumns = []string{"server_address", "server_port", "transport", "carrier"}

func serverCells(k inventory.ServerKey) []string {
	address, port := query.ServerName(k), ""
	if k.Address.IsValid() {
		address, port = k.Address.String(), strconv.Itoa(int(k.Port))
	}
	return []string{address, port, k.Transport.String(), k.Carrier}
}

// table writes rows, and stops where ctx is done.
type table struct {
	*safecsv.Writer
	ctx context.Context
}

func newTable(ctx context.Context, w io.Writer, columns ...[]string) (*table, error) {
	t := &table{safecsv.NewWriter(w), ctx}
	return t, t.row(columns...)
}

func (t *table) row(parts ...[]string) error {
	return errors.Join(t.ctx.Err(), t.Write(slices.Concat(parts...)...))
}

// writeCertificates writes a row for each certificate of each server.
func writeCertificates(ctx context.Context, w io.Writer, store *inventory.Store) error {
	t, err := newTable(ctx, w, []string{"sha256", "spki_sha256", "name", "flags", "subject", "issuer", "serial", "not_before", "not_after", "names", "key", "signature", "trust", "key_proof", "level", "roles"},
		serverColumns, []string{"first_seen", "last_seen", "handshakes", "alerts", "names_asked_for"}, placeColumns)
	if err != nil {
		return err
	}
	for c, err := range store.Certificates() {
		if err != nil {
			return err
		}
		r, err := query.NewRow(store, c, 0)
		if err != nil {
			return err
		}
		trust, proof := "", ""
		if c.Judged {
			trust = c.Trust.String()
		}
		if c.Roles&inventory.Leaf != 0 {
			proof = c.Proof.String()
		}
		mine := []string{hexOf(c.SHA256), hexOf(c.SPKI), r.Name(), strings.Join(r.Flags.Names(), " "), c.Subject, c.Issuer, c.Serial, query.Seconds(c.NotBefore), query.Seconds(c.NotAfter), strings.Join(c.Names, " "),
			views.Key(c), c.SignatureAlgorithm, trust, proof, c.Level}
		for s, err := range store.ShownAt(c.SHA256) {
			if err != nil {
				return err
			}
			if err := t.row(mine, []string{strings.Join(query.RoleNames(s.Roles), " ")}, serverCells(s.Server),
				[]string{query.Time(s.First.Time), query.Time(s.Last.Time), decimal(s.Handshakes), decimal(s.Alerts), strings.Join(s.Names, " ")}, placeCells(s.First)); err != nil {
				return err
			}
		}
	}
	return t.Flush()
}

func valueCells(list []posture.Value) string {
	var parts []string
	for _, v := range list {
		parts = append(parts, v.Name)
	}
	return strings.Join(parts, " | ")
}

func writeServers(ctx context.Context, w io.Writer, store *inventory.Store) error {
	t, err := newTable(ctx, w, serverColumns, []string{"level", "alerts", "handshakes", "certificates", "clients", "names_asked_for", "first_seen", "last_seen",
		"certificate", "key_exchange", "weak", "versions", "suites", "groups", "groups_offered", "alpn"}, outcomeColumns(), placeColumns)
	if err != nil {
		return err
	}
	for p, err := range posture.All(store) {
		if err != nil {
			return err
		}
		s := p.Server
		outcomes := make([]string, event.Outcomes)
		for o := range event.Outcomes {
			outcomes[o] = decimal(s.Outcomes[o])
		}
		if err := t.row(serverCells(s.ServerKey), []string{s.Level, decimal(s.Alerts), decimal(s.Handshakes), countOf(s.Certificates), countOf(s.Clients), countOf(s.AskedFor), query.Time(s.First.Time), query.Time(s.Last.Time),
			p.Leaf.String(), p.Exchange.String(), strings.Join(p.Weak, " | "), valueCells(p.Versions), valueCells(p.Suites), valueCells(p.Groups), valueCells(p.Offered),
			strings.Join(slices.Sorted(maps.Keys(s.ALPN)), " ")}, outcomes, placeCells(s.First)); err != nil {
			return err
		}
	}
	return t.Flush()
}

func outcomeColumns() (names []string) {
	for o := range event.Outcomes {
		names = append(names, "handshakes_"+o.String())
	}
	return names
}

func writeAlerts(ctx context.Context, w io.Writer, store *inventory.Store) error {
	t, err := newTable(ctx, w, []string{"event_id", "time", "level", "verdict", "rule_id", "rule", "reason", "reasons"}, serverColumns,
		[]string{"client", "name_asked_for", "sha256", "counted_with_it", "evidence"}, placeColumns)
	if err != nil {
		return err
	}
	for a, err := range store.Alerts() {
		if err != nil {
			return err
		}
		if err := t.row([]string{a.ID, query.Time(a.Time), a.Level, a.Verdict, a.RuleID, a.Rule, a.Reason, strings.Join(a.Reasons, " | ")}, serverCells(a.Server),
			[]string{views.ClientName(a.Place.Flow), a.Name, hexOf(a.Certificate), decimal(a.Counted), a.Evidence}, placeCells(a.Place)); err != nil {
			return err
		}
	}
	return t.Flush()
}

func writeClients(ctx context.Context, w io.Writer, store *inventory.Store) error {
	t, err := newTable(ctx, w, []string{"client"}, serverColumns, []string{"handshakes", "alerts", "last_sha256", "first_seen", "last_seen"}, placeColumns)
	if err != nil {
		return err
	}
	for c, err := range store.Contacts() {
		if err != nil {
			return err
		}
		if err := t.row([]string{c.Client.String()}, serverCells(c.Server), []string{decimal(c.Handshakes), decimal(c.Alerts), hexOf(c.Certificate), query.Time(c.First.Time), query.Time(c.Last.Time)}, placeCells(c.First)); err != nil {
			return err
		}
	}
	return t.Flush()
}
