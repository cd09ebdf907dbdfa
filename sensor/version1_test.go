package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// version1 is a record of version 1, flat: each value under its dotted name. The
// certificates of a chain have their places in it, as in oddcert.chain.0.subject.
type version1 map[string][]string

// flat takes a record apart. An array of values has all of them under its name.
func flat(r object) version1 {
	f := version1{}
	var walk func(name string, v any)
	walk = func(name string, v any) {
		switch v := v.(type) {
		case object:
			for key, m := range v {
				walk(strings.TrimPrefix(name+"."+key, "."), m)
			}
		case []any:
			for i, m := range v {
				if _, ok := m.(object); ok {
					walk(fmt.Sprintf("%s.%d", name, i), m)
				} else {
					walk(name, m)
				}
			}
		default:
			f[name] = append(f[name], fmt.Sprint(v))
		}
	}
	walk("", r)
	return f
}

func (f version1) one(name string) string { return strings.Join(f[name], ", ") }

// today are the records of a capture, flat.
type today struct {
	handshakes, alerts, sightings []version1
	certificates                  map[string]version1 // by SHA-256
	hellos                        map[string]version1 // by JA4 and JA3
}

func readToday(t *testing.T, lines []byte) *today {
	t.Helper()
	all := &today{certificates: map[string]version1{}, hellos: map[string]version1{}}
	for _, r := range objects(t, lines) {
		f := flat(r)
		switch f.one("event.dataset") {
		case "oddcert.handshake":
			all.handshakes = append(all.handshakes, f)
		case "oddcert.alert":
			all.alerts = append(all.alerts, f)
		case "oddcert.sighting":
			all.sightings = append(all.sightings, f)
		case "oddcert.certificate":
			all.certificates[f.one("oddcert.certificate.hash.sha256")] = f
		case "oddcert.hello":
			all.hellos[f.one("oddcert.ja4")+f.one("tls.client.ja3")] = f
		}
	}
	return all
}

func objects(t *testing.T, lines []byte) (all []object) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(lines))
	d.UseNumber()
	for d.More() {
		var r object
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// gone are the fields of version 1 that no record has any more.
var gone = map[string]string{
	"host.name":         "the sensor's own name, which is observer.name",
	"observer.hostname": "the same",
	"observer.type":     "a constant of the template",
	"observer.product":  "a constant of the template",
	"observer.version":  "in statistics",
	"event.action":      "a constant of the template",
	"event.module":      "a constant of the template",
	"event.created":     "@timestamp",
	"network.direction": "was always unknown",
}

// where looks for what a handshake of version 1 says under a name, in the same
// handshake of today and in what that refers to.
func (all *today) where(h version1, name string) []string {
	if values := h[name]; len(values) > 0 {
		return values
	}
	of := func(chain, place string) version1 {
		var i int
		fmt.Sscan(place, &i)
		if sums := h[chain+".hash.sha256"]; i < len(sums) {
			return all.certificates[sums[i]]
		}
		return nil
	}
	head, rest, _ := strings.Cut(name, ".")
	switch {
	case name == "event.start":
		end, err := time.Parse(time.RFC3339Nano, h.one("@timestamp"))
		duration, err2 := time.ParseDuration(h.one("event.duration") + "ns")
		if err == nil && err2 == nil {
			return []string{end.Add(-duration).UTC().Format("2006-01-02T15:04:05.000000000Z07:00")}
		}
	case head == "client":
		return h["source."+rest]
	case head == "server":
		return h["destination."+rest]
	case name == "tls.established":
		return []string{"false"} // it was not known
	case name == "tls.client.supported_ciphers":
		return all.hellos[h.one("oddcert.ja4")+h.one("tls.client.ja3")][name]
	case name == "related.ip":
		return slices.Concat(h["source.ip"], h["destination.ip"])
	case name == "related.hosts":
		return slices.Concat(h["destination.domain"], of("oddcert.chain", "0")["oddcert.certificate.name"])
	case name == "related.hash":
		var sums []string
		for _, chain := range []string{"oddcert.chain", "oddcert.client_chain"} {
			for _, sum := range h[chain+".hash.sha256"] {
				c := all.certificates[sum]
				sums = slices.Concat(sums, c["oddcert.certificate.hash.md5"], c["oddcert.certificate.hash.sha1"], []string{sum})
			}
		}
		return sums
	case strings.HasPrefix(name, "tls.server."):
		return of("oddcert.chain", "0")["oddcert.certificate."+strings.TrimPrefix(name, "tls.server.")]
	case strings.HasPrefix(name, "tls.client."):
		return of("oddcert.client_chain", "0")["oddcert.certificate."+strings.TrimPrefix(name, "tls.client.")]
	}
	for _, chain := range []string{"oddcert.chain", "oddcert.client_chain"} {
		if rest, ok := strings.CutPrefix(name, chain+"."); ok {
			place, of2, _ := strings.Cut(rest, ".")
			if of2 == "position" {
				return []string{place}
			}
			return of(chain, place)["oddcert.certificate."+of2]
		}
	}
	return nil
}

// ofRule are the fields of an alert that the text of its rule decides, and the rules
// are others today.
var ofRule = []string{"rule.version", "rule.name", "rule.description", "message", "event.id", "event.reason", "oddcert.verdict_reasons"}

// Whatever version 1 of the records said of a handshake can be found in the
// records of today: in the handshake, by the hash in the certificate, or by the
// fingerprint in the hello. Alerts still have all of it, and for each certificate of
// a server that version 1 told there is the certificate, and a sighting of a leaf.
func TestVersion1(t *testing.T) {
	files, err := filepath.Glob("testdata/version1/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no records of version 1: %v", err)
	}
	compared := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		capture := filepath.Join(capturesDir, name, "capture.pcap")
		if status := run([]string{"replay", "--name", "sensor", "--json", "-", "--records", "handshake,certificate,alert,sighting,hello", capture}, &stdout, &stderr); status != exitOK {
			t.Fatalf("exit status %d: %s", status, &stderr)
		}
		now := readToday(t, stdout.Bytes())
		var handshakes, alerts int
		for _, r := range objects(t, text) {
			old := flat(r)
			var what string
			var where func(field string) []string
			switch dataset := old.one("event.dataset"); dataset {
			case "oddcert.handshake":
				what = fmt.Sprintf("%s: handshake %d", name, handshakes)
				if handshakes >= len(now.handshakes) {
					t.Fatalf("%s is not there", what)
				}
				h := now.handshakes[handshakes]
				handshakes++
				where = func(field string) []string { return now.where(h, field) }
			case "oddcert.alert":
				what = fmt.Sprintf("%s: alert %d", name, alerts)
				if alerts >= len(now.alerts) {
					t.Fatalf("%s is not there", what)
				}
				a := now.alerts[alerts]
				alerts++
				where = func(field string) []string { return a[field] }
			case "oddcert.certificate":
				sum := old.one("tls.server.hash.sha256")
				what = fmt.Sprintf("%s: certificate %s", name, sum)
				c := now.certificates[sum]
				where = func(field string) []string {
					for _, prefix := range []string{"oddcert.chain.0.", "tls.server."} {
						if rest, ok := strings.CutPrefix(field, prefix); ok && rest != "ja3s" {
							if rest == "certificate_chain" {
								rest = "der"
							}
							return c["oddcert.certificate."+rest]
						}
					}
					return old[field] // of the handshake, which is compared
				}
				if old.one("oddcert.chain.0.position") != "0" {
					break
				}
				if !slices.ContainsFunc(now.sightings, func(s version1) bool {
					return s.one("oddcert.certificate.hash.sha256") == sum && s.one("destination.ip") == old.one("destination.ip") &&
						s.one("destination.port") == old.one("destination.port") && s.one("network.transport") == old.one("network.transport")
				}) {
					t.Errorf("%s: no sighting at %s", what, old.one("destination.ip"))
				}
			}
			for field, values := range old {
				if gone[field] != "" || old.one("event.dataset") == "oddcert.alert" && slices.Contains(ofRule, field) {
					continue
				}
				found := where(field)
				for _, v := range values {
					compared++
					if !slices.Contains(found, v) {
						t.Errorf("%s: %s is not %s, but %s", what, field, v, found)
					}
				}
			}
		}
		// Version 1 had no rule for what is encrypted.
		now.alerts = slices.DeleteFunc(now.alerts, func(a version1) bool { return a.one("oddcert.verdict") == "posing" })
		if handshakes != len(now.handshakes) || alerts != len(now.alerts) {
			t.Errorf("%s: %d handshakes and %d alerts, of which version 1 had %d and %d", name, len(now.handshakes), len(now.alerts), handshakes, alerts)
		}
	}
	t.Logf("%d values are where they must be", compared)
}
