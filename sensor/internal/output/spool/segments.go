package spool

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output/outage"
)

// segment is one file of a queue.
type segment struct {
	number   uint64    // of its first record
	end      uint64    // the number of the record after its last one
	size     int64     // durable bytes
	left     []Counts  // for each reading, records in it that are not settled
	modified time.Time // of the last write
	accepted []write   // when its records were accepted, in their order
	gone     bool      // its file is deleted
}

// write is a time, in nanoseconds since the Unix epoch, at which records became
// durable.
type write struct {
	end uint64 // the number of the record after the last one
	at  int64
}

// wrote notes that the records below end are durable since now. So that a segment has
// maxWrites of them at most, older writes are told as one with the write before.
func (seg *segment) wrote(end uint64, now time.Time) {
	seg.end, seg.modified = end, now
	if len(seg.accepted) == maxWrites {
		kept := seg.accepted[:0]
		for i, w := range seg.accepted {
			if old := i < maxWrites/2; old && i%2 == 1 {
				kept[len(kept)-1].end = w.end
			} else {
				kept = append(kept, w)
			}
		}
		seg.accepted = kept
	}
	seg.accepted = append(seg.accepted, write{end, now.UnixNano()})
}

// acceptedAt is when the record with a number was accepted. Of a record of an earlier
// process all that is known is when the segment was written last.
func (seg *segment) acceptedAt(number uint64) int64 {
	i, _ := slices.BinarySearchFunc(seg.accepted, number+1, func(w write, end uint64) int { return cmp.Compare(w.end, end) })
	if i < len(seg.accepted) {
		return seg.accepted[i].at
	}
	return seg.modified.UnixNano()
}

// unsettled counts the records of seg that somebody has not settled, for each who
// has not.
func (seg *segment) unsettled() (n Counts) {
	for i := range seg.left {
		n.add(seg.left[i])
	}
	return n
}

// isActive reports whether seg may still grow. The caller holds mu.
func (q *queue) isActive(seg *segment) bool {
	return q.active != nil && seg == q.segments[len(q.segments)-1]
}

// seal ends the active segment. The caller holds mu.
func (q *queue) seal() {
	if q.active != nil {
		q.active.Close() // what is written is fsynced
		q.active = nil
	}
	q.trim()
}

// remove deletes segment i, whatever is in it, and reports which outputs lose what.
// What an output has taken out of it and not settled is inMemory: it may still be
// delivered. The caller holds mu.
func (q *queue) remove(i int) {
	seg := q.segments[i]
	for _, r := range q.readings {
		left := seg.left[r.index]
		if left.Total() == 0 {
			continue
		}
		inMemory := r.outstandingIn(seg)
		r.inMemory.add(inMemory)
		left.subtract(inMemory)
		r.dropped.add(left)
		r.stale = true
	}
	seg.gone = true
	// What stays is found by the next Open.
	if err := q.s.in.remove(q.file(seg.number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		q.s.log.Warn("spool: a file that is no longer used stays", "err", err)
	}
	q.segments = slices.Delete(q.segments, i, i+1)
	q.s.used.Add(-seg.size)
	q.s.space.send()
}

// trim deletes the segments that all cursors are past, also those on disk: otherwise
// a crash would make them look missing. The caller holds mu.
func (q *queue) trim() {
	for len(q.segments) > 0 {
		seg := q.segments[0]
		if q.isActive(seg) || !q.isSettled(seg.end) {
			return
		}
		q.remove(0)
	}
}

// giveUpGone gives up a segment that somebody has deleted.
func (q *queue) giveUpGone(seg *segment) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.segments, seg)
	if i < 0 {
		return // we have deleted it ourselves meanwhile
	}
	q.s.log.Error("spool: records lost, their segment is gone", "file", q.path(seg.number), "records", q.losing(seg))
	for _, r := range q.readings {
		if seg.left[r.index].Total() > 0 {
			r.corrupt++
		}
	}
	if q.isActive(seg) {
		q.active.Close()
		q.active = nil
	}
	q.remove(i)
}

// losing is what each output that has not settled seg loses with it.
func (q *queue) losing(seg *segment) map[string]uint64 {
	lost := map[string]uint64{}
	for _, r := range q.readings {
		if n := seg.left[r.index].Total(); n > 0 {
			lost[r.reader.name] = n
		}
	}
	return lost
}

// evict gives up the oldest segment that is not being written, and reports whether
// there was one.
func (q *queue) evict() bool {
	q.mu.Lock()
	i := slices.IndexFunc(q.segments, func(seg *segment) bool { return !q.isActive(seg) })
	if i >= 0 {
		g := &q.givenUp
		if g.outage.Class() == "" {
			g.lost = map[string]uint64{}
		}
		for name, n := range q.losing(q.segments[i]) {
			g.lost[name] += n
		}
		g.latest = time.Now()
		if g.outage.Fails("full") {
			q.logGivenUp()
		}
		q.remove(i)
	}
	q.mu.Unlock()
	q.saveStale()
	return i >= 0
}

// givenUp is what was given up for want of space since that began, by output.
type givenUp struct {
	lost   map[string]uint64
	latest time.Time
	outage outage.Outage
}

// logGivenUp says what was given up. The caller holds mu.
func (q *queue) logGivenUp() {
	level := slog.LevelWarn
	if q.which == Alerts {
		level = slog.LevelError
	}
	q.s.log.Log(context.Background(), level, "spool: full, the oldest records are given up", "queue", q.which.String(),
		"lost", maps.Clone(q.givenUp.lost), "limit", q.s.limit, "dir", q.s.dir)
}

// expire gives up telemetry that is too old.
func (q *queue) expire() {
	if q.which == Alerts {
		return
	}
	q.mu.Lock()
	for i := 0; i < len(q.segments); {
		seg := q.segments[i]
		if time.Since(seg.modified) < q.s.age {
			i++
			continue
		}
		if q.isActive(seg) {
			q.active.Close()
			q.active = nil
		}
		q.s.log.Warn("spool: telemetry given up for its age", "lost", q.losing(seg), "age", q.s.age)
		q.remove(i)
	}
	q.mu.Unlock()
	q.saveStale()
}

// saveStale writes the cursors that do not know what was given up. All that is lost
// when that fails is that the loss was counted.
func (q *queue) saveStale() {
	for _, r := range q.readings {
		q.mu.Lock()
		stale := r.stale
		q.mu.Unlock()
		if stale {
			_ = r.save()
		}
	}
}
