// Package generations has a bounded cache that forgets what was not used for
// long. It keeps two generations of entries: an entry that is new or was used
// goes to the young one; when that is full it becomes the old one, and what was
// in the old one is forgotten. So an entry costs no list, no time stamp and no
// lock, and what is asked for again and again stays.
package generations

// Cache is a bounded map from K to V. It is not safe for concurrent use.
type Cache[K comparable, V any] struct {
	young, old map[K]entry[V]
	limit      int // for the cost of one generation
	cost       int // of the young generation
	forgotten  uint64
}

type entry[V any] struct {
	value V
	cost  int
}

// New returns an empty cache whose entries cost at most limit together, in
// whatever unit [Cache.Put] is told costs: bytes, or 1 for each entry.
func New[K comparable, V any](limit int) *Cache[K, V] {
	return &Cache[K, V]{young: map[K]entry[V]{}, old: map[K]entry[V]{}, limit: limit / 2}
}

// Get returns the value of k, and whether there is one.
func (c *Cache[K, V]) Get(k K) (V, bool) {
	e, ok := c.young[k]
	if !ok {
		if e, ok = c.old[k]; ok {
			c.promote(k, e)
		}
	}
	return e.value, ok
}

// GetBytes is [Cache.Get] for a key that is a slice of bytes. It allocates
// nothing where the key was used lately or is not there.
func GetBytes[V any](c *Cache[string, V], key []byte) (V, bool) {
	e, ok := c.young[string(key)]
	if !ok {
		if e, ok = c.old[string(key)]; ok {
			c.promote(string(key), e)
		}
	}
	return e.value, ok
}

// Put adds k, or replaces its value. An entry that costs more than half of the
// limit is forgotten at once; cost must not be negative.
func (c *Cache[K, V]) Put(k K, v V, cost int) {
	if e, ok := c.young[k]; ok {
		c.cost -= e.cost
		delete(c.young, k)
	}
	c.promote(k, entry[V]{v, cost})
}

// promote puts an entry that is not in the young generation there.
func (c *Cache[K, V]) promote(k K, e entry[V]) {
	delete(c.old, k)
	if e.cost > c.limit {
		c.forgotten++
		return
	}
	if e.cost > c.limit-c.cost {
		c.forgotten += uint64(len(c.old))
		c.young, c.old = c.old, c.young
		clear(c.young)
		c.cost = 0
	}
	c.young[k] = e
	c.cost += e.cost
}

// Len returns how many entries there are.
func (c *Cache[K, V]) Len() int { return len(c.young) + len(c.old) }

// Forgotten returns how many entries were forgotten for want of room.
func (c *Cache[K, V]) Forgotten() uint64 { return c.forgotten }
