package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic"
)

// config is what the program can be told, by flags, by the environment, and by
// a file; the first of these that says something wins.
type config struct {
	Name          string         `yaml:"name"`       // of the sensor
	Rules         []string       `yaml:"rules"`      // folders of rules beside the built-in packs
	NoBuiltin     bool           `yaml:"no_builtin"` // leave the built-in packs out
	JSON          string         `yaml:"json"`       // file of JSON lines, "-" for standard output
	Append        bool           `yaml:"append"`     // a replay appends to that file
	Records       string         `yaml:"records"`    // the datasets written there and sent
	Workers       int            `yaml:"workers"`
	Memory        string         `yaml:"memory"` // what the process may take, such as 512M
	Filter        string         `yaml:"filter"`
	Checksums     string         `yaml:"checksums"`   // auto, verify or ignore
	IgnoreVLAN    bool           `yaml:"ignore_vlan"` // VLAN tags tell no flows apart
	Keys          []string       `yaml:"keys"`        // key logs
	VLANs         []string       `yaml:"vlan_ethertypes"`
	Interfaces    []string       `yaml:"interfaces"`
	FailOnAlert   bool           `yaml:"fail_on_alert"`
	Elasticsearch elastic.Config `yaml:"elasticsearch"`

	file  string   // that it came from
	vlans []uint16 // what VLANs says
}

// limitConfig is the largest configuration file that is read.
const limitConfig = 1 << 20

// envPrefix begins the environment variables that stand for flags.
const envPrefix = "ODDCERT_"

// bind registers the flags that all commands with an output share.
func (c *config) bind(flags *pflag.FlagSet) {
	c.bindCommon(flags)
	flags.StringVar(&c.Name, "name", "", "name of this sensor in the records (default: the host name)")
	flags.StringSliceVar(&c.Rules, "rules", nil, "folder of rules to load beside the built-in packs; may be repeated")
	flags.BoolVar(&c.NoBuiltin, "no-builtin", false, "leave the built-in rule packs out")
	flags.StringVar(&c.JSON, "json", "", "write records to this file, one JSON object a line; - is standard output")
	flags.StringVar(&c.Records, "records", "alert,handshake,certificate,stats", "the records to write and to send")
	flags.IntVar(&c.Workers, "workers", 0, "goroutines that follow flows (default: one for each processor)")
	flags.StringVar(&c.Memory, "memory", "", "memory that the process may take, such as 512M or 2G (default: half of what there is)")
	flags.StringSliceVar(&c.Keys, "keys", nil, "key log to decrypt TLS 1.3, DTLS 1.3 and QUIC handshakes with (SSLKEYLOGFILE); may be repeated")
	flags.StringVar(&c.Checksums, "checksums", "auto", "segments with bad checksums: auto ignores those of senders that have sent good ones, verify all, ignore none")
	flags.BoolVar(&c.IgnoreVLAN, "ignore-vlan", false, "take flows for one that differ in their VLAN tags alone")
	flags.StringSliceVar(&c.VLANs, "vlan-ethertype", nil, "EtherType that marks VLAN tags here beside those of the standards, such as 0x9400; may be repeated")
	flags.StringVar(&c.Filter, "filter", "", "read only frames that match this filter, in tcpdump's syntax")
}

// bindCommon registers the flags for the configuration file and Elasticsearch.
func (c *config) bindCommon(flags *pflag.FlagSet) {
	flags.StringVar(&c.file, "config", "", "configuration file (YAML)")
	e := &c.Elasticsearch
	flags.StringSliceVar(&e.Addresses, "es", nil, "send records to the Elasticsearch at this URL; may be repeated")
	flags.StringVar(&e.Server, "es-server", "", "elasticsearch (default) or opensearch")
	flags.StringVar(&e.Username, "es-username", "", "user name for Elasticsearch")
	flags.StringVar(&e.PasswordFile, "es-password-file", "", "file that holds the password")
	flags.StringVar(&e.APIKeyFile, "es-api-key-file", "", "file that holds an API key")
	flags.StringVar(&e.ServiceTokenFile, "es-service-token-file", "", "file that holds a service token")
	flags.StringVar(&e.CAFile, "es-ca-file", "", "PEM file of the authorities to trust")
	flags.StringVar(&e.CertificateFingerprint, "es-fingerprint", "", "SHA-256 of the certificate to trust")
	flags.StringVar(&e.Namespace, "es-namespace", "", "last part of the data streams' names (default \"default\")")
	flags.StringVar(&e.Spool.Dir, "spool", "", "folder where records wait for Elasticsearch")
}

// load completes c from the environment and from the configuration file, and
// names everything that is wrong at once.
func (c *config) load(cmd *cobra.Command) error {
	var errs []error
	set := map[string]bool{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := envPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value, ok := os.LookupEnv(name); ok && !f.Changed && f.Name != "help" && f.Name != "version" {
			if err := cmd.Flags().Set(f.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
		set[f.Name] = f.Changed
	})
	if c.file != "" {
		errs = append(errs, c.merge(cmd.Flags()))
	}
	if len(c.Elasticsearch.Addresses) > 0 {
		if err := c.Elasticsearch.Validate(); err != nil {
			errs = append(errs, prefix("elasticsearch", err))
		}
	}
	if c.Workers < 0 {
		errs = append(errs, fmt.Errorf("workers: %d is less than 0", c.Workers))
	}
	if _, err := flow.ParseChecksums(c.Checksums); c.Checksums != "" && err != nil {
		errs = append(errs, prefix("checksums", err))
	}
	var err error
	if c.vlans, err = etherTypes(c.VLANs); err != nil {
		errs = append(errs, prefix("vlan_ethertypes", err))
	}
	if n, err := parseSize(c.Memory); c.Memory != "" && err != nil {
		errs = append(errs, prefix("memory", err))
	} else if c.Memory != "" && n < leastMemory {
		errs = append(errs, fmt.Errorf("memory: %s is less than %dM", c.Memory, leastMemory>>20))
	}
	if _, err := output.ParseDatasets(c.Records); c.Records != "" && err != nil {
		errs = append(errs, prefix("records", err))
	}
	return errors.Join(errs...)
}

// merge reads the configuration file under the flags that were given.
func (c *config) merge(flags *pflag.FlagSet) error {
	f, err := os.Open(c.file)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limitConfig+1))
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if len(text) > limitConfig {
		return fmt.Errorf("read configuration %s: more than %d bytes", c.file, limitConfig)
	}
	given := map[string]string{}
	flags.Visit(func(f *pflag.Flag) {
		if list, ok := f.Value.(pflag.SliceValue); ok {
			given[f.Name] = strings.Join(list.GetSlice(), ",")
		} else {
			given[f.Name] = f.Value.String()
		}
	})
	if err := decodeStrict(c.file, text, c); err != nil {
		return err
	}
	for name, value := range given {
		f := flags.Lookup(name)
		if list, ok := f.Value.(pflag.SliceValue); ok {
			err = list.Replace(strings.Split(value, ","))
		} else {
			err = f.Value.Set(value)
		}
		if err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
	}
	return nil
}

// etherTypes reads EtherTypes, such as 0x9400.
func etherTypes(list []string) (numbers []uint16, err error) {
	const least = 0x0600 // below, it is a length (IEEE 802.3)
	for _, s := range list {
		n, err := strconv.ParseUint(s, 0, 16)
		if err != nil || n < least {
			return nil, fmt.Errorf("%q is no EtherType, such as 0x9400", s)
		}
		numbers = append(numbers, uint16(n))
	}
	return numbers, nil
}

// workers is how many goroutines follow flows.
func (c *config) workers() int {
	if c.Workers == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return c.Workers
}

// datasets is the set of records to make.
func (c *config) datasets() output.Set {
	if c.JSON == "" && len(c.Elasticsearch.Addresses) == 0 {
		return 0
	}
	set, _ := output.ParseDatasets(c.Records) // checked by load
	return set
}

// records says which records are made and what they hold.
func (c *config) records() output.Options { return output.Options{Datasets: c.datasets()} }

// judge sets how packets are judged.
func (c *config) judge(l flow.Limits) flow.Limits {
	l.Checksums, _ = flow.ParseChecksums(c.Checksums) // checked by load
	l.IgnoreVLAN = c.IgnoreVLAN
	return l
}

// rules loads the rules.
func (c *config) rules() (*rules.Set, error) {
	return loadRules(c.Rules, !c.NoBuiltin)
}

// observer describes this sensor.
func (c *config) observer() output.Observer {
	host, _ := os.Hostname()
	name := c.Name
	if name == "" {
		name = host
	}
	return output.Observer{Name: name, Version: version()}
}

func prefix(what string, err error) error {
	var lines []string
	for line := range strings.Lines(err.Error()) {
		lines = append(lines, what+": "+strings.TrimSuffix(line, "\n"))
	}
	return errors.New(strings.Join(lines, "\n"))
}

// decodeStrict reads YAML into the struct that v points to, and names every
// unknown or repeated key and every value that does not fit, with its place.
func decodeStrict(file string, text []byte, v any) error {
	// The parser would stop at the first key that is repeated.
	parsed, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return placed(file, err)
	}
	var errs []error
	for _, doc := range parsed.Docs {
		if doc.Body != nil {
			errs = append(errs, decodeNode(file, doc.Body, reflect.ValueOf(v).Elem())...)
		}
	}
	return errors.Join(errs...)
}

func decodeNode(file string, node ast.Node, v reflect.Value) (errs []error) {
	var values []*ast.MappingValueNode
	switch node := node.(type) {
	case *ast.MappingNode:
		values = node.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{node}
	default:
		return []error{at(file, node, "not a mapping of keys to values")}
	}
	seen := map[string]bool{}
	for _, pair := range values {
		key := pair.Key.String()
		field := fieldOf(v, key)
		switch {
		case seen[key]:
			errs = append(errs, at(file, pair.Key, "key %q is repeated", key))
		case !field.IsValid():
			errs = append(errs, at(file, pair.Key, "unknown key %q", key))
		case field.Kind() == reflect.Struct:
			errs = append(errs, decodeNode(file, pair.Value, field)...)
		default:
			if err := yaml.NodeToValue(pair.Value, field.Addr().Interface(), yaml.Strict()); err != nil {
				errs = append(errs, at(file, pair.Value, "%s: %q does not fit", key, pair.Value.String()))
			}
		}
		seen[key] = true
	}
	return errs
}

// fieldOf returns the field of the struct v that a key of YAML stands for.
func fieldOf(v reflect.Value, key string) reflect.Value {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("yaml") == key && key != "" {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

func at(file string, node ast.Node, format string, args ...any) error {
	pos := node.GetToken().Position
	return fmt.Errorf("%s:%d:%d: %s", file, pos.Line, pos.Column, fmt.Sprintf(format, args...))
}

// placed says where in the file the YAML is broken.
func placed(file string, err error) error {
	var broken yaml.Error
	if errors.As(err, &broken) && broken.GetToken() != nil {
		pos := broken.GetToken().Position
		return fmt.Errorf("%s:%d:%d: %s", file, pos.Line, pos.Column, broken.GetMessage())
	}
	return fmt.Errorf("%s: %w", file, err)
}
