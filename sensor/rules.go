package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

func rulesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "rules", Short: "Look at rules"}
	cmd.AddCommand(&cobra.Command{
		Use:   "check DIR…",
		Short: "Load the rules in folders and name everything that is wrong with them",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, dirs []string) error {
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
			fmt.Fprintf(cmd.OutOrStdout(), "%d rules, %d enabled; %d lists\n", len(set.Rules()), enabled, len(set.Lists()))
			return nil
		},
	})
	return cmd
}

// loadRules loads the rules in folders, and the built-in packs.
func loadRules(dirs []string, builtin bool) (*rules.Set, error) {
	var sources []rules.Source
	if builtin {
		sources = append(sources, rules.Source{Name: "packs", FS: rules.Builtin()})
	}
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("load rules: %w", err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("load rules: %s is not a folder", dir)
		}
		sources = append(sources, rules.Source{Name: dir, FS: os.DirFS(dir)})
	}
	return rules.Load(sources...)
}
