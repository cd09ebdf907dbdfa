// Command bench measures oddcert beside the programs that it is compared with,
// and prints the figures and the goals as tables in Markdown.
//
//	go run ./packaging/bench
//
// README.md says what is measured and how. Linux only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command can be told.
type options struct {
	runs  int
	scale float64
	only  string // the one case to measure; all if empty
	dir   string // of the captures
	quick bool

	floods bool   // measure the floods, and nothing else
	volume bool   // measure how many bytes of records a day is, and nothing else
	corpus string // folder of captures with expectations, to be read instead; none if empty
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		if part, ok := parts[args[0]]; ok {
			return part(args[1:], stdout)
		}
	}
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.runs, "runs", 5, "how often each program runs; the medians are printed")
	flags.Float64Var(&o.scale, "scale", 1, "factor on the size of captures, lists and rule sets; the goals are for 1")
	flags.StringVar(&o.only, "only", "", "the one case to measure: "+strings.Join(caseNames(), ", "))
	flags.StringVar(&o.dir, "dir", filepath.Join(os.TempDir(), "oddcert-bench"), "`folder` for the captures, which are used again")
	flags.BoolVar(&o.quick, "quick", false, "leave out tshark, and Suricata's run mode of several threads")
	flags.StringVar(&o.corpus, "corpus", "", "`folder` with captures and expected.json: print which certificates each program finds there, and measure nothing else")
	flags.BoolVar(&o.floods, "floods", false, "measure oddcert, and Suricata, in floods that are made to hurt, and nothing else")
	flags.BoolVar(&o.volume, "volume", false, "measure how many bytes of records a day of a busy sensor is, and nothing else")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.runs < 1:
		return fmt.Errorf("-runs %d: less than 1", o.runs)
	case !(o.scale > 0):
		return fmt.Errorf("-scale %v: not above 0", o.scale)
	case o.only != "" && o.floods && !isFlood(o.only):
		return fmt.Errorf("-only %s: the floods are %s", o.only, strings.Join(traffic.Floods(), ", "))
	case o.only != "" && !o.floods && !slices.Contains(caseNames(), o.only):
		return fmt.Errorf("-only %s: the cases are %s", o.only, strings.Join(caseNames(), ", "))
	}
	b, err := newBench(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer b.close()
	if o.floods {
		return measureFloods(ctx, b, stdout)
	}
	if o.volume {
		return measureVolume(ctx, b, stdout)
	}
	if o.corpus != "" {
		return measureCorpus(ctx, b, o.corpus, stdout)
	}
	r := &report{machine: describe(ctx, b)}
	for _, c := range cases {
		if o.only != "" && o.only != c.name {
			continue
		}
		if err := c.measure(ctx, b, r); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	r.loadAfter = load()
	if err := r.write(stdout, o); err != nil {
		return err
	}
	return r.wrong()
}
