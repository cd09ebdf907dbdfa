package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/judge"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
	"github.com/oddcert/oddcert/sensor/internal/summary"
)

// noInventory stands for no inventory.
const noInventory = "none"

// inventoryFile is the file of the inventory; empty for none. Where nobody says anything, a
// live capture has one if there is a folder for what survives a run.
func (c *config) inventoryFile(live bool) string {
	switch c.Inventory {
	case noInventory:
		return ""
	case "":
	default:
		return c.Inventory
	}
	dir, err := stateFolder()
	if !live || err != nil {
		return ""
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return ""
	}
	return filepath.Join(dir, "inventory.db")
}

// inventoryMemory is the memory for what waits to be written into the inventory, and for
// what it has at hand. The pages of a transaction take as much again.
func (c *config) inventoryMemory(live bool) int64 {
	if c.inventoryFile(live) == "" {
		return 0
	}
	return max(min(inventory.DefaultMemory, c.memory()/16), inventory.LeastMemory)
}

// checkInventory says why the inventory would not be opened. Root, who checks for somebody
// else, is only told that it is that of another user.
func (c *config) checkInventory(warn func(error)) error {
	path := c.Inventory
	if path == "" || path == noInventory {
		return nil
	}
	if err := checkFolder(path); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil // it will be made
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("inventory: %s is not a file", path)
	}
	if user, mine := ownfile.Owner(info); !mine {
		err := fmt.Errorf("inventory: %s belongs to another user (%d)", path, user)
		if os.Geteuid() != 0 {
			return err
		}
		warn(fmt.Errorf("%w: oddcert must run as that user", err))
	}
	return nil
}

// openInventory opens the inventory that the configuration names, and has what is found
// go there. Without one it does nothing.
func (s *sensor) openInventory(live bool) error {
	c := s.config
	path := c.inventoryFile(live)
	if path == "" && s.report == nil {
		return nil
	}
	holder := "oddcert replay"
	if live {
		holder = "oddcert live"
	}
	var store *inventory.Store
	var err error
	if path == "" {
		store, err = inventory.Temporary()
	} else {
		store, err = inventory.Open(path, inventory.Options{
			Memory: int(c.inventoryMemory(live)), Size: c.InventorySize, Log: s.log(), Block: !live, Serve: live, Holder: holder})
	}
	if err != nil && path != "" && c.Inventory == "" {
		s.screen.Warn(fmt.Errorf("%w: this run keeps none", err)) // nobody has asked for it
		return nil
	}
	if err != nil {
		return err
	}
	s.inventory, s.inventoryPath = store, path
	s.finders = append(s.finders, store.See)
	s.run = inventory.Run{Begun: time.Now().UnixNano(), Version: version(), Sensor: c.observer().Name}
	if live {
		for _, name := range c.Interfaces {
			s.run.Sources = append(s.run.Sources, inventory.Source{Interface: name})
		}
	}
	store.Begin(s.run)
	return nil
}

// closeInventory completes the run that the inventory has, with what was counted, and
// writes what is left, with a report where one is wanted and the input is complete. Nil
// counters are those of a run that has not begun.
func (s *sensor) closeInventory(counted *output.Counters, complete bool) error {
	if s.inventory == nil {
		return nil
	}
	if counted != nil {
		s.completeRun(&s.run, counted)
		if s.report != nil && complete {
			s.hashSources(&s.run)
		}
		s.inventory.End(s.run)
	}
	err := s.writeReport(complete)
	err = errors.Join(err, s.inventory.Close())
	if lost := s.inventory.Stats().Lost; lost > 0 {
		err = errors.Join(err, fmt.Errorf("write the inventory %s: %d findings lost", s.inventoryPath, lost))
	}
	return err
}

// completeRun sets what is known of a run when it is over.
func (s *sensor) completeRun(r *inventory.Run, counted *output.Counters) {
	r.Ended, r.Start, r.End = time.Now().UnixNano(), counted.Start, counted.End
	r.Sources = nil
	if s.input != nil {
		for _, f := range s.input.Read() {
			if f.Skipped || len(r.Sources) == maxSources {
				continue
			}
			r.Sources = append(r.Sources, inventory.Source{Path: wholePath(f.Path), Size: max(f.Size, 0), Frames: f.Frames, Start: f.Start, End: f.End})
		}
	}
	for _, i := range counted.Interfaces {
		r.Sources = append(r.Sources, inventory.Source{Interface: i.Name, Frames: i.Frames})
	}
	record, _, err := output.NewEncoder(s.config.observer(), s.config.records(), 0).AppendStats(nil, counted)
	if err != nil {
		s.screen.Warn(err)
	}
	r.Stats = record
	sum, err := summary.Of(counted, filepath.Base)
	if err != nil {
		s.screen.Warn(err)
	}
	r.Seen, r.Lost = linesOf(slices.Concat(sum.Groups...)), linesOf(sum.Lost)
}

// linesOf are rows of a summary as an inventory keeps them.
func linesOf(rows []summary.Row) (lines []inventory.Line) {
	for _, r := range rows {
		lines = append(lines, inventory.Line{N: r.N, Label: r.Label, Note: r.Note})
	}
	return lines
}

// sections are the counters of what takes records and findings.
func (s *sensor) sections() []output.Section {
	all := s.outs.sections()
	if s.inventoryPath != "" {
		all = append(all, output.Section{Name: "inventory", Value: s.inventory.Stats(), Books: true, Lost: []string{"lost", "forgotten", "damaged"}})
	}
	return append(all, s.evidence.sections()...)
}

// readInventory reads captures into an inventory that is gone when it is closed. Nothing
// is told of alerts; what could not be read is.
func readInventory(cmd *cobra.Command, c *config, paths []string) (*inventory.Store, error) {
	store, _, err := readCaptures(cmd, c, paths, false)
	return store, err
}

// readCaptures is readInventory that tells what was read, with hashes of the files where
// they are wanted.
func readCaptures(cmd *cobra.Command, c *config, paths []string, hashes bool) (_ *inventory.Store, _ capture.Stats, err error) {
	s, err := newSensor(cmd, c, false)
	if err != nil {
		return nil, capture.Stats{}, err
	}
	defer s.screen.Close()
	in, err := s.openCaptures(paths)
	if err != nil {
		return nil, capture.Stats{}, err
	}
	defer in.Close()
	store, err := inventory.Temporary()
	if err != nil {
		return nil, capture.Stats{}, err
	}
	s.outs = &outputs{}
	options := s.reading(in)
	options.Records.Datasets = output.Set(0).Add(output.Alert)
	options.Alert = nil
	options.Found = store.See
	options.Before = func(_ *output.Told, order *judge.Order) { order.Keep() } // as an inventory of the same captures knows them
	run := inventory.Run{Begun: time.Now().UnixNano(), Version: version(), Sensor: c.observer().Name}
	store.Begin(run)
	p := pipeline.New(options)
	stop := s.screen.Progress(in.Progress)
	err = p.Replay(cmd.Context(), in.source)
	stop()
	if err != nil {
		store.Close()
		return nil, capture.Stats{}, err
	}
	stats := in.source.Stats()
	s.completeRun(&run, p.Counters(stats))
	if hashes {
		s.hashSources(&run)
	}
	store.End(run)
	return store, stats, nil
}
