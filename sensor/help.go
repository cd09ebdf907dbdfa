package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is the width in columns that the help of flags is wrapped to. The
// library lets a last word stand out a little, which makes 80.
const helpWidth = 75

// usage writes how cmd is used: examples, commands below it, and its flags by
// group.
func usage(cmd *cobra.Command) error {
	w := cmd.OutOrStderr()
	line := cmd.UseLine()
	if cmd.HasAvailableSubCommands() {
		line = cmd.CommandPath() + " COMMAND [flags]"
	}
	fmt.Fprintf(w, "Usage:\n  %s\n", line)
	if cmd.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprint(w, "\nCommands:\n")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() || sub.Name() == "help" {
				fmt.Fprintf(w, "  %-*s  %s\n", cmd.NamePadding(), sub.Name(), sub.Short)
			}
		}
	}
	sets := map[string]*pflag.FlagSet{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		group := groupOther
		if g := f.Annotations[groupAnnotation]; len(g) > 0 {
			group = g[0]
		}
		if sets[group] == nil {
			sets[group] = pflag.NewFlagSet(group, pflag.ContinueOnError)
			sets[group].SortFlags = false
		}
		sets[group].AddFlag(f)
	})
	for _, group := range groups {
		if set := sets[group]; set != nil && set.HasAvailableFlags() {
			fmt.Fprintf(w, "\n%s:\n%s", group, set.FlagUsagesWrapped(helpWidth))
		}
	}
	if cmd.Name() == "replay" || cmd.Name() == "live" || !cmd.HasParent() {
		fmt.Fprintf(w, "\nExit status:\n%s", exitTable())
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n\"%s COMMAND --help\" says more about a command.\n", cmd.CommandPath())
	} else if cmd.Flags().Lookup("config") != nil && onlyOptions(cmd) {
		fmt.Fprint(w, "\nEach flag can also stand in the environment and in a configuration file: see\n\"oddcert config --help\".\n")
	}
	return nil
}

// onlyOptions reports whether all flags of cmd are options.
func onlyOptions(cmd *cobra.Command) bool {
	all, options := true, new(config)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		all = all && (f.Name == "help" || f.Name == "config" || options.find(f.Name) != nil)
	})
	return all
}

// exitTable is the exit statuses with what they mean.
func exitTable() string {
	var b strings.Builder
	for _, s := range exitStatuses {
		fmt.Fprintf(&b, "  %d  %s\n", s.status, s.meaning)
	}
	return b.String()
}

// group makes cmd a command that only has commands below it: without one it shows
// its help, and one that is not known is an error.
func group(cmd *cobra.Command, below ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(below...)
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
	return cmd
}

// noArguments is for commands that only take flags.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("%s takes flags only, not %q", cmd.CommandPath(), args[0])
}

// unknownCommand is the error about a command that cmd does not have.
func unknownCommand(cmd *cobra.Command, name string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	hint := didYouMean(cmd.CommandPath()+" ", name, names)
	if hint == "" {
		slices.Sort(names)
		hint = ": there are " + strings.Join(names, ", ")
	}
	return fmt.Errorf("unknown command %q of %s%s", name, cmd.CommandPath(), hint)
}

// helpCommand shows the help of a command. That of the library ends well when it
// is asked for a command that does not exist.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]…",
		Short: "Show the help of a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			found := cmd.Root()
			for _, name := range args {
				i := slices.IndexFunc(found.Commands(), func(c *cobra.Command) bool { return c.Name() == name })
				if i < 0 {
					return unknownCommand(found, name)
				}
				found = found.Commands()[i]
			}
			found.InitDefaultHelpFlag()
			found.InitDefaultVersionFlag()
			return found.Help()
		},
	}
}
