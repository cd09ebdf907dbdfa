package cef

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/oddcert/oddcert/sensor/internal/output/document"
	"github.com/oddcert/oddcert/sensor/pythontest"
)

// line is a message, read by a parser that accepts nothing but what the vendors
// describe.
type line struct {
	header []string
	pairs  map[string]string
}

func readCEF(text string) (*line, error) {
	l := &line{pairs: map[string]string{}}
	rest, ok := strings.CutPrefix(text, "CEF:0|")
	if !ok {
		return nil, errors.New("no header")
	}
	for len(l.header) < 6 {
		var part strings.Builder
		for {
			if rest == "" {
				return nil, errors.New("the header ends early")
			}
			c := rest[0]
			rest = rest[1:]
			if c == '|' {
				break
			}
			if c == '\\' {
				if rest == "" || rest[0] != '\\' && rest[0] != '|' {
					return nil, errors.New("bad escape in the header")
				}
				c, rest = rest[0], rest[1:]
			}
			part.WriteByte(c)
		}
		l.header = append(l.header, part.String())
	}
	// A key is what stands before an equal sign without a backslash, back to a space.
	key, value := "", []byte(nil)
	store := func() error {
		if _, ok := l.pairs[key]; ok || key == "" {
			return fmt.Errorf("key %q twice, or a value without one", key)
		}
		l.pairs[key] = string(value)
		return nil
	}
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; c {
		case '\\':
			i++
			if i == len(rest) {
				return nil, errors.New("a backslash at the end")
			}
			switch rest[i] {
			case '\\', '=':
				value = append(value, rest[i])
			case 'n':
				value = append(value, '\n')
			case 'r':
				value = append(value, '\r')
			default:
				return nil, fmt.Errorf("bad escape \\%c", rest[i])
			}
		case '=':
			at := bytes.LastIndexByte(value, ' ')
			if at < 0 && key != "" {
				return nil, errors.New("an equal sign without a key")
			}
			next := string(value[at+1:])
			for _, r := range next {
				if !unicode.IsDigit(r) && !unicode.IsLetter(r) {
					return nil, fmt.Errorf("bad key %q", next)
				}
			}
			if key != "" {
				value = value[:at]
				if err := store(); err != nil {
					return nil, err
				}
			}
			key, value = next, nil
		default:
			value = append(value, c)
		}
	}
	return l, store()
}

// readLEEF splits as IBM's own expression for attributes does: KEY=([^\t]+).
func readLEEF(text string) (*line, error) {
	parts := strings.SplitN(text, "|", 7)
	if len(parts) != 7 || parts[0] != "LEEF:2.0" || parts[5] != "x09" {
		return nil, errors.New("no header")
	}
	l := &line{header: parts[1:5], pairs: map[string]string{}}
	for _, pair := range strings.Split(parts[6], "\t") {
		key, value, ok := strings.Cut(pair, "=")
		if _, twice := l.pairs[key]; !ok || twice || key == "" || value == "" {
			return nil, fmt.Errorf("bad pair %q", pair)
		}
		l.pairs[key] = value
	}
	return l, nil
}

func sample(t testing.TB) (docs []*document.Document) {
	t.Helper()
	text, err := os.ReadFile("testdata/records.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for record := range bytes.Lines(text) {
		d, err := document.Read(record)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, d)
	}
	return docs
}

func format(t testing.TB, f Format, d *document.Document, limit int) string {
	t.Helper()
	b, err := f([]byte("before "), d, "1.2", limit)
	if err != nil {
		t.Fatal(err)
	}
	text, ok := strings.CutPrefix(string(b), "before ")
	if !ok {
		t.Fatalf("%q does not begin with what was there", b)
	}
	return text
}

// An alert says in the vendors' words what its record says.
func TestAlert(t *testing.T) {
	d := sample(t)[0]
	if d.Rule.Name == "" {
		t.Fatal("the first record is no alert")
	}
	l, err := readCEF(format(t, CEF, d, 8192))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"oddcert", "oddcert", "1.2", d.Rule.ID, d.Rule.Name, "3"}; !slices.Equal(l.header, want) {
		t.Errorf("CEF header: %q, want %q", l.header, want)
	}
	for key, want := range map[string]string{
		"externalId": "0006d2c64f97974e2398eafb4437fe89",
		"rt":         "1609829790732", // 2021-01-05T06:56:30.732Z
		"src":        "192.168.0.17", "spt": "49706", "dst": "151.101.65.69", "dpt": "443", "proto": "TCP",
		"dhost": "stackoverflow.com", "reason": d.Event.Reason, "msg": d.Message, "fileHash": d.TLS.Server.Hash.SHA256,
		"cs1": d.TLS.Server.Subject, "cs1Label": "Certificate subject", "outcome": "success", "cat": "alert",
		"start": "1609829787062",
	} {
		if got := l.pairs[key]; got != want {
			t.Errorf("CEF %s: %q, want %q", key, got, want)
		}
	}
	if l, err = readLEEF(format(t, LEEF, d, 8192)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"oddcert", "oddcert", "1.2", d.Rule.ID}; !slices.Equal(l.header, want) {
		t.Errorf("LEEF header: %q, want %q", l.header, want)
	}
	for key, want := range map[string]string{
		"devTime": "Jan 05 2021 06:56:30.732 GMT", "devTimeFormat": "MMM dd yyyy HH:mm:ss.SSS z", "sev": "3", "cat": "alert",
		"src": "192.168.0.17", "srcPort": "49706", "dst": "151.101.65.69", "dstPort": "443", "proto": "TCP",
		"serverName": "stackoverflow.com", "ruleName": d.Rule.Name, "certificateSubject": d.TLS.Server.Subject,
	} {
		if got := l.pairs[key]; got != want {
			t.Errorf("LEEF %s: %q, want %q", key, got, want)
		}
	}
}

// Each kind of record has a form in both formats, and no other has one.
func TestForms(t *testing.T) {
	classes := map[string]bool{}
	for _, d := range sample(t) {
		for _, f := range []struct {
			format Format
			read   func(string) (*line, error)
		}{{CEF, readCEF}, {LEEF, readLEEF}} {
			l, err := f.read(format(t, f.format, d, 8192))
			if err != nil {
				t.Errorf("%s: %v", d.Event.Dataset, err)
				continue
			}
			classes[d.Event.Dataset] = true
			if l.pairs["externalId"]+l.pairs["eventId"] != d.Event.ID {
				t.Errorf("%s: the id is missing", d.Event.Dataset)
			}
		}
	}
	if len(classes) != 6 {
		t.Errorf("datasets: %v", classes)
	}
	for _, f := range []Format{CEF, LEEF} {
		if b, err := f([]byte("x"), &document.Document{Event: document.Event{Dataset: "oddcert.other"}}, "1", 100); err != ErrNoForm || string(b) != "x" {
			t.Errorf("other dataset: %q, %v", b, err)
		}
	}
}

// CEF has keys of its own for IPv6, and none of the addresses stands in two.
func TestIPv6(t *testing.T) {
	docs := sample(t)
	d := docs[len(docs)-1]
	l, err := readCEF(format(t, CEF, d, 8192))
	if err != nil {
		t.Fatal(err)
	}
	if l.pairs["c6a2"] != "2003:de:2016:125:fc36:8317:4e86:cb72" || l.pairs["c6a3"] != "2003:de:2016:120::a08:53" ||
		l.pairs["c6a3Label"] != "Destination IPv6 Address" || l.pairs["src"]+l.pairs["dst"] != "" {
		t.Errorf("addresses: %q", l.pairs)
	}
}

// What does not fit is left out pair by pair, and the rest is as it was.
func TestLimit(t *testing.T) {
	for _, d := range sample(t) {
		for _, f := range []struct {
			format Format
			read   func(string) (*line, error)
		}{{CEF, readCEF}, {LEEF, readLEEF}} {
			all, err := f.read(format(t, f.format, d, 1<<20))
			if err != nil {
				t.Fatal(err)
			}
			for limit := 0; limit < 3000; limit += 7 {
				b, err := f.format(nil, d, "1.2", limit)
				if err == ErrTooLong {
					if len(b) > 0 || limit > 200 {
						t.Fatalf("%s, limit %d: too long, with %q", d.Event.Dataset, limit, b)
					}
					continue
				}
				if err != nil || len(b) > limit {
					t.Fatalf("%s, limit %d: %d bytes, %v", d.Event.Dataset, limit, len(b), err)
				}
				if strings.HasSuffix(string(b), "|") {
					continue // the header alone
				}
				l, err := f.read(string(b))
				if err != nil {
					t.Fatalf("%s, limit %d: %v: %s", d.Event.Dataset, limit, err, b)
				}
				for key, value := range l.pairs {
					if all.pairs[key] != value {
						t.Fatalf("%s, limit %d: %s is %q, not %q", d.Event.Dataset, limit, key, value, all.pairs[key])
					}
				}
			}
		}
	}
}

// The keys of LEEF that QRadar knows have its meaning here; ours are no others of its.
func TestKeysOfLEEF(t *testing.T) {
	// IBM, "Predefined LEEF event attributes".
	theirs := strings.Fields(`cat devTime devTimeFormat proto sev src dst srcPort dstPort srcPreNAT dstPreNAT srcPostNAT dstPostNAT
		usrName srcMAC dstMAC srcPreNATPort dstPreNATPort srcPostNATPort dstPostNATPort identSrc identHostName identNetBios identGrpName
		identMAC vSrc vSrcName accountName srcBytes dstBytes srcPackets dstPackets totalPackets role realm policy resource url groupID
		domain isLoginEvent isLogoutEvent identSecondlp calLanguage calCountryOrRegion`)
	meant := strings.Fields(`cat devTime devTimeFormat proto sev src dst srcPort dstPort srcMAC dstMAC`)
	for _, d := range sample(t) {
		e, err := eventOf(d)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, f := range e.fields {
			if f.leef == "" {
				continue
			}
			if slices.Contains(theirs, f.leef) && !slices.Contains(meant, f.leef) || seen[f.leef] && !f.empty() {
				t.Errorf("%s: key %s", d.Event.Dataset, f.leef)
			}
			seen[f.leef] = !f.empty()
		}
	}
}

// hostile is a document whose texts from the wire and from rules are text.
func hostile(text string) *document.Document {
	d := new(document.Document)
	d.Event = document.Event{ID: strings.Repeat("0", 32), Dataset: "oddcert.alert", Reason: text}
	d.Message = text
	d.Rule = document.Rule{ID: text, Name: text, Level: "high"}
	d.Source = document.Endpoint{IP: "192.0.2.1", Port: 1}
	d.Destination = document.Endpoint{IP: "2001:db8::1", Port: 443, Domain: text}
	d.Network = document.Network{Application: text, Transport: "tcp"}
	d.Observer.Name = text
	d.Log.File.Path = text
	d.TLS.Server.Subject, d.TLS.Server.Issuer = text, text
	d.Oddcert.Trust.Status = text
	return d
}

// clean is what of a text arrives.
func clean(text string, limit int, lines bool) string {
	space := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == 0x2028 || r == 0x2029 }
	runes := []rune(strings.TrimFunc(text, space))
	var b strings.Builder
	for _, r := range runes[:min(limit, len(runes))] {
		if space(r) && (!lines || r != '\n' && r != '\r') {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}

// texts are what somebody could try, and what is merely unusual.
var texts = []string{
	"plain", "", " ", "CN=a, O=b", `C=US, O=Hubspan\, Inc.`, "a src=6.6.6.6", "a\tsrc=6.6.6.6", "a\nCEF:0|x|y|1|2|3|4|src=1.1.1.1", "a\r\nb",
	`\`, `a\`, `a\=b`, `\\`, "=", "a= b", "a =b", "|", `\|`, "a|b|c|d|e|f|g|h", "a cs1Label=b cs2=c", "  spaces  in  it ", "tab\tb", "\x00\x1f\x7f\u0085",
	"line\u2028line\u2029", "ünïcödé ☃ 𝒞", "\xff\xfe", `\n`, `\r=`, "x09|", "^", "<13>1 - - - - - -", "\ufeffmark", strings.Repeat("=", 5000), strings.Repeat("☃", 5000),
}

func FuzzHostile(f *testing.F) {
	for _, text := range texts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		check(t, text)
	})
}

// check checks that no text becomes more than the values it is in.
func check(t *testing.T, text string) (cef string) {
	t.Helper()
	d, plain := hostile(text), hostile("x")
	for _, f := range []struct {
		name   string
		format Format
		read   func(string) (*line, error)
		keys   map[string]int // of the texts, with their limits
	}{
		{"CEF", CEF, readCEF, map[string]int{
			"reason": 1023, "msg": 1023, "dhost": 1023, "cs1": 4000, "cs2": 4000, "cs4": 4000, "dvchost": 100, "filePath": 1023,
		}},
		{"LEEF", LEEF, readLEEF, map[string]int{
			"reason": 1023, "msg": 1023, "serverName": 1023, "ruleName": 1023, "certificateSubject": 4000, "certificateIssuer": 4000, "sensor": 100, "file": 1023,
		}},
	} {
		got := format(t, f.format, d, 1<<20)
		if !utf8.ValidString(got) {
			t.Errorf("%s is no UTF-8: %q", f.name, got)
		}
		for _, r := range got {
			if unicode.IsControl(r) && (f.name == "CEF" || r != '\t') || r == 0x2028 || r == 0x2029 {
				t.Errorf("%s has %q: %q", f.name, r, got)
			}
		}
		l, err := f.read(got)
		if err != nil {
			t.Fatalf("%s: %v: %q", f.name, err, got)
		}
		usual, err := f.read(format(t, f.format, plain, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		for key := range l.pairs {
			if _, ok := usual.pairs[key]; !ok {
				t.Errorf("%s has key %q: %q", f.name, key, got)
			}
		}
		for key, limit := range f.keys {
			want := clean(text, limit, f.name == "CEF")
			if l.pairs[key] != want && strings.TrimRight(l.pairs[key], " ") != strings.TrimRight(want, " ") {
				t.Errorf("%s %s: %q, want %q", f.name, key, l.pairs[key], want)
			}
		}
		if f.name == "CEF" {
			cef = got
			if want := clean(text, 512, false); l.header[4] != want {
				t.Errorf("CEF name: %q, want %q", l.header[4], want)
			}
		} else if want := strings.ReplaceAll(clean(text, 255, false), "|", " "); l.header[3] != want {
			t.Errorf("LEEF event id: %q, want %q", l.header[3], want)
		}
	}
	return cef
}

// Parsers by others read what ours reads, and a dictionary by others knows the keys
// and takes the values.
func TestOtherParsers(t *testing.T) {
	var lines []string
	for _, d := range sample(t) {
		lines = append(lines, format(t, CEF, d, 8192))
	}
	for _, text := range texts {
		if strings.TrimSpace(text) != "" {
			lines = append(lines, check(t, text))
		}
	}
	var answers []struct {
		Header  []string
		Pairs   map[string]string
		Invalid []string
		Keys    []string // as pycef finds them, nil where it cannot read the header
	}
	pythontest.Run(t, "SKIP-CEF-PARSERS", []string{"cefp==0.0.2", "pycef==1.11", "cefevent==0.5.6"}, `
import json, sys, cefp, pycef
from cefevent.event import CEFEvent
dictionary = CEFEvent(strict=True)
answers = []
for line in json.load(sys.stdin):
    d = cefp.parse(line)
    device = d["device"]
    header = [device["vendor"], device["product"], device["version"], device["event_class_id"], d["name"], d["severity"]]
    invalid = []
    for key, value in d["extension"].items():
        # It does not know outcome, which came later than it, and takes 0 for no number.
        if key.startswith("oddcert") or key == "outcome" or value == "0":
            continue
        try:
            if key in ("cn1", "cn2", "cn3", "cnt", "deviceDirection"):
                value = int(value)
            dictionary.set_field(key, value)
        except ValueError as e:
            invalid.append(str(e))
    try:
        found = pycef.parse(line)
    except IndexError:
        found = None
    answers.append(dict(header=header, pairs=d["extension"], invalid=invalid, keys=None if found is None else sorted(found)))
json.dump(answers, sys.stdout)
`, lines, &answers)
	if len(answers) != len(lines) {
		t.Fatalf("%d answers to %d lines", len(answers), len(lines))
	}
	for i, text := range lines {
		l, err := readCEF(text)
		if err != nil {
			t.Fatal(err)
		}
		a := answers[i]
		if !slices.Equal(a.Header, l.header) || !maps.Equal(a.Pairs, l.pairs) {
			t.Errorf("%q\ncefp reads %q %q\nwe read    %q %q", text, a.Header, a.Pairs, l.header, l.pairs)
		}
		if len(a.Invalid) > 0 {
			t.Errorf("%q\ncefevent says %q", text, a.Invalid)
		}
		if len(a.Keys) > 0 && !strings.ContainsAny(l.header[3]+l.header[4], `|\=`) {
			want := []string{"CEFVersion", "DeviceEventClassID", "DeviceName", "DeviceProduct", "DeviceSeverity", "DeviceVendor", "DeviceVersion", "Name", "Severity"}
			for key, value := range l.pairs {
				if strings.HasSuffix(key, "Label") {
					continue
				}
				if label := l.pairs[key+"Label"]; label != "" {
					key = label // pycef puts it in place of the key
				}
				if value != "" {
					want = append(want, key)
				}
			}
			slices.Sort(want)
			if !slices.Equal(a.Keys, want) {
				t.Errorf("%q\npycef finds %q\nwant        %q", text, a.Keys, want)
			}
		}
	}
}
