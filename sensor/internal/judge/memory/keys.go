package memory

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
)

// sum is an address or the first half of a SHA-256: enough to tell things apart, also
// for somebody who tries to make them alike.
type sum [16]byte

// kind is what is counted of a key.
type kind uint8

const (
	servers kind = iota
	clients
	names
	kinds
)

// value is one server, client or name of a key.
type value struct {
	kind kind
	sum  sum
	seen uint8 // the number of the last day when it was seen, modulo 256
}

// valueSize is the bytes of a value.
const valueSize = 18

// order is where a value is among the others, but for those of which only the rest
// of the sum differs.
func (v *value) order() (kind, uint64) { return v.kind, binary.BigEndian.Uint64(v.sum[:]) }

// find returns where a value is, or would be, in sorted values.
func find(values []value, v *value) (at int, found bool) {
	of, want := v.order()
	low, high := 0, len(values)
	for low < high {
		middle := int(uint(low+high) >> 1)
		m := &values[middle]
		k, o := m.order()
		if k < of || k == of && (o < want || o == want && bytes.Compare(m.sum[8:], v.sum[8:]) < 0) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, low < len(values) && values[low].kind == v.kind && values[low].sum == v.sum
}

// key is one key of servers, with who showed and saw it within the window.
type key struct {
	sum    sum
	values []value // sorted, without those that are over at day
	counts [kinds]uint16
	fresh  [kinds]uint16 // of these, seen on the last day
	day    uint32        // the number of the last day when the key was seen

	shared        bool // the queue that it is in
	touched       bool // it was seen since it was put there
	before, after uint32
}

// keys has the keys of servers. It is bounded by number and by bytes. Keys that
// several servers show have half of the room for themselves, since they are what is
// looked for, and they are harder to make up. Of the others, and within that half, the
// key goes first that was not seen for longest.
type keys struct {
	most, bytes int // of keys, and of their values

	index  map[sum]uint32
	slots  []key // slot 0 stays unused
	free   []uint32
	queues [2]queue // of keys that one server shows, and of those that several do

	added, ended, forgotten uint64
	full                    uint64
}

// fewest is how many values a key has room for at first.
const fewest = 4

// queue is a list of keys through before and after, the one that was put there first
// at its head.
type queue struct {
	head, tail uint32
	length     int
	bytes      int // of the values
}

func newKeys(most, bytes int) keys {
	return keys{
		most: most, bytes: bytes,
		index: map[sum]uint32{}, slots: make([]key, 1),
	}
}

// reset forgets all keys, which are over.
func (k *keys) reset() {
	if len(k.index) == 0 {
		return
	}
	k.ended += uint64(len(k.index))
	k.index, k.slots, k.free, k.queues = map[sum]uint32{}, make([]key, 1), nil, [2]queue{}
}

// slot returns where the key s is, which it inserts where it is new. Its values are those
// that count on the day of a number.
func (k *keys) slot(s sum, day uint32) uint32 {
	i, ok := k.index[s]
	if !ok {
		i = k.insert(s, day)
	}
	e := &k.slots[i]
	e.touched = ok
	if e.day != day {
		k.expire(i, day)
	}
	return i
}

// see notes that server showed the key s to client, which asked for name, on the day
// of a number. It returns how many servers, clients and names the key has.
func (k *keys) see(s, server, client sum, name string, day uint32) (counts [kinds]uint16) {
	i := k.slot(s, day)
	e := &k.slots[i]
	if len(name) > maxName {
		name = ""
	}
	grown := k.count(i, value{servers, server, uint8(day)})
	grown = k.count(i, value{clients, client, uint8(day)}) || grown
	if name != "" && e.fresh[names] < maxValues {
		grown = k.count(i, value{names, nameSum(name), uint8(day)}) || grown
	}
	if grown {
		k.requeue(i)
		k.bound(i)
	}
	return e.counts
}

// nameSum stands for a name. Names are the same in either case (RFC 4343).
func nameSum(name string) sum {
	all := sha256.Sum256([]byte(strings.ToLower(name)))
	return sum(all[:16])
}

// count notes a value of the key in a slot, and reports whether it is new.
func (k *keys) count(i uint32, v value) (grown bool) {
	e := &k.slots[i]
	if e.fresh[v.kind] == maxValues {
		return false // all of them were seen today: there is nothing to note
	}
	at, found := find(e.values, &v)
	switch {
	case found:
		if e.values[at].seen != v.seen {
			e.values[at].seen = v.seen
			e.fresh[v.kind]++
		}
		return false
	case e.counts[v.kind] == maxValues:
		return false
	case len(e.values) == cap(e.values):
		k.resize(e, max(fewest, 2*cap(e.values)))
	}
	e.values = slices.Insert(e.values, at, v)
	e.counts[v.kind]++
	e.fresh[v.kind]++
	if e.counts[v.kind] == maxValues {
		k.full++
	}
	return true
}

// resize gives the values of e room for n.
func (k *keys) resize(e *key, n int) {
	k.queueOf(e).bytes += (n - cap(e.values)) * valueSize
	e.values = append(make([]value, 0, n), e.values...)
}

// expire takes away the values that are over on a day.
func (k *keys) expire(i, day uint32) {
	e := &k.slots[i]
	if day-e.day >= window {
		// It is another key, as far as anybody remembers.
		k.ended++
		k.added++
		e.values = e.values[:0]
	}
	// The others were seen at most window-1 days before e.day.
	e.values = slices.DeleteFunc(e.values, func(v value) bool { return uint8(day)-v.seen >= window })
	e.counts, e.fresh = [kinds]uint16{}, [kinds]uint16{}
	for _, v := range e.values {
		e.counts[v.kind]++
	}
	if n := max(fewest, 2*len(e.values)); n < cap(e.values)/2 {
		k.resize(e, n)
	}
	e.day = day
}

func (k *keys) queueOf(e *key) *queue {
	if e.shared {
		return &k.queues[1]
	}
	return &k.queues[0]
}

// insert makes a slot for a key.
func (k *keys) insert(s sum, day uint32) (i uint32) {
	if len(k.index) >= k.most {
		k.evict(0)
	}
	if n := len(k.free); n > 0 {
		i = k.free[n-1]
		k.free = k.free[:n-1]
	} else {
		i = uint32(len(k.slots))
		k.slots = append(k.slots, key{})
	}
	k.added++
	k.slots[i] = key{sum: s, day: day}
	k.index[s] = i
	k.push(i)
	return i
}

// requeue moves a key to the queue where it belongs, if that is another one.
func (k *keys) requeue(i uint32) {
	e := &k.slots[i]
	if shared := e.counts[servers] > 1; shared != e.shared {
		k.unlink(i)
		e.shared = shared
		k.push(i)
	}
}

// bound makes room after the key in slot keep has grown.
func (k *keys) bound(keep uint32) {
	for k.queues[0].bytes+k.queues[1].bytes > k.bytes {
		k.evict(keep)
	}
}

// evict forgets a key, but not that in slot keep.
func (k *keys) evict(keep uint32) {
	q := &k.queues[0]
	if s := &k.queues[1]; s.length > k.most/2 || s.bytes > k.bytes/2 || q.length == 0 || q.head == keep && q.length == 1 {
		q = s
	}
	for {
		i := q.head
		e := &k.slots[i]
		if e.touched || i == keep {
			e.touched = false
			k.unlink(i)
			k.push(i)
			continue
		}
		k.unlink(i)
		delete(k.index, e.sum)
		*e = key{}
		k.free = append(k.free, i)
		k.forgotten++
		return
	}
}

// push puts a key at the end of its queue.
func (k *keys) push(i uint32) {
	e := &k.slots[i]
	q := k.queueOf(e)
	e.before, e.after = q.tail, 0
	if q.tail != 0 {
		k.slots[q.tail].after = i
	} else {
		q.head = i
	}
	q.tail = i
	q.length++
	q.bytes += cap(e.values) * valueSize
}

// unlink takes a key out of its queue.
func (k *keys) unlink(i uint32) {
	e := &k.slots[i]
	q := k.queueOf(e)
	if e.before != 0 {
		k.slots[e.before].after = e.after
	} else {
		q.head = e.after
	}
	if e.after != 0 {
		k.slots[e.after].before = e.before
	} else {
		q.tail = e.before
	}
	q.length--
	q.bytes -= cap(e.values) * valueSize
}
