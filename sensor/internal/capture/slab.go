package capture

import "sync"

// slab is the memory of one batch: bytes of a file, and the frames in them.
type slab struct {
	batch Batch
	*buffer
	lent bool // the batch is not released; guarded by the mutex of the slabs
}

// buffer is what a slab has of a file. Several have it where a batch had to end before the
// end of what was read.
type buffer struct {
	buf   []byte
	slabs int // that have it; guarded by their mutex
}

// slabs makes slabs, and keeps those that come back for reuse, the last first:
// that one is still in the cache of the processor.
type slabs struct {
	size    int // of a buffer in bytes, at least
	mu      sync.Mutex
	spare   []*slab   // at most spareSlabs, without their buffers
	buffers []*buffer // at most as many
	lent    int       // batches that are not released
	idle    sync.Cond // no batch is lent
}

// lend notes that the batch of s is given away, until it is released.
func (p *slabs) lend(s *slab) {
	p.mu.Lock()
	s.lent = true
	p.lent++
	p.mu.Unlock()
}

// release takes a batch back that was lent. A second release does nothing.
func (p *slabs) release(s *slab) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !s.lent {
		return
	}
	s.lent = false
	p.keep(s)
	if p.lent--; p.lent == 0 {
		p.idle.Broadcast()
	}
}

// drain waits until all batches are released.
func (p *slabs) drain() {
	p.mu.Lock()
	p.idle.L = &p.mu
	for p.lent > 0 {
		p.idle.Wait()
	}
	p.mu.Unlock()
}

// get returns a slab of at least want bytes.
func (p *slabs) get(want int) *slab {
	p.mu.Lock()
	s := p.take()
	if n := len(p.buffers); n > 0 {
		s.buffer = p.buffers[n-1]
		p.buffers = p.buffers[:n-1]
	} else {
		s.buffer = new(buffer)
	}
	s.slabs = 1
	p.mu.Unlock()
	if len(s.buf) < want || len(s.buf) < p.size {
		s.buf = make([]byte, max(want, p.size))
	}
	return s
}

// share returns another slab that has the buffer of s.
func (p *slabs) share(s *slab) *slab {
	p.mu.Lock()
	defer p.mu.Unlock()
	other := p.take()
	other.buffer = s.buffer
	other.slabs++
	return other
}

// take returns a slab without a buffer. The caller holds mu.
func (p *slabs) take() *slab {
	if n := len(p.spare); n > 0 {
		s := p.spare[n-1]
		p.spare = p.spare[:n-1]
		return s
	}
	s := &slab{}
	s.batch.Free = func(*Batch) { p.release(s) }
	return s
}

// put takes a slab back that was not lent.
func (p *slabs) put(s *slab) {
	p.mu.Lock()
	p.keep(s)
	p.mu.Unlock()
}

// keep keeps a slab, and its buffer when nobody else has it, for reuse if there is room.
// The caller holds mu.
func (p *slabs) keep(s *slab) {
	if s.slabs--; s.slabs == 0 && len(p.buffers) < spareSlabs {
		p.buffers = append(p.buffers, s.buffer)
	}
	s.buffer = nil
	s.batch.from, s.batch.Frames = nil, s.batch.Frames[:0]
	if len(p.spare) < spareSlabs {
		p.spare = append(p.spare, s)
	}
}

// move returns a slab of at least want bytes that begins with rest, the last part
// of what s holds, and is nobody else's. If it is another than s, s is put back.
func (p *slabs) move(s *slab, rest []byte, want int) *slab {
	p.mu.Lock()
	shared := s.slabs > 1
	p.mu.Unlock()
	to := s
	if shared || len(s.buf) < want {
		to = p.get(want)
	}
	copy(to.buf, rest)
	if to != s {
		p.put(s)
	}
	return to
}
