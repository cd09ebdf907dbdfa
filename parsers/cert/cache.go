package cert

import (
	"bytes"
	"hash/maphash"
)

// Cache parses each distinct certificate once, as long as it remembers it: few
// certificates make up most of what a network shows. It is bounded in entries
// and in bytes, and not safe for concurrent use.
type Cache struct {
	seed  maphash.Seed
	index map[uint64]int // from the hash of the DER to its slot
	slots []slot
	limit int
	bytes int // the sum of the slots' sizes
	hand  int // the slot to look at next for one to give up
	stats cacheStats
}

// cacheStats counts what a [Cache] was asked for.
type cacheStats struct {
	hits      uint64
	misses    uint64
	evictions uint64
}

type slot struct {
	hash uint64
	cert *Certificate // nil when free
	size int
	used bool // since the hand passed
}

// NewCache returns a cache of at most that many certificates, at least one, and
// of that many bytes.
func NewCache(entries, bytes int) *Cache {
	entries = max(entries, 1)
	return &Cache{
		seed:  maphash.MakeSeed(),
		index: make(map[uint64]int, entries),
		slots: make([]slot, entries),
		limit: bytes,
	}
}

// Get returns what [Parse] makes of der, which is borrowed until the return.
// For a certificate that is remembered it neither allocates nor parses.
func (c *Cache) Get(der []byte) *Certificate {
	hash := maphash.Bytes(c.seed, der)
	i, found := c.index[hash]
	if found {
		if s := &c.slots[i]; bytes.Equal(s.cert.DER, der) {
			s.used = true
			c.stats.hits++
			return s.cert
		}
	}
	c.stats.misses++
	parsed := Parse(der)
	size := parsed.Size()
	parsed.size = size
	if size > c.limit/8 { // it would drive out too many others
		return parsed
	}
	if found { // the same hash of other bytes
		c.free(i)
	}
	for c.bytes+size > c.limit {
		c.free(c.victim())
	}
	i = c.victim()
	c.free(i)
	c.slots[i] = slot{hash: hash, cert: parsed, size: size}
	c.index[hash] = i
	c.bytes += size
	return parsed
}

// victim moves the hand to the next slot that is free or was not used since it
// last passed (the clock algorithm).
func (c *Cache) victim() int {
	for {
		i := c.hand
		c.hand = (c.hand + 1) % len(c.slots)
		s := &c.slots[i]
		if !s.used {
			return i
		}
		s.used = false
	}
}

func (c *Cache) free(i int) {
	s := &c.slots[i]
	if s.cert == nil {
		return
	}
	delete(c.index, s.hash)
	c.bytes -= s.size
	c.stats.evictions++
	*s = slot{}
}

// Size is about what c holds in memory, in bytes.
func (c *Certificate) Size() int {
	if c.size > 0 {
		return c.size
	}
	const fixed, header = 1024, 16
	n := fixed + len(c.DER) + len(c.Subject.String) + len(c.Issuer.String)
	for _, list := range [...][]string{
		c.Subject.CommonName, c.Subject.Organization, c.Subject.OrganizationalUnit,
		c.Subject.Country, c.Subject.Locality, c.Subject.StateOrProvince,
		c.Issuer.CommonName, c.Issuer.Organization, c.Issuer.OrganizationalUnit,
		c.Issuer.Country, c.Issuer.Locality, c.Issuer.StateOrProvince,
		c.DNSNames, c.IPAddresses, c.EmailAddresses, c.URIs, c.ExtendedKeyUsage, c.Policies, c.Permitted, c.Excluded,
	} {
		for _, s := range list {
			n += header + len(s)
		}
	}
	return n
}
