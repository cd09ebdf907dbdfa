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
		Short: "Prepare Elasticsearch for the records",
		Long: `Prepare Elasticsearch for the records: an index template for each data stream,
the component templates that they are made of, and the ingest pipeline that sets
event.ingested.

The key for setup needs the cluster privileges manage_index_templates and
manage_ingest_pipelines (and manage_ilm for --lifecycle ilm). The key that sends
records needs none of them, only auto_configure and create_doc on
logs-oddcert.*-* and metrics-oddcert.stats-*.`,
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
		if !c.Elasticsearch.Given() {
			return nil, errors.New("no Elasticsearch given: use --es https://HOST:9200")
		}
		c.remarks(warnTo(cmd))
		return elastic.NewClient(c.Elasticsearch)
	}
	return group(cmd,
		&cobra.Command{
			Use:   "setup",
			Short: "Create or update the templates on the server",
			Args:  noArguments,
			RunE: func(cmd *cobra.Command, _ []string) error {
				client, err := connected(cmd)
				if err != nil {
					return err
				}
				done, err := elastic.Setup(cmd.Context(), client, c.Setup)
				for _, line := range done {
					fmt.Fprintln(terminal.Harmless(cmd.OutOrStdout()), line)
				}
				if err != nil {
					return fmt.Errorf("set up %s: %w", client, err)
				}
				return nil
			},
		},
		&cobra.Command{
			Use:   "check",
			Short: "Compare the templates on the server with those of this program",
			Args:  noArguments,
			RunE: func(cmd *cobra.Command, _ []string) error {
				client, err := connected(cmd)
				if err != nil {
					return err
				}
				differences, err := elastic.Check(cmd.Context(), client, c.Setup)
				for _, d := range differences {
					fmt.Fprintln(terminal.Harmless(cmd.OutOrStdout()), d)
				}
				switch {
				case err != nil:
					return fmt.Errorf("check %s: %w", client, err)
				case len(differences) == 1:
					return errors.New("1 difference: run oddcert es setup")
				case len(differences) > 1:
					return fmt.Errorf("%d differences: run oddcert es setup", len(differences))
				}
				fmt.Fprintln(cmd.OutOrStdout(), "The server has the templates of this program.")
				return nil
			},
		},
		&cobra.Command{
			Use:   "export [DIR]",
			Short: "Write the templates to a folder or to standard output",
			Args:  cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := c.load(cmd); err != nil {
					return err
				}
				if len(args) == 0 {
					return elastic.Export(cmd.OutOrStdout(), c.Setup)
				}
				written, err := elastic.ExportDir(args[0], c.Setup)
				for _, path := range written {
					fmt.Fprintln(terminal.Harmless(cmd.OutOrStdout()), path)
				}
				return err
			},
		},
	)
}
