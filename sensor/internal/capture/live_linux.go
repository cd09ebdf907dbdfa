package capture

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/parsers/event"
)

// openLive opens the rings of every interface, and the sources that read them.
func openLive(opt LiveOptions) (_ *Live, err error) {
	l := &listening{opt: opt, refused: map[int32]uint64{}, over: make(chan struct{}), done: make(chan struct{}), words: warnBurst, worded: time.Now()}
	if l.fanout, err = newFanout(); err != nil {
		return nil, err
	}
	if l.kernel, err = openLinkSocket(); err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			return
		}
		close(l.done) // watch has not begun
		for _, s := range l.sources {
			s.Close()
		}
		l.kernel.close()
	}()
	for range opt.Workers {
		s, err := newLiveSource()
		if err != nil {
			return nil, err
		}
		s.all = l
		l.sources = append(l.sources, s)
	}
	var noShunt error
	if !opt.NoShunt {
		noShunt = l.startShunting()
	}
	if err := l.begin(); err != nil {
		return nil, err
	}
	if noShunt != nil {
		l.warn(fmt.Errorf("shunt: %w: going on without", mayShunt(noShunt)))
	}
	if opt.Workers > 1 {
		l.sources[0].defrag = openDefragmenter()
	}
	live := &Live{Sources: make([]Source, len(l.sources)), Interfaces: l.interfaces}
	for i, s := range l.sources {
		if live.Sources[i] = s; l.shunt != nil {
			live.Sources[i] = &shuntingSource{liveSource: s}
		}
	}
	live.NeedsBPF = l.shunt != nil && l.shunt.needsBPF()
	go l.watch()
	return live, nil
}

// liveSource reads the rings of one worker.
type liveSource struct {
	all   *listening
	rings []*ring // also those that were given up, until they are read; guarded by mu
	ids   int32   // of rings; guarded by mu
	turn  int     // the ring to look at first
	idle  Batch

	// ready is an epoll instance of all rings. The Go runtime waits for it as for any
	// file. A thread that waited in a system call instead would have to be watched by
	// the scheduler, which costs more than reading the few frames that are left when
	// most are withheld.
	ready   *os.File
	wait    syscall.RawConn    // of ready
	attempt func(uintptr) bool // look
	woken   bool               // since Next began to wait
	batch   *Batch             // what look found
	failed  error

	defrag *defragmenter // nil except for the first of several workers
	shunt  *shunt        // nil if flows are not shunted
	worker int           // its index in the counters of the shunt

	mu      sync.Mutex // guards what follows and the lending of blocks
	stats   Stats
	using   int       // calls of Next that are not done, and batches that are lent
	stopped time.Time // when Stop was called, or zero
	closed  bool
	freed   bool
}

func newLiveSource() (*liveSource, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll instance: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or the runtime would not wait for it
		unix.Close(fd)
		return nil, fmt.Errorf("set O_NONBLOCK: %w", err)
	}
	s := &liveSource{ready: os.NewFile(uintptr(fd), "rings"), idle: Batch{Origin: new(event.Origin)}}
	if s.wait, err = s.ready.SyscallConn(); err != nil {
		s.ready.Close()
		return nil, err
	}
	s.attempt = s.look
	return s, nil
}

// add has the source read a ring.
func (s *liveSource) add(r *ring) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.stopped.IsZero() {
		return fs.ErrClosed
	}
	r.id = s.ids
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: r.id} // stands in for its descriptor
	var failed error
	err := s.wait.Control(func(epoll uintptr) { failed = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, r.fd, &event) })
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("add to epoll instance: %w", err)
	}
	for i := range r.blocks {
		block := &r.blocks[i]
		block.batch = Batch{Free: func(*Batch) { s.release(r, block) }}
	}
	s.ids++
	s.rings = append(s.rings, r)
	return nil
}

// remove closes a ring that the source reads, or was to read. Where a worker has taken a
// block of it meanwhile it is given up instead, and closed when that comes back: its memory
// is that of the block.
func (s *liveSource) remove(r *ring) {
	s.mu.Lock()
	lent := r.lent > 0
	if !lent {
		s.forget(r)
	}
	s.mu.Unlock()
	if lent {
		s.giveUp(r)
		return
	}
	r.close()
}

// forget has the source no longer read a ring, of which nobody has a block. The caller
// holds mu, and closes the ring.
func (s *liveSource) forget(r *ring) {
	s.collectRing(r)
	s.stats.Unread += r.unread()
	s.rings = slices.DeleteFunc(s.rings, func(other *ring) bool { return other == r })
	_ = s.wait.Control(func(epoll uintptr) { _ = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_DEL, r.fd, nil) })
}

// rename gives the frames of a ring another origin.
func (s *liveSource) rename(r *ring, origin *event.Origin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.origin = origin
}

// giveUp has a ring take no more frames. What it holds is read.
func (s *liveSource) giveUp(r *ring) {
	_ = attachFilter(r.fd, reject) // its interface may be there still
	s.mu.Lock()
	defer s.mu.Unlock()
	r.left = time.Now()
}

// draining returns how many rings were given up and are not yet read to their end.
func (s *liveSource) draining() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rings {
		if !r.left.IsZero() {
			n++
		}
	}
	return n
}

// reap returns the rings that were given up and are read to their end, or were given
// drainLimit for it. The caller closes them.
func (s *liveSource) reap(now time.Time) (ended []*ring) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rings {
		since := now.Sub(r.left)
		if !r.left.IsZero() && r.lent == 0 && since > drainAfter && (since > drainLimit || !r.pending()) {
			ended = append(ended, r)
		}
	}
	for _, r := range ended {
		s.forget(r)
	}
	return ended
}

// Stop is that of [Stopper].
func (s *liveSource) Stop() {
	s.all.end.Do(func() { close(s.all.over) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.stopped.IsZero() {
		return
	}
	s.stopped = time.Now()
	for _, r := range s.rings {
		_ = attachFilter(r.fd, reject) // else a little more is read
	}
}

// drained reports whether all that was captured before Stop was read. empty says that
// the rings have no filled block.
func (s *liveSource) drained(empty bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped.IsZero() {
		return false
	}
	since := time.Since(s.stopped)
	return empty && since > drainAfter || since > drainLimit
}

func (s *liveSource) Next() (*Batch, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, io.EOF
	}
	s.using++
	s.mu.Unlock()
	defer s.done()

	if s.drained(false) {
		return nil, io.EOF
	}
	if batch := s.take(); batch != nil {
		return batch, nil
	}
	if s.drained(true) {
		return nil, io.EOF
	}
	err := s.ready.SetReadDeadline(time.Now().Add(idleAfter))
	if err == nil {
		s.woken = false
		err = s.wait.Read(s.attempt)
	}
	switch {
	case s.batch != nil:
		batch := s.batch
		s.batch = nil
		return batch, nil
	case s.failed != nil:
		err, s.failed = s.failed, nil
		return nil, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		// What failed before Next began to wait has woken nobody.
		var failed error
		if err = s.wait.Control(func(epoll uintptr) { failed = s.check(int(epoll)) }); failed != nil {
			return nil, failed
		}
	}
	if s.isClosed() {
		return nil, io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("wait for frames: %w", err)
	}
	return &s.idle, nil
}

// look is called when a ring may be ready. It ends the wait when there is a batch or
// an error.
func (s *liveSource) look(epoll uintptr) (done bool) {
	if s.batch = s.take(); s.batch == nil && s.woken {
		s.failed = s.check(int(epoll))
	}
	s.woken = true
	return s.batch != nil || s.failed != nil
}

// take lends the next block that the kernel has filled.
func (s *liveSource) take() *Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.rings {
		r := s.rings[(s.turn+i)%len(s.rings)]
		for {
			block := r.filled()
			if block == nil {
				break
			}
			bytes := block.read(r)
			block.batch.Origin = r.origin
			if len(block.batch.Frames) == 0 {
				block.giveBack() // retired by its timer before any frame came
				continue
			}
			block.lent = true
			r.lent++
			r.sum.last = time.Now()
			s.using++
			s.stats.Frames += uint64(len(block.batch.Frames))
			s.stats.Bytes += bytes
			s.turn = (s.turn + i + 1) % len(s.rings)
			return &block.batch
		}
	}
	return nil
}

// check asks the rings for which the epoll instance reports an error, which would be
// reported again and again otherwise. That an interface is down or gone is no error
// here: the one comes back up by itself, and the kernel tells watch of both.
func (s *liveSource) check(epoll int) error {
	var events [MaxInterfaces]unix.EpollEvent
	n, err := unix.EpollWait(epoll, events[:], 0)
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("wait for frames: %w", err)
	}
	s.mu.Lock()
	var failures []error
	for _, e := range events[:max(n, 0)] {
		i := slices.IndexFunc(s.rings, func(r *ring) bool { return r.id == e.Fd })
		if e.Events&(unix.EPOLLERR|unix.EPOLLHUP) == 0 || i < 0 {
			continue
		}
		r := s.rings[i]
		code, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		if err != nil && !errors.Is(err, unix.ENETDOWN) {
			failures = append(failures, fmt.Errorf("capture on %s: %w", r.origin.Interface, err))
		}
	}
	s.mu.Unlock()
	for _, err := range failures {
		s.all.warn(err)
	}
	return nil
}

func (s *liveSource) release(r *ring, b *block) {
	s.mu.Lock()
	if !b.lent {
		s.mu.Unlock()
		return
	}
	b.lent = false
	b.giveBack()
	r.lent--
	s.mu.Unlock()
	s.done()
}

func (s *liveSource) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// done ends one use, and the source with the last one after Close.
func (s *liveSource) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.using--
	s.free()
}

// free closes the rings when nobody uses them any more. The caller holds mu.
func (s *liveSource) free() {
	if !s.closed || s.using > 0 || s.freed {
		return
	}
	s.freed = true
	s.collect()
	for _, r := range s.rings {
		s.stats.Unread += r.unread()
		r.close()
	}
	if s.shunt != nil {
		s.shunt.close()
	}
	if s.defrag != nil {
		s.defrag.close()
	}
}

// collect adds what the kernel has counted since the last call. The caller holds mu.
func (s *liveSource) collect() {
	for _, r := range s.rings {
		s.collectRing(r)
	}
	if s.defrag != nil {
		s.defrag.collect(&s.stats)
	}
	if s.shunt != nil {
		count := s.shunt.count(s.worker)
		s.stats.Shunted, s.stats.ShuntedBytes = count.frames, count.bytes
	}
}

// collectRing adds what the kernel has counted on one ring. The caller holds mu.
func (s *liveSource) collectRing(r *ring) {
	// It fails for a socket that is not one of packets only.
	if n, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		r.sum.dropped += uint64(n.Drops)
		s.stats.Dropped += uint64(n.Drops)
		s.stats.Freezes += uint64(n.Freeze_q_cnt)
	}
}

// Stats counts the frames that Next has yielded and those that the kernel has
// dropped or withheld, and, after Close, those that the rings still held.
func (s *liveSource) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.freed {
		s.collect()
	}
	return s.stats
}

func (s *liveSource) Close() error {
	s.all.stop()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	err := s.ready.Close() // wakes the reader, and waits until it is away
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free()
	return err
}
