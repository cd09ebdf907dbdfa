// Command oddcert is a passive network sensor: it reads captures or watches a
// mirror port, takes the server certificates out of TLS, DTLS and QUIC
// handshakes, and says which servers send one that they should not.
//
// A frame becomes an alert in these steps: internal/capture reads it,
// internal/decode finds the packet in it, internal/flow puts the bytes of its flow
// in order, the module's parsers make handshakes of them, its rules match those,
// and internal/output makes records and delivers them. internal/pipeline connects
// the steps, and internal/terminal is what a person sees.
//
// In this package, main.go has the exit statuses and the only calls of os.Exit;
// replay.go, live.go, rules.go, elasticsearch.go and the files *command.go have the
// commands; options.go has all that they can be told, in one table.
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

	"github.com/oddcert/oddcert/sensor/internal/sandbox"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1
	exitNothing = 1 // certs and cut have found nothing, as grep has it
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
		"     refused for good, or (replay) are left in the spool; or certs and cut have\n" +
		"     found nothing"},
	{exitInput, "some input could not be read completely"},
	{exitAlert, "a rule has matched, and --fail-on-alert was given"},
}

// gcPercent makes the garbage collector run when the heap has grown by a third.
// That costs some percent of the CPU time of a replay, and saves a quarter of its
// memory. GOGC in the environment overrides it.
//
// ballast counts as heap in use, but nobody touches it, and so it takes no memory.
// Without it a small heap would be collected after each megabyte, which takes
// milliseconds every time, because libraries have 5 MB of variables.
const (
	gcPercent = 35
	ballast   = 16 << 20
)

func main() {
	if sandbox.IsOpener() {
		os.Exit(sandbox.Serve())
	}
	percent := debug.SetGCPercent(-1) // no collection while the ballast is made
	if os.Getenv("GOGC") == "" {
		percent = gcPercent
	}
	weight := make([]byte, ballast)
	debug.SetGCPercent(percent)
	forbidCoreDumps()
	catch()
	confine = sandbox.Confine
	status := run(os.Args[1:], os.Stdout, os.Stderr)
	runtime.KeepAlive(weight)
	os.Exit(status)
}

// hangups has the requests to reopen files.
var hangups = make(chan os.Signal, 1)

// catch keeps two signals from ending the program: SIGHUP, on which the file of
// records is reopened, and SIGPIPE, which Go would raise when nobody reads
// standard output any more.
func catch() {
	signal.Notify(hangups, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE)
}

// exit is an error that is only an exit status, without a text for the user.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// run is main without the process: it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	warnings := terminal.Harmless(stderr)
	ended := context.AfterFunc(ctx, func() {
		stop() // so that a second signal ends the program at once
		// A disk or a pipe that hangs must not keep the program from ending.
		time.AfterFunc(stopLimit, func() {
			go fmt.Fprintln(warnings, "oddcert: an output hangs: ended without the counts of what was lost")
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
		fmt.Fprintf(warnings, "oddcert: %s\n", strings.TrimSuffix(line, "\n"))
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
	}, replayCommand(), liveCommand(), reportCommand(), doctorCommand(), certsCommand(), cutCommand(), rulesCommand(), elasticsearchCommand(), evidenceCommand(), spoolCommand(), deadlettersCommand(), configCommand(), completionCommand())
	root.AddCommand(manualCommands()...)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetUsageFunc(usage)
	root.SetHelpCommand(helpCommand())
	return root
}
