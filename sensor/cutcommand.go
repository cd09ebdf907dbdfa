package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/pcapng"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

// cut is what oddcert cut is told.
type cut struct {
	config                                        config
	alerts, certificates, servers, clients, flows []string
	handshakes, secrets, force                    bool
	out                                           string
}

func cutCommand() *cobra.Command {
	c := new(cut)
	cmd := &cobra.Command{
		Use:   "cut [flags] -o FILE CAPTURE…",
		Short: "Cut flows out of captures",
		Long: `Cut flows out of captures, into a pcapng file: all frames of each flow, both
ways, with the tunnels and the fragments that carried them. Errors of ICMP that
quote a flow are left out, and so are secrets inside of the captures.

A selection that is repeated widens the choice, and different ones narrow it.
With addresses and five-tuples alone, captures are read once, and nobody looks
whether a flow has TLS, or which of its ends is the server. All other
selections need two looks, and therefore files.

The id of an alert holds for the capture, or the sensor, that it came from. An
alert of a live sensor is found in a capture by its record: its five-tuple, from
half a minute before its handshake to the end of the flow.

Exit status:
  0  frames were found, and all input was read
  1  nothing was found, or wrong use
  2  frames were found, and some input could not be read completely`,
		Example: `  oddcert cut --server 192.0.2.2:443 -o server.pcapng captures/
  oddcert cut --certificate 149190E5014F4322 -o odd.pcapng capture.pcap
  oddcert cut --alert alert.json -o alert.pcapng captures/
  oddcert cut --flow 192.0.2.1:44512-192.0.2.2:443/tcp -o a.pcapng capture.pcap
  oddcert cut --handshakes -o handshakes.pcapng monday.pcapng.zst`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd, args) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&c.alerts, "alert", nil, "the flow of an `alert`: its id, as it is shown or in its record (event.id), where the rules find it in these captures, or a file with its record (JSON; - is standard input)")
	f.StringArrayVar(&c.certificates, "certificate", nil, "flows that show the certificate with this `SHA-256`, of which the first 8 hex digits will do")
	f.StringArrayVar(&c.servers, "server", nil, "flows of this server: an `address`, network, address:port, or the name that the client asks for (also *.name)")
	f.StringArrayVar(&c.clients, "client", nil, "flows of this client: an `address` or a network")
	f.StringArrayVar(&c.flows, "flow", nil, "the `flow` A:PORT-B:PORT/tcp, or with udp, sctp or eapol (between MAC addresses), or a Community ID (1:…=)")
	f.BoolVar(&c.handshakes, "handshakes", false, "only the frames of handshakes, up to the last message in the clear, and no flow without one")
	f.StringVarP(&c.out, "out", "o", "", "pcapng `file` to write; - is standard output")
	f.BoolVar(&c.force, "force", false, "replace the file where there is one")
	f.BoolVar(&c.secrets, "secrets", false, "copy the secrets that the captures have of any flow")
	inGroup(cmd, groupChoice, "alert", "certificate", "server", "client", "flow", "handshakes")
	inGroup(cmd, groupAnswer, "out", "force", "secrets")
	c.config.bind(cmd, f, onInventory)
	return cmd
}

func (c *cut) run(cmd *cobra.Command, paths []string) error {
	if len(paths) == 0 {
		return errors.New("no capture named: give files, folders, or - for standard input")
	}
	if slices.Contains(c.alerts, "-") && slices.Contains(paths, "-") {
		return errors.New("standard input is a capture or the records of alerts, not both")
	}
	for _, path := range paths {
		if is, _ := isInventory(path); is { // what cannot be opened is told when it is read
			return fmt.Errorf("%s is an inventory, which has no frames: name the captures", path)
		}
	}
	choice, err := c.parse(cmd.InOrStdin())
	if err = errors.Join(err, c.checkOut(cmd, paths)); err != nil {
		return err
	}
	var flows []frames.Flow
	var screen *terminal.Screen
	kept := new(keptSecrets)
	var warn func(error)
	if choice.parsed {
		s, err := newSensor(cmd, &c.config, false)
		if err != nil {
			return err
		}
		screen = s.screen // which says here what cannot be read, and not again
		defer screen.Close()
		if flows, err = c.find(s, choice, paths); err != nil {
			return err
		}
	} else {
		if err := c.config.load(cmd); err != nil {
			return err
		}
		screen = terminal.New(cmd.OutOrStdout(), cmd.ErrOrStderr(), terminal.Options{})
		defer screen.Close()
		warn = screen.Warn
		flows = choice.told()
	}
	in, source, err := c.open(paths, kept, warn)
	if err != nil {
		return err
	}
	defer in.Close()

	out := &cutFile{cut: c, stdout: cmd.OutOrStdout(), secrets: kept}
	count := map[int]bool{}
	each := func(f *frames.Frame, of []int) error {
		for _, n := range of {
			count[n] = true
		}
		return out.write(f)
	}
	stop := screen.Progress(in.Progress)
	options := frames.Options{VLANs: c.config.VLANs}
	var stats frames.Stats
	ofFlows := choice.parsed || choice.alerts.any()
	if ofFlows {
		stats, err = frames.Cut(cmd.Context(), source, flows, options, each)
	} else {
		stats, err = frames.CutWhere(cmd.Context(), source, choice, options, each)
	}
	stop()
	if err = out.close(err); err != nil {
		if isOnly(err, context.Canceled) {
			err = fmt.Errorf("stopped before the end of the input: %s is not written", c.out)
		}
		return err
	}
	read := in.Stats()
	if stats.GivenUp > 0 {
		screen.Warn(fmt.Errorf("%s may be missing: there were too many incomplete datagrams at a time", terminal.Count(int(stats.GivenUp), "fragment", "fragments")))
	}
	if kept.dropped > 0 {
		screen.Warn(fmt.Errorf("%s of secrets are left out: a capture has more than %s", formatSize(kept.dropped), formatSize(maxSecrets)))
	}
	unfound := choice.alerts.unfound(stats.Frames)
	if stats.Frames == 0 && unfound == nil {
		unfound = errors.New("nothing was found")
	}
	if unfound != nil {
		screen.Warn(unfound)
	}
	if stats.Frames == 0 {
		return exit(exitNothing)
	}
	w := cmd.OutOrStdout()
	if c.out == "-" {
		w = cmd.ErrOrStderr()
	}
	found := terminal.Count(int(stats.Frames), "frame", "frames")
	if ofFlows {
		found += " of " + terminal.Count(len(count), "flow", "flows")
	}
	fmt.Fprintf(terminal.Harmless(w), "%s, %d bytes: %s\n", found, stats.Bytes, c.out)
	if read.Broken > 0 || read.Corrupt > 0 || read.Ignored > 0 {
		return exit(exitInput)
	}
	return nil
}

// checkOut reports what is wrong with the name of the output.
func (c *cut) checkOut(cmd *cobra.Command, paths []string) error {
	if c.out == "" {
		return errors.New("say where to write to: -o FILE, or -o - for standard output")
	}
	if c.out == "-" {
		if terminal.IsTerminal(cmd.OutOrStdout()) {
			return errors.New("a capture does not belong on a terminal: send standard output elsewhere, or write to a file with -o FILE")
		}
		return nil
	}
	there, err := os.Stat(c.out)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !there.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file: give another name", c.out)
	case !c.force:
		return fmt.Errorf("%s is there: give another name, or --force", c.out)
	}
	for _, path := range paths {
		same := false
		_ = filepath.WalkDir(path, func(name string, _ fs.DirEntry, _ error) error {
			if info, err := os.Stat(name); err == nil && os.SameFile(info, there) {
				same = true
				return fs.SkipAll
			}
			return nil
		})
		if same {
			return fmt.Errorf("%s is one of the captures to read: give another name", c.out)
		}
	}
	return nil
}

// maxFlows bounds how many flows are looked for at a time.
const maxFlows = 1 << 20

// find reads captures and returns the flows of the handshakes that are wanted.
func (c *cut) find(s *sensor, choice *cutChoice, paths []string) ([]frames.Flow, error) {
	in, err := s.openCaptures(paths)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if in.Streams() || slices.Contains(paths, "-") {
		return nil, errors.New("these selections need two looks at a capture, and a pipe can be read once: save it to a file first, or select by address or five-tuple alone")
	}
	flows, too := []frames.Flow{}, false
	seen := map[frames.Flow]bool{}
	s.outs = &outputs{}
	options := s.reading(in)
	options.Records.Datasets = output.Set(0).Add(output.Alert) // they have the ids
	options.Alert = nil
	options.Found = func(f *finding.Finding) {
		if !choice.fits(f) {
			return
		}
		flow := frames.WholeOf(f.Handshake)
		if c.handshakes {
			flow = frames.Of(f.Handshake)
		}
		if seen[flow] {
			return
		}
		if too = too || len(flows) == maxFlows; !too {
			seen[flow] = true
			flows = append(flows, flow)
		}
	}
	stop := s.screen.Progress(in.Progress)
	err = pipeline.New(options).Replay(s.cmd.Context(), in.source)
	stop()
	if err == nil && too {
		err = fmt.Errorf("more than %d flows are wanted: narrow the choice", maxFlows)
	}
	return flows, err
}

// open opens captures for the look at which frames are taken.
func (c *cut) open(paths []string, kept *keptSecrets, warn func(error)) (files *capture.Files, source capture.Source, err error) {
	options := capture.FileOptions{Warn: warn}
	if c.secrets {
		options.Secrets = func(string) io.WriteCloser { return &keptBlock{to: kept} }
	}
	if files, err = capture.OpenFiles(paths, options); err != nil {
		return nil, nil, err
	}
	if source, err = c.config.filtered(files); err != nil {
		files.Close()
		return nil, nil, err
	}
	return files, source, nil
}

// maxSecrets bounds the secrets that are copied from captures.
const maxSecrets = 16 << 20

// keptSecrets are secrets that the captures have, and that are to be written before the
// next frame. Whoever reads puts them in.
type keptSecrets struct {
	mu      sync.Mutex
	blocks  [][]byte
	bytes   int
	dropped int64 // bytes
}

// take returns the blocks, and forgets them.
func (k *keptSecrets) take() [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	blocks := k.blocks
	k.blocks = nil
	return blocks
}

// keptBlock takes the text of one block.
type keptBlock struct {
	bytes.Buffer
	to *keptSecrets
}

func (b *keptBlock) Write(p []byte) (int, error) {
	b.to.mu.Lock()
	defer b.to.mu.Unlock()
	if b.to.bytes+len(p) > maxSecrets {
		b.to.dropped += int64(len(p))
		return len(p), nil
	}
	b.to.bytes += len(p)
	return b.Buffer.Write(p)
}

func (b *keptBlock) Close() error {
	b.to.mu.Lock()
	defer b.to.mu.Unlock()
	if b.Len() > 0 {
		b.to.blocks = append(b.to.blocks, b.Bytes())
	}
	return nil
}

// cutFile is the file that is written. It is begun with the first frame.
type cutFile struct {
	*cut
	stdout  io.Writer
	secrets *keptSecrets
	part    *os.File // nil for standard output
	writer  *pcapng.Writer
}

// write appends a frame.
func (o *cutFile) write(f *frames.Frame) error {
	if o.writer == nil {
		if err := o.begin(); err != nil {
			return err
		}
	}
	for _, block := range o.secrets.take() {
		if err := o.writer.Secrets(block); err != nil {
			return err
		}
	}
	from := filepath.Base(f.Origin.Path)
	if f.Origin.Path == "-" {
		from = "standard input"
	}
	return o.writer.Packet(&pcapng.Packet{
		Interface: pcapng.Interface{LinkType: f.LinkType, Name: f.Origin.Interface, Description: from},
		Time:      f.Time,
		Length:    f.Length,
		Data:      f.Data,
	})
}

func (o *cutFile) begin() (err error) {
	w := o.stdout
	if o.out != "-" {
		if o.part, err = os.CreateTemp(filepath.Dir(o.out), filepath.Base(o.out)+".*.part"); err != nil {
			return err
		}
		w = o.part
	}
	o.writer, err = pcapng.NewWriter(w, pcapng.Section{Application: "oddcert " + version()})
	return err
}

// close gives the file its name, or removes it if err is an error that there was.
func (o *cutFile) close(err error) error {
	if o.writer != nil && err == nil {
		err = o.writer.Flush()
	}
	if o.part == nil {
		return err
	}
	err = errors.Join(err, o.part.Close())
	if err == nil && o.force {
		err = os.Rename(o.part.Name(), o.out)
	} else if err == nil {
		// Unlike Rename, Link does not replace what has come there meanwhile.
		if err = os.Link(o.part.Name(), o.out); errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
			err = os.Rename(o.part.Name(), o.out)
		}
	}
	os.Remove(o.part.Name())
	return err
}
