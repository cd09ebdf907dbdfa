package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/doctor"
	"github.com/oddcert/oddcert/sensor/internal/evidence"
	"github.com/oddcert/oddcert/sensor/internal/health"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
	"github.com/oddcert/oddcert/sensor/internal/pcapfilter"
)

// preflight names everything that a run with this configuration would not start for:
// rules, and what they are judged by, and all that checkPlaces looks at. warn is told
// what a run would start with, and somebody should know.
func (c *config) preflight(warn func(error)) error {
	_, _, wrong := c.loadRules(0)
	for _, name := range capture.Expand(c.Interfaces) {
		if _, err := net.InterfaceByName(name); err != nil {
			warn(fmt.Errorf("interface: there is no %s on this machine", name))
		}
	}
	return errors.Join(wrong, c.checkPlaces(warn))
}

// checkPlaces names everything that is wrong with the filter, and with the files and
// folders that the configuration names, but for those of rules and of what they are
// judged by. Nothing is made and nobody is connected to.
func (c *config) checkPlaces(warn func(error)) error {
	errs := []error{pcapfilter.Check(c.Filter)}
	for _, path := range c.Keys {
		if err := checkReadable(path); err != nil {
			errs = append(errs, fmt.Errorf("read keys: %w", err))
		}
	}
	if _, err := health.OpenAccess(c.Access); err != nil && c.Access.Validate() == nil {
		errs = append(errs, err)
	}
	if c.JSON != "" && c.JSON != "-" {
		_, err := newRecordsFile(c.JSON, false, slog.New(slog.DiscardHandler))
		if err == nil {
			err = checkFolder(c.JSON)
		}
		errs = append(errs, err)
	}
	if c.Evidence != "" {
		errs = append(errs, evidence.CheckFolder(c.Evidence))
	}
	if c.EvidenceKey != "" {
		_, err := evidence.ReadKey(c.EvidenceKey)
		errs = append(errs, err)
	}
	for _, d := range c.destinations() {
		if d.file {
			errs = append(errs, checkFolder(d.path))
			continue
		}
		opened, err := d.open()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_ = opened.Close() // nothing was sent
	}
	return errors.Join(append(errs, c.checkInventory(warn), c.checkSpool(warn))...)
}

// destination is an output before it is opened.
type destination struct {
	name     string
	datasets output.Set
	file     bool   // it is a file at path, or files in the folder of that name
	path     string // of files
	datagram bool   // nobody answers there
	open     func() (delivery.Destination, error)
}

// destinations are all outputs but the JSON lines. Opening one reads the files of its
// settings, and makes those of its records where it is a file.
func (c *config) destinations() (all []destination) {
	log := slog.New(slog.DiscardHandler)
	if c.Elasticsearch.Given() {
		all = append(all, destination{
			name: elasticsearchName, datasets: c.selected(),
			open: func() (delivery.Destination, error) { return c.openElasticsearch(log) },
		})
	}
	for _, o := range c.Outputs {
		all = append(all, destination{
			name: o.name, datasets: o.datasets(), file: outputTypeNamed(o.Type).inPlace, path: o.File.Path, datagram: isUDP(o.Syslog.URL),
			open: func() (delivery.Destination, error) { return c.openOutput(o, log) },
		})
	}
	return all
}

// checkReadable says why a file cannot be read. A pipe is not opened: that would wait
// for who writes to it.
func checkReadable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		err = errors.Unwrap(err)
	case info.IsDir():
		err = syscall.EISDIR
	default:
		err = ownfile.Access(path, false)
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return nil
}

// checkFolder says why no file can be made at a path.
func checkFolder(path string) error {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		err = errors.Unwrap(err)
	case !info.IsDir():
		err = syscall.ENOTDIR
	default:
		if _, missing := os.Stat(path); errors.Is(missing, fs.ErrNotExist) {
			err = ownfile.Access(dir, true)
		} else {
			err = ownfile.Access(path, true)
		}
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return nil
}

// spoolPlace is the folder of the spool, empty where nothing needs one.
func (c *config) spoolPlace() (string, error) {
	if len(c.Outputs) == 0 && !c.Elasticsearch.Given() {
		return "", nil
	}
	if c.Spool != "" {
		return c.Spool, nil
	}
	return defaultSpool()
}

// checkSpool says why the spool would not be opened. Root, who checks for somebody else,
// is only told that the folder is that of another user.
func (c *config) checkSpool(warn func(error)) error {
	dir, err := c.spoolPlace()
	if err != nil || dir == "" {
		return err
	}
	err = spool.CheckFolder(dir)
	if errors.Is(err, spool.ErrOwner) && os.Geteuid() == 0 {
		warn(fmt.Errorf("%w: oddcert must run as that user", err))
		return nil
	}
	return err
}

// writable says in which folders, or which files, everybody may put what oddcert goes
// by.
func (c *config) writable(warn func(error)) {
	paths := [][]string{c.Rules, c.Roots, c.Networks, c.Databases, c.Keys}
	if c.file != "" {
		paths = append(paths, []string{c.file})
	}
	for _, list := range paths {
		for _, path := range list {
			// Whoever reads it complains when it is missing.
			if info, err := os.Stat(path); err == nil && (info.IsDir() || info.Mode().IsRegular()) && info.Mode()&0o002 != 0 {
				warn(fmt.Errorf("%s: everybody on this machine may write there, and so change what is found: chmod o-w", path))
			}
		}
	}
}

// remoteSpool says that the spool is on a file system of the network.
func (c *config) remoteSpool(warn func(error)) {
	dir, err := c.spoolPlace()
	if err != nil || dir == "" {
		return // whoever opens it complains
	}
	if f, err := doctor.ReadFolder(dir, c.spoolSize()); err == nil && f.System != "" {
		warn(errors.New(f.Remote()))
	}
}

// spoolSize is the most that the spool takes on disk.
func (c *config) spoolSize() int64 {
	if c.SpoolSize == 0 {
		return spool.DefaultSize
	}
	return c.SpoolSize
}
