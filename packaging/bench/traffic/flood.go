package traffic

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// A flood is traffic that is made to hurt, from senders who never finish what
// they begin. Honest handshakes go on in it.
type flood struct {
	bytes int64 // of the capture at its full size, without the honest handshakes
	rate  int64 // bits a second
	run   func(*attack)
}

const (
	honestFlows = 240 // half of them, about, show a certificate that raises an alert
	megabit     = 1_000_000
)

var floods = func() map[string]flood {
	all := map[string]flood{
		"syn-flood":    {60 << 20, 100 * megabit, (*attack).syns},
		"hello-flood":  {190 << 20, 200 * megabit, (*attack).hellos}, // 300,000 hellos
		"dtls-hellos":  {60 << 20, 100 * megabit, (*attack).dtlsHellos},
		"quic-hellos":  {120 << 20, 200 * megabit, (*attack).quicHellos},
		"certificates": {120 << 20, 50 * megabit, func(a *attack) { a.certificates(150, false) }},
		"new-chains":   {120 << 20, 200 * megabit, (*attack).wholeCertificates},
		"authorities":  {60 << 20, 100 * megabit, (*attack).authorities},
		"large-hellos": {60 << 20, 100 * megabit, (*attack).largeHellos},
		// From anywhere, and small enough to be many.
		"certificates-spoofed": {120 << 20, 50 * megabit, func(a *attack) { a.certificates(20000, true) }},
		"radius":               {60 << 20, 100 * megabit, (*attack).radius},
		"openvpn":              {60 << 20, 100 * megabit, (*attack).openvpn},
		"eapol":                {60 << 20, 100 * megabit, (*attack).eapol},
		"blind-fin":            {60 << 20, 12 * megabit, func(a *attack) { a.blind(fin|ack, 0) }},
		"blind-rst":            {60 << 20, 12 * megabit, func(a *attack) { a.blind(rst, 0) }},
		"blind-data":           {60 << 20, 12 * megabit, func(a *attack) { a.blind(psh|ack, 24) }},
	}
	for _, o := range orders {
		all["tcp-"+o.name] = flood{60 << 20, 100 * megabit, func(a *attack) { a.tcpPieces(o.of) }}
		all["ip-"+o.name] = flood{60 << 20, 100 * megabit, func(a *attack) { a.ipPieces(o.of) }}
		all["dtls-"+o.name] = flood{60 << 20, 100 * megabit, func(a *attack) { a.dtlsPieces(o.of) }}
		all["quic-"+o.name] = flood{60 << 20, 100 * megabit, func(a *attack) { a.quicPieces(o.of) }}
	}
	return all
}()

// Floods lists the floods by name.
func Floods() []string { return slices.Sorted(maps.Keys(floods)) }

// GenerateFlood writes a capture of the named flood, with honest handshakes in
// it, and returns the truth about these. The flood's size is multiplied by
// scale, which is 1 for the full size.
func GenerateFlood(w io.Writer, name string, scale float64, seed uint64) (*Truth, error) {
	f, ok := floods[name]
	if !ok {
		return nil, fmt.Errorf("no flood %q: there are %v", name, Floods())
	}
	size := int64(float64(f.bytes) * scale)
	span := time.Duration(float64(size) * 8 / float64(f.rate) * 1e9)
	// They begin when the flood has been on for a third of its time, four at a
	// time, and each has some 15 segments.
	spec := Spec{Seed: seed, Certificates: 60, Planted: 30, Concurrent: 4, MSS: []int{1448},
		Pace:   max(span*6/10*4/(honestFlows*15), 20*time.Microsecond),
		Shares: []Share{{Kind: TLS12ECDSA, Flows: honestFlows / 2}, {Kind: TLS12ECDHE, Flows: honestFlows / 2}}}
	var honest bytes.Buffer
	g, err := newGenerator(&honest, spec)
	if err != nil {
		return nil, err
	}
	truth, err := g.run()
	if err != nil {
		return nil, err
	}
	out, err := newFrameWriter(w, 0)
	if err != nil {
		return nil, err
	}
	conv := g.pool[0][slices.IndexFunc(g.pool[0], func(c *conversation) bool {
		return truth.Certificates[c.certs[toClient][0].certificate].Plant == ""
	})]
	leaf := conv.certs[toClient][0]
	a := &attack{out: out, rng: rand.New(rand.NewPCG(seed, 3)), honest: honest.Bytes()[24:], truth: truth,
		hello: conv.stream[toServer][:conv.turns[0].end], answer: conv.stream[toClient], leaf: conv.stream[toClient][leaf.lo:leaf.hi],
		now: epoch.UnixNano() - int64(span)/3, size: size, rate: f.rate}
	f.run(a)
	a.mix(1<<63 - 1)
	if a.err == nil {
		a.err = out.w.Flush()
	}
	truth.Frames, truth.Bytes = out.frames, out.bytes
	return truth, a.err
}

// attack writes the frames of a flood between those of honest handshakes.
type attack struct {
	out    *frameWriter
	rng    *rand.Rand
	honest []byte // pcap records
	truth  *Truth
	hello  []byte // a ClientHello, with its record
	answer []byte // what a server says to it: ServerHello, Certificate, …
	leaf   []byte // the certificate in it
	now    int64
	size   int64
	rate   int64
	sent   int64 // bytes of the flood
	begun  int   // flows
	err    error
}

// more reports whether the flood goes on.
func (a *attack) more() bool { return a.err == nil && a.sent < a.size }

// mix writes the honest frames up to a time.
func (a *attack) mix(until int64) {
	le := binary.LittleEndian
	for len(a.honest) > 0 && a.err == nil {
		at := int64(le.Uint32(a.honest))*1e9 + int64(le.Uint32(a.honest[4:]))
		if at > until {
			return
		}
		n := 16 + int(le.Uint32(a.honest[8:]))
		a.record(at, a.honest[16:n])
		a.honest = a.honest[n:]
	}
}

// record writes one frame.
func (a *attack) record(at int64, frame []byte) {
	at = max(at, a.out.last+1)
	a.out.last = at
	le := binary.LittleEndian
	var h [16]byte
	le.PutUint32(h[0:], uint32(at/1e9))
	le.PutUint32(h[4:], uint32(at%1e9))
	le.PutUint32(h[8:], uint32(len(frame)))
	le.PutUint32(h[12:], uint32(len(frame)))
	a.out.frames++
	a.out.bytes += int64(16 + len(frame))
	if _, err := a.out.w.Write(h[:]); err != nil {
		a.err = err
		return
	}
	_, a.err = a.out.w.Write(frame)
}

// spend moves the time on by what n bytes take.
func (a *attack) spend(n int64) {
	a.sent += n
	a.now += n * 8 * 1e9 / a.rate
	a.mix(a.now)
}

// raw writes a frame of the flood as it is.
func (a *attack) raw(frame []byte) {
	a.record(a.now, frame)
	a.spend(int64(16 + len(frame)))
}

// segment writes a segment or datagram of the flood.
func (a *attack) segment(f *flow, s segment) {
	before := a.out.bytes
	s.at = a.now
	s.stamp = uint32(a.now / 1e6)
	if _, err := a.out.write(f, &s); err != nil {
		a.err = err
		return
	}
	a.spend(a.out.bytes - before)
}

// flow is one more flow of the flood: its ends are in a network each, or spoofed
// anywhere.
func (a *attack) flow(port uint16, udp, spoofed bool) *flow {
	n := a.begun
	a.begun++
	f := &flow{conv: &conversation{udp: udp}, mss: 1448}
	client, server := v4(0xc0000200+uint32(n)&0xff), v4(0xcb007100+uint32(n>>8)&0xff)
	if spoofed {
		client, server = v4(0x20000000|a.rng.Uint32()>>3), v4(0x60000000|a.rng.Uint32()>>3)
	}
	f.client = netip.AddrPortFrom(client, uint16(1024+a.rng.IntN(60000)))
	f.server = netip.AddrPortFrom(server, port)
	f.isn = [2]uint32{a.rng.Uint32(), a.rng.Uint32()}
	return f
}

// open writes the handshake of TCP and a ClientHello.
func (a *attack) open(f *flow) {
	a.segment(f, segment{dir: toServer, flags: syn, seq: f.isn[0]})
	a.segment(f, segment{dir: toClient, flags: syn | ack, seq: f.isn[1], ack: f.isn[0] + 1})
	a.say(f, toServer, a.hello)
}

// say writes the next bytes of one direction of a stream.
func (a *attack) say(f *flow, dir uint8, b []byte) {
	for len(b) > 0 {
		n := min(len(b), f.mss)
		a.segment(f, segment{dir: dir, flags: ack, seq: f.sequence(dir), ack: f.sequence(1 - dir), payload: b[:n]})
		f.sent[dir] += int64(n)
		b = b[n:]
	}
}

func (a *attack) syns() {
	for a.more() {
		f := a.flow(443, false, true)
		a.segment(f, segment{dir: toServer, flags: syn, seq: f.isn[0]})
	}
}

func (a *attack) hellos() {
	hello := slices.Clone(a.hello)
	for a.more() {
		f := a.flow(443, false, true)
		a.randomise(hello[11:43])
		a.segment(f, segment{dir: toServer, flags: syn, seq: f.isn[0]})
		f.mss = 8948
		a.say(f, toServer, hello)
	}
}

func (a *attack) randomise(b []byte) {
	for i := range b {
		b[i] = byte(a.rng.Uint32())
	}
}

// serverHello is the first record of the answer.
func (a *attack) serverHello() []byte { return a.answer[:5+int(binary.BigEndian.Uint16(a.answer[3:]))] }

// certificates begins n messages of nearly 1 MiB at once, or of 8 KB where they
// are many; what it sends of them is short of the end, and the rest trickles.
func (a *attack) certificates(n int, spoofed bool) {
	length, head := 1_000_000, 420_000
	if n > 1000 {
		length, head = 9000, 4000
	}
	body := certificateMessage(a.leaf, length)
	flows := make([]*flow, n)
	at := make([]int, n) // in body
	for i := range flows {
		if !a.more() {
			return
		}
		f := a.flow(443, false, spoofed)
		flows[i] = f
		a.open(f)
		a.say(f, toClient, a.serverHello())
		for at[i] < head {
			k := min(16384, head-at[i])
			a.say(f, toClient, tlsRecord(22, body[at[i]:at[i]+k]))
			at[i] += k
		}
	}
	for a.more() {
		for i, f := range flows {
			k := min(1400, length-100-at[i])
			if k <= 0 || !a.more() {
				return
			}
			a.say(f, toClient, tlsRecord(22, body[at[i]:at[i]+k]))
			at[i] += k
		}
	}
}

// wholeCertificates sends messages that are whole, on flows that go no further:
// 40 certificates each, all different.
func (a *attack) wholeCertificates() {
	for a.more() {
		f := a.flow(443, false, true)
		a.open(f)
		a.say(f, toClient, a.serverHello())
		var list []byte
		leaf := slices.Clone(a.leaf)
		for range 40 {
			a.randomise(leaf[len(leaf)-8:])
			list = append(append(list, 0, byte(len(leaf)>>8), byte(len(leaf))), leaf...)
		}
		n := len(list)
		body := append([]byte{11, byte((n + 3) >> 16), byte((n + 3) >> 8), byte(n + 3), byte(n >> 16), byte(n >> 8), byte(n)}, list...)
		for part := range slices.Chunk(body, 16384) {
			a.say(f, toClient, tlsRecord(22, part))
		}
	}
}

// authorities sends CertificateRequests with as many names as they have room for,
// on flows that go no further.
func (a *attack) authorities() {
	name := make([]byte, 240)
	for a.more() {
		f := a.flow(443, false, true)
		a.open(f)
		a.say(f, toClient, a.serverHello())
		var list []byte
		for range 240 {
			for i := range name {
				name[i] = ' ' + byte(a.rng.IntN(95))
			}
			// A distinguished name with a common name.
			list = append(list, 1, 1, 0x30, 0x81, 254, 0x31, 0x81, 251, 0x30, 0x81, 248, 6, 3, 0x55, 4, 3, 0x0c, 0x81, 240)
			list = append(list, name...)
		}
		n := len(list)
		body := append([]byte{1, 1, 0, 2, 4, 3, byte(n >> 8), byte(n)}, list...)
		n = len(body)
		body = append([]byte{13, 0, byte(n >> 8), byte(n)}, body...)
		for part := range slices.Chunk(body, 16384) {
			a.say(f, toClient, tlsRecord(22, part))
		}
	}
}

// largeHellos sends ClientHellos with 7,500 suites, all different, that nobody
// answers.
func (a *attack) largeHellos() {
	suites := make([]byte, 15000)
	session := 44 + int(a.hello[43])
	rest := session + 2 + int(binary.BigEndian.Uint16(a.hello[session:]))
	for a.more() {
		f := a.flow(443, false, true)
		a.segment(f, segment{dir: toServer, flags: syn, seq: f.isn[0]})
		a.randomise(suites)
		b := slices.Concat(a.hello[5:session], []byte{byte(len(suites) >> 8), byte(len(suites) & 0xff)}, suites, a.hello[rest:])
		b[1], b[2], b[3] = 0, byte((len(b)-4)>>8), byte(len(b)-4)
		a.say(f, toServer, tlsRecord(22, b))
	}
}

// certificateMessage is a Certificate message of n bytes that begins well.
func certificateMessage(leaf []byte, n int) []byte {
	b := make([]byte, n)
	copy(b, []byte{11, byte((n - 4) >> 16), byte((n - 4) >> 8), byte(n - 4), byte((n - 7) >> 16), byte((n - 7) >> 8), byte(n - 7),
		0, byte(len(leaf) >> 8), byte(len(leaf))})
	for at := 10; at < n; at += len(leaf) + 3 {
		copy(b[at:], leaf)
		if at+len(leaf)+3 < n {
			copy(b[at+len(leaf):], []byte{0, byte(len(leaf) >> 8), byte(len(leaf))})
		}
	}
	return b
}

func tlsRecord(typ byte, body []byte) []byte {
	return append([]byte{typ, 3, 3, byte(len(body) >> 8), byte(len(body))}, body...)
}

// orders are the ways to deal out a message of n bytes in pieces of at most k:
// holes stay, or are filled last.
var orders = []struct {
	name string
	of   func(n, k int) []span
}{
	{"rising", func(n, k int) (l []span) { // every other piece
		for at := k; at < n; at += 2 * k {
			l = append(l, span{int64(at), int64(min(at+k, n))})
		}
		return l
	}},
	{"falling", func(n, k int) (l []span) { // from the end, the first piece never
		for at := (n - 1) / k * k; at > 0; at -= k {
			l = append(l, span{int64(at), int64(min(at+k, n))})
		}
		return l
	}},
	{"interleaved", func(n, k int) (l []span) { // from both ends and from the middle
		half := n / 2 / k * k
		for at := k; at < half; at += k {
			l = append(l, span{int64(half + at), int64(half + at + k)}, span{int64(half - at), int64(half - at + k)})
		}
		return l
	}},
	{"one-byte", func(n, k int) (l []span) { // with holes of as much
		for at := 1; at < n; at += 2 {
			l = append(l, span{int64(at), int64(at + 1)})
		}
		return l
	}},
	{"overlapped", func(n, k int) (l []span) { // single bytes, then large pieces over them, again and again
		for at := 1; at < n; at += 20 {
			l = append(l, span{int64(at), int64(at + 1)})
		}
		for at := 2; at < n; at += k / 4 {
			l = append(l, span{int64(at), int64(min(at+k, n))})
		}
		return l
	}},
}

func (a *attack) tcpPieces(order func(n, k int) []span) {
	const length = 60000
	body := certificateMessage(a.leaf, length)
	var stream []byte
	for part := range slices.Chunk(body, 16384) {
		stream = append(stream, tlsRecord(22, part)...)
	}
	for a.more() {
		f := a.flow(443, false, false)
		a.open(f)
		a.say(f, toClient, a.serverHello())
		base, last := f.sequence(toClient), f.sequence(toServer)
		for _, s := range order(len(stream), 1400) {
			if !a.more() {
				return
			}
			a.segment(f, segment{dir: toClient, flags: ack, seq: base + uint32(s.lo), ack: last, payload: stream[s.lo:s.hi]})
		}
	}
}

func (a *attack) ipPieces(order func(n, k int) []span) {
	const length = 59992
	be := binary.BigEndian
	body := make([]byte, length)
	for id := uint16(1); a.more(); id++ {
		f := a.flow(443, true, false)
		copy(body, be.AppendUint16(be.AppendUint16(nil, f.server.Port()), f.client.Port()))
		be.PutUint16(body[4:], length)
		for _, s := range order(length/8, 1400/8) { // offsets count in units of eight
			if !a.more() {
				return
			}
			lo, hi := s.lo*8, s.hi*8
			var offset = uint16(s.lo)
			if hi < length {
				offset |= 0x2000 // more fragments
			}
			b := appendMAC(appendMAC(nil, f.client.Addr()), f.server.Addr())
			b = append(b, 8, 0)
			at := len(b)
			b = append(b, 0x45, 0)
			b = be.AppendUint16(be.AppendUint16(be.AppendUint16(b, uint16(20+hi-lo)), id), offset)
			b = append(b, 64, 17, 0, 0)
			src, dst := f.server.Addr().As4(), f.client.Addr().As4()
			b = append(append(b, src[:]...), dst[:]...)
			be.PutUint16(b[at+10:], fold(onesComplement(0, b[at:])))
			a.raw(append(b, body[lo:hi]...))
		}
	}
}

// dtlsHello is the ClientHello as DTLS 1.2 has it, with a place for a cookie.
func (a *attack) dtlsHello() []byte {
	body := slices.Clone(a.hello[9:])
	body[0], body[1] = 0xfe, 0xfd
	at := 35 + int(body[34])
	return slices.Insert(body, at, 0)
}

// dtlsPiece is a record with a piece of a handshake message.
func dtlsPiece(typ byte, sequence, record uint16, length int, offset int, b []byte) []byte {
	n := len(b)
	r := []byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, byte(record >> 8), byte(record), byte((n + 12) >> 8), byte(n + 12),
		typ, byte(length >> 16), byte(length >> 8), byte(length), byte(sequence >> 8), byte(sequence),
		byte(offset >> 16), byte(offset >> 8), byte(offset), byte(n >> 16), byte(n >> 8), byte(n)}
	return append(r, b...)
}

func (a *attack) dtlsHellos() {
	hello := a.dtlsHello()
	for a.more() {
		f := a.flow(443, true, true)
		a.randomise(hello[2:34])
		a.segment(f, segment{payload: dtlsPiece(1, 0, 0, len(hello), 0, hello)})
	}
}

func (a *attack) dtlsPieces(order func(n, k int) []span) {
	const length = 60000
	hello := a.dtlsHello()
	body := certificateMessage(a.leaf, length+4)[4:]
	for a.more() {
		f := a.flow(443, true, false)
		a.segment(f, segment{payload: dtlsPiece(1, 0, 0, len(hello), 0, hello)})
		for i, s := range order(length, 1200) {
			if !a.more() {
				return
			}
			a.segment(f, segment{dir: toClient, payload: dtlsPiece(11, 1, uint16(i), length, int(s.lo), body[s.lo:s.hi])})
		}
	}
}

func (a *attack) quicHellos() {
	hello := slices.Clone(a.hello[5:])
	for a.more() {
		f := a.flow(443, true, true)
		a.randomise(hello[6:38])
		var id [8]byte
		a.randomise(id[:])
		a.segment(f, segment{payload: quicInitial(id[:], 0, quicCrypto(nil, 0, hello))})
	}
}

func (a *attack) quicPieces(order func(n, k int) []span) {
	const length = 50000
	hello := make([]byte, length)
	copy(hello, a.hello[5:])
	copy(hello, []byte{1, 0, byte((length - 4) >> 8), byte((length - 4) & 0xff)})
	for a.more() {
		f := a.flow(443, true, false)
		var id [8]byte
		a.randomise(id[:])
		var frames []byte
		number := uint16(0)
		for _, s := range order(length, 1000) {
			if len(frames)+int(s.hi-s.lo)+8 > 1150 {
				if !a.more() {
					return
				}
				a.segment(f, segment{payload: quicInitial(id[:], number, frames)})
				number++
				frames = frames[:0]
			}
			frames = quicCrypto(frames, int(s.lo), hello[s.lo:s.hi])
		}
	}
}

func (a *attack) radius() {
	be := binary.BigEndian
	for a.more() {
		f := a.flow(1812, true, false)
		for session := range 200 {
			if !a.more() {
				return
			}
			packet := eapPacket(byte(session), a.hello)
			b := append([]byte{1, byte(session), 0, 0}, make([]byte, 16)...)
			for part := range slices.Chunk(packet, 253) {
				b = append(append(b, 79, byte(2+len(part))), part...)
			}
			b = append(b, 24, 10)
			b = be.AppendUint64(b, a.rng.Uint64()) // State: another session
			be.PutUint16(b[2:], uint16(len(b)))
			a.segment(f, segment{payload: b})
		}
	}
}

// eapPacket is a response of EAP-TLS that says that more is to come.
func eapPacket(id byte, data []byte) []byte {
	n := 10 + len(data)
	return append([]byte{2, id, byte(n >> 8), byte(n), 13, 0xc0, 0, 0, 0x40, 0}, data...)
}

func (a *attack) openvpn() {
	be := binary.BigEndian
	for a.more() {
		f := a.flow(1194, true, false)
		for range 200 {
			if !a.more() {
				return
			}
			session := a.rng.Uint64() | 1
			b := be.AppendUint64([]byte{7 << 3}, session)
			a.segment(f, segment{payload: append(b, 0, 0, 0, 0, 0)})
			for id := uint32(2); id < 6; id++ { // the first never comes
				b := append(be.AppendUint64([]byte{4 << 3}, session), 0)
				b = append(be.AppendUint32(b, id), a.hello[:min(len(a.hello), 400)]...)
				a.segment(f, segment{payload: b})
			}
		}
	}
}

func (a *attack) eapol() {
	for a.more() {
		var b [12]byte
		a.randomise(b[:])
		b[0], b[6] = 2, 2
		packet := eapPacket(1, a.hello)
		frame := append(b[:], 0x88, 0x8e, 2, 0, byte(len(packet)>>8), byte(len(packet)))
		a.raw(append(frame, packet...))
	}
}

// blind sends segments that nobody accepts, in the name of the servers and
// clients of the honest handshakes: the port and the numbers are guessed.
func (a *attack) blind(flags uint8, payload int) {
	data := make([]byte, payload)
	for a.more() {
		c := &a.truth.Connections[a.rng.IntN(len(a.truth.Connections))]
		f := &flow{conv: &conversation{}, mss: 1448, server: c.Server,
			client: netip.AddrPortFrom(c.Client.Addr(), uint16(32768+a.rng.IntN(28000)))}
		if a.rng.IntN(4) == 0 { // one who knows more
			f.client = c.Client
		}
		a.segment(f, segment{dir: uint8(a.rng.IntN(2)), flags: flags, seq: a.rng.Uint32(), ack: a.rng.Uint32(), payload: data})
	}
}
