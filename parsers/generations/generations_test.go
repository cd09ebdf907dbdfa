package generations

import (
	"iter"
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestBound plays random calls against a map that forgets nothing.
func TestBound(t *testing.T) {
	const limit = 1000
	r := rand.New(rand.NewPCG(1, 2))
	c := New[int, int](limit)
	costs, puts := map[int]int{}, 0
	values := map[int]int{}
	for i := range 100_000 {
		k := int(r.ExpFloat64() * 50)
		if r.IntN(3) > 0 {
			v, ok := c.Get(k)
			if want, known := values[k]; ok && (!known || v != want) {
				t.Fatalf("%d has %d, want %d", k, v, want)
			}
			if again, still := c.Get(k); still != ok || again != v {
				t.Fatalf("%d: %d %v, then %d %v", k, v, ok, again, still)
			}
			continue
		}
		before, had := c.Len(), false
		for there := range c.all() {
			had = had || there == k
		}
		if !had {
			puts++
		}
		values[k], costs[k] = i, r.IntN(limit)
		c.Put(k, i, costs[k])
		v, ok := c.Get(k)
		if ok != (costs[k] <= limit/2) || ok && v != i {
			t.Fatalf("after %d was put at a cost of %d: %d, %v", k, costs[k], v, ok)
		}
		if c.Len() > before+1 {
			t.Fatalf("%d entries after %d", c.Len(), before)
		}
		sum := 0
		for k, v := range c.all() {
			if sum += costs[k]; v != values[k] {
				t.Fatalf("%d has %d, want %d", k, v, values[k])
			}
		}
		if sum > limit {
			t.Fatalf("the entries cost %d", sum)
		}
		if got := c.Forgotten() + uint64(c.Len()); got != uint64(puts) {
			t.Fatalf("%d forgotten and there, %d were put", got, puts)
		}
	}
	if c.Forgotten() == 0 {
		t.Error("nothing was forgotten")
	}
}

// TestUsedStays asks for one entry all the time while many others come.
func TestUsedStays(t *testing.T) {
	c := New[string, int](100)
	c.Put("used", 7, 1)
	for i := range 10_000 {
		c.Put(strconv.Itoa(i), i, 1)
		if v, ok := GetBytes(c, []byte("used")); !ok || v != 7 {
			t.Fatalf("gone after %d", i)
		}
	}
	if _, ok := c.Get("0"); ok {
		t.Error("the first of the others is still there")
	}
}

func TestAllocations(t *testing.T) {
	c := New[string, int](1 << 10)
	key := []byte("a key that is longer than what the compiler keeps on the stack")
	c.Put(string(key), 1, 1)
	if n := testing.AllocsPerRun(100, func() { GetBytes(c, key) }); n > 0 {
		t.Errorf("to find: %v allocations", n)
	}
	key[0] = 'b'
	if n := testing.AllocsPerRun(100, func() { GetBytes(c, key) }); n > 0 {
		t.Errorf("to find nothing: %v allocations", n)
	}
}

func BenchmarkGetBytes(b *testing.B) {
	c := New[string, int](1 << 10)
	key := make([]byte, 200)
	c.Put(string(key), 1, 1)
	b.ReportAllocs()
	for b.Loop() {
		GetBytes(c, key)
	}
}

// all ranges over the entries of c, those of the old generation first.
func (c *Cache[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, generation := range [...]map[K]entry[V]{c.old, c.young} {
			for k, e := range generation {
				if !yield(k, e.value) {
					return
				}
			}
		}
	}
}
