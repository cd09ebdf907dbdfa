package spool

import (
	"slices"
	"time"
)

// segment is one file of a queue.
type segment struct {
	number   uint64    // of its first record
	end      uint64    // the number of the record after its last one
	size     int64     // durable bytes
	left     Counts    // records in it that are not settled
	modified time.Time // of the last write
}

// isActive reports whether seg may still grow. The caller holds mu.
func (q *queue) isActive(seg *segment) bool {
	return q.active != nil && seg == q.segments[len(q.segments)-1]
}

// seal ends the active segment.
func (q *queue) seal() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.active.Close()
	q.active = nil
	q.trim()
}

// giveUp counts records on disk that will not be delivered. The caller holds mu.
func (q *queue) giveUp(n Counts) {
	if n.Total() > 0 {
		q.stats.Dropped.add(n)
		q.stale = true
	}
}

// remove deletes segment i, whatever is in it. The caller holds mu.
func (q *queue) remove(i int) {
	seg := q.segments[i]
	q.giveUp(seg.left)
	_ = q.s.in.remove(q.file(seg.number)) // what stays is found by the next Open
	q.segments = slices.Delete(q.segments, i, i+1)
	q.s.used.Add(-seg.size)
	q.s.space.send()
}

// trim deletes the segments that the cursor is past, also the cursor on disk:
// otherwise a crash would make them look missing. The caller holds mu.
func (q *queue) trim() {
	for len(q.segments) > 0 {
		seg := q.segments[0]
		if q.saved < seg.end || q.isActive(seg) {
			return
		}
		q.logDamage(seg)
		q.remove(0)
	}
}

// logDamage says how many records of a segment could not be read, if any. The
// caller holds mu.
func (q *queue) logDamage(seg *segment) {
	if n := seg.left.Total(); n > 0 {
		q.s.log.Error("spool: records lost, their segment was damaged, emptied or cut", "file", q.path(seg.number), "records", n)
	}
}

// giveUpGone gives up the first segment, which somebody has deleted.
func (q *queue) giveUpGone() {
	q.mu.Lock()
	defer q.mu.Unlock()
	seg := q.segments[0]
	q.s.log.Error("spool: records lost, their segment is gone", "file", q.path(seg.number), "records", seg.left.Total())
	q.stats.Corrupt++
	if q.isActive(seg) {
		q.active.Close()
		q.active = nil
	}
	q.remove(0)
}

// evict gives up the oldest segment that is neither being written nor read, and
// reports whether there was one.
func (q *queue) evict() bool {
	q.mu.Lock()
	i := slices.IndexFunc(q.segments, func(seg *segment) bool { return seg.number != q.reading && !q.isActive(seg) })
	if i >= 0 {
		q.s.log.Warn("spool: telemetry given up for alerts", "records", q.segments[i].left.Total(), "bytes", q.segments[i].size)
		q.remove(i)
	}
	q.mu.Unlock()
	if i >= 0 {
		_ = q.save() // all that is lost with it is that the loss was counted
	}
	return i >= 0
}

// expire gives up telemetry that is too old. The caller holds mu.
func (q *queue) expire() {
	if q.which == Alerts {
		return
	}
	for i := 0; i < len(q.segments); {
		seg := q.segments[i]
		if seg.number == q.reading || q.isActive(seg) || time.Since(seg.modified) < q.s.age {
			i++
			continue
		}
		q.s.log.Warn("spool: telemetry given up for its age", "records", seg.left.Total(), "age", q.s.age)
		q.remove(i)
	}
}
