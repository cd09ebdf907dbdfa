package inventory

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// meeting is what one handshake adds to the contact of its client and its server. It has
// no pointers, so that the garbage collector has nothing to look at: with many clients
// there are as many meetings as handshakes.
type meeting struct {
	key        int // where the key of the contact begins in meetings.keys
	keySize    uint16
	clientSize uint8  // of the key, what names the client
	fresh      bool   // the handshake was not counted before
	port       uint16 // of the client
	origin     uint32 // in meetings.origins
	alerts     uint32
	frame      uint64
	time       int64
	leaf       Hash // zero for none
}

// meetingCost is what a meeting takes beside its key, with its place in the order.
const meetingCost = 128

// origin is where a handshake was captured.
type origin struct{ path, iface string }

// meetings are those that wait to be written, as they came. The contacts are read, changed
// and written when a transaction is made, in the order of their keys: mostly, a client
// that was never seen before is not seen again, and looking for it as it comes would
// find nothing, at a place of the file where nobody has been.
type meetings struct {
	list    []meeting
	keys    []byte
	origins []origin
	numbers map[origin]uint32 // in origins
}

// add adds the meeting of an observation; server and client are as in keys. It returns how
// many bytes it takes.
func (m *meetings) add(o *observation, client, server []byte, fresh bool, alerts uint64) int {
	from := origin{o.at.Path, o.at.Interface}
	n := uint32(len(m.origins)) - 1
	if len(m.origins) == 0 || m.origins[n] != from {
		var ok bool
		if n, ok = m.numbers[from]; !ok {
			if m.numbers == nil {
				m.numbers = map[origin]uint32{}
			}
			n = uint32(len(m.origins))
			m.origins, m.numbers[from] = append(m.origins, from), n
		}
	}
	m.list = append(m.list, meeting{key: len(m.keys), keySize: uint16(len(client) + len(server)), clientSize: uint8(len(client)), fresh: fresh,
		port: o.at.Flow.Client.Port(), origin: n, alerts: uint32(alerts), frame: o.at.Frame, time: o.at.Time, leaf: o.leaf})
	m.keys = append(append(m.keys, client...), server...)
	return meetingCost + len(client) + len(server)
}

// bytes is the sum of what add has returned.
func (m *meetings) bytes() int { return meetingCost*len(m.list) + len(m.keys) }

// reset forgets all, and keeps the memory.
func (m *meetings) reset() {
	m.list, m.keys, m.origins = m.list[:0], m.keys[:0], m.origins[:0]
	clear(m.numbers)
}

func (m *meetings) keyOf(v *meeting) []byte { return m.keys[v.key : v.key+int(v.keySize)] }

// place is where the handshake of a meeting was seen. The contact says who met.
func (m *meetings) place(v *meeting, c *Contact) Place {
	from := &m.origins[v.origin]
	return Place{Time: v.time, Frame: v.frame, Path: from.path, Interface: from.iface, Flow: Flow{Transport: c.Server.Transport,
		Client: netip.AddrPortFrom(c.Client, v.port), Server: netip.AddrPortFrom(c.Server.Address, c.Server.Port)}}
}

// apply adds a meeting to its contact, which is new if fresh.
func (m *meetings) apply(v *meeting, c *Contact, fresh bool) {
	if fresh || v.fresh {
		at := m.place(v, c)
		c.First.widen(&c.Last, &at, fresh)
	}
	if v.fresh {
		c.Handshakes++
	}
	c.Alerts += uint64(v.alerts)
	if v.leaf != (Hash{}) {
		c.Certificate = v.leaf
		if len(c.Certificates) < MaxNames && !slices.Contains(c.Certificates, v.leaf) {
			c.Certificates = append(c.Certificates, v.leaf)
		}
	}
}

// ordered is an element of a list that is sorted by keys: its number, and the beginning of
// its key, which mostly decides.
type ordered struct {
	begin uint64
	n     uint32
}

// inOrder are the numbers of n elements in the order of their keys, and those of one key
// in their own.
func inOrder(n int, key func(int) []byte) []ordered {
	list := make([]ordered, n)
	for i := range list {
		var begin [8]byte
		copy(begin[:], key(i))
		list[i] = ordered{binary.BigEndian.Uint64(begin[:]), uint32(i)}
	}
	slices.SortFunc(list, func(a, b ordered) int {
		if a.begin != b.begin {
			return cmp.Compare(a.begin, b.begin)
		}
		return cmp.Or(bytes.Compare(key(int(a.n)), key(int(b.n))), cmp.Compare(a.n, b.n))
	})
	return list
}

// meetings writes the contacts of meetings, and returns how many of them are new.
func (w *writer) meetings(m *meetings, bad func(bucket, []byte)) (fresh uint64, err error) {
	order := inOrder(len(m.list), func(i int) []byte { return m.keyOf(&m.list[i]) })
	to := w.bucket(contacts)
	var index []*meeting // one of each contact that is new
	var c Contact
	var leaves []Hash // memory for those of a new one
	for len(order) > 0 {
		first := &m.list[order[0].n]
		key := m.keyOf(first)
		value := to.Get(key)
		isNew := value == nil
		if !isNew {
			data, _, ok := unseal(contacts, key, value)
			c = Contact{}
			if isNew = !ok || !decode(data, c.fields); isNew {
				bad(contacts, key)
			}
		}
		if isNew {
			fresh++
			index = append(index, first)
			c = Contact{Certificates: leaves[:0]}
			c.Client, c.Server = parseContact(key)
		}
		for i := 0; len(order) > 0; i++ {
			v := &m.list[order[0].n]
			if v != first && !bytes.Equal(m.keyOf(v), key) {
				break
			}
			m.apply(v, &c, isNew && i == 0)
			order = order[1:]
		}
		if isNew {
			leaves = c.Certificates
		}
		if err := w.put(contacts, key, &c); err != nil {
			return 0, err
		}
	}
	var keys []byte
	ends := make([]int, 1, len(index)+1)
	for _, v := range index {
		key := m.keyOf(v)
		keys = append(append(keys, key[v.clientSize:]...), key[:v.clientSize]...)
		ends = append(ends, len(keys))
	}
	metKey := func(i int) []byte { return keys[ends[i]:ends[i+1]] }
	for _, o := range inOrder(len(index), metKey) {
		if err := w.bucket(met).Put(metKey(int(o.n)), nil); err != nil {
			return 0, err
		}
	}
	return fresh, nil
}
