package main

import (
	"io"
	"slices"

	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
)

// captures are capture files that are read, with the secrets that decrypt them.
type captures struct {
	*capture.Files
	source capture.Source // Files, or those of their frames that the filter lets through
	keys   *keylog.Store
	once   bool // some cannot be read again
}

// openCaptures opens capture files, and reads the key logs.
func (s *sensor) openCaptures(paths []string) (_ *captures, err error) {
	keys := new(keylog.Store)
	files, err := capture.OpenFiles(paths, capture.FileOptions{
		Warn:    s.screen.Warn,
		Secrets: func(path string) io.WriteCloser { return keys.Own(path+": decryption secrets", s.screen.Warn) },
		Forget:  keys.Forget,
		Window:  s.config.windowMemory(),
	})
	if err != nil {
		return nil, err
	}
	s.screen.Captures(files.Paths())
	in := &captures{files, files, keys, files.Streams() || slices.Contains(paths, "-")}
	s.input = in
	if err = s.readKeys(keys, files.Streams()); err == nil {
		in.source, err = s.config.filtered(files)
	}
	if err != nil {
		files.Close()
		return nil, err
	}
	return in, nil
}

// filtered are those frames of files that the filter lets through.
func (c *config) filtered(files *capture.Files) (capture.Source, error) {
	if c.Filter == "" {
		return files, nil
	}
	return capture.Filtered(files, c.Filter)
}

// reading is what the pipeline of this sensor is made of that reads in.
func (s *sensor) reading(in *captures) pipeline.Config {
	n, follow := s.config.workers(), in.Streams()
	options := s.pipeline(n, s.divideMemory(n, 0, !in.once), in.keys)
	options.KeysLater = follow && len(s.config.Keys) > 0
	options.Follow = follow
	return options
}
