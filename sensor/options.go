package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/evidence"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/health"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic"
	"github.com/oddcert/oddcert/sensor/internal/output/otlp"
	"github.com/oddcert/oddcert/sensor/internal/output/splunk"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// option is one thing that the program can be told. It has one name: the flag
// --es-api-key-file, the key es_api_key_file of a configuration file and the
// variable ODDCERT_ES_API_KEY_FILE are the same option.
type option struct {
	name     string // of the flag
	short    string // one letter, or empty
	group    string // of the help
	on       commands
	usage    string
	standard string // what holds where nobody says anything, for people
	example  string // a value as it stands in a configuration file
	value    value

	given []string // by flags, one text for each
	parts []string // the value in effect, as it was written; nil for the standard
	from  string   // where parts comes from, such as "--name" or "oddcert.yaml:3:7"
}

// commands is a set of commands.
type commands uint8

const (
	onReplay commands = 1 << iota
	onLive
	onSetup
	onInventory // that ask an inventory, or captures
	onEvidence  // that check evidence
)

// value is where and how the value of an option is kept.
type value struct {
	kind     string                                  // a word for the help; "bool" for one that is on or off
	many     bool                                    // it takes any number of parts
	set      func(parts []string) error              // replaces what was there; one part unless many
	setFrom  func(parts []string, from string) error // in the place of set: adds to what was there
	show     func() string                           // what is in effect, for setFrom
	choices  []string                                // all that can be given, nil when that is not a list
	complete func() ([]string, cobra.ShellCompDirective)
}

// key is the name of o in a configuration file.
func (o *option) key() string { return strings.ReplaceAll(o.name, "-", "_") }

// variable is the name of o in the environment.
func (o *option) variable() string { return envPrefix + strings.ToUpper(o.key()) }

// envPrefix begins the variables of the environment that stand for options.
const envPrefix = "ODDCERT_"

// The groups of options, in the order of the help and of the example file.
const (
	groupChoice   = "Selection" // of certificates, which are no options
	groupAnswer   = "Answer"    // its form, likewise
	groupInput    = "Input"
	groupRules    = "Rules"
	groupRecords  = "Records"
	groupEvidence = "Evidence"
	groupES       = "Elasticsearch"
	groupOutputs  = "Outputs"
	groupSetup    = "Templates"
	groupLimits   = "Limits"
	groupOther    = "Other"
)

var groups = []string{groupChoice, groupAnswer, groupInput, groupRules, groupRecords, groupEvidence, groupES, groupOutputs, groupSetup, groupLimits, groupOther}

// table returns all options of c.
func (c *config) table() []*option {
	if c.options != nil {
		return c.options
	}
	const capturing = onReplay | onLive
	const reading = capturing | onInventory
	e := &c.Elasticsearch
	datasets := datasetNames()
	c.options = []*option{
		{name: "interface", short: "i", group: groupInput, on: onLive, value: list("name", &c.Interfaces).completed(interfaces),
			usage: "interface to watch; can be repeated", example: "[eth1, eth2]"},
		{name: "filter", group: groupInput, on: reading, value: text("filter", &c.Filter),
			usage: "read only the frames that match this filter, in the syntax of tcpdump", example: "not port 22"},
		{name: "keys", group: groupInput, on: reading, value: list(kindFile, &c.Keys).completed(files),
			usage: "key log (SSLKEYLOGFILE) to decrypt handshakes of TLS 1.3, DTLS 1.3 and QUIC with; can be repeated", example: "[/run/keys/sslkeys.log]"},
		{name: "checksums", group: groupInput, on: reading, standard: "auto",
			value: checked(choice(&c.Checksums, "auto", "verify", "ignore"), func(s string) (err error) { c.checksums, err = flow.ParseChecksums(s); return err }),
			usage: "packets with a bad checksum: auto ignores those of senders that have sent good ones, verify ignores all of them, ignore reads them", example: "verify"},
		{name: "ignore-vlan", group: groupInput, on: reading, value: toggle(&c.IgnoreVLAN),
			usage: "take flows that differ only in their VLAN tags for one flow", example: "true"},
		{name: "vlan-ethertype", group: groupInput, on: reading, value: etherTypes(&c.VLANs),
			usage: "EtherType that marks VLAN tags here, beside those of the standards; can be repeated", example: "[0x9400]"},
		{name: "no-shunt", group: groupInput, on: onLive, value: toggle(&c.NoShunt),
			usage: "have the kernel deliver the packets of decided flows too", example: "true"},

		{name: "rules", group: groupRules, on: reading, value: list(kindDir, &c.Rules).completed(dirs),
			usage: "folder of rules to load beside the built-in packs; can be repeated", example: "[/etc/oddcert/rules]"},
		{name: "no-builtin", group: groupRules, on: reading, value: toggle(&c.NoBuiltin),
			usage: "leave the built-in packs out", example: "true"},
		{name: "pack", group: groupRules, on: reading, value: several(&c.Packs, rules.Optional()),
			usage: "built-in pack of rules that is off otherwise: " + strings.Join(rules.Optional(), ", ") + "; can be repeated", example: "[hygiene]"},
		{name: "roots", group: groupRules, on: reading, value: list(kindFile, &c.Roots).completed(files),
			usage:   "certificates of authorities of your own that servers may have theirs from: a file of PEM or DER, or a folder; can be repeated",
			example: "[/etc/oddcert/roots.pem]"},
		{name: "networks", group: groupRules, on: reading, value: list(kindFile, &c.Networks).completed(files),
			usage:   "list of networks, or a folder of lists: a file NAME.txt with one a line is the network NAME of rules; internal are your own, proxies intercept TLS; can be repeated",
			example: "[/etc/oddcert/networks]"},
		{name: "mmdb", group: groupRules, on: reading, value: list(kindFile, &c.Databases).completed(files),
			usage: "database of countries or autonomous systems in MaxMind's format; can be repeated", example: "[/usr/share/GeoIP/GeoLite2-ASN.mmdb]"},
		{name: "fail-on-alert", group: groupRules, on: onReplay, value: toggle(&c.FailOnAlert),
			usage: "end with exit status 3 when a rule has matched", example: "true"},

		{name: "json", group: groupRecords, on: capturing, value: text(kindFile, &c.JSON).completed(files),
			usage: "write records to this file, one JSON object a line; - is standard output", example: "/var/log/oddcert/records.json"},
		{name: "report", group: groupRecords, on: onReplay, value: checked(text("path", &c.Report).completed(files), checkReport),
			usage: "write a case report to this file, case.html, with case.md and tables in CSV beside it", example: "/evidence/case.html"},
		{name: "append", group: groupRecords, on: onReplay, value: toggle(&c.Append),
			usage: "append to the file of --json, which a replay replaces otherwise", example: "true"},
		{name: "records", group: groupRecords, on: capturing, standard: "all", value: kinds(&c.Records, datasets),
			usage: "the records to write and to send: " + strings.Join(datasets, ", "), example: "[alert, certificate, stats]"},
		{name: "handshakes", group: groupRecords, on: capturing, standard: "lean", value: choice(&c.Handshakes, "lean", "full"),
			usage: "what a handshake record holds: lean refers to certificates and client hellos by their hashes, full repeats them", example: "full"},
		{name: "constants", group: groupRecords, on: capturing, value: toggle(&c.Constants),
			usage: "write fields that are the same in all records too, for readers that have no templates", example: "true"},
		{name: "labels", group: groupRecords, on: capturing, value: labels(&c.Labels),
			usage: "labels in each record", example: "{site: berlin, zone: dmz}"},
		{name: "name", group: groupRecords, on: capturing, standard: "the host name", value: text("name", &c.Name),
			usage: "name of this sensor in the records", example: "span-1"},

		{name: "evidence", group: groupEvidence, on: capturing, value: text(kindDir, &c.Evidence).completed(dirs),
			usage: "write a pack for each alert into this folder: the certificates, the frames, and where they come from", example: "/var/lib/oddcert/evidence"},
		{name: "evidence-format", group: groupEvidence, on: capturing, standard: "folder", value: choice(&c.EvidenceFormat, "folder", "zip"),
			usage: "what a pack is: a folder or a zip archive", example: "zip"},
		{name: "evidence-key", group: groupEvidence, on: capturing, value: text(kindFile, &c.EvidenceKey).completed(files),
			usage: "private key, as ssh-keygen makes it without a passphrase, to sign packs with", example: "/etc/oddcert/evidence-key"},
		{name: "evidence-secrets", group: groupEvidence, on: capturing, value: toggle(&c.EvidenceSecrets),
			usage: "have packs hold the secrets that decrypted the handshake", example: "true"},
		{name: "evidence-size", group: groupEvidence, on: capturing, standard: formatSize(evidence.DefaultSize), value: size(&c.EvidenceSize, evidence.MinSize),
			usage: "the most that all packs in the folder take; what is over it gets no pack", example: "8GiB"},
		{name: "evidence-buffer", group: groupEvidence, on: capturing, standard: formatSize(frames.DefaultBuffer), value: size(&c.EvidenceBuffer, frames.MinBuffer),
			usage: "memory for the frames of handshakes that may still raise an alert, in a live capture or of a pipe", example: "256MiB"},
		{name: "allowed-signers", group: groupEvidence, on: onEvidence, standard: "any key", value: text(kindFile, &c.AllowedSigners).completed(files),
			usage: "file of the keys that may sign packs, in the format of ssh-keygen", example: "/etc/oddcert/allowed-signers"},

		{name: "es", group: groupES, on: capturing | onSetup, value: list("url", &e.Addresses),
			usage: "send records to the Elasticsearch at this URL; can be repeated", example: "[https://es.example.net:9200]"},
		{name: "es-server", group: groupES, on: capturing | onSetup, standard: "what the server says", value: choice(&e.Server, "elasticsearch", "opensearch").named("kind"),
			usage: "the kind of the server: elasticsearch or opensearch", example: "opensearch"},
		{name: "es-username", group: groupES, on: capturing | onSetup, value: text("name", &e.Username),
			usage: "user name", example: "sensor"},
		{name: "es-password-file", group: groupES, on: capturing | onSetup, value: text(kindFile, &e.PasswordFile).completed(files),
			usage: "file with the password", example: "/etc/oddcert/password"},
		{name: "es-api-key-file", group: groupES, on: capturing | onSetup, value: text(kindFile, &e.APIKeyFile).completed(files),
			usage: "file with an API key", example: "/etc/oddcert/api-key"},
		{name: "es-service-token-file", group: groupES, on: capturing | onSetup, value: text(kindFile, &e.ServiceTokenFile).completed(files),
			usage: "file with a service token", example: "/etc/oddcert/service-token"},
		{name: "es-ca-file", group: groupES, on: capturing | onSetup, standard: "those of the system", value: text(kindFile, &e.TLS.CAFile).completed(files),
			usage: "PEM file of the authorities to trust", example: "/etc/oddcert/ca.pem"},
		{name: "es-fingerprint", group: groupES, on: capturing | onSetup, value: text("sha256", &e.TLS.Fingerprint),
			usage: "SHA-256 of the server's certificate, or of its authority's, to trust", example: strings.Repeat("AB", 32)},
		{name: "es-certificate-file", group: groupES, on: capturing | onSetup, value: text(kindFile, &e.TLS.CertificateFile).completed(files),
			usage: "PEM file of the client's certificate, with its chain", example: "/etc/oddcert/client.pem"},
		{name: "es-key-file", group: groupES, on: capturing | onSetup, value: text(kindFile, &e.TLS.KeyFile).completed(files),
			usage: "PEM file of that certificate's key", example: "/etc/oddcert/client.key"},
		{name: "es-cloud-id", group: groupES, on: capturing | onSetup, value: text("id", &e.CloudID),
			usage: "Cloud ID of a deployment in Elastic Cloud, in the place of --es", example: "siem:ZXhhbXBsZS5uZXQkaWQk"},
		{name: "es-namespace", group: groupES, on: capturing | onSetup, standard: "default", value: text("name", &e.Namespace),
			usage: "last part of the names of the data streams", example: "dmz"},
		{name: "output", group: groupOutputs, on: capturing, value: c.outputSettings(),
			usage:   "a setting of an output, such as siem.type=kafka: \"oddcert config example\" has all of them; can be repeated",
			example: "{siem: {type: elasticsearch, url: [\"https://siem.example.net:9200\"], level: high}}"},
		{name: "spool", group: groupOutputs, on: capturing, standard: "/var/lib/oddcert/spool for root, or below ~/.local/state", value: text(kindDir, &c.Spool).completed(dirs),
			usage: "folder where records wait for the outputs", example: "/var/lib/oddcert/spool"},
		{name: "spool-size", group: groupOutputs, on: capturing, standard: formatSize(spool.DefaultSize), value: size(&c.SpoolSize, spool.MinSize),
			usage: "the most that the spool takes on disk", example: "2GiB"},
		{name: "spool-age", group: groupOutputs, on: capturing, standard: "7d", value: duration(&c.SpoolAge),
			usage: "how long records other than alerts wait", example: "36h"},

		{name: "inventory", group: groupRecords, on: capturing, standard: "live, inventory.db where there is a folder for state", value: text("path", &c.Inventory).completed(files),
			usage: "file that keeps what is seen of certificates and servers; none is for none", example: "/var/lib/oddcert/inventory.db"},
		{name: "inventory-size", group: groupRecords, on: capturing, standard: formatSize(inventory.DefaultSize), value: sizeUpTo(&c.InventorySize, inventory.LeastSize, inventory.MaxSize),
			usage: "the most that the inventory takes on disk", example: "8GiB"},

		{name: "portable", group: groupSetup, on: onSetup, value: toggle(&c.Setup.Portable),
			usage: "use only field types that every server has; always so with OpenSearch", example: "true"},
		{name: "lifecycle", group: groupSetup, on: onSetup, standard: "what the server can do", value: choice((*string)(&c.Setup.Lifecycle), "dsl", "ilm", "none"),
			usage: "what deletes old records", example: "dsl"},
		{name: "retention", group: groupSetup, on: onSetup, standard: "for ever", value: text("time", &c.Setup.Retention),
			usage: "how long records are kept", example: "90d"},

		{name: "metrics", group: groupOther, on: onLive, standard: "none", value: checked(text("address", &c.Metrics), health.CheckAddress),
			usage: "answer requests for /metrics (Prometheus), /healthz and /readyz at this address, such as 127.0.0.1:9847 or unix:/run/oddcert/metrics", example: "127.0.0.1:9847"},
		{name: "metrics-token-file", group: groupOther, on: onLive, value: text(kindFile, &c.Access.Token).completed(files),
			usage: "file with a token that whoever asks at the address of --metrics has to send, as Authorization: Bearer", example: "/etc/oddcert/metrics-token"},
		{name: "metrics-certificate-file", group: groupOther, on: onLive, value: text(kindFile, &c.Access.Certificate).completed(files),
			usage: "PEM file of the certificate, with its chain, for TLS at the address of --metrics", example: "/etc/oddcert/metrics.pem"},
		{name: "metrics-key-file", group: groupOther, on: onLive, value: text(kindFile, &c.Access.Key).completed(files),
			usage: "PEM file of that certificate's key", example: "/etc/oddcert/metrics.key"},
		{name: "page", group: groupOther, on: onLive, value: toggle(&c.Page),
			usage: "show the sensor to a browser at the address of --metrics; where other machines can reach that, it needs a token, a certificate and a key", example: "true"},

		{name: "oneline", group: groupOther, on: capturing, standard: "where the output is no terminal", value: decided(&c.Oneline),
			usage: "show each alert in one line", example: "true"},
		{name: "quiet", group: groupOther, on: capturing, value: toggle(&c.Quiet),
			usage: "show neither alerts nor the summary, only what goes wrong", example: "true"},

		{name: "memory", group: groupLimits, on: reading, standard: "half of the machine's or the control group's", value: size(&c.Memory, leastMemory),
			usage: "memory that the process may take", example: "512M"},
		{name: "workers", group: groupLimits, on: reading, standard: "one for each processor", value: number(&c.Workers),
			usage: "goroutines that follow flows", example: "2"},
	}
	return c.options
}

// find returns the option of a name as it stands in flags; nil when there is none.
func (c *config) find(name string) *option {
	for _, o := range c.table() {
		if o.name == name {
			return o
		}
	}
	return nil
}

// bind registers the options of some commands as flags of cmd. flags are those of
// cmd, persistent or not.
func (c *config) bind(cmd *cobra.Command, flags *pflag.FlagSet, on commands) {
	for _, o := range c.table() {
		if o.on&on == 0 {
			continue
		}
		usage := o.usage
		if o.standard != "" {
			usage += " (default: " + o.standard + ")"
		}
		f := flags.VarPF(given{o}, o.name, o.short, usage)
		f.Annotations = map[string][]string{groupAnnotation: {o.group}}
		if o.value.kind == "bool" {
			f.NoOptDefVal = "true"
		}
		_ = cmd.RegisterFlagCompletionFunc(o.name, func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
			return o.value.completions(begun)
		}) // it fails only where the flag is missing or has one
	}
	flags.SortFlags = false
	flags.StringVar(&c.file, "config", "", "configuration `file` (default: "+defaultConfig+" where it exists; '' for none)")
	flags.Lookup("config").Annotations = map[string][]string{groupAnnotation: {groupOther}}
	_ = cmd.RegisterFlagCompletionFunc("config", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
	})
	cmd.SetFlagErrorFunc(c.flagError)
}

// groupAnnotation is what a flag has its group of the help under.
const groupAnnotation = "group"

// given takes the texts of a flag. They are read by load, which names everything
// that is wrong at once.
type given struct{ o *option }

func (g given) Set(s string) error { g.o.given = append(g.o.given, s); return nil }
func (g given) String() string     { return "" }
func (g given) Type() string       { return g.o.value.kind }
func (g given) IsBoolFlag() bool   { return g.o.value.kind == "bool" }

// apply takes the value that o has at a place. A later place takes precedence.
func (o *option) apply(parts []string, from string) error {
	if !o.value.many && len(parts) != 1 {
		return fmt.Errorf("%s: one value is expected, not %d", from, len(parts))
	}
	if o.value.setFrom != nil {
		if err := o.value.setFrom(parts, from); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		o.parts, o.from = append(o.parts, parts...), from
		return nil
	}
	if err := o.value.set(parts); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	o.parts, o.from = parts, from
	return nil
}

// split makes parts of a text. Commas separate those of an option that takes
// many; a part that has a comma stands in double quotes (RFC 4180).
func (o *option) split(s string) ([]string, error) {
	if !o.value.many {
		return []string{s}, nil
	}
	if o.value.kind == kindSettings {
		return splitAssignments(s), nil
	}
	if strings.TrimSpace(s) == "" {
		return []string{}, nil
	}
	r := csv.NewReader(strings.NewReader(s))
	r.TrimLeadingSpace = true
	parts, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("%q is not a list with commas between its parts", s)
	}
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts, nil
}

// applyText is apply for texts that are to be split.
func (o *option) applyText(texts []string, from string) error {
	var all []string
	for _, s := range texts {
		parts, err := o.split(s)
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		all = append(all, parts...)
	}
	if !o.value.many {
		all = all[len(all)-1:] // the last one given counts
	}
	return o.apply(all, from)
}

// The kinds of options that are names of files and folders, and of those that are
// mappings in a configuration file, of names to values and of names to mappings.
const (
	kindFile     = "file"
	kindDir      = "dir"
	kindPairs    = "name=value"
	kindSettings = "name.key=value"
)

// expected is what stands in a configuration file for v.
func (v value) expected() string {
	switch {
	case v.kind == kindPairs, v.kind == kindSettings:
		return "a mapping"
	case v.many:
		return "a list"
	}
	return "a single value"
}

// completions is what a shell can go on with after what was begun.
func (v value) completions(begun string) (all []string, _ cobra.ShellCompDirective) {
	if v.complete != nil {
		return v.complete()
	}
	before := ""
	if v.many {
		before = begun[:strings.LastIndexByte(begun, ',')+1]
	}
	for _, c := range v.choices {
		all = append(all, before+c)
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completed returns v with what a shell can complete it with.
func (v value) completed(by func() ([]string, cobra.ShellCompDirective)) value {
	v.complete = by
	return v
}

// named returns v with another word for the help.
func (v value) named(kind string) value {
	v.kind = kind
	return v
}

func text(kind string, to *string) value {
	return value{kind: kind, set: func(parts []string) error { *to = parts[0]; return nil }}
}

func list(kind string, to *[]string) value {
	return value{kind: kind, many: true, set: func(parts []string) error {
		if slices.Contains(parts, "") {
			return errors.New("an entry is empty")
		}
		*to = slices.Clone(parts)
		return nil
	}}
}

func toggle(to *bool) value {
	return value{kind: "bool", choices: []string{"true", "false"}, set: func(parts []string) error {
		switch parts[0] {
		case "true":
			*to = true
		case "false":
			*to = false
		default:
			return fmt.Errorf("%q is neither true nor false", parts[0])
		}
		return nil
	}}
}

// decided is a toggle that is nil until somebody says something.
func decided(to **bool) value {
	var b bool
	v := toggle(&b)
	set := v.set
	v.set = func(parts []string) error {
		if err := set(parts); err != nil {
			return err
		}
		*to = &b
		return nil
	}
	return v
}

func number(to *int) value {
	const most = 4096
	return value{kind: "number", set: func(parts []string) error {
		n, err := strconv.Atoi(parts[0])
		if err != nil || n < 0 || n > most {
			return fmt.Errorf("%q is not a whole number from 0 to %d", parts[0], most)
		}
		*to = n
		return nil
	}}
}

func size(to *int64, least int64) value { return sizeUpTo(to, least, math.MaxInt64) }

func sizeUpTo(to *int64, least, most int64) value {
	return value{kind: "size", set: func(parts []string) error {
		n, err := parseSize(parts[0])
		if err != nil {
			return err
		}
		if n < least {
			return fmt.Errorf("%s is less than %s", parts[0], formatSize(least))
		}
		if n > most {
			return fmt.Errorf("%s is more than %s", parts[0], formatSize(most))
		}
		*to = n
		return nil
	}}
}

func duration(to *time.Duration) value {
	return value{kind: "time", set: func(parts []string) error {
		d, err := parseDuration(parts[0])
		if err != nil {
			return err
		}
		*to = d
		return nil
	}}
}

func choice(to *string, choices ...string) value {
	return value{kind: strings.Join(choices, "|"), choices: choices, set: func(parts []string) error {
		if !slices.Contains(choices, parts[0]) {
			return fmt.Errorf("%q is not one of %s%s", parts[0], strings.Join(choices, ", "), didYouMean("", parts[0], choices))
		}
		*to = parts[0]
		return nil
	}}
}

// checked returns v with another look at what was set.
func checked(v value, check func(string) error) value {
	set := v.set
	v.set = func(parts []string) error {
		if err := set(parts); err != nil {
			return err
		}
		return check(parts[0])
	}
	return v
}

// several is a set of names.
func several(to *[]string, names []string) value {
	return value{kind: "name", many: true, choices: names, set: func(parts []string) error {
		*to = nil
		for _, p := range strings.Split(strings.Join(parts, ","), ",") {
			if !slices.Contains(names, p) {
				return fmt.Errorf("%q is not one of %s%s", p, strings.Join(names, ", "), didYouMean("", p, names))
			}
			*to = append(*to, p)
		}
		return nil
	}}
}

// kinds reads names of datasets.
func kinds(to *output.Set, datasets []string) value {
	return value{kind: "kinds", many: true, choices: datasets, set: func(parts []string) error {
		set, err := output.ParseDatasets(strings.Join(parts, ","))
		if err != nil {
			for _, p := range parts {
				if !slices.Contains(datasets, p) {
					return fmt.Errorf("%w%s", err, didYouMean("", p, datasets))
				}
			}
			return err
		}
		*to = set
		return nil
	}}
}

// etherTypes reads EtherTypes, such as 0x9400.
func etherTypes(to *[]uint16) value {
	const least = 0x0600 // below, it is a length (IEEE 802.3)
	return value{kind: "number", many: true, set: func(parts []string) error {
		var numbers []uint16
		for _, s := range parts {
			n, err := strconv.ParseUint(s, 0, 16)
			if err != nil || n < least {
				return fmt.Errorf("%q is not an EtherType, such as 0x9400", s)
			}
			numbers = append(numbers, uint16(n))
		}
		*to = numbers
		return nil
	}}
}

// The limits of labels, which each record repeats.
const (
	maxLabels     = 32
	maxLabelValue = 256 // bytes
)

// labelName is what ECS allows as a name under "labels", which cannot nest.
var labelName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// labels reads labels, such as site=berlin.
func labels(to *map[string]string) value {
	return value{kind: kindPairs, many: true, set: func(parts []string) error {
		all := map[string]string{}
		for _, p := range parts {
			name, text, ok := strings.Cut(p, "=")
			_, twice := all[name]
			switch {
			case !ok:
				return fmt.Errorf("%q is not a label, such as site=berlin", p)
			case !labelName.MatchString(name):
				return fmt.Errorf("label %q: a name consists of up to 64 letters, digits, - and _", name)
			case twice:
				return fmt.Errorf("label %q is given twice", name)
			case text == "" || len(text) > maxLabelValue || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
				return fmt.Errorf("label %q: a value has 1 to %d bytes and no control characters", name, maxLabelValue)
			}
			all[name] = text
		}
		if len(all) > maxLabels {
			return fmt.Errorf("%d labels are more than %d", len(all), maxLabels)
		}
		*to = all
		return nil
	}}
}

// secrets are the variables that hold secrets. A flag, which others can see in the
// list of processes, and a configuration file are no place for them.
var secrets = []string{elastic.EnvPassword, elastic.EnvAPIKey, elastic.EnvServiceToken, splunk.EnvToken, otlp.EnvToken, envKafkaPassword, envKafkaToken}
