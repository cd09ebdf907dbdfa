package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// segment is one file of a lane.
type segment struct {
	number   uint64    // of its first record; with those of its neighbours it tells how many it must have
	size     int64     // durable bytes
	left     Counts    // records in it that are not settled
	modified time.Time // of the last write
}

// lane is one queue. Append only copies into memory; one goroutine writes, so
// that no caller of Append waits for the disk.
type lane struct {
	s     *Spool
	lane  Lane
	delay time.Duration // how long records wait for company before the fsync

	done  sync.WaitGroup // the goroutine that writes
	work  chan struct{}  // there are pending records
	flush chan struct{}  // do not wait for company
	ready chan struct{}  // there is something to read, or nothing more will come

	mu       sync.Mutex
	pending  []byte // records for the next write
	waiting  Counts // how many they are
	spare    []byte // pending of the last write, for reuse
	writing  Counts // records that are being written
	segments []*segment
	active   file // the last segment, open for writing; nil when the next write starts a new one
	stats    Stats
	lastErr  error     // why records were refused last
	unsaid   uint64    // records lost after append took them, that sync has not reported
	losing   bool      // records are being refused
	since    time.Time // when that began
	before   uint64    // refused when it began
	latest   time.Time // when the last one was refused
	said     time.Time // when that was logged last
	settled  broadcast // sent when a write ended, well or not

	cursor position
	saved  position   // the cursor on disk, or what would be there had the disk room
	saving sync.Mutex // held while the cursor is written
	stale  bool       // the cursor on disk does not know what was given up
	batch  []place    // what next last returned
	held   uint64     // segment that batch is in, 0 when there is none
	buffer []byte     // its bytes
}

// place is a record of a batch.
type place struct {
	end     int64 // offset behind it
	dataset output.Dataset
}

func (l *lane) file(number uint64) string { return fmt.Sprintf("%s-%016d.spool", l.lane, number) }

func (l *lane) path(number uint64) string { return l.s.in.path(l.file(number)) }

func (l *lane) cursorFile() string { return l.lane.String() + ".cursor" }

// openLane finds what earlier processes left.
func openLane(s *Spool, which Lane) (*lane, error) {
	l := &lane{
		s: s, lane: which,
		work: make(chan struct{}, 1), flush: make(chan struct{}, 1), ready: make(chan struct{}, 1),
	}
	var damaged bool
	var err error
	if l.cursor, damaged, err = readCursor(s.in, l.cursorFile()); err != nil {
		return nil, err
	}
	if damaged {
		l.stats.Corrupt++
		s.log.Warn("spool: damaged cursor, all that is kept will be delivered again", "file", s.in.path(l.cursorFile()))
	}
	names, err := s.in.names()
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, file := range names {
		name, ok := strings.CutPrefix(file, which.String()+"-")
		if name, found := strings.CutSuffix(name, ".spool"); ok && found {
			if n, err := strconv.ParseUint(name, 10, 64); err == nil && n > 0 {
				numbers = append(numbers, n)
			}
		}
	}
	slices.Sort(numbers)
	next := l.cursor.record // the number of the record that must come next; 0 when that is not known
	missing := uint64(0)
	for i, n := range numbers {
		if n < l.cursor.segment {
			if err := s.in.remove(l.file(n)); err != nil {
				return nil, err
			}
			continue
		}
		if n > l.cursor.segment || next == 0 {
			if next != 0 && n > next {
				missing += n - next
			}
			next = max(next, n)
			if l.cursor.record == 0 {
				l.cursor.record = n
			}
		}
		found, err := l.recover(n, i == len(numbers)-1)
		if err != nil {
			return nil, err
		}
		next += found
	}
	if next != 0 && next < l.cursor.next {
		missing += l.cursor.next - next
	}
	// A new segment is never below the cursor, or it would count as settled.
	l.cursor.next = max(next, l.cursor.next, l.cursor.segment+1)
	if len(numbers) > 0 {
		l.cursor.next = max(l.cursor.next, numbers[len(numbers)-1]+1)
	}
	if l.cursor.record == 0 {
		l.cursor.record = l.cursor.next
	}
	if missing > l.cursor.given {
		l.stats.Missing = missing - l.cursor.given
		s.log.Error("spool: records are missing, their segments were deleted, emptied or cut",
			"lane", which.String(), "records", l.stats.Missing, "dir", s.dir)
		l.cursor.given = missing // said once
		l.stale = true
	}
	l.saved = l.cursor
	l.stats.Recovered = l.spooled()
	return l, nil
}

// recover takes over the segment with the given number, and returns how many
// records it has that are not settled.
func (l *lane) recover(number uint64, last bool) (records uint64, err error) {
	name, path := l.file(number), l.path(number)
	b, info, err := l.s.in.read(name)
	if err != nil {
		return 0, err
	}
	// A zero is no format but a torn header.
	if n := len(fileHeader) - 1; len(b) > n && string(b[:n]) == fileHeader[:n] && b[n] != fileHeader[n] && b[n] != 0 {
		return 0, fmt.Errorf("%s: format %d is not known to this version", path, b[n])
	}
	seg := &segment{number: number, modified: info.ModTime()}
	start := int64(len(fileHeader))
	if number == l.cursor.segment {
		start = max(start, l.cursor.offset)
	}
	end := start
	for end < int64(len(b)) {
		r, skip, size, ok := nextRecord(b[end:])
		if !ok {
			break
		}
		seg.left[r.Dataset]++
		end += int64(skip + size)
	}
	if rest := int64(len(b)) - end; rest > 0 && last {
		l.stats.Torn++
		l.stats.TornBytes += uint64(rest)
		l.s.log.Warn("spool: cut a torn tail", "file", path, "bytes", rest)
		if err := l.s.in.truncate(name, end); err != nil {
			return 0, err
		}
		b = b[:end]
	}
	if seg.left.Total() == 0 {
		return 0, l.s.in.remove(name)
	}
	seg.size = int64(len(b))
	l.s.used.Add(seg.size)
	l.segments = append(l.segments, seg)
	return seg.left.Total(), nil
}

// append queues r for the next write.
func (l *lane) append(r *output.Record) error {
	size := recordSize(r)
	if size > maxRecord || int64(size) > l.s.limit/4 {
		return ErrTooLarge
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.s.finished:
		return ErrClosed
	default:
	}
	if len(l.pending) > 0 && len(l.pending)+size > l.s.pending {
		poke(l.flush)
		return ErrFull
	}
	// Alerts go past the limit: the writer makes room for them.
	if l.s.used.Load()+int64(size) > l.s.limit && (l.lane != Alerts || l.s.block) {
		return ErrFull
	}
	if len(l.pending) == 0 {
		poke(l.work)
	}
	l.pending = appendRecord(l.pending, r)
	l.waiting[r.Dataset]++
	l.stats.Appended[r.Dataset]++
	l.s.used.Add(int64(size))
	if len(l.pending) > l.s.pending/2 {
		poke(l.flush)
	}
	return nil
}

// refuse counts a record that Append did not take.
func (l *lane) refuse(d output.Dataset, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Appended[d]++
	var n Counts
	n[d] = 1
	l.lose(n, err)
}

// lose counts records that did not get to the disk, and says so when it begins
// and once a minute for as long as it lasts. The caller holds mu.
func (l *lane) lose(n Counts, err error) {
	before := l.stats.Refused.Total()
	l.stats.Refused.add(n)
	l.lastErr = err
	if err == ErrClosed {
		return
	}
	l.latest = time.Now()
	if !l.losing {
		l.losing, l.since, l.before, l.said = true, l.latest, before, time.Time{}
	}
	if time.Since(l.said) < time.Minute {
		return
	}
	l.said = l.latest
	l.s.log.Error("spool: records lost", "lane", l.lane.String(), "lost", l.stats.Refused.Total()-l.before, "dir", l.s.dir, "err", err)
}

// takes says that records are no longer lost. The caller holds mu.
func (l *lane) takes() {
	if l.losing && time.Since(l.latest) >= calmAfter {
		l.losing = false
		l.s.log.Info("spool: takes records again", "lane", l.lane.String(), "lost", l.stats.Refused.Total()-l.before,
			"after", l.latest.Sub(l.since).Round(time.Millisecond), "dir", l.s.dir)
	}
}

// run writes pending records until the spool is closed.
func (l *lane) run() {
	for {
		select {
		case <-l.work:
		case <-l.s.closed:
			l.commit()
			return
		}
		if l.delay > 0 {
			t := time.NewTimer(l.delay)
			select {
			case <-t.C:
			case <-l.flush:
			case <-l.s.finished:
			}
			t.Stop()
		}
		l.commit()
	}
}

// commit makes what is pending durable.
func (l *lane) commit() {
	l.mu.Lock()
	buf := l.pending
	l.pending, l.writing, l.waiting = l.spare[:0], l.waiting, Counts{}
	l.spare = nil
	l.mu.Unlock()
	if len(buf) > 0 {
		l.s.room.send() // pending is empty again
		err := l.write(buf)
		l.mu.Lock()
		if err == nil {
			l.stats.Accepted.add(l.writing)
			l.takes()
		} else {
			l.s.used.Add(-int64(len(buf)))
			l.unsaid += l.writing.Total()
			l.lose(l.writing, err)
		}
		l.writing = Counts{}
		l.mu.Unlock()
		if err != nil {
			l.s.room.send()
		}
	}
	l.mu.Lock()
	l.spare = buf[:0]
	l.mu.Unlock()
	l.settled.send()
	poke(l.ready)
}

// write puts buf on the disk. When that fails another segment may do; when the
// disk is full alerts get the room of telemetry; a spool that blocks tries until
// it is closed.
func (l *lane) write(buf []byte) error {
	for first := true; ; first = false {
		if l.lane == Alerts && !l.s.block {
			for l.s.used.Load() > l.s.limit && l.s.lanes[Telemetry].evict() {
			}
		}
		room := l.s.room.wait()
		err := l.writeSegment(buf)
		if err == nil {
			return nil
		}
		l.mu.Lock()
		l.stats.Failures++
		news := l.stats.Failures == 1
		l.mu.Unlock()
		if news {
			l.s.log.Error("spool: write", "lane", l.lane.String(), "err", err)
		}
		if first && !errors.Is(err, syscall.ENOSPC) {
			continue
		}
		if !l.s.block {
			if l.lane == Alerts && l.s.lanes[Telemetry].evict() {
				continue
			}
			return err
		}
		t := time.NewTimer(retryDelay)
		select {
		case <-room:
		case <-t.C:
		case <-l.s.closed:
			t.Stop()
			return err
		}
		t.Stop()
	}
}

// writeSegment appends buf to the active segment and fsyncs it. After an error
// nothing is known about the bytes behind the last fsync, so the segment is cut
// there and the next write starts another.
func (l *lane) writeSegment(buf []byte) error {
	l.mu.Lock()
	f := l.active
	var seg *segment
	if f != nil {
		seg = l.segments[len(l.segments)-1]
	}
	l.mu.Unlock()
	if f != nil && seg.size >= l.s.segment {
		l.seal()
		f = nil
	}
	head := ""
	if f == nil {
		var err error
		l.mu.Lock()
		number := l.cursor.next
		l.mu.Unlock()
		if f, err = l.s.create(l.path(number)); err != nil {
			return err
		}
		seg = &segment{number: number}
		head = fileHeader
	}
	_, err := io.WriteString(f, head)
	if err == nil {
		_, err = f.Write(buf)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil && head != "" {
		err = l.s.in.sync()
	}
	if err != nil {
		f.Truncate(seg.size)
		f.Close()
		if head != "" {
			_ = l.s.in.remove(l.file(seg.number))
		}
		l.mu.Lock()
		l.active = nil
		l.mu.Unlock()
		return err
	}
	l.mu.Lock()
	if head == "" && l.active != f {
		l.mu.Unlock()
		return fs.ErrClosed // given up in the meantime, see lost
	}
	if head != "" {
		l.segments = append(l.segments, seg)
		l.active = f
		l.s.used.Add(int64(len(head)))
	}
	seg.size += int64(len(head) + len(buf))
	seg.left.add(l.writing)
	seg.modified = time.Now()
	l.cursor.next += l.writing.Total()
	l.mu.Unlock()
	if head != "" {
		_ = l.save() // all that is lost with it is the count of what somebody deletes
	}
	return nil
}

// save writes the cursor.
func (l *lane) save() error {
	l.saving.Lock()
	defer l.saving.Unlock()
	l.mu.Lock()
	cursor := l.cursor
	l.stale = false
	l.mu.Unlock()
	err := writeCursor(l.s.in, l.cursorFile(), cursor)
	l.mu.Lock()
	l.saved = cursor
	l.mu.Unlock()
	return err
}

// giveUp counts records on disk that will not be delivered. The caller holds mu.
func (l *lane) giveUp(n Counts) {
	if n.Total() > 0 {
		l.stats.Dropped.add(n)
		l.cursor.given += n.Total()
		l.stale = true
	}
}

// seal ends the active segment.
func (l *lane) seal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active.Close()
	l.active = nil
	l.trim()
}

// isActive says whether seg may still grow. The caller holds mu.
func (l *lane) isActive(seg *segment) bool {
	return l.active != nil && seg == l.segments[len(l.segments)-1]
}

// remove deletes segment i, whatever is in it. The caller holds mu.
func (l *lane) remove(i int) {
	seg := l.segments[i]
	l.giveUp(seg.left)
	_ = l.s.in.remove(l.file(seg.number)) // what stays is found, and skipped, by the next Open
	l.segments = slices.Delete(l.segments, i, i+1)
	l.s.used.Add(-seg.size)
	l.s.room.send()
}

// trim deletes the segments that the cursor is past, also the one on disk: else
// a crash would make them look missing. The caller holds mu.
func (l *lane) trim() {
	for len(l.segments) > 0 {
		seg := l.segments[0]
		past := seg.number < l.saved.segment || seg.number == l.saved.segment && l.saved.offset >= seg.size
		if !past || l.isActive(seg) {
			return
		}
		l.sayDamage(seg)
		l.remove(0)
	}
}

// sayDamage says how many records of a segment could not be read. The caller
// holds mu.
func (l *lane) sayDamage(seg *segment) {
	if n := seg.left.Total(); n > 0 {
		l.s.log.Error("spool: records lost, their segment was damaged, emptied or cut", "file", l.path(seg.number), "records", n)
	}
}

// lost gives up a segment that somebody has deleted.
func (l *lane) lost(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.s.log.Error("spool: records lost, their segment is gone", "file", l.path(number), "records", l.segments[0].left.Total())
	l.stats.Corrupt++
	if l.isActive(l.segments[0]) {
		l.active.Close()
		l.active = nil
	}
	l.remove(0)
}

// evict gives up the oldest segment that is neither being written nor read.
func (l *lane) evict() bool {
	l.mu.Lock()
	i := slices.IndexFunc(l.segments, func(seg *segment) bool { return seg.number != l.held && !l.isActive(seg) })
	if i >= 0 {
		l.s.log.Warn("spool: telemetry given up for alerts", "records", l.segments[i].left.Total(), "bytes", l.segments[i].size)
		l.remove(i)
	}
	l.mu.Unlock()
	if i >= 0 {
		_ = l.save() // all that is lost with it is that it was counted
	}
	return i >= 0
}

// expire gives up telemetry that is too old. The caller holds mu.
func (l *lane) expire() {
	if l.lane == Alerts {
		return
	}
	for i := 0; i < len(l.segments); {
		seg := l.segments[i]
		if seg.number == l.held || l.isActive(seg) || time.Since(seg.modified) < l.s.age {
			i++
			continue
		}
		l.s.log.Warn("spool: telemetry given up for its age", "records", seg.left.Total(), "age", l.s.age)
		l.remove(i)
	}
}

// advance moves the cursor to the beginning of a segment. What is missing before
// it lies behind then. The caller holds mu.
func (l *lane) advance(segment uint64) {
	if l.cursor.record != 0 && segment > l.cursor.record {
		l.cursor.given -= min(l.cursor.given, segment-l.cursor.record)
	}
	l.cursor.segment, l.cursor.offset, l.cursor.record = segment, int64(len(fileHeader)), segment
}

func (l *lane) sync(ctx context.Context) error {
	l.mu.Lock()
	goal := l.stats.Appended.Total()
	l.mu.Unlock()
	for {
		wait := l.settled.wait()
		l.mu.Lock()
		done := l.stats.Accepted.Total()+l.stats.Refused.Total() >= goal
		lost, err := l.unsaid, l.lastErr
		if done {
			l.unsaid = 0
		}
		l.mu.Unlock()
		if done {
			if lost > 0 {
				return fmt.Errorf("write %s to spool: %d records lost: %w", l.lane, lost, err)
			}
			return nil
		}
		poke(l.flush)
		select {
		case <-wait:
		case <-ctx.Done():
			return fmt.Errorf("sync spool: %w", context.Cause(ctx))
		}
	}
}

func (l *lane) next(ctx context.Context, records, bytes int) ([]output.Record, error) {
	for {
		finished := false // looked at before mu is taken: what append took until then is seen below
		select {
		case <-l.s.finished:
			finished = true
		default:
		}
		l.mu.Lock()
		l.held = 0
		l.batch = l.batch[:0]
		l.expire()
		l.trim()
		var seg segment
		active := false
		if len(l.segments) > 0 {
			if first := l.segments[0]; l.cursor.segment != first.number {
				l.advance(first.number)
			}
			seg, active = *l.segments[0], l.isActive(l.segments[0])
		}
		at := l.cursor.offset
		if at < seg.size {
			l.held = seg.number
		}
		over := finished && l.waiting.Total()+l.writing.Total() == 0
		stale := l.stale
		l.mu.Unlock()
		if stale {
			_ = l.save() // all that is lost with it is that something was counted
		}

		if at >= seg.size {
			if over {
				return nil, io.EOF
			}
			select {
			case <-l.ready:
				continue
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		batch, end, err := l.read(&seg, at, records, bytes)
		if errors.Is(err, fs.ErrNotExist) {
			l.lost(seg.number)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read spool: %w", err)
		}
		if len(batch) > 0 {
			return batch, nil
		}
		// Nothing sound is left in this segment.
		l.mu.Lock()
		l.cursor.offset = end
		if first := l.segments[0]; active && first.number == seg.number {
			l.sayDamage(&seg)
			l.giveUp(seg.left)
			for d := range first.left {
				first.left[d] -= seg.left[d]
			}
		}
		l.mu.Unlock()
		_ = l.save() // at worst it is found damaged again
	}
}

// read returns sound records of seg from offset at on. Without any, end is
// where to go on. A window that holds no whole record is widened once, to all
// of the segment.
func (l *lane) read(seg *segment, at int64, records, bytes int) (batch []output.Record, end int64, err error) {
	f, err := l.s.in.open(l.file(seg.number), os.O_RDONLY)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	size := min(seg.size-at, int64(bytes)+recordHeader+bodyHeader+255)
	for {
		l.buffer = slices.Grow(l.buffer[:0], int(size))[:size]
		n, err := f.ReadAt(l.buffer, at)
		if err != nil && err != io.EOF {
			return nil, 0, err
		}
		whole := at+size == seg.size
		batch, ends, damaged := window(l.buffer[:n], whole, records, bytes)
		if len(batch) == 0 && !whole {
			size = seg.size - at
			continue
		}
		for i, r := range batch {
			l.batch = append(l.batch, place{at + int64(ends[i]), r.Dataset})
		}
		if damaged > 0 {
			l.mu.Lock()
			l.stats.Corrupt += uint64(damaged)
			l.mu.Unlock()
			l.s.log.Warn("spool: skipped a damaged place", "file", f.Name(), "offset", at)
		}
		return batch, seg.size, nil
	}
}

func (l *lane) settle(n int) error {
	if n == 0 {
		return nil
	}
	l.mu.Lock()
	seg := l.segments[0]
	for _, p := range l.batch[:n] {
		seg.left[p.dataset]--
		l.stats.Settled[p.dataset]++
		l.cursor.offset = p.end
		if l.cursor.record != 0 {
			l.cursor.record++
		}
	}
	l.batch = slices.Delete(l.batch, 0, n)
	if len(l.batch) == 0 {
		l.held = 0
	}
	l.mu.Unlock()

	err := l.save()

	l.mu.Lock()
	l.trim()
	l.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write spool cursor: %w", err)
	}
	return nil
}

// spooled counts what is on disk and not settled. The caller holds mu.
func (l *lane) spooled() (n Counts) {
	for _, seg := range l.segments {
		n.add(seg.left)
	}
	return n
}

func (l *lane) close() error {
	l.mu.Lock()
	var err error
	if l.active != nil {
		err = l.active.Close()
		l.active = nil
	}
	l.trim()
	if l.losing {
		l.s.log.Error("spool: records lost", "lane", l.lane.String(), "lost", l.stats.Refused.Total()-l.before, "dir", l.s.dir, "err", l.lastErr)
	}
	used := l.cursor.next > 1
	l.mu.Unlock()
	if used {
		_ = l.save() // what is settled is on disk already
	}
	return err
}

func (l *lane) addStats(st *Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	st.Appended.add(l.stats.Appended)
	st.Pending.add(l.waiting)
	st.Pending.add(l.writing)
	st.Refused.add(l.stats.Refused)
	st.Accepted.add(l.stats.Accepted)
	st.Recovered.add(l.stats.Recovered)
	st.Settled.add(l.stats.Settled)
	st.Dropped.add(l.stats.Dropped)
	st.Spooled.add(l.spooled())
	st.Torn += l.stats.Torn
	st.TornBytes += l.stats.TornBytes
	st.Corrupt += l.stats.Corrupt
	st.Failures += l.stats.Failures
	st.Missing += l.stats.Missing
}
