package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// report is what there is to print.
type report struct {
	machine   machine
	loadAfter string
	rows      []row
	omitted   []string // what could not be measured here, and why
}

// compare measures and keeps the rows.
func (r *report) compare(ctx context.Context, b *bench, in input, programs []program) error {
	rows, err := b.compare(ctx, in, programs)
	r.rows = append(r.rows, rows...)
	return err
}

// find returns the row of a program on a capture, nil when it did not run.
func (r *report) find(capture, program string) *row {
	i := slices.IndexFunc(r.rows, func(w row) bool { return w.capture == capture && w.program == program })
	if i < 0 {
		return nil
	}
	return &r.rows[i]
}

// right returns the row of a program if it has a time.
func (r *report) right(capture, program string) *row {
	if w := r.find(capture, program); w != nil && w.wrong == "" {
		return w
	}
	return nil
}

// wrong is an error when oddcert's output differed from the truth.
func (r *report) wrong() error {
	var where []string
	for _, w := range r.rows {
		if w.wrong != "" && !w.lost && strings.HasPrefix(w.program, "oddcert") {
			where = append(where, w.capture)
		}
	}
	if len(where) == 0 {
		return nil
	}
	return fmt.Errorf("oddcert's output is wrong on: %s", strings.Join(slices.Compact(where), ", "))
}

// write prints the report as Markdown.
func (r *report) write(w io.Writer, o options) error {
	var s strings.Builder
	m := r.machine
	fmt.Fprintf(&s, "%s, %d cores, %d GiB, Linux %s; %s.\n", m.cpu, m.cores, m.memory, m.kernel, strings.Join(m.versions, "; "))
	fmt.Fprintf(&s, "Medians of %d; size of the captures: %g; load average %s before, %s after", o.runs, o.scale, m.load, r.loadAfter)
	if o.quick {
		s.WriteString("; quick: without tshark, and Suricata in one run mode only")
	}
	s.WriteString(".\n\n")
	if goals := r.goals(o); len(goals) > 0 {
		table(&s, []string{"goal", "measured", ""}, goals)
	}
	var rows, notes [][]string
	for i := range r.rows {
		w := &r.rows[i]
		rows = append(rows, r.cells(w))
		if w.wrong != "" {
			notes = append(notes, []string{w.capture, w.program, w.wrong})
		}
	}
	table(&s, []string{"capture", "program", "certificates", "alerts", "wall s", "CPU s", "peak MiB", "wall / oddcert's", "CPU / oddcert's"}, rows)
	for _, what := range r.omitted {
		fmt.Fprintf(&s, "Not measured: %s.\n\n", what)
	}
	if len(notes) > 0 {
		table(&s, []string{"capture", "program", "why it has no time"}, notes)
	}
	_, err := io.WriteString(w, s.String())
	return err
}

func table(s *strings.Builder, head []string, rows [][]string) {
	line := func(cells []string) {
		for i, c := range cells {
			cells[i] = strings.NewReplacer("|", `\|`, "\n", " ").Replace(c)
		}
		fmt.Fprintf(s, "| %s |\n", strings.Join(cells, " | "))
	}
	line(head)
	s.WriteString(strings.Repeat("|---", len(head)) + "|\n")
	for _, cells := range rows {
		line(cells)
	}
	s.WriteByte('\n')
}

// cells are those of the table of figures.
func (r *report) cells(w *row) []string {
	cells := []string{w.capture, w.program, "", ""}
	if v := w.verdict; v != nil {
		cells[2] = v.Leaves.String()
		if w.program != tshark {
			cells[3] = v.Alerts.String()
		}
	}
	if w.wrong != "" {
		return append(cells, "wrong", "", "", "", "")
	}
	f := w.median()
	cells = append(cells, seconds(f.wall), seconds(f.cpu), fmt.Sprintf("%.1f", mebibytes(f.rss)))
	base := r.right(w.capture, oneWorker)
	if base == nil {
		base = r.right(w.capture, withShunt)
	}
	if base == nil {
		return append(cells, "", "")
	}
	g := base.median()
	return append(cells, fmt.Sprintf("%.2f", ratio(f.wall, g.wall)), fmt.Sprintf("%.2f", ratio(f.cpu, g.cpu)))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// goals are the lines of the table of goals, for what was measured.
func (r *report) goals(o options) (lines [][]string) {
	add := func(what string, reached bool, format string, args ...any) {
		state := "short"
		if reached {
			state = "reached"
		}
		lines = append(lines, []string{what, fmt.Sprintf(format, args...), state})
	}
	missing := func(what, why string) { lines = append(lines, []string{what, "", why}) }

	for _, goal := range []struct {
		capture  string
		one, two float64 // Suricata's wall clock over that of one and of two workers; 0 where there is no such goal
	}{{bulk, 0, 0}, {handshakes, 5, 8}, {mix, 4.5, 6.5}} {
		capture := goal.capture
		if r.find(capture, oneWorker) == nil {
			continue
		}
		faster := fmt.Sprintf("%s: Suricata takes at least %g times the wall clock of one worker, and %g of two", capture, goal.one, goal.two)
		small := capture + ": at most 64 MiB"
		one, two := r.right(capture, oneWorker), r.right(capture, twoWorkers)
		if one == nil || two == nil {
			if goal.one > 0 {
				missing(faster, "wrong")
			}
			missing(small, "wrong")
			continue
		}
		f, g := one.median(), two.median()
		if goal.one > 0 {
			// The better of the run modes counts.
			var wall time.Duration
			for _, mode := range []string{single, autofp} {
				if w := r.right(capture, mode); w != nil && (wall == 0 || w.median().wall < wall) {
					wall = w.median().wall
				}
			}
			if wall == 0 {
				missing(faster, "not measured: no Suricata")
			} else {
				x, y := ratio(wall, f.wall), ratio(wall, g.wall)
				add(faster, x >= goal.one && y >= goal.two, "%.1f and %.1f times", x, y)
			}
		}
		peak := max(f.rss, g.rss)
		add(small, peak <= 64<<20, "%.1f MiB (2 workers: %.1f)", mebibytes(f.rss), mebibytes(g.rss))
	}
	if one := r.right(bulk, oneWorker); one != nil {
		f := one.median()
		what := "bulk: tcpdump -w /dev/null takes at least 4 times the wall clock"
		if w := r.right(bulk, tcpdump); w != nil {
			x := ratio(w.median().wall, f.wall)
			add(what, x >= 4, "%.1f times", x)
		} else {
			missing(what, "not measured: no tcpdump")
		}
		if w := r.right(bulk, bareLoop); w != nil {
			x := ratio(f.wall, w.median().wall)
			add("bulk: at most 1.5 times the wall clock of a bare loop over the file", x <= 1.5, "%.2f times", x)
		}
	}
	for _, capture := range []string{zstdBulk, gzipBulk} {
		one, bare := r.right(capture, oneWorker), r.right(capture, bareUnpack)
		if one != nil && bare != nil {
			x, y := ratio(one.median().wall, bare.median().wall), ratio(one.median().cpu, bare.median().cpu)
			add(capture+": little more than its decompressor alone (taken as 1.25 times the wall clock)", x <= 1.25, "%.2f times the wall clock, %.2f the CPU seconds", x, y)
		}
	}
	r.memoryGoal(add, missing)
	r.floodGoal(add)
	r.rulesGoal(add, missing)
	r.liveGoals(add, missing)
	if o.scale != 1 {
		for _, line := range lines {
			line[2] += ", but not at full size"
		}
	}
	return lines
}

// memoryGoal is about a million flows at once.
func (r *report) memoryGoal(add func(string, bool, string, ...any), missing func(string, string)) {
	const what = "syns: a million flows at once in at most 512 MiB, all handshakes found"
	if r.find(syns, oneWorker) == nil {
		return
	}
	one, two := r.right(syns, oneWorker), r.right(syns, twoWorkers)
	if one == nil || two == nil {
		missing(what, "wrong")
		return
	}
	f, g, c := one.median(), two.median(), one.verdict.Counters
	add(what, max(f.rss, g.rss) <= 512<<20,
		"%.1f MiB (2 workers: %.1f); of %d flows %d expired and %d, %d, %d were evicted as bare SYNs, undecided, decided",
		mebibytes(f.rss), mebibytes(g.rss), c.Total, c.Expired, c.EvictedEmbryonic, c.EvictedUndecided, c.EvictedDecided)
}

// floodGoal is about the memory that the worst of the captures that hurt takes,
// be the output right or wrong.
func (r *report) floodGoal(add func(string, bool, string, ...any)) {
	var worst *row
	for i := range r.rows {
		w := &r.rows[i]
		if slices.Contains(hurting, w.capture) && (w.program == oneWorker || w.program == twoWorkers) && len(w.runs) > 0 &&
			(worst == nil || w.median().rss > worst.median().rss) {
			worst = w
		}
	}
	if worst != nil {
		peak := worst.median().rss
		add("floods and other worst cases: at most 512 MiB", peak <= 512<<20, "%.1f MiB on %s", mebibytes(peak), worst.capture)
	}
}

// liveGoals are about what a frame costs on the wire. A program that lost one
// has no time.
func (r *report) liveGoals(add func(string, bool, string, ...any), missing func(string, string)) {
	for _, capture := range []string{liveBulk, liveHandshakes} {
		if r.find(capture, withShunt) == nil {
			continue
		}
		what := capture + ": no frame lost, and Suricata takes at least 6 times the CPU seconds"
		one, other := r.right(capture, withShunt), r.right(capture, suricataLive)
		switch {
		case one == nil:
			missing(what, "wrong")
		case other == nil:
			missing(what, "not measured: no Suricata, or it lost frames")
		default:
			f := one.median()
			x := ratio(other.median().cpu, f.cpu)
			n := float64(one.runs[0].frames.all())
			add(what, x >= 6, "%.1f times, at %.0f frames a second", x, n/f.wall.Seconds())
		}
		if one != nil && capture == liveBulk {
			f := one.runs[0].frames
			x := 100 * float64(f.read) / float64(f.all())
			add(capture+": at most 5 % of the frames reach the program", x <= 5, "%.1f %%", x)
		}
	}
}

// rulesGoal is about what many rules cost a handshake, without their loading.
func (r *report) rulesGoal(add func(string, bool, string, ...any), missing func(string, string)) {
	const what = "rules: matching 10,000 rules and 1,000,000 list entries costs at most 10 % of the handshakes run"
	if r.find(rulesHandshakes, withRules) == nil {
		return
	}
	var all [2][2]*row // handshakes and startup, without and with
	for i, capture := range []string{rulesHandshakes, rulesStartup} {
		for j, program := range []string{oneWorker, withRules} {
			if all[i][j] = r.right(capture, program); all[i][j] == nil {
				missing(what, "wrong")
				return
			}
		}
	}
	var cost, load [2]time.Duration // wall clock and CPU
	for i, of := range []func(figures) time.Duration{
		func(f figures) time.Duration { return f.wall },
		func(f figures) time.Duration { return f.cpu },
	} {
		load[i] = difference(all[1][1], all[1][0], of)
		cost[i] = difference(all[0][1], all[0][0], of) - load[i]
	}
	base := all[0][0].median()
	wall, cpu := 100*ratio(cost[0], base.wall), 100*ratio(cost[1], base.cpu)
	add(what, wall <= 10 && cpu <= 10, "%.1f %% of the wall clock, %.1f %% of the CPU seconds; loading takes %s s, %s s of CPU and %.0f MiB at its peak",
		wall, cpu, seconds(load[0]), seconds(load[1]), mebibytes(all[1][1].median().rss))
}

// difference is the median of what a took more than b, run by run.
func difference(a, b *row, of func(figures) time.Duration) time.Duration {
	runs := make([]figures, min(len(a.runs), len(b.runs)))
	for i := range runs {
		runs[i].wall = of(a.runs[i]) - of(b.runs[i])
	}
	return median(runs, func(f figures) time.Duration { return f.wall })
}
