package page

import (
	"cmp"
	"container/heap"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// survey is what one look at the whole inventory has found.
type survey struct {
	at      time.Time
	took    time.Duration
	partial bool // the look took too long and was ended
	totals  inventory.Totals

	newest       []*inventory.Certificate // by when they were first seen, the newest first, maxNewest at most
	today        uint64                   // certificates first seen since midnight, UTC
	expired      uint64                   // when they were last seen
	selfSigned   uint64
	distrusted   uint64 // their chains were judged, and are not trusted
	withAlerts   uint64
	certificates uint64 // that were looked at
}

// surveyor looks at the inventory from time to time, while somebody asks, so that pages
// are made without looking at all of it.
type surveyor struct {
	last    atomic.Pointer[survey]
	looking sync.Mutex
}

// get returns the last survey, nil where there is none yet, and has another one made
// where that is old.
func (s *surveyor) get(p *Page, store *inventory.Store) *survey {
	last := s.last.Load()
	if store == nil {
		return nil
	}
	if last == nil || p.config.Now().Sub(last.at) >= max(surveyInterval, surveyShare*last.took) {
		s.look(p, store)
	}
	return last
}

// look has a survey made, unless one is being made.
func (s *surveyor) look(p *Page, store *inventory.Store) {
	if !s.looking.TryLock() {
		return
	}
	go func() {
		defer s.looking.Unlock()
		first := s.last.Load() == nil
		if first {
			p.alerts.before(lastAlerts(store))
		}
		v, err := look(store, p.config.Now, p.done)
		if err != nil {
			p.failed.Add(1)
			p.config.Log.Error("page: read the inventory", "err", err)
		}
		s.last.Store(v)
		if first {
			p.hub.publish("survey", []byte("{}"))
		}
	}()
}

// look looks at the whole inventory.
func look(store *inventory.Store, now func() time.Time, done <-chan struct{}) (*survey, error) {
	begun := now()
	midnight := begun.UTC().Truncate(24 * time.Hour).UnixNano()
	v := &survey{}
	var kept newest
	var failed error
	for c, err := range store.Certificates() {
		if err != nil {
			failed = err // one that is damaged keeps nobody from the others
			continue
		}
		v.certificates++
		count := func(n *uint64, holds bool) {
			if holds {
				*n++
			}
		}
		count(&v.today, c.First.Time >= midnight)
		count(&v.expired, isExpired(c))
		count(&v.selfSigned, isSelfSigned(c))
		count(&v.distrusted, isDistrusted(c))
		count(&v.withAlerts, c.Alerts > 0)
		kept.add(c)
		if v.certificates%1024 == 0 {
			select {
			case <-done:
				v.partial = true
			default:
				v.partial = now().Sub(begun) > surveyLimit
			}
			if v.partial {
				break
			}
		}
	}
	v.newest = kept.list
	slices.SortFunc(v.newest, func(a, b *inventory.Certificate) int {
		return cmp.Or(cmp.Compare(b.First.Time, a.First.Time), slices.Compare(a.SHA256[:], b.SHA256[:]))
	})
	totals, err := store.Totals()
	v.totals = totals
	v.at = now()
	v.took = v.at.Sub(begun)
	return v, cmp.Or(failed, err)
}

// isExpired reports whether a certificate was over when it was last seen.
func isExpired(c *inventory.Certificate) bool {
	return c.NotAfter != 0 && c.Last.Time/int64(time.Second) > c.NotAfter
}

// isSelfSigned reports whether a server showed a certificate of its own that is its own
// issuer, as roots are.
func isSelfSigned(c *inventory.Certificate) bool {
	return c.SelfSigned && c.Roles&inventory.Leaf != 0
}

// isDistrusted reports whether a chain was judged and something is wrong with it.
func isDistrusted(c *inventory.Certificate) bool {
	return c.Judged && c.Trust != judgement.Trusted && c.Trust != judgement.TrustUnknown
}

// newest is a heap of the certificates that were first seen last, the oldest on top.
type newest struct{ list []*inventory.Certificate }

func (n *newest) Len() int           { return len(n.list) }
func (n *newest) Less(i, j int) bool { return n.list[i].First.Time < n.list[j].First.Time }
func (n *newest) Swap(i, j int)      { n.list[i], n.list[j] = n.list[j], n.list[i] }
func (n *newest) Push(c any)         { n.list = append(n.list, c.(*inventory.Certificate)) }
func (n *newest) Pop() any {
	last := n.list[len(n.list)-1]
	n.list = n.list[:len(n.list)-1]
	return last
}

func (n *newest) add(c *inventory.Certificate) {
	switch {
	case len(n.list) < maxNewest:
		heap.Push(n, c)
	case c.First.Time > n.list[0].First.Time:
		n.list[0] = c
		heap.Fix(n, 0)
	}
}

// lastAlerts returns the last alerts of the inventory, the oldest first.
func lastAlerts(store *inventory.Store) (list []*inventory.Alert) {
	size := 0
	for a, err := range store.AlertsBefore(nil) {
		if err != nil {
			break
		}
		if size += sizeOf(a); len(list) == maxAlerts || size > maxAlertBytes {
			break
		}
		list = append(list, a)
	}
	slices.Reverse(list)
	return list
}
