package main

import "github.com/spf13/cobra"

func elasticsearchCommand() *cobra.Command { return &cobra.Command{Use: "es"} }
