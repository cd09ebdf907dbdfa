package zeek

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/document"
)

// FuzzText: whatever a string holds, a reader of the format gets it back.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "-", "(empty)", "a,b", "tab\tline\nback\\slash", "\\x09", "\xff\xc3", "ü€😀", "#", "\x00\x7f", strings.Repeat("ü", maxString)} {
		f.Add(s, "x")
		f.Add("x", s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		s := schema{"fuzz", []column{{"first", "bool"}, {"text", "string"}, {"list", "vector[string]"}, {"none", "set[string]"}, {"last", "bool"}}}
		row := func(json bool) string {
			w := row{columns: s.columns, json: json}
			w.bool(true) // no line begins with a text, which might be the sign of a header
			w.text(a)
			w.texts([]string{a, b})
			w.texts([]string{})
			return string(w.end()) + "\n"
		}
		at := time.Unix(0, 0)
		_, _, lines := parse(t, string(s.header(at))+row(false)+string(footer(at)))
		want := values{"first": "T", "list": []string{a, b}, "none": []string{}}
		if a != "" {
			want["text"] = a
		}
		if len(a) <= maxString && len(b) <= maxString {
			if len(lines) != 1 || !reflect.DeepEqual(lines[0], want) {
				t.Fatalf("%q, %q: read %q", a, b, lines)
			}
		} else if got := lines[0]["list"].([]string); !strings.HasPrefix(a, got[0]) || !strings.HasPrefix(b, got[1]) ||
			len(got[0]) > maxString || len(got[1]) > maxString || utf8.ValidString(a) != utf8.ValidString(got[0]) && utf8.ValidString(a) {
			t.Fatalf("%q, %q: read %q", a, b, got)
		}
		lines = parseJSON(t, row(true))
		if utf8.ValidString(a) && utf8.ValidString(b) && len(a) <= maxString && len(b) <= maxString && !reflect.DeepEqual(lines[0], want) {
			t.Fatalf("%q, %q: read %q as JSON", a, b, lines)
		}
	})
}

// FuzzCertificate: whatever a certificate holds, its line can be read, its names are
// ASCII, and JSON says the same.
func FuzzCertificate(f *testing.F) {
	for _, file := range []string{"records.txt", "public.txt"} {
		for _, r := range records(f, file) {
			d, err := document.Read(r.JSON)
			if err != nil {
				f.Fatal(err)
			}
			if der, _ := base64.StdEncoding.DecodeString(d.Oddcert.Certificate.DER); len(der) > 0 {
				f.Add(der)
			}
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		r := certificateRecord(t, der)
		logs := write(t, false, r)
		_, _, lines := parse(t, logs[x509])
		if len(der) == 0 {
			return
		}
		if len(lines) != 1 {
			t.Fatalf("%d lines", len(lines))
		}
		for _, name := range []string{"certificate.subject", "certificate.issuer"} {
			text, _ := lines[0][name].(string)
			if len(text) > maxName || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("%s is %q", name, text)
			}
		}
		if got := parseJSON(t, write(t, true, r)[x509]); !reflect.DeepEqual(got, lines) {
			t.Fatalf("TSV: %s\nJSON: %s", show(lines[0]), show(got[0]))
		}
		isFor(cert.Parse(der), "www.example.org")
	})
}

// FuzzRecord: whatever the peers and the rules have put into a record, its lines can
// be read.
func FuzzRecord(f *testing.F) {
	f.Add("www.example.org", "h2", "TLS_AES_128_GCM_SHA256", "C=DE, O=a\\, b+OU=c, CN=d")
	f.Add("-", "\t", "0xFFFF", "CN=#0500, 1.2.3=x, =, \\")
	f.Add("(empty)", "\u2028", "_anon_", ",+,")
	f.Fuzz(func(t *testing.T, name, protocol, cipher, subject string) {
		b, err := json.Marshal(map[string]any{
			"@timestamp": "2026-11-29T07:08:09Z", "message": protocol, "rule": map[string]any{"name": cipher},
			"source": map[string]any{"ip": "192.0.2.1", "port": 1}, "destination": map[string]any{"ip": "192.0.2.2", "port": 2},
			"tls": map[string]any{"cipher": cipher, "next_protocol": protocol, "curve": cipher, "client": map[string]any{"server_name": name}},
			"oddcert": map[string]any{"certificate": map[string]any{"subject": subject, "issuer": name},
				"chain": map[string]any{"hash": map[string]any{"sha256": []string{"AB"}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		var list []*output.Record
		for _, d := range []output.Dataset{output.Handshake, output.Alert, output.Sighting} {
			list = append(list, &output.Record{Dataset: d, JSON: b})
		}
		jsonLogs := write(t, true, list...)
		for i, text := range write(t, false, list...) {
			_, _, lines := parse(t, text)
			if i == x509 {
				continue
			}
			if len(lines) != 1 {
				t.Fatalf("%d lines in %s", len(lines), text)
			}
			if got := parseJSON(t, jsonLogs[i]); !reflect.DeepEqual(got, lines) {
				t.Fatalf("TSV: %s\nJSON: %s", show(lines[0]), show(got[0]))
			}
			if i == ssl && utf8.ValidString(name) && name != "" && len(name) <= maxString && lines[0]["server_name"] != name {
				t.Fatalf("server_name is %q, want %q", lines[0]["server_name"], name)
			}
		}
	})
}
