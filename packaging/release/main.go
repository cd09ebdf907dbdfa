// Command release makes what is released of oddcert: static binaries in archives,
// packages for Debian and for distributions with RPM, an integration for Kibana, a list
// of the components of each binary (SBOM), and the hashes of it all.
//
//	go run ./packaging/release -version 1.2.3 -o dist
//
// The same commit, built with the same version of Go, gives the same bytes: with -verify
// everything is made once more, from a clone in another folder and with an empty cache,
// and compared. All times are those of the commit, or of SOURCE_DATE_EPOCH.
//
// It needs Go and git. Modules of Go are all that it fetches.
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
	"regexp"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// semantic matches a version: Semantic Versioning 2.0, without metadata.
var semantic = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z]+(\.[0-9A-Za-z]+)*)?$`)

func run(ctx context.Context, args []string, stderr io.Writer) error {
	var version, out string
	var verify bool
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&version, "version", "", "`version` of the release, such as 1.2.3 or 1.3.0-rc.1")
	flags.StringVar(&out, "o", "dist", "`folder` to write to, which must not hold anything")
	flags.BoolVar(&verify, "verify", false, "make everything once more, from a clone and without a cache, and compare")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case flags.NArg() > 0:
		return fmt.Errorf("%q is not a flag", flags.Arg(0))
	case !semantic.MatchString(version):
		return fmt.Errorf("-version %q is not a version such as 1.2.3", version)
	}
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	root, err := output(ctx, command{name: "git", args: []string{"rev-parse", "--show-toplevel"}})
	if err != nil {
		return fmt.Errorf("find the clone: %w", err)
	}
	r := &release{root: root, out: out, version: version, targets: targets, log: stderr}
	if err := r.make(ctx); err != nil {
		return err
	}
	if verify {
		return r.verify(ctx)
	}
	return nil
}
