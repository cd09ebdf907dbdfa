// Package zeek writes records as the logs of Zeek 8: ssl.log, x509.log, notice.log
// and known_certs.log, in the tab-separated form or as JSON.
//
// Columns, their order and types are those that Zeek writes by default. What the
// records do not say is unset: last_alert, ssl_history, and the serial number in
// known_certs.log always are.
// id.orig is the client and id.resp the server, whoever has opened the connection.
//
// Sources: docs.zeek.org, version 8.2, "Zeek Script Reference": SSL::Info
// (base/protocols/ssl/main.zeek and files.zeek), X509::Info (base/files/x509/main.zeek),
// Notice::Info (base/frameworks/notice/main.zeek), Known::CertsInfo
// (policy/protocols/ssl/known-certs.zeek).
package zeek

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/document"
	"github.com/oddcert/oddcert/sensor/internal/output/logfile"
)

// The logs, in the order of [Format.Files].
const (
	ssl = iota
	x509
	notice
	knownCerts
)

// schema is a log of Zeek.
type schema struct {
	path    string // Zeek's word for the name of a log
	columns []column
}

type column struct{ name, kind string }

// connection has the columns of a conn_id (base/init-bare.zeek) after its uid.
var connection = []column{
	{"uid", "string"}, {"id.orig_h", "addr"}, {"id.orig_p", "port"}, {"id.resp_h", "addr"}, {"id.resp_p", "port"},
}

var schemas = [...]schema{
	ssl: {"ssl", columns([]column{{"ts", "time"}}, connection, []column{
		{"version", "string"}, {"cipher", "string"}, {"curve", "string"}, {"server_name", "string"}, {"resumed", "bool"},
		{"last_alert", "string"}, {"next_protocol", "string"}, {"established", "bool"}, {"ssl_history", "string"},
		{"cert_chain_fps", "vector[string]"}, {"client_cert_chain_fps", "vector[string]"}, {"sni_matches_cert", "bool"},
	})},
	x509: {"x509", []column{
		{"ts", "time"}, {"fingerprint", "string"}, {"certificate.version", "count"}, {"certificate.serial", "string"},
		{"certificate.subject", "string"}, {"certificate.issuer", "string"}, {"certificate.not_valid_before", "time"},
		{"certificate.not_valid_after", "time"}, {"certificate.key_alg", "string"}, {"certificate.sig_alg", "string"},
		{"certificate.key_type", "string"}, {"certificate.key_length", "count"}, {"certificate.exponent", "string"},
		{"certificate.curve", "string"}, {"san.dns", "vector[string]"}, {"san.uri", "vector[string]"},
		{"san.email", "vector[string]"}, {"san.ip", "vector[addr]"}, {"basic_constraints.ca", "bool"},
		{"basic_constraints.path_len", "count"}, {"host_cert", "bool"}, {"client_cert", "bool"},
	}},
	notice: {"notice", columns([]column{{"ts", "time"}}, connection, []column{
		{"fuid", "string"}, {"file_mime_type", "string"}, {"file_desc", "string"}, {"proto", "enum"}, {"note", "enum"},
		{"msg", "string"}, {"sub", "string"}, {"src", "addr"}, {"dst", "addr"}, {"p", "port"}, {"n", "count"},
		{"peer_descr", "string"}, {"actions", "set[enum]"}, {"email_dest", "set[string]"}, {"suppress_for", "interval"},
		{"remote_location.country_code", "string"}, {"remote_location.region", "string"}, {"remote_location.city", "string"},
		{"remote_location.latitude", "double"}, {"remote_location.longitude", "double"},
	})},
	knownCerts: {"known_certs", []column{
		{"ts", "time"}, {"host", "addr"}, {"port_num", "port"}, {"subject", "string"}, {"issuer_subject", "string"},
		{"serial", "string"},
	}},
}

func columns(parts ...[]column) (all []column) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// Format writes records as logs of Zeek. It may be used by several goroutines.
type Format struct{ json bool }

// New returns a format that writes JSON lines, as Zeek does where LogAscii::use_json
// is set, or else tab-separated lines.
func New(json bool) *Format { return &Format{json} }

// Files returns ssl.log, x509.log, notice.log and known_certs.log. The tab-separated
// ones begin with a header, and end with the time when they were closed.
func (f *Format) Files() []logfile.File {
	files := make([]logfile.File, len(schemas))
	for i := range schemas {
		s := &schemas[i]
		files[i].Name = s.path + ".log"
		if !f.json {
			files[i].Header = s.header
			files[i].Footer = footer
		}
	}
	return files
}

// fileTime is how headers write the time, which is that of the machine (Zeek's
// src/logging/writers/ascii/Ascii.cc).
const fileTime = "2006-01-02-15-04-05"

// header is what stands before the lines of a log.
func (s *schema) header(at time.Time) []byte {
	var b bytes.Buffer
	b.WriteString("#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n")
	fmt.Fprintf(&b, "#path\t%s\n#open\t%s\n", s.path, at.Format(fileTime))
	b.WriteString("#fields")
	for _, c := range s.columns {
		b.WriteString("\t" + c.name)
	}
	b.WriteString("\n#types")
	for _, c := range s.columns {
		b.WriteString("\t" + c.kind)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

func footer(at time.Time) []byte { return []byte("#close\t" + at.Format(fileTime) + "\n") }

// Format calls emit with the line of r, where r has a form here: handshakes, whether
// full or not, certificates, alerts and sightings do. The line is lent, and has no
// line feed. An error means that r cannot be read.
func (f *Format) Format(r *output.Record, emit func(file int, line []byte)) error {
	write, file := f.ssl, ssl
	switch r.Dataset {
	case output.Handshake, output.FullHandshake:
	case output.Certificate:
		write, file = f.x509, x509
	case output.Alert:
		write, file = f.notice, notice
	case output.Sighting:
		write, file = f.knownCerts, knownCerts
	default:
		return nil
	}
	d, err := document.Read(r.JSON)
	if err != nil {
		return err
	}
	w := row{columns: schemas[file].columns, json: f.json}
	if err := write(&w, d); err != nil {
		return err
	}
	emit(file, w.end())
	return nil
}

// decode returns the certificate in base64; what names it in an error.
func decode(what, text string) ([]byte, error) {
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return der, nil
}
