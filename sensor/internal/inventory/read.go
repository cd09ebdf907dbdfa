package inventory

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sync"

	bolt "go.etcd.io/bbolt"
)

// The iterators read some entries in one transaction, and then the next in another: a
// reader may take its time, and may ask the inventory something else meanwhile. What is
// written meanwhile may be seen or not.

// scan returns the entries of a bucket whose keys begin with prefix.
func scan[T any, P interface {
	*T
	entry
	keyOf([]byte) []byte
}](s *Store, b bucket, prefix []byte) iter.Seq2[P, error] {
	return walk(s, b, prefix, func(_ *bolt.Tx, list []pair, to []P) error {
		return inParts(len(list), func(i int) { to[i] = load[T, P](s, b, list[i].key, list[i].value) })
	})
}

// through returns the entries that an index refers to. entryKey makes the key of an entry
// from that of the index.
func through[T any, P interface {
	*T
	entry
	keyOf([]byte) []byte
}](s *Store, index, b bucket, prefix []byte, entryKey func(rest []byte) []byte) iter.Seq2[P, error] {
	return walk(s, index, prefix, func(tx *bolt.Tx, list []pair, to []P) error {
		entries := tx.Bucket(b.name())
		for i := range list {
			key := entryKey(list[i].key[len(prefix):])
			if v := entries.Get(key); v != nil {
				to[i] = load[T, P](s, b, key, v)
			} else {
				s.bad(b, key)
			}
		}
		return nil
	})
}

// load decodes an entry; nil where it is not what was written.
func load[T any, P interface {
	*T
	entry
	keyOf([]byte) []byte
}](s *Store, b bucket, k, v []byte) P {
	e := P(new(T))
	data, _, ok := unseal(b, k, v)
	var key [512]byte
	if !ok || !begin(data, e.fields) || !bytes.Equal(e.keyOf(key[:0]), k) {
		s.bad(b, k)
		return nil
	}
	return e
}

// pair is a key and a value. Both are lent with the transaction.
type pair struct{ key, value []byte }

// inParts calls do for the numbers from 0 to n-1, of many by several goroutines.
func inParts(n int, do func(i int)) error {
	parts := 1
	if n >= chunk/4 {
		parts = min(runtime.GOMAXPROCS(0), maxParts)
	}
	errs := make([]error, parts)
	var all sync.WaitGroup
	for p := range parts {
		part := func() {
			errs[p] = guard(func() error {
				for i := p * n / parts; i < (p+1)*n/parts; i++ {
					do(i)
				}
				return nil
			})
		}
		if p < parts-1 {
			all.Go(part)
		} else {
			part()
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// walk calls read for the keys of a bucket that begin with prefix, some at once, and
// yields what it sets for each, which refers to nothing of the database, unless that is
// nil.
func walk[P interface{ *T }, T any](s *Store, b bucket, prefix []byte, read func(tx *bolt.Tx, list []pair, to []P) error) iter.Seq2[P, error] {
	return func(yield func(P, error) bool) {
		s.settle()
		from := bytes.Clone(prefix)
		var pairs []pair
		var list []P
		for more := true; more; {
			pairs, list, more = pairs[:0], list[:0], false
			err := guard(func() error {
				return s.db.Load().View(func(tx *bolt.Tx) error {
					size := 0
					c := tx.Bucket(b.name()).Cursor()
					for k, v := c.Seek(from); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
						if len(pairs) == chunk || size > chunkBytes {
							from, more = append(from[:0], k...), true
							break
						}
						pairs = append(pairs, pair{k, v})
						size += len(v)
					}
					list = slices.Grow(list, len(pairs))[:len(pairs)]
					clear(list)
					return read(tx, pairs, list)
				})
			})
			for _, e := range list {
				if e != nil && !yield(e, nil) {
					return
				}
			}
			if err != nil {
				yield(nil, fmt.Errorf("read the inventory %s: %w", s.path, err))
				return
			}
		}
	}
}

// get returns the entry of a key.
func get[T any, P interface {
	*T
	entry
	keyOf([]byte) []byte
}](s *Store, b bucket, key []byte) (e P, err error) {
	s.settle()
	err = guard(func() error {
		return s.db.Load().View(func(tx *bolt.Tx) error {
			if v := tx.Bucket(b.name()).Get(key); v != nil {
				e = load[T, P](s, b, key, v)
			}
			return nil
		})
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the inventory %s: %w", s.path, err)
	case e == nil:
		return nil, ErrNotFound
	}
	return e, nil
}

// bad counts a value that is not what was written, and names the first of them.
func (s *Store) bad(b bucket, key []byte) {
	if n := s.damaged.Add(1); n <= maxSpoken {
		s.log.Error("inventory: a value is damaged, and left out", "path", s.path, "bucket", bucketNames[b], "key", fmt.Sprintf("%x", key))
	}
}

// Certificates returns all certificates in the order of their hashes.
func (s *Store) Certificates() iter.Seq2[*Certificate, error] {
	return scan[Certificate](s, certificates, nil)
}

// Certificate returns a certificate, or ErrNotFound.
func (s *Store) Certificate(id Hash) (*Certificate, error) {
	return get[Certificate](s, certificates, id[:])
}

// DER returns the bytes of a certificate, or ErrNotFound.
func (s *Store) DER(id Hash) (der []byte, err error) {
	s.settle()
	err = guard(func() error {
		return s.db.Load().View(func(tx *bolt.Tx) error {
			e := tx.Bucket(certificates.name()).Get(id[:])
			if e == nil {
				return nil
			}
			key, ok := derKey(id[:], e)
			if !ok {
				s.bad(certificates, id[:])
				return nil
			}
			data, _, ok := unseal(ders, key, tx.Bucket(ders.name()).Get(key))
			if !ok || sha256.Sum256(data) != id {
				s.bad(ders, id[:])
				return nil
			}
			der = bytes.Clone(data)
			return nil
		})
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the inventory %s: %w", s.path, err)
	case der == nil:
		return nil, ErrNotFound
	}
	return der, nil
}

// derKey is the key of the bytes of a certificate that has an entry.
func derKey(key, value []byte) ([]byte, bool) {
	var v certificateEntry
	data, _, ok := unseal(certificates, key, value)
	if !ok || !decode(data, v.fields) {
		return nil, false
	}
	return binary.BigEndian.AppendUint64(nil, v.number), true
}

// Servers returns all servers in the order of [ServerKey.Compare].
func (s *Store) Servers() iter.Seq2[*Server, error] { return scan[Server](s, servers, nil) }

// Server returns a server, or ErrNotFound.
func (s *Store) Server(k ServerKey) (*Server, error) {
	return get[Server](s, servers, appendServer(nil, &k))
}

// Sightings returns all sightings in the order of certificates and servers.
func (s *Store) Sightings() iter.Seq2[*Sighting, error] { return scan[Sighting](s, sightings, nil) }

// ShownBy returns the sightings of a server, in the order of certificates.
func (s *Store) ShownBy(k ServerKey) iter.Seq2[*Sighting, error] {
	server := appendServer(nil, &k)
	return through[Sighting](s, shown, sightings, server, func(rest []byte) []byte {
		return append(bytes.Clone(rest), server...)
	})
}

// ShownAt returns the sightings of a certificate, in the order of servers.
func (s *Store) ShownAt(id Hash) iter.Seq2[*Sighting, error] {
	return scan[Sighting](s, sightings, id[:])
}

// Contacts returns all contacts in the order of clients and servers.
func (s *Store) Contacts() iter.Seq2[*Contact, error] { return scan[Contact](s, contacts, nil) }

// Met returns the contacts of a server, in the order of clients.
func (s *Store) Met(k ServerKey) iter.Seq2[*Contact, error] {
	server := appendServer(nil, &k)
	return through[Contact](s, met, contacts, server, func(rest []byte) []byte {
		return append(bytes.Clone(rest), server...)
	})
}

// Alerts returns all alerts in the order of time.
func (s *Store) Alerts() iter.Seq2[*Alert, error] { return scan[Alert](s, alerts, nil) }

// Alert returns the alert with an event.id, or ErrNotFound.
func (s *Store) Alert(id string) (*Alert, error) {
	s.settle()
	var key []byte
	err := guard(func() error {
		return s.db.Load().View(func(tx *bolt.Tx) error {
			if t := tx.Bucket(alertTimes.name()).Get([]byte(id)); id != "" && len(t) == 8 {
				key = append(appendTime(nil, decodeTime(t)), id...)
			}
			return nil
		})
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the inventory %s: %w", s.path, err)
	case key == nil:
		return nil, ErrNotFound
	}
	return get[Alert](s, alerts, key)
}

// Runs returns the runs in the order in which they began.
func (s *Store) Runs() iter.Seq2[*Run, error] {
	return walk(s, runs, nil, func(_ *bolt.Tx, list []pair, to []*Run) error {
		for i, p := range list {
			r := new(Run)
			data, _, ok := unseal(runs, p.key, p.value)
			if !ok || !decode(data, r.fields) {
				s.bad(runs, p.key)
				continue
			}
			to[i] = r
		}
		return nil
	})
}
