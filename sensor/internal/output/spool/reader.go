package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Reader takes records out of a spool for one output. For each queue, one goroutine
// calls Next and one, which may be another, calls Settle.
type Reader struct {
	s        *Spool
	name     string
	datasets output.Set
	absent   bool // the output is not configured: nobody calls Next
	readings [Queues]*reading
}

func newReader(s *Spool, o Output, absent bool) *Reader {
	return &Reader{s: s, name: o.Name, datasets: o.Datasets, absent: absent}
}

// Has reports whether the output wants records of q.
func (r *Reader) Has(q Queue) bool { return r.readings[q] != nil }

// Wants reports whether the output wants records of d.
func (r *Reader) Wants(d output.Dataset) bool { return r.datasets.Has(d) }

// Batch is what Next returns. It can be used again when its records are settled.
type Batch struct {
	Records  []output.Record
	Accepted []int64 // when each was accepted, in nanoseconds since the Unix epoch; see [Backlog] for how exactly
	buffer   []byte  // their bytes, or a part of them
}

// Next puts the oldest accepted records of a queue into b that it did not return
// before, at least one and at most records of them, or fewer so that their JSON
// comes to at most bytes (one record may be more). It waits for the first, until ctx
// is done, and returns io.EOF when there is none and the spool is finished.
func (r *Reader) Next(ctx context.Context, q Queue, b *Batch, records, bytes int) error {
	return r.readings[q].take(ctx, b, max(records, 1), bytes)
}

// Settle says that the first n records that Next has returned and that are not
// settled are dealt with. They do not come again, except after a crash before Settle
// returns. An error means that they may come again after a restart.
func (r *Reader) Settle(q Queue, n int) error {
	if n == 0 {
		return nil
	}
	return r.readings[q].settle(n)
}

func (r *Reader) waiting() (n uint64) {
	for _, of := range r.readings {
		if of != nil {
			of.q.mu.Lock()
			n += of.left().Total()
			of.q.mu.Unlock()
		}
	}
	return n
}

// reading is what one output has read of one queue.
type reading struct {
	q      *queue
	reader *Reader
	set    output.Set // the datasets that the output wants
	index  int        // of the output in the left of segments
	saving sync.Mutex // held while the cursor is written

	// Guarded by the mutex of the queue.
	record      uint64  // the first that is not settled
	past        uint64  // at, when it was last looked at
	saved       uint64  // record in the cursor on disk, or what would be there if the disk had room
	stale       bool    // the cursor on disk does not know what was given up
	outstanding []taken // what Next has returned and nobody has settled
	inMemory    Counts  // of these, those that are not on disk any more

	recovered, accepted, settled, dropped Counts
	corrupt, missing                      uint64

	// Of the goroutine that reads.
	at      uint64 // the number of the next record to read
	current uint64 // the segment that offset is in
	offset  int64  // of the block with that record, or of damage before it
	scanner scanner
	decoder *zstd.Decoder

	// Of Open: what the cursor knew.
	known        uint64 // the number from which on it knew nothing
	left0        uint64 // how many records below were left
	later        Counts // what was found of those above
	laterNumbers uint64 // and how many records these are with those of other outputs
}

// taken is a record that Next has returned.
type taken struct {
	seg     *segment
	dataset output.Dataset
	next    uint64 // the number of the record after it
	at      int64  // when it was accepted
}

// addReading reads the cursor of an output.
func (q *queue) addReading(r *Reader, numbers []uint64) error {
	of := &reading{q: q, reader: r, set: r.datasets, index: len(q.readings), decoder: newDecoder()}
	file := cursorFile(r.name, q.which)
	c, damaged, err := readCursor(q.s.in, file)
	if err != nil {
		return err
	}
	if damaged {
		of.corrupt++
		q.s.log.Warn("spool: damaged cursor, all that is kept will be delivered again", "file", q.s.in.path(file))
	}
	if r.absent && c.set != 0 {
		of.set = c.set
	}
	if c.record == 0 {
		of.record = 1
		if len(numbers) > 0 {
			of.record = numbers[0]
		}
		of.known = 1 << 62 // it knew nothing
	} else {
		of.record, of.left0, of.known = c.record, c.left, max(c.next, c.record)
		q.next = max(q.next, of.known)
		if c.set != of.set {
			of.left0, of.known = 0, 1<<62 // it counted other records
		}
	}
	of.saved, of.at = of.record, of.record
	q.readings = append(q.readings, of)
	r.readings[q.which] = of
	return nil
}

// recover counts what Open has found, and what it has not.
func (r *reading) recover() {
	r.recovered = r.left()
	if r.known == 1<<62 {
		return
	}
	// All that was accepted after the cursor was written has a number from known on.
	expected := r.left0 + r.later.Total() + (r.q.next - r.known - r.laterNumbers)
	if found := r.recovered.Total(); found < expected {
		r.missing = expected - found
		r.stale = true // so that it is said once
		r.q.s.log.Error("spool: records are missing, their segments were deleted, emptied or cut",
			"output", r.reader.name, "queue", r.q.which.String(), "records", r.missing, "dir", r.q.s.dir)
	}
}

// left counts what is on disk and not settled. The caller holds the mutex of the
// queue.
func (r *reading) left() (n Counts) {
	for _, seg := range r.q.segments {
		n.add(seg.left[r.index])
	}
	return n
}

// outstandingIn counts the records of seg that Next has returned and nobody has
// settled. The caller holds the mutex of the queue.
func (r *reading) outstandingIn(seg *segment) (n Counts) {
	for i := range r.outstanding {
		if r.outstanding[i].seg == seg {
			n[r.outstanding[i].dataset]++
		}
	}
	return n
}

// stretch is a part of a segment that is to be read.
type stretch struct {
	seg  *segment
	end  uint64 // the number of the record after the last one
	size int64  // where it ends in the file
	left Counts // how many records of the output are in it
}

// next returns the stretch from r.at on, and false when there is none.
func (r *reading) next() (s stretch, ok bool) {
	q := r.q
	q.mu.Lock()
	defer q.mu.Unlock()
	r.past = r.at
	if len(r.outstanding) == 0 {
		r.record = max(r.record, r.past) // the rest is for other outputs
	}
	i := slices.IndexFunc(q.segments, func(seg *segment) bool { return seg.end > r.at })
	if i < 0 {
		return s, false
	}
	seg := q.segments[i]
	if r.current != seg.number {
		r.current, r.offset = seg.number, 0
		r.at = max(r.at, seg.number)
	}
	s = stretch{seg: seg, end: seg.end, size: seg.size, left: seg.left[r.index]}
	s.left.subtract(r.outstandingIn(seg))
	return s, true
}

// take is Next for one queue.
func (r *reading) take(ctx context.Context, b *Batch, records, bytes int) error {
	q := r.q
	for {
		arrived := q.arrived.wait() // before it is looked at, so that no wake-up is lost
		over := q.isOver()          // the same, so that the last write is seen
		s, ok := r.next()
		r.giveBack()
		if !ok {
			if over {
				return io.EOF
			}
			select {
			case <-arrived:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		took, err := r.read(&s, b, records, bytes)
		if errors.Is(err, fs.ErrNotExist) {
			q.giveUpGone(s.seg)
			r.at = max(r.at, s.end)
			continue
		}
		if err != nil {
			return fmt.Errorf("read spool: %w", err)
		}
		if r.put(&s, b, took) && len(took) > 0 {
			return nil
		}
	}
}

// isOver reports whether nothing will be written any more.
func (q *queue) isOver() bool {
	select {
	case <-q.s.finished: // looked at first: what enqueue took until then is seen below
	default:
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting.Total()+q.writing.Total() == 0
}

// put notes what was read of a stretch into b, and reports false when the segment was
// given up meanwhile: then the records are dropped already.
func (r *reading) put(s *stretch, b *Batch, took []taken) bool {
	q := r.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.seg.gone {
		return false
	}
	r.past = r.at
	b.Accepted = b.Accepted[:0]
	for i := range took {
		took[i].at = s.seg.acceptedAt(took[i].next - 1)
		b.Accepted = append(b.Accepted, took[i].at)
	}
	r.outstanding = append(r.outstanding, took...)
	if lost := s.left; r.at >= s.end && lost.Total() > 0 {
		q.s.log.Error("spool: records lost, their segment was damaged, emptied or cut",
			"output", r.reader.name, "file", q.path(s.seg.number), "records", lost.Total())
		r.dropped.add(lost)
		s.seg.left[r.index].subtract(lost)
		r.stale = true
	}
	return true
}

// giveBack writes the cursor when that lets a segment be deleted, or when something
// was lost that it does not know.
func (r *reading) giveBack() {
	q := r.q
	q.mu.Lock()
	due := r.stale || len(q.segments) > 0 && r.saved < q.segments[0].end && r.record >= q.segments[0].end
	q.mu.Unlock()
	if !due {
		return
	}
	_ = r.save() // at worst records come again after a crash
	q.mu.Lock()
	q.trim()
	q.mu.Unlock()
}

// read puts sound records of a stretch into b, none when there are none, and takes
// them from what is left of it. Damage ends a batch, and is skipped and counted by
// the next one.
func (r *reading) read(s *stretch, b *Batch, records, bytes int) (took []taken, err error) {
	b.Records, b.buffer = b.Records[:0], b.buffer[:0]
	f, err := r.q.s.in.open(r.q.file(s.seg.number), 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sc := &r.scanner
	if err := sc.open(f, s.size, s.seg.number); err != nil {
		return nil, err
	}
	sc.offset = max(sc.offset, r.offset)
	total := 0
	for len(b.Records) == 0 || len(b.Records) < records && total < bytes {
		at, rest, damaged, err := r.nextBlock(b, &s.left, bytes)
		if err != nil && err != io.EOF {
			return nil, err
		}
		if damaged {
			if len(b.Records) > 0 {
				break
			}
			r.q.mu.Lock()
			r.corrupt++
			r.q.mu.Unlock()
			r.q.s.log.Warn("spool: skipped a damaged place", "output", r.reader.name, "file", f.Name(), "offset", r.offset)
			r.offset = at.offset // so that it is counted once
		}
		if err == io.EOF {
			r.at, r.offset = max(r.at, s.end), s.size
			break
		}
		for r.at, r.offset = at.number, at.offset; len(rest) > 0 && len(b.Records) < records; {
			record, after, _ := cutRecord(rest)
			wanted := r.set.Has(record.Dataset)
			if wanted {
				if total+len(record.JSON) > bytes && len(b.Records) > 0 {
					break
				}
				total += len(record.JSON)
			}
			r.at++
			if rest = after; len(rest) == 0 {
				r.offset = at.after
			}
			if wanted {
				s.left[record.Dataset]--
				b.Records = append(b.Records, record)
				took = append(took, taken{seg: s.seg, dataset: record.Dataset, next: r.at})
			}
		}
		if len(rest) > 0 {
			break
		}
	}
	return took, nil
}

// nextBlock returns the first block, from where the scanner is, with records that
// r is not past, without those that it is past, and whether there is damage before
// it. A block that has more of the output than is left is damaged as well.
func (r *reading) nextBlock(into *Batch, left *Counts, bytes int) (b block, records []byte, damaged bool, err error) {
	sc := &r.scanner
	for {
		b, skipped, err := sc.next()
		damaged = damaged || skipped > 0
		if err != nil {
			b.offset = sc.offset
			return b, nil, damaged, err
		}
		if b.end() <= r.at {
			continue
		}
		if b.counts.of(r.set).Total() == 0 && b.number >= r.at {
			r.at, r.offset = b.end(), b.after // all of it is for other outputs
			continue
		}
		var buf []byte
		if sc.version != 1 {
			buf = into.reserve(b.size, bytes)
		}
		records, ok := sc.records(buf, &b, r.decoder)
		if ok {
			if past := max(b.number, r.at) - b.number; past > 0 {
				var counts Counts
				counts, records, _ = countRecords(records, past)
				b.counts.subtract(counts)
				b.number += past
			}
			ok = left.has(b.counts.of(r.set))
		}
		if !ok {
			damaged = true
			continue
		}
		if sc.version != 1 {
			into.buffer = into.buffer[:len(into.buffer)+b.size]
		}
		return b, records, damaged, nil
	}
}

// reserve returns an empty slice with room for size bytes that is not in use by
// the batch. A batch has about so many bytes.
func (b *Batch) reserve(size, bytes int) []byte {
	n := len(b.buffer)
	if cap(b.buffer)-n < size {
		// What the batch has until now stays where it is.
		b.buffer = make([]byte, 0, max(size, min(2*cap(b.buffer), bytes+blockSize)))
		n = 0
	}
	return b.buffer[n:n]
}

// settle is Settle for one queue.
func (r *reading) settle(n int) error {
	q := r.q
	q.mu.Lock()
	for _, t := range r.outstanding[:n] {
		if t.seg.gone {
			r.inMemory[t.dataset]--
		} else {
			t.seg.left[r.index][t.dataset]--
		}
		r.settled[t.dataset]++
		r.record = t.next
	}
	r.outstanding = slices.Delete(r.outstanding, 0, n)
	if len(r.outstanding) == 0 {
		r.record = max(r.record, r.past)
	}
	q.mu.Unlock()

	err := r.save()

	q.mu.Lock()
	q.trim()
	q.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write spool cursor: %w", err)
	}
	return nil
}

// save writes the cursor.
func (r *reading) save() error {
	r.saving.Lock()
	defer r.saving.Unlock()
	q := r.q
	q.mu.Lock()
	left := r.left()
	left.add(r.inMemory)
	c := cursor{record: r.record, next: q.next, left: left.Total(), set: r.set}
	r.stale = false
	q.mu.Unlock()
	err := writeCursor(q.s.in, cursorFile(r.reader.name, q.which), c)
	q.mu.Lock()
	r.saved = c.record
	q.mu.Unlock()
	return err
}

func (r *reading) addStats(st *ReaderStats) {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	st.Recovered.add(r.recovered)
	st.Accepted.add(r.accepted)
	st.Settled.add(r.settled)
	st.Dropped.add(r.dropped)
	waiting := r.left()
	waiting.add(r.inMemory)
	st.Waiting.add(waiting)
	st.Backlog[r.q.which] = r.backlog(waiting)
	st.Corrupt += r.corrupt
	st.Missing += r.missing
}

// backlog tells of the records that are not settled. The caller holds the mutex of the
// queue.
func (r *reading) backlog(waiting Counts) Backlog {
	b := Backlog{Records: int64(waiting.Total())}
	var oldest int64
	for _, seg := range r.q.segments {
		if seg.left[r.index].Total() == 0 {
			continue
		}
		b.Bytes += seg.size
		if oldest == 0 {
			oldest = seg.acceptedAt(max(r.record, seg.number))
		}
	}
	if len(r.outstanding) > 0 {
		oldest = r.outstanding[0].at
	}
	if b.Records > 0 && oldest > 0 {
		b.Age = max(int64(time.Since(time.Unix(0, oldest)).Seconds()), 0)
	}
	return b
}
