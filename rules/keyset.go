package rules

import (
	"bytes"
	"hash/maphash"
	"math/bits"
)

// keySet is a compact set of byte strings, numbered from 0 in the order added.
// A million SHA-256 take 48 MiB.
type keySet struct {
	slots []uint64 // high half: that of the hash; low half: number of the key plus one, 0 when free
	shift uint8    // of a hash, to have its slot: the slots are in the order of the hashes
	bytes []byte   // the keys, end to end
	ends  []uint64 // where each ends, once they differ in length
	size  int      // the length of all, until they differ
	n     int
}

// keySeed is random for each process, so that nobody can make keys collide.
var keySeed = maphash.MakeSeed()

func (s *keySet) key(i int) []byte {
	if s.ends == nil {
		return s.bytes[i*s.size : (i+1)*s.size]
	}
	start := uint64(0)
	if i > 0 {
		start = s.ends[i-1]
	}
	return s.bytes[start:s.ends[i]]
}

// find returns the number of key, or -1 when it is not in the set.
func (s *keySet) find(key []byte) int { return s.findHash(key, maphash.Bytes(keySeed, key)) }

func (s *keySet) findHash(key []byte, h uint64) int {
	if s.n == 0 {
		return -1
	}
	mask := uint64(len(s.slots) - 1)
	for i := h >> s.shift; ; i = (i + 1) & mask {
		slot := s.slots[i]
		if slot == 0 {
			return -1
		}
		if slot>>32 == h>>32 {
			if n := int(uint32(slot)) - 1; bytes.Equal(s.key(n), key) {
				return n
			}
		}
	}
}

// add returns the number of key, after adding it if it was not in the set.
func (s *keySet) add(key []byte) (n int, added bool) {
	h := maphash.Bytes(keySeed, key)
	if n := s.findHash(key, h); n >= 0 {
		return n, false
	}
	if 4*(s.n+1) > 3*len(s.slots) {
		s.grow()
	}
	if s.n == 0 {
		s.size = len(key)
	} else if s.ends == nil && len(key) != s.size {
		s.ends = make([]uint64, s.n)
		for i := range s.ends {
			s.ends[i] = uint64((i + 1) * s.size)
		}
	}
	s.bytes = append(s.bytes, key...)
	if s.ends != nil {
		s.ends = append(s.ends, uint64(len(s.bytes)))
	}
	s.n++
	s.place(h>>32<<32 | uint64(s.n))
	return s.n - 1, true
}

// place puts the value of a slot into a free slot for its hash.
func (s *keySet) place(slot uint64) {
	mask := uint64(len(s.slots) - 1)
	i := slot >> s.shift
	for s.slots[i] != 0 {
		i = (i + 1) & mask
	}
	s.slots[i] = slot
}

// grow doubles the slots. The slots are in the order of the hashes, so they are
// moved nearly in order.
func (s *keySet) grow() {
	old := s.slots
	s.slots = make([]uint64, max(8, 2*len(old)))
	s.shift = uint8(64 - bits.Len(uint(len(s.slots)-1)))
	for _, slot := range old {
		if slot != 0 {
			s.place(slot)
		}
	}
}
