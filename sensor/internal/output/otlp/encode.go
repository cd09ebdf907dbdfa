package otlp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/document"
)

// The messages of OTLP in JSON (opentelemetry-proto, logs/v1/logs.proto and
// common/v1/common.proto; OTLP Specification, "JSON Protobuf Encoding"): names in
// lowerCamelCase, enumerations as numbers, 64-bit numbers as strings.
type (
	request struct {
		ResourceLogs []*resourceLogs `json:"resourceLogs"`
	}
	resourceLogs struct {
		Resource  resource    `json:"resource"`
		ScopeLogs []scopeLogs `json:"scopeLogs"`
	}
	resource struct {
		Attributes []keyValue `json:"attributes"`
	}
	scopeLogs struct {
		Scope      scope       `json:"scope"`
		LogRecords []logRecord `json:"logRecords"`
		SchemaURL  string      `json:"schemaUrl"`
	}
	scope struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
	}
	logRecord struct {
		Time           string     `json:"timeUnixNano"`
		Observed       string     `json:"observedTimeUnixNano"`
		SeverityNumber int        `json:"severityNumber"`
		SeverityText   string     `json:"severityText"`
		EventName      string     `json:"eventName"`
		Body           anyValue   `json:"body"`
		Attributes     []keyValue `json:"attributes"`
	}
	keyValue struct {
		Key   string   `json:"key"`
		Value anyValue `json:"value"`
	}
	// anyValue has one member.
	anyValue struct {
		String *string      `json:"stringValue,omitempty"`
		Bool   *bool        `json:"boolValue,omitempty"`
		Int    *string      `json:"intValue,omitempty"`
		Double *float64     `json:"doubleValue,omitempty"`
		Array  *arrayValue  `json:"arrayValue,omitempty"`
		List   *kvlistValue `json:"kvlistValue,omitempty"`
	}
	arrayValue struct {
		Values []anyValue `json:"values"`
	}
	kvlistValue struct {
		Values []keyValue `json:"values"`
	}
)

// schemaURL names the version of the semantic conventions that the names of
// attributes are from.
const schemaURL = "https://opentelemetry.io/schemas/1.38.0"

func text(s string) anyValue { return anyValue{String: &s} }

func number(n int64) anyValue {
	s := strconv.FormatInt(n, 10)
	return anyValue{Int: &s}
}

// encode makes a request of records, and says for each whether it is in it. A resource
// is one sensor.
func (d *Destination) encode(records []*output.Record, errs []error, now time.Time) ([]byte, error) {
	var r request
	sensors := map[string]*resourceLogs{}
	for i, record := range records {
		log, sensor, err := logRecordOf(record, now)
		if err != nil {
			errs[i] = err
			continue
		}
		of := sensors[sensor]
		if of == nil {
			of = d.resource(sensor)
			sensors[sensor] = of
			r.ResourceLogs = append(r.ResourceLogs, of)
		}
		logs := &of.ScopeLogs[0].LogRecords
		*logs = append(*logs, log)
	}
	if len(r.ResourceLogs) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(&r)
	return b.Bytes(), err
}

func (d *Destination) resource(sensor string) *resourceLogs {
	attributes := []keyValue{{"service.name", text("oddcert")}}
	if sensor != "" {
		attributes = append(attributes, keyValue{"service.instance.id", text(sensor)})
	}
	if d.config.Version != "" {
		attributes = append(attributes, keyValue{"service.version", text(d.config.Version)})
	}
	return &resourceLogs{
		Resource:  resource{attributes},
		ScopeLogs: []scopeLogs{{Scope: scope{"oddcert", d.config.Version}, SchemaURL: schemaURL}},
	}
}

// logRecordOf is a record as a log record, with the name of its sensor.
func logRecordOf(r *output.Record, now time.Time) (logRecord, string, error) {
	doc, err := document.Read(r.JSON)
	if err != nil {
		return logRecord{}, "", err
	}
	attributes, err := attributesOf(r.JSON)
	if err != nil {
		return logRecord{}, "", err
	}
	body := doc.Message
	if body == "" {
		body = summary(doc)
	}
	severity, name := severityOf(doc.Rule.Level)
	return logRecord{
		Time: strconv.FormatInt(max(r.Time, 0), 10), Observed: strconv.FormatInt(now.UnixNano(), 10),
		SeverityNumber: severity, SeverityText: name, EventName: "oddcert." + r.Dataset.Form().String(),
		Body: text(body), Attributes: append(attributes, conventions(doc)...),
	}, doc.Observer.Name, nil
}

// summary is a line for records that have no message.
func summary(doc *document.Document) string {
	if doc.Destination.IP == "" {
		return doc.Event.Dataset
	}
	s := fmt.Sprintf("%s: server %s:%d", doc.Event.Dataset, doc.Destination.IP, doc.Destination.Port)
	if doc.Destination.Domain != "" {
		s += " (" + doc.Destination.Domain + ")"
	}
	return s + fmt.Sprintf(", client %s:%d", doc.Source.IP, doc.Source.Port)
}

// severityOf is the severity of a rule's level, or of what is no alert: that of the
// nearest level of syslog in the table of the Logs Data Model, "Appendix B:
// SeverityNumber example mappings".
func severityOf(level string) (int, string) {
	switch level {
	case "critical":
		return 18, level // ERROR2
	case "high":
		return 17, level // ERROR
	case "medium":
		return 13, level // WARN
	case "low":
		return 10, level // INFO2
	case "":
		return 9, "info" // INFO
	}
	return 9, level
}

// conventions are the attributes that OpenTelemetry's semantic conventions have other
// names for than the record: the registry's Client, Server, TLS and Log Attributes.
// log.record.uid tells a receiver which records it has had already.
func conventions(doc *document.Document) (attributes []keyValue) {
	set := func(key, value string) {
		if value != "" {
			attributes = append(attributes, keyValue{key, text(value)})
		}
	}
	port := func(key string, n uint16) {
		if n != 0 {
			attributes = append(attributes, keyValue{key, number(int64(n))})
		}
	}
	set("log.record.uid", doc.Event.ID)
	set("client.address", doc.Source.IP)
	port("client.port", doc.Source.Port)
	server := doc.Destination.Domain
	if server == "" {
		server = doc.Destination.IP
	}
	set("server.address", server)
	port("server.port", doc.Destination.Port)
	set("tls.protocol.name", doc.TLS.VersionProtocol)
	set("tls.protocol.version", doc.TLS.Version)
	return attributes
}

// attributesOf are the fields of a record, each under its own name with dots, sorted:
// searches use the same names as anywhere else.
func attributesOf(record []byte) ([]keyValue, error) {
	d := json.NewDecoder(bytes.NewReader(record))
	d.UseNumber()
	var fields map[string]any
	if err := d.Decode(&fields); err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	// These are in the log record itself, or are other names of source and destination.
	for _, name := range []string{"@timestamp", "message", "client", "server"} {
		delete(fields, name)
	}
	return flatten([]keyValue{}, "", fields, maxDepth)
}

var errDepth = errors.New("read record: it is nested too deeply")

func flatten(to []keyValue, prefix string, fields map[string]any, depth int) ([]keyValue, error) {
	if depth == 0 {
		return nil, errDepth
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		switch value := fields[name].(type) {
		case nil:
		case map[string]any:
			var err error
			if to, err = flatten(to, prefix+name+".", value, depth-1); err != nil {
				return nil, err
			}
		default:
			v, err := valueOf(value, depth-1)
			if err != nil {
				return nil, err
			}
			to = append(to, keyValue{prefix + name, v})
		}
	}
	return to, nil
}

// valueOf is a value of JSON. Within a list, an object stays an object.
func valueOf(value any, depth int) (anyValue, error) {
	if depth == 0 {
		return anyValue{}, errDepth
	}
	switch v := value.(type) {
	case string:
		return text(v), nil
	case bool:
		return anyValue{Bool: &v}, nil
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return number(n), nil
		}
		f, err := v.Float64()
		if err != nil {
			return text(v.String()), nil // beyond what a double holds
		}
		return anyValue{Double: &f}, nil
	case []any:
		list := &arrayValue{Values: make([]anyValue, 0, len(v))}
		for _, element := range v {
			e, err := valueOf(element, depth-1)
			if err != nil {
				return anyValue{}, err
			}
			list.Values = append(list.Values, e)
		}
		return anyValue{Array: list}, nil
	case map[string]any:
		list := &kvlistValue{Values: make([]keyValue, 0, len(v))}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			e, err := valueOf(v[name], depth-1)
			if err != nil {
				return anyValue{}, err
			}
			list.Values = append(list.Values, keyValue{name, e})
		}
		return anyValue{List: list}, nil
	}
	return anyValue{}, nil // null: a value without a member
}
