package inventory

import (
	"bytes"
	"fmt"
	"iter"

	bolt "go.etcd.io/bbolt"
)

// AnswerAsStored has questions find what is on disk, which is a second old at most while
// the disk takes it. They begin no transaction any more: many may ask.
func (s *Store) AnswerAsStored() { s.asStored.Store(true) }

// CertificatesAfter returns the certificates after one, in the order of their hashes. The
// zero Hash is before all.
func (s *Store) CertificatesAfter(id Hash) iter.Seq2[*Certificate, error] {
	return beyond[Certificate](s, certificates, id[:], false)
}

// ServersAfter returns the servers after one, in the order of [ServerKey.Compare]. The
// zero ServerKey is before all.
func (s *Store) ServersAfter(k ServerKey) iter.Seq2[*Server, error] {
	var key []byte
	if k != (ServerKey{}) {
		key = appendServer(nil, &k)
	}
	return beyond[Server](s, servers, key, false)
}

// AlertsBefore returns the alerts before one, of which the time and the id count, the last
// first. nil is after all.
func (s *Store) AlertsBefore(a *Alert) iter.Seq2[*Alert, error] {
	var key []byte
	if a != nil {
		key = a.keyOf(nil)
	}
	return beyond[Alert](s, alerts, key, true)
}

// beyond returns the entries of a bucket after a key, or before it and backward. The nil
// key is before the first and after the last. The transactions are those of walk.
func beyond[T any, P interface {
	*T
	entry
	keyOf([]byte) []byte
}](s *Store, b bucket, key []byte, backward bool) iter.Seq2[P, error] {
	begin := func(c *bolt.Cursor) (k, v []byte) {
		switch {
		case backward && key == nil:
			return c.Last()
		case backward:
			if k, _ := c.Seek(key); k == nil {
				return c.Last()
			}
			return c.Prev()
		}
		if k, v = c.Seek(key); bytes.Equal(k, key) {
			return c.Next()
		}
		return k, v
	}
	next := (*bolt.Cursor).Next
	if backward {
		next = (*bolt.Cursor).Prev
	}
	return func(yield func(P, error) bool) {
		s.settle()
		list := make([]P, 0, chunk)
		for more := true; more; {
			list, more = list[:0], false
			err := guard(func() error {
				return s.db.Load().View(func(tx *bolt.Tx) error {
					size := 0
					c := tx.Bucket(b.name()).Cursor()
					for k, v := begin(c); k != nil; k, v = next(c) {
						if e := load[T, P](s, b, k, v); e != nil {
							list = append(list, e)
						}
						if size += len(v); len(list) == chunk || size > chunkBytes {
							key, more = bytes.Clone(k), true
							return nil
						}
					}
					return nil
				})
			})
			for _, e := range list {
				if !yield(e, nil) {
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
