package capture

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// openLive opens the rings of every interface, and the sources that read them.
func openLive(opt LiveOptions) (_ []Source, err error) {
	l := &listening{opt: opt, away: make([]time.Time, len(opt.Interfaces)), over: make(chan struct{})}
	defer func() {
		if err == nil {
			return
		}
		for _, s := range l.sources {
			for _, r := range s.rings {
				r.close()
			}
			s.ready.Close()
			if s.defrag != nil {
				s.defrag.close()
			}
		}
	}()
	for range opt.Workers {
		s, err := newLiveSource()
		if err != nil {
			return nil, err
		}
		s.all = l
		l.sources = append(l.sources, s)
	}
	for _, name := range opt.Interfaces {
		rings, err := l.open(name)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
		for i, s := range l.sources {
			if s.idle.Origin == nil {
				s.idle.Origin = rings[i].origin
			}
			s.rings = append(s.rings, rings[i])
			if err := s.add(rings[i], len(s.rings)-1); err != nil {
				return nil, fmt.Errorf("open %s: %w", name, err)
			}
		}
	}
	if opt.Workers > 1 {
		l.sources[0].defrag = openDefragmenter()
	}
	result := make([]Source, len(l.sources))
	if !opt.NoShunt {
		err := startShunted(l.sources, opt.Snaplen)
		if err == nil {
			for i, s := range l.sources {
				result[i] = &shuntingSource{liveSource: s}
			}
			return result, nil
		}
		l.warn(fmt.Errorf("shunt: %w: going on without", err))
	}
	for i, s := range l.sources {
		for _, r := range s.rings {
			if err := attachFilter(r.fd, r.filter); err != nil {
				return nil, fmt.Errorf("open %s: %w", r.origin.Interface, err)
			}
		}
		result[i] = s
	}
	return result, nil
}

// liveSource reads the rings of one worker.
type liveSource struct {
	all   *listening
	rings []*ring // by interface; guarded by mu once the source is used
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
	s := &liveSource{ready: os.NewFile(uintptr(fd), "rings")}
	if s.wait, err = s.ready.SyscallConn(); err != nil {
		s.ready.Close()
		return nil, err
	}
	s.attempt = s.look
	return s, nil
}

// add has the source wait for a ring; number is its index in rings.
func (s *liveSource) add(r *ring, number int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(number)} // its number stands in for its descriptor
	var failed error
	err := s.wait.Control(func(epoll uintptr) { failed = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, r.fd, &event) })
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("add to epoll instance: %w", err)
	}
	for i := range r.blocks {
		block := &r.blocks[i]
		block.batch = Batch{Origin: r.origin, Free: func(*Batch) { s.release(r, block) }}
	}
	return nil
}

// replace puts a ring in the place of one whose interface was gone. What the old ring
// holds was read long ago, or is counted as not read.
func (s *liveSource) replace(number int, r *ring) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.rings[number]
	r.origin, r.frames = old.origin, old.frames
	if s.closed || s.add(r, number) != nil {
		r.close()
		return
	}
	s.collect()
	s.stats.Unread += old.unread()
	s.rings[number] = r
	// It stays mapped, and its socket open, for as long as a batch is lent.
	_ = s.wait.Control(func(epoll uintptr) { _ = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_DEL, old.fd, nil) })
	if old.replaced = true; old.lent == 0 {
		old.close()
	}
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
			if len(block.batch.Frames) == 0 {
				block.giveBack() // retired by its timer before any frame came
				continue
			}
			block.lent = true
			r.lent++
			s.using++
			s.stats.Frames += uint64(len(block.batch.Frames))
			s.stats.Bytes += bytes
			s.turn = (s.turn + i + 1) % len(s.rings)
			return &block.batch
		}
	}
	return nil
}

// check asks the rings for which the epoll instance reports an error.
func (s *liveSource) check(epoll int) error {
	var events [maxInterfaces]unix.EpollEvent
	n, err := unix.EpollWait(epoll, events[:], 0)
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("wait for frames: %w", err)
	}
	for _, e := range events[:max(n, 0)] {
		if e.Events&(unix.EPOLLERR|unix.EPOLLHUP) == 0 {
			continue
		}
		s.mu.Lock()
		r := s.rings[e.Fd]
		s.mu.Unlock()
		code, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		if err != nil && !errors.Is(err, unix.ENETDOWN) {
			return fmt.Errorf("capture on %s: %w", r.origin.Interface, err)
		}
		s.mu.Lock()
		r.down = true
		s.mu.Unlock()
	}
	return s.gone()
}

// gone looks for interfaces that went down and are no longer there. One that comes
// back up goes on by itself. One that was removed does not, and the kernel does not
// say so.
func (s *liveSource) gone() error {
	var gone []int
	var rings []*ring
	s.mu.Lock()
	for i, r := range s.rings {
		if r.down && !r.bound() {
			r.down = false // said once
			gone, rings = append(gone, i), append(rings, r)
		}
	}
	s.mu.Unlock()
	for n, i := range gone {
		news, err := s.all.lost(i, s, rings[n])
		if news {
			s.mu.Lock()
			s.stats.Gone++
			s.mu.Unlock()
		}
		if err != nil {
			return err
		}
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
	if r.lent--; r.lent == 0 && r.replaced {
		r.close()
	}
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
		// It fails for a socket that is not one of packets only.
		if n, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			s.stats.Dropped += uint64(n.Drops)
			s.stats.Freezes += uint64(n.Freeze_q_cnt)
		}
	}
	if s.defrag != nil {
		s.defrag.collect(&s.stats)
	}
	if s.shunt != nil {
		count := s.shunt.count(s.worker)
		s.stats.Shunted, s.stats.ShuntedBytes = count.frames, count.bytes
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
	s.all.end.Do(func() { close(s.all.over) })
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
