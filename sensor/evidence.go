package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/evidence"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/summary"
)

// collecting is what makes packs of evidence while this process runs. Its methods do
// nothing where it is nil.
type collecting struct {
	*evidence.Collector
	losses atomic.Pointer[evidence.Losses]
}

// openEvidence opens the folder of packs that the configuration names, and has alerts go
// there. Without one it does nothing.
func (s *sensor) openEvidence() error {
	c := s.config
	if c.Evidence == "" {
		return nil
	}
	var key *evidence.Key
	if c.EvidenceKey != "" {
		var err error
		if key, err = evidence.ReadKey(c.EvidenceKey); err != nil {
			return err
		}
	}
	folder, err := evidence.OpenFolder(c.Evidence, c.EvidenceFormat == "zip", cmp.Or(c.EvidenceSize, evidence.DefaultSize), key)
	if err != nil {
		return err
	}
	e := new(collecting)
	e.losses.Store(&evidence.Losses{Lost: map[string]uint64{}})
	e.Collector = evidence.NewCollector(evidence.Config{
		Folder: folder,
		Sensor: evidence.Sensor{
			Name: c.observer().Name, Version: version(), Revision: revision(), Go: runtime.Version(),
			Platform: runtime.GOOS + "/" + runtime.GOARCH, Configuration: c.digest(),
		},
		Secrets: c.EvidenceSecrets,
		Losses:  func() evidence.Losses { return *e.losses.Load() },
		Hash: func(ctx context.Context, path string) (string, int64, error) {
			h := s.hashes.of(ctx, path)
			if h.err != nil {
				return "", 0, h.err
			}
			return hex.EncodeToString(h.sum[:]), h.size, nil
		},
		Warn: s.screen.Warn,
	})
	s.evidence = e
	s.finders = append(s.finders, e.See)
	return nil
}

// digest is the SHA-256 of the options that somebody has set, as a configuration file
// has them.
func (c *config) digest() string {
	h := sha256.New()
	for o := range c.grouped() {
		if o.from != "" {
			fmt.Fprintf(h, "%s: %s\n", o.key(), o.yaml())
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// saw notes what was lost so far.
func (e *collecting) saw(c *output.Counters) {
	if e == nil {
		return
	}
	l := &evidence.Losses{Time: time.Unix(0, c.Time).UTC().Format(time.RFC3339), Frames: c.Capture.Frames, Lost: map[string]uint64{}}
	for _, s := range append(c.Sections, output.Section{Name: "capture", Value: c.Capture,
		Lost: []string{"dropped", "freezes", "corrupt", "ignored", "unread", "gone", "unassembled"}}) {
		lost, err := summary.LostOf(s)
		if err != nil {
			continue
		}
		for path, n := range lost {
			l.Lost[s.Name+"."+strings.ReplaceAll(path, " ", ".")] = n
		}
	}
	e.losses.Store(l)
}

// sections are the counters of the packs.
func (e *collecting) sections() []output.Section {
	if e == nil {
		return nil
	}
	stats := e.Stats()
	return []output.Section{{Name: "evidence", Value: stats, Books: true, Lost: evidence.Lost, Lines: []output.Line{
		{N: stats.Packs, One: "pack of evidence", Many: "packs of evidence"},
		{N: stats.Existing, One: "pack that was there already", Many: "packs that were there already"},
	}}}
}

// followEvidence writes packs while alerts come, where the frames are kept in memory. It
// returns what ends that, when all alerts were told, and waits until their packs are
// written.
func (s *sensor) followEvidence() (end func()) {
	if s.evidence == nil || s.frames == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.cmd.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.evidence.Follow(ctx, s.frames)
	}()
	return func() {
		cancel()
		<-done
	}
}

// lookAgain writes the packs of the alerts of a replay that are not written yet, whose
// frames it finds in a second look at the captures.
func (s *sensor) lookAgain(counted *output.Counters, paths []string) error {
	if s.evidence == nil {
		return nil
	}
	s.evidence.saw(counted)
	return s.evidence.Look(s.cmd.Context(), func(ctx context.Context, flows []frames.Flow, each func(*frames.Frame, []int) error) error {
		files, err := capture.OpenFiles(paths, capture.FileOptions{Window: s.config.windowMemory()})
		if err != nil {
			return err
		}
		defer files.Close()
		source, err := s.config.filtered(files)
		if err != nil {
			return err
		}
		_, err = frames.Cut(ctx, source, flows, frames.Options{VLANs: s.config.VLANs}, each)
		return err
	})
}
