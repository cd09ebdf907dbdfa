package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/output/elastic"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

func elasticsearchCommand() *cobra.Command {
	var c config
	cmd := &cobra.Command{
		Use:   "es",
		Short: "Install and check the templates of Elasticsearch",
		Long: `Prepare Elasticsearch for the records: index templates, component templates and
lifecycle. The key that does this needs more rights than the one that sends
records, which needs auto_configure and create_doc on logs-oddcert.* alone.`,
		Example: `  oddcert es setup --es https://es.example.net:9200
  oddcert es check --es https://es.example.net:9200
  oddcert es export templates/`,
	}
	c.bind(cmd, cmd.PersistentFlags(), onSetup)

	// connected loads the configuration and connects, for the commands that
	// talk to a server.
	connected := func(cmd *cobra.Command) (*elastic.Client, error) {
		if err := c.load(cmd); err != nil {
			return nil, err
		}
		if len(c.Elasticsearch.Addresses) == 0 {
			return nil, errors.New("no address of an Elasticsearch given: use --es")
		}
		said := terminal.Harmless(cmd.ErrOrStderr())
		c.remarks(func(err error) { fmt.Fprintf(said, "oddcert: %v\n", err) })
		return elastic.NewClient(c.Elasticsearch)
	}
	return group(cmd,
		&cobra.Command{
			Use:   "setup",
			Short: "Put the templates",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				client, err := connected(cmd)
				if err != nil {
					return err
				}
				notes, err := elastic.Setup(cmd.Context(), client, c.Setup)
				for _, n := range notes {
					fmt.Fprintln(terminal.Harmless(cmd.OutOrStdout()), n)
				}
				return err
			},
		},
		&cobra.Command{
			Use:   "check",
			Short: "Compare the templates on the server with those of this program",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				client, err := connected(cmd)
				if err != nil {
					return err
				}
				differences, err := elastic.Check(cmd.Context(), client, c.Setup)
				if err != nil {
					return err
				}
				for _, d := range differences {
					fmt.Fprintln(terminal.Harmless(cmd.OutOrStdout()), d)
				}
				if len(differences) > 0 {
					return fmt.Errorf("%d differences: run oddcert es setup", len(differences))
				}
				fmt.Fprintln(cmd.OutOrStdout(), "the templates are those of this program")
				return nil
			},
		},
		&cobra.Command{
			Use:   "export [DIR]",
			Short: "Write the templates to a folder, or to standard output",
			Args:  cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := c.load(cmd); err != nil {
					return err
				}
				if len(args) == 0 {
					return elastic.Export(cmd.OutOrStdout(), c.Setup)
				}
				return elastic.ExportDir(args[0], c.Setup)
			},
		},
	)
}
