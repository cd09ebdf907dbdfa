package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

func rulesCommand() *cobra.Command {
	check := &cobra.Command{
		Use:     "check DIR…",
		Short:   "Name everything that is wrong with the rules in folders",
		Example: "  oddcert rules check /etc/oddcert/rules",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return dirs()
		},
		RunE: func(cmd *cobra.Command, dirs []string) error {
			if len(dirs) == 0 {
				return errors.New("no folder named: give the folders with the rules")
			}
			set, err := loadRules(dirs, false)
			if err != nil {
				return err
			}
			for _, w := range set.Warnings() {
				fmt.Fprintf(terminal.Harmless(cmd.ErrOrStderr()), "oddcert: warning: %v\n", w)
			}
			enabled := 0
			for _, r := range set.Rules() {
				if r.Enabled {
					enabled++
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s, %d enabled; %s\n",
				terminal.Count(len(set.Rules()), "rule", "rules"), enabled, terminal.Count(len(set.Lists()), "list", "lists"))
			return nil
		},
	}
	return group(&cobra.Command{Use: "rules", Short: "Check rules"}, check)
}

// loadRules loads the rules in folders, and the built-in packs.
func loadRules(dirs []string, builtin bool) (*rules.Set, error) {
	var sources []rules.Source
	if builtin {
		sources = append(sources, rules.Builtin())
	}
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("load rules: %w", err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("load rules: %s is not a folder: give the folder that it is in", dir)
		}
		if !holdsRules(os.DirFS(dir)) {
			return nil, fmt.Errorf("load rules: %s holds no rules: their files end in .yml or .yaml", dir)
		}
		sources = append(sources, rules.Dir(dir))
	}
	set, err := rules.Load(sources...)
	if err != nil || len(dirs) == 0 {
		return set, err
	}
	if !slices.ContainsFunc(set.Rules(), func(r *rules.Rule) bool { return isBelow(r.File, dirs) }) {
		return nil, fmt.Errorf("load rules: no rule in %s: the files are empty", strings.Join(dirs, ", "))
	}
	return set, nil
}

// isBelow reports whether a file is in one of dirs, or below it.
func isBelow(file string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		rest, err := filepath.Rel(dir, file)
		return err == nil && filepath.IsLocal(rest)
	})
}

// holdsRules reports whether a folder or one below it has a file of rules, or
// cannot be read, which the loading of the rules reports.
func holdsRules(dir fs.FS) (found bool) {
	err := fs.WalkDir(dir, ".", func(name string, entry fs.DirEntry, err error) error {
		switch ext := path.Ext(name); {
		case err != nil:
			return err
		case name != "." && strings.HasPrefix(entry.Name(), "."): // left out by the rules
			if entry.IsDir() {
				return fs.SkipDir
			}
		case !entry.IsDir() && (ext == ".yml" || ext == ".yaml"):
			found = true
			return fs.SkipAll
		}
		return nil
	})
	return found || err != nil
}
