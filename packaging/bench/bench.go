package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// bench is what the cases share.
type bench struct {
	options
	self    string            // this program
	oddcert string            // built for the occasion
	gencap  string            // likewise
	peers   map[string]string // paths of those that are installed
	out     string            // folder for what the programs write
	log     io.Writer         // progress
}

// seed is that of all captures.
const seed = 1

// The configuration that Suricata is fastest with, and its one rule.
var (
	//go:embed suricata.yaml
	suricataConfig []byte
	//go:embed suricata.rules
	suricataRules []byte
)

// newBench builds oddcert and looks for the others.
func newBench(ctx context.Context, o options, log io.Writer) (_ *bench, err error) {
	b := &bench{options: o, peers: make(map[string]string), log: log}
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(b.dir, 0o777); err != nil {
		return nil, err
	}
	// In memory if possible, so that no disk has a say.
	if b.out, err = os.MkdirTemp("/dev/shm", "oddcert-bench-"); err != nil {
		if b.out, err = os.MkdirTemp("", "oddcert-bench-"); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	const module = "github.com/oddcert/oddcert/"
	b.oddcert, b.gencap = filepath.Join(b.out, "oddcert"), filepath.Join(b.out, "gencap")
	for path, pkg := range map[string]string{b.oddcert: "sensor", b.gencap: "packaging/bench/gencap"} {
		fmt.Fprintln(log, "build", pkg)
		cmd := exec.CommandContext(ctx, "go", "build", "-o", path, module+pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w: %s", pkg, err, text)
		}
	}
	for _, name := range []string{"suricata", "tcpdump", "tshark", "zstd", "gzip"} {
		if path, err := exec.LookPath(name); err == nil {
			b.peers[name] = path
		}
	}
	err = errors.Join(os.WriteFile(filepath.Join(b.out, "suricata.yaml"), suricataConfig, 0o666),
		os.WriteFile(filepath.Join(b.out, "suricata.rules"), suricataRules, 0o666))
	return b, err
}

func (b *bench) close() { os.RemoveAll(b.out) }

// capture returns the named capture, which it makes if need be.
func (b *bench) capture(ctx context.Context, name string, scale float64) (input, error) {
	factor := strconv.FormatFloat(scale, 'g', -1, 64)
	path := filepath.Join(b.dir, fmt.Sprintf("%s-x%s-seed%d.pcap", name, factor, seed))
	in := input{name, path, truthOf(path)}
	// The truth is the last to get its name: where it is, the capture is whole.
	if _, err := os.Stat(in.truth); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return in, err
	}
	fmt.Fprintln(b.log, "make", path)
	part := path + ".part"
	if _, err := output(ctx, b.gencap, "-kind", name, "-scale", factor, "-seed", strconv.Itoa(seed), "-o", part); err != nil {
		return in, errors.Join(err, os.RemoveAll(part))
	}
	return in, errors.Join(os.Rename(part, path), os.Rename(truthOf(part), in.truth))
}

// truthOf is where gencap puts the truth of a capture.
func truthOf(capture string) string { return capture + ".truth.json" }

// sensor is oddcert with a number of workers and further flags, on a capture.
func (b *bench) sensor(name, path string, workers int, flags ...string) program {
	records := filepath.Join(b.out, "records.json")
	args := []string{b.oddcert, "replay", "--workers", strconv.Itoa(workers), "--json", records, "--records", "handshake,alert,stats"}
	args = append(append(args, flags...), path)
	return program{name: name, args: args, output: records, format: "records"}
}

// suricata is Suricata in a run mode, on a capture.
func (b *bench) suricata(path, mode string) program {
	return program{
		name: "Suricata, " + mode,
		args: []string{b.peers["suricata"], "-r", path, "-c", filepath.Join(b.out, "suricata.yaml"),
			"-S", filepath.Join(b.out, "suricata.rules"), "-l", b.out, "-k", "none", "--runmode", mode},
		output: filepath.Join(b.out, "eve.json"),
		format: "eve",
	}
}

// Names of programs in the tables.
const (
	oneWorker  = "oddcert, 1 worker"
	twoWorkers = "oddcert, 2 workers"
	single     = "Suricata, single"
	autofp     = "Suricata, autofp"
	tcpdump    = "tcpdump -w"
	tshark     = "tshark"
	bareLoop   = "bare loop"
	bareUnpack = "its decompressor alone"
	withRules  = "oddcert, 1 worker, many rules"
)

// contenders are all that read a plain capture, the installed ones.
func (b *bench) contenders(path string) []program {
	all := []program{b.sensor(oneWorker, path, 1), b.sensor(twoWorkers, path, 2)}
	if _, ok := b.peers["suricata"]; ok {
		all = append(all, b.suricata(path, "single"))
		if !b.quick {
			all = append(all, b.suricata(path, "autofp"))
		}
	}
	if dump, ok := b.peers["tcpdump"]; ok {
		all = append(all, program{name: tcpdump, args: []string{dump, "-r", path, "-w", "/dev/null"}})
	}
	return append(all, program{name: bareLoop, args: []string{b.self, "walk", path}})
}
