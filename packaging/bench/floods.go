package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
)

// What the floods are measured with: a limit for the process, and one that the
// kernel holds it to where there are control groups.
const floodMemory = "512M"

// hurts is by how much a byte of a flood may cost more than one of ordinary
// handshakes.
const hurts = 5

// measureFloods runs oddcert, and Suricata where it is installed, on each flood,
// and prints what they found of the honest handshakes in it and at what price.
func measureFloods(ctx context.Context, b *bench, stdout io.Writer) error {
	names := traffic.Floods()
	if b.only != "" {
		names = []string{b.only}
	}
	base, err := b.capture(ctx, handshakes, min(b.scale, 1)*0.2)
	if err != nil {
		return err
	}
	m := describe(ctx, b)
	var text strings.Builder
	fmt.Fprintf(&text, "%s, %d cores, %d GiB, Linux %s; %s.\nSize of the captures: %g; oddcert has one worker and --memory %s.\n\n",
		m.cpu, m.cores, m.memory, m.kernel, strings.Join(m.versions, "; "), b.scale, floodMemory)
	var rows [][]string
	ordinary := map[string]float64{} // CPU nanoseconds a byte, by program
	failed := 0
	for _, name := range append([]string{handshakes}, names...) {
		in := base
		if name != handshakes {
			if in, err = b.capture(ctx, name, b.scale); err != nil {
				return err
			}
		}
		info, err := os.Stat(in.path)
		if err != nil {
			return err
		}
		programs := []program{b.sensor(oneWorker, in.path, 1, "--memory", floodMemory)}
		if _, ok := b.peers["suricata"]; ok && !b.quick {
			programs = append(programs, b.suricata(in.path, "single"))
		}
		for _, p := range programs {
			f, err := b.once(ctx, p)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			row := []string{in.name, p.name, "", "", "", "", ""}
			if err != nil {
				row[6] = err.Error()
				rows = append(rows, row)
				failed++
				continue
			}
			written := int64(0)
			if info, err := os.Stat(p.output); err == nil {
				written = info.Size()
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			perByte := float64(f.cpu) / float64(info.Size())
			if in.name == handshakes {
				ordinary[p.name] = perByte
			} else {
				v, err := b.judge(ctx, program{output: p.output, format: p.format + "-flood"}, in.truth, map[[32]byte]*verdict{})
				if err != nil {
					return fmt.Errorf("judge %s: %w", p.name, err)
				}
				row[2] = fmt.Sprintf("%d of %d", v.Alerts.Found, v.Alerts.Expected)
			}
			times := perByte / ordinary[p.name]
			row[3] = fmt.Sprintf("%.1f", times)
			row[4] = fmt.Sprintf("%.0f", mebibytes(f.rss))
			row[5] = fmt.Sprintf("%.2f", float64(written)/float64(info.Size()))
			if times > hurts {
				row[6] = fmt.Sprintf("more than %d times", hurts)
			}
			rows = append(rows, row)
			fmt.Fprintln(b.log, strings.Join(row, "\t"))
		}
	}
	table(&text, []string{"flood", "program", "alerts of those due", "CPU time a byte / handshakes", "peak MiB", "bytes written / read", ""}, rows)
	if _, err := io.WriteString(stdout, text.String()); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d runs failed", failed)
	}
	return nil
}

// isFlood reports whether there is a flood of that name.
func isFlood(name string) bool { return slices.Contains(traffic.Floods(), name) }
