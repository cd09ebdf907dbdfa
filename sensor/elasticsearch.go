package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic"
)

func elasticsearchCommand() *cobra.Command {
	var c config
	var o elastic.SetupOptions
	var lifecycle string
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
	}
	c.bindCommon(cmd.PersistentFlags())
	cmd.PersistentFlags().BoolVar(&o.Portable, "portable", false, "use only field types that every server has; always so with OpenSearch")
	cmd.PersistentFlags().StringVar(&lifecycle, "lifecycle", "", "dsl, ilm or none (default: what the server can do)")
	cmd.PersistentFlags().StringVar(&o.Retention, "retention", "", "how long records are kept, such as 90d (default: for ever)")

	// connected loads the configuration and connects, for the commands that
	// talk to a server.
	connected := func(cmd *cobra.Command) (*elastic.Client, error) {
		if err := c.load(cmd); err != nil {
			return nil, err
		}
		if len(c.Elasticsearch.Addresses) == 0 {
			return nil, errors.New("no Elasticsearch given: use --es http://HOST:9200, or elasticsearch.addresses in the configuration file")
		}
		said := output.Harmless(cmd.ErrOrStderr())
		c.careless(func(err error) { fmt.Fprintf(said, "oddcert: %v\n", err) })
		o.Lifecycle = elastic.Lifecycle(lifecycle)
		return elastic.NewClient(c.Elasticsearch)
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "setup",
			Short: "Create or update the templates on the server",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				client, err := connected(cmd)
				if err != nil {
					return err
				}
				done, err := elastic.Setup(cmd.Context(), client, o)
				for _, line := range done {
					fmt.Fprintln(output.Harmless(cmd.OutOrStdout()), line)
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
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				client, err := connected(cmd)
				if err != nil {
					return err
				}
				differences, err := elastic.Check(cmd.Context(), client, o)
				for _, d := range differences {
					fmt.Fprintln(output.Harmless(cmd.OutOrStdout()), d)
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
			Short: "Write the templates to a folder, or to standard output for Kibana's console",
			Args:  cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				o.Lifecycle = elastic.Lifecycle(lifecycle)
				if len(args) == 0 {
					return elastic.Export(cmd.OutOrStdout(), o)
				}
				written, err := elastic.ExportDir(args[0], o)
				for _, path := range written {
					fmt.Fprintln(output.Harmless(cmd.OutOrStdout()), path)
				}
				return err
			},
		},
	)
	return cmd
}
