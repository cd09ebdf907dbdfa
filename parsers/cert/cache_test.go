package cert

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"testing"
)

// numbered are distinct certificates.
func numbered(n int) (all [][]byte) {
	for i := range n {
		all = append(all, with(func(p *parts) { p.serial = binary.BigEndian.AppendUint32([]byte{1}, uint32(i)) }))
	}
	return all
}

func TestCache(t *testing.T) {
	c := NewCache(3, 32<<20)
	ders := numbered(4)
	first := c.Get(ders[0])
	if !bytes.Equal(first.DER, ders[0]) || first.Serial != "0100000000" {
		t.Fatalf("got %+v", first)
	}
	if c.Get(bytes.Clone(ders[0])) != first {
		t.Error("the same bytes were parsed twice")
	}
	c.Get(ders[1])
	c.Get(ders[2])
	c.Get(ders[3]) // drives out one that was not used again
	if c.Get(ders[0]) != first {
		t.Error("the one that was used was driven out")
	}
	if got, want := c.stats, (cacheStats{hits: 2, misses: 4, evictions: 1}); got != want {
		t.Errorf("stats are %+v, want %+v", got, want)
	}
	if len(c.index) != 3 {
		t.Errorf("%d entries", len(c.index))
	}
}

// Other bytes under the same hash are told apart.
func TestCacheCollision(t *testing.T) {
	c := NewCache(4, 32<<20)
	ders := numbered(2)
	first := c.Get(ders[0])
	i := c.index[maphash.Bytes(c.seed, ders[0])]
	delete(c.index, c.slots[i].hash)
	c.slots[i].hash = maphash.Bytes(c.seed, ders[1])
	c.index[c.slots[i].hash] = i
	if got := c.Get(ders[1]); got == first || !bytes.Equal(got.DER, ders[1]) {
		t.Error("a collision gave another certificate")
	}
	if len(c.index) != 1 || c.stats.evictions != 1 {
		t.Errorf("%d entries, %+v", len(c.index), c.stats)
	}
}

func TestCacheBounded(t *testing.T) {
	const entries = 16
	c := NewCache(entries, 32<<20)
	ders := numbered(64)
	c.limit = 10 * Parse(ders[0]).Size()
	for round := range 4 {
		for i, d := range ders {
			if got := c.Get(d); !bytes.Equal(got.DER, d) {
				t.Fatal("wrong certificate")
			}
			c.Get(ders[(i*7+round)%len(ders)])
			sum, kept := 0, 0
			for i := range c.slots {
				if s := &c.slots[i]; s.cert != nil {
					sum += s.size
					kept++
					if c.index[s.hash] != i {
						t.Fatal("index and slots disagree")
					}
				}
			}
			if sum != c.bytes || kept != len(c.index) || sum > c.limit {
				t.Fatalf("%d bytes of %d kept, %d counted; %d entries, %d indexed", sum, c.limit, c.bytes, kept, len(c.index))
			}
			if s := c.stats; s.misses-s.evictions != uint64(kept) {
				t.Fatalf("%+v with %d kept", s, kept)
			}
		}
	}
	big := append(bytes.Clone(ders[0]), make([]byte, c.limit)...)
	before := len(c.index)
	if got := c.Get(big); !bytes.Equal(got.DER, big) || len(c.index) != before {
		t.Error("one large certificate drove out others")
	}
}

func TestCacheHitAllocates(t *testing.T) {
	c := NewCache(64, 32<<20)
	ders := numbered(8)
	for _, d := range ders {
		c.Get(d)
	}
	if n := testing.AllocsPerRun(100, func() {
		for _, d := range ders {
			c.Get(d)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	raw := plain().bytes()
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		Parse(raw)
	}
}

func BenchmarkSalvage(b *testing.B) {
	raw := plain().bytes()
	b.ReportAllocs()
	for b.Loop() {
		Salvage(raw[:len(raw)/2])
	}
}

func BenchmarkCacheHit(b *testing.B) {
	c := NewCache(4096, 32<<20)
	ders := numbered(1024)
	for _, d := range ders {
		c.Get(d)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(ders[0])))
	for i := 0; b.Loop(); i++ {
		c.Get(ders[i%len(ders)])
	}
}

func BenchmarkCacheMiss(b *testing.B) {
	c := NewCache(64, 32<<20)
	ders := numbered(1024)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.Get(ders[i%len(ders)])
	}
}
