package main

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/harmless"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/query"
	"github.com/oddcert/oddcert/sensor/internal/safecsv"
)

// exportFormat is a form in which certificates are written.
type exportFormat struct {
	name, usage string
	// file writes all of them, and returns how many.
	file func(w io.Writer, x *export) (int, error)
	// one makes the content of the file of one of them, in a folder; nil where there is
	// only one file for all.
	one func(x *export, r *query.Row) ([]byte, error)
}

// export is what is exported.
type export struct {
	store *inventory.Store
	rows  iter.Seq2[*query.Row, error]

	everything bool // nothing was chosen
}

var exportFormats = []exportFormat{
	{name: "pem", usage: "text that OpenSSL reads, each with its name and hash before it", file: eachPart(pemOf), one: pemOf},
	{name: "der", usage: "the bytes as sent: a folder, or one certificate", file: oneDER, one: derOf},
	{name: "csv", usage: "a table with all columns of certs list", file: writeCSV},
	{name: "json", usage: "all that is known, one object a line, with the bytes", file: eachPart(jsonOf), one: jsonOf},
	{name: "cyclonedx", usage: "CycloneDX 1.6: with keys, algorithms, versions and servers", file: writeCycloneDX},
}

func formatNames() (names []string) {
	for _, f := range exportFormats {
		names = append(names, f.name)
	}
	return names
}

func (q *certs) exportCommand() *cobra.Command {
	format, out := "pem", ""
	var choice criteria
	var b strings.Builder
	for _, f := range exportFormats {
		fmt.Fprintf(&b, "  %-9s  %s\n", f.name, f.usage)
	}
	cmd := &cobra.Command{
		Use:   "export [flags] [PATH…]",
		Short: "Write certificates to files",
		Long: `Write the certificates that all flags together choose, the same as those of
"oddcert certs list". With -o FOLDER/ each of them becomes a file that has its
SHA-256 as its name. No file is replaced.

Formats:
` + b.String() + `
In CSV, a cell that begins like a formula (= + - @) has an apostrophe before it,
so that no spreadsheet runs it.`,
		Example: `  oddcert certs export --alerting capture.pcap
  oddcert certs export --hash 149190E5014F4322 --format der capture.pcap
  oddcert certs export --untrusted -o untrusted/ captures/
  oddcert certs export --format csv -o all.csv capture.pcap`,
		RunE: func(cmd *cobra.Command, paths []string) error {
			for i := range exportFormats {
				if exportFormats[i].name == format {
					return q.export(cmd, &choice, &exportFormats[i], out, paths)
				}
			}
			return fmt.Errorf("--format: %q is none of %s", format, strings.Join(formatNames(), ", "))
		},
	}
	choice.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&format, "format", "pem", "`form` of the certificates: "+strings.Join(formatNames(), ", "))
	f.StringVarP(&out, "out", "o", "", "`file` to write, or a folder, with / at its end (default: standard output)")
	inGroup(cmd, groupAnswer, "format", "out")
	complete(cmd, "format", formatNames()...)
	return cmd
}

func (q *certs) export(cmd *cobra.Command, choice *criteria, f *exportFormat, out string, paths []string) error {
	folder := strings.HasSuffix(out, "/") || strings.HasSuffix(out, string(filepath.Separator))
	if info, err := os.Stat(out); err == nil && info.IsDir() {
		folder = true
	}
	if folder && f.one == nil {
		return fmt.Errorf("-o %s: format %s is one file: name a file", out, f.name)
	}
	store, err := q.open(cmd, paths)
	if err != nil {
		return err
	}
	defer store.Close()
	s, err := choice.selection(store)
	if err != nil {
		return err
	}
	x := &export{store, s.Certificates(store), choice.none()}
	if folder {
		n, err := writeFolder(out, f, x)
		return found(cmd, n, err)
	}
	if out == "" {
		n, err := f.file(cmd.OutOrStdout(), x)
		return found(cmd, n, err)
	}
	file, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("write %s: it exists: remove it, or name another", out)
	}
	if err != nil {
		return fmt.Errorf("write certificates: %w", err)
	}
	n, err := f.file(file, x)
	err = errors.Join(err, file.Close())
	if n == 0 || err != nil {
		err = errors.Join(err, os.Remove(out))
	}
	return found(cmd, n, err)
}

// writeFolder writes a file for each certificate. A file that has the same content
// already is left as it is.
func writeFolder(dir string, f *exportFormat, x *export) (n int, err error) {
	for r, err := range x.rows {
		if err != nil {
			return n, err
		}
		content, err := f.one(x, r)
		if err != nil {
			return n, err
		}
		if n == 0 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return n, fmt.Errorf("make the folder for certificates: %w", err)
			}
		}
		path := filepath.Join(dir, fmt.Sprintf("%X.%s", r.SHA256, f.name))
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			if old, e := os.ReadFile(path); e == nil && bytes.Equal(old, content) {
				n++
				continue
			}
			return n, fmt.Errorf("write %s: it exists with other content: remove it, or name another folder", path)
		}
		if err != nil {
			return n, fmt.Errorf("write certificates: %w", err)
		}
		_, err = file.Write(content)
		if err := errors.Join(err, file.Close()); err != nil {
			return n, fmt.Errorf("write certificates: %w", errors.Join(err, os.Remove(path)))
		}
		n++
	}
	return n, nil
}

// eachPart writes certificates one after another.
func eachPart(one func(*export, *query.Row) ([]byte, error)) func(io.Writer, *export) (int, error) {
	return func(w io.Writer, x *export) (n int, err error) {
		for r, err := range x.rows {
			if err != nil {
				return n, err
			}
			content, err := one(x, r)
			if err == nil {
				_, err = w.Write(content)
			}
			if err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	}
}

func derOf(x *export, r *query.Row) ([]byte, error) {
	der, err := x.store.DER(r.SHA256)
	if err != nil {
		return nil, fmt.Errorf("read certificate %X: %w", r.SHA256, err)
	}
	return der, nil
}

// pemOf writes what stands before a certificate as openssl s_client does (RFC 7468,
// section 5.2, allows it). The lines of the name cannot begin or end a certificate.
func pemOf(x *export, r *query.Row) ([]byte, error) {
	der, err := derOf(x, r)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# subject: %s\n# issuer: %s\n# sha256: %X\n", harmless.Text(r.Subject), harmless.Text(r.Issuer), r.SHA256)
	if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func jsonOf(_ *export, r *query.Row) ([]byte, error) {
	var b bytes.Buffer
	err := writeDocument(&b, r, true)
	return b.Bytes(), err
}

// oneDER writes one certificate: DER has nothing between two of them.
func oneDER(w io.Writer, x *export) (n int, err error) {
	var only *query.Row
	for r, err := range x.rows {
		if err != nil {
			return 0, err
		}
		if only != nil {
			return 0, errors.New("a file of DER has one certificate, and several were chosen: choose fewer, or name a folder with -o FOLDER/")
		}
		only = r
	}
	if only == nil {
		return 0, nil
	}
	der, err := derOf(x, only)
	if err != nil {
		return 0, err
	}
	_, err = w.Write(der)
	return 1, err
}

func writeCSV(w io.Writer, x *export) (n int, err error) {
	t := safecsv.NewWriter(w)
	if err := t.Write(query.ColumnNames()...); err != nil {
		return 0, err
	}
	for r, err := range x.rows {
		if err == nil {
			_, err = r.Sightings() // so that no column has to tell of an error
		}
		if err != nil {
			return n, errors.Join(err, t.Flush())
		}
		var row []string
		for i := range query.Columns {
			row = append(row, query.Columns[i].Text(r))
		}
		if err := t.Write(row...); err != nil {
			return n, err
		}
		n++
	}
	return n, t.Flush()
}
