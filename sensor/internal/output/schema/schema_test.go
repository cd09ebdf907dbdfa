package schema

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/rules"
)

// ecsFields reads testdata/ecs-9.4.0.csv: names and types of the fields of the
// Elastic Common Schema that records use, as the npm package @elastic/ecs 9.4.0
// has them.
func ecsFields(t *testing.T) map[string]Type {
	t.Helper()
	f, err := os.Open("testdata/ecs-" + ECS + ".csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	types := map[string]Type{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, kind, ok := strings.Cut(lines.Text(), ",")
		if !ok {
			t.Fatalf("line %q is not a name and a type", lines.Text())
		}
		types[name] = Type(kind)
	}
	return types
}

// TestECS holds the fields of the Elastic Common Schema to its types, and all
// others to names of our own.
func TestECS(t *testing.T) {
	ecs := ecsFields(t)
	for _, f := range Fields() {
		want, ok := ecs[strings.TrimSuffix(f.Name, ".*")]
		delete(ecs, strings.TrimSuffix(f.Name, ".*"))
		if f.ECS != ok {
			t.Errorf("%s: in ECS: %v", f.Name, ok)
			continue
		}
		if !ok {
			if !strings.HasPrefix(f.Name, "oddcert.") && f.Name != "rule.level" {
				t.Errorf("%s is neither in ECS nor below oddcert", f.Name)
			}
			continue
		}
		switch {
		case f.Name == "@timestamp" && f.Type == DateNanos: // the same to all that search, but exact
		case f.Name == "labels.*" && want == "object" && f.Type == Keyword:
		case f.Type == ConstantKeyword && want == Keyword:
		case f.Type != want:
			t.Errorf("%s is a %s, in ECS a %s", f.Name, f.Type, want)
		}
	}
	for name := range ecs {
		t.Errorf("%s: no record has it", name)
	}
}

// TestRules finds each field that a rule can name in the records of some dataset,
// and what rules ask of one certificate in those about certificates as well.
func TestRules(t *testing.T) {
	for _, name := range rules.FieldNames() {
		f, ok := Lookup(name)
		if !ok || f.In == 0 {
			t.Errorf("%s: a rule can name it, but no record has it", name)
		}
		if !f.In.Has(Alert) {
			t.Errorf("%s: a rule can name it, but an alert does not have it", name)
		}
		if rest, ok := strings.CutPrefix(name, "oddcert.chain."); ok {
			if f, _ := Lookup("oddcert.certificate." + rest); !f.In.Has(Certificate) {
				t.Errorf("%s: no record of a certificate has it", f.Name)
			}
		}
	}
}

// TestSameNames holds the chains and the single certificate to the same names
// and types.
func TestSameNames(t *testing.T) {
	const prefix = "oddcert.chain."
	n := 0
	for _, f := range Fields() {
		rest, ok := strings.CutPrefix(f.Name, prefix)
		if !ok {
			continue
		}
		n++
		for _, other := range []string{"oddcert.client_chain.", "oddcert.certificate."} {
			o, ok := Lookup(other + rest)
			if !ok || o.Type != f.Type || o.FoldCase != f.FoldCase {
				t.Errorf("%s is %+v, %s is %+v", f.Name, f, other+rest, o)
			}
		}
	}
	if n < 50 {
		t.Errorf("%d fields of a certificate in a chain", n)
	}
}

// TestFields holds the list to what its readers rely on.
func TestFields(t *testing.T) {
	all := Fields()
	if !slices.IsSortedFunc(all, func(a, b Field) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not sorted")
	}
	for _, f := range all {
		if f.In|f.Template == 0 {
			t.Errorf("%s: nothing has it", f.Name)
		}
		if f.In&f.Template != 0 {
			t.Errorf("%s: %s have it in the record and in the template alone", f.Name, f.In&f.Template)
		}
		if (f.In|f.Template)&^Every != 0 {
			t.Errorf("%s: in unknown datasets", f.Name)
		}
		if f.Full && !f.In.Has(Handshake) {
			t.Errorf("%s: in full handshakes, but not in handshakes", f.Name)
		}
		for d := range Datasets {
			if f.AliasOf != "" && f.Template.Has(d) {
				if of, ok := Lookup(f.AliasOf); !ok || of.Type != f.Type || !of.In.Has(d) {
					t.Errorf("%s: another name of %s, which %s does not have as a %s", f.Name, f.AliasOf, d, f.Type)
				}
			}
			if f.CopyTo != "" && f.In.Has(d) {
				if to, ok := Lookup(f.CopyTo); !ok || to.Type != f.Type || !(to.In | to.Template).Has(d) {
					t.Errorf("%s: copied to %s, which %s does not have as a %s", f.Name, f.CopyTo, d, f.Type)
				}
			}
			if f.Type == ConstantKeyword && f.In.Has(d) && f.Constant[d] == "" && f.Name != "data_stream.namespace" {
				t.Errorf("%s: no value in %s", f.Name, d)
			}
		}
		if f.Type != ConstantKeyword && len(f.Constant) > 0 {
			t.Errorf("%s: a constant of type %s", f.Name, f.Type)
		}
		if f.Optional&^f.In != 0 {
			t.Errorf("%s: optional where it never is", f.Name)
		}
		// A name is either a field or an object, and only an array of objects is both.
		if i := strings.LastIndexByte(f.Name, '.'); i > 0 {
			if o, ok := Lookup(f.Name[:i]); ok && o.Type != Nested && !strings.HasSuffix(o.Name, ".*") {
				t.Errorf("%s is below %s, which is a %s", f.Name, o.Name, o.Type)
			}
		}
	}
}

// TestLookup finds names below those that stand for many.
func TestLookup(t *testing.T) {
	for name, want := range map[string]Type{
		"labels.site":                     Keyword,
		"oddcert.stats.flows.total":       Long,
		"oddcert.stats.rules.name":        Keyword,
		"oddcert.stats.packets.first":     Date,
		"tls.server.hash.sha256":          Keyword,
		"oddcert.chain":                   Nested,
		"event":                           "",
		"oddcert.chain.hash":              "",
		"nothing":                         "",
		"oddcert.statistics.flows.total":  "",
		"oddcert.certificate.hash.sha256": Keyword,
	} {
		if f, ok := Lookup(name); f.Type != want || ok != (want != "") {
			t.Errorf("%s is a %q (%v), want %q", name, f.Type, ok, want)
		}
	}
}

func TestDatasets(t *testing.T) {
	if got := Alert.DataStream("default"); got != "logs-oddcert.alert-default" {
		t.Error(got)
	}
	if got := Stats.DataStream("prod"); got != "metrics-oddcert.stats-prod" {
		t.Error(got)
	}
	if got := Only(Alert, Stats).String(); got != "alert stats" {
		t.Errorf("%q", got)
	}
}
