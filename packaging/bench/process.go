package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// timeout ends a process that does not end.
const timeout = 15 * time.Minute

// figures are what one process took, as the kernel says.
type figures struct {
	wall time.Duration
	cpu  time.Duration // user and system
	rss  int64         // peak, bytes

	frames frames // of a program that listens
}

// execute runs a process to its end with its standard output in the given
// file, which nil throws away.
func execute(ctx context.Context, stdout *os.File, args []string) (figures, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	if stdout != nil { // an interface that holds a nil *os.File is not nil
		cmd.Stdout = stdout
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return figures{}, err
	}
	err := cmd.Wait()
	f := figures{wall: time.Since(start), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		f.rss = usage.Maxrss << 10
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		said := strings.TrimSpace(stderr.String())
		return f, fmt.Errorf("%s: %w: %s", args[0], err, said[strings.LastIndexByte(said, '\n')+1:])
	}
	return f, nil
}

// program is one way to read a capture.
type program struct {
	name   string
	args   []string
	output string // file that it writes its findings to; empty if it has none
	stdout bool   // whether output is its standard output
	format string // of output, as judge knows it
	slow   bool   // one run is enough
}

// input is a capture with its truth.
type input struct {
	name  string // in the tables
	path  string
	truth string
}

// row is what became of a program on a capture.
type row struct {
	capture, program string
	runs             []figures
	verdict          *verdict // nil where there is nothing to judge
	wrong            string   // why it has no time; empty if all of its runs were right
	lost             bool     // that is because frames were lost on the wire
}

// median returns the medians of the runs, each figure by itself.
func (r *row) median() figures {
	return figures{
		wall: median(r.runs, func(f figures) time.Duration { return f.wall }),
		cpu:  median(r.runs, func(f figures) time.Duration { return f.cpu }),
		rss:  median(r.runs, func(f figures) int64 { return f.rss }),
	}
}

func median[T int64 | time.Duration](runs []figures, of func(figures) T) T {
	all := make([]T, len(runs))
	for i, f := range runs {
		all[i] = of(f)
	}
	slices.Sort(all)
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2
}

// compare runs programs on a capture in turn, so that whatever else the
// machine does hits all of them alike, and judges what they find.
func (b *bench) compare(ctx context.Context, in input, programs []program) ([]row, error) {
	rows := make([]row, len(programs))
	for i, p := range programs {
		rows[i] = row{capture: in.name, program: p.name}
	}
	if _, err := execute(ctx, nil, []string{"cat", in.path}); err != nil { // into the page cache
		return nil, err
	}
	seen := make(map[[sha256.Size]byte]*verdict)
	for n := range b.runs {
		fmt.Fprintf(b.log, "%s: run %d of %d\n", in.name, n+1, b.runs)
		for i, p := range programs {
			r := &rows[i]
			if r.wrong != "" || p.slow && n > 0 {
				continue
			}
			f, err := b.once(ctx, p)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				r.wrong = err.Error()
				continue
			}
			r.runs = append(r.runs, f)
			if p.output == "" {
				continue
			}
			v, err := b.judge(ctx, p, in.truth, seen)
			if err != nil {
				return nil, fmt.Errorf("judge %s: %w", p.name, err)
			}
			r.verdict, r.wrong = v, v.Wrong
		}
	}
	return rows, nil
}

// once runs p from a clean slate.
func (b *bench) once(ctx context.Context, p program) (figures, error) {
	if p.output != "" {
		if err := os.Remove(p.output); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return figures{}, err
		}
	}
	var stdout *os.File
	if p.stdout {
		f, err := os.Create(p.output)
		if err != nil {
			return figures{}, err
		}
		defer f.Close()
		stdout = f
	}
	return execute(ctx, stdout, p.args)
}

// judge has another process compare what p wrote with the truth, unless the
// same output has been judged before.
func (b *bench) judge(ctx context.Context, p program, truth string, seen map[[sha256.Size]byte]*verdict) (*verdict, error) {
	f, err := os.Open(p.output)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.WriteString(h, p.format+"\n"); err != nil {
		return nil, err
	}
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	sum := [sha256.Size]byte(h.Sum(nil))
	if v, ok := seen[sum]; ok {
		return v, nil
	}
	text, err := output(ctx, b.self, "judge", p.format, truth, p.output)
	if err != nil {
		return nil, err
	}
	v := new(verdict)
	if err := json.Unmarshal(text, v); err != nil {
		return nil, err
	}
	seen[sum] = v
	return v, nil
}

// output runs a command and returns its standard output.
func output(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	text, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w: %s", args[0], err, bytes.TrimSpace(exit.Stderr))
	}
	return text, err
}
