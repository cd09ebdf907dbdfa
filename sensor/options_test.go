package main

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// allCommands calls f with each command of the program.
func allCommands(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, sub := range cmd.Commands() {
		allCommands(sub, f)
	}
}

// TestOneName holds that each flag is an option, and each option is a flag of some
// command, a key of the configuration file and a variable; and that there is no
// other of any of them.
func TestOneName(t *testing.T) {
	flags, questions := map[string]bool{}, map[string]bool{} // what oddcert certs is asked is no option
	allCommands(rootCommand(), func(cmd *cobra.Command) {
		visit := func(f *pflag.Flag) {
			if g := f.Annotations[groupAnnotation]; len(g) > 0 && (g[0] == groupChoice || g[0] == groupAnswer) {
				questions[f.Name] = true
				return
			}
			if f.Name != "help" && f.Name != "version" && f.Name != "config" && f.Name != "all" && f.Name != "for" { // all dead letters; how long the doctor listens
				flags[f.Name] = true
			}
		}
		cmd.Flags().VisitAll(visit)
		cmd.PersistentFlags().VisitAll(visit)
	})
	var example bytes.Buffer
	if err := new(config).writeExample(&example); err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#([a-z_]+): `).FindAllStringSubmatch(example.String(), -1) {
		keys[m[1]] = true
	}
	variables := map[string]bool{}
	for _, o := range new(config).table() {
		if !flags[o.name] {
			t.Errorf("%s is not a flag of any command", o.name)
		}
		delete(flags, o.name)
		if !keys[o.key()] {
			t.Errorf("%s is not in the example", o.key())
		}
		delete(keys, o.key())
		if variables[o.variable()] || slices.Contains(secrets, o.variable()) {
			t.Errorf("%s stands for two things", o.variable())
		}
		variables[o.variable()] = true
		if !slices.Contains(groups, o.group) || o.usage == "" || o.example == "" || o.on == 0 {
			t.Errorf("%s: %+v", o.name, o)
		}
		if o.name != strings.ReplaceAll(o.key(), "_", "-") || o.variable() != "ODDCERT_"+strings.ToUpper(o.key()) {
			t.Errorf("%s, %s, %s are not one name", o.name, o.key(), o.variable())
		}
	}
	if len(flags) > 0 || len(keys) > 0 {
		t.Errorf("flags %v and keys %v are not options", flags, keys)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`ODDCERT_\w+`).FindAllString(string(readme), -1) {
		if !variables[name] && !slices.Contains(secrets, name) && name != envConfig && name != "ODDCERT_ES_APIKEY" { // a slip, as an example
			t.Errorf("README.md names %s, which nobody reads", name)
		}
	}
	for _, name := range regexp.MustCompile("[\\s`]--([a-z][a-z-]+)").FindAllStringSubmatch(string(readme), -1) {
		if new(config).find(name[1]) == nil && !questions[name[1]] && !slices.Contains([]string{"config", "help", "version"}, name[1]) {
			t.Errorf("README.md names --%s, which is not a flag", name[1])
		}
	}
}

// TestExample sets each option to its example, alone and all together.
func TestExample(t *testing.T) {
	all := new(config)
	var file strings.Builder
	for _, o := range all.table() {
		line := o.key() + ": " + o.example + "\n"
		file.WriteString(line)
		c := &config{file: "example.yaml"}
		if err := c.applyYAML([]byte(line)); err != nil {
			t.Errorf("%s: %v", o.name, err)
			continue
		}
		set := c.find(o.name)
		if set.from == "" || o.value.many != strings.ContainsAny(o.example[:1], "[{") {
			t.Errorf("%s: %+v", o.name, set)
		}
		// What config show writes is the same value.
		again := &config{file: "again.yaml"}
		if err := again.applyYAML([]byte(o.key() + ": " + set.yaml())); err != nil || !slices.Equal(again.find(o.name).parts, set.parts) {
			t.Errorf("%s: shown as %s: %q, %v", o.name, set.yaml(), again.find(o.name).parts, err)
		}
	}
	if err := all.applyYAML([]byte(file.String())); err != nil {
		t.Error(err)
	}
}

// TestConfigFile reads texts, and texts with slips in them, as a configuration
// file: it says where they are wrong, and what it takes is shown as the same.
func TestConfigFile(t *testing.T) {
	var example bytes.Buffer
	if err := new(config).writeExample(&example); err != nil {
		t.Fatal(err)
	}
	texts := []string{
		example.String(), strings.ReplaceAll(example.String(), "\n#", "\n"),
		"", "---\n...\n", "name: [", "? a\n: b", "&a name: *a", "!!str name: x", "<<: {name: x}", "name: |\n  text\n", "\xff", "name: \"\\e[2J\"",
		"name: &a x", "es: [*a]", "labels: {a: &b c, d: *b}", "labels: {a: {b: c}}", "- a\n- b", "name:", "rules: [a, , b]", "a: b: c", "{", "\t", "name: 'it''s'",
		"name: " + strings.Repeat("[", 9), "rules: " + strings.Repeat("- ", 9), strings.Repeat("? ", 9),
	}
	for _, o := range new(config).table() {
		texts = append(texts, o.key()+": "+o.example+"\n", "name: a\n"+o.key()+":\n  - "+o.example+"\n")
	}
	slip := rand.New(rand.NewPCG(1, 2))
	taken := 0
	for range 100 {
		for i, text := range texts {
			readConfig(t, text, &taken)
			if text == "" {
				continue
			}
			b := []byte(text)
			for range 1 + slip.IntN(3) {
				const letters = "-:[]{},\"'#&*!|>%@` \n\tab01é\x00"
				b[slip.IntN(len(b))] = letters[slip.IntN(len(letters))]
			}
			if readConfig(t, string(b), &taken); slip.IntN(4) == 0 && len(text) < 100 {
				texts[i] = string(b)
			}
		}
	}
	if taken < 100 {
		t.Errorf("%d texts were taken, which shows little", taken)
	}
}

// readConfig reads one text; taken counts those with which nothing was wrong.
func readConfig(t *testing.T, text string, taken *int) {
	c := &config{file: "file.yaml"}
	if err := c.applyYAML([]byte(text)); err != nil {
		if !strings.HasPrefix(err.Error(), "file.yaml:") {
			t.Errorf("%q: without a place: %v", text, err)
		}
		return
	}
	*taken++
	var shown bytes.Buffer
	if err := c.show(&shown); err != nil {
		t.Fatal(err)
	}
	again := &config{file: "shown.yaml"}
	if err := again.applyYAML(shown.Bytes()); err != nil {
		t.Fatalf("%q is shown as %q: %v", text, shown.String(), err)
	}
	for i, o := range c.table() {
		if !slices.Equal(again.table()[i].parts, o.parts) && utf8.ValidString(text) {
			t.Errorf("%s: %q is shown as %q, which is %q", o.name, o.parts, shown.String(), again.table()[i].parts)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "4096": 4096, "640 K": 640 << 10, "512B": 512, "1K": 1 << 10, "3KiB": 3 << 10, "3kb": 3000, "512M": 512 << 20, "512m": 512 << 20, "2GB": 2_000_000_000,
		"2GiB": 2 << 30, "1 GiB": 1 << 30, "5 MB": 5_000_000, "1TiB": 1 << 40, "7t": 7 << 40, "9223372036854775807": math.MaxInt64,
	} {
		if n, err := parseSize(text); err != nil || n != want {
			t.Errorf("%q: %d, %v, want %d", text, n, err, want)
		}
	}
	for _, text := range []string{"", "M", "-1", "1.5G", "G2", "9999999T", "3 bananas", "2GG", "2BG", "1 G B", "0x10", "99999999TiB", "9223372036854775808", "8388608TiB"} {
		if n, err := parseSize(text); err == nil {
			t.Errorf("%q was read as %d", text, n)
		}
	}
	for n := int64(1); n > 0; n <<= 3 {
		for _, n := range []int64{n, n + 1, n - 1} {
			if got, err := parseSize(formatSize(n)); err != nil || got != n {
				t.Errorf("%d is written as %s and read as %d, %v", n, formatSize(n), got, err)
			}
		}
	}
}

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"7d": 7 * day, "1d12h": 36 * time.Hour, "0d": 0, " 2d ": 2 * day, "365d": 365 * day, "36h": 36 * time.Hour, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "0": 0,
	} {
		if d, err := parseDuration(text); err != nil || d != want {
			t.Errorf("%q: %v, %v, want %v", text, d, err, want)
		}
	}
	for _, text := range []string{"", "d", "7", "-1h", "-7d", "1d-1h", "7days", "1h2d", "1.5d", "soon", "99999999d"} {
		if d, err := parseDuration(text); err == nil {
			t.Errorf("%q was read as %v", text, d)
		}
	}
}

// TestNearest has slips of each kind, and names that are like none.
func TestNearest(t *testing.T) {
	var names []string
	for _, o := range new(config).table() {
		names = append(names, o.name)
	}
	for slip, want := range map[string]string{
		"record": "records", "jason": "json", "keyes": "keys", "es_api_key_file": "es-api-key-file", "ES-API-KEY-FILE": "es-api-key-file", "lables": "labels",
		"wrokers": "workers", "interfaces": "interface", "memroy": "memory", "corpus": "", "favourite-colour": "", "": "", "x": "",
	} {
		if got := nearest(slip, names); got != want {
			t.Errorf("%q: %q, want %q", slip, got, want)
		}
	}
	for _, a := range names {
		if nearest(a, names) != a {
			t.Errorf("%q is not nearest to itself", a)
		}
		for _, b := range names {
			d := distance(a, b)
			if d != distance(b, a) || (d == 0) != (a == b) || d > max(len(a), len(b)) || d < max(len(a), len(b))-min(len(a), len(b)) {
				t.Errorf("%s, %s: %d", a, b, d)
			}
		}
	}
	if d := distance(strings.Repeat("a", 1<<20), "a"); d != maxName {
		t.Errorf("a name that is too long: %d", d)
	}
}

// TestExitTable holds that README.md has the exit statuses of the help.
func TestExitTable(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range exitStatuses {
		row := "| " + strconv.Itoa(s.status) + " | " + strings.Join(strings.Fields(s.meaning), " ") + " |"
		if !strings.Contains(string(readme), row) {
			t.Errorf("README.md does not have %q", row)
		}
	}
}
