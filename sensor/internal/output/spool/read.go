package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// take is Next for one queue.
func (q *queue) take(ctx context.Context, records, bytes int) ([]output.Record, error) {
	records = max(records, 1)
	for {
		finished := false // looked at before mu is taken: what enqueue took until then is seen below
		select {
		case <-q.s.finished:
			finished = true
		default:
		}
		q.mu.Lock()
		q.reading = 0
		q.batch = q.batch[:0]
		q.expire()
		q.trim()
		var seg segment
		active := false
		if len(q.segments) > 0 {
			if first := q.segments[0]; q.current != first.number {
				q.current, q.offset = first.number, 0
				q.record = max(q.record, first.number)
			}
			seg, active = *q.segments[0], q.isActive(q.segments[0])
		}
		found := q.offset < seg.size
		if found {
			q.reading = seg.number
		}
		over := finished && q.waiting.Total()+q.writing.Total() == 0
		stale := q.stale
		q.mu.Unlock()
		if stale {
			_ = q.save() // all that is lost with it is that something was counted
		}

		if !found {
			if over {
				return nil, io.EOF
			}
			select {
			case <-q.ready:
				continue
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		batch, err := q.read(&seg, records, bytes)
		if errors.Is(err, fs.ErrNotExist) {
			q.giveUpGone()
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read spool: %w", err)
		}
		if len(batch) > 0 {
			return batch, nil
		}
		// Nothing sound is left in this segment.
		q.mu.Lock()
		q.record, q.offset = max(q.record, seg.end), seg.size
		if active {
			// It may have grown meanwhile. What comes then is sound.
			q.logDamage(&seg)
			q.giveUp(seg.left)
			q.segments[0].left.subtract(seg.left)
		}
		q.mu.Unlock()
		_ = q.save() // at worst it is found damaged again
	}
}

// read returns sound records of seg from offset on, none when there are none.
// Damage ends a batch, and is skipped and counted by the next one.
func (q *queue) read(seg *segment, records, bytes int) (batch []output.Record, err error) {
	f, err := q.s.in.open(q.file(seg.number), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sc := &q.scanner
	if err := sc.open(f, seg.size, seg.number); err != nil {
		return nil, err
	}
	sc.offset = max(sc.offset, q.offset)
	left, total := seg.left, 0
	q.buffer = q.buffer[:0]
	for len(batch) == 0 || len(batch) < records && total < bytes {
		b, rest, damaged, err := q.nextBlock(&left, bytes)
		if err != nil && err != io.EOF {
			return nil, err
		}
		if damaged {
			if len(batch) > 0 {
				break
			}
			q.mu.Lock()
			q.stats.Corrupt++
			q.mu.Unlock()
			q.s.log.Warn("spool: skipped a damaged place", "file", f.Name(), "offset", q.offset)
			q.offset = b.offset // so that it is counted once
		}
		if err == io.EOF {
			break
		}
		for n := b.number; len(rest) > 0 && len(batch) < records; {
			r, after, _ := cutRecord(rest)
			if total += len(r.JSON); len(batch) > 0 && total > bytes {
				break
			}
			n++
			end := recordEnd{dataset: r.Dataset, next: n, offset: b.offset}
			if rest = after; len(rest) == 0 {
				end.offset = b.after
			}
			batch = append(batch, r)
			q.batch = append(q.batch, end)
		}
	}
	return batch, nil
}

// nextBlock returns the first block, from where the scanner is, with records that
// the cursor is not past, without those that it is past, and whether there is
// damage before it. The records are taken from left: a block that has more than
// were written is damaged as well.
func (q *queue) nextBlock(left *Counts, bytes int) (b block, records []byte, damaged bool, err error) {
	sc := &q.scanner
	for {
		b, skipped, err := sc.next()
		damaged = damaged || skipped > 0
		if err != nil {
			b.offset = sc.offset
			return b, nil, damaged, err
		}
		if b.end() <= q.record {
			continue
		}
		var buf []byte
		if sc.version != 1 {
			buf = q.reserve(b.size, bytes)
		}
		records, ok := sc.records(buf, &b, q.decoder)
		if ok {
			if settled := max(b.number, q.record) - b.number; settled > 0 {
				var past Counts
				past, records, _ = countRecords(records, settled)
				b.counts.subtract(past)
				b.number += settled
			}
			ok = left.has(b.counts)
		}
		if !ok {
			damaged = true
			continue
		}
		if sc.version != 1 {
			q.buffer = q.buffer[:len(q.buffer)+b.size]
		}
		left.subtract(b.counts)
		return b, records, damaged, nil
	}
}

// reserve returns an empty slice with room for size bytes that is not in use by
// the batch. A batch has about so many bytes.
func (q *queue) reserve(size, bytes int) []byte {
	n := len(q.buffer)
	if cap(q.buffer)-n < size {
		// What the batch has until now stays where it is.
		q.buffer = make([]byte, 0, max(size, min(2*cap(q.buffer), bytes+blockSize)))
		n = 0
	}
	return q.buffer[n:n]
}

// settle is Settle for one queue.
func (q *queue) settle(n int) error {
	if n == 0 {
		return nil
	}
	q.mu.Lock()
	seg := q.segments[0]
	for _, end := range q.batch[:n] {
		seg.left[end.dataset]--
		q.stats.Settled[end.dataset]++
	}
	q.record, q.offset = q.batch[n-1].next, q.batch[n-1].offset
	q.batch = slices.Delete(q.batch, 0, n)
	if len(q.batch) == 0 {
		q.reading = 0
	}
	q.mu.Unlock()

	err := q.save()

	q.mu.Lock()
	q.trim()
	q.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write spool cursor: %w", err)
	}
	return nil
}
