package syslog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/cef"
	"github.com/oddcert/oddcert/sensor/internal/output/document"
)

// message makes messages (RFC 5424 section 6). It does not change, and may be used by
// several goroutines.
type message struct {
	facility int
	host     string // HOSTNAME
	version  string
	record   cef.Format // nil for the record itself
	limit    int        // bytes
}

func newMessage(c *Config) message {
	m := message{facility: 16, host: hostname(c.Sensor), version: c.Version, record: formats[c.Format], limit: c.MaxMessage}
	if c.Facility != "" {
		m.facility = slices.Index(facilities, c.Facility)
	}
	if m.limit == 0 {
		m.limit = DefaultMaxMessage
	}
	return m
}

// hostname makes a HOSTNAME of the sensor's name: up to 255 printable ASCII
// characters without spaces.
func hostname(name string) string {
	name = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '-'
		}
		return r
	}, name)
	if name == "" {
		return "-"
	}
	return name[:min(len(name), 255)]
}

// Severities of messages, by event.severity of alerts: 21, 47, 73 and 99 are the
// levels of rules. A receiver wakes somebody up for crit, and for nothing below.
func severity(r *output.Record) int {
	const crit, err, warning, notice, info = 2, 3, 4, 5, 6
	if r.Dataset != output.Alert {
		return info
	}
	var d struct {
		Event struct {
			Severity int `json:"severity"`
		} `json:"event"`
	}
	if json.Unmarshal(r.JSON, &d) != nil {
		return notice
	}
	switch s := d.Event.Severity; {
	case s >= 99:
		return crit
	case s >= 73:
		return err
	case s >= 47:
		return warning
	}
	return notice
}

// sdID names our structured data. A name without an @ is IANA's to give, and ours
// needs the number of an enterprise (RFC 5424 section 6.3.2). oddcert has none: this
// is the one for examples (RFC 5612), which no other product may claim either.
const sdID = "oddcert@32473"

// format makes the message of a record. There is no byte order mark before the text,
// which thus has no declared encoding (MSG-ANY in RFC 5424 section 6.4): it is UTF-8
// all the same, and readers of JSON, CEF and LEEF take no mark.
func (m *message) format(r *output.Record) ([]byte, error) {
	head := fmt.Appendf(nil, "<%d>1 %s %s oddcert - %s ", m.facility*8+severity(r),
		time.Unix(0, r.Time).UTC().Format("2006-01-02T15:04:05.000000Z"), m.host, r.Dataset.Form())
	data := func(leftOut []string) []byte {
		b := append([]byte(nil), head...)
		b = fmt.Appendf(b, `[%s id="%s" dataset="oddcert.%s"`, sdID, paramValue.Replace(r.ID), r.Dataset.Form())
		if len(leftOut) > 0 {
			b = fmt.Appendf(b, ` leftOut="%s"`, strings.Join(leftOut, ","))
		}
		return append(b, "] "...)
	}
	b := data(nil)
	if m.record != nil {
		d, err := document.Read(r.JSON)
		if err != nil {
			return nil, err
		}
		if b, err = m.record(b, d, m.version, m.limit-len(b)); err != nil {
			return nil, fmt.Errorf("write a message of at most %d bytes: %w", m.limit, err)
		}
		return b, nil
	}
	if len(b)+len(r.JSON) <= m.limit {
		return append(b, r.JSON...), nil
	}
	return m.abridge(r, data)
}

// paramValue escapes what ends a PARAM-VALUE (RFC 5424 section 6.3.3).
var paramValue = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`)

// omissible are the members that a record can do without, in the order in which they
// are left out: first what a machine alone reads, then what other records have, and
// last what is told elsewhere in the record in short.
var omissible = []string{
	"tls.server.certificate_chain", "tls.client.certificate_chain",
	"oddcert.certificate.der", "oddcert.chain.der", "oddcert.client_chain.der",
	"oddcert.stats.captures", "oddcert.stats.unread", "oddcert.stats.no_tls", "oddcert.stats.rules", "oddcert.stats.weird",
	"tls.client.supported_ciphers", "oddcert.hello",
	"rule.description", "oddcert.authority_names",
	"oddcert.certificate.x509.alternative_names", "tls.server.x509.alternative_names", "tls.client.x509.alternative_names",
	"oddcert.client_chain", "oddcert.chain",
	"tls.server.x509", "tls.client.x509",
	"oddcert.certificate.name", "related.hosts",
}

// abridge leaves out of a record what makes it too long. A receiver would cut it, and
// JSON without its end is nothing. The names of what is left out are in the
// structured data.
func (m *message) abridge(r *output.Record, data func(leftOut []string) []byte) ([]byte, error) {
	var record map[string]any
	d := json.NewDecoder(bytes.NewReader(r.JSON))
	d.UseNumber() // numbers stay as they are written
	if err := d.Decode(&record); err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	var left []string
	size := len(r.JSON) // at most, as far as it is known
	for _, name := range omissible {
		saved := remove(record, strings.Split(name, "."))
		if saved == 0 {
			continue
		}
		left = append(left, name)
		b := data(left)
		if size -= saved; len(b)+size > m.limit {
			continue
		}
		text, err := encode(record)
		if err != nil {
			return nil, err
		}
		if len(b)+len(text) <= m.limit {
			return append(b, text...), nil
		}
		size = len(text)
	}
	return nil, fmt.Errorf("the record has %d bytes: its message is longer than max_message_size %d, even without %s",
		len(r.JSON), m.limit, strconv.Quote(strings.Join(left, ",")))
}

// remove removes a member, in each object of an array, and returns how many bytes
// that saves at least.
func remove(in any, path []string) (saved int) {
	switch in := in.(type) {
	case []any:
		for _, v := range in {
			saved += remove(v, path)
		}
	case map[string]any:
		v, ok := in[path[0]]
		if !ok {
			return 0
		}
		if len(path) > 1 {
			return remove(v, path[1:])
		}
		delete(in, path[0])
		text, _ := encode(v) // it was decoded from JSON
		return len(path[0]) + len(`"":`) + len(text)
	}
	return saved
}

// encode encodes v as the records are: no character of HTML is escaped.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("write record: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
