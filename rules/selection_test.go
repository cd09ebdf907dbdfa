package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// recordTypes are some of the fields that records have.
var recordTypes = map[string]string{
	"@timestamp":                         "date_nanos",
	"event.dataset":                      "keyword",
	"event.reason":                       "keyword",
	"event.severity":                     "long",
	"labels.*":                           "keyword",
	"source.ip":                          "ip",
	"source.port":                        "long",
	"source.mac":                         "keyword",
	"destination.ip":                     "ip",
	"related.hosts":                      "keyword",
	"tls.cipher":                         "keyword",
	"tls.client.server_name":             "keyword",
	"tls.established":                    "boolean",
	"tls.server.hash.sha256":             "keyword",
	"tls.server.not_after":               "date",
	"oddcert.verdict":                    "keyword",
	"oddcert.chain":                      "nested",
	"oddcert.chain.name":                 "keyword",
	"oddcert.chain.position":             "long",
	"oddcert.chain.self_signed":          "boolean",
	"oddcert.chain.hash.sha256":          "keyword",
	"oddcert.client_chain.name":          "keyword",
	"oddcert.certificate.serial_number":  "keyword",
	"oddcert.stats.*":                    "long",
	"oddcert.sighting.previous.hash.md5": "keyword",
}

func selectionOf(t testing.TB, text string) *Selection {
	t.Helper()
	s, err := ParseSelection(text, recordTypes)
	if err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return s
}

const (
	alertRecord = `{"@timestamp":"2026-03-01T12:00:00.123456789Z","event":{"dataset":"oddcert.alert","severity":73,"reason":"a \"quoted\" \u003creason\u003e"},
 "labels":{"site":"Zürich","a.b":"dotted"},"source":{"ip":"192.0.2.7","port":50000,"mac":"00-0C-29-AA-BB-CC"},"destination":{"ip":"2001:db8::1"},
 "related":{"hosts":["a.example","B.example"]},"tls":{"cipher":"TLS_AES_128_GCM_SHA256","established":true,"client":{"server_name":"www.example.com"},
 "server":{"hash":{"sha256":"00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF"},"not_after":"2019-05-05T00:00:00Z"}},
 "oddcert":{"verdict":"forged","chain":[{"position":0,"name":["leaf.example","www.example.com"],"self_signed":false,"hash":{"sha256":"00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF"}},
 {"position":1,"name":["Root"],"self_signed":true}]}}`
	leanRecord = `{"event":{"dataset":"oddcert.handshake"},"tls":{"established":false,"client":{"server_name":null}},
 "oddcert":{"chain":{"hash":{"sha256":["00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF","FF112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF"]}}}}`
	statsRecord = `{"event":{"dataset":"oddcert.stats"},"oddcert":{"stats":{"packets":{"dropped":12},"deep":{"er":{"x":0}}}}}`
	certRecord  = `{"event":{"dataset":"oddcert.certificate"},"oddcert":{"certificate":{"serial_number":"00ABCD"}}}`
)

// What selections choose of four records: the alert, the handshake, the statistics and
// the certificate above.
func TestSelection(t *testing.T) {
	records := []string{alertRecord, leanRecord, statsRecord, certRecord}
	for text, want := range map[string]string{
		"event.dataset: oddcert.alert":                                  "a",
		"event.dataset: ODDCERT.*":                                      "ahsc",
		"event.dataset|cased: ODDCERT.*":                                "",
		"event.dataset: [oddcert.alert, oddcert.stats]":                 "as",
		"event.dataset|neq: oddcert.alert":                              "hsc",
		"oddcert.verdict: [forged, relayed]":                            "a",
		"oddcert.verdict: null":                                         "hsc",
		"oddcert.verdict|exists: true":                                  "a",
		"event.severity|gte: 73":                                        "a",
		"event.severity|gt: 73":                                         "",
		"event.severity: 73":                                            "a",
		"event.severity|lt: 99\noddcert.verdict: forged":                "a",
		"event.severity|lt: 99\noddcert.verdict: relayed":               "",
		"- event.severity: 73\n- event.dataset|endswith: stats":         "as",
		`event.reason|contains: '"quoted" <reason>'`:                    "a",
		`event.reason|re: '^a "'`:                                       "a",
		"labels.site: ZÜRICH":                                           "a",
		"labels.other|exists: false":                                    "ahsc",
		"source.ip: 192.0.2.7":                                          "a",
		"source.ip|cidr: 192.0.2.0/24":                                  "a",
		"client.ip|cidr: [10.0.0.0/8, 192.0.2.0/24]":                    "a",
		"destination.ip: '2001:0db8:0::1'":                              "a",
		"server.ip|cidr: 2001:db8::/32":                                 "a",
		"client.port|gt: 49999":                                         "a",
		"source.mac: '000c29aabbcc'":                                    "a",
		"source.mac: '00-0C-29-*'":                                      "a",
		"related.hosts: b.example":                                      "a",
		"related.hosts|contains|all: [a.ex, b.ex]":                      "a",
		"related.hosts|contains|all: [a.ex, c.ex]":                      "",
		"tls.cipher: '0x1301'":                                          "a",
		"tls.cipher|startswith: tls_aes":                                "a",
		"tls.established: true":                                         "a",
		"tls.established: false":                                        "hsc",
		"tls.established|exists: true":                                  "ah",
		"tls.client.server_name: null":                                  "hsc",
		"tls.client.server_name|fieldref: oddcert.chain.name":           "!",
		"oddcert.chain.name|fieldref: tls.client.server_name":           "a",
		"tls.server.not_after|lt: 2020-01-01":                           "a",
		"tls.server.not_after: '2019-*'":                                "a",
		"'@timestamp|gte': 2026-03-01":                                  "a",
		"'@timestamp|gt': 2026-03-01T12:00:01Z":                         "",
		"oddcert.chain.position: 0\noddcert.chain.name: leaf.example":   "a",
		"oddcert.chain.position: 1\noddcert.chain.name: leaf.example":   "",
		"oddcert.chain.self_signed: true\noddcert.chain.name|neq: root": "",
		"oddcert.chain.self_signed: false\noddcert.chain.position: 0":   "a",
		"oddcert.chain.self_signed: false":                              "ah", // of a handshake with a chain
		"oddcert.client_chain.name: null":                               "ahsc",
		"oddcert.chain.hash.sha256: '00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff'": "ah",
		"oddcert.chain.hash.sha256|startswith: ff":                                               "h",
		"oddcert.certificate.serial_number: 'ab:cd'":                                             "c",
		"oddcert.stats.packets.dropped|gt: 0":                                                    "s",
		"oddcert.stats.deep.er.x: 0":                                                             "s",
		"a: {event.severity|gte: 73}\nb: {source.ip: 192.0.2.7}\ncondition: a and not b":         "",
		"a: {event.severity|gte: 73}\nb: {source.ip: 192.0.2.8}\ncondition: a and not b":         "a",
		"a1: {event.severity|gte: 73}\na2: [{event.dataset: oddcert.stats}]\ncondition: 1 of a*": "as",
		"{a: {oddcert.verdict|exists: true}, condition: not a}":                                  "hsc",
		"a: {oddcert.verdict: forged}\ncondition: [a, not a]":                                    "ahsc",
	} {
		if want == "!" {
			if _, err := ParseSelection(text, recordTypes); err == nil {
				t.Errorf("%q is accepted", text)
			}
			continue
		}
		s := selectionOf(t, text)
		got := ""
		for i, record := range records {
			if s.Matches([]byte(record)) {
				got += "ahsc"[i : i+1]
			}
		}
		if got != want {
			t.Errorf("%q chooses %q, want %q", text, got, want)
		}
	}
}

// What is wrong with a selection: all of it, where it is.
func TestSelectionProblems(t *testing.T) {
	for text, want := range map[string][]string{
		"":    {`1:1: the selection is empty`},
		"{}":  {`the selection is empty`},
		"foo": {`1:1: a selection must name fields`},
		"[]":  {`the selection is empty`},
		"event.severty|gte: 73\noddcert.verdict|contain: x": {
			`1:1: "event.severty": is not a known field: did you mean event.severity?`,
			`2:17: "contain": is not a supported modifier: did you mean contains?`},
		"severity: 1":                           {`1:1: "severity": is not a known field: did you mean event.severity?`},
		"oddcert.chain: x":                      {`"oddcert.chain": is not a known field`},
		"labels.*: x":                           {`"labels.*": is not a known field`},
		"event.severity|gte: high":              {`1:21: "high": is not a whole number`},
		"event.severity: high":                  {`1:17: "high": is not a whole number, which event.severity is`},
		"oddcert.verdict|cidr: 10.0.0.0/8":      {`cidr needs an address`},
		"tls.established: maybe":                {`is not true or false`},
		"oddcert.verdict|re: '('":               {`missing closing )`},
		"oddcert.verdict|expand: '%bad%'":       {`"%bad%": lists are for rules`},
		"a: {oddcert.verdict: x}":               {`1:1: "a": selections with names need a condition`},
		"a: {oddcert.verdict: x}\ncondition: b": {`2:12: "b": is not a selection`},
		"a: {oddcert.verdict: x}\nb: {oddcert.verdict: y}\ncondition: a": {`2:1: "b": no condition uses this selection`},
		"oddcert.verdict: x\n---\noddcert.verdict: y":                    {`2:1: a selection is one document`},
		"oddcert.verdict: &a x":                                          {`anchors and aliases are not supported`},
		"oddcert.verdict: [x":                                            {`1:`},
		"oddcert.verdict: \xff":                                          {`1:18: is not UTF-8`},
		strings.Repeat("#", maxSelection+1):                              {`a selection may have 65536 bytes`},
		strings.Repeat("[", 1000):                                        {`nested more than 32 deep`},
		"client.prt: 1":                                                  {`"client.prt": is not a known field`},
	} {
		_, err := ParseSelection(text, recordTypes)
		var problems Problems
		if !errors.As(err, &problems) {
			t.Errorf("%.80q: %v", text, err)
			continue
		}
		for _, w := range want {
			if !slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.Error(), w) }) {
				t.Errorf("%.80q: want %s in\n%v", text, w, err)
			}
		}
		if len(problems) != len(want) {
			t.Errorf("%.80q: %d problems, want %d:\n%v", text, len(problems), len(want), err)
		}
	}
}

// What is not the JSON of a record is not chosen, not even by what chooses everything.
func TestSelectionOfNoRecord(t *testing.T) {
	s := selectionOf(t, "a: {oddcert.verdict: '*'}\ncondition: [a, not a]")
	for _, text := range []string{
		"", " ", "null", "1", `"a"`, "[]", `[{"oddcert":{}}]`, "{", `{"a`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{"a":}`, `{"a":,}`, `{"oddcert":,}`,
		`{"oddcert":{"verdict":}}`, `{"oddcert":{"verdict":"x}}`, `{"oddcert":{"verdict":["x"}}`, `{"oddcert":{"verdict":"x\`, "{}{}", "{} x", "{a:1}", "\x00",
		`{"oddcert":{"verdict":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}}`,
	} {
		if s.Matches([]byte(text)) {
			t.Errorf("%q is chosen", text)
		}
	}
	for _, text := range []string{"{}", " {} ", `{"oddcert":null}`, `{"oddcert":{"verdict":{}}}`, `{"x":` + strings.Repeat("[", 1e5) + strings.Repeat("]", 1e5) + "}"} {
		if !s.Matches([]byte(text)) {
			t.Errorf("%.40q is not chosen", text)
		}
	}
}

// One selection serves many goroutines, and what one record had is not found in the
// next.
func TestSelectionConcurrently(t *testing.T) {
	s := selectionOf(t, "oddcert.chain.position: 1\noddcert.chain.name: root")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				record, want := leanRecord, false
				if i%3 == 0 {
					record, want = alertRecord, true
				}
				if s.Matches([]byte(record)) != want {
					t.Error("wrong answer")
					return
				}
			}
		})
	}
	wg.Wait()
}

// An hostile record takes time in proportion to its size: escapes without an end, many
// values, many certificates.
func TestSelectionOfHostileRecord(t *testing.T) {
	s := selectionOf(t, "oddcert.chain.name: x\noddcert.chain.position: 7")
	for name, text := range map[string]string{
		"escapes":      `{"x":"` + strings.Repeat(`\\`, 1<<20) + `"}`,
		"quotes":       `{"x":"` + strings.Repeat(`\"`, 1<<20) + `"}`,
		"certificates": `{"oddcert":{"chain":[` + strings.Repeat(`{"name":["y"],"position":1},`, 1<<16) + `{}]}}`,
		"values":       `{"oddcert":{"chain":[{"name":[` + strings.Repeat(`"y",`, 1<<18) + `"y"]}]}}`,
	} {
		if s.Matches([]byte(text)) {
			t.Errorf("%s: is chosen", name)
		}
	}
}

// Most records are looked at without a byte of garbage.
func TestSelectionDoesNotAllocate(t *testing.T) {
	s := selectionOf(t, "- oddcert.verdict: [forged, relayed]\n  source.ip|cidr: 198.51.100.0/24\n- related.hosts|endswith: .test\n- tls.server.not_after|gt: 2030-01-01")
	record := []byte(alertRecord)
	m := s.matchers.New().(*Matcher) // not of the pool, which the race detector makes forgetful
	if n := testing.AllocsPerRun(100, func() { s.matches(m, record) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// walk reads JSON by the standard library: each value that is no list or object, with
// its dotted name and the entry of a chain that it is in. Depth is of the deepest.
func walk(d *json.Decoder, name string, entry int, entries map[string]int, found func(name string, entry int, text string)) (depth int, err error) {
	token, err := d.Token()
	if err != nil {
		return 0, err
	}
	switch token := token.(type) {
	case json.Delim:
		list := token == '['
		if _, chain := entries[name]; chain && !list && entry == noEntry {
			entry = entries[name]
			entries[name]++
		}
		for d.More() {
			below := name
			if !list {
				key, err := d.Token()
				if err != nil {
					return 0, err
				}
				below = strings.TrimPrefix(name+"."+strings.ReplaceAll(key.(string), ".", "·"), ".")
				if key == "" {
					below = name + ".·"
				}
			}
			n, err := walk(d, below, entry, entries, found)
			if err != nil {
				return 0, err
			}
			depth = max(depth, n+1)
		}
		_, err = d.Token()
		return depth, err
	case nil:
	default:
		found(name, entry, fmt.Sprint(token))
	}
	return depth, nil
}

// A record has the values that encoding/json finds in it.
func FuzzSelectionRecord(f *testing.F) {
	for _, s := range []string{alertRecord, leanRecord, statsRecord, certRecord, `{"a":{"b":[1,[2,{"c":"x"}],"\u0041"],"\u0061":1,"b":{"c":[true,null]}}}`,
		`{"oddcert":{"chain":[[{"name":"a"}],{"name":[]}],"chain":{"name":"b"}},"a":"\ud800\"\\"}`, `{"a":[`, `{"":{"a":-1.5e+3}}`} {
		f.Add(s)
	}
	names := []string{"a", "a.b", "a.b.c", "event.severity", "related.hosts", "oddcert.chain.name", "oddcert.chain.hash.sha256", "oddcert.client_chain.name"}
	f.Fuzz(func(t *testing.T, text string) {
		s := &Selection{names: &recordName{slot: noSlot}}
		for _, name := range names {
			s.slotOf(name)
		}
		r := &record{found: make([][]span, s.slots)}
		ok := r.read(s.names, []byte(text))
		var got []string
		for slot, spans := range r.found {
			for _, at := range spans {
				b := []byte(text)[at.start:at.end]
				if v, ok := r.parse(&field{}, b); ok {
					got = append(got, fmt.Sprintf("%s %d %q", names[slot], at.entry, v.s))
				} else if json.Valid(b) {
					t.Fatalf("%q has no value", b)
				}
			}
		}
		if !json.Valid([]byte(text)) || !utf8.ValidString(text) {
			return
		}
		var want []string
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		entries := map[string]int{"oddcert.chain": 0, "oddcert.client_chain": 0}
		depth, err := walk(d, "", noEntry, entries, func(name string, entry int, text string) {
			if slices.Contains(names, name) {
				want = append(want, fmt.Sprintf("%s %d %q", name, entry, text))
			}
		})
		if err != nil && !errors.Is(err, io.EOF) || depth > maxRecordDepth {
			return
		}
		if isObject := strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), "{"); ok != isObject {
			t.Fatalf("read: %v", ok)
		} else if !ok {
			return
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("found\n%q\nwant\n%q", got, want)
		}
	})
}

// A selection, whatever its text is, can be used, or has problems of one line each.
func FuzzParseSelection(f *testing.F) {
	for _, s := range []string{"event.severity|gte: 73", "- oddcert.verdict: [forged, 'r*']\n- tls.established: false",
		"a: {source.ip|cidr: 10.0.0.0/8}\nb: [{oddcert.chain.name|re|i: '^x'}]\ncondition: a and not 1 of b*", "{a: {labels.x|fieldref: event.reason}, condition: [a]}",
		"? a\n: b", "- - a", "a: |\n x\ncondition: a", "condition: a", "condition:", "\ufeffevent.severity: null", "event.severity: 1\r\n---\r\n"} {
		f.Add(s)
	}
	line := regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*: [^\n]+$`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSelection(text, recordTypes)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("error without problems: %v", err)
			}
			for _, p := range problems {
				if !line.MatchString(p.Error()) {
					t.Fatalf("problem %q", p.Error())
				}
			}
			return
		}
		for _, record := range []string{alertRecord, leanRecord, statsRecord} {
			first := s.Matches([]byte(record))
			if s.Matches(bytes.Clone([]byte(record))) != first {
				t.Fatal("another answer")
			}
		}
	})
}

func BenchmarkSelection(b *testing.B) {
	record, err := os.ReadFile("testdata/handshake.json") // of discord.pcap, among nDPI's captures
	if err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{
		"severity": "event.severity|gte: 73",
		"dataset":  "event.dataset: [oddcert.alert, oddcert.sighting]",
		"chain":    "oddcert.chain.self_signed: true\noddcert.chain.name|contains: example",
	} {
		s := selectionOf(b, text)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(record)))
			b.ReportAllocs()
			for b.Loop() {
				s.Matches(record)
			}
		})
	}
}
