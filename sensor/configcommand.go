package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

func configCommand() *cobra.Command {
	var checked, shown config
	check := &cobra.Command{
		Use:   "check [FILE]…",
		Short: "Name everything that is wrong with a configuration",
		Long: `Name everything that is wrong with configuration files, and with the files and
folders that they name: rules, roots, keys, secrets, templates, the folder of
the spool. Without one, check the file that would be used, and the environment.
No server is asked: "oddcert doctor" does that.`,
		Example: "  oddcert config check oddcert.yaml",
		RunE:    func(cmd *cobra.Command, files []string) error { return checkConfig(cmd, &checked, files) },
	}
	checked.bind(check, check.Flags(), 0)
	show := &cobra.Command{
		Use:   "show",
		Short: "Show the configuration in effect, and where each value comes from",
		Long: `Show the configuration that flags, environment and file make together, and
where each value comes from. The output can be used as a configuration file.
Secrets are not shown.`,
		Example: "  oddcert config show --config oddcert.yaml",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := shown.load(cmd); err != nil {
				return err
			}
			shown.remarks(warnTo(cmd))
			return shown.show(cmd.OutOrStdout())
		},
	}
	shown.bind(show, show.Flags(), onReplay|onLive|onSetup)
	example := &cobra.Command{
		Use:     "example",
		Short:   "Show a configuration file that has every option, in comments",
		Example: "  oddcert config example >oddcert.yaml",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return new(config).writeExample(cmd.OutOrStdout())
		},
	}
	return group(&cobra.Command{
		Use:   "config",
		Short: "Check and show the configuration",
		Long: `An option has one name. These three say the same:

  --es-api-key-file /etc/oddcert/api-key              a flag
  ODDCERT_ES_API_KEY_FILE=/etc/oddcert/api-key        in the environment
  es_api_key_file: /etc/oddcert/api-key               in a configuration file

A flag has precedence over the environment, and the environment over the file.
A variable that is empty counts as not set. The configuration file is the one
that --config or ODDCERT_CONFIG names, or else ` + defaultConfig + `
where that exists. It is YAML, and one file can serve all commands.

An option that takes several values is a list in the file. In a flag or a
variable, commas separate the values; a flag can also be repeated. A size is a
number of bytes, with K, M, G, T or KiB, MiB, GiB, TiB for powers of 1024 and
KB, MB, GB, TB for powers of 1000. A time is a number with a unit: 7d, 36h, 90s.

A secret is in a file that an option names, or in one of these variables:
` + "  " + strings.Join(secrets, "\n  "),
	}, check, show, example)
}

// warnTo writes warnings to the standard error of cmd.
func warnTo(cmd *cobra.Command) func(error) {
	w := terminal.Harmless(cmd.ErrOrStderr())
	return func(err error) { fmt.Fprintf(w, "oddcert: %v\n", err) }
}

// checkConfig checks files, or else the configuration that would be used.
func checkConfig(cmd *cobra.Command, c *config, files []string) error {
	if len(files) == 0 {
		if err := c.load(cmd); err != nil {
			return err
		}
		c.remarks(warnTo(cmd))
		if err := c.preflight(warnTo(cmd)); err != nil {
			return err
		}
		return c.checkedWell(cmd)
	}
	var errs error
	for _, file := range files {
		c := &config{file: file}
		err := errors.Join(c.readFile(), c.check())
		if err == nil {
			c.remarks(warnTo(cmd))
			err = c.preflight(warnTo(cmd))
		}
		if err != nil {
			errs = errors.Join(errs, err)
		} else if err := c.checkedWell(cmd); err != nil {
			return err
		}
	}
	return errs
}

// checkedWell says that nothing is wrong.
func (c *config) checkedWell(cmd *cobra.Command) error {
	set := 0
	for _, o := range c.table() {
		if o.from != "" {
			set++
		}
	}
	name := c.file
	if name == "" {
		name = "no configuration file"
	}
	_, err := fmt.Fprintf(terminal.Harmless(cmd.OutOrStdout()), "%s: %s set, nothing wrong\n", name, terminal.Count(set, "option", "options"))
	return err
}

// show writes the options as a configuration file, each with where it comes from.
// Those that nobody has set are comments.
func (c *config) show(w io.Writer) error {
	var b bytes.Buffer
	for o, first := range c.grouped() {
		if first {
			fmt.Fprintf(&b, "\n# %s\n", o.group)
		}
		if o.from == "" {
			standard := o.standard
			if standard == "" {
				standard = "not set"
			}
			fmt.Fprintf(&b, "#%-32s # %s\n", o.key()+":", standard)
			continue
		}
		fmt.Fprintf(&b, "%-33s # %s\n", o.key()+": "+o.yaml(), o.from)
	}
	for _, name := range secrets {
		if os.Getenv(name) != "" {
			fmt.Fprintf(&b, "\n# %s is set. Its value is not shown.\n", name)
		}
	}
	_, err := terminal.Harmless(w).Write(bytes.TrimLeft(b.Bytes(), "\n"))
	return err
}

// grouped ranges over the options of c by group, and reports which is the first of
// its group.
func (c *config) grouped() iter.Seq2[*option, bool] {
	return func(yield func(*option, bool) bool) {
		for _, group := range groups {
			first := true
			for _, o := range c.table() {
				if o.group == group {
					if !yield(o, first) {
						return
					}
					first = false
				}
			}
		}
	}
}

// yaml is the value of o as it stands in a configuration file.
func (o *option) yaml() string {
	if o.value.kind == kindSettings {
		return o.value.show()
	}
	if !o.value.many {
		return quoted(o.parts[0])
	}
	parts := make([]string, len(o.parts))
	for i, p := range o.parts {
		if o.value.kind == kindPairs {
			name, text, _ := strings.Cut(p, "=")
			parts[i] = quoted(name) + ": " + quoted(text)
		} else {
			parts[i] = quoted(p)
		}
	}
	if o.value.kind == kindPairs {
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// plainText matches what YAML reads as it stands, wherever that is.
var plainText = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9./_-]*$`)

// quoted writes a scalar of YAML. Double quotes are those of JSON.
func quoted(s string) string {
	if plainText.MatchString(s) {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always can be
	return strings.TrimSuffix(b.String(), "\n")
}

// writeExample writes a configuration file with all options, in comments.
func (c *config) writeExample(w io.Writer) error {
	var b bytes.Buffer
	b.WriteString("# The configuration of oddcert. Remove the # before an option to set it; the value\n" +
		"# that stands there is an example. \"oddcert config check FILE\" names mistakes.\n")
	for o, first := range c.grouped() {
		if first {
			fmt.Fprintf(&b, "\n## %s\n", o.group)
		}
		note := o.usage
		if o.standard != "" {
			note += " (default: " + o.standard + ")"
		}
		fmt.Fprintf(&b, "\n# %s\n#%s: %s\n", note, o.key(), o.example)
		if o.value.kind == kindSettings {
			writeOutputs(&b)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}
