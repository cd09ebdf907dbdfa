package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"
)

// completionCommand writes what has a shell complete commands, flags and values.
func completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion " + strings.Join(shells, "|"),
		Short: "Write the completion script of a shell",
		Long:  `Write a script with which a shell completes commands, flags and their values.`,
		Example: `  source <(oddcert completion bash)
  oddcert completion zsh >"${fpath[1]}/_oddcert"
  oddcert completion fish >~/.config/fish/completions/oddcert.fish`,
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("name one shell: %s", strings.Join(shells, ", "))
			}
			root, w := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(w, true)
			case "zsh":
				return root.GenZshCompletion(w)
			case "fish":
				return root.GenFishCompletion(w, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(w)
			}
			return fmt.Errorf("unknown shell %q: there are %s", args[0], strings.Join(shells, ", "))
		},
	}
}

// files, dirs and interfaces are what a shell completes values with.

func files() ([]string, cobra.ShellCompDirective) { return nil, cobra.ShellCompDirectiveDefault }

func dirs() ([]string, cobra.ShellCompDirective) { return nil, cobra.ShellCompDirectiveFilterDirs }

func interfaces() (names []string, _ cobra.ShellCompDirective) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
