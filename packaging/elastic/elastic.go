// Package elastic has what an operator loads into Elastic Security, OpenSearch and
// Kibana to see what only all sensors together can see: a certificate on many
// servers of many networks, a sensor that has become silent, a flow that two
// sensors saw.
//
// [Detections] says once what is looked for. Each becomes a detection rule for
// Kibana ([Detection.Rule]) and a monitor for OpenSearch ([Detection.Monitor]).
// [SavedObjects] are the data views and the dashboard. [Files] are the files beside
// this one, which `go test ./packaging/elastic -update` writes.
package elastic

import (
	"bytes"
	"encoding/json"
	"time"
)

// The data streams, of all namespaces.
const (
	alerts       = "logs-oddcert.alert-*"
	certificates = "logs-oddcert.certificate-*"
	handshakes   = "logs-oddcert.handshake-*"
	sightings    = "logs-oddcert.sighting-*"
	stats        = "metrics-oddcert.stats-*"
)

// object is a JSON object of which no part is looked at again.
type object = map[string]any

// Files returns the contents of all files by their names.
func Files() map[string][]byte {
	var rules []any
	files := map[string][]byte{}
	for i := range Detections {
		d := &Detections[i]
		rules = append(rules, d.Rule())
		files["monitors/"+d.File+".json"] = indented(d.Monitor())
	}
	files["rules.ndjson"] = lines(rules)
	var objects []any
	for _, o := range SavedObjects() {
		objects = append(objects, o)
	}
	files["kibana.ndjson"] = lines(objects)
	return files
}

// lines encodes each value on a line.
func lines(values []any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		encode(&b, v, "")
	}
	return b.Bytes()
}

func indented(v any) []byte {
	var b bytes.Buffer
	encode(&b, v, "  ")
	return b.Bytes()
}

// text is JSON within a string, which Kibana has in some places.
func text(v any) string {
	var b bytes.Buffer
	encode(&b, v, "")
	return string(bytes.TrimSpace(b.Bytes()))
}

// encode appends a value that can be encoded, and a line feed.
func encode(b *bytes.Buffer, v any, indent string) {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
}

const day = 24 * time.Hour
