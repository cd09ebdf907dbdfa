package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/evidence"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/health"
	"github.com/oddcert/oddcert/sensor/internal/judge"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// config is what the program can be told, by flags, by the environment, and by
// a file. The first of these that says something wins. The fields are those of
// the options in [config.table]; nobody but load sets them.
type config struct {
	Interfaces  []string
	Filter      string
	Keys        []string
	Checksums   string
	IgnoreVLAN  bool
	VLANs       []uint16
	NoShunt     bool
	Rules       []string
	NoBuiltin   bool
	Packs       []string
	Roots       []string
	Networks    []string
	Databases   []string
	FailOnAlert bool

	JSON       string // file of JSON lines, "-" for standard output
	Append     bool
	Records    output.Set // empty for all
	Handshakes string
	Constants  bool
	Labels     map[string]string
	Name       string

	Evidence        string // folder of packs; empty for none
	EvidenceFormat  string
	EvidenceKey     string
	EvidenceSecrets bool
	EvidenceSize    int64  // bytes; 0 for the default of package evidence
	EvidenceBuffer  int64  // bytes; 0 for the default of package frames
	AllowedSigners  string // file; empty where any key may sign

	Elasticsearch elastic.Config
	Outputs       []*outputConfig
	Spool         string        // empty for defaultSpool
	SpoolSize     int64         // bytes; 0 for the default of the spool
	SpoolAge      time.Duration // 0 for the default of the spool
	Report        string        // page of the report of a replay; empty for none
	Inventory     string        // file of the inventory; empty for defaultInventory, noInventory for none
	InventorySize int64         // bytes; 0 for the default of the inventory
	Setup         elastic.SetupOptions

	Page    bool
	Access  health.AccessFiles
	Metrics string // address; empty for none
	Oneline *bool  // nil for where the output is no terminal
	Quiet   bool

	Memory  int64 // bytes; 0 for half of what there is
	Workers int   // 0 for one for each processor

	options   []*option
	checksums flow.Checksums
	file      string   // that it comes from; empty for none
	chosen    bool     // file was not named by anybody
	strangers []string // variables that look like ours, and are not
}

// defaultConfig is the configuration file that is read where none is named.
var defaultConfig = "/etc/oddcert/oddcert.yaml"

// envConfig names the configuration file.
const envConfig = envPrefix + "CONFIG"

// load reads the configuration file, the environment and the flags of cmd, and
// names everything that is wrong at once.
func (c *config) load(cmd *cobra.Command) error {
	c.choose(cmd.Flags())
	var errs []error
	fail := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if c.file != "" {
		fail(c.readFile())
	}
	for _, o := range c.table() {
		if text := os.Getenv(o.variable()); text != "" {
			fail(o.applyText([]string{text}, o.variable()))
		}
	}
	fail(c.checkEnvironment())
	for _, o := range c.table() {
		if len(o.given) > 0 {
			fail(o.applyText(o.given, "--"+o.name))
		}
	}
	fail(c.check())
	return errors.Join(errs...)
}

// choose finds the configuration file. An empty name is that of no file.
func (c *config) choose(flags *pflag.FlagSet) {
	if f := flags.Lookup("config"); f != nil && f.Changed {
		return
	}
	c.file = os.Getenv(envConfig)
	if c.file != "" {
		return
	}
	if _, err := os.Stat(defaultConfig); !errors.Is(err, fs.ErrNotExist) {
		c.file, c.chosen = defaultConfig, true
	}
}

// check finds what is wrong with options that are right by themselves.
func (c *config) check() error {
	return errors.Join(c.checkElasticsearch(), c.checkOutputs(), c.checkPage())
}

func (c *config) checkElasticsearch() error {
	if !c.Elasticsearch.Given() {
		return nil
	}
	var errs []error
	joined, _ := c.Elasticsearch.Validate().(interface{ Unwrap() []error })
	if joined == nil {
		return nil
	}
	for _, err := range joined.Unwrap() {
		var wrong *endpoint.ConfigError
		if !errors.As(err, &wrong) {
			errs = append(errs, err)
			continue
		}
		from := "es"
		if wrong.Setting != "url" {
			from += "-" + strings.ReplaceAll(wrong.Setting, "_", "-")
		}
		if o := c.find(from); o != nil && o.from != "" {
			from = o.from
			if strings.Contains(from, ":") { // a place in the file
				from += ": " + o.key()
			}
		}
		errs = append(errs, fmt.Errorf("%s: %s", from, wrong.Text))
	}
	return errors.Join(errs...)
}

// foreign matches variables that begin like ours and have another purpose: those
// that Kubernetes and Docker set for a service whose name begins with oddcert.
var foreign = regexp.MustCompile(`^ODDCERT_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_\w+)$`)

// checkEnvironment looks for variables that nobody reads. One that is nearly ours
// is an error. Others may have a purpose that is not known here: remarks names
// them.
func (c *config) checkEnvironment() error {
	names := append([]string{envConfig}, secrets...)
	for _, o := range c.table() {
		names = append(names, o.variable())
	}
	var errs []error
	for _, pair := range os.Environ() {
		name, text, _ := strings.Cut(pair, "=")
		if text == "" || !strings.HasPrefix(name, envPrefix) || slices.Contains(names, name) || foreign.MatchString(name) {
			continue
		}
		// The prefix is left out, so that it does not count as likeness.
		var own []string
		for _, n := range names {
			own = append(own, strings.TrimPrefix(n, envPrefix))
		}
		if hint := didYouMean(envPrefix, strings.TrimPrefix(name, envPrefix), own); hint != "" {
			errs = append(errs, fmt.Errorf("%s: unknown variable%s", name, hint))
		} else {
			c.strangers = append(c.strangers, name)
		}
	}
	return errors.Join(errs...)
}

// remarks says what somebody should know who runs the program like this.
func (c *config) remarks(warn func(error)) {
	if c.chosen {
		warn(fmt.Errorf("the configuration is that of %s", c.file))
	}
	for _, name := range c.strangers {
		warn(fmt.Errorf("%s: unknown variable, which has no effect", name))
	}
	c.careless(warn)
}

// flagError says more about a flag that is not known.
func (c *config) flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	name := unknown.GetSpecifiedName()
	for _, o := range c.table() {
		if o.name == name || o.short == name {
			return fmt.Errorf("%w: it is a flag of %s, not of %s", err, commandsOf(o), cmd.CommandPath())
		}
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return fmt.Errorf("%w%s", err, didYouMean("--", name, names))
}

// commandsOf names the commands that have an option as a flag.
func commandsOf(o *option) string {
	var names []string
	for _, c := range []struct {
		on   commands
		name string
	}{{onReplay, "oddcert replay"}, {onLive, "oddcert live"}, {onSetup, "oddcert es"}, {onEvidence, "oddcert evidence verify"}} {
		if o.on&c.on != 0 {
			names = append(names, c.name)
		}
	}
	return strings.Join(names, " and ")
}

// workers is the number of goroutines that follow flows.
func (c *config) workers() int {
	if c.Workers == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return c.Workers
}

// datasets is the set of records to make: all that somebody gets.
func (c *config) datasets() (all output.Set) {
	if c.JSON != "" || c.Elasticsearch.Given() {
		all = c.selected()
	}
	for _, o := range c.Outputs {
		all |= o.datasets()
	}
	if c.Evidence != "" {
		all = all.Add(output.Alert)
	}
	return all
}

// selected is the set of records that --json and --es get.
func (c *config) selected() output.Set { return chosen(c.Records, c.Handshakes) }

// records says which records are made and what they hold.
func (c *config) records() output.Options {
	o := output.Options{Datasets: c.datasets(), Constants: c.Constants, Labels: c.Labels}
	if c.Evidence != "" {
		o.Evidence = func(id string) string { return evidence.PackPath(c.Evidence, c.EvidenceFormat == "zip", id) }
	}
	return o
}

// validity sets which packets count.
func (c *config) validity(l flow.Limits) flow.Limits {
	l.Checksums = c.checksums
	l.IgnoreVLAN = c.IgnoreVLAN
	return l
}

// rules loads the rules.
func (c *config) rules() (*rules.Set, error) {
	if c.NoBuiltin {
		return loadRules(c.Rules, nil)
	}
	builtin := rules.Builtin(c.Packs...)
	return loadRules(c.Rules, &builtin)
}

// loadRules loads the rules and what handshakes are judged by, and names everything that
// is wrong with them. inUse is what those that they replace take of the memory, in bytes.
func (c *config) loadRules(inUse int64) (*rules.Set, *judge.Tables, error) {
	set, wrongRules := c.rules()
	tables, wrongTables := c.tables()
	if err := errors.Join(wrongRules, wrongTables); err != nil {
		return nil, nil, err
	}
	return set, tables, c.checkMemory(inUse + tables.Size())
}

// packFiles is what the packs judge by. A test adds a root of its own to them.
var packFiles = rules.PackFiles

// tables loads what handshakes are judged by.
func (c *config) tables() (*judge.Tables, error) {
	return judge.Load(judge.Options{Packs: packFiles(), Roots: c.Roots, Networks: c.Networks, Databases: c.Databases})
}

// observer describes this sensor.
func (c *config) observer() output.Observer {
	name := c.Name
	if name == "" {
		name, _ = os.Hostname()
	}
	return output.Observer{Name: name, Version: version()}
}
