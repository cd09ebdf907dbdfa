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

// openLive opens the rings of every interface in the same order of workers:
// the kernel numbers the members of a fanout group as they join, and a flow
// must have the same number on each interface.
func openLive(opt LiveOptions) (_ []Source, err error) {
	sources := make([]*liveSource, opt.Workers)
	var rings []*ring
	defer func() {
		if err == nil {
			return
		}
		for _, r := range rings {
			r.close()
		}
		for _, s := range sources {
			if s != nil {
				s.ready.Close()
				if s.defrag != nil {
					s.defrag.close()
				}
			}
		}
	}()
	for i := range sources {
		if sources[i], err = newLiveSource(); err != nil {
			return nil, err
		}
	}
	for _, name := range opt.Interfaces {
		group := len(rings)
		for _, s := range sources {
			r, err := openRing(name, opt.RingSize)
			if err != nil {
				return nil, fmt.Errorf("open %s: %w", name, err)
			}
			rings = append(rings, r)
			if err := s.add(r); err != nil {
				return nil, fmt.Errorf("open %s: %w", name, err)
			}
		}
		if err := joinFanout(rings[group:]); err != nil {
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
	}
	// Until here every ring rejects every frame: bound, but not yet in its
	// group, it would have taken those of all workers.
	for _, r := range rings {
		r.filter, err = compileFilter(opt.Filter, r.link, true, uint32(opt.Snaplen))
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", r.origin.Interface, err)
		}
	}
	if opt.Workers > 1 {
		sources[0].defrag = openDefragmenter()
	}
	result := make([]Source, len(sources))
	if !opt.NoShunt {
		err := startShunted(sources, opt.Snaplen)
		if err == nil {
			for i, s := range sources {
				result[i] = &shuntingSource{liveSource: s}
			}
			return result, nil
		}
		if opt.Warn != nil {
			opt.Warn(fmt.Errorf("shunt: %w: going on without", err))
		}
	}
	for _, r := range rings {
		if err := attachFilter(r.fd, r.filter); err != nil {
			return nil, fmt.Errorf("open %s: %w", r.origin.Interface, err)
		}
	}
	for i, s := range sources {
		result[i] = s
	}
	return result, nil
}

// liveSource reads the rings of one worker.
type liveSource struct {
	rings []*ring
	turn  int // the ring to look at first
	idle  Batch

	// ready is an epoll instance of all rings. The runtime waits for it as for
	// any file: a thread that sat in a system call instead would have to be
	// looked after, which costs more than reading the frames that are left when
	// most are withheld.
	ready   *os.File
	wait    syscall.RawConn    // of ready
	attempt func(uintptr) bool // look
	woken   bool               // since Next began to wait
	batch   *Batch             // what look found
	failed  error

	defrag *defragmenter // nil but for the first of several workers
	shunt  *shunt        // nil without
	worker int           // its place in what the shunt counts

	mu     sync.Mutex // guards what follows and the lending of blocks
	stats  Stats
	using  int // calls of Next that are not done, and batches that are lent
	closed bool
	freed  bool
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

// add gives the source another ring.
func (s *liveSource) add(r *ring) error {
	if len(s.rings) == 0 {
		s.idle.Origin = r.origin
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(len(s.rings))} // its number stands in for its descriptor
	var failed error
	err := s.wait.Control(func(epoll uintptr) { failed = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, r.fd, &event) })
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("add to epoll instance: %w", err)
	}
	s.rings = append(s.rings, r)
	for i := range r.blocks {
		block := &r.blocks[i]
		block.batch = Batch{Origin: r.origin, Free: func(*Batch) { s.release(block) }}
	}
	return nil
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

	if batch := s.take(); batch != nil {
		return batch, nil
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

// look is done with waiting when there is something to tell: a batch or an
// error.
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
			s.using++
			s.stats.Frames += uint64(len(block.batch.Frames))
			s.stats.Bytes += bytes
			s.turn = (s.turn + i + 1) % len(s.rings)
			return &block.batch
		}
	}
	return nil
}

// check asks the rings that the epoll instance has an error of.
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
		r := s.rings[e.Fd]
		code, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		if err != nil && !errors.Is(err, unix.ENETDOWN) {
			return fmt.Errorf("capture on %s: %w", r.origin.Interface, err)
		}
		r.down = true
	}
	return s.gone()
}

// gone looks at the interfaces that went down: one that comes back goes on by
// itself; one that is gone does not, and the kernel does not say so.
func (s *liveSource) gone() error {
	for _, r := range s.rings {
		if r.down && !r.bound() {
			r.down = false // said once; the other interfaces go on
			return fmt.Errorf("capture on %s: the interface is gone", r.origin.Interface)
		}
	}
	return nil
}

func (s *liveSource) release(b *block) {
	s.mu.Lock()
	if !b.lent {
		s.mu.Unlock()
		return
	}
	b.lent = false
	b.giveBack()
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

// free closes the rings when they are not wanted any more.
func (s *liveSource) free() {
	if !s.closed || s.using > 0 || s.freed {
		return
	}
	s.freed = true
	s.collect()
	for _, r := range s.rings {
		r.close()
	}
	if s.shunt != nil {
		s.shunt.close()
	}
	if s.defrag != nil {
		s.defrag.close()
	}
}

// collect adds what the kernel has counted since it was last asked.
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
// dropped or withheld. Frames that the ring holds at Close are in neither.
func (s *liveSource) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.freed {
		s.collect()
	}
	return s.stats
}

func (s *liveSource) Close() error {
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
