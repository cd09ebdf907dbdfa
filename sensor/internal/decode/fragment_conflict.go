package decode

import (
	"bytes"
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/sparse"
)

// complete delivers a if it is whole. Where fragments contradict one another, what
// has a good checksum is true.
func (f *fragments) complete(a *datagram, p *Packet) {
	defer func() { f.built, f.builtTo = nil, nil }()
	for i := range a.ends {
		if e := &a.ends[i]; a.front >= e.at && len(f.ready) == 0 {
			f.judge(a, e, p)
			f.resolve(a, e, p)
		}
	}
	if len(f.ready) > 0 {
		if a.overlapped && len(f.ready) == 1 {
			f.stats.Resolved++
		}
		f.deliver(a, complete)
		return
	}
	if a.state == doubtful {
		return
	}
	for i := range a.ends {
		e := &a.ends[i]
		if !e.judged || e.short {
			continue
		}
		lies := a.overlapped && a.key.kind >= fragmentIPv6 // RFC 5722, section 4
		switch {
		case e.sumState == ChecksumBad && lies: // the true ones may still come
		case e.sumState == ChecksumBad:
			f.assemble(a, e, nil)
			f.deliver(a, doubtful)
		case lies:
			f.abandon(a)
		default:
			// No checksum shows which is true: the first copy, and the last.
			f.assemble(a, e, nil)
			if set := a.latest(e); len(set) > 0 {
				f.assemble(a, e, set)
			}
			f.deliver(a, complete)
		}
		return
	}
}

// judge sums the pages up to e, once.
func (f *fragments) judge(a *datagram, e *end, p *Packet) {
	if e.judged {
		return
	}
	e.judged = true
	whole := a.build(e, nil)
	f.built, f.builtTo = whole, e
	e.sumState = ChecksumUnknown
	if a.key.kind != fragmentCAPWAP {
		e.sumState, e.short = p.verify(a.proto, whole)
	}
	addresses := add(add(a.key.src0, a.key.src1), add(a.key.dst0, a.key.dst1))
	e.sum = fold(add(add(addresses, uint64(a.proto)+uint64(e.at)), uint64(onesSum(whole))))
}

// verify verifies the checksum of a whole payload between the addresses of p. short
// reports that the payload is longer by its header.
func (p *Packet) verify(proto uint8, whole []byte) (s ChecksumState, short bool) {
	q := Packet{src0: p.src0, src1: p.src1, dst0: p.dst0, dst1: p.dst1, unsummed: p.unsummed, reassembled: true, segment: whole}
	switch {
	case proto == protoTCP && len(whole) >= 20:
		q.Transport = event.TCP
	case proto == protoUDP && len(whole) >= 8:
		q.Transport = event.UDP
		n := int(binary.BigEndian.Uint16(whole[4:]))
		if n < 8 || n > len(whole) {
			return ChecksumBad, n > len(whole)
		}
		q.segment = whole[:n]
	default:
		return ChecksumUnknown, false
	}
	return q.Checksum(), false
}

// resolve puts what has a good checksum into f.ready. It tries the first copies,
// then each of the other versions in its place, then all of the latest versions,
// then any set of versions, up to limitTries sets. It does not try again what it
// tried when an earlier fragment came.
func (f *fragments) resolve(a *datagram, e *end, p *Packet) {
	if e.sumState == ChecksumGood {
		f.assemble(a, e, nil)
	}
	if len(a.others) == 0 {
		return
	}
	r := resolution{f: f, a: a, e: e, p: p}
	for i := len(a.others) - 1; i >= 0; i-- {
		if v := &a.others[i]; v.fits(e) {
			v.measure(a)
			r.fit = append(r.fit, i)
		}
	}
	if len(r.fit) == 0 || e.tried == len(a.others) {
		return
	}
	first := r.fit
	if e.tried == len(a.others)-1 {
		first = r.fit[:1] // the others were tried
	}
	e.tried = len(a.others)
	for _, i := range first {
		r.set = append(r.set[:0], i)
		r.try()
	}
	if len(f.ready) > 0 {
		return
	}
	r.set = a.latest(e)
	r.try()
	for k, i := range first {
		r.set = append(r.set[:0], i)
		r.search(k + 1)
	}
}

// resolution is a search for the versions that make a good checksum.
type resolution struct {
	f   *fragments
	a   *datagram
	e   *end
	p   *Packet
	fit []int // the versions to choose from, the latest first
	set []int // those chosen
}

// search tries r.set with every set of versions from fit[k] on that do not overlap,
// until one is good.
func (r *resolution) search(k int) {
	for ; k < len(r.fit) && r.a.tries < limitTries && len(r.f.ready) == 0; k++ {
		if v := &r.a.others[r.fit[k]]; r.a.apart(v, r.set) {
			r.set = append(r.set, r.fit[k])
			r.a.tries++
			r.try()
			r.search(k + 1)
			r.set = r.set[:len(r.set)-1]
		}
	}
}

// try puts what r.set makes into f.ready if its checksum is good. The sums show that
// without the bytes, except that they may agree by chance.
func (r *resolution) try() {
	sum := uint64(r.e.sum)
	for _, i := range r.set {
		sum += uint64(r.a.others[i].delta)
	}
	if fold(sum) != 0xffff || len(r.f.ready) == limitAssemblies || !r.tells() {
		return
	}
	made := r.f.assemble(r.a, r.e, r.set)
	if s, _ := r.p.verify(made.proto, made.payload); s != ChecksumGood {
		r.f.ready = r.f.ready[:len(r.f.ready)-1]
	}
}

// tells reports whether the sum of all bytes that r.set makes is a checksum: that it is
// of TCP, or of UDP that has one and is as long as its header says. Without that,
// somebody could have a datagram put together for each fragment that he adds to it.
func (r *resolution) tells() bool {
	const size, checksum = 4, 6
	proto, head := r.a.proto, r.a.pages[0].Bytes(0, sparse.PageBytes)
	for _, i := range r.set {
		if v := &r.a.others[i]; v.from == 0 {
			proto, head = v.proto, v.data
		}
	}
	switch {
	case r.a.key.kind == fragmentCAPWAP:
		return false
	case proto == protoTCP:
		return r.e.at >= 20
	case proto != protoUDP || len(head) < 8:
		return false
	}
	return int(binary.BigEndian.Uint16(head[size:])) == r.e.at && binary.BigEndian.Uint16(head[checksum:]) != 0
}

// fits reports whether v can be part of a datagram that ends at e.
func (v *version) fits(e *end) bool { return v.more && v.end < e.at || !v.more && v.end == e.at }

// apart reports whether v does not overlap the versions of set.
func (a *datagram) apart(v *version, set []int) bool {
	for _, i := range set {
		if o := &a.others[i]; v.from < o.end && o.from < v.end {
			return false
		}
	}
	return true
}

// measure computes what v adds to the checksum, once.
func (v *version) measure(a *datagram) {
	if v.summed {
		return
	}
	v.summed = true
	was := make([]byte, v.end-v.from)
	a.copy(was, v.from)
	delta := add(uint64(onesSum(v.data)), uint64(^onesSum(was)))
	if v.from == 0 {
		delta = add(delta, uint64(v.proto)+uint64(^uint16(a.proto)))
	}
	v.delta = fold(delta)
}

// latest returns the latest versions, for all places that have any.
func (a *datagram) latest(e *end) (set []int) {
	for i := len(a.others) - 1; i >= 0; i-- {
		if v := &a.others[i]; v.fits(e) && a.apart(v, set) {
			set = append(set, i)
		}
	}
	return set
}

// assemble puts the bytes up to e into f.ready, with the versions of set in their
// places.
func (f *fragments) assemble(a *datagram, e *end, set []int) assembly {
	made := assembly{proto: a.proto}
	if len(set) == 0 && f.builtTo == e {
		made.payload = f.built
	} else {
		made.payload = a.build(e, set)
	}
	for _, i := range set {
		if v := &a.others[i]; v.from == 0 {
			made.proto = v.proto
		}
	}
	f.ready = append(f.ready, made)
	return made
}

// build makes the payload of assemble, in memory of its own: packets keep it for as
// long as they like.
func (a *datagram) build(e *end, set []int) []byte {
	whole := make([]byte, e.at)
	a.copy(whole, 0)
	for _, i := range set {
		copy(whole[a.others[i].from:], a.others[i].data)
	}
	return whole
}

// copy copies from the pages.
func (a *datagram) copy(b []byte, from int) {
	for len(b) > 0 {
		n := copy(b, a.pages[from/sparse.PageBytes].Bytes(from%sparse.PageBytes, sparse.PageBytes))
		b, from = b[n:], from+n
	}
}

// again takes a fragment of a datagram that is complete, and reports whether it is of
// that datagram: it has the same bytes, or others with which the checksum is good
// too, as somebody can make who knows what he forges.
func (f *fragments) again(a *datagram, p *Packet, g *piece) bool {
	if g.end() > len(a.whole) || g.more != (g.end() < len(a.whole)) {
		return false
	}
	was := a.whole[g.from:][:len(g.data)]
	if bytes.Equal(was, g.data) {
		f.stats.Repeated++
		return true
	}
	if g.cut > 0 || a.extra == limitAssemblies || onesSum(was) != onesSum(g.data) || a.key.kind == fragmentCAPWAP {
		return false
	}
	whole := bytes.Clone(a.whole)
	copy(whole[g.from:], g.data)
	if s, _ := p.verify(a.proto, whole); s != ChecksumGood {
		return false
	}
	a.extra++
	f.stats.Overlapping++
	f.stats.Conflicting++
	f.stats.Reassembled++
	f.stats.Datagrams++
	f.ready = append(f.ready, assembly{whole, a.proto})
	return true
}
