package main

import (
	"errors"
	"fmt"
	"os"

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
			builtin := rules.Builtin(rules.Optional()...) // they may refer to these
			set, err := loadRules(dirs, &builtin)
			if err != nil {
				return err
			}
			for _, w := range set.Warnings() {
				fmt.Fprintf(terminal.Harmless(cmd.ErrOrStderr()), "oddcert: warning: %v\n", w)
			}
			count, enabled := 0, 0
			for _, r := range set.Rules() {
				if r.Builtin {
					continue
				}
				count++
				if r.Enabled {
					enabled++
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s, %d enabled; %s\n",
				terminal.Count(count, "rule", "rules"), enabled, terminal.Count(len(set.Lists()), "list", "lists"))
			return nil
		},
	}
	return group(&cobra.Command{Use: "rules", Short: "Check rules"}, check)
}

// loadRules loads the rules in folders, after those that are part of the program;
// builtin is nil for none of these.
func loadRules(dirs []string, builtin *rules.Source) (*rules.Set, error) {
	var sources []rules.Source
	if builtin != nil {
		sources = append(sources, *builtin)
	}
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("load rules: %w", err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("load rules: %s is not a folder: give the folder that it is in", dir)
		}
		sources = append(sources, rules.Dir(dir))
	}
	set, err := rules.Load(sources...)
	if err != nil {
		return nil, err
	}
	if empty := set.Empty(); len(empty) > 0 {
		return nil, fmt.Errorf("load rules: %s holds no rules: their files end in .yml or .yaml", empty[0])
	}
	return set, nil
}
