package decode

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// MessageStats counts the fragments of user messages of SCTP: Fragments is the
// sum of Reassembled, Held, Repeated, Evicted and Cut.
type MessageStats struct {
	Messages    uint64 `json:"total"`       // whole, of one chunk or of several
	Fragments   uint64 `json:"fragments"`   // chunks that hold a part of one
	Reassembled uint64 `json:"reassembled"` // part of a message that was whole
	Held        uint64 `json:"held"`        // waiting now
	Repeated    uint64 `json:"repeated"`    // with a number that is held already
	Evicted     uint64 `json:"evicted"`     // gave way to others
	Cut         uint64 `json:"cut"`         // by the snaplen
}

// Add adds o to s.
func (s *MessageStats) Add(o MessageStats) {
	s.Messages += o.Messages
	s.Fragments += o.Fragments
	s.Reassembled += o.Reassembled
	s.Held += o.Held
	s.Repeated += o.Repeated
	s.Evicted += o.Evicted
	s.Cut += o.Cut
}

// messages puts user messages of SCTP together (RFC 9260, section 6.9): their
// fragments have consecutive transmission sequence numbers. The oldest fragments
// give way.
type messages struct {
	held map[chunkKey]uint64 // the number of each
	ring [limitChunks]chunk  // by their numbers
	// The numbers of the oldest that may be there, and of the next.
	first, next uint64
	bytes       int
	stats       MessageStats
}

// chunkKey is one direction of an association, and a sequence number in it.
type chunkKey struct {
	src0, src1, dst0, dst1 uint64
	ports, vlan, tsn       uint32
	tags                   uint8
	v6                     bool
}

// chunk is a fragment of a user message.
type chunk struct {
	key        chunkKey
	stream     uint16
	begin, end bool
	data       []byte // nil where the place is free
}

// sctp reads an SCTP packet (RFC 9260, section 3) up to the first chunk that makes
// a user message whole. DTLS puts its records in them (RFC 6083). size is the
// length on the wire of what begins at b.
func (d *Decoder) sctp(b []byte, size int, p *Packet) Class {
	const header = 12
	if len(b) < header {
		return d.malformed(truncatedSCTP)
	}
	p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	p.Seq, p.Ack, p.Flags = 0, 0, 0
	p.segment = nil
	return d.userMessage(b[header:], size-header, p)
}

// userMessage reads chunks up to the first that makes a user message whole, and
// leaves the others to Next.
func (d *Decoder) userMessage(b []byte, size int, p *Packet) Class {
	const typeData, typeIData, dataHeader, last, first = 0, 64, 16, 1, 2
	c := d.carries(ofIP | protoSCTP)
	for len(b) >= 4 {
		kind, flags, length := b[0], b[1], int(binary.BigEndian.Uint16(b[2:]))
		if length < 4 || length > size {
			return d.malformed(badSCTPChunk)
		}
		chunk := b[:min(length, len(b))]
		padded := min((length+3)&^3, size)
		b, size = b[min(padded, len(b)):], size-padded
		switch kind {
		case typeData:
		case typeIData: // RFC 8260
			c = d.carries(ofSCTP | typeIData)
			continue
		default:
			continue
		}
		if len(chunk) <= dataHeader {
			if length > dataHeader {
				continue // cut
			}
			return d.malformed(badSCTPChunk)
		}
		data := chunk[dataHeader:]
		cut := length - len(chunk)
		if d.messages == nil {
			d.messages = &messages{held: map[chunkKey]uint64{}}
		}
		if flags&(first|last) == first|last {
			d.messages.stats.Messages++
		} else {
			data = d.messages.add(p, chunk, flags&first != 0, flags&last != 0, cut)
			if cut = 0; data == nil {
				c = Fragment
				continue
			}
		}
		p.Payload, p.Missing = data, cut
		if len(b) > dataHeader {
			d.chunks, d.chunksSize, d.bundle = b, size, *p
		}
		return Message
	}
	return c
}

// nextMessage reads the next user message of a packet with several.
func (d *Decoder) nextMessage(p *Packet) bool {
	b := d.chunks
	d.chunks = nil
	*p = d.bundle
	if d.userMessage(b, d.chunksSize, p) != Message {
		return false
	}
	d.finish(p, Message)
	return true
}

// add takes a fragment, a whole DATA chunk, and returns the message that it makes
// whole, in memory of its own.
func (m *messages) add(p *Packet, b []byte, begin, end bool, cut int) []byte {
	m.stats.Fragments++
	if cut > 0 {
		m.stats.Cut++
		return nil
	}
	key := chunkKey{p.src0, p.src1, p.dst0, p.dst1, uint32(p.SrcPort)<<16 | uint32(p.DstPort), p.vlan, binary.BigEndian.Uint32(b[4:]), p.tags, p.v6}
	if _, ok := m.held[key]; ok {
		m.stats.Repeated++
		return nil
	}
	m.put(chunk{key, binary.BigEndian.Uint16(b[8:]), begin, end, bytes.Clone(b[16:])})
	return m.whole(key)
}

// put holds c, and makes room for it.
func (m *messages) put(c chunk) {
	m.ring[m.next%limitChunks] = c
	m.held[c.key] = m.next
	m.bytes += cap(c.data)
	m.stats.Held++
	m.next++
	for m.bytes > limitChunkBytes || m.next-m.first == limitChunks {
		m.free(m.first, &m.stats.Evicted)
		m.first++
	}
}

// free empties the place of a chunk, and counts what was there.
func (m *messages) free(n uint64, as *uint64) {
	c := &m.ring[n%limitChunks]
	if c.data == nil {
		return
	}
	delete(m.held, c.key)
	m.bytes -= cap(c.data)
	m.stats.Held--
	*as++
	*c = chunk{}
}

// reset forgets all fragments.
func (m *messages) reset() {
	for ; m.first != m.next; m.first++ {
		m.free(m.first, &m.stats.Evicted)
	}
}

// whole returns the message of which the chunk with that key is a part, nil while
// others are missing.
func (m *messages) whole(key chunkKey) []byte {
	stream := m.ring[m.held[key]%limitChunks].stream
	step := func(tsn uint32, by int) (n int, ok bool) { // to the end of the message
		for ; n < limitMessage; n++ {
			k := key
			k.tsn = tsn + uint32(n*by)
			i, found := m.held[k]
			c := &m.ring[i%limitChunks]
			if !found || c.stream != stream {
				return n, false
			}
			if by > 0 && c.end || by < 0 && c.begin {
				return n, true
			}
		}
		return n, false
	}
	after, ok := step(key.tsn, 1)
	if !ok {
		return nil
	}
	before, ok := step(key.tsn, -1)
	if !ok || before+after >= limitMessage {
		return nil
	}
	var whole []byte
	key.tsn -= uint32(before)
	for range before + after + 1 {
		i := m.held[key]
		whole = append(whole, m.ring[i%limitChunks].data...)
		m.free(i, &m.stats.Reassembled)
		key.tsn++
	}
	m.stats.Messages++
	return whole
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// plausibleSCTP reports whether b is a whole SCTP packet with the checksum of RFC
// 9260, appendix A.
func plausibleSCTP(b []byte, missing int) bool {
	if len(b) < 16 || missing > 0 {
		return false
	}
	sum := crc32.Update(0, castagnoli, b[:8])
	sum = crc32.Update(sum, castagnoli, []byte{0, 0, 0, 0})
	return crc32.Update(sum, castagnoli, b[12:]) == binary.LittleEndian.Uint32(b[8:])
}
