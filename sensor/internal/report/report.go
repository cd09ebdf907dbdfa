// Package report makes a case report of an inventory: a page that stands by itself, a text
// in Markdown, and tables of all of it.
//
// The page asks nobody for anything, can be read without its script, and is bounded: it
// has exact totals and the most important of each kind. The tables have the rest. The
// same inventory gives the same bytes, but for the line that says when it was written.
package report

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// Options say what a report cannot know.
type Options struct {
	Written time.Time // when it is written
	Version string    // of oddcert
	From    string    // what the inventory is, such as "2 captures"
}

// Files are the names of the files of a report.
type Files struct {
	Page, Text                             string // HTML and Markdown
	Certificates, Servers, Alerts, Clients string // CSV
}

// FilesOf returns the names of the files of the report whose page is called page:
// case.html has case.md, case.csv with the certificates of each server, and
// case-servers.csv, case-alerts.csv and case-clients.csv.
func FilesOf(page string) Files {
	base := strings.TrimSuffix(page, ".html")
	return Files{Page: page, Text: base + ".md", Certificates: base + ".csv", Servers: base + "-servers.csv", Alerts: base + "-alerts.csv", Clients: base + "-clients.csv"}
}

// All returns the names, that of the page last: when it is there, the others are.
func (f Files) All() []string {
	return []string{f.Text, f.Certificates, f.Servers, f.Alerts, f.Clients, f.Page}
}

// beside returns the names as they are in the folder of the report.
func (f Files) beside() Files {
	for _, name := range []*string{&f.Page, &f.Text, &f.Certificates, &f.Servers, &f.Alerts, &f.Clients} {
		*name = filepath.Base(*name)
	}
	return f
}

// Begins reports whether a file that begins with b is one of a report, of which 32 bytes
// are enough.
func Begins(b []byte) bool {
	for _, begin := range []string{"<!doctype html>", "# Case report: ", "sha256,spki_sha256,", "server_address,server_port,", "event_id,time,level,", "client,server_address,"} {
		if bytes.HasPrefix(b, []byte(begin)) {
			return true
		}
	}
	return false
}

// Write writes all files of a report. create makes one of files.All; whoever calls Write
// closes what it returned. The memory that it takes is bounded.
func Write(ctx context.Context, store *inventory.Store, files Files, o Options, create func(name string) (io.Writer, error)) error {
	f, err := gather(ctx, store)
	if err != nil {
		return err
	}
	named := files.beside()
	for _, one := range []struct {
		name  string
		write func(io.Writer) error
	}{
		{files.Text, func(w io.Writer) error { return writeMarkdown(w, f, named, o) }},
		{files.Certificates, func(w io.Writer) error { return writeCertificates(ctx, w, store) }},
		{files.Servers, func(w io.Writer) error { return writeServers(ctx, w, store) }},
		{files.Alerts, func(w io.Writer) error { return writeAlerts(ctx, w, store) }},
		{files.Clients, func(w io.Writer) error { return writeClients(ctx, w, store) }},
		{files.Page, func(w io.Writer) error { return writeHTML(w, store, f, named, o) }},
	} {
		out, err := create(one.name)
		if err != nil {
			return err
		}
		b := bufio.NewWriterSize(out, 64<<10)
		if err := errors.Join(one.write(b), b.Flush()); err != nil {
			return fmt.Errorf("write %s: %w", one.name, err)
		}
	}
	return nil
}
