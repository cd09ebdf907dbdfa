package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// enqueue queues r for the next write.
func (q *queue) enqueue(r *output.Record) error {
	size := recordSize(r)
	if size > maxRecord || int64(size) > q.s.limit/4 {
		return ErrTooLarge
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-q.s.finished:
		return ErrClosed
	default:
	}
	if len(q.pending) > 0 && len(q.pending)+size > q.s.pending {
		wake(q.flush)
		return ErrFull
	}
	// How much less r will take on disk is not known yet, so it counts with what
	// it takes now. Alerts go past the limit: the writer makes room for them.
	if q.s.used.Load()+int64(size) > q.s.limit && (q.which != Alerts || q.s.block) {
		return ErrFull
	}
	if len(q.pending) == 0 {
		wake(q.work)
	}
	q.pending = appendRecord(q.pending, r)
	q.waiting[r.Dataset]++
	q.stats.Appended[r.Dataset]++
	q.s.used.Add(int64(size))
	if len(q.pending) > q.s.pending/2 {
		wake(q.flush)
	}
	return nil
}

// run writes pending records until the spool is closed.
func (q *queue) run() {
	for {
		select {
		case <-q.work:
		case <-q.s.closed:
			q.commit()
			return
		}
		if q.delay > 0 {
			t := time.NewTimer(q.delay)
			select {
			case <-t.C:
			case <-q.flush:
			case <-q.s.finished:
			}
			t.Stop()
		}
		q.commit()
	}
}

// commit makes what is pending durable.
func (q *queue) commit() {
	q.mu.Lock()
	records := q.pending
	q.pending, q.writing, q.waiting = q.spare[:0], q.waiting, Counts{}
	q.spare = nil
	q.mu.Unlock()
	if len(records) > 0 {
		q.s.space.send() // pending is empty again
		err := q.write(records)
		q.mu.Lock()
		if err == nil {
			q.stats.Accepted.add(q.writing)
			q.took()
		} else {
			q.s.used.Add(-int64(len(records)))
			q.losses.unreported += q.writing.Total()
			q.lose(q.writing, err)
		}
		q.writing = Counts{}
		q.mu.Unlock()
		q.s.space.send() // what is on disk takes less, or nothing
	}
	q.mu.Lock()
	q.spare = records[:0]
	q.mu.Unlock()
	q.committed.send()
	wake(q.ready)
}

// write puts records on the disk. When that fails another segment may help; when
// the disk is full alerts get the space of telemetry; a spool that blocks tries
// until it is closed.
func (q *queue) write(records []byte) error {
	for first := true; ; first = false {
		if q.which == Alerts && !q.s.block {
			// As used has the records that wait with their size before compression,
			// this can evict a segment whose space they turn out not to need.
			for q.s.used.Load() > q.s.limit && q.s.queues[Telemetry].evict() {
			}
		}
		space := q.s.space.wait()
		err := q.writeSegment(records)
		if err == nil {
			return nil
		}
		q.mu.Lock()
		q.stats.Failures++
		isFirst := q.stats.Failures == 1
		q.mu.Unlock()
		if isFirst {
			q.s.log.Error("spool: write", "queue", q.which.String(), "err", err)
		}
		if first && !errors.Is(err, syscall.ENOSPC) {
			continue
		}
		if !q.s.block {
			if q.which == Alerts && q.s.queues[Telemetry].evict() {
				continue
			}
			return err
		}
		t := time.NewTimer(retryDelay)
		select {
		case <-space:
		case <-t.C:
		case <-q.s.closed:
			t.Stop()
			return err
		}
		t.Stop()
	}
}

// writeSegment appends records to the active segment, in blocks, and fsyncs it.
// After an error nothing is known about the bytes after the last fsync, so the
// segment is cut there, and the next write starts another one.
func (q *queue) writeSegment(records []byte) error {
	q.mu.Lock()
	f, number := q.active, q.next
	var seg *segment
	if f != nil {
		seg = q.segments[len(q.segments)-1]
	}
	q.mu.Unlock()
	if f != nil && seg.size >= q.s.segment {
		q.seal()
		f = nil
	}
	isNew := f == nil
	if isNew {
		var err error
		if f, err = q.s.create(q.path(number)); err != nil {
			return err
		}
		seg = &segment{number: number}
		q.marker = newMarker()
	}
	size, end, err := q.writeBlocks(f, records, number, isNew)
	if err == nil {
		err = f.Sync()
	}
	if err == nil && isNew {
		err = q.s.in.sync()
	}
	if err != nil {
		f.Truncate(seg.size)
		f.Close()
		if isNew {
			_ = q.s.in.remove(q.file(number))
		}
		q.mu.Lock()
		q.active = nil
		q.mu.Unlock()
		return err
	}
	q.mu.Lock()
	if !isNew && q.active != f {
		q.mu.Unlock()
		return fs.ErrClosed // given up in the meantime, see giveUpGone
	}
	if isNew {
		q.segments = append(q.segments, seg)
		q.active = f
	}
	q.s.used.Add(size - int64(len(records)))
	seg.size += size
	seg.left.add(q.writing)
	seg.end, q.next = end, end
	seg.modified = time.Now()
	q.mu.Unlock()
	if isNew {
		_ = q.save() // all that is lost with it is the count of what somebody deletes
	}
	return nil
}

// writeBlocks writes records, of which the first has the given number, in blocks
// to f, in a new segment after its header. It returns how many bytes that were,
// and the number of the record that comes next.
func (q *queue) writeBlocks(f file, records []byte, number uint64, isNew bool) (size int64, next uint64, err error) {
	b := q.block[:0]
	if isNew {
		b = appendFileHeader(b, q.marker)
	}
	for len(records) > 0 {
		n, counts := cutBlock(records)
		b = appendBlock(b, q.marker, number, counts, records[:n], q.encoder)
		if _, err := f.Write(b); err != nil {
			return 0, 0, err
		}
		records = records[n:]
		number += counts.Total()
		size += int64(len(b))
		q.block, b = b, b[:0]
	}
	return size, number, nil
}

// sync returns when all that was appended before it is on disk or lost.
func (q *queue) sync(ctx context.Context) error {
	q.mu.Lock()
	goal := q.stats.Appended.Total()
	q.mu.Unlock()
	for {
		wait := q.committed.wait()
		q.mu.Lock()
		done := q.stats.Accepted.Total()+q.stats.Refused.Total() >= goal
		lost, err := q.losses.unreported, q.losses.err
		if done {
			q.losses.unreported = 0
		}
		q.mu.Unlock()
		if done {
			if lost > 0 {
				return fmt.Errorf("write %s to spool: %d records lost: %w", q.which, lost, err)
			}
			return nil
		}
		wake(q.flush)
		select {
		case <-wait:
		case <-ctx.Done():
			return fmt.Errorf("sync spool: %w", context.Cause(ctx))
		}
	}
}
