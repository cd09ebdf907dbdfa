package inventory

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"math"
	"net/netip"
	"slices"

	"github.com/oddcert/oddcert/rules/judgement"
)

// A value on disk is a checksum, the bucket that it is for, the number of the
// transaction that wrote it, and an entry:
//
//	4  CRC-32C of all that follows, and of the key
//	1  bucket
//	n  transaction, a varint
//	…  entry
//
// The database underneath looks at its own pages only; so a bit that flips in an entry
// is seen, and an entry that is found in a damaged file says what it is.

// castagnoli is the table of CRC-32C.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal encodes an entry of a bucket, written by a transaction, as it is on disk. What it
// returns is part of what is encoded so far.
func (c *codec) seal(b bucket, key []byte, transaction uint64, e entry) []byte {
	from := len(c.out)
	c.out = binary.AppendUvarint(append(c.out, 0, 0, 0, 0, byte(b)), transaction)
	e.fields(c)
	value := c.out[from:len(c.out):len(c.out)]
	binary.LittleEndian.PutUint32(value, crc32.Update(crc32.Checksum(value[4:], castagnoli), castagnoli, key))
	return value
}

// unseal returns the entry of a value, and the transaction that wrote it. The entry is
// part of value.
func unseal(b bucket, key, value []byte) (entry []byte, transaction uint64, ok bool) {
	if len(value) < 6 || value[4] != byte(b) ||
		binary.LittleEndian.Uint32(value) != crc32.Update(crc32.Checksum(value[4:], castagnoli), castagnoli, key) {
		return nil, 0, false
	}
	transaction, n := binary.Uvarint(value[5:])
	if n <= 0 {
		return nil, 0, false
	}
	return value[5+n:], transaction, true
}

// codec encodes or decodes an entry: its fields are named once, in the method fields of
// its type, for both. What is decoded shares the memory of in, and takes no more than a
// small multiple of its length.
type codec struct {
	out      []byte // encoded so far
	in       string // not yet decoded
	decoding bool
	bad      bool // in was not what was expected
}

// decode decodes an entry, and reports whether it is whole.
func decode(entry []byte, fields func(*codec)) bool {
	c := codec{in: string(entry), decoding: true}
	fields(&c)
	return !c.bad && c.in == ""
}

// begin is decode for the beginning of an entry: behind it may be what only who writes
// wants to know.
func begin(entry []byte, fields func(*codec)) bool {
	c := codec{in: string(entry), decoding: true}
	fields(&c)
	return !c.bad
}

// fail ends decoding.
func (c *codec) fail() { c.bad, c.in = true, "" }

func (c *codec) uint(v *uint64) {
	if !c.decoding {
		c.out = binary.AppendUvarint(c.out, *v)
		return
	}
	var x uint64
	for i := range min(len(c.in), binary.MaxVarintLen64) {
		b := c.in[i]
		if b < 0x80 {
			if i == binary.MaxVarintLen64-1 && b > 1 {
				break
			}
			*v, c.in = x|uint64(b)<<(7*i), c.in[i+1:]
			return
		}
		x |= uint64(b&0x7f) << (7 * i)
	}
	c.fail()
	*v = 0
}

func (c *codec) int(v *int64) {
	x := uint64(*v<<1) ^ uint64(*v>>63)
	c.uint(&x)
	*v = int64(x>>1) ^ -int64(x&1)
}

// number is uint for any type of integer. What does not fit is bad.
func number[T ~uint8 | ~uint16 | ~int](c *codec, v *T) {
	x := uint64(*v)
	c.uint(&x)
	if *v = T(x); uint64(*v) != x || x > math.MaxInt64 {
		c.fail()
		*v = 0
	}
}

func (c *codec) flag(v *bool) {
	var x uint8
	if *v {
		x = 1
	}
	number(c, &x)
	if *v = x == 1; x > 1 {
		c.fail()
	}
}

// length is the length of a list, of which each element takes at least one byte.
func (c *codec) length(n int) int {
	number(c, &n)
	if c.decoding && n > len(c.in) {
		c.fail()
		return 0
	}
	return n
}

// take takes n bytes.
func (c *codec) take(n int) (s string) {
	if n > len(c.in) {
		c.fail()
		return ""
	}
	s, c.in = c.in[:n], c.in[n:]
	return s
}

func (c *codec) text(v *string) {
	n := c.length(len(*v))
	if !c.decoding {
		c.out = append(c.out, *v...)
		return
	}
	*v = c.take(n)
}

// bytes is text for bytes, which are copied.
func (c *codec) bytes(v *[]byte) {
	n := c.length(len(*v))
	if !c.decoding {
		c.out = append(c.out, *v...)
		return
	}
	*v = nil
	if n > 0 {
		*v = []byte(c.take(n))
	}
}

// fixed is for bytes whose number is known.
func (c *codec) fixed(v []byte) {
	if !c.decoding {
		c.out = append(c.out, v...)
		return
	}
	if copy(v, c.take(len(v))) < len(v) {
		clear(v)
	}
}

func list[T any](c *codec, v *[]T, each func(*T)) {
	n := c.length(len(*v))
	if !c.decoding {
		for i := range *v {
			each(&(*v)[i])
		}
		return
	}
	if *v = nil; n > 0 { // elements take more memory than bytes of the entry
		*v = make([]T, 0, min(n, MaxNames))
	}
	for i := 0; i < n && !c.bad; i++ {
		*v = append(*v, *new(T))
		each(&(*v)[i])
	}
}

func (c *codec) texts(v *[]string) { list(c, v, c.text) }

func (c *codec) hashes(v *[]Hash) {
	if c.decoding { // each takes 32 bytes
		n := c.length(0)
		if *v = nil; n > len(c.in)/32 {
			c.fail()
			return
		}
		for range n {
			*v = append(*v, Hash([]byte(c.take(32))))
		}
		return
	}
	list(c, v, func(h *Hash) { c.fixed(h[:]) })
}

// oneOf is a hash that mostly is one of a list: its number there, from 1 on, or one more
// and itself; 0 for none.
func (c *codec) oneOf(v *Hash, list []Hash) {
	n := 0
	if *v != (Hash{}) {
		if n = slices.Index(list, *v) + 1; n == 0 {
			n = len(list) + 1
		}
	}
	number(c, &n)
	switch {
	case n < 0 || n > len(list)+1:
		c.fail()
	case n == len(list)+1:
		c.fixed(v[:])
	case n > 0:
		*v = list[n-1]
	}
}

// table is a map of counts, in the order of its keys.
func table[K uint16 | string](c *codec, m *map[K]uint64, key func(*K)) {
	n := c.length(len(*m))
	if !c.decoding {
		var room [MaxValues]K
		keys := slices.AppendSeq(room[:0], maps.Keys(*m))
		slices.Sort(keys)
		for _, k := range keys {
			v := (*m)[k]
			key(&k)
			c.uint(&v)
		}
		return
	}
	*m = make(map[K]uint64, min(n, MaxValues))
	for range n {
		var k K
		var v uint64
		key(&k)
		c.uint(&v)
		if c.bad {
			return
		}
		(*m)[k] = v
	}
}

func (c *codec) numbers(m *map[uint16]uint64) { table(c, m, func(k *uint16) { number(c, k) }) }

func (c *codec) address(v *netip.Addr) {
	n := uint8(v.BitLen() / 8)
	number(c, &n)
	switch {
	case !c.decoding:
		c.out, _ = v.AppendBinary(c.out) // it never fails
	case n == 0:
		*v = netip.Addr{}
	case n == 4 || n == 16:
		*v, _ = netip.AddrFromSlice([]byte(c.take(int(n))))
	default:
		c.fail()
	}
}

func (c *codec) endpoint(v *netip.AddrPort) {
	a, p := v.Addr(), v.Port()
	c.address(&a)
	number(c, &p)
	*v = netip.AddrPortFrom(a, p)
}

func (c *codec) count(v *Count) {
	c.uint(&v.N)
	c.flag(&v.Estimated)
}

func (c *codec) place(v *Place) {
	c.int(&v.Time)
	c.uint(&v.Frame)
	c.text(&v.Path)
	c.text(&v.Interface)
	c.flow(&v.Flow)
}

// What the last place of an entry has in common with the first: mostly all of it, or all
// but the time.
const (
	sameMoment = 1 << iota
	sameOrigin
	sameFlow
	allSame = 1<<iota - 1
)

// places are the first and the last of an entry.
func (c *codec) places(first, last *Place) {
	c.place(first)
	var same uint8
	if last.Time == first.Time && last.Frame == first.Frame {
		same |= sameMoment
	}
	if last.Path == first.Path && last.Interface == first.Interface {
		same |= sameOrigin
	}
	if last.Flow == first.Flow {
		same |= sameFlow
	}
	number(c, &same)
	if c.decoding {
		if *last = *first; same > allSame {
			c.fail()
			return
		}
	}
	if same&sameMoment == 0 {
		c.int(&last.Time)
		c.uint(&last.Frame)
	}
	if same&sameOrigin == 0 {
		c.text(&last.Path)
		c.text(&last.Interface)
	}
	if same&sameFlow == 0 {
		if c.decoding {
			last.Flow = Flow{}
		}
		c.flow(&last.Flow)
	}
}

func (c *codec) flow(f *Flow) {
	number(c, &f.Transport)
	c.endpoint(&f.Client)
	c.endpoint(&f.Server)
	if !f.Server.Addr().IsValid() {
		c.fixed(f.ClientMAC[:])
		c.fixed(f.ServerMAC[:])
	}
}

func (c *codec) server(k *ServerKey) {
	c.address(&k.Address)
	if !k.Address.IsValid() {
		c.fixed(k.MAC[:])
	}
	number(c, &k.Port)
	number(c, &k.Transport)
	c.text(&k.Carrier)
}

func (v *Certificate) fields(c *codec) {
	c.fixed(v.SHA256[:])
	c.fixed(v.SPKI[:])
	for _, s := range []*string{&v.Subject, &v.Issuer, &v.CommonName, &v.Organization, &v.Serial, &v.KeyAlgorithm, &v.KeyCurve, &v.SignatureAlgorithm, &v.ParseError, &v.Level} {
		c.text(s)
	}
	c.texts(&v.Names)
	c.int(&v.NotBefore)
	c.int(&v.NotAfter)
	number(c, &v.KeySize)
	c.flag(&v.SelfSigned)
	c.flag(&v.CA)
	number(c, &v.Roles)
	c.places(&v.First, &v.Last)
	c.uint(&v.Handshakes)
	c.count(&v.Servers)
	c.count(&v.Clients)
	c.count(&v.AskedFor)
	number(c, &v.Trust)
	c.flag(&v.Judged)
	c.texts(&v.Reasons)
	number(c, &v.Proof)
	c.hashes(&v.Chain)
	c.uint(&v.Alerts)
	if v.Trust > judgement.Trusted || v.Proof > judgement.Mismatch {
		c.fail()
	}
}

func (v *Server) fields(c *codec) {
	c.server(&v.ServerKey)
	c.places(&v.First, &v.Last)
	c.uint(&v.Handshakes)
	c.outcomes(v.Outcomes[:])
	c.count(&v.Certificates)
	c.count(&v.Clients)
	c.count(&v.AskedFor)
	for _, m := range []*map[uint16]uint64{&v.Versions, &v.Suites, &v.Groups, &v.Offered, &v.Signatures} {
		c.numbers(m)
	}
	table(c, &v.ALPN, c.text)
	c.uint(&v.Retries)
	c.uint(&v.Alerts)
	c.text(&v.Level)
}

func (c *codec) outcomes(v []uint64) {
	for i := range v {
		c.uint(&v[i])
	}
}

func (v *Sighting) fields(c *codec) {
	c.fixed(v.Certificate[:])
	c.server(&v.Server)
	number(c, &v.Roles)
	c.places(&v.First, &v.Last)
	c.uint(&v.Handshakes)
	c.texts(&v.Names)
	c.count(&v.AskedFor)
	c.uint(&v.Unnamed)
	c.uint(&v.Alerts)
}

func (v *Contact) fields(c *codec) {
	c.address(&v.Client)
	c.server(&v.Server)
	c.hashes(&v.Certificates)
	c.oneOf(&v.Certificate, v.Certificates)
	c.places(&v.First, &v.Last)
	c.uint(&v.Handshakes)
	c.uint(&v.Alerts)
}

func (v *Alert) fields(c *codec) {
	for _, s := range []*string{&v.ID, &v.RuleID, &v.Rule, &v.RuleVersion, &v.Level, &v.Verdict, &v.Reason, &v.Name, &v.Evidence, &v.Flagged} {
		c.text(s)
	}
	c.int(&v.Time)
	c.place(&v.Place)
	c.texts(&v.Reasons)
	c.server(&v.Server)
	c.endpoint(&v.Client)
	c.fixed(v.Certificate[:])
	c.hashes(&v.Chain)
	c.uint(&v.Counted)
	c.bytes(&v.Record)
}

func (v *Run) fields(c *codec) {
	c.int(&v.Begun)
	c.int(&v.Ended)
	c.text(&v.Version)
	c.text(&v.Sensor)
	list(c, &v.Sources, func(s *Source) {
		c.text(&s.Path)
		c.fixed(s.SHA256[:])
		c.int(&s.Size)
		c.text(&s.Interface)
		c.uint(&s.Frames)
		c.int(&s.Start)
		c.int(&s.End)
	})
	c.int(&v.Start)
	c.int(&v.End)
	c.bytes(&v.Stats)
	for _, lines := range []*[]Line{&v.Seen, &v.Lost} {
		list(c, lines, func(l *Line) {
			c.uint(&l.N)
			c.text(&l.Label)
			c.text(&l.Note)
		})
	}
}

func (v *Totals) fields(c *codec) {
	for _, n := range []*uint64{&v.Certificates, &v.Servers, &v.Sightings, &v.Contacts, &v.Alerts, &v.Handshakes, &v.Lost, &v.Forgotten} {
		c.uint(n)
	}
	c.numbers(&v.Versions)
	c.numbers(&v.Suites)
	c.numbers(&v.Groups)
	c.outcomes(v.Outcomes[:])
	c.int(&v.First)
	c.int(&v.Last)
}

func (c *codec) fixed64(v *uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], *v)
	c.fixed(b[:])
	*v = binary.LittleEndian.Uint64(b[:])
}
