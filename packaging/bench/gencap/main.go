// Command gencap writes a capture whose truth is known, and the truth beside
// it as NAME.truth.json.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
)

func main() {
	kind := flag.String("kind", "handshakes", "what the capture holds: "+strings.Join(append(traffic.Names(), traffic.Floods()...), ", "))
	scale := flag.Float64("scale", 1, "factor on the number of flows")
	seed := flag.Uint64("seed", 1, "seed of all that is random")
	out := flag.String("o", "", "`file` to write; required")
	var faults traffic.Impairment
	flag.Float64Var(&faults.Drop, "drop", 0, "share of the frames to drop; this and the other rates replace those of the kind")
	flag.Float64Var(&faults.Duplicate, "duplicate", 0, "share of the frames to repeat")
	flag.Float64Var(&faults.Reorder, "reorder", 0, "share of the frames to delay")
	flag.Float64Var(&faults.Overlap, "overlap", 0, "share of the segments to overlap with another")
	flag.Float64Var(&faults.Conflict, "conflict", 0, "share of the segments to repeat with other content")
	flag.IntVar(&faults.Depth, "depth", 0, "frames of its flow that a delayed one waits for at most")
	snaplen := flag.Int("snaplen", 0, "bytes captured of a frame; 0 for all")
	flag.Parse()
	if flag.NArg() > 0 || *out == "" {
		flag.Usage()
		os.Exit(1)
	}
	if slices.Contains(traffic.Floods(), *kind) {
		err := write(*out, func(w io.Writer) (*traffic.Truth, error) {
			return traffic.GenerateFlood(w, *kind, *scale, *seed)
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, "gencap:", err)
			os.Exit(1)
		}
		return
	}
	spec, err := traffic.Named(*kind, *scale, *seed)
	if err == nil {
		spec.Snaplen = *snaplen
		if faults != (traffic.Impairment{}) {
			spec.Impairment = faults
		}
		err = write(*out, func(w io.Writer) (*traffic.Truth, error) { return traffic.Generate(w, spec) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gencap:", err)
		os.Exit(1)
	}
}

func write(path string, generate func(io.Writer) (*traffic.Truth, error)) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	truth, err := generate(f)
	if err != nil {
		return fmt.Errorf("generate %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	text, err := json.Marshal(truth)
	if err != nil {
		return fmt.Errorf("encode truth: %w", err)
	}
	outcomes := make(map[string]int)
	for _, c := range truth.Connections {
		outcomes[strings.Join(c.Outcomes, "|")]++
	}
	fmt.Printf("%s: %d frames, %d bytes, %d flows, %d of TLS, %d certificates\n", path, truth.Frames, truth.Bytes,
		truth.Flows, len(truth.Connections), len(truth.Certificates))
	fmt.Println("outcomes:", outcomes, "faults:", truth.Faults)
	return os.WriteFile(path+".truth.json", append(text, '\n'), 0o666)
}
