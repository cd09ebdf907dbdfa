package capture

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/pcapfilter"
)

// listening is what the sources of one capture share: its interfaces, which may
// disappear and come back.
type listening struct {
	opt     LiveOptions
	sources []*liveSource
	over    chan struct{} // closed when no ring is needed any more
	end     sync.Once

	mu      sync.Mutex
	away    []time.Time // by interface: when it disappeared; zero while it is there
	looking bool        // a goroutine looks for those that are gone
}

func (l *listening) warn(err error) {
	if l.opt.Warn != nil {
		l.opt.Warn(err)
	}
}

// open opens the rings of an interface, one for each worker in their order: the
// kernel numbers the members of a fanout group as they join, and a flow must
// have the same number on each interface. Every ring rejects every frame:
// bound, but not yet in its group, it would take those of all workers.
func (l *listening) open(name string) (rings []*ring, err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, r := range rings {
			r.close()
		}
	}()
	for range l.sources {
		r, err := openRing(name, l.opt.RingSize)
		if err != nil {
			return rings, err
		}
		rings = append(rings, r)
		if r.filter, err = pcapfilter.CompileLive(l.opt.Filter, r.link, uint32(l.opt.Snaplen)); err != nil {
			return rings, err
		}
	}
	return rings, joinFanout(rings)
}

// lost notes that interface i is gone, on which r was a ring of s. It returns an error
// if no interface is left, and reports whether this is the first that is heard of it.
func (l *listening) lost(i int, s *liveSource, r *ring) (news bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.mu.Lock()
	replaced := s.rings[i] != r
	s.mu.Unlock()
	if replaced { // another worker was quicker, and it is back
		return false, nil
	}
	if news = l.away[i].IsZero(); news {
		l.away[i] = time.Now()
	}
	err = fmt.Errorf("capture on %s: the interface is gone", l.opt.Interfaces[i])
	if !slices.ContainsFunc(l.away, time.Time.IsZero) {
		return news, err
	}
	if news {
		l.warn(fmt.Errorf("%w: going on without, until it comes back", err))
	}
	if !l.looking {
		l.looking = true
		go l.look()
	}
	return news, nil
}

// look waits for interfaces to come back, until all are there.
func (l *listening) look() {
	t := time.NewTicker(returnInterval)
	defer t.Stop()
	for {
		select {
		case <-l.over:
			return
		case <-t.C:
		}
		if !l.lookOnce() {
			return
		}
	}
}

// lookOnce opens the interfaces that are back, and reports whether others are still
// missing.
func (l *listening) lookOnce() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looking = false
	for i, since := range l.away {
		if since.IsZero() {
			continue
		}
		if !l.back(i) {
			l.looking = true
			continue
		}
		l.away[i] = time.Time{}
		l.warn(fmt.Errorf("capture on %s: the interface is back after %v", l.opt.Interfaces[i], time.Since(since).Round(time.Second)))
	}
	return l.looking
}

// back opens an interface again, and reports whether it is there.
func (l *listening) back(i int) bool {
	rings, err := l.open(l.opt.Interfaces[i])
	if err != nil {
		return false // not there, or not yet up
	}
	for n, s := range l.sources {
		if s.shunt != nil {
			err = errors.Join(err, s.shunt.attach(rings[n:n+1], l.opt.Snaplen, n))
		} else {
			err = errors.Join(err, attachFilter(rings[n].fd, rings[n].filter))
		}
	}
	if err != nil {
		for _, r := range rings {
			r.close()
		}
		return false
	}
	for n, s := range l.sources {
		s.replace(i, rings[n])
	}
	return true
}
