package capture

import (
	"errors"
	"fmt"
	"io"
	"sync"
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
				unix.Close(s.wake)
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
			s.add(r)
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
	poll  []unix.PollFd // of the rings, then of wake
	turn  int           // the ring to look at first
	wake  int           // an eventfd that Close writes to
	idle  Batch

	shunt  *shunt // nil without
	worker int    // its place in what the shunt counts

	mu     sync.Mutex // guards what follows and the lending of blocks
	stats  Stats
	using  int // calls of Next that are not done, and batches that are lent
	closed bool
	freed  bool
}

func newLiveSource() (*liveSource, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	return &liveSource{wake: wake, poll: []unix.PollFd{{Fd: int32(wake), Events: unix.POLLIN}}}, nil
}

// add gives the source another ring.
func (s *liveSource) add(r *ring) {
	if len(s.rings) == 0 {
		s.idle.Origin = r.origin
	}
	s.rings = append(s.rings, r)
	last := len(s.poll) - 1
	s.poll = append(s.poll, s.poll[last])
	s.poll[last] = unix.PollFd{Fd: int32(r.fd), Events: unix.POLLIN}
	for i := range r.blocks {
		block := &r.blocks[i]
		block.batch = Batch{Origin: r.origin, Free: func(*Batch) { s.release(block) }}
	}
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

	for deadline := time.Now().Add(idleAfter); ; {
		if batch := s.take(); batch != nil {
			return batch, nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return &s.idle, nil
		}
		ready, err := unix.Poll(s.poll, int(left.Milliseconds())+1)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, fmt.Errorf("poll: %w", err)
		case s.poll[len(s.rings)].Revents != 0:
			return nil, io.EOF
		case ready > 0:
			if err := s.check(); err != nil {
				return nil, err
			}
			if s.holding() {
				// The kernel calls a ring readable as long as its last block is
				// lent, which is no news.
				time.Sleep(time.Millisecond)
			}
		}
	}
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

// check asks the rings that poll has an error of. An interface that is down may
// come back, and then the kernel goes on; one that is gone does not.
func (s *liveSource) check() error {
	for i, r := range s.rings {
		if s.poll[i].Revents&(unix.POLLERR|unix.POLLNVAL|unix.POLLHUP) == 0 {
			continue
		}
		code, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		if errors.Is(err, unix.ENETDOWN) && r.bound() {
			continue
		}
		if errors.Is(err, unix.ENETDOWN) || err == nil && !r.bound() {
			s.poll[i].Fd = -1 // said once; the other interfaces go on
			err = errors.New("the interface is gone")
		}
		if err != nil {
			return fmt.Errorf("capture on %s: %w", r.origin.Interface, err)
		}
	}
	return nil
}

// holding reports whether batches are lent.
func (s *liveSource) holding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.using > 1
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
	unix.Close(s.wake)
	if s.shunt != nil {
		s.shunt.close()
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
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	_, err := unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	if err != nil {
		err = fmt.Errorf("wake the reader: %w", err)
	}
	s.free()
	return err
}
