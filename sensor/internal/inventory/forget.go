package inventory

import (
	"bytes"
	"math/rand/v2"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// bound gives entries up when the file is full. What was not seen for longest goes first,
// and what has alerts last. Alerts, and what tells handshakes apart, have a part of the
// file for themselves, and their oldest go first. It reports whether there was a reason.
func (s *Store) bound() bool {
	limit := uint64(s.options.Size)
	if s.used.Load() <= limit-limit/giveUp/2 {
		return false
	}
	if !s.forgetSaid {
		s.forgetSaid = true
		s.log.Warn("inventory: it is full: what was not seen for longest is given up from now on, see --inventory-size", "path", s.path, "size", limit)
	}
	err := guard(func() error {
		if err := s.forgetOldest(known, limit/sharedKnown); err != nil {
			return err
		}
		if err := s.forgetOldest(alerts, limit/sharedAlerts); err != nil {
			return err
		}
		// What goes leaves pages half empty at first.
		for alerted, round := false, 0; round < maxRounds; round++ {
			if s.measure(); s.used.Load() <= limit-limit/giveUp {
				return nil
			}
			n, err := s.forgetUnseen(limit/giveUp, alerted)
			if err != nil {
				return err
			}
			alerted = alerted || n == 0
		}
		return nil
	})
	s.cache.reset()
	s.measure()
	switch {
	case isDamage(err):
		s.rebuild(err)
	case err != nil:
		s.log.Error("inventory: nothing could be given up", "path", s.path, "error", err)
	}
	s.dirtyTotals = true
	return true
}

// forgetOldest gives up the first keys of a bucket whose keys begin with a time, until it
// takes no more than most bytes.
func (s *Store) forgetOldest(b bucket, most uint64) error {
	var size uint64
	_, err := s.each(b, func(_ *bolt.Tx, k, v []byte) { size += uint64(len(k) + len(v) + elementSize) }, nil)
	if err != nil || size <= most {
		return err
	}
	size -= most - most/giveUp
	forgotten, err := s.each(b, nil, func(k, v []byte) (remove, more bool) {
		if size == 0 {
			return false, false
		}
		size -= min(size, uint64(len(k)+len(v)+elementSize))
		return true, true
	})
	if b == alerts {
		s.totals.Alerts -= min(s.totals.Alerts, forgotten)
		s.count(forgotten)
	}
	return err
}

// count counts entries that were given up.
func (s *Store) count(n uint64) {
	s.totals.Forgotten += n
	s.forgotten.Add(n)
}

// aged is what bound has to know of an entry.
type aged struct {
	last   int64
	alerts uint64
}

// ages says how to find out of a value of a bucket.
var ages = map[bucket]func(data []byte) (aged, bool){
	contacts:     ageOf[Contact](func(v *Contact) aged { return aged{v.Last.Time, v.Alerts} }),
	sightings:    ageOf[Sighting](func(v *Sighting) aged { return aged{v.Last.Time, v.Alerts} }),
	certificates: ageOf[Certificate](func(v *Certificate) aged { return aged{v.Last.Time, v.Alerts} }),
	servers:      ageOf[Server](func(v *Server) aged { return aged{v.Last.Time, v.Alerts} }),
}

func ageOf[T any, P interface {
	*T
	entry
}](of func(P) aged) func([]byte) (aged, bool) {
	return func(data []byte) (aged, bool) {
		var v T
		p := P(&v)
		if !begin(data, p.fields) {
			return aged{}, false
		}
		return of(p), true
	}
}

// givenUp is the order in which entries are given up: what refers to others first.
var givenUp = []bucket{contacts, sightings, servers, certificates}

// forgetUnseen gives up about so many bytes of the entries that were not seen for longest,
// and half of them at most: of those without alerts, or of all. It returns how many.
func (s *Store) forgetUnseen(amount uint64, alerted bool) (gone uint64, err error) {
	var sample []int64
	var all int
	var size uint64
	for _, b := range givenUp {
		_, err := s.each(b, func(tx *bolt.Tx, k, v []byte) {
			a, ok := s.age(b, k, v)
			if !ok || a.alerts > 0 && !alerted {
				return
			}
			size += uint64(len(k) + len(v) + elementSize)
			if b == certificates {
				if key, ok := derKey(k, v); ok {
					size += uint64(len(tx.Bucket(ders.name()).Get(key)))
				}
			}
			if all++; len(sample) < sampled {
				sample = append(sample, a.last)
			} else if i := rand.IntN(all); i < sampled {
				sample[i] = a.last
			}
		}, nil)
		if err != nil {
			return 0, err
		}
	}
	if len(sample) == 0 {
		return 0, nil
	}
	slices.Sort(sample)
	part := min(float64(amount)/float64(size+1), 0.5)
	until := sample[min(int(part*float64(len(sample))), len(sample)-1)]
	for _, b := range givenUp {
		n, err := s.each(b, nil, func(k, v []byte) (remove, more bool) {
			a, ok := s.age(b, k, v)
			return !ok || a.last <= until && (a.alerts == 0 || alerted), true
		})
		to := map[bucket]*uint64{contacts: &s.totals.Contacts, sightings: &s.totals.Sightings, servers: &s.totals.Servers, certificates: &s.totals.Certificates}[b]
		*to -= min(*to, n)
		s.count(n)
		if gone += n; err != nil {
			return gone, err
		}
	}
	return gone, nil
}

func (s *Store) age(b bucket, k, v []byte) (aged, bool) {
	data, _, ok := unseal(b, k, v)
	if !ok {
		return aged{}, false
	}
	return ages[b](data)
}

// each goes through a bucket: it calls look for each value, or removes those of which
// remove says so, until it says that this is enough. In between, it writes what waits. It
// returns how many were removed.
func (s *Store) each(b bucket, look func(*bolt.Tx, []byte, []byte), remove func(k, v []byte) (remove, more bool)) (n uint64, err error) {
	var from []byte
	for more := true; more; {
		more = false
		step := func(tx *bolt.Tx) error {
			to := tx.Bucket(b.name())
			c := to.Cursor()
			var gone []belonging
			read, size := 0, 0
			for k, v := c.Seek(from); k != nil; k, v = c.Next() {
				if read++; read > chunk || size > chunkBytes {
					from, more = bytes.Clone(k), true
					break
				}
				size += len(v)
				if look != nil {
					look(tx, k, v)
					continue
				}
				yes, on := remove(k, v)
				if yes {
					n++
					k := bytes.Clone(k)
					gone = append(append(gone, belongings(b, k, v)...), belonging{b, k})
				}
				if !on {
					break
				}
			}
			for _, g := range gone {
				if err := tx.Bucket(g.b.name()).Delete(g.key); err != nil {
					return err
				}
			}
			return nil
		}
		if look != nil {
			err = s.db.Load().View(step)
		} else {
			err = s.db.Load().Update(step)
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// belonging is a key of a bucket.
type belonging struct {
	b   bucket
	key []byte
}

// belongings are what belongs to an entry.
func belongings(b bucket, k, v []byte) []belonging {
	own := append([]byte{byte(b)}, k...)
	switch b {
	case certificates:
		if der, ok := derKey(k, v); ok {
			return []belonging{{ders, der}, {counted, own}}
		}
		return []belonging{{counted, own}}
	case servers:
		return []belonging{{counted, own}}
	case sightings:
		return []belonging{{counted, own}, {shown, append(bytes.Clone(k[min(32, len(k)):]), k[:min(32, len(k))]...)}}
	case contacts:
		n := min(1+int(k[0])/8, len(k))
		return []belonging{{met, append(bytes.Clone(k[n:]), k[:n]...)}}
	case alerts:
		return []belonging{{alertTimes, k[min(8, len(k)):]}}
	}
	return nil
}
