package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	siem "github.com/oddcert/oddcert/packaging/elastic"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/netlab"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
)

// fleet is what several sensors saw, as records of the real program.
type fleet struct {
	lines []map[string]any
	at    time.Time // when it is judged

	lookalike, certificate, key string // what should be raised: hashes, in lower case
}

// certified makes a certificate for a key that is valid for some time from now on,
// self-signed where parent is nil.
func certified(t *testing.T, name string, valid time.Duration, key *ecdsa.PrivateKey, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(valid),
		IsCA: parent == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// shownOn is a certificate on a server, by the last byte of its address.
type shownOn struct {
	server byte
	der    []byte
}

// replayed has the program read a capture of handshakes as the sensor of that name.
func (f *fleet) replayed(t *testing.T, sensor string, at time.Time, all []shownOn, args ...string) {
	t.Helper()
	var k keyedFlows
	for i, s := range all {
		if err := k.between(net.IP{192, 0, 2, byte(100 + i)}, net.IP{198, 51, 100, s.server}, presents([][]byte{s.der})); err != nil {
			t.Fatal(err)
		}
	}
	// The name of the capture is part of the identity of its records.
	capture := write(t, fmt.Sprintf("%s-%d.pcap", sensor, at.Unix()), k.pcapAt(at))
	records := filepath.Join(t.TempDir(), "records.json")
	var out, errs bytes.Buffer
	// Rules of the pack ask whether each chain is trusted.
	if status := run(append([]string{"replay", "--name", sensor, "--pack", "hygiene", "--json", records, capture}, args...), &out, &errs); status != exitOK {
		t.Fatalf("replay: exit status %d: %s", status, &errs)
	}
	f.read(t, records)
}

func (f *fleet) read(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var o map[string]any
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		f.lines = append(f.lines, o)
	}
}

// at returns what is at a dotted path of nested objects.
func at(o any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		m, ok := o.(map[string]any)
		if !ok {
			return nil
		}
		o = m[name]
	}
	return o
}

// reported adds a statistics record that is like another one, at another time and with
// other values at the paths of set; nil removes what is there.
func (f *fleet) reported(t *testing.T, like map[string]any, at time.Time, set map[string]any) {
	t.Helper()
	b, err := json.Marshal(like)
	if err != nil {
		t.Fatal(err)
	}
	var o map[string]any
	if err := json.Unmarshal(b, &o); err != nil {
		t.Fatal(err)
	}
	set = maps.Clone(set)
	set["@timestamp"] = at.UTC().Format(time.RFC3339Nano)
	set["event.id"] = fmt.Sprintf("%032x", len(f.lines))
	for path, v := range set {
		m, rest := o, path
		for {
			first, more, nested := strings.Cut(rest, ".")
			if !nested {
				m[first] = v
				if v == nil {
					delete(m, first)
				}
				break
			}
			if m[first] == nil {
				m[first] = map[string]any{}
			}
			m, rest = m[first].(map[string]any), more
		}
	}
	f.lines = append(f.lines, o)
}

// newFleet runs the sensors. alpha and beta watch one span, live and in replays; gamma
// and delta watch others.
func newFleet(t *testing.T) *fleet {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("handshakes of the lab: openssl is not installed")
	}
	b := &bench{Lab: netlab.New(t), dir: t.TempDir()}
	b.hashes = issue(t, b.dir)
	program := drilled(t)
	f := &fleet{}

	// Live: a span with a handshake, and for alpha one without a frame and one without
	// a link.
	for _, cable := range [][2]string{{"idle0", "idle1"}, {"dead0", "dead1"}} {
		netlab.Join(t, b.Server, cable[1], b.Sensor, cable[0])
	}
	if out, err := b.Server.Command("ip", "link", "set", "dead1", "down").CombinedOutput(); err != nil {
		t.Fatalf("take the link down: %v: %s", err, out)
	}
	dir := t.TempDir()
	live := map[string]*sensing{
		"alpha": b.listen(t, program, "--name", "alpha", "-i", "idle0", "-i", "dead0", "--json", filepath.Join(dir, "alpha")),
		"beta":  b.listen(t, program, "--name", "beta", "--json", filepath.Join(dir, "beta")),
	}
	began := time.Now()
	b.run(t, &exchanges[0])
	waitFor(t, "a span to count as silent", func() bool { return time.Since(began) > capture.SilentAfter })
	latest := map[string]map[string]any{} // statistics
	for name, l := range live {
		waitFor(t, "the handshake", func() bool {
			text, _ := os.ReadFile(filepath.Join(dir, name))
			return bytes.Contains(text, []byte(`"oddcert.alert"`))
		})
		l.end(t)
		f.read(t, filepath.Join(dir, name))
		latest[name] = f.lines[len(f.lines)-1]
		if at(latest[name], "event.dataset") != "oddcert.stats" || at(latest[name], "observer.name") != name {
			t.Fatalf("the last record of %s: %v", name, latest[name])
		}
	}
	if links := at(latest["alpha"], "oddcert.stats.links"); at(links, "up") != 2.0 || fmt.Sprint(at(links, "down")) != "[dead0]" || !strings.Contains(fmt.Sprint(at(links, "silent")), "idle0") {
		t.Fatalf("the links of alpha: %v", links)
	}
	f.lines = slices.DeleteFunc(f.lines, func(o map[string]any) bool { return at(o, "event.dataset") == "oddcert.stats" })

	// Replays. The look-alike was on the first span before, and comes to gamma's.
	der, err := os.ReadFile(filepath.Join(b.dir, "lookalike.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(der)
	look := block.Bytes
	f.lookalike = hexSum(look)
	const soon = 24 * time.Hour // until it expires
	odd, common, sameKey, authorityKey := newKey(t), newKey(t), newKey(t), newKey(t)
	x := certified(t, "x.example", soon, odd, nil, nil)
	y := certified(t, "y.example", -24*time.Hour, common, nil, nil)
	var k []*x509.Certificate
	for i := range 5 {
		k = append(k, certified(t, fmt.Sprintf("k%d.example", i), soon, sameKey, nil, nil))
	}
	f.certificate, f.key = hexSum(x.Raw), hexSum(k[0].RawSubjectPublicKeyInfo)
	authority := certified(t, "Our authority", soon, authorityKey, nil, nil)
	trusted := certified(t, "trusted.example", soon, newKey(t), authority, authorityKey)
	roots := write(t, "roots.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw}))

	f.at = time.Now().Add(time.Second)
	now := f.at.Add(-time.Minute)
	for _, name := range []string{"alpha", "beta"} {
		f.replayed(t, name, f.at.Add(-3*time.Hour), []shownOn{{9, look}})
		f.replayed(t, name, now, []shownOn{
			{1, x.Raw}, {2, x.Raw}, {3, x.Raw},
			{11, y.Raw}, {12, y.Raw}, {13, y.Raw}, {14, y.Raw}, // fewer servers than it takes, though more records
			{21, k[0].Raw}, {22, k[1].Raw},
		})
	}
	f.replayed(t, "gamma", now, []shownOn{{8, look}, {4, x.Raw}, {5, x.Raw}, {23, k[2].Raw}, {24, k[3].Raw}})
	var onMany []shownOn
	for i := range 6 {
		onMany = append(onMany, shownOn{byte(31 + i), trusted.Raw})
	}
	f.replayed(t, "delta", now, append(onMany, shownOn{5, x.Raw}, shownOn{6, x.Raw}, shownOn{25, k[4].Raw}), "--roots", roots)

	on := 0 // the servers of the certificate that must not be raised
	for _, o := range f.lines {
		if at(o, "event.dataset") == "oddcert.sighting" && at(o, "oddcert.certificate.subject") == "CN=trusted.example" && at(o, "oddcert.trust.status") == "trusted" {
			on++
		}
	}
	if on != len(onMany) {
		t.Fatalf("the trusted certificate was seen on %d servers of %d", on, len(onMany))
	}

	// Statistics of hours, like those that were made live.
	all := f.lines
	for i := range 20 { // of ten minutes
		when := f.at.Add(-time.Duration(i) * 30 * time.Second)
		back := 20 - i
		run := map[string]any{"oddcert.stats.capture.frames": 1e6 + 1e4*back, "oddcert.stats.capture.dropped": 100000}
		if i < 10 { // alpha was started again, and counts from 0
			run = map[string]any{"oddcert.stats.capture.frames": 1e4 * back, "oddcert.stats.capture.dropped": 0,
				"oddcert.stats.packets.first": f.at.Add(-5 * time.Minute).UTC().Format(time.RFC3339Nano)}
		}
		run["oddcert.stats.links.silent"] = []string{"idle0"} // the other span has frames again
		f.reported(t, latest["alpha"], when, run)
		f.reported(t, latest["beta"], when, map[string]any{"oddcert.stats.links.silent": nil, "oddcert.stats.capture.frames": 1e4 * back, "oddcert.stats.capture.dropped": 50 * back})
		if i >= 8 { // it fell silent four minutes ago
			f.reported(t, latest["beta"], when, map[string]any{"observer.name": "gamma", "oddcert.stats.links.silent": nil})
		}
		f.reported(t, latest["beta"], when.Add(-2*time.Hour), map[string]any{"observer.name": "delta"}) // long away
	}
	for _, o := range all {
		if at(o, "event.dataset") == "oddcert.stats" && at(o, "observer.name") == "delta" {
			f.reported(t, o, f.at.Add(-10*time.Minute), map[string]any{"observer.name": "epsilon"}) // a replay, not a sensor
		}
	}
	return f
}

// raised says of each detection about what an alert is raised, each once.
func (f *fleet) raised() map[string][]string {
	return map[string][]string{
		"shared-certificate":          {f.certificate},
		"flagged-certificate-spreads": {"gamma " + f.lookalike},
		"sensor-silent":               {"gamma"},
		"link-down":                   {"alpha dead0"},
		"span-silent":                 {"alpha idle0"},
		"loss":                        {"beta"},
	}
}

// load puts the records into the data streams of a namespace.
func (f *fleet) load(t *testing.T, server *estest.Server, namespace string) {
	t.Helper()
	var out, errs bytes.Buffer
	setup := []string{"es", "setup", "--es", server.URL, "--es-namespace", namespace}
	if !server.Product.OpenSearch() { // this one has few types of fields
		setup = append(setup, "--portable")
	}
	if status := run(setup, &out, &errs); status != exitOK {
		t.Fatalf("es setup: exit status %d: %s", status, &errs)
	}
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	for _, o := range f.lines {
		dataset := at(o, "event.dataset").(string)
		kind := "logs-"
		if dataset == "oddcert.stats" {
			kind = "metrics-"
		}
		for _, v := range []any{map[string]any{"create": map[string]any{"_index": kind + dataset + "-" + namespace, "_id": at(o, "event.id")}}, o} {
			if err := e.Encode(v); err != nil {
				t.Fatal(err)
			}
		}
	}
	var answer struct {
		Errors bool
		Items  []json.RawMessage
	}
	server.Do(t, http.MethodPost, "/_bulk?refresh=true", body.String(), &answer)
	if answer.Errors || len(answer.Items) != len(f.lines) {
		t.Fatalf("%d records, %d items: %.3000s", len(f.lines), len(answer.Items), answer.Items)
	}
}

// bucket is a group of records.
type bucket struct {
	Key    map[string]any
	Count  float64 `json:"doc_count"`
	Values struct{ Value float64 }
}

// of is what the bucket is about.
func (b *bucket) of(fields []string) string {
	var values []string
	for _, f := range fields {
		values = append(values, fmt.Sprint(b.Key[f]))
	}
	return strings.Join(values, " ")
}

// search returns the buckets of the aggregation "groups".
func search(t *testing.T, server *estest.Server, stream, namespace string, body any) []bucket {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Aggregations struct {
			Groups struct{ Buckets []bucket }
		}
	}
	index, ok := strings.CutSuffix(stream, "*")
	if !ok {
		t.Fatalf("%s has no wildcard for the namespace", stream)
	}
	server.Do(t, http.MethodPost, "/"+index+namespace+"/_search?allow_no_indices=false", string(text), &answer)
	return answer.Aggregations.Groups.Buckets
}

// grouped is a search for groups of the records of a rule in a time.
func grouped(r *siem.Rule, fields []string, from, to string, at time.Time, inner map[string]any) any {
	var sources []any
	for _, f := range fields {
		sources = append(sources, map[string]any{f: map[string]any{"terms": map[string]any{"field": f}}})
	}
	moment := func(s string) string { return strings.Replace(s, "now", at.UTC().Format(time.RFC3339)+"||", 1) }
	group := map[string]any{"composite": map[string]any{"size": 1000, "sources": sources}}
	if inner != nil {
		group["aggs"] = inner
	}
	return map[string]any{"size": 0, "aggs": map[string]any{"groups": group}, "query": map[string]any{"bool": map[string]any{"filter": []any{
		map[string]any{"range": map[string]any{"@timestamp": map[string]any{"gt": moment(from), "lte": moment(to)}}},
		map[string]any{"query_string": map[string]any{"query": r.Query, "analyze_wildcard": true}},
	}}}}
}

// judged is about what Kibana raises alerts for a rule: of threshold, new_terms and
// query with suppression by what they are documented to ask Elasticsearch.
func judged(t *testing.T, server *estest.Server, namespace string, r *siem.Rule, at time.Time) (raised []string) {
	t.Helper()
	switch r.Type {
	case "threshold":
		inner := map[string]any{}
		for _, c := range r.Threshold.Cardinality {
			inner["values"] = map[string]any{"cardinality": map[string]any{"field": c.Field}}
		}
		for _, b := range search(t, server, r.Index[0], namespace, grouped(r, r.Threshold.Field, r.From, r.To, at, inner)) {
			enough := b.Count >= float64(r.Threshold.Value)
			for _, c := range r.Threshold.Cardinality {
				enough = enough && b.Values.Value >= float64(c.Value)
			}
			if enough {
				raised = append(raised, b.of(r.Threshold.Field))
			}
		}
	case "query":
		for _, b := range search(t, server, r.Index[0], namespace, grouped(r, r.Suppression.GroupBy, r.From, r.To, at, nil)) {
			raised = append(raised, b.of(r.Suppression.GroupBy))
		}
	case "new_terms":
		known := map[string]bool{}
		for _, b := range search(t, server, r.Index[0], namespace, grouped(r, r.NewTermsFields, r.HistoryWindowStart, r.From, at, nil)) {
			known[b.of(r.NewTermsFields)] = true
		}
		for _, b := range search(t, server, r.Index[0], namespace, grouped(r, r.NewTermsFields, r.From, r.To, at, nil)) {
			if !known[b.of(r.NewTermsFields)] {
				raised = append(raised, b.of(r.NewTermsFields))
			}
		}
	default:
		t.Fatalf("a rule of type %s", r.Type)
	}
	return raised
}

// rowsOf is about what Kibana raises alerts for a rule in ES|QL: each row.
func rowsOf(t *testing.T, server *estest.Server, namespace string, r *siem.Rule, fields []string, at time.Time) (raised []string) {
	t.Helper()
	now := at.UTC().Format(time.RFC3339)
	from := strings.Replace(r.From, "now", now+"||", 1)
	for _, b := range esql(t, server, namespace, map[string]any{
		"query":  strings.ReplaceAll(r.Query, "NOW()", `TO_DATETIME("`+now+`")`),
		"filter": map[string]any{"range": map[string]any{"@timestamp": map[string]any{"gt": from, "lte": now}}},
	}) {
		for _, f := range r.Suppression.GroupBy {
			if b.Key[f] == nil {
				t.Errorf("%s: suppressed by %s, which is not in %v", r.Name, f, b.Key)
			}
		}
		raised = append(raised, b.of(fields))
	}
	return raised
}

// esql returns the rows of a query.
func esql(t *testing.T, server *estest.Server, namespace string, request map[string]any) (rows []bucket) {
	t.Helper()
	from, rest, ok := strings.Cut(request["query"].(string), "-*")
	if !ok {
		t.Fatalf("%s has no wildcard for the namespace", request["query"])
	}
	request["query"] = from + "-" + namespace + rest
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Columns []struct{ Name string }
		Values  [][]any
	}
	server.Do(t, http.MethodPost, "/_query", string(body), &answer)
	for _, row := range answer.Values {
		b := bucket{Key: map[string]any{}}
		for i, c := range answer.Columns {
			b.Key[c.Name] = row[i]
		}
		rows = append(rows, b)
	}
	return rows
}

// checkFlows holds the query of the README for flows that several sensors saw to the
// handshakes of alpha and beta.
func (f *fleet) checkFlows(t *testing.T, server *estest.Server, namespace string) {
	t.Helper()
	readme, err := os.ReadFile("../packaging/elastic/README.md")
	if err != nil {
		t.Fatal(err)
	}
	query := regexp.MustCompile(`(?m)^FROM logs-oddcert.handshake-.*$`).FindString(string(readme))
	var got []string
	for _, b := range esql(t, server, namespace, map[string]any{"query": query + " | LIMIT 1000"}) {
		got = append(got, fmt.Sprint(b.Key["network.community_id"], " ", b.Key["sensors"]))
	}
	sensors := map[string]map[any]bool{} // by flow
	for _, o := range f.lines {
		if at(o, "event.dataset") == "oddcert.handshake" {
			flow := at(o, "network.community_id").(string)
			if sensors[flow] == nil {
				sensors[flow] = map[any]bool{}
			}
			sensors[flow][at(o, "observer.name")] = true
		}
	}
	var want []string
	for flow, names := range sensors {
		if names["alpha"] != names["beta"] {
			t.Errorf("a flow of the span was seen by %v", names)
		}
		if len(names) > 1 {
			want = append(want, fmt.Sprint(flow, " ", len(names)))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
		t.Errorf("flows that several sensors saw: want -, got +:\n%s", diff)
	}
}

// monitored is a monitor's search at a time, with its condition in place.
func monitored(t *testing.T, m *siem.Monitor, at time.Time) any {
	t.Helper()
	text, err := json.Marshal(m.Inputs[0].Search.Query)
	if err != nil {
		t.Fatal(err)
	}
	var body map[string]any
	if err := json.Unmarshal(bytes.ReplaceAll(text, []byte("{{period_end}}"), fmt.Append(nil, at.UnixMilli())), &body); err != nil {
		t.Fatal(err)
	}
	condition := m.Triggers[0].BucketLevel.Condition
	group := body["aggregations"].(map[string]any)[condition.ParentBucketPath].(map[string]any)
	inner, _ := group["aggregations"].(map[string]any)
	if inner == nil {
		inner = map[string]any{}
		group["aggregations"] = inner
	}
	inner["condition"] = map[string]any{"bucket_selector": map[string]any{"buckets_path": condition.BucketsPath, "script": condition.Script}}
	return body
}

// Two sensors on one span, and two on others, have one Elasticsearch: of what only all
// of them together can see, each rule and each monitor raises what it must, once.
func TestAllSensorsTogether(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers and sensors")
	}
	f := newFleet(t)
	for _, product := range []estest.Product{estest.Elasticsearch8, estest.OpenSearch3} {
		t.Run(product.String(), func(t *testing.T) {
			var server *estest.Server
			if product.OpenSearch() {
				server = estest.SharedOf(t, product)
			} else {
				server = estest.Start(t, estest.Options{Product: product, ESQL: true})
			}
			namespace := estest.Namespace(t)
			f.load(t, server, namespace)
			for i := range siem.Detections {
				d := &siem.Detections[i]
				t.Run(d.File, func(t *testing.T) { f.judge(t, server, namespace, d) })
			}
			if !product.OpenSearch() {
				t.Run("flows", func(t *testing.T) { f.checkFlows(t, server, namespace) })
			}
			for i := range siem.Panels {
				p := &siem.Panels[i]
				t.Run("panel "+p.Title, func(t *testing.T) { checkPanel(t, server, namespace, p) })
			}
		})
	}
}

// judge judges a detection as a rule of Kibana, or as a monitor of OpenSearch.
func (f *fleet) judge(t *testing.T, server *estest.Server, namespace string, d *siem.Detection) {
	var got []string
	r, m := d.Rule(), d.Monitor()
	switch {
	case server.Product.OpenSearch():
		for _, b := range search(t, server, d.Stream, namespace, monitored(t, m, f.at)) {
			got = append(got, b.of(d.GroupBy))
		}
	case r.Type == "esql":
		got = rowsOf(t, server, namespace, r, d.GroupBy, f.at)
	default:
		got = judged(t, server, namespace, r, f.at)
	}
	slices.Sort(got)
	switch d.File {
	case "alert":
		f.checkFolded(t, got)
		return
	case "shared-key": // of the shared certificate too
		if len(got) != 2 || !slices.Contains(got, f.key) {
			t.Errorf("raised for %v, not only for %s and the key of the shared certificate", got, f.key)
		}
		return
	case "flagged-certificate-spreads": // other certificates of the fleet are new everywhere
		got = slices.DeleteFunc(got, func(s string) bool { return !strings.HasSuffix(s, f.lookalike) })
	case "loss":
		for i, s := range got {
			got[i], _, _ = strings.Cut(s, " ") // without the run
		}
	}
	if diff := cmp.Diff(f.raised()[d.File], got); diff != "" {
		t.Errorf("%s: should be raised -, is +:\n%s", d.Name, diff)
	}
}

// checkFolded holds what is raised for alerts to the flows in them: two sensors on one
// span tell the same community ID.
func (f *fleet) checkFolded(t *testing.T, got []string) {
	t.Helper()
	sensors := map[string]map[string]bool{} // by flow and rule
	for _, o := range f.lines {
		if at(o, "event.dataset") != "oddcert.alert" {
			continue
		}
		when, err := time.Parse(time.RFC3339Nano, at(o, "@timestamp").(string))
		if err != nil {
			t.Fatal(err)
		}
		if f.at.Sub(when) > 5*time.Minute {
			continue
		}
		flow := at(o, "network.community_id").(string) + " " + at(o, "rule.id").(string)
		if sensors[flow] == nil {
			sensors[flow] = map[string]bool{}
		}
		sensors[flow][at(o, "observer.name").(string)] = true
	}
	if want := slices.Sorted(maps.Keys(sensors)); !slices.Equal(got, want) {
		t.Errorf("raised for %v, not for %v", got, want)
	}
	folded := 0
	for _, names := range sensors {
		if names["alpha"] && names["beta"] && len(names) == 2 {
			folded++
		} else if len(names) != 1 {
			t.Errorf("a flow was seen by %v", slices.Sorted(maps.Keys(names)))
		}
	}
	if folded == 0 {
		t.Error("no alert is of a flow that two sensors saw")
	}
}

// checkPanel asks for what a panel shows: it has something in each column.
func checkPanel(t *testing.T, server *estest.Server, namespace string, p *siem.Panel) {
	t.Helper()
	inner := map[string]any{}
	of := map[string]string{"terms": "terms", "date_histogram": "terms", "unique_count": "cardinality", "max": "max", "min": "min", "last_value": "value_count"}
	for i, c := range p.Columns {
		if of[c.Operation] != "" {
			inner[fmt.Sprint(i)] = map[string]any{of[c.Operation]: map[string]any{"field": c.Field}}
		} else if c.Operation != "count" && c.Operation != "counter_rate" {
			t.Errorf("%s: an operation %s", c.Label, c.Operation)
		}
	}
	query := "*"
	if p.Query != "" {
		query = p.Query
	}
	body, err := json.Marshal(map[string]any{"size": 0, "track_total_hits": true, "aggs": inner,
		"query": map[string]any{"query_string": map[string]any{"query": query, "analyze_wildcard": true}}})
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Hits         struct{ Total struct{ Value int } }
		Aggregations map[string]struct {
			Value   float64
			Buckets []any
		}
	}
	server.Do(t, http.MethodPost, "/"+strings.TrimSuffix(p.Stream, "*")+namespace+"/_search", string(body), &answer)
	if answer.Hits.Total.Value == 0 {
		t.Error("no record")
	}
	for i, c := range p.Columns {
		a := answer.Aggregations[fmt.Sprint(i)]
		if inner[fmt.Sprint(i)] != nil && a.Value == 0 && len(a.Buckets) == 0 {
			t.Errorf("nothing in the column %s", c.Label)
		}
	}
}

// fieldName matches what can be the name of a field of a record.
var fieldName = regexp.MustCompile(`@timestamp|\b(?:agent|client|destination|event|labels|network|observer|oddcert|related|rule|server|source|tls)(?:\.[a-z0-9_]+)+\b`)

// Each field that a rule, a monitor, a data view or a panel names is one that records
// of its data stream have, and one that can be counted where it is.
func TestAssetsNameFields(t *testing.T) {
	datasets := map[string]schema.Dataset{}
	for d := range schema.Datasets {
		datasets[d.DataStream("*")] = d
	}
	check := func(where, stream, field string, counted bool) {
		d, ok := datasets[stream]
		if !ok {
			t.Errorf("%s: no data stream %s", where, stream)
			return
		}
		f, ok := schema.Lookup(field)
		if !ok || !(f.In | f.Template).Has(d) {
			t.Errorf("%s: records of %s have no %s", where, stream, field)
		}
		if f.Type == schema.Text || f.Type == schema.MatchOnlyText || f.Type == schema.Nested || f.Opaque {
			t.Errorf("%s: %s is a %s", where, field, f.Type)
		}
		if counted && f.Full && d == schema.Handshake {
			t.Errorf("%s: only full handshakes have %s", where, field)
		}
	}
	named := 0
	for i := range siem.Detections {
		d := &siem.Detections[i]
		r := d.Rule()
		for _, part := range []any{r.Query, r.Threshold, r.NewTermsFields, r.Suppression, r.SeverityMapping, r.RiskMapping, r.NameOverride, r.TimestampOverride, d.Monitor().Inputs} {
			text, err := json.Marshal(part)
			if err != nil {
				t.Fatal(err)
			}
			for _, field := range fieldName.FindAllString(strings.NewReplacer(d.Stream, "", `\n`, " ").Replace(string(text)), -1) {
				check(d.Name, d.Stream, field, true)
				named++
			}
		}
	}
	for i := range siem.Panels {
		p := &siem.Panels[i]
		for _, c := range p.Columns {
			if c.Field != "" && c.Operation != "count" {
				check(p.Title, p.Stream, c.Field, true)
				if f, _ := schema.Lookup(c.Field); (c.DataType == "date") != slices.Contains([]schema.Type{schema.Date, schema.DateNanos}, f.Type) && c.Operation != "unique_count" {
					t.Errorf("%s: %s is a %s, shown as %s", p.Title, c.Field, f.Type, c.DataType)
				}
			}
		}
		for _, field := range fieldName.FindAllString(p.Query, -1) {
			check(p.Title, p.Stream, field, false)
			named++
		}
	}
	for _, o := range siem.SavedObjects() {
		if v, ok := o.Attributes.(siem.DataView); ok {
			check(v.Name, v.Title, v.TimeField, true)
		}
	}
	if named < 50 {
		t.Errorf("only %d names were found", named)
	}
}
