// Command oddcert is a passive network sensor: it reads captures or watches a
// mirror port, takes the server certificates out of TLS and DTLS handshakes,
// and says which servers show one that they should not.
//
// The way of a packet to an alert: internal/capture yields frames,
// internal/flow makes flows of them, the module's parsers make handshakes of
// the bytes of a flow, its rules match them, and internal/output makes records
// and delivers them. internal/pipeline connects the stages.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1
	exitInput   = 2
	exitAlert   = 3
)

// exitStatuses says what they mean, for the help. README.md has the same table.
var exitStatuses = []struct {
	status  int
	meaning string
}{
	{exitOK, "all input was read, or a live capture was told to end"},
	{exitFailure, "wrong use or configuration, or an output failed: records were lost, were\n" +
		"     refused for good, or (replay) are left in the spool"},
	{exitInput, "some input could not be read completely"},
	{exitAlert, "a rule has matched, and --fail-on-alert was given"},
}

// gcPercent makes the garbage collector run when the heap has grown by a third
// of what is in use: it costs some percent of the CPU time of a replay, and
// spares a quarter of its memory. GOGC in the environment overrides it.
//
// ballast is part of what is in use, but is never touched, and so takes no
// memory: without it a small heap would be collected after each megabyte. That
// costs milliseconds every time, for libraries have 5 MB of variables.
const (
	gcPercent = 35
	ballast   = 16 << 20
)

func main() {
	percent := debug.SetGCPercent(-1) // or the ballast would be collected around
	if os.Getenv("GOGC") == "" {
		percent = gcPercent
	}
	weight := make([]byte, ballast)
	debug.SetGCPercent(percent)
	secure()
	catch()
	status := run(os.Args[1:], os.Stdout, os.Stderr)
	runtime.KeepAlive(weight)
	os.Exit(status)
}

// hangups has the requests to open files anew.
var hangups = make(chan os.Signal, 1)

// catch keeps signals from ending the program that are not meant to: SIGHUP,
// which has the records' file opened anew where there is one, and SIGPIPE, which
// Go would raise when nobody reads standard output any more.
func catch() {
	signal.Notify(hangups, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE)
}

// exit is an error that says no more than an exit status.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// run is main without the process: it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	said := terminal.Harmless(stderr)
	ended := context.AfterFunc(ctx, func() {
		stop() // a second signal ends the program the hard way
		// Whatever hangs, a disk or a pipe, it ends in time.
		time.AfterFunc(stopLimit, func() {
			go fmt.Fprintln(said, "oddcert: something hangs: ended without the counts of what was lost")
			time.Sleep(100 * time.Millisecond)
			os.Exit(exitFailure)
		})
	})
	defer ended()

	root := rootCommand()
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)

	err := root.ExecuteContext(ctx)
	var status exit
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(said, "oddcert: %s\n", strings.TrimSuffix(line, "\n"))
	}
	return exitFailure
}

// rootCommand is the program's command line.
func rootCommand() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "oddcert",
		Short: "Find servers that send a certificate which they should not",
		Long: `oddcert reads captures or watches a mirror port, takes the server certificates
out of TLS, DTLS and QUIC handshakes, and reports those that match its rules.`,
		Example: `  oddcert replay capture.pcap                     read a capture
  oddcert replay --json records.json captures/    read all captures in a folder
  sudo oddcert live -i eth1                       watch a mirror port`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}, replayCommand(), liveCommand(), rulesCommand(), elasticsearchCommand(), configCommand(), completionCommand())
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetUsageFunc(usage)
	root.SetHelpCommand(helpCommand())
	return root
}
