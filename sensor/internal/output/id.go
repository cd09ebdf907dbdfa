package output

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
)

// Stamp is what an [Output] needs of a record beside its bytes.
type Stamp struct {
	ID   [32]byte // event.id, lower-case hex digits
	Time int64    // @timestamp, nanoseconds since the Unix epoch, UTC
}

// Record makes a record of s and of the bytes that were appended with it.
func (s Stamp) Record(d Dataset, json []byte) Record {
	return Record{Dataset: d, ID: string(s.ID[:]), Time: s.Time, JSON: json}
}

// eventID returns the hour of a time in eight hex digits, so that ids of one hour
// lie together in an index, and 24 digits of the SHA-256 of what makes the
// event.
func eventID(t int64, event []byte) (id [32]byte) {
	hour := t / 3600e9
	if t%3600e9 < 0 {
		hour--
	}
	var raw [16]byte
	binary.BigEndian.PutUint32(raw[:], uint32(hour))
	sum := sha256.Sum256(event)
	copy(raw[4:], sum[:])
	hex.Encode(id[:], raw[:])
	return id
}

// day is the length of a day in nanoseconds.
const day = int64(24 * time.Hour)

// dayOf returns the number of the day (UTC) that t is on, 0 for 1 January 1970.
func dayOf(t int64) int64 {
	n := t / day
	if t%day < 0 {
		n--
	}
	return n
}

// dayStamp is the stamp of what is told once a day: its id begins with the first
// hour of the day, and is the same whenever it is told on that day.
func (e *Encoder) dayStamp(t int64) Stamp {
	n := dayOf(t)
	e.event = binary.BigEndian.AppendUint64(e.event, uint64(n))
	return Stamp{eventID(n*day, e.event), t}
}

// appendServer appends the address, port and transport of the server of h, and the
// name that the client asks for.
func appendServer(b []byte, h *event.Handshake) []byte {
	name := ""
	if h.ClientHello != nil {
		name = h.ClientHello.ServerName
	}
	return appendNamedServer(b, &h.Flow.Endpoints[h.Client.Other()], h.Flow.Transport, name)
}

func appendNamedServer(b []byte, server *event.Endpoint, transport event.Transport, name string) []byte {
	a := host(server)
	b = append(b, a[:]...)
	b = binary.BigEndian.AppendUint16(b, server.Port)
	b = append(b, byte(transport))
	return appendCounted(b, name)
}

// appendFlowKey appends what distinguishes f from other flows: five-tuple (or the
// MAC addresses where there is no IP), VLANs and the time of the first packet.
func appendFlowKey(b []byte, f *event.Flow) []byte {
	b = append(b, byte(f.Transport), f.VLANCount)
	for _, e := range &f.Endpoints {
		a := host(&e)
		b = append(b, a[:]...)
		b = binary.BigEndian.AppendUint16(b, e.Port)
	}
	for _, v := range f.VLANs[:min(int(f.VLANCount), len(f.VLANs))] {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return binary.BigEndian.AppendUint64(b, uint64(f.Start))
}

// host returns the address of e in 16 bytes: its MAC address where it has no other.
func host(e *event.Endpoint) [16]byte {
	a := e.Addr.As16()
	if !e.Addr.IsValid() {
		copy(a[:], e.MAC[:])
	}
	return a
}

// appendCounted appends s after its length: two strings and two others that are
// the same when joined must not make the same id.
func appendCounted(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// appendCommunityID appends the Community ID of f, version 1 with seed 0
// (https://github.com/corelight/community-id-spec), without quotes.
func appendCommunityID(b []byte, f *event.Flow) []byte {
	x, y := f.Endpoints[0], f.Endpoints[1]
	var space [2 + 2*16 + 2 + 2*2]byte
	xa, ya := address(&x), address(&y)
	if c := bytes.Compare(xa.bytes(), ya.bytes()); c > 0 || c == 0 && x.Port > y.Port {
		x, y, xa, ya = y, x, ya, xa
	}
	in := append(space[:0], 0, 0)
	in = append(in, xa.bytes()...)
	in = append(in, ya.bytes()...)
	in = append(in, byte(f.Transport), 0)
	in = binary.BigEndian.AppendUint16(in, x.Port)
	in = binary.BigEndian.AppendUint16(in, y.Port)
	sum := sha1.Sum(in)
	b = append(b, "1:"...)
	return base64.StdEncoding.AppendEncode(b, sum[:])
}

// packed is an address as it is on the wire.
type packed struct {
	raw [16]byte
	v4  bool
}

func address(e *event.Endpoint) packed { return packed{e.Addr.As16(), e.Addr.Is4()} }

func (p *packed) bytes() []byte {
	if p.v4 {
		return p.raw[12:]
	}
	return p.raw[:]
}
