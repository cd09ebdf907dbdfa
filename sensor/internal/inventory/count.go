package inventory

import (
	"math"
	"math/bits"
	"slices"
)

// set counts distinct things, by hashes of 64 bits. Up to maxExact it has the hashes
// themselves, above it a sketch of them. What it says depends on what is in it alone,
// not on the order in which it came.
type set struct {
	exact  []uint64 // sorted; nil once there is a sketch
	sketch *sketch
}

// add adds a hash, and reports whether the set has changed.
func (s *set) add(h uint64) bool {
	if s.sketch != nil {
		return s.sketch.add(h)
	}
	i, found := slices.BinarySearch(s.exact, h)
	if found {
		return false
	}
	s.exact = slices.Insert(s.exact, i, h)
	if len(s.exact) > maxExact {
		s.sketch = new(sketch)
		for _, h := range s.exact {
			s.sketch.add(h)
		}
		s.exact = nil
	}
	return true
}

// count is how many things there are.
func (s *set) count() Count {
	if s.sketch == nil {
		return Count{N: uint64(len(s.exact))}
	}
	return Count{N: max(s.sketch.estimate(), maxExact+1), Estimated: true}
}

func (s *set) fields(c *codec) {
	estimated := s.sketch != nil
	c.flag(&estimated)
	if estimated {
		if c.decoding {
			s.sketch = new(sketch)
		}
		c.fixed(s.sketch[:])
		return
	}
	n := c.length(len(s.exact))
	if c.decoding {
		if n > min(maxExact, len(c.in)/8) {
			c.fail()
			return
		}
		s.exact = make([]uint64, n)
	}
	for i := range s.exact {
		c.fixed64(&s.exact[i])
		if c.decoding && i > 0 && s.exact[i] <= s.exact[i-1] {
			c.fail()
			return
		}
	}
}

// registers is how many parts a sketch divides things into. The standard error of an
// estimate is 1.04/√registers, 3.3 %.
const (
	registerBits = 10
	registers    = 1 << registerBits
)

// sketch is HyperLogLog (Flajolet, Fusy, Gandouet and Meunier, 2007): for each part of
// all hashes, the longest run of leading zeros in the rest, plus one.
type sketch [registers]uint8

func (s *sketch) add(h uint64) bool {
	r := &s[h>>(64-registerBits)]
	rank := uint8(bits.LeadingZeros64(h<<registerBits|1<<(registerBits-1)) + 1)
	if rank <= *r {
		return false
	}
	*r = rank
	return true
}

// estimate is the harmonic mean of figure 3 of that paper. Few things are counted by the
// parts that are still empty (linear counting), as it says. The correction for very many
// is not needed with hashes of 64 bits.
func (s *sketch) estimate() uint64 {
	const alpha = 0.7213 / (1 + 1.079/registers)
	sum, empty := 0.0, 0
	for _, r := range s {
		sum += 1 / float64(uint64(1)<<min(r, 63))
		if r == 0 {
			empty++
		}
	}
	n := alpha * registers * registers / sum
	if n <= 2.5*registers && empty > 0 {
		n = registers * math.Log(registers/float64(empty))
	}
	return uint64(math.Round(n))
}

// sets are what an entry counts.
type sets [3]set

// What each of sets counts.
const (
	countClients      = iota // of certificates and servers
	countNames               // that were asked for, of these and of sightings
	countServers             // of certificates
	countCertificates = 2    // of servers
)

func (s *sets) fields(c *codec) {
	for i := range s {
		s[i].fields(c)
	}
}

// counter is what the entry of a certificate, server or sighting counts. On disk it is
// behind what readers want of the entry, while it is small, else in the bucket counted.
type counter struct {
	sets
	apart bool
	at    *slot // where they are then, if that is known
}

func (v *counter) fields(c *codec) {
	if c.flag(&v.apart); !v.apart {
		v.sets.fields(c)
	}
}

// small reports whether sets fit into an entry.
func (s *sets) small() bool {
	n := 0
	for i := range s {
		if n += len(s[i].exact); s[i].sketch != nil {
			return false
		}
	}
	return n <= maxInline
}

// certificateEntry is a certificate in its bucket.
type certificateEntry struct {
	Certificate
	counter counter
	number  uint64 // of its DER
	checked bool   // its DER is there
}

func (v *certificateEntry) fields(c *codec) {
	v.Certificate.fields(c)
	c.uint(&v.number)
	v.counter.fields(c)
}

// serverEntry is a server in its bucket.
type serverEntry struct {
	Server
	counter counter

	last  negotiated
	again uint64 // how often last came in a row; but for once, the maps do not have it
}

func (v *serverEntry) fields(c *codec) {
	v.settle()
	v.Server.fields(c)
	v.counter.fields(c)
}

// sightingEntry is a sighting in its bucket.
type sightingEntry struct {
	Sighting
	counter counter
}

func (v *sightingEntry) fields(c *codec) {
	v.Sighting.fields(c)
	v.counter.fields(c)
}
