package zeek

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// record reads a line of the files in testdata: the name of a dataset, and a record.
// records.txt has those of captures of this repository, public.txt those of captures
// that others have published: nDPI's imap-starttls.pcap and smtp-starttls.pcap, and one
// certificate of another.
func record(t testing.TB, line string) *output.Record {
	t.Helper()
	name, text, _ := strings.Cut(line, " ")
	for d := range output.Datasets {
		if d.String() == name {
			return &output.Record{Dataset: d, JSON: []byte(text)}
		}
	}
	t.Fatalf("no dataset %q", name)
	return nil
}

func records(t testing.TB, name string) (list []*output.Record) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		list = append(list, record(t, strings.TrimSpace(line)))
	}
	return list
}

// write writes records to files in memory, as the output for files does.
func write(t testing.TB, json bool, list ...*output.Record) []string {
	t.Helper()
	f := New(json)
	files := f.Files()
	out := make([]bytes.Buffer, len(files))
	at := time.Date(2026, 11, 29, 7, 8, 9, 0, time.UTC)
	for i, file := range files {
		if file.Header != nil {
			out[i].Write(file.Header(at))
		}
	}
	for _, r := range list {
		err := f.Format(r, func(i int, line []byte) {
			out[i].Write(line)
			out[i].WriteByte('\n')
		})
		if err != nil {
			t.Fatalf("%s: %v", r.Dataset, err)
		}
	}
	texts := make([]string, len(files))
	for i, file := range files {
		if file.Footer != nil {
			out[i].Write(file.Footer(at))
		}
		texts[i] = out[i].String()
	}
	return texts
}

// values are one line of a log by the names of its columns, those that are set. A
// value is a string, or a list of strings for sets and vectors.
type values map[string]any

// parse reads a log as Zeek's documentation has it ("Zeek Log Formats and
// Inspection"): the header says how. It accepts nothing else, and checks that each
// value is one of its type.
func parse(t testing.TB, text string) (path string, names []string, lines []values) {
	t.Helper()
	var types []string
	head := map[string]string{}
	rows := strings.Split(text, "\n")
	if rows[len(rows)-1] != "" {
		t.Fatal("the last line does not end")
	}
	for _, row := range rows[:len(rows)-1] {
		if strings.HasPrefix(row, "#") {
			key, value, ok := strings.Cut(row, "\t")
			if row == `#separator \x09` {
				key, value, ok = "#separator", "\t", true
			}
			if !ok {
				t.Fatalf("header %q", row)
			}
			head[key] = value
			switch key {
			case "#fields":
				names = strings.Split(value, "\t")
			case "#types":
				types = strings.Split(value, "\t")
			}
			continue
		}
		if head["#close"] != "" {
			t.Fatalf("%q after the end", row)
		}
		cells := strings.Split(row, "\t")
		if len(cells) != len(names) || len(cells) != len(types) {
			t.Fatalf("%d columns, want %d: %q", len(cells), len(names), row)
		}
		line := values{}
		for i, cell := range cells {
			if cell == head["#unset_field"] {
				continue
			}
			kind := types[i]
			if inner, ok := strings.CutSuffix(kind, "]"); ok { // set[string], vector[addr]
				_, kind, _ = strings.Cut(inner, "[")
				list := []string{}
				if cell != head["#empty_field"] {
					for _, element := range strings.Split(cell, head["#set_separator"]) {
						list = append(list, value(t, kind, element, head))
					}
				}
				line[names[i]] = list
				continue
			}
			line[names[i]] = value(t, kind, cell, head)
		}
		lines = append(lines, line)
	}
	for _, key := range []string{"#separator", "#set_separator", "#empty_field", "#unset_field", "#path", "#open", "#close"} {
		if head[key] == "" {
			t.Errorf("no %s", key)
		}
	}
	return head["#path"], names, lines
}

var (
	seconds = regexp.MustCompile(`^-?\d+\.\d{6}$`)
	enum    = regexp.MustCompile(`^([A-Za-z]\w*::)?[A-Za-z]\w*$`)
)

// value undoes the escapes of one value.
func value(t testing.TB, kind, cell string, head map[string]string) string {
	t.Helper()
	ok := true
	switch kind {
	case "time", "interval":
		ok = seconds.MatchString(cell)
	case "addr":
		_, err := netip.ParseAddr(cell)
		ok = err == nil
	case "port":
		_, err := strconv.ParseUint(cell, 10, 16)
		ok = err == nil
	case "count":
		_, err := strconv.ParseUint(cell, 10, 64)
		ok = err == nil
	case "bool":
		ok = cell == "T" || cell == "F"
	case "enum":
		ok = enum.MatchString(cell)
	case "string":
		if cell == head["#empty_field"] {
			return ""
		}
		var b []byte
		for i := 0; i < len(cell); i++ {
			c := cell[i]
			switch {
			case c < ' ' || c == 0x7F:
				t.Fatalf("octet %#x in %q", c, cell)
			case c != '\\':
				b = append(b, c)
			case strings.HasPrefix(cell[i:], `\\`):
				b = append(b, c)
				i++
			case strings.HasPrefix(cell[i:], `\x`) && len(cell) >= i+4:
				n, err := strconv.ParseUint(cell[i+2:i+4], 16, 8)
				if err != nil {
					t.Fatalf("escape in %q", cell)
				}
				b = append(b, byte(n))
				i += 3
			default:
				t.Fatalf("escape in %q", cell)
			}
		}
		return string(b)
	default:
		t.Fatalf("type %q", kind)
	}
	if !ok {
		t.Fatalf("%q is no %s", cell, kind)
	}
	return cell
}

// parseJSON reads JSON lines into the same values.
func parseJSON(t testing.TB, text string) (lines []values) {
	t.Helper()
	for line := range strings.Lines(text) {
		d := json.NewDecoder(strings.NewReader(line))
		d.UseNumber()
		v := values{}
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		for name, x := range v {
			switch x := x.(type) {
			case bool:
				v[name] = map[bool]string{true: "T", false: "F"}[x]
			case json.Number:
				v[name] = x.String()
				if s := x.String(); strings.Contains(s, ".") {
					whole, part, _ := strings.Cut(s, ".")
					v[name] = whole + "." + (part + "000000")[:6]
				}
			case []any:
				list := []string{}
				for _, e := range x {
					list = append(list, e.(string))
				}
				v[name] = list
			}
		}
		lines = append(lines, v)
	}
	return lines
}

func show(v values) string {
	b, err := json.MarshalIndent(v, "", " ")
	return fmt.Sprint(string(b), err)
}
