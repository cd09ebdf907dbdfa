package memory

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
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

func compareValues(a, b value) int {
	if a.kind != b.kind {
		return int(a.kind) - int(b.kind)
	}
	return bytes.Compare(a.sum[:], b.sum[:])
}

// key is one key of servers, with who showed and saw it within the window.
type key struct {
	sum    sum
	serial uint64  // no other key has it
	values []value // sorted, without those that are over at day
	counts [kinds]uint16
	day    uint32 // the number of the last day when the key was seen

	shared        bool // the queue that it is in
	touched       bool // it was seen since it was put there
	before, after uint32
}

// keys has the keys of servers. It is bounded by number and by bytes. Keys that
// several servers show have half of the room for themselves, since they are what is
// looked for, and they are harder to make up. Of the others, and within that half, the
// key goes first that was not seen for longest.
type keys struct {
	index  map[sum]uint32
	slots  []key // slot 0 stays unused
	free   []uint32
	queues [2]queue // of keys that one server shows, and of those that several do
	serial uint64

	// known has what was counted lately: tags of key, server, client, name and day. It
	// spares look-ups and decides nothing, so it does not matter that the seeds
	// differ from run to run, nor what is overwritten.
	known []line
	seeds [2]maphash.Seed
	buf   []byte

	added, ended, forgotten uint64
	uncounted               uint64
}

// tag stands for what was counted, and line for four of them, the last that came
// first: as many as the processor fetches at once.
type (
	tag  [2]uint64
	line [4]tag
)

const (
	knownLines = 1 << 15 // of 64 bytes
	fewest     = 4       // values that a key has room for at first
)

// queue is a list of keys through before and after, the one that was put there first
// at its head.
type queue struct {
	head, tail uint32
	length     int
	bytes      int // of the values
}

func newKeys() keys {
	return keys{
		index: map[sum]uint32{}, slots: make([]key, 1),
		known: make([]line, knownLines), seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
}

// reset forgets all keys, which are over.
func (k *keys) reset() {
	if len(k.index) == 0 {
		return
	}
	k.ended += uint64(len(k.index))
	// What is in known has serials that do not come again.
	k.index, k.slots, k.free, k.queues = map[sum]uint32{}, make([]key, 1), nil, [2]queue{}
}

// see notes that server showed the key s to client, which asked for name, on the day
// of a number. It returns how many servers, clients and names the key has.
func (k *keys) see(s, server, client sum, name string, day uint32) (counts [kinds]uint16) {
	i, ok := k.index[s]
	if !ok {
		i = k.insert(s, day)
	}
	e := &k.slots[i]
	e.touched = ok
	if e.day != day {
		k.expire(i, day)
	}
	if len(name) > maxName {
		name = ""
	}
	b := binary.LittleEndian.AppendUint64(k.buf[:0], e.serial)
	b = binary.LittleEndian.AppendUint32(b, day)
	b = append(b, server[:]...)
	b = append(b, client[:]...)
	b = append(b, name...)
	k.buf = b
	t := tag{maphash.Bytes(k.seeds[0], b), maphash.Bytes(k.seeds[1], b)}
	if known := &k.known[t[0]%knownLines]; known[0] != t && known[1] != t && known[2] != t && known[3] != t {
		known[0], known[1], known[2], known[3] = t, known[0], known[1], known[2]
		k.count(i, value{servers, server, uint8(day)})
		k.count(i, value{clients, client, uint8(day)})
		if name != "" {
			k.count(i, value{names, nameSum(name), uint8(day)})
		}
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

// count notes a value of the key in a slot.
func (k *keys) count(i uint32, v value) {
	e := &k.slots[i]
	at, found := slices.BinarySearchFunc(e.values, v, compareValues)
	switch {
	case found:
		e.values[at].seen = v.seen
		return
	case e.counts[v.kind] == maxValues:
		k.uncounted++
		return
	case len(e.values) == cap(e.values):
		k.resize(e, max(fewest, 2*cap(e.values)))
	}
	e.values = slices.Insert(e.values, at, v)
	e.counts[v.kind]++
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
	e.counts = [kinds]uint16{}
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
	if len(k.index) >= maxKeys {
		k.evict(0)
	}
	if n := len(k.free); n > 0 {
		i = k.free[n-1]
		k.free = k.free[:n-1]
	} else {
		i = uint32(len(k.slots))
		k.slots = append(k.slots, key{})
	}
	k.serial++
	k.added++
	k.slots[i] = key{sum: s, serial: k.serial, day: day}
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
	for k.queues[0].bytes+k.queues[1].bytes > maxValueBytes {
		k.evict(keep)
	}
}

// evict forgets a key, but not that in slot keep.
func (k *keys) evict(keep uint32) {
	q := &k.queues[0]
	if s := &k.queues[1]; s.length > maxKeys/2 || s.bytes > maxValueBytes/2 || q.length == 0 || q.head == keep && q.length == 1 {
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
