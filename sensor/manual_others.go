//go:build !manual

package main

import "github.com/spf13/cobra"

// manualCommands is empty in the program that is installed: only who makes packages
// needs the pages as files.
func manualCommands() []*cobra.Command { return nil }
