package inventory

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oddcert/oddcert/sensor/internal/finding"
)

// ErrNotFound is the error of a question for what is not in the inventory.
var ErrNotFound = errors.New("not in the inventory")

// Store is an inventory. Its methods may be called by several goroutines.
//
// What it is told of waits in memory, and one goroutine writes it, many findings in a
// transaction. What a question finds is as new as the last transaction; asking begins
// one if there is something to write.
type Store struct {
	path    string
	options Options
	log     *slog.Logger
	files   *files // that are closed with it

	db atomic.Pointer[bolt.DB] // nil once it is closed

	mu      sync.Mutex
	changed *sync.Cond // of what follows
	queue   []observation
	spare   []observation // memory for the next queue
	queued  int           // bytes
	counted lately        // among them
	seen    uint64        // observations that were queued
	tried   uint64        // of these, those for which a transaction was tried
	stored  uint64        // of these, those that are on disk
	trouble error         // why the last transaction failed; nil where it did not
	steps   uint64        // how often the queue was looked at
	urgent  bool          // somebody waits
	closing bool
	closed  bool

	wake chan struct{}
	done chan struct{}

	// Of the goroutine that writes.
	cache       cache
	totals      Totals
	dirtyTotals bool
	committed   time.Time
	run         uint64 // the number of the last run
	retry       time.Time
	pause       time.Duration
	encoded     codec     // scratch
	changeCost  int       // bytes of pages that one change took lately, see transactionCost
	examined    time.Time // when the file was looked at last

	lost      atomic.Uint64
	forgotten atomic.Uint64
	damaged   atomic.Uint64
	failures  atomic.Uint64
	entries   atomic.Uint64
	used      atomic.Uint64
	published atomic.Pointer[Totals]

	lossSaid    bool // of mu
	lossFrom    uint64
	forgetSaid  bool
	rebuilding  atomic.Bool
	asStored    atomic.Bool
	readers     sync.WaitGroup
	stopServing func()
}

// Options say how an inventory is kept. The zero value stands for the defaults.
type Options struct {
	Memory int   // bytes of what waits and of what is kept decoded; 0 for DefaultMemory
	Size   int64 // bytes on disk, at most MaxSize; 0 for DefaultSize
	Log    *slog.Logger

	// Block makes See wait when too much waits to be written. Without, what there is no
	// room for is lost, and counted. Nobody waits for a disk that takes nothing.
	Block bool

	// Serve lets others read the inventory while it is open: see [OpenForReading].
	Serve bool

	// Holder says who has it open, for others who want to.
	Holder string
}

// See takes a finding. It never waits for the disk, unless [Options].Block is set.
func (s *Store) See(f *finding.Finding) {
	s.enqueue(func(o *observation) { o.observe(f, &s.counted) })
}

// Begin notes a run. End completes it.
func (s *Store) Begin(r Run) { s.noteRun(r, false) }

// End completes the run that Begin has noted last.
func (s *Store) End(r Run) { s.noteRun(r, true) }

func (s *Store) noteRun(r Run, ended bool) {
	r.Sources, r.Stats = slices.Clone(r.Sources), slices.Clone(r.Stats)
	s.enqueue(func(o *observation) {
		*o = observation{run: &r, ended: ended, size: 256 + 128*len(r.Sources) + len(r.Stats)}
	})
}

// enqueue queues an observation, which fill fills.
func (s *Store) enqueue(fill func(*observation)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.full() && s.options.Block && s.trouble == nil && !s.closing {
		s.poke()
		s.changed.Wait()
	}
	if s.full() || s.closing {
		s.lose()
		return
	}
	if n := len(s.queue); n < cap(s.queue) {
		s.queue = s.queue[:n+1] // with the memory of an observation before
	} else {
		s.queue = append(s.queue, observation{})
	}
	o := &s.queue[len(s.queue)-1]
	fill(o)
	s.queued += o.size
	s.seen++
	if len(s.queue) == batch || s.queued > s.options.Memory/8 {
		s.poke()
	}
}

// full reports whether nothing more may wait. The caller holds mu.
func (s *Store) full() bool { return len(s.queue) >= maxQueued || s.queued >= s.options.Memory/4 }

// lose counts a finding for which there is no room. The caller holds mu.
func (s *Store) lose() {
	n := s.lost.Add(1)
	if !s.lossSaid {
		s.lossSaid, s.lossFrom = true, n-1
		s.log.Error("inventory: findings are lost: they come faster than they are written", "path", s.path)
	}
}

// poke wakes the goroutine that writes.
func (s *Store) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Flush returns when all that was seen before is on disk; an error says why it is not.
func (s *Store) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := s.seen
	s.await(func() bool { return s.stored >= want })
	if s.stored < want {
		return fmt.Errorf("write the inventory %s: %w", s.path, cmp.Or(s.trouble, os.ErrClosed))
	}
	return nil
}

// settle has what was seen before written, if the disk takes it.
func (s *Store) settle() {
	if s.rebuilding.Load() || s.asStored.Load() {
		return // it is asked by the goroutine that writes, or by many
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	want := s.seen
	s.await(func() bool { return s.tried >= want })
}

// await has what waits written, until done is true or that was tried in vain. The caller
// holds mu.
func (s *Store) await(done func() bool) {
	for last := s.steps + 2; !done() && s.steps < last && !s.closed; { // one step may be under way
		s.urgent = true
		s.poke()
		s.changed.Wait()
		if s.trouble == nil {
			last = s.steps + 2
		}
	}
}

// write is the goroutine that writes.
func (s *Store) write() {
	defer close(s.done)
	t := time.NewTicker(lookInterval)
	defer t.Stop()
	for {
		select {
		case <-s.wake:
		case <-t.C:
		}
		s.mu.Lock()
		closing := s.closing
		s.mu.Unlock()
		s.step(closing)
		if closing {
			s.mu.Lock()
			s.closed = true
			s.changed.Broadcast()
			s.mu.Unlock()
			return
		}
	}
}

// step takes what waits, and writes it.
func (s *Store) step(last bool) {
	for again := true; again; {
		s.mu.Lock()
		urgent := s.urgent || last
		s.urgent = false
		var taken []observation
		if s.trouble == nil || s.cache.bytes < s.options.Memory/2 {
			taken, s.queue, s.spare, s.queued, s.counted = s.queue, s.spare, nil, 0, lately{}
		}
		upTo := s.seen - uint64(len(s.queue))
		s.mu.Unlock()
		var err error
		due, done := false, 0 // of taken, those for which a transaction was tried
		for n := 0; ; {
			n += s.take(taken[n:], s.trouble == nil && err == nil)
			if n == len(taken) && (err != nil || !urgent && !s.due()) {
				break
			}
			if err = s.commit(); err == nil && s.bound() {
				err = s.commit() // the totals, at least
			}
			s.committed = time.Now()
			if due, done = true, n; n == len(taken) {
				break
			}
		}
		for i := range taken {
			taken[i].release()
		}
		upTo -= uint64(len(taken) - done)
		s.mu.Lock()
		s.spare = taken[:0]
		s.steps++
		if due {
			s.tried = upTo
			s.conclude(err, upTo)
		}
		again = len(s.queue) >= batch && s.trouble == nil
		s.changed.Broadcast()
		s.mu.Unlock()
	}
}

// due reports whether it is time for a transaction. The more findings are in one, the
// less each costs: many change the same entries, and the same pages.
func (s *Store) due() bool {
	if s.trouble != nil {
		return !time.Now().Before(s.retry)
	}
	return s.heavy() || time.Since(s.committed) >= writeInterval
}

// heavy reports whether what waits, or the transaction that would write it, takes as much
// memory as it may.
func (s *Store) heavy() bool {
	return s.cache.bytes > s.options.Memory/2 || s.transactionCost() > uint64(s.options.Memory)
}

// transactionCost is how many bytes of pages a transaction would take now, about: the
// database has each page that changes in memory twice until the disk has it. How many
// changes share a page, the last transactions tell; before there was one, none do.
func (s *Store) transactionCost() uint64 {
	changes := uint64(s.cache.changes)
	return min(changes*uint64(s.changeCost), 2*s.used.Load()+changes*leastChangeCost)
}

// learn notes how many bytes of pages a transaction took. More is believed at once, less
// by halves: a small transaction says little of a large one.
func (s *Store) learn(bytes int) {
	if s.cache.changes == 0 {
		return
	}
	cost := max(bytes/s.cache.changes, leastChangeCost)
	s.changeCost = max(cost, (cost+s.changeCost)/2)
}

// conclude notes how a transaction ended. The caller holds mu.
func (s *Store) conclude(err error, upTo uint64) {
	if err != nil {
		s.failures.Add(1)
		if s.trouble == nil {
			s.log.Error("inventory: nothing is written; what is seen waits in memory, up to a limit", "path", s.path, "error", err)
			s.pause = retryLeast
		} else {
			s.pause = min(2*s.pause, retryMost)
		}
		s.trouble, s.retry = err, time.Now().Add(s.pause)
		return
	}
	if s.trouble != nil {
		s.log.Info("inventory: it is written again", "path", s.path)
		s.trouble = nil
	}
	s.stored = upTo
	if s.lossSaid && !s.full() {
		s.log.Info("inventory: nothing more is lost", "path", s.path, "findings", s.lost.Load()-s.lossFrom)
		s.lossSaid = false
	}
}

// take adds observations to the entries, all or, if it may stop, until that is heavy, and
// returns how many. When the database fails to say what is there, it is made anew, and
// what was not yet taken is taken then.
func (s *Store) take(list []observation, mayStop bool) (done int) {
	for done < len(list) {
		err := guard(func() error {
			return s.db.Load().View(func(tx *bolt.Tx) error {
				s.cache.begin(tx)
				defer s.cache.end()
				for done < len(list) {
					s.apply(&list[done])
					if done++; mayStop && s.heavy() {
						break
					}
				}
				return nil
			})
		})
		if err == nil {
			return done
		}
		done++ // of what it failed on, a part may have been taken
		s.lost.Add(1)
		s.rebuild(err)
	}
	return done
}

// commit writes the entries that have changed.
func (s *Store) commit() error {
	c := &s.cache
	totals := s.totals
	totals.Lost += s.lost.Load()
	if len(c.dirty)+len(c.once) == 0 && !s.dirtyTotals && totals.Lost == s.published.Load().Lost {
		return nil
	}
	db := s.db.Load()
	before := db.Stats().TxStats
	err := guard(func() error {
		return db.Update(func(tx *bolt.Tx) error {
			s.encoded.out = s.encoded.out[:0]
			w := writer{tx: tx, id: uint64(tx.ID()), codec: &s.encoded}
			if err := w.cache(c); err != nil {
				return err
			}
			fresh, err := w.meetings(&c.meetings, s.bad)
			if err != nil {
				return err
			}
			totals.Contacts = s.totals.Contacts + fresh
			return w.put(general, []byte("totals"), &totals)
		})
	})
	if isDamage(err) {
		s.rebuild(err)
	}
	if err != nil {
		return err
	}
	s.dirtyTotals, s.totals.Contacts = false, totals.Contacts
	after := db.Stats().TxStats
	nodes := after.GetNodeCount() - before.GetNodeCount()
	s.learn(int(after.GetPageAlloc()-before.GetPageAlloc()+nodes*int64(db.Info().PageSize)) + len(s.encoded.out))
	c.written()
	c.trim(s.options.Memory / 4)
	s.publish(&totals)
	return nil
}

// writer writes entries in a transaction.
type writer struct {
	tx      *bolt.Tx
	id      uint64
	codec   *codec // has what is written, until the transaction ends
	buckets [buckets]*bolt.Bucket
}

// cache writes what a cache has to be written, in the order of the keys: so each page is
// found once.
func (w *writer) cache(c *cache) error {
	byKey := func(a, b *slot) int { return cmp.Compare(a.key, b.key) }
	slices.SortFunc(c.dirty, byKey)
	var indexes [][]byte
	for _, list := range [][]*slot{c.dirty, c.ders} {
		for _, s := range list {
			if err := w.put(bucket(s.key[0]), []byte(s.key[1:]), s.entry); err != nil {
				return err
			}
			if !s.fresh {
				continue
			}
			if v, ok := s.entry.(*sightingEntry); ok {
				indexes = append(indexes, v.shownKey(nil))
			}
		}
	}
	slices.SortFunc(indexes, bytes.Compare)
	for _, k := range indexes {
		if err := w.bucket(shown).Put(k, nil); err != nil {
			return err
		}
	}
	slices.SortFunc(c.onces, func(a, b onceKey) int {
		if x, y := binary.BigEndian.Uint64(a[:]), binary.BigEndian.Uint64(b[:]); x != y {
			return cmp.Compare(x, y)
		}
		return bytes.Compare(a[8:], b[8:])
	})
	for i := range c.onces {
		if err := w.put(known, c.onces[i][:], nothing{}); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) bucket(b bucket) *bolt.Bucket {
	if w.buckets[b] == nil {
		w.buckets[b] = w.tx.Bucket(b.name())
		if b == known || b == runs || b == ders {
			w.buckets[b].FillPercent = 0.9 // mostly in the order of their keys
		}
	}
	return w.buckets[b]
}

// put writes an entry, or removes it where it is nil.
func (w *writer) put(b bucket, key []byte, e entry) error {
	to := w.bucket(b)
	if e == nil {
		return to.Delete(key)
	}
	if value, ok := e.(raw); ok && b.isIndex() {
		return to.Put(key, value)
	}
	return to.Put(key, w.codec.seal(b, key, w.id, e))
}

// publish lets others see the totals.
func (s *Store) publish(t *Totals) {
	c := t.clone()
	s.published.Store(&c)
	s.entries.Store(c.Certificates + c.Servers + c.Sightings + c.Contacts + c.Alerts)
	s.measure()
}

// measure notes how many bytes of the file are in use.
func (s *Store) measure() {
	db := s.db.Load()
	_ = guard(func() error {
		return db.View(func(tx *bolt.Tx) error {
			st := db.Stats()
			free := int64(st.FreePageN+st.PendingPageN) * int64(db.Info().PageSize)
			s.used.Store(uint64(max(tx.Size()-free, 0)))
			return nil
		})
	})
}

// Totals returns how much there is.
func (s *Store) Totals() (Totals, error) {
	s.settle()
	t := s.published.Load().clone()
	return t, nil
}

// Stats are the counters of an inventory.
type Stats struct {
	Entries   uint64 `json:"entries"`   // certificates, servers, sightings, contacts and alerts
	Bytes     uint64 `json:"bytes"`     // of the file that are in use
	Queued    uint64 `json:"queued"`    // findings that wait to be written
	Lost      uint64 `json:"lost"`      // findings for which there was no room
	Forgotten uint64 `json:"forgotten"` // entries given up for newer ones
	Damaged   uint64 `json:"damaged"`   // values that could not be read
	Failures  uint64 `json:"failures"`  // transactions that the disk did not take; tried again
}

// Stats returns the counters of this run so far.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	queued := s.seen - s.stored
	s.mu.Unlock()
	return Stats{s.entries.Load(), s.used.Load(), queued, s.lost.Load(), s.forgotten.Load(), s.damaged.Load(), s.failures.Load()}
}

// Close writes what is left. The error says what could not be written.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return s.files.close(s.db.Swap(nil))
	}
	s.closing = true
	s.changed.Broadcast()
	s.poke()
	s.mu.Unlock()
	<-s.done
	err := s.Flush()
	if s.stopServing != nil {
		s.stopServing()
	}
	s.readers.Wait()
	return errors.Join(err, s.files.close(s.db.Swap(nil)))
}

// errDamage is the error of a database that is not what was written.
var errDamage = errors.New("the database is damaged")

func isDamage(err error) bool { return errors.Is(err, errDamage) }

// guard calls f. The database underneath panics where its pages make no sense, and the
// processor faults where a page of its file cannot be read.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamage, p)
		}
	}()
	return f()
}
