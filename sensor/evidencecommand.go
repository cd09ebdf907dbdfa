package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/evidence"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

func evidenceCommand() *cobra.Command {
	var c config
	var asJSON bool
	verify := &cobra.Command{
		Use:   "verify [flags] PATH…",
		Short: "Check packs, and whether they give the same alerts again",
		Long: `Check packs of evidence: a folder of them, one pack, or an archive with one.

Each file is held against the manifest, the manifest against its signature and
the chain, and the rule is run again over the capture of the pack, with the
rules and lists of this configuration. What differs is named.

A pack that was taken out of a folder is missing in its chain. Whoever can write
to the folder can shorten the chain at its end, and nobody sees that in the
folder alone: keep the hash of the newest manifest elsewhere, which is shown in
the end. The file of --allowed-signers is that of ssh-keygen -Y verify.

The exit status is 1 when something is wrong.`,
		Example: `  oddcert evidence verify /var/lib/oddcert/evidence
  oddcert evidence verify --allowed-signers /etc/oddcert/signers packs`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name a folder of packs, a pack, or an archive")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return verifyEvidence(cmd, &c, args, asJSON) },
	}
	c.bind(verify, verify.Flags(), onInventory|onEvidence)
	verify.Flags().BoolVar(&asJSON, "json", false, "write one JSON object")
	return group(&cobra.Command{
		Use:   "evidence",
		Short: "Check packs of evidence",
		Long: `Check packs of evidence, which --evidence has a replay or a live capture write:
one for each alert, with the certificates, the frames of the handshake, the rule
and where all of it came from.`,
	}, verify)
}

func verifyEvidence(cmd *cobra.Command, c *config, paths []string, asJSON bool) error {
	s, err := newSensor(cmd, c, false)
	if err != nil {
		return err
	}
	defer s.screen.Close()
	s.outs = &outputs{}
	o := evidence.VerifyOptions{Replay: s.alertsOf, Version: func(id string) string {
		if r := s.rules.Rule(id); r != nil {
			return r.Version
		}
		return ""
	}}
	if c.AllowedSigners != "" {
		if o.Signers, err = evidence.ReadSigners(c.AllowedSigners); err != nil {
			return err
		}
		for _, line := range o.Signers.Skipped {
			s.screen.Warn(fmt.Errorf("%s: %s", c.AllowedSigners, line))
		}
	}
	all := evidence.Result{Packs: []evidence.Checked{}, Problems: []string{}}
	for _, path := range paths {
		r, err := evidence.Verify(cmd.Context(), path, o)
		if err != nil {
			return err
		}
		if !asJSON {
			if err := r.Write(terminal.Harmless(cmd.OutOrStdout())); err != nil {
				return err
			}
		}
		all.Packs, all.Problems = append(all.Packs, r.Packs...), append(all.Problems, r.Problems...)
		all.Chain, all.Head = all.Chain+r.Chain, r.Head
	}
	if asJSON {
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(all); err != nil {
			return err
		}
	} else if n := len(all.Packs); n > 1 {
		wrong := "nothing wrong"
		if all.Wrong() > 0 {
			wrong = terminal.Count(all.Wrong(), "thing wrong", "things wrong")
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d packs, %s\n", n, wrong)
	}
	if all.Wrong() > 0 {
		return exit(exitFailure)
	}
	return nil
}

// alertsOf returns the alerts that a capture raises.
func (s *sensor) alertsOf(ctx context.Context, path string) (list []evidence.Found, err error) {
	in, err := s.openCaptures([]string{path})
	if err != nil {
		return nil, err
	}
	defer in.Close()
	options := s.reading(in)
	options.Records.Datasets = output.Set(0).Add(output.Alert)
	options.Alert = nil
	options.Found = func(f *finding.Finding) {
		for i := range f.Alerts {
			one := evidence.Found{Subject: evidence.SubjectOf(f.Handshake, f.Alerts[i].Match.Rule)}
			for _, c := range f.Handshake.Chain {
				if c.Certificate != nil && !c.Truncated && len(c.DER) > 0 {
					one.Certificates = append(one.Certificates, fmt.Sprintf("%X", c.SHA256))
				}
			}
			list = append(list, one)
		}
	}
	if err := pipeline.New(options).Replay(ctx, in.source); err != nil {
		return nil, err
	}
	return list, nil
}
