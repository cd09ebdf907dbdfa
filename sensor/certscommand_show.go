package main

import (
	"crypto/md5"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/query"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

// maxShown is how many servers, clients and alerts a person is shown. JSON has all.
const maxShown = 50

func (q *certs) showCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [flags] HASH [PATH…]",
		Short: "Show everything that is known of a certificate",
		Long: `Show a certificate: what is in it, its chain as it was last sent, the servers
that showed it, the clients that were shown it, the alerts, and what happened
when. Each line names the capture and the frame, and has a display filter of
Wireshark.

HASH is a SHA-256 or the first digits of it, at least 8, or a whole SHA-1 or
MD5; in any case, with or without colons.`,
		Example: `  oddcert certs show 149190E5014F4322 capture.pcap
  oddcert certs show --json 14:91:90:E5:01:4F:43:22 capture.pcap`,
		RunE: q.show,
	}
	cmd.Flags().BoolVar(&q.json, "json", false, "write one JSON object")
	inGroup(cmd, groupAnswer, "json")
	return cmd
}

// place is where something was seen, in JSON.
type placeJSON struct {
	Time      string `json:"@timestamp"`
	Path      string `json:"path,omitempty"`
	Interface string `json:"interface,omitempty"`
	Frame     uint64 `json:"packet_number,omitempty"`
	Filter    string `json:"filter,omitempty"`
}

func placeOf(p *inventory.Place) placeJSON {
	return placeJSON{query.Time(p.Time), p.Path, p.Interface, p.Frame, frames.Filter(p.Flow)}
}

// everything is what show tells.
type everything struct {
	Certificate json.RawMessage   `json:"certificate"`
	Chain       []json.RawMessage `json:"chain"` // what was sent after it
	Servers     []serverJSON      `json:"servers"`
	Clients     []clientJSON      `json:"clients"`
	Alerts      []json.RawMessage `json:"alerts"` // their records
	TimeLine    []eventJSON       `json:"time_line"`
}

type serverJSON struct {
	Server     string    `json:"server"`
	Transport  string    `json:"transport"`
	Carrier    string    `json:"carrier"`
	Roles      []string  `json:"role"`
	Handshakes uint64    `json:"handshakes"`
	Names      []string  `json:"server_name,omitempty"` // asked for
	Alerts     uint64    `json:"alerts,omitempty"`
	First      placeJSON `json:"first"`
	Last       placeJSON `json:"last"`

	key inventory.ServerKey
}

type clientJSON struct {
	Client     string    `json:"client"`
	Server     string    `json:"server"`
	Handshakes uint64    `json:"handshakes"` // of both, with any certificate
	First      placeJSON `json:"first"`
	Last       placeJSON `json:"last"`
}

type eventJSON struct {
	placeJSON
	What  string `json:"event"`
	Level string `json:"level,omitempty"`
}

func (q *certs) show(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("name the certificate: its SHA-256, or the first 8 digits of it")
	}
	if err := query.CheckHash(args[0]); err != nil { // before captures are read, which may take long
		return err
	}
	store, err := q.open(cmd, args[1:])
	if err != nil {
		return err
	}
	defer store.Close()
	r, err := rowOf(store, args[0])
	if err != nil {
		return found(cmd, 0, err)
	}
	if q.json {
		err = q.showJSON(cmd.OutOrStdout(), store, r)
	} else {
		err = q.showPage(cmd.OutOrStdout(), store, r)
	}
	return found(cmd, 1, err)
}

// surroundings are the servers and the clients of a certificate, and its alerts.
func surroundings(store *inventory.Store, r *query.Row) (servers []serverJSON, clients []clientJSON, alerts []*inventory.Alert, err error) {
	for s, err := range store.ShownAt(r.SHA256) {
		if err != nil {
			return nil, nil, nil, err
		}
		servers = append(servers, serverJSON{
			Server: query.ServerName(s.Server), Transport: s.Server.Transport.String(), Carrier: s.Server.Carrier,
			Roles: query.RoleNames(s.Roles), Handshakes: s.Handshakes, Names: s.Names, Alerts: s.Alerts, First: placeOf(&s.First), Last: placeOf(&s.Last), key: s.Server,
		})
		if s.Roles&inventory.Leaf == 0 {
			continue
		}
		for c, err := range store.Met(s.Server) {
			if err != nil {
				return nil, nil, nil, err
			}
			if slices.Contains(c.Certificates, r.SHA256) {
				clients = append(clients, clientJSON{c.Client.String(), query.ServerName(s.Server), c.Handshakes, placeOf(&c.First), placeOf(&c.Last)})
			}
		}
	}
	if r.Alerts > 0 {
		for a, err := range store.Alerts() {
			if err != nil {
				return nil, nil, nil, err
			}
			if a.Certificate == r.SHA256 {
				alerts = append(alerts, a)
			}
		}
	}
	return servers, clients, alerts, nil
}

func (q *certs) showJSON(w io.Writer, store *inventory.Store, r *query.Row) error {
	document, err := r.Document(true)
	if err != nil {
		return err
	}
	s := everything{Certificate: document, Chain: []json.RawMessage{}, Clients: []clientJSON{}, Alerts: []json.RawMessage{}}
	for _, hash := range r.Chain {
		c, err := store.Certificate(hash)
		if errors.Is(err, inventory.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		row, err := query.NewRow(store, c, 0)
		if err != nil {
			return err
		}
		if document, err = row.Document(true); err != nil {
			return err
		}
		s.Chain = append(s.Chain, document)
	}
	servers, clients, alerts, err := surroundings(store, r)
	if err != nil {
		return err
	}
	s.Servers = servers
	s.Clients = append(s.Clients, clients...)
	for _, a := range alerts {
		if len(a.Record) > 0 {
			s.Alerts = append(s.Alerts, a.Record)
		}
	}
	events, _, err := query.TimeLine(store, r.Certificate)
	if err != nil {
		return err
	}
	for i := range events {
		s.TimeLine = append(s.TimeLine, eventJSON{placeOf(&events[i].Place), events[i].Text, events[i].Level})
	}
	return writeJSON(w, "", &s)
}

// where is a place for a person: capture, frame and display filter in one line.
func where(p *placeJSON) string {
	var parts []string
	if p.Frame > 0 {
		parts = append(parts, fmt.Sprintf("frame %d", p.Frame))
	}
	if p.Path != "" {
		parts = append(parts, "of "+p.Path)
	} else if p.Interface != "" {
		parts = append(parts, "on "+p.Interface)
	}
	if len(parts) > 0 && p.Filter != "" {
		return strings.Join(parts, " ") + ": " + p.Filter
	}
	return strings.Join(parts, " ")
}

// clock writes a time of the packets for a person.
func clock(nanoseconds int64) string {
	return time.Unix(0, nanoseconds).UTC().Format("2006-01-02 15:04:05.000")
}

func (q *certs) showPage(w io.Writer, store *inventory.Store, r *query.Row) error {
	der, err := store.DER(r.SHA256)
	if err != nil {
		return err
	}
	servers, clients, alerts, err := surroundings(store, r)
	if err != nil {
		return err
	}
	events, left, err := query.TimeLine(store, r.Certificate)
	if err != nil {
		return err
	}
	p := terminal.NewPage(w)
	p.Title(r.Name(), r.Level)
	c := cert.Parse(der)
	p.Field("Subject", c.Subject.String)
	p.Field("Issuer", c.Issuer.String)
	p.Field("Valid", validity(r))
	p.Field("Names", strings.Join(slices.Concat(c.DNSNames, c.IPAddresses, c.EmailAddresses, c.URIs), ", "))
	p.Field("Key", query.Key(c.PublicKeyAlgorithm, c.PublicKeySize, c.PublicKeyCurve))
	p.Field("Signature", c.SignatureAlgorithm)
	p.Field("Serial", c.Serial)
	p.Field("Usage", strings.Join(append(slices.Collect(c.KeyUsage.Names), c.ExtendedKeyUsage...), ", "))
	if c.IsCA {
		p.Field("CA", "it may issue certificates")
	}
	p.Field("SHA-256", fmt.Sprintf("%X", r.SHA256))
	p.Field("SHA-1", fmt.Sprintf("%X", sha1.Sum(der)))
	p.Field("MD5", fmt.Sprintf("%X", md5.Sum(der)))
	if r.SPKI != [32]byte{} {
		p.Field("Key hash", fmt.Sprintf("%X (SHA-256 of SubjectPublicKeyInfo)", r.SPKI))
	}
	p.Field("Fault", r.ParseError)
	p.Field("Flags", strings.Join(r.Flags.Names(), ", "))
	if r.Judged {
		p.Field("Trust", r.Trust.String())
		for _, reason := range r.Reasons {
			p.Point(reason)
		}
	}
	if r.Roles&inventory.Leaf != 0 {
		p.Field("Proof", r.Proof.String())
	}
	p.Field("Seen", fmt.Sprintf("%s to %s UTC, in %s", clock(r.First.Time), clock(r.Last.Time), terminal.Count(int(r.Handshakes), "handshake", "handshakes")))
	p.Field("Shown by", fmt.Sprintf("%s, to %s", counted(r.Servers, "server", "servers"), counted(r.Clients, "client", "clients")))

	if r.Roles&inventory.Leaf != 0 {
		p.Gap()
		p.Title("Chain, as it was last sent", "")
		if err := chainPage(p, store, r); err != nil {
			return err
		}
	}
	p.Gap()
	p.Title("Servers", "")
	for i := range servers[:min(len(servers), maxShown)] {
		s := &servers[i]
		text := fmt.Sprintf("%s %s, %s, %s", s.Server, s.Carrier, strings.Join(s.Roles, " and "), terminal.Count(int(s.Handshakes), "handshake", "handshakes"))
		if len(s.Names) > 0 {
			text += ", asked for " + strings.Join(s.Names, ", ")
		}
		p.Line("  ", text, where(&s.Last))
	}
	more(p, len(servers))
	if len(clients) > 0 {
		p.Gap()
		p.Title("Clients that were shown it", "")
		for i := range clients[:min(len(clients), maxShown)] {
			c := &clients[i]
			p.Line("  ", c.Client+" by "+c.Server, where(&c.Last))
		}
		more(p, len(clients))
	}
	if len(alerts) > 0 {
		p.Gap()
		p.Title("Alerts", "")
		for _, a := range alerts[:min(len(alerts), maxShown)] {
			at := placeOf(&a.Place)
			p.Line("  "+strings.ToUpper(a.Level)+"  ", a.Rule, "")
			p.Line("    ", a.Reason, "")
			p.Line("    ", "event.id "+a.ID, where(&at))
		}
		more(p, len(alerts))
	}
	p.Gap()
	p.Title("Time line", "")
	for i, e := range events {
		if left > 0 && i == query.MaxEvents/2 {
			p.Line("  ", fmt.Sprintf("… %d more …", left), "")
		}
		at := placeOf(&e.Place)
		p.Line("  "+clock(e.Place.Time)+"  ", e.Text, where(&at))
	}
	return p.Flush()
}

// more says how many are not shown.
func more(p *terminal.Page, n int) {
	if n > maxShown {
		p.Line("  ", fmt.Sprintf("… and %d more: --json has all", n-maxShown), "")
	}
}

// counted writes a count of an inventory, and whether it is an estimate.
func counted(c inventory.Count, one, many string) string {
	text := terminal.Count(int(c.N), one, many)
	if c.Estimated {
		return "about " + text
	}
	return text
}

// validity is the span of a certificate and what was wrong with it when it was shown.
func validity(r *query.Row) string {
	if r.NotBefore == 0 && r.NotAfter == 0 {
		return ""
	}
	text := query.Seconds(r.NotBefore) + " to " + query.Seconds(r.NotAfter)
	switch {
	case r.Flags&query.Expired != 0:
		text += ", over when it was last shown"
	case r.Flags&query.NotYetValid != 0:
		text += ", not yet valid when it was first shown"
	}
	return text
}

// chainPage writes the chain as a tree, the leaf first.
func chainPage(p *terminal.Page, store *inventory.Store, leaf *query.Row) error {
	for i, hash := range append([]inventory.Hash{leaf.SHA256}, leaf.Chain...) {
		head := "  "
		if i > 0 {
			head = strings.Repeat("   ", i-1) + "  └─ "
		}
		c, err := store.Certificate(hash)
		if errors.Is(err, inventory.ErrNotFound) {
			p.Line(head, fmt.Sprintf("%X, which is not in the inventory any more", hash), "")
			continue
		}
		if err != nil {
			return err
		}
		r, err := query.NewRow(store, c, 0)
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%s, %s, %s", r.Name(), query.Key(r.KeyAlgorithm, r.KeySize, r.KeyCurve), validity(r))
		if flags := r.Flags &^ (query.Alerting | query.Shared); flags != 0 {
			text += ": " + strings.Join(flags.Names(), ", ")
		}
		p.Line(head, text, fmt.Sprintf("%X", hash))
	}
	if len(leaf.Chain) == 0 && !leaf.SelfSigned {
		p.Line("  └─ ", leaf.Issuer+", which was not sent", "")
	}
	return nil
}
