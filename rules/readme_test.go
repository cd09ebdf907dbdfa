package rules

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
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
