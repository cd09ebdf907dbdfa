package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
	"github.com/oddcert/oddcert/sensor/internal/output/eve"
	"github.com/oddcert/oddcert/sensor/internal/output/kafka"
	"github.com/oddcert/oddcert/sensor/internal/output/logfile"
	"github.com/oddcert/oddcert/sensor/internal/output/otlp"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
	"github.com/oddcert/oddcert/sensor/internal/output/splunk"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
	"github.com/oddcert/oddcert/sensor/internal/output/syslog"
	"github.com/oddcert/oddcert/sensor/internal/output/webhook"
	"github.com/oddcert/oddcert/sensor/internal/output/zeek"
)

// outputConfig is what one output is told: its type, which records it gets, and
// settings that depend on the type. The fields are those of the settings in
// [outputConfig.table]; nobody but read sets them.
type outputConfig struct {
	name  string
	given []*settingGiven

	Type       string
	Records    output.Set // empty for all
	Handshakes string
	Level      string
	Where      string

	where *rules.Selection // nil for all records

	Elasticsearch elastic.Config
	File          logfile.Config
	Webhook       webhook.Config
	Splunk        splunk.Config
	OTLP          otlp.Config
	Kafka         kafka.Config
	Syslog        syslog.Config
	Format        string // of lines or messages

	settings []*setting
}

// setting is one thing that an output can be told.
type setting struct {
	key      string
	types    []string // of the outputs that have it, nil for all
	usage    string
	standard string // what holds where nobody says anything, for people
	example  string // a value as it stands in a configuration file
	secret   bool   // it names a file, or files, that nobody else may read
	tls      bool   // all outputs that can use TLS have it
	value    value
}

// settingGiven is what somebody has said about a setting.
type settingGiven struct {
	key   string
	parts []string
	whole bool   // the only part may have several, with commas between
	from  string // such as "--output" or "oddcert.yaml:3:7"
}

// The variables that credentials for Kafka may come from, where no file is
// configured for them.
const (
	envKafkaPassword = envPrefix + "KAFKA_PASSWORD"
	envKafkaToken    = envPrefix + "KAFKA_TOKEN"
)

// outputType is one way to deliver records.
type outputType struct {
	name     string
	usage    string
	validate func(o *outputConfig) error
	open     func(o *outputConfig, sensor string, log *slog.Logger) (delivery.Destination, error)

	// inPlace is set where a replay writes without the spool: it has an end, and can be
	// read again.
	inPlace bool
}

// outputTypes are all of them, in the order of the help.
var outputTypes = []outputType{
	{
		name: "file", usage: "files of lines", inPlace: true,
		validate: func(o *outputConfig) error { return o.File.Validate() },
		open: func(o *outputConfig, _ string, log *slog.Logger) (delivery.Destination, error) {
			return logfile.New(o.File, fileFormat(o.Format), log)
		},
	},
	{
		name: "elasticsearch", usage: "Elasticsearch or OpenSearch",
		validate: func(o *outputConfig) error { return o.Elasticsearch.Validate() },
		open: func(o *outputConfig, _ string, log *slog.Logger) (delivery.Destination, error) {
			return elastic.New(o.Elasticsearch, log)
		},
	},
	{
		name: "kafka", usage: "Kafka, keyed by server",
		validate: func(o *outputConfig) error { return o.Kafka.Validate() },
		open: func(o *outputConfig, _ string, log *slog.Logger) (delivery.Destination, error) {
			o.Kafka.Password.Env, o.Kafka.Token.Env = envKafkaPassword, envKafkaToken
			return kafka.New(o.Kafka, log)
		},
	},
	{
		name: "syslog", usage: "syslog, as RFC 5424 has it",
		validate: func(o *outputConfig) error { return o.Syslog.Validate() },
		open: func(o *outputConfig, sensor string, log *slog.Logger) (delivery.Destination, error) {
			o.Syslog.Sensor, o.Syslog.Version = sensor, version()
			return syslog.New(o.Syslog, log)
		},
	},
	{
		name: "webhook", usage: "a request over HTTP for each record",
		validate: func(o *outputConfig) error { return o.Webhook.Validate() },
		open: func(o *outputConfig, _ string, log *slog.Logger) (delivery.Destination, error) {
			return webhook.New(o.Webhook, log)
		},
	},
	{
		name: "splunk", usage: "Splunk's HTTP Event Collector",
		validate: func(o *outputConfig) error { return o.Splunk.Validate() },
		open: func(o *outputConfig, _ string, log *slog.Logger) (delivery.Destination, error) {
			return splunk.New(o.Splunk, log)
		},
	},
	{
		name: "otlp", usage: "logs over OTLP/HTTP, as a collector of OpenTelemetry takes them",
		validate: func(o *outputConfig) error { return o.OTLP.Validate() },
		open: func(o *outputConfig, _ string, log *slog.Logger) (delivery.Destination, error) {
			o.OTLP.Version = version()
			return otlp.New(o.OTLP, log)
		},
	},
}

func outputTypeNamed(name string) *outputType {
	for i := range outputTypes {
		if outputTypes[i].name == name {
			return &outputTypes[i]
		}
	}
	return nil
}

// fileFormat is the format of files with a name.
func fileFormat(name string) logfile.Format {
	switch name {
	case "eve":
		return eve.Format{}
	case "zeek", "zeek-json":
		return zeek.New(name == "zeek-json")
	}
	return logfile.JSON{}
}

// The levels of rules, with the severity that alerts have for them.
var levels = []struct {
	name     string
	severity int
}{{"low", 21}, {"medium", 47}, {"high", 73}, {"critical", 99}}

func levelNames() (names []string) {
	for _, l := range levels {
		names = append(names, l.name)
	}
	return names
}

// severity is the least that alerts must have, 0 for all.
func (o *outputConfig) severity() int {
	for _, l := range levels {
		if l.name == o.Level {
			return l.severity
		}
	}
	return 0
}

// datasets are the kinds of records that the output gets.
//
// Formats that have no other line to look certificates up in get full handshakes, and
// only the kinds that they have a form for.
func (o *outputConfig) datasets() output.Set {
	set := output.Set(0)
	switch o.Format {
	case "eve":
		set = set.Add(output.Handshake).Add(output.Alert).Add(output.Stats)
	case "zeek", "zeek-json":
		set = set.Add(output.Handshake).Add(output.Certificate).Add(output.Sighting).Add(output.Alert)
	default:
		return chosen(o.Records, o.Handshakes)
	}
	if o.Records != 0 {
		if set &= o.Records; set == 0 {
			return 0
		}
	}
	form := o.Handshakes
	if form == "" {
		form = "full"
	}
	return chosen(set, form)
}

// chosen is a set of records, all where it is empty, with handshakes in a form.
func chosen(records output.Set, handshakes string) output.Set {
	if records == 0 {
		records = output.Records
	}
	if handshakes == "full" && records.Has(output.Handshake) {
		records = records.Remove(output.Handshake).Add(output.FullHandshake)
	}
	return records
}

// table returns all settings of all types.
func (o *outputConfig) table() []*setting {
	if o.settings != nil {
		return o.settings
	}
	var types []string
	for _, t := range outputTypes {
		types = append(types, t.name)
	}
	e, f, w, sp, ot, k, l := &o.Elasticsearch, &o.File, &o.Webhook, &o.Splunk, &o.OTLP, &o.Kafka, &o.Syslog
	es, file, hook, hec, otel, kafka, log := []string{"elasticsearch"}, []string{"file"}, []string{"webhook"}, []string{"splunk"}, []string{"otlp"}, []string{"kafka"}, []string{"syslog"}
	o.settings = []*setting{
		{key: "type", value: choice(&o.Type, types...), usage: "where records go", example: "kafka"},
		{key: "records", value: kinds(&o.Records, datasetNames()), standard: "all", usage: "the records that it gets", example: "[alert, certificate]"},
		{key: "handshakes", value: choice(&o.Handshakes, "lean", "full"), standard: "lean", usage: "what a handshake record holds", example: "full"},
		{key: "level", value: choice(&o.Level, levelNames()...), standard: "all", usage: "the least level of the rules whose alerts it gets", example: "high"},
		{key: "where", value: text("selection", &o.Where), standard: "all", usage: "which records it gets, as a selection of a rule says it", example: `"oddcert.verdict: [forged, relayed]"`},

		{key: "path", types: file, value: text("path", &f.Path), usage: "the file, or the folder of the files", example: "/var/log/oddcert/alerts.json"},
		{key: "format", types: file, value: choice(&o.Format, "json", "eve", "zeek", "zeek-json"), standard: "json", usage: "what the lines are: records, events as Suricata writes them, or logs of Zeek in a folder", example: "eve"},
		{key: "rotate_size", types: file, value: size(&f.RotateSize, 1), standard: "never", usage: "a file that would get larger is renamed, and another one begins", example: "100MB"},
		{key: "rotate_age", types: file, value: duration(&f.RotateAge), standard: "never", usage: "how long a file is written; 1d begins another at midnight UTC", example: "1d"},
		{key: "keep", types: file, value: number(&f.Keep), standard: "all", usage: "how many renamed files are kept", example: "14"},

		{key: "url", types: es, value: list("url", &e.Addresses), usage: "address of the server; several for a cluster", example: "[https://es.example.net:9200]"},
		{key: "server", types: es, value: choice(&e.Server, "elasticsearch", "opensearch"), standard: "what the server says", usage: "the kind of the server", example: "opensearch"},
		{key: "username", types: es, value: text("name", &e.Username), usage: "user name", example: "sensor"},
		{key: "password_file", types: es, secret: true, value: text(kindFile, &e.PasswordFile), usage: "file with the password", example: "/etc/oddcert/password"},
		{key: "api_key_file", types: es, secret: true, value: text(kindFile, &e.APIKeyFile), usage: "file with an API key", example: "/etc/oddcert/api-key"},
		{key: "service_token_file", types: es, secret: true, value: text(kindFile, &e.ServiceTokenFile), usage: "file with a service token", example: "/etc/oddcert/service-token"},
		{key: "cloud_id", types: es, value: text("id", &e.CloudID), usage: "Cloud ID of a deployment in Elastic Cloud, in the place of url", example: "siem:ZXhhbXBsZS5uZXQkaWQk"},
		{key: "namespace", types: es, value: text("name", &e.Namespace), standard: "default", usage: "last part of the names of the data streams", example: "dmz"},

		{key: "brokers", types: kafka, value: list("host:port", &k.Brokers), usage: "some of the brokers", example: "[kafka-1.example.net:9093]"},
		{key: "topic", types: kafka, value: text("name", &k.Topic), standard: "oddcert", usage: "topic of the records; {dataset} stands for their kind", example: "soc.{dataset}"},
		{key: "tls", types: kafka, value: toggle(&k.Encrypt), standard: "false, unless another setting of TLS is given", usage: "use TLS", example: "true"},
		{key: "sasl_mechanism", types: kafka, value: text("name", &k.Mechanism), standard: "none", usage: "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER", example: "SCRAM-SHA-512"},
		{key: "username", types: kafka, value: text("name", &k.Username), usage: "user name", example: "oddcert"},
		{key: "password_file", types: kafka, secret: true, value: text(kindFile, &k.Password.File), usage: "file with the password", example: "/etc/oddcert/kafka-password"},
		{key: "token_file", types: kafka, secret: true, value: text(kindFile, &k.Token.File), usage: "file with a token for OAUTHBEARER", example: "/run/oddcert/token"},
		{key: "compression", types: kafka, value: choice(&k.Compression, "zstd", "lz4", "none"), standard: "zstd", usage: "compression of the messages", example: "lz4"},
		{key: "max_message_bytes", types: kafka, value: wholeSize(&k.MaxMessageBytes), standard: "1000000", usage: "the most that the topic takes in a message", example: "2000000"},

		{key: "url", types: log, value: text("url", &l.URL), usage: "address of the receiver: tls, tcp, udp or unix", example: "tls://siem.example.net:6514"},
		{key: "format", types: log, value: choice(&l.Format, "json", "cef", "leef"), standard: "json", usage: "what the message is", example: "cef"},
		{key: "framing", types: log, value: choice(&l.Framing, "octet-counting", "newline"), standard: "octet-counting", usage: "what separates messages over TCP and TLS", example: "newline"},
		{key: "facility", types: log, value: text("name", &l.Facility), standard: "local0", usage: "facility of the messages", example: "local4"},
		{key: "max_message_size", types: log, value: wholeSize(&l.MaxMessage), standard: "8096", usage: "the most that a message has, with its header", example: "65536"},

		{key: "url", types: hook, value: text("url", &w.URL), usage: "where requests go", example: "https://hooks.example.net/oddcert"},
		{key: "url_file", types: hook, secret: true, value: text(kindFile, &w.URLFile), usage: "file with the address, where that is a secret", example: "/etc/oddcert/slack-url"},
		{key: "method", types: hook, value: choice(&w.Method, "POST", "PUT"), standard: "POST", usage: "method of the requests", example: "PUT"},
		{key: "template_file", types: hook, value: text(kindFile, &w.TemplateFile), standard: "the record as it is", usage: "template of the body", example: "/etc/oddcert/slack.tmpl"},
		{key: "secret_files", types: hook, secret: true, value: pairs(&w.SecretFiles), usage: "files of the secrets that the template asks for by name", example: "{routing_key: /etc/oddcert/pagerduty-key}"},
		{key: "content_type", types: hook, value: text("type", &w.ContentType), standard: "application/json", usage: "Content-Type of the body", example: "text/plain"},
		{key: "batch_size", types: hook, value: number(&w.BatchSize), standard: "1", usage: "records in a request, up to 1000", example: "100"},
		{key: "headers", types: hook, value: pairs(&w.Headers), usage: "headers of the requests", example: "{X-Sensor: span-1}"},
		{key: "header_files", types: hook, secret: true, value: pairs(&w.HeaderFiles), usage: "files of the values of headers that are secrets", example: "{X-Api-Key: /etc/oddcert/key}"},
		{key: "username", types: hook, value: text("name", &w.Username), usage: "user name of basic authentication", example: "oddcert"},
		{key: "password_file", types: hook, secret: true, value: text(kindFile, &w.PasswordFile), usage: "file with the password", example: "/etc/oddcert/password"},
		{key: "token_file", types: hook, secret: true, value: text(kindFile, &w.TokenFile), usage: "file with a bearer token", example: "/etc/oddcert/token"},
		{key: "signing_secret_file", types: hook, secret: true, value: text(kindFile, &w.SigningSecretFile), usage: "file with the secret that signs requests, as Standard Webhooks does it", example: "/etc/oddcert/webhook-secret"},
		{key: "dead_status", types: hook, value: number(&w.DeadStatus), usage: "an answer that refuses a record for good, besides 400, 413, 415 and 422", example: "403"},

		{key: "url", types: hec, value: text("url", &sp.URL), usage: "address of the collector", example: "https://splunk.example.net:8088"},
		{key: "token_file", types: hec, secret: true, value: text(kindFile, &sp.TokenFile), usage: "file with the token", example: "/etc/oddcert/hec-token"},
		{key: "ack", types: hec, value: choice(&sp.Ack, "true", "false"), standard: "true", usage: "wait until the indexers have acknowledged a record", example: "false"},
		{key: "index", types: hec, value: text("name", &sp.Index), standard: "that of the token", usage: "index of the events", example: "oddcert"},
		{key: "source", types: hec, value: text("name", &sp.Source), standard: "oddcert", usage: "source of the events", example: "span-1"},

		{key: "url", types: otel, value: text("url", &ot.URL), usage: "address of the collector", example: "https://collector.example.net:4318"},
		{key: "headers", types: otel, value: pairs(&ot.Headers), usage: "headers of the requests", example: "{X-Scope-OrgID: soc}"},
		{key: "header_files", types: otel, secret: true, value: pairs(&ot.HeaderFiles), usage: "files of the values of headers that are secrets", example: "{Api-Key: /etc/oddcert/key}"},
		{key: "username", types: otel, value: text("name", &ot.Username), usage: "user name of basic authentication", example: "oddcert"},
		{key: "password_file", types: otel, secret: true, value: text(kindFile, &ot.PasswordFile), usage: "file with the password", example: "/etc/oddcert/password"},
		{key: "token_file", types: otel, secret: true, value: text(kindFile, &ot.TokenFile), usage: "file with a bearer token", example: "/etc/oddcert/token"},
	}
	o.settings = append(o.settings, tlsSettings(es, &e.TLS)...)
	o.settings = append(o.settings, tlsSettings(hook, &w.TLS)...)
	o.settings = append(o.settings, tlsSettings(log, &l.TLS)...)
	o.settings = append(o.settings, tlsSettings(kafka, &k.TLS)...)
	o.settings = append(o.settings, tlsSettings(hec, &sp.TLS)...)
	o.settings = append(o.settings, tlsSettings(otel, &ot.TLS)...)
	return o.settings
}

// tlsSettings are those of outputs that may use TLS.
func tlsSettings(types []string, t *endpoint.TLS) []*setting {
	return []*setting{
		{key: "ca_file", types: types, tls: true, value: text(kindFile, &t.CAFile), standard: "those of the system", usage: "PEM file of the authorities to trust", example: "/etc/oddcert/ca.pem"},
		{key: "fingerprint", types: types, tls: true, value: text("sha256", &t.Fingerprint), usage: "SHA-256 of the server's certificate, or of its authority's, to trust", example: strings.Repeat("AB", 32)},
		{key: "certificate_file", types: types, tls: true, value: text(kindFile, &t.CertificateFile), usage: "PEM file with the certificate of the sensor", example: "/etc/oddcert/client.pem"},
		{key: "key_file", types: types, tls: true, secret: true, value: text(kindFile, &t.KeyFile), usage: "PEM file with its key", example: "/etc/oddcert/client.key"},
	}
}

// find returns the setting of a key that outputs of a type have, nil when they have
// none.
func (o *outputConfig) find(key, kind string) *setting {
	for _, s := range o.table() {
		if s.key == key && s.has(kind) {
			return s
		}
	}
	return nil
}

// wholeSize is a size that fits into an int.
func wholeSize(to *int) value {
	var n int64
	v := size(&n, 1)
	set := v.set
	v.set = func(parts []string) error {
		if err := set(parts); err != nil {
			return err
		}
		*to = int(min(n, math.MaxInt32))
		return nil
	}
	return v
}

// pairs reads names with values, such as X-Sensor=span-1.
func pairs(to *map[string]string) value {
	return value{kind: kindPairs, many: true, set: func(parts []string) error {
		all := map[string]string{}
		for _, p := range parts {
			name, text, ok := strings.Cut(p, "=")
			if _, twice := all[name]; !ok || name == "" || twice {
				return fmt.Errorf("%q is not a name with a value, each name once", p)
			}
			all[name] = text
		}
		*to = all
		return nil
	}}
}

// datasetNames are the names of the kinds of records.
func datasetNames() (names []string) {
	for d := range output.Datasets {
		if output.Records.Has(d) {
			names = append(names, d.String())
		}
	}
	return names
}

// has reports whether outputs of a type have the setting.
func (s *setting) has(kind string) bool { return s.types == nil || slices.Contains(s.types, kind) }

// read sets the fields to what was given, and names everything that is wrong at
// once.
func (o *outputConfig) read() error {
	var errs []error
	fail := func(from, key, text string) {
		errs = append(errs, fmt.Errorf("%s: output %s: %s: %s", from, o.name, key, text))
	}
	last := map[string]*settingGiven{}
	for _, g := range o.given {
		last[g.key] = g
	}
	// The type first: it decides what else there is.
	if g := last["type"]; g == nil {
		errs = append(errs, fmt.Errorf("%s: output %s: type is missing", o.given[0].from, o.name))
		return errors.Join(errs...)
	} else if err := o.set(o.find("type", ""), g); err != nil {
		fail(g.from, "type", err.Error())
		return errors.Join(errs...)
	}
	for _, g := range o.given {
		if g != last[g.key] || g.key == "type" {
			continue // a later place takes precedence
		}
		s := o.find(g.key, o.Type)
		if s == nil {
			var keys []string
			for _, s := range o.table() {
				if s.has(o.Type) {
					keys = append(keys, s.key)
				}
			}
			fail(g.from, g.key, "type "+o.Type+" has no such setting"+didYouMean("", g.key, keys))
			continue
		}
		if err := o.set(s, g); err != nil {
			fail(g.from, g.key, err.Error())
		}
	}
	if o.Where != "" {
		var err error
		if o.where, err = rules.ParseSelection(o.Where, recordFields()); err != nil {
			for line := range strings.Lines(err.Error()) {
				fail(last["where"].from, "where", strings.TrimSuffix(line, "\n"))
			}
		}
	}
	if o.Format == "eve" && o.Handshakes == "lean" {
		fail(last["handshakes"].from, "handshakes", "format eve is made of full ones")
	}
	if o.datasets() == 0 {
		fail(last["records"].from, "records", "format "+o.Format+" has no form for any of them")
	}
	if errs != nil {
		return errors.Join(errs...)
	}
	for _, err := range each(outputTypeNamed(o.Type).validate(o)) {
		from, key := o.given[0].from, ""
		var wrong *endpoint.ConfigError
		if errors.As(err, &wrong) {
			if key = wrong.Setting + ": "; last[wrong.Setting] != nil {
				from = last[wrong.Setting].from
			}
			err = errors.New(wrong.Text)
		}
		errs = append(errs, fmt.Errorf("%s: output %s: %s%w", from, o.name, key, err))
	}
	return errors.Join(errs...)
}

// recordFields are the fields of all records with their types.
func recordFields() map[string]string {
	types := map[string]string{}
	for _, f := range schema.Fields() {
		if f.In&^f.Optional != 0 { // else only templates have it
			types[f.Name] = string(f.Type)
		}
	}
	return types
}

// filter is what where says; nil for all records.
func (o *outputConfig) filter() delivery.Filter {
	if o.where == nil {
		return nil // and not an interface that holds nil
	}
	return o.where
}

// each returns the errors that err is made of.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

func (o *outputConfig) set(s *setting, g *settingGiven) error {
	if g.whole && s.value.many {
		parts, err := (&option{value: s.value}).split(g.parts[0])
		if err != nil {
			return err
		}
		g.parts, g.whole = parts, false
	}
	if !s.value.many && len(g.parts) != 1 {
		return fmt.Errorf("one value is expected, not %d", len(g.parts))
	}
	return s.value.set(g.parts)
}

// yaml is what was given, as it stands in a configuration file.
func (o *outputConfig) yaml() string {
	var settings []string
	for i, g := range o.given {
		if slices.ContainsFunc(o.given[i+1:], func(later *settingGiven) bool { return later.key == g.key }) {
			continue
		}
		text := quoted(g.parts[0])
		if len(g.parts) > 1 {
			parts := make([]string, len(g.parts))
			for i, p := range g.parts {
				parts[i] = quoted(p)
			}
			text = "[" + strings.Join(parts, ", ") + "]"
		}
		settings = append(settings, quoted(g.key)+": "+text)
	}
	return "{" + strings.Join(settings, ", ") + "}"
}

// assignment matches a setting of an output in a flag or a variable.
var assignment = regexp.MustCompile(`(?s)^([a-z][a-z0-9-]{0,31})\.([a-z0-9_]+)=(.*)$`)

// nextAssignment matches a comma and the beginning of a setting after it.
var nextAssignment = regexp.MustCompile(`,\s*[a-z][a-z0-9-]{0,31}\.[a-z0-9_]+=`)

// splitAssignments splits the settings of a text: at a comma only where another setting
// follows, as values have commas too.
func splitAssignments(text string) (parts []string) {
	for {
		at := nextAssignment.FindStringIndex(text)
		if at == nil {
			return append(parts, strings.TrimSpace(text))
		}
		parts = append(parts, strings.TrimSpace(text[:at[0]]))
		text = text[at[0]+1:]
	}
}

// outputSettings reads settings such as siem.type=kafka.
func (c *config) outputSettings() value {
	return value{kind: kindSettings, many: true, setFrom: func(parts []string, from string) error {
		for _, p := range parts {
			m := assignment.FindStringSubmatch(p)
			if m == nil {
				return fmt.Errorf("%q is not a setting of an output, such as siem.type=kafka", p)
			}
			c.assign(m[1], m[2], []string{m[3]}, from).whole = true
		}
		return nil
	}, show: func() string {
		var outputs []string
		for _, o := range c.Outputs {
			outputs = append(outputs, o.name+": "+o.yaml())
		}
		return "{" + strings.Join(outputs, ", ") + "}"
	}}
}

// assign notes a setting of an output.
func (c *config) assign(name, key string, parts []string, from string) *settingGiven {
	g := &settingGiven{key: key, parts: parts, from: from}
	i := slices.IndexFunc(c.Outputs, func(o *outputConfig) bool { return o.name == name })
	if i < 0 {
		i = len(c.Outputs)
		c.Outputs = append(c.Outputs, &outputConfig{name: name})
	}
	c.Outputs[i].given = append(c.Outputs[i].given, g)
	return g
}

// checkOutputs reads the settings of all outputs.
func (c *config) checkOutputs() error {
	var errs []error
	if n := len(c.Outputs); n >= spool.MaxOutputs {
		errs = append(errs, fmt.Errorf("output: %d outputs are more than %d", n, spool.MaxOutputs-1))
	}
	for _, o := range c.Outputs {
		if o.name == elasticsearchName && c.Elasticsearch.Given() {
			errs = append(errs, fmt.Errorf("%s: output %s: this is the name of the output of --es", o.given[0].from, o.name))
		}
		errs = append(errs, o.read())
	}
	return errors.Join(errs...)
}

// writeOutputs writes all settings of all types, in comments.
func writeOutputs(w io.Writer) {
	o := new(outputConfig)
	write := func(s *setting) {
		note := s.usage
		if s.standard != "" {
			note += " (default: " + s.standard + ")"
		}
		fmt.Fprintf(w, "#    %s: %s\n#        %s\n", s.key, s.example, note)
	}
	fmt.Fprint(w, "\n# An output has a name, and the settings of its type. All types have these:\n")
	for _, s := range o.table() {
		if s.types == nil {
			write(s)
		}
	}
	var encrypting []string
	for _, t := range outputTypes {
		fmt.Fprintf(w, "#\n# Type %s: %s\n", t.name, t.usage)
		for _, s := range o.table() {
			switch {
			case s.types == nil || !s.has(t.name):
			case s.tls:
				if !slices.Contains(encrypting, t.name) {
					encrypting = append(encrypting, t.name)
				}
			default:
				write(s)
			}
		}
	}
	fmt.Fprintf(w, "#\n# Types that can use TLS, which are %s, have these too:\n", strings.Join(encrypting, ", "))
	for _, s := range o.table() {
		if s.tls && s.has(encrypting[0]) {
			write(s)
		}
	}
}

// applyOutputs applies the outputs of a configuration file: a mapping of names to
// mappings of settings.
func (c *config) applyOutputs(o *option, node ast.Node) error {
	outputs, ok := pairsOf(node)
	if !ok {
		return fmt.Errorf("%s: %s: %s is expected", c.place(node), o.key(), o.value.expected())
	}
	var errs []error
	for _, out := range outputs {
		name := out.Key.GetToken().Value
		settings, ok := pairsOf(out.Value)
		switch {
		case !spool.ValidName(name):
			errs = append(errs, fmt.Errorf("%s: output %q: a name is a small letter and up to 31 small letters, digits and hyphens", c.place(out.Key), name))
			continue
		case slices.ContainsFunc(c.Outputs, func(o *outputConfig) bool { return o.name == name }):
			errs = append(errs, fmt.Errorf("%s: output %s is repeated", c.place(out.Key), name))
			continue
		case !ok:
			errs = append(errs, fmt.Errorf("%s: output %s: a mapping of settings is expected", c.place(out.Value), name))
			continue
		}
		seen := map[string]bool{}
		for _, s := range settings {
			key := s.Key.GetToken().Value
			if seen[key] {
				errs = append(errs, fmt.Errorf("%s: output %s: %s is repeated", c.place(s.Key), name, key))
				continue
			}
			seen[key] = true
			parts, ok := c.settingParts(s.Value)
			_, scalar := scalarOf(s.Value)
			if key == "where" && !scalar {
				parts, ok = []string{s.Value.String()}, true // a selection as it stands
			}
			if !ok {
				errs = append(errs, fmt.Errorf("%s: output %s: %s: a text, a list or a mapping of texts is expected", c.place(s.Value), name, key))
				continue
			}
			c.assign(name, key, parts, c.place(s.Value)).whole = scalar
			o.parts = append(o.parts, name+"."+key+"="+strings.Join(parts, ","))
		}
	}
	o.from = c.place(node)
	return errors.Join(errs...)
}

// settingParts returns the parts of a value: those of a list, or of a mapping, each
// with its key before it.
func (c *config) settingParts(node ast.Node) (parts []string, ok bool) {
	if s, ok := scalarOf(node); ok {
		return []string{s}, true
	}
	if pairs, ok := pairsOf(node); ok {
		for _, p := range pairs {
			s, ok := scalarOf(p.Value)
			if !ok {
				return nil, false
			}
			parts = append(parts, p.Key.GetToken().Value+"="+s)
		}
		return parts, len(parts) > 0
	}
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		return nil, false
	}
	for _, item := range list.Values {
		s, ok := scalarOf(item)
		if !ok {
			return nil, false
		}
		parts = append(parts, s)
	}
	return parts, len(parts) > 0
}
