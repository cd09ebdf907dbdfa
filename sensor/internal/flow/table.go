package flow

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// state is where a flow stands in its life, and the queue that it waits in. A
// flow that is undecided, resting or reset has a reassembly, and no other has
// one.
type state uint8

const (
	embryonic   state = iota // a SYN, no payload
	established              // a SYN and its answer, no payload for long
	undecided                // payload, and the parser wants more
	decided                  // the parser wants no more
	resting                  // the same, of datagrams: the reassembly is kept for the next handshake
	closed                   // FIN both ways; kept for late retransmissions
	reset                    // RST, while undecided: it may be forged, and what comes next tells
	aborted                  // RST, with nothing to decide
	states
)

// String returns the name of s, for tests and messages.
func (s state) String() string {
	return [...]string{"embryonic", "established", "undecided", "decided", "resting", "closed", "reset", "aborted"}[s]
}

// entry is one flow in the table. It has no pointers: what a flow needs while it is
// undecided is in its reassembly. What a packet of a decided flow touches is in the
// first cache line.
type entry struct {
	key        decode.Key
	last       int64  // flow time of the last packet
	chain      uint32 // next in the hash bucket
	reassembly uint32 // its number in Tracker.reassemblies; 0 without one
	serial     uint32 // changes with every use of the slot
	state      state
	since      uint8 // packets since the flow was decided, up to shuntAfter-1
	bits       uint16

	start  int64     // capture time of the first packet
	queued int64     // value of last when it was put at the end of its queue
	base   [2]uint32 // by direction: the sequence number of the first byte
	before uint32    // in the queue
	after  uint32    // in the queue
	shunt  capture.ShuntState
	vlans  [2]decode.VLANs // by direction: what tells the VLANs from others, and vlansKnown
	rival  uint32          // what base[1] is by another answer to the SYN
	order  uint32          // flows are numbered in the order in which they were opened
	forged event.Forged    // what was wrong with packets of the flow

	hash uint32 // the low bits of key.Hash()
}

// entrySize is two cache lines.
const entrySize = 128

// Bits of an entry.
const (
	fromHigh  = 1 << iota // direction 0 is sent by the High end of the key
	baseKnown             // base[0] is known from a SYN; << 1 for direction 1
	_
	baseGuess // base[0] is what the other side acknowledged first; << 1 for direction 1
	_
	hadPayload // there was payload
	verified   // direction 0 has sent a good checksum; << 1 for direction 1
	_
	unverified // direction 0 has sent a bad one before a good one; << 1 for direction 1
	_
	rivalKnown // rival is set
	twin       // there are others on the same five-tuple
	tagged     // a direction has VLAN tags
	unsigned   // direction 0 has sent a segment without a signature; << 1 for direction 1
	_
)

// vlansKnown is set in entry.vlans where the direction was seen.
const vlansKnown = 1 << 31

// answered reports whether the SYN and the answer to it were seen.
func (e *entry) answered() bool {
	const both = baseKnown<<0 | baseKnown<<1
	return e.bits&both == both
}

// tag notes the VLAN tags of direction d.
func (e *entry) tag(d event.Direction, vlans decode.VLANs) {
	if e.vlans[d] == vlans|vlansKnown {
		return
	}
	e.vlans[d] = vlans | vlansKnown
	if vlans != 0 {
		e.bits |= tagged
	}
}

// contradicts reports whether direction d of the flow has other tags.
func (e *entry) contradicts(d event.Direction, vlans decode.VLANs) bool {
	return e.vlans[d]&vlansKnown != 0 && e.vlans[d] != vlans|vlansKnown
}

// differs reports whether the other direction has other tags: one flow may have
// different ones, where its directions are mirrored at different places.
func (e *entry) differs(d event.Direction, vlans decode.VLANs) bool {
	o := e.vlans[d.Other()]
	return e.vlans[d]&vlansKnown == 0 && o&vlansKnown != 0 && o != vlans|vlansKnown
}

// sameTags reports whether the directions have the same tags, as far as they
// were seen.
func (e *entry) sameTags() bool {
	a, b := e.vlans[0], e.vlans[1]
	return a == b || a == 0 || b == 0
}

// queue is a list of entries through before and after, the oldest first.
type queue struct {
	head, tail uint32
	length     int
}

// table is a hash table of flows with chaining through numbered slots. Slots
// come in chunks, so that growth copies nothing. Slot 0 stays unused: 0 is no flow.
type table struct {
	buckets []uint32
	chunks  []*[chunkSlots]entry
	used    uint32 // slots ever used, and slot 0
	free    uint32
	length  int
	opened  uint32 // flows so far; goes round
	queues  [states]queue
}

func newTable() table {
	return table{buckets: make([]uint32, 256), used: 1}
}

const (
	chunkBits  = 8
	chunkSlots = 1 << chunkBits
)

// at returns the entry in a slot.
func (t *table) at(i uint32) *entry { return &t.chunks[i>>chunkBits][i&(chunkSlots-1)] }

// bucket returns where the chain of the keys with a hash begins.
func (t *table) bucket(hash uint32) *uint32 {
	return &t.buckets[hash&uint32(len(t.buckets)-1)]
}

// find returns the slot of a flow, 0 when there is none. Where several have the
// key, [table.next] finds the others.
func (t *table) find(k *decode.Key, hash uint32) uint32 {
	i := *t.bucket(hash)
	for i != 0 && t.at(i).key != *k {
		i = t.at(i).chain
	}
	return i
}

// next returns the slot of another flow with the same key as that in slot i, 0
// when there are no more.
func (t *table) next(i uint32) uint32 {
	k := &t.at(i).key
	i = t.at(i).chain
	for i != 0 && t.at(i).key != *k {
		i = t.at(i).chain
	}
	return i
}

// insert makes a slot for a flow.
func (t *table) insert(k *decode.Key, hash uint32, now int64) uint32 {
	if t.length >= len(t.buckets) {
		t.grow()
	}
	i := t.free
	if i != 0 {
		t.free = t.at(i).chain
	} else {
		i = t.used
		t.used++
		if int(i>>chunkBits) == len(t.chunks) {
			t.chunks = append(t.chunks, new([chunkSlots]entry))
		}
	}
	b := t.bucket(hash)
	e := t.at(i)
	t.opened++
	*e = entry{key: *k, hash: hash, last: now, chain: *b, serial: e.serial + 1, order: t.opened}
	*b = i
	t.length++
	t.push(i, embryonic)
	return i
}

func (t *table) grow() {
	t.buckets = make([]uint32, 2*len(t.buckets))
	for c := range t.queues {
		for i := t.queues[c].head; i != 0; i = t.at(i).after {
			b := t.bucket(t.at(i).hash)
			t.at(i).chain = *b
			*b = i
		}
	}
}

// remove takes a flow out of the table and its queue.
func (t *table) remove(i uint32) {
	e := t.at(i)
	t.unlink(i)
	at := t.bucket(e.hash)
	for *at != i {
		at = &t.at(*at).chain
	}
	*at = e.chain
	e.chain = t.free
	e.serial++
	t.free = i
	t.length--
}

// push puts a flow at the end of the queue of a state.
func (t *table) push(i uint32, s state) {
	e, q := t.at(i), &t.queues[s]
	e.state, e.queued, e.before, e.after = s, e.last, q.tail, 0
	if q.tail != 0 {
		t.at(q.tail).after = i
	} else {
		q.head = i
	}
	q.tail = i
	q.length++
}

func (t *table) unlink(i uint32) {
	e := t.at(i)
	q := &t.queues[e.state]
	if e.before != 0 {
		t.at(e.before).after = e.after
	} else {
		q.head = e.after
	}
	if e.after != 0 {
		t.at(e.after).before = e.before
	} else {
		q.tail = e.before
	}
	q.length--
}

// move puts a flow at the end of another queue, or of its own.
func (t *table) move(i uint32, s state) {
	t.unlink(i)
	t.push(i, s)
}

// expired returns a flow of state s whose last packet came earlier than before, 0
// when there is none. A flow at the head of the queue goes back to its end where
// packets have come since it was queued. So a packet of a flow does not touch the
// neighbours of the flow in the queue.
func (t *table) expired(s state, before int64) uint32 {
	for {
		i := t.queues[s].head
		if i == 0 {
			return 0
		}
		switch e := t.at(i); {
		case e.queued >= before:
			return 0
		case e.last < before:
			return i
		default:
			t.move(i, s)
		}
	}
}
