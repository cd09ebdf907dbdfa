package main

import (
	"cmp"
	"errors"
	"iter"
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/judge"
	"github.com/oddcert/oddcert/sensor/internal/judge/memory"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
)

// before says what the inventory knows of earlier runs: then a sighting that was told is
// told no more, and a server is remembered for its alert. It is nil without an inventory
// that is kept: captures that are read again give the same records, with a report or not.
func (s *sensor) before() func(*output.Told, *judge.Order) {
	if s.inventoryPath == "" {
		return nil
	}
	return func(told *output.Told, order *judge.Order) {
		err := recallTold(s.inventory, told)
		if order != nil {
			err = errors.Join(err, recallServers(s.inventory, order.Keep()))
		}
		if err != nil {
			s.screen.Warn(err) // what was seen before may be told again
		}
	}
}

// recent collects those of many values whose times are the latest.
type recent[T any] struct {
	most   int
	values []timed[T]
}

type timed[T any] struct {
	time int64
	of   T
}

func (r *recent[T]) add(t int64, v T) {
	if r.values = append(r.values, timed[T]{t, v}); len(r.values) >= 2*r.most {
		r.cut()
	}
}

// cut sorts the values, the earliest first, and leaves the latest.
func (r *recent[T]) cut() {
	slices.SortStableFunc(r.values, func(a, b timed[T]) int { return cmp.Compare(a.time, b.time) })
	if over := len(r.values) - r.most; over > 0 {
		r.values = slices.Delete(r.values, 0, over)
	}
}

// all are the latest, the earliest of them first.
func (r *recent[T]) all() iter.Seq2[int64, T] {
	r.cut()
	return func(yield func(int64, T) bool) {
		for _, v := range r.values {
			if !yield(v.time, v.of) {
				return
			}
		}
	}
}

// recallTold has the certificates and sightings of an inventory told.
func recallTold(in *inventory.Store, told *output.Told) error {
	certificates := recent[inventory.Hash]{most: output.MaxTold}
	for v, err := range in.Certificates() {
		if err != nil {
			return err
		}
		certificates.add(v.Last.Time, v.SHA256)
	}
	for at, hash := range certificates.all() {
		told.ToldCertificate(hash, at)
	}
	type named struct {
		server inventory.ServerKey
		name   string
		leaf   inventory.Hash
	}
	sightings := recent[named]{most: output.MaxTold}
	for v, err := range in.Sightings() {
		if err != nil {
			return err
		}
		if v.Roles&inventory.Leaf == 0 {
			continue
		}
		for _, name := range v.Names {
			sightings.add(v.Last.Time, named{v.Server, name, v.Certificate})
		}
		if v.Unnamed > 0 {
			sightings.add(v.Last.Time, named{v.Server, "", v.Certificate})
		}
	}
	for _, v := range sightings.all() {
		told.ToldSighting(endpointOf(&v.server), v.server.Transport, v.name, v.leaf)
	}
	return nil
}

// recallServers has the servers of an inventory remembered: their keys, OpenVPN on them,
// and the alerts for them.
func recallServers(in *inventory.Store, m *memory.Memory) error {
	totals, err := in.Totals()
	if err != nil {
		return err
	}
	since := totals.Last - memory.Window
	shown := recent[memory.Shown]{most: memory.MaxShown / 4}
	spki := map[inventory.Hash][32]byte{}
	add := func(v memory.Shown) error {
		key, ok := spki[v.SHA256]
		if !ok {
			c, err := in.Certificate(v.SHA256)
			if errors.Is(err, inventory.ErrNotFound) {
				return nil // it was given up
			}
			if err != nil {
				return err
			}
			if len(spki) == output.MaxTold {
				clear(spki)
			}
			key = c.SPKI
			spki[v.SHA256] = key
		}
		v.SPKI = key
		shown.add(v.Time, v)
		return nil
	}
	for v, err := range in.Sightings() {
		if err != nil {
			return err
		}
		if v.Roles&inventory.Leaf == 0 || v.Last.Time < since {
			continue
		}
		of := memory.Shown{Time: v.Last.Time, SHA256: v.Certificate, Server: v.Server.Address}
		for _, name := range append(v.Names, "") {
			of.Name = name
			if err := add(of); err != nil {
				return err
			}
		}
	}
	for v, err := range in.Contacts() {
		if err != nil {
			return err
		}
		if v.Certificate == (inventory.Hash{}) || v.Last.Time < since {
			continue
		}
		if err := add(memory.Shown{Time: v.Last.Time, SHA256: v.Certificate, Server: v.Server.Address, Client: v.Client}); err != nil {
			return err
		}
	}
	var list []memory.Shown
	for _, v := range shown.all() {
		list = append(list, v)
	}
	m.Recall(list)
	for v, err := range in.Servers() {
		if err != nil {
			return err
		}
		if v.Carrier == memory.OpenVPN {
			m.RecallOpenVPN(v.Address, v.First.Time, v.Last.Time)
		}
	}
	return recallAlerts(in, m)
}

// recallAlerts has the servers remembered for which there was an alert, and the clients
// for which there was a reminder.
func recallAlerts(in *inventory.Store, m *memory.Memory) error {
	alerts := recent[*inventory.Alert]{most: memory.MaxFlagged}
	for v, err := range in.Alerts() {
		if err != nil {
			return err
		}
		if v.Flagged != "" || pipeline.Flags(v.Verdict) {
			v.Record, v.Reasons = nil, nil
			alerts.add(v.Time, v)
		}
	}
	for _, v := range alerts.all() {
		server := endpointOf(&v.Server)
		if v.Flagged != "" {
			client := &event.Endpoint{Addr: v.Client.Addr(), Port: v.Client.Port(), MAC: v.Place.Flow.ClientMAC}
			m.RecallReminder(server, client, v.Server.Transport)
		}
		if pipeline.Flags(v.Verdict) {
			m.RecallAlert(server, v.Server.Transport, judgement.Flagged{
				AlertID: v.ID, Rule: v.Rule, Verdict: v.Verdict, Level: v.Level, Time: v.Time, SHA256: v.Certificate})
		}
	}
	return nil
}

// endpointOf is the endpoint of a server.
func endpointOf(k *inventory.ServerKey) *event.Endpoint {
	return &event.Endpoint{Addr: k.Address, Port: k.Port, MAC: k.MAC}
}
