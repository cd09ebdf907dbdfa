package spool

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/outage"
)

// queue is one queue of a spool. Append only copies into memory; one goroutine
// compresses and writes, so that no caller of Append waits for the disk; and each
// output has a [reading] that takes out what is written.
type queue struct {
	s     *Spool
	which Queue
	delay time.Duration // how long records wait for others before the fsync

	done    sync.WaitGroup // the goroutine that writes
	work    chan struct{}  // there are pending records
	flush   chan struct{}  // do not wait for others
	arrived broadcast      // there is something to read, or nothing more will come

	mu        sync.Mutex
	pending   []byte // records for the next write, not compressed
	waiting   Counts // how many they are
	spare     []byte // pending of the last write, for reuse
	writing   Counts // records that are being written
	segments  []*segment
	active    file       // the last segment, open for writing; nil when the next write starts a new one
	next      uint64     // the number that the next record gets
	readings  []*reading // of the outputs that want records of the queue
	stats     QueueStats
	committed broadcast // sent when a write ended, well or not
	losses    losses
	trouble   outage.Outage // of writing
	failed    error         // why the latest write failed; nil when it did not
	givenUp   givenUp
	alarm     int // the last share of the limit, in tenths, that alerts were said to take

	// Of the writer alone.
	encoder *zstd.Encoder
	marker  marker // of the active segment
	encoded []byte // blocks, for reuse
}

// losses are about records that did not get to the disk, and what was logged.
type losses struct {
	err        error     // the cause of the latest
	unreported uint64    // records that Append had taken, lost since the last Sync
	before     uint64    // how many were refused before it began
	latest     time.Time // when the last one was refused
	outage     outage.Outage
}

func (q *queue) file(number uint64) string { return fmt.Sprintf("%s-%016d.spool", q.which, number) }

func (q *queue) path(number uint64) string { return q.s.in.path(q.file(number)) }

// openQueue finds what earlier processes left among files.
func openQueue(s *Spool, which Queue, files []string) (*queue, error) {
	q := &queue{
		s: s, which: which, encoder: newEncoder(), next: 1,
		work: make(chan struct{}, 1), flush: make(chan struct{}, 1),
	}
	numbers := q.numbers(files)
	if len(numbers) > 0 {
		q.next = numbers[0]
	}
	for _, r := range s.readers {
		file := cursorFile(r.name, which)
		hasCursor := slices.Contains(files, file)
		if r.absent && !hasCursor {
			continue
		}
		if r.datasets&which.Datasets() == 0 {
			if hasCursor { // it wanted them once; the cursor would hold back, and miss, what is not for it
				c, _, _ := readCursor(s.in, file) // without it nothing can be said
				if c.left > 0 {
					s.log.Warn("spool: an output does not want these records any more", "output", r.name, "queue", which.String(), "records", c.left)
				}
				if err := s.in.remove(file); err != nil {
					return nil, err
				}
			}
			continue
		}
		if err := q.addReading(r, numbers); err != nil {
			return nil, err
		}
	}
	decoder := newDecoder()
	defer decoder.Close()
	for i, n := range numbers {
		if i+1 < len(numbers) && q.isSettled(numbers[i+1]) {
			if err := s.in.remove(q.file(n)); err != nil {
				return nil, err
			}
			q.next = max(q.next, numbers[i+1])
			continue
		}
		if err := q.load(n, i == len(numbers)-1, decoder); err != nil {
			return nil, err
		}
	}
	for _, r := range q.readings {
		r.recover()
	}
	return q, nil
}

// numbers returns the numbers of the segments among files, in order.
func (q *queue) numbers(files []string) (numbers []uint64) {
	for _, name := range files {
		digits, _ := strings.CutPrefix(name, q.which.String()+"-")
		digits, _ = strings.CutSuffix(digits, ".spool")
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil && n > 0 && n < 1<<62 && name == q.file(n) {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// isSettled reports whether everybody has settled all records below number.
func (q *queue) isSettled(number uint64) bool {
	for _, r := range q.readings {
		if r.saved < number {
			return false
		}
	}
	return true
}

// load takes over the segment with the given number. The end of the last one
// may be torn.
func (q *queue) load(number uint64, last bool, d *zstd.Decoder) error {
	name, path := q.file(number), q.path(number)
	f, err := q.s.in.open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var sc scanner
	if err := sc.open(f, info.Size(), number); err != nil {
		return err
	}
	if sc.version > formatVersion {
		return fmt.Errorf("%s: format %d is not known to this version", path, sc.version)
	}
	seg := &segment{number: number, end: number, size: info.Size(), modified: info.ModTime(), left: make([]Counts, len(q.readings))}
	sound := sc.offset
	for {
		b, _, err := sc.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		sound, seg.end = b.after, b.end()
		var records []byte // decoded where a cursor is within the block
		for i, r := range q.readings {
			counts := b.counts
			switch {
			case b.end() <= r.record:
				continue
			case b.number < r.record:
				if records == nil {
					var ok bool
					if records, ok = sc.records(nil, &b, d); !ok {
						continue // the reader skips it
					}
				}
				settled, _, _ := countRecords(records, r.record-b.number)
				counts.subtract(settled)
			}
			counts = counts.of(r.set)
			if b.number >= r.known {
				r.later.add(counts)
				r.laterNumbers += b.end() - b.number
			}
			seg.left[i].add(counts)
		}
	}
	q.next = max(q.next, seg.end)
	if rest := seg.size - sound; rest > 0 && last {
		q.stats.Torn++
		q.stats.TornBytes += uint64(rest)
		q.s.log.Warn("spool: cut a torn tail", "file", path, "bytes", rest)
		if err := q.s.in.truncate(name, sound); err != nil {
			return err
		}
		seg.size = sound
	}
	if seg.unsettled().Total() == 0 {
		return q.s.in.remove(name)
	}
	q.s.used.Add(seg.size)
	q.segments = append(q.segments, seg)
	return nil
}

// release closes what is open. No record is appended or read after it.
func (q *queue) release() error {
	q.mu.Lock()
	var err error
	if q.active != nil {
		err = q.active.Close()
		q.active = nil
	}
	q.trim()
	if q.losses.outage.Class() != "" {
		q.logLosses()
	}
	used := q.next > 1
	for _, r := range q.readings {
		r.dropped.add(r.inMemory) // they were nowhere but in memory
		r.inMemory = Counts{}
	}
	q.mu.Unlock()
	for _, r := range q.readings {
		if used && (r.stale || !r.reader.absent) {
			_ = r.save() // what is settled is on disk already
		}
	}
	return err
}

// refuse counts a record that Append did not take.
func (q *queue) refuse(d output.Dataset, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stats.Appended[d]++
	var n Counts
	n[d] = 1
	q.lose(n, err)
}

// lose counts records that did not get to the disk, and says so when it begins
// and at growing intervals for as long as it lasts. The caller holds mu.
func (q *queue) lose(n Counts, err error) {
	l := &q.losses
	if l.outage.Class() == "" {
		l.before = q.stats.Refused.Total()
	}
	q.stats.Refused.add(n)
	l.err = err
	if err == ErrClosed {
		return
	}
	l.latest = time.Now()
	if l.outage.Fails("lost") {
		q.logLosses()
	}
}

// logLosses says how many records were lost, and why. The caller holds mu.
func (q *queue) logLosses() {
	q.s.log.Error("spool: records lost", "queue", q.which.String(),
		"lost", q.stats.Refused.Total()-q.losses.before, "dir", q.s.dir, "err", q.losses.err)
}

// took says that records are no longer lost or given up, if they were. The caller holds mu.
func (q *queue) took() {
	if g := &q.givenUp; g.outage.Class() != "" && time.Since(g.latest) >= roomAfter {
		g.outage.Works()
		q.s.log.Info("spool: has room again", "queue", q.which.String(), "lost", maps.Clone(g.lost), "dir", q.s.dir)
	}
	l := &q.losses
	if l.outage.Class() == "" || time.Since(l.latest) < calmAfter {
		return
	}
	since := l.outage.Since()
	l.outage.Works()
	q.s.log.Info("spool: takes records again", "queue", q.which.String(), "lost", q.stats.Refused.Total()-l.before,
		"after", l.latest.Sub(since).Round(time.Millisecond), "dir", q.s.dir)
}

func (q *queue) addStats(st *Stats) {
	q.mu.Lock()
	defer q.mu.Unlock()
	st.Appended.add(q.stats.Appended)
	st.Pending.add(q.waiting)
	st.Pending.add(q.writing)
	st.Refused.add(q.stats.Refused)
	st.Accepted.add(q.stats.Accepted)
	st.Torn += q.stats.Torn
	st.TornBytes += q.stats.TornBytes
	st.Failures += q.stats.Failures
	switch {
	case q.losses.outage.Class() != "":
		st.Trouble = fmt.Sprintf("%s are lost: %v", q.which, q.losses.err)
	case q.failed != nil && st.Trouble == "":
		st.Trouble = fmt.Sprintf("%s cannot be written: %v", q.which, q.failed)
	}
}
