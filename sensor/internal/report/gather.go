package report

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/posture"
	"github.com/oddcert/oddcert/sensor/internal/query"
)

// levels are the levels of rules, the gravest first.
var levels = []string{"critical", "high", "medium", "low", "informational"}

func rank(level string) int {
	if i := slices.Index(levels, level); i >= 0 {
		return i
	}
	return len(levels)
}

// rule is the alerts of one rule.
type rule struct {
	ID, Title, Level string
	Alerts           uint64 // raised
	Counted          uint64 // counted with them
	First, Last      int64
	cards            top[*inventory.Alert]
}

// kind is the certificates that have something in common.
type kind struct {
	ID, Title, Note string
	has             func(r *query.Row) bool
	top             top[*query.Row]
}

// name is a name that clients asked for.
type name struct {
	text        string
	servers     uint64 // that showed a certificate under it
	place       inventory.Place
	certificate inventory.Hash
}

// meeting is a client that met a server with alerts.
type meeting struct {
	*inventory.Contact
	level string
}

// facts is what a report tells. It is bounded, whatever the size of the inventory.
type facts struct {
	totals   inventory.Totals
	runs     []*inventory.Run
	allRuns  int
	levels   map[string]uint64 // alerts by level
	rules    []*rule
	allRules int

	certificates top[*query.Row] // leaves
	kinds        []*kind
	shared       top[*query.Row]
	servers      top[*posture.Posture]
	flagged      uint64                         // servers with alerts
	levelOf      map[inventory.ServerKey]string // of the first maxCounted of them
	exchange     map[posture.Exchange]uint64
	shown        map[posture.Leaf]uint64
	weak         map[string]uint64 // servers by what is weak
	names        top[*name]
	namesCut     bool
	contacts     top[meeting]
	clients      uint64 // of contacts

	timeline struct {
		from, to                        int64
		alerts, certificates, encounter []uint64
	}
}

// young is how long before it was first seen the validity of a certificate that is new
// began at most.
const young = 30 * 24 * time.Hour

// day is how old what is new in an inventory of several days is at most.
const day = 24 * time.Hour

// gather reads the inventory once.
func gather(ctx context.Context, store *inventory.Store) (f *facts, err error) {
	f = &facts{levels: map[string]uint64{}, exchange: map[posture.Exchange]uint64{}, shown: map[posture.Leaf]uint64{}, weak: map[string]uint64{}}
	if f.totals, err = store.Totals(); err != nil {
		return nil, fmt.Errorf("read the inventory: %w", err)
	}
	f.timeline.from, f.timeline.to = f.totals.First, f.totals.Last+1
	for _, counts := range []*[]uint64{&f.timeline.alerts, &f.timeline.certificates, &f.timeline.encounter} {
		*counts = make([]uint64, intervals)
	}
	for _, step := range []func(context.Context, *inventory.Store) error{f.readRuns, f.readAlerts, f.readCertificates, f.readServers, f.readNames, f.readContacts} {
		if err := step(ctx, store); err != nil {
			return nil, fmt.Errorf("read the inventory: %w", err)
		}
	}
	return f, nil
}

// count counts a moment in one of the rows of the time line.
func (f *facts) count(row []uint64, at int64) {
	from, to := f.timeline.from, f.timeline.to
	if at < from || at >= to {
		return
	}
	i := int(float64(at-from) / float64(to-from) * intervals)
	row[min(i, intervals-1)]++
}

func (f *facts) readRuns(_ context.Context, store *inventory.Store) error {
	for r, err := range store.Runs() {
		if err != nil {
			return err
		}
		f.allRuns++
		if f.runs = append(f.runs, r); len(f.runs) > maxRuns {
			f.runs = slices.Delete(f.runs, 0, 1)
		}
	}
	return nil
}

func (f *facts) readAlerts(ctx context.Context, store *inventory.Store) error {
	byRule := map[string]*rule{}
	for a, err := range store.Alerts() {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		f.levels[a.Level]++
		f.count(f.timeline.alerts, a.Time)
		r := byRule[a.RuleID]
		if r == nil {
			r = &rule{ID: a.RuleID, Title: a.Rule, Level: a.Level, First: a.Time}
			r.cards = top[*inventory.Alert]{n: maxCards, compare: func(a, b *inventory.Alert) int {
				return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.ID, b.ID))
			}}
			byRule[a.RuleID] = r
		}
		r.Alerts++
		r.Counted += a.Counted
		r.First, r.Last = min(r.First, a.Time), max(r.Last, a.Time)
		a.Record = nil // it is long, and the alert says the same
		r.cards.add(a)
	}
	f.rules = slices.SortedFunc(maps.Values(byRule), func(a, b *rule) int {
		return cmp.Or(cmp.Compare(rank(a.Level), rank(b.Level)), cmp.Compare(b.Alerts, a.Alerts), cmp.Compare(a.Title, b.Title), cmp.Compare(a.ID, b.ID))
	})
	f.allRules = len(f.rules)
	f.rules = f.rules[:min(len(f.rules), maxRules)]
	return nil
}

// worth orders certificates: those with alerts first, then those with flags, then by how
// many servers showed them.
func worth(a, b *query.Row) int {
	return cmp.Or(cmp.Compare(rank(a.Level), rank(b.Level)), cmp.Compare(flagCount(b), flagCount(a)), cmp.Compare(b.Servers.N, a.Servers.N),
		cmp.Compare(b.Handshakes, a.Handshakes), bytes.Compare(a.SHA256[:], b.SHA256[:]))
}

func flagCount(r *query.Row) int { return len(r.Flags.Names()) }

func (f *facts) readCertificates(ctx context.Context, store *inventory.Store) error {
	f.certificates = top[*query.Row]{n: maxCertificates, compare: worth}
	f.shared = top[*query.Row]{n: maxShared, compare: func(a, b *query.Row) int {
		return cmp.Or(cmp.Compare(b.Servers.N, a.Servers.N), worth(a, b))
	}}
	several := time.Duration(f.totals.Last-f.totals.First) > day
	f.kinds = []*kind{
		{ID: "expired", Title: "Expired", Note: "shown after their end", has: func(r *query.Row) bool { return r.Flags&query.Expired != 0 }},
		{ID: "not-yet-valid", Title: "Not yet valid", Note: "shown before their begin", has: func(r *query.Row) bool { return r.Flags&query.NotYetValid != 0 }},
		{ID: "self-signed", Title: "Self-signed", Note: "issuer and subject are the same", has: func(r *query.Row) bool { return r.Flags&query.SelfSigned != 0 }},
		{ID: "weak", Title: "Weak", Note: "a weak key, or a weak hash in the signature of somebody else", has: func(r *query.Row) bool { return r.Flags&query.Weak != 0 }},
		{ID: "untrusted", Title: "Untrusted", Note: "no chain of good signatures leads to a trusted root", has: func(r *query.Row) bool { return r.Flags&query.Untrusted != 0 }},
	}
	if several {
		f.kinds = append(f.kinds, &kind{ID: "new", Title: "New", Note: "first seen on the last day", has: func(r *query.Row) bool {
			return r.First.Time > f.totals.Last-int64(day)
		}})
	} else {
		f.kinds = append(f.kinds, &kind{ID: "new", Title: "New", Note: "made at most 30 days before they were seen", has: func(r *query.Row) bool {
			age := r.First.Time/int64(time.Second) - r.NotBefore
			return r.NotBefore != 0 && age >= 0 && age <= int64(young/time.Second)
		}})
	}
	for _, k := range f.kinds {
		k.top = top[*query.Row]{n: maxFlagged, compare: worth}
	}
	for c, err := range store.Certificates() {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if c.Roles&inventory.Leaf == 0 {
			continue
		}
		r, err := query.NewRow(store, c, 0)
		if err != nil {
			return err
		}
		f.count(f.timeline.certificates, c.First.Time)
		f.certificates.add(r)
		for _, k := range f.kinds {
			if k.has(r) {
				k.top.add(r)
			}
		}
		if r.Flags&query.Shared != 0 {
			f.shared.add(r)
		}
	}
	return nil
}

func (f *facts) readServers(ctx context.Context, store *inventory.Store) error {
	f.levelOf = map[inventory.ServerKey]string{}
	f.servers = top[*posture.Posture]{n: maxServers, compare: func(a, b *posture.Posture) int {
		return cmp.Or(cmp.Compare(rank(a.Server.Level), rank(b.Server.Level)), cmp.Compare(len(b.Weak), len(a.Weak)),
			cmp.Compare(b.Server.Handshakes, a.Server.Handshakes), a.Server.Compare(b.Server.ServerKey))
	}}
	for p, err := range posture.All(store) {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		f.count(f.timeline.encounter, p.Server.First.Time)
		f.exchange[p.Exchange]++
		f.shown[p.Leaf]++
		for _, w := range p.Weak {
			if _, ok := f.weak[w]; ok || len(f.weak) < inventory.MaxValues {
				f.weak[w]++
			}
		}
		if p.Server.Alerts > 0 {
			if f.flagged++; f.flagged <= maxCounted {
				f.levelOf[p.Server.ServerKey] = p.Server.Level
			}
		}
		f.servers.add(p)
	}
	return nil
}

func (f *facts) readNames(ctx context.Context, store *inventory.Store) error {
	byName := map[string]*name{}
	for s, err := range store.Sightings() {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if s.Roles&inventory.Leaf == 0 {
			continue
		}
		for _, text := range s.Names {
			n := byName[text]
			if n == nil {
				if len(byName) >= maxCounted {
					f.namesCut = true
					forget(byName)
				}
				n = &name{text: text, place: s.First, certificate: s.Certificate}
				byName[text] = n
			}
			n.servers++
		}
	}
	f.names = top[*name]{n: maxNames, compare: func(a, b *name) int {
		return cmp.Or(cmp.Compare(b.servers, a.servers), cmp.Compare(a.text, b.text))
	}}
	for _, text := range slices.Sorted(maps.Keys(byName)) {
		f.names.add(byName[text])
	}
	return nil
}

// forget takes away the half of the names with the fewest servers.
func forget(byName map[string]*name) {
	all := slices.SortedFunc(maps.Values(byName), func(a, b *name) int {
		return cmp.Or(cmp.Compare(a.servers, b.servers), cmp.Compare(a.text, b.text))
	})
	for _, n := range all[:len(all)/2] {
		delete(byName, n.text)
	}
}

func (f *facts) readContacts(ctx context.Context, store *inventory.Store) error {
	f.contacts = top[meeting]{n: maxContacts, compare: func(a, b meeting) int {
		return cmp.Or(cmp.Compare(rank(a.level), rank(b.level)), cmp.Compare(b.Alerts, a.Alerts), cmp.Compare(b.Handshakes, a.Handshakes),
			a.Client.Compare(b.Client), a.Server.Compare(b.Server))
	}}
	var last [16]byte
	for c, err := range store.Contacts() {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if address := c.Client.As16(); f.clients == 0 || address != last {
			f.clients++
			last = address
		}
		level, ok := f.levelOf[c.Server]
		if !ok && f.flagged > maxCounted {
			s, err := store.Server(c.Server)
			if err != nil && !errors.Is(err, inventory.ErrNotFound) {
				return err
			}
			if s != nil && s.Alerts > 0 {
				level = s.Level
			}
		}
		if level != "" {
			f.contacts.add(meeting{c, level})
		}
	}
	return nil
}
