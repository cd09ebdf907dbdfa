package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// testCase is something to measure; it adds rows to the report.
type testCase struct {
	name    string
	measure func(context.Context, *bench, *report) error
}

// cases are all of them. Those that are named after a capture measure whatever
// reads it.
var cases = func() []testCase {
	all := []testCase{
		{startup, measureStartup},
		{bulk, measureBulk},
		{handshakes, plain(handshakes)},
		{mix, plain(mix)},
	}
	for _, name := range hurting {
		all = append(all, testCase{name, plain(name)})
	}
	return append(all, testCase{"compressed", measureCompressed}, testCase{"rules", measureRules}, testCase{"live", measureLive})
}()

// The cases that goals are set for.
const (
	startup    = "startup"
	bulk       = "bulk"
	handshakes = "handshakes"
	mix        = "mix"
	syns       = "syns"
)

// hurting are the captures that are made to cost time and memory.
var hurting = []string{"undecided", "tiny", "disorder", "chains", "datagrams", "hellos", syns}

// What measureCompressed and measureRules call their captures.
const (
	zstdBulk        = "bulk, zstd"
	gzipBulk        = "bulk, gzip"
	rulesHandshakes = "handshakes, rules"
	rulesStartup    = "startup, rules"
)

func caseNames() (names []string) {
	for _, c := range cases {
		names = append(names, c.name)
	}
	return names
}

// plain compares all contenders on the named capture.
func plain(name string) func(context.Context, *bench, *report) error {
	return func(ctx context.Context, b *bench, r *report) error {
		in, err := b.capture(ctx, name, b.scale)
		if err != nil {
			return err
		}
		return r.compare(ctx, b, in, b.contenders(in.path))
	}
}

// nothing is a capture of one flow that is no TLS: what a program takes for it
// is what it takes to start and to end.
func (b *bench) nothing(ctx context.Context) (input, error) {
	return b.capture(ctx, "datagrams", 1e-9)
}

func measureStartup(ctx context.Context, b *bench, r *report) error {
	in, err := b.nothing(ctx)
	if err != nil {
		return err
	}
	in.name = startup
	return r.compare(ctx, b, in, b.contenders(in.path))
}

// measureBulk has tshark too, which would take too long on the others.
func measureBulk(ctx context.Context, b *bench, r *report) error {
	in, err := b.capture(ctx, bulk, b.scale)
	if err != nil {
		return err
	}
	programs := b.contenders(in.path)
	if path, ok := b.peers["tshark"]; ok && !b.quick {
		programs = append(programs, program{
			name: tshark,
			args: []string{path, "-n", "-r", in.path, "-Y", "tls.handshake.certificate",
				"-T", "fields", "-e", "ip.src", "-e", "tls.handshake.certificate"},
			output: filepath.Join(b.out, "tshark.txt"),
			stdout: true,
			format: "lines",
			slow:   true,
		})
	}
	return r.compare(ctx, b, in, programs)
}

// measureCompressed compares reading a compressed capture with decompressing
// it, by the command for that and by the library that oddcert has for it.
func measureCompressed(ctx context.Context, b *bench, r *report) error {
	plain, err := b.capture(ctx, bulk, b.scale)
	if err != nil {
		return err
	}
	for _, c := range []struct{ name, tool, extension string }{{zstdBulk, "zstd", ".zst"}, {gzipBulk, "gzip", ".gz"}} {
		tool, ok := b.peers[c.tool]
		if !ok {
			continue
		}
		in := input{c.name, plain.path + c.extension, plain.truth}
		if _, err := os.Stat(in.path); errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintln(b.log, "make", in.path)
			if err := compress(ctx, tool, plain.path, in.path); err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
		programs := []program{
			b.sensor(oneWorker, in.path, 1),
			{name: bareUnpack, args: []string{b.self, "unpack", in.path}},
			{name: c.tool + " -dc", args: []string{tool, "-dc", in.path}},
		}
		if err := r.compare(ctx, b, in, programs); err != nil {
			return err
		}
	}
	return nil
}

func compress(ctx context.Context, tool, from, to string) error {
	part := to + ".part"
	f, err := os.Create(part)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := execute(ctx, f, []string{tool, "-c", from}); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return errors.Join(f.Close(), os.Rename(part, to))
}

// measureRules compares a run with a large set of rules with one without; on a
// capture of nothing, the difference is what loading the rules takes.
func measureRules(ctx context.Context, b *bench, r *report) error {
	dir := filepath.Join(b.out, "rules")
	if err := writeRules(dir, max(1, int(manyRules*b.scale)), max(1, int(manyEntries*b.scale))); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	many, err := b.capture(ctx, handshakes, b.scale)
	if err != nil {
		return err
	}
	none, err := b.nothing(ctx)
	if err != nil {
		return err
	}
	many.name, none.name = rulesHandshakes, rulesStartup
	for _, in := range []input{many, none} {
		programs := []program{b.sensor(oneWorker, in.path, 1), b.sensor(withRules, in.path, 1, "--rules", dir)}
		if err := r.compare(ctx, b, in, programs); err != nil {
			return err
		}
	}
	return nil
}

// The size of the rule set.
const (
	manyRules   = 10_000
	manyEntries = 1_000_000
)

// writeRules makes a folder of rules of the kinds that feeds have, and a list
// of hashes. None of them holds for anything in the captures.
func writeRules(dir string, rules, entries int) error {
	if err := os.MkdirAll(filepath.Join(dir, "lists"), 0o777); err != nil {
		return err
	}
	noise := func(what string, i int) string {
		sum := sha256.Sum256(fmt.Append(nil, what, i))
		return hex.EncodeToString(sum[:])
	}
	err := writeFile(filepath.Join(dir, "lists", "hashes.txt"), func(w *bufio.Writer) {
		for i := range entries {
			fmt.Fprintln(w, noise("entry", i))
		}
	})
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "rules.yml"), func(w *bufio.Writer) {
		for i := range rules {
			x := noise("rule", i)
			selection := [...]string{
				"oddcert.chain.hash.sha256: " + x,
				"tls.client.server_name: " + x[:12] + ".example",
				"tls.client.server_name|endswith: ." + x[:10] + ".com",
				"oddcert.chain.x509.subject.common_name|contains: " + x[:10],
				"tls.client.ja3: " + x[:32] + "\n    server.port: 443",
				fmt.Sprintf("server.ip|cidr: 100.%d.%d.0/24", 64+i>>8&63, i&255),
				"oddcert.chain.x509.issuer.common_name|re: '^" + x[:8] + "[0-9]+$'",
				"oddcert.chain.x509.alternative_names: '*." + x[:10] + ".org'\n    oddcert.chain.self_signed: true",
			}[i%8]
			if i == 0 {
				selection = "oddcert.chain.hash.sha256|expand: '%hashes%'"
			}
			fmt.Fprintf(w, `---
title: Rule %d
id: %s-%s-%s-%s-%s
level: low
logsource: {category: tls}
detection:
  selection:
    %s
  condition: selection
`, i, x[:8], x[8:12], x[12:16], x[16:20], x[20:32], selection)
		}
	})
}

// writeFile writes a file bit by bit: see parts for why this program stays
// small.
func writeFile(path string, write func(*bufio.Writer)) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	write(w) // its errors come again with Flush
	return errors.Join(w.Flush(), f.Close())
}
