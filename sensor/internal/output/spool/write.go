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
	if !q.isWanted(r.Dataset) {
		return nil
	}
	if len(q.pending) > 0 && len(q.pending)+size > q.s.pending {
		wake(q.flush)
		return ErrFull
	}
	if len(q.pending) == 0 {
		wake(q.work)
	}
	q.pending = appendRecord(q.pending, r)
	q.waiting[r.Dataset]++
	q.stats.Appended[r.Dataset]++
	if len(q.pending) > q.s.pending/2 {
		wake(q.flush)
	}
	return nil
}

// isWanted reports whether an output wants records of d. The caller holds mu.
func (q *queue) isWanted(d output.Dataset) bool {
	for _, r := range q.readings {
		if r.set.Has(d) {
			return true
		}
	}
	return false
}

// run writes pending records until the spool is closed.
func (q *queue) run() {
	t := time.NewTicker(expireInterval)
	defer t.Stop()
	for {
		select {
		case <-q.work:
		case <-t.C:
			q.expire()
			q.mu.Lock()
			q.took() // where nothing comes any more that would say so
			q.mu.Unlock()
			continue
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
		for rest := records; len(rest) > 0; {
			n, counts := q.cut(rest)
			err := q.write(rest[:n], counts)
			rest = rest[n:]
			q.mu.Lock()
			if err == nil {
				q.stats.Accepted.add(counts)
				q.took()
			} else {
				q.losses.unreported += counts.Total()
				q.lose(counts, err)
			}
			q.writing.subtract(counts)
			q.mu.Unlock()
			q.arrived.send()
		}
	}
	q.mu.Lock()
	q.spare = records[:0]
	q.mu.Unlock()
	q.committed.send()
	q.arrived.send() // for those who wait for the end
}

// blockSize is the most that a block has, before compression: in a small spool, no
// more than a segment.
func (q *queue) blockSize() int { return int(min(blockSize, q.s.segment)) }

// cut returns how many bytes of records are written at once, whole blocks that come
// to a segment at most, and how many records these are.
func (q *queue) cut(records []byte) (size int, counts Counts) {
	for size < len(records) && (size == 0 || int64(size) < q.s.segment) {
		n, more := cutBlock(records[size:], q.blockSize())
		if size > 0 && int64(size+n) > q.s.segment {
			break
		}
		size += n
		counts.add(more)
	}
	return size, counts
}

// write puts records, which counts counts, on the disk. When that fails it tries again, at first at once,
// as another segment may help, until the spool is closed: meanwhile others wait in
// memory. On a full disk alerts get the space of telemetry. An error means that the
// records are lost.
func (q *queue) write(records []byte, counts Counts) error {
	for first := true; ; first = false {
		space := q.s.space.wait()
		err := q.writeSegment(records, counts)
		if err == nil {
			q.mu.Lock()
			q.failed = nil
			if lasted, was := q.trouble.Works(); was {
				q.s.log.Info("spool: writes again", "queue", q.which.String(), "after", lasted.Round(time.Millisecond), "dir", q.s.dir)
			}
			q.mu.Unlock()
			return nil
		}
		if errors.Is(err, ErrFull) && !q.s.block {
			return err
		}
		if !errors.Is(err, ErrFull) { // a replay that waits for room has no trouble
			q.mu.Lock()
			q.stats.Failures++
			q.failed = err
			if q.trouble.Fails("write") {
				q.s.log.Error("spool: cannot write, records wait in memory", "queue", q.which.String(), "err", err, "dir", q.s.dir)
			}
			q.mu.Unlock()
			if first && !errors.Is(err, syscall.ENOSPC) {
				continue
			}
			if errors.Is(err, syscall.ENOSPC) && q.which == Alerts && !q.s.block && q.s.queues[Telemetry].evict() {
				continue
			}
		}
		t := time.NewTimer(q.s.retry)
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

// reserve takes size bytes of the limit. Where there is no room and the spool does not
// block, the oldest telemetry is given up, and for alerts then the oldest alerts.
func (q *queue) reserve(size int64) error {
	for q.s.used.Add(size) > q.s.limit {
		q.s.used.Add(-size)
		switch {
		case q.s.block:
			return ErrFull
		case q.s.queues[Telemetry].evict():
		case q.which == Alerts && q.evict():
		default:
			return ErrFull
		}
	}
	return nil
}

// writeSegment appends records to the active segment, in blocks, and fsyncs it.
// After an error nothing is known about the bytes after the last fsync, so the
// segment is cut there, and the next write starts another one.
func (q *queue) writeSegment(records []byte, counts Counts) error {
	q.mu.Lock()
	f, number := q.active, q.next
	var seg *segment
	if f != nil {
		if seg = q.segments[len(q.segments)-1]; seg.size >= q.s.segment {
			q.seal()
			f = nil
		}
	}
	q.mu.Unlock()
	isNew := f == nil
	if isNew {
		seg = &segment{number: number, left: make([]Counts, len(q.readings))}
		q.marker = newMarker()
	}
	q.encode(records, number, isNew)
	size := int64(len(q.encoded))
	if err := q.reserve(size); err != nil {
		return err
	}
	written := false
	defer func() {
		if !written {
			q.s.used.Add(-size)
		}
	}()
	if isNew {
		var err error
		if f, err = q.s.create(q.path(number)); err != nil {
			return err
		}
	}
	_, err := f.Write(q.encoded)
	if err == nil {
		err = f.Sync()
	}
	if err == nil && isNew {
		err = q.s.in.sync()
	}
	q.mu.Lock()
	if !isNew && q.active != f {
		q.mu.Unlock()
		return fs.ErrClosed // given up in the meantime, see giveUpGone
	}
	if err != nil {
		f.Truncate(seg.size)
		f.Close()
		if isNew {
			_ = q.s.in.remove(q.file(number))
		}
		q.active = nil
		q.mu.Unlock()
		return err
	}
	if isNew {
		q.segments = append(q.segments, seg)
		q.active = f
	}
	written = true
	seg.size += size
	for i, r := range q.readings {
		wanted := counts.of(r.set)
		seg.left[i].add(wanted)
		r.accepted.add(wanted)
	}
	seg.wrote(number+counts.Total(), time.Now())
	q.next = seg.end
	q.warn()
	q.mu.Unlock()
	if isNew { // all that is lost without is the count of what somebody deletes
		for _, r := range q.readings {
			if !r.reader.absent {
				_ = r.save()
			}
		}
	}
	return nil
}

// encode makes the blocks of records, of which the first has the given number, in a
// new segment after its header.
func (q *queue) encode(records []byte, number uint64, isNew bool) {
	b := q.encoded[:0]
	if isNew {
		b = appendFileHeader(b, q.marker)
	}
	for len(records) > 0 {
		n, counts := cutBlock(records, q.blockSize())
		b = appendBlock(b, q.marker, number, counts, records[:n], q.encoder)
		records = records[n:]
		number += counts.Total()
	}
	q.encoded = b
}

// warn says how full of alerts the spool is, before any is given up. The caller holds
// mu.
func (q *queue) warn() {
	if q.which != Alerts {
		return
	}
	var bytes int64
	for _, seg := range q.segments {
		bytes += seg.size
	}
	tenths := int(10 * bytes / q.s.limit)
	if tenths > q.alarm && tenths >= firstAlarm {
		q.s.log.Warn("spool: fills with alerts that are not delivered", "bytes", bytes, "limit", q.s.limit, "dir", q.s.dir)
	}
	if tenths > q.alarm || tenths < firstAlarm/2 {
		q.alarm = tenths
	}
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
