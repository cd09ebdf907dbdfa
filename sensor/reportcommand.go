package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/report"
)

// maxSources is how many captures a run of the inventory names.
const maxSources = 4096

func reportCommand() *cobra.Command {
	var q certs
	var out string
	cmd := &cobra.Command{
		Use:   "report [flags] -o FILE.html [PATH…]",
		Short: "Write a case report of an inventory, or of captures",
		Long: `Write a case report. PATH is an inventory, or captures and folders of them,
which are read first. Without PATH it is the inventory that the configuration
names.

The report is a page that stands by itself, can be printed, and asks nobody for
anything: -o case.html. Beside it are case.md, the same as text, and tables that
have all of it: case.csv with the certificates of each server, and
case-servers.csv, case-alerts.csv and case-clients.csv. Cells that a spreadsheet
would take for formulas begin with an apostrophe.`,
		Example: `  oddcert report -o case.html captures/ monday.pcapng.zst
  oddcert report -o today.html /var/lib/oddcert/inventory.db`,
		RunE: func(cmd *cobra.Command, paths []string) error { return writeReport(cmd, &q, out, paths) },
	}
	q.config.bind(cmd, cmd.Flags(), onInventory)
	cmd.Flags().StringVarP(&out, "out", "o", "", "`file` of the page, which ends in .html")
	inGroup(cmd, groupAnswer, "out")
	return cmd
}

// writeReport writes the report of an inventory, or of captures. The exit status is that of a
// replay.
func writeReport(cmd *cobra.Command, q *certs, out string, paths []string) error {
	if out == "" {
		return errors.New("no file named: say -o case.html")
	}
	if err := checkReport(out); err != nil {
		return err
	}
	files, err := openReport(out, paths, "", slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer files.abandon()
	store, stats, from, err := q.openForReport(cmd, paths)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := files.write(cmd.Context(), store, from); err != nil {
		return err
	}
	if stats.Broken > 0 || stats.Corrupt > 0 || stats.Ignored > 0 {
		return exit(exitInput)
	}
	return nil
}

// openForReport opens what paths name, and says what that is.
func (q *certs) openForReport(cmd *cobra.Command, paths []string) (store *inventory.Store, stats capture.Stats, from string, err error) {
	for _, path := range paths {
		if is, err := isInventory(path); is || err != nil {
			store, err = q.open(cmd, paths)
			return store, stats, "the inventory " + path, err
		}
	}
	if len(paths) == 0 {
		store, err = q.open(cmd, paths)
		return store, stats, "the inventory " + q.config.Inventory, err
	}
	store, stats, err = readCaptures(cmd, &q.config, paths, true)
	return store, stats, "captures", err
}

// checkReport says what is wrong with the name of a report.
func checkReport(path string) error {
	if path == "-" || !strings.HasSuffix(path, ".html") || filepath.Base(path) == ".html" {
		return fmt.Errorf("a report is a file that ends in .html, as in case.html, not %q", path)
	}
	return nil
}

// reportFiles are the files of a report. Until all of it is written they are beside those
// that they replace.
type reportFiles struct {
	names report.Files
	files map[string]*recordsFile
	parts map[string]*os.File // as they were opened
}

// openReport opens the files of the report with the page at path, nil where that is empty.
// They must not be inputs, and not the file of records.
func openReport(path string, inputs []string, records string, log *slog.Logger) (_ *reportFiles, err error) {
	if path == "" {
		return nil, nil
	}
	r := &reportFiles{report.FilesOf(path), map[string]*recordsFile{}, map[string]*os.File{}}
	defer func() {
		if err != nil {
			r.abandon()
		}
	}()
	for _, name := range r.names.All() {
		f, err := newRecordsFile(name, true, log)
		if err != nil {
			return nil, err
		}
		if f.Part == "" {
			return nil, fmt.Errorf("write %s: it is not a regular file", name)
		}
		if err := f.isInput(inputs); err != nil {
			return nil, err
		}
		if records != "" && records != "-" && wholePath(records) == wholePath(name) {
			return nil, fmt.Errorf("write %s: the records go there", name)
		}
		file, err := f.create()
		if err != nil {
			return nil, err
		}
		r.files[name], r.parts[name] = f, file
	}
	return r, nil
}

// write writes the report, and replaces what was there.
func (r *reportFiles) write(ctx context.Context, store *inventory.Store, from string) error {
	err := report.Write(ctx, store, r.names, report.Options{Written: time.Now(), Version: version(), From: from},
		func(name string) (io.Writer, error) { return r.parts[name], nil })
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	for _, name := range r.names.All() {
		if err := r.files[name].commit(r.parts[name]); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
		err := r.parts[name].Close()
		delete(r.parts, name)
		if err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return nil
}

// abandon takes away what was not completed.
func (r *reportFiles) abandon() {
	if r == nil {
		return
	}
	for name, file := range r.parts {
		file.Close()
		os.Remove(r.files[name].Part)
	}
	clear(r.parts)
}

// writeReport writes the report of a replay that has read all of its input.
func (s *sensor) writeReport(complete bool) error {
	if s.report == nil {
		return nil
	}
	if !complete {
		s.screen.Warn(fmt.Errorf("%s is not written: the input was not read to its end", s.report.names.Page))
		return nil
	}
	return s.report.write(s.cmd.Context(), s.inventory, "a replay")
}

// hashSources sets the hashes of captures that are regular files. One that cannot be read
// any more has none.
func (s *sensor) hashSources(r *inventory.Run) {
	for i := range r.Sources {
		source := &r.Sources[i]
		if info, err := os.Stat(source.Path); source.Path == "" || err != nil || !info.Mode().IsRegular() {
			continue
		}
		h := s.hashes.of(s.cmd.Context(), source.Path)
		if h.err != nil {
			s.screen.Warn(fmt.Errorf("hash %s: %w", source.Path, h.err))
			continue
		}
		source.SHA256 = h.sum
	}
}

// wholePath is a path that holds wherever the program runs.
func wholePath(path string) string {
	if whole, err := filepath.Abs(path); err == nil && path != "-" {
		return whole
	}
	return path
}
