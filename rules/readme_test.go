package rules

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// The README lists every field, with what it is.
func TestReadmeFields(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(b)
	if want := fieldTable(); !strings.Contains(readme, want) {
		t.Errorf("README.md does not have this table:\n%s", want)
	}
	for _, m := range modifierNames {
		if !strings.Contains(readme, "`"+m+"`") && !slices.Contains([]string{"ignorecase", "multiline", "dotall"}, m) {
			t.Errorf("README.md does not name the modifier %s", m)
		}
	}
}

// The documents that the README shows are right, and those of a rule's attributes
// are right in a rule.
func TestReadmeExamples(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```").FindAllStringSubmatch(string(b), -1)
	if len(blocks) < 4 {
		t.Fatalf("%d examples", len(blocks))
	}
	for i, block := range blocks {
		text := block[1]
		if strings.HasPrefix(text, "oddcert:") {
			text = rule("a: {server.port: 1}\ncondition: a") + text
		}
		set, err := Load(Builtin(), Source{"dir", fstest.MapFS{
			"x.yml":               {Data: []byte(text)},
			"base.yml":            {Data: []byte(strings.TrimSuffix(base("blocked", 443), "---\n"))},
			"lists/blocklist.txt": {Data: []byte(strings.Repeat("ab", 32))},
		}})
		if err != nil || len(set.Warnings()) > 0 {
			t.Errorf("example %d: %v %v", i+1, err, set.Warnings())
		}
	}
}

func fieldTable() string {
	var b strings.Builder
	kinds := map[kind]string{text: "text", serial: "hex", digest: "hash", mac: "MAC", number: "number", boolean: "true or false",
		instant: "time", suite: "name or number", group: "name or number", address: "address"}
	b.WriteString("| field | kind | what it is |\n|---|---|---|\n")
	for _, name := range fieldNames {
		f := fields[name]
		shown, doc := "`"+name+"`", f.doc
		switch {
		case f.scope == clientChain || f.scope == clientLeaf:
			continue
		case f.scope == serverChain:
			shown = "PREFIX`" + strings.TrimPrefix(name, "oddcert.chain") + "`"
			doc = strings.TrimSuffix(doc, " of a certificate of the server's chain")
			if after := strings.TrimPrefix(name, "oddcert.chain."); fields["tls.server."+after] != nil {
				shown += ", LEAF`." + after + "`"
			}
		case f.scope == serverLeaf:
			continue
		}
		kind := kinds[f.kind]
		if f.kind == digest && f.size == 0 {
			kind = "hex"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", shown, kind, doc)
	}
	return b.String()
}
