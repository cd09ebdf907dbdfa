package spool

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// queue is one queue of a spool. Append only copies into memory; one goroutine
// compresses and writes, so that no caller of Append waits for the disk, and
// one reader takes out what is written.
type queue struct {
	s     *Spool
	which Queue
	delay time.Duration // how long records wait for others before the fsync

	done  sync.WaitGroup // the goroutine that writes
	work  chan struct{}  // there are pending records
	flush chan struct{}  // do not wait for others
	ready chan struct{}  // there is something to read, or nothing more will come

	mu        sync.Mutex
	pending   []byte // records for the next write, not compressed
	waiting   Counts // how many they are
	spare     []byte // pending of the last write, for reuse
	writing   Counts // records that are being written
	segments  []*segment
	active    file // the last segment, open for writing; nil when the next write starts a new one
	stats     Stats
	committed broadcast // sent when a write ended, well or not
	losses    losses

	// What is settled, see [cursor].
	record uint64
	next   uint64
	saved  uint64     // record in the cursor on disk, or what would be there if the disk had room
	saving sync.Mutex // held while the cursor is written
	stale  bool       // the cursor on disk does not know what was given up

	// Of the writer alone.
	encoder *zstd.Encoder
	marker  marker // of the active segment
	block   []byte // for reuse

	// Of the reader alone, except reading.
	decoder *zstd.Decoder
	scanner scanner
	current uint64      // the segment that offset is in
	offset  int64       // where reading goes on: of the block with the next record, or of damage before it
	reading uint64      // the segment that batch is in, 0 when there is no batch; guarded by mu
	batch   []recordEnd // what Next last returned
	buffer  []byte      // its bytes, or a part of them
}

// recordEnd is where reading goes on after a record of a batch.
type recordEnd struct {
	dataset output.Dataset
	next    uint64 // the number of the record after it
	offset  int64  // of the block that may have that record
}

// losses are about records that did not get to the disk, and what was logged.
type losses struct {
	err        error     // the cause of the latest
	unreported uint64    // records that Append had taken, lost since the last Sync
	losing     bool      // records are being refused
	since      time.Time // when that began
	before     uint64    // how many were refused before
	latest     time.Time // when the last one was refused
	lastLogged time.Time
}

func (q *queue) file(number uint64) string { return fmt.Sprintf("%s-%016d.spool", q.which, number) }

func (q *queue) path(number uint64) string { return q.s.in.path(q.file(number)) }

func (q *queue) cursorFile() string { return q.which.String() + ".cursor" }

// openQueue finds what earlier processes left.
func openQueue(s *Spool, which Queue) (*queue, error) {
	q := &queue{
		s: s, which: which, encoder: newEncoder(), decoder: newDecoder(),
		work: make(chan struct{}, 1), flush: make(chan struct{}, 1), ready: make(chan struct{}, 1),
	}
	c, damaged, err := readCursor(s.in, q.cursorFile())
	if err != nil {
		return nil, err
	}
	if damaged {
		q.stats.Corrupt++
		s.log.Warn("spool: damaged cursor, all that is kept will be delivered again", "file", s.in.path(q.cursorFile()))
	}
	numbers, err := q.numbers()
	if err != nil {
		return nil, err
	}
	if c.record == 0 {
		c = cursor{record: 1, next: 1}
		if len(numbers) > 0 {
			c = cursor{record: numbers[0], next: numbers[0]}
		}
	}
	q.record, q.saved = c.record, c.record
	q.next = max(c.next, c.record)
	for i, n := range numbers {
		if i+1 < len(numbers) && numbers[i+1] <= q.record {
			if err := s.in.remove(q.file(n)); err != nil { // all of it is settled
				return nil, err
			}
			continue
		}
		if err := q.load(n, i == len(numbers)-1); err != nil {
			return nil, err
		}
	}
	q.stats.Recovered = q.spooled()
	// Records that were accepted after the cursor was written have numbers from
	// c.next on.
	expected, found := c.left+(q.next-max(c.next, c.record)), q.stats.Recovered.Total()
	if found < expected {
		q.stats.Missing = expected - found
		q.stale = true // so that it is said once
		s.log.Error("spool: records are missing, their segments were deleted, emptied or cut",
			"queue", which.String(), "records", q.stats.Missing, "dir", s.dir)
	}
	return q, nil
}

// numbers returns the numbers of the segments in the folder, in order.
func (q *queue) numbers() (numbers []uint64, err error) {
	names, err := q.s.in.names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		digits, _ := strings.CutPrefix(name, q.which.String()+"-")
		digits, _ = strings.CutSuffix(digits, ".spool")
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil && n > 0 && n < 1<<62 && name == q.file(n) {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// load takes over the segment with the given number. The end of the last one
// may be torn.
func (q *queue) load(number uint64, last bool) error {
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
	seg := &segment{number: number, end: number, size: info.Size(), modified: info.ModTime()}
	offset, sound := sc.offset, sc.offset
	for {
		b, _, err := sc.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		sound, seg.end = b.after, b.end()
		if b.end() <= q.record {
			offset = b.after
			continue
		}
		if b.number < q.record { // the cursor is within it
			records, ok := sc.records(nil, &b, q.decoder)
			if !ok {
				continue // the reader skips it
			}
			settled, _, _ := countRecords(records, q.record-b.number)
			b.counts.subtract(settled)
		}
		seg.left.add(b.counts)
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
	if seg.left.Total() == 0 {
		return q.s.in.remove(name)
	}
	if len(q.segments) == 0 {
		q.current, q.offset = number, offset
	}
	q.s.used.Add(seg.size)
	q.segments = append(q.segments, seg)
	return nil
}

// spooled counts what is on disk and not settled. The caller holds mu.
func (q *queue) spooled() (n Counts) {
	for _, seg := range q.segments {
		n.add(seg.left)
	}
	return n
}

// save writes the cursor.
func (q *queue) save() error {
	q.saving.Lock()
	defer q.saving.Unlock()
	q.mu.Lock()
	c := cursor{record: q.record, next: q.next, left: q.spooled().Total()}
	q.stale = false
	q.mu.Unlock()
	err := writeCursor(q.s.in, q.cursorFile(), c)
	q.mu.Lock()
	q.saved = c.record
	q.mu.Unlock()
	return err
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
	if q.losses.losing {
		q.logLosses()
	}
	used := q.next > 1
	q.mu.Unlock()
	if used {
		_ = q.save() // what is settled is on disk already
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
// and once a minute for as long as it lasts. The caller holds mu.
func (q *queue) lose(n Counts, err error) {
	before := q.stats.Refused.Total()
	q.stats.Refused.add(n)
	l := &q.losses
	l.err = err
	if err == ErrClosed {
		return
	}
	l.latest = time.Now()
	if !l.losing {
		l.losing, l.since, l.before, l.lastLogged = true, l.latest, before, time.Time{}
	}
	if time.Since(l.lastLogged) >= time.Minute {
		l.lastLogged = l.latest
		q.logLosses()
	}
}

// logLosses says how many records were lost, and why. The caller holds mu.
func (q *queue) logLosses() {
	q.s.log.Error("spool: records lost", "queue", q.which.String(),
		"lost", q.stats.Refused.Total()-q.losses.before, "dir", q.s.dir, "err", q.losses.err)
}

// took says that records are no longer lost, if they were. The caller holds mu.
func (q *queue) took() {
	l := &q.losses
	if l.losing && time.Since(l.latest) >= calmAfter {
		l.losing = false
		q.s.log.Info("spool: takes records again", "queue", q.which.String(), "lost", q.stats.Refused.Total()-l.before,
			"after", l.latest.Sub(l.since).Round(time.Millisecond), "dir", q.s.dir)
	}
}

func (q *queue) addStats(st *Stats) {
	q.mu.Lock()
	defer q.mu.Unlock()
	st.Appended.add(q.stats.Appended)
	st.Pending.add(q.waiting)
	st.Pending.add(q.writing)
	st.Refused.add(q.stats.Refused)
	st.Accepted.add(q.stats.Accepted)
	st.Recovered.add(q.stats.Recovered)
	st.Settled.add(q.stats.Settled)
	st.Dropped.add(q.stats.Dropped)
	st.Spooled.add(q.spooled())
	st.Torn += q.stats.Torn
	st.TornBytes += q.stats.TornBytes
	st.Corrupt += q.stats.Corrupt
	st.Failures += q.stats.Failures
	st.Missing += q.stats.Missing
}
