package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/rules"
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
				fmt.Fprintf(cmd.ErrOrStderr(), "oddcert: warning: %v\n", w)
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
	set, err := rules.LoadDirs(dirs, builtin)
	if err != nil {
		return nil, err
	}
	return set, nil
}
