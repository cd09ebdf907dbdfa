package splunk

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/outputtest"
)

// conf reads a configuration file of Splunk: the settings of each stanza.
func conf(t *testing.T, name string) map[string]map[string]string {
	f, err := os.Open(filepath.Join("../../../../packaging/splunk/TA-oddcert/default", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]map[string]string{}
	stanza := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		key, value, ok := strings.Cut(line, " = ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			stanza = line[1 : len(line)-1]
			if all[stanza] != nil {
				t.Errorf("%s: [%s] is there twice", name, stanza)
			}
			all[stanza] = map[string]string{}
		case ok && stanza != "":
			all[stanza][key] = value
		default:
			t.Errorf("%s: %q is neither stanza nor setting", name, line)
		}
	}
	return all
}

// TestAddOn holds the files of the add-on together: each source type that is sent is
// there, event types name source types and fields that are sent, and tags event types.
func TestAddOn(t *testing.T) {
	types := conf(t, "props.conf")
	fieldNames := map[string]bool{}
	for _, r := range outputtest.Records(t) {
		e, err := (&Destination{}).encode(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`"([a-z_]+)":`).FindAllSubmatch(e[strings.LastIndex(string(e), `"fields":`):], -1) {
			fieldNames[string(m[1])] = true
		}
		kind := "oddcert:" + r.Dataset.Form().String()
		if types[kind]["TRUNCATE"] != "0" || types[kind]["KV_MODE"] != "json" {
			t.Errorf("props.conf: %s is %v", kind, types[kind])
		}
	}
	if len(types) != int(output.Datasets)-1 { // a full handshake is a handshake
		t.Errorf("props.conf has %d source types", len(types))
	}
	events := conf(t, "eventtypes.conf")
	for name, e := range events {
		for _, m := range regexp.MustCompile(`sourcetype=(\S+?)\b( |\)|$)`).FindAllStringSubmatch(e["search"], -1) {
			if types[m[1]] == nil {
				t.Errorf("eventtypes.conf: %s: no source type %s", name, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`([a-z_]+)=\*`).FindAllStringSubmatch(e["search"], -1) {
			if !fieldNames[m[1]] {
				t.Errorf("eventtypes.conf: %s: no field %s", name, m[1])
			}
		}
	}
	tags := conf(t, "tags.conf")
	for name := range tags {
		if events[strings.TrimPrefix(name, "eventtype=")] == nil {
			t.Errorf("tags.conf: no event type of [%s]", name)
		}
	}
	if len(tags) != len(events) {
		t.Errorf("%d event types, %d with tags", len(events), len(tags))
	}
}
