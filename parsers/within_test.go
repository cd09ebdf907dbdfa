package parsers

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/eap"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/demux"
	"github.com/oddcert/oddcert/parsers/internal/dtlsrecord"
	"github.com/oddcert/oddcert/parsers/rdpudp"
)

// vpnPackets puts a handshake into packets of OpenVPN's control channel with n bytes
// of payload each. Each is acknowledged, and has a digest of tls-auth.
func vpnPackets(chunks []chunk, n, digest int, key uint8) (out []chunk) {
	session := [2]uint64{0x38334857703d96db, 0x40d31c3a6964602f}
	var id, replay [2]uint32
	packet := func(d event.Direction, opcode uint8, acks []uint32, id int, payload []byte) {
		b := append([]byte{opcode<<3 | key}, binary.BigEndian.AppendUint64(nil, session[d])...)
		if digest > 0 {
			sum := sha256.Sum256(payload)
			b = append(b, bytes.Repeat(sum[:], 2)[:digest]...)
			replay[d]++
			b = binary.BigEndian.AppendUint32(b, replay[d])
			b = binary.BigEndian.AppendUint32(b, 0x5e3e7b98)
		}
		b = append(b, byte(len(acks)))
		for _, a := range acks {
			b = binary.BigEndian.AppendUint32(b, a)
		}
		if len(acks) > 0 {
			b = binary.BigEndian.AppendUint64(b, session[d.Other()])
		}
		if id >= 0 {
			b = binary.BigEndian.AppendUint32(b, uint32(id))
		}
		out = append(out, chunk{d, append(b, payload...)})
	}
	packet(0, 7, nil, 0, nil)
	packet(1, 8, []uint32{0}, 0, nil)
	packet(0, 5, []uint32{0}, -1, nil)
	for i, ch := range chunks {
		for part := range slices.Chunk(ch.b, n) {
			id[ch.d]++
			var acks []uint32
			if last := id[ch.d.Other()]; i%2 == 1 && last > 0 {
				acks = []uint32{last}
			}
			packet(ch.d, 4, acks, int(id[ch.d]), part)
			packet(ch.d.Other(), 5, []uint32{id[ch.d]}, -1, nil)
		}
	}
	return out
}

// accessPackets returns the RADIUS packets of a handshake in EAP fragments of n bytes.
// The State attribute of the server identifies the user.
func accessPackets(chunks []chunk, n int, method uint8, user byte) (out []chunk) {
	eapID, radiusID := byte(250), user*16
	round := byte(0)
	packet := func(d event.Direction, flags byte, total int, data []byte) {
		code, eapCode := byte(1), byte(2)
		if d == 1 {
			code, eapCode = 11, 1
		}
		e := []byte{eapCode, eapID, 0, 0, method, flags}
		if flags&0x80 != 0 {
			e = binary.BigEndian.AppendUint32(e, uint32(total))
		}
		e = append(e, data...)
		binary.BigEndian.PutUint16(e[2:], uint16(len(e)))
		if d == 0 {
			radiusID++
		}
		b := append([]byte{code, radiusID, 0, 0}, bytes.Repeat([]byte{user}, 16)...)
		b = append(b, 1, 5, 'b', 'o', 'b')
		for part := range slices.Chunk(e, 253) {
			b = append(append(b, 79, byte(2+len(part))), part...)
		}
		if d == 1 {
			round++
		}
		b = append(b, 24, 4, user, round)
		b = append(b, 80, 18)
		b = append(b, make([]byte, 16)...)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		out = append(out, chunk{d, b})
	}
	turn := event.Direction(1)
	say := func(d event.Direction, flags byte, total int, data []byte) {
		if turn != d { // an empty answer, to have the turn
			packet(turn, 0, 0, nil)
			turn = d
			if d == 1 {
				eapID++
			}
		}
		packet(d, flags, total, data)
		if turn = d.Other(); turn == 1 {
			eapID++
		}
	}
	say(1, 0x20, 0, nil)
	for i := 0; i < len(chunks); {
		d := chunks[i].d
		var flight []byte
		for ; i < len(chunks) && chunks[i].d == d; i++ {
			flight = append(flight, chunks[i].b...)
		}
		for at := 0; at < len(flight); at += n {
			flags := byte(0)
			if at == 0 && len(flight) > n {
				flags = 0x80
			}
			if at+n < len(flight) {
				flags |= 0x40
			}
			say(d, flags, len(flight), flight[at:min(at+n, len(flight))])
		}
	}
	return out
}

// eapPackets are the EAP packets of a handshake in fragments of n bytes.
func eapPackets(chunks []chunk, n int, method uint8) (out []chunk) {
	for _, ch := range accessPackets(chunks, n, method, 1) {
		if a, ok := eap.ParseAccess(ch.b); ok {
			out = append(out, chunk{ch.d, a.AppendEAP(nil)})
		}
	}
	return out
}

// turned puts datagrams into TURN, in several ways by turns.
func turned(l []chunk, stream bool) (out []chunk) {
	for i, ch := range l {
		var b []byte
		if i%3 == 0 {
			b = append([]byte{0, 0x16 + byte(ch.d), 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)
			b = append(b, 0, 0x12, 0, 8, 0, 1, 1, 2, 3, 4, 5, 6)
			b = append(append(b, 0, 0x13, byte(len(ch.b)>>8), byte(len(ch.b))), ch.b...)
			b = append(b, make([]byte, -len(ch.b)&3)...)
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)-20))
		} else {
			b = append([]byte{0x40, 0, byte(len(ch.b) >> 8), byte(len(ch.b))}, ch.b...)
			if stream {
				b = append(b, make([]byte, -len(ch.b)&3)...)
			}
		}
		out = append(out, chunk{ch.d, b})
	}
	return out
}

// embedded puts datagrams into the connectivity checks of ICE: requests of the
// client, and answers of the server, except every fifth, which stays as it is.
func embedded(l []chunk) (out []chunk) {
	for i, ch := range l {
		if i%5 == 4 {
			out = append(out, ch)
			continue
		}
		b := append([]byte{byte(ch.d), 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)
		b = append(b, 0, 6, 0, 3, 'a', ':', 'b', 0, 0xc0, 0x71, 0, 4, 1, 2, 3, byte(i))
		b = append(append(b, 0xc0, 0x70, byte(len(ch.b)>>8), byte(len(ch.b))), ch.b...)
		b = append(append(b, make([]byte, -len(ch.b)&3)...), 0x80, 0x28, 0, 4, 1, 2, 3, 4)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)-20))
		out = append(out, chunk{ch.d, b})
	}
	return out
}

// within returns the ways to put a handshake into datagrams, each with the name of its
// carrier.
func within(t testing.TB) map[string]func(cert *tls.Certificate) []chunk {
	stream := func(cert *tls.Certificate) []chunk {
		client, server := configs(tls.VersionTLS12, rsaKey())
		*cert = server.Certificates[0]
		return handshake(t, client, server)
	}
	datagram := func(cert *tls.Certificate) []chunk {
		l, chain := dtlsSample(t)
		cert.Certificate = chain
		return datagrams(l, 300)
	}
	m := map[string]func(*tls.Certificate) []chunk{
		"turn":      func(cert *tls.Certificate) []chunk { return turned(datagram(cert), false) },
		"stun":      func(cert *tls.Certificate) []chunk { return embedded(datagram(cert)) },
		"stun turn": func(cert *tls.Certificate) []chunk { return turned(embedded(datagram(cert)), false) },
		"capwap": func(cert *tls.Certificate) []chunk {
			l := datagram(cert)
			for i := range l {
				l[i].b = append([]byte{1, 0, 0, 0}, l[i].b...)
			}
			return l
		},
	}
	for _, digest := range []int{0, 16, 20, 32, 64} {
		m[fmt.Sprint("openvpn ", digest)] = func(cert *tls.Certificate) []chunk { return vpnPackets(stream(cert), 100, digest, 0) }
	}
	m["rdp-udp"] = func(cert *tls.Certificate) []chunk {
		return rdpPackets(stream(cert), 500, rdpudp.Version2, false, false)
	}
	m["rdp-udp 3"] = func(cert *tls.Certificate) []chunk {
		return rdpPackets(stream(cert), 500, rdpudp.Version3, false, false)
	}
	m["rdp-udp lossy"] = func(cert *tls.Certificate) []chunk {
		return rdpPackets(datagram(cert), 0, rdpudp.Version1, true, false)
	}
	for method, name := range map[uint8]string{eap.TLS: "eap-tls", eap.TTLS: "eap-ttls", eap.PEAP: "peap"} {
		m[name] = func(cert *tls.Certificate) []chunk { return accessPackets(stream(cert), 400, method, 1) }
	}
	return m
}

// playWithin gives datagrams, as flow does, to a new flow.
func playWithin(t testing.TB, l []chunk) []*event.Handshake {
	t.Helper()
	s := newSensor()
	c := s.Open(testFlow(event.UDP))
	followed, v := false, NeedMore
	for i, ch := range l {
		b := bytes.Clone(ch.b)
		if _, begins := rdpudp.ParseSYN(b); begins {
			followed = true
		}
		if (followed || Looks(b)) && (v != Done || Starts(b)) {
			v = c.Datagram(ch.d, event.Moment{Time: int64(i), Frame: uint64(i + 1)}, b)
			clear(b)
		}
	}
	c.Close(event.EndOfInput)
	s.check(t)
	return s.got
}

func TestWithinDatagrams(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for name, build := range within(t) {
		var cert tls.Certificate
		l := build(&cert)
		carrier, _, _ := strings.Cut(name, " ")
		for order, l := range map[string][]chunk{
			"in order": l,
			"twice":    twice(l),
			"shuffled": shuffled(r, l, carrier),
		} {
			h := one(t, playWithin(t, l))
			if h.Carrier != carrier || h.Outcome != event.Extracted || !h.Established || h.Client != 0 || h.ClientHello.ServerName != serverName {
				t.Errorf("%s, %s: carrier %q, outcome %v, established %v", name, order, h.Carrier, h.Outcome, h.Established)
			}
			wantChain(t, h.Chain, cert.Certificate)
			if datagram := carrier == "turn" || carrier == "stun" || carrier == "capwap" || name == "rdp-udp lossy"; h.Datagram != datagram {
				t.Errorf("%s: datagram %v", name, h.Datagram)
			}
		}
		known := map[[32]byte]bool{}
		for _, der := range cert.Certificate {
			known[sha256.Sum256(der)] = true
		}
		for range 200 { // some are missing
			kept := slices.DeleteFunc(slices.Clone(l), func(chunk) bool { return r.IntN(10) == 0 })
			for _, h := range playWithin(t, kept) {
				for _, e := range h.Chain {
					if !e.Truncated && !known[e.SHA256] {
						t.Fatalf("%s: a certificate that nobody sent", name)
					}
				}
			}
		}
	}
}

func twice(l []chunk) (out []chunk) {
	for _, ch := range l {
		out = append(out, ch, ch)
	}
	return out
}

// shuffled lets packets of one direction overtake others of it, where the
// carrier allows that.
func shuffled(r *rand.Rand, l []chunk, carrier string) []chunk {
	l = slices.Clone(l)
	if carrier != "openvpn" && carrier != "rdp-udp" {
		return l
	}
	for at := 3; at < len(l); at += 6 {
		part := l[at:min(at+6, len(l))]
		r.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
	}
	return l
}

// Many sessions at once on one five-tuple are told apart.
func TestSessionsOnOneFlow(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	client, server := configs(tls.VersionTLS12, rsaKey())
	var users [][]chunk
	for user := range byte(6) {
		users = append(users, accessPackets(handshake(t, client, server), 300, eap.PEAP, user))
	}
	var l []chunk
	for len(users) > 0 {
		i := r.IntN(len(users))
		l = append(l, users[i][0])
		if users[i] = users[i][1:]; len(users[i]) == 0 {
			users = slices.Delete(users, i, i+1)
		}
	}
	got := playWithin(t, l)
	if len(got) != 6 {
		t.Errorf("%d handshakes of 6 users", len(got))
	}
	for i, h := range got {
		if h.Index != i || h.Outcome != event.Extracted || h.Carrier != "peap" {
			t.Errorf("%d: index %d, outcome %v, carrier %s", i, h.Index, h.Outcome, h.Carrier)
		}
		wantChain(t, h.Chain, server.Certificates[0].Certificate)
	}
	again := slices.Concat(vpnPackets(handshake(t, client, server), 700, 0, 0), vpnPackets(handshake(t, client, server), 700, 0, 1))
	if got := playWithin(t, again); len(got) != 2 || got[0].Outcome != event.Extracted || got[1].Outcome != event.Extracted {
		t.Errorf("%d handshakes of two keys", len(got))
	}
	// More users than are followed at a time do not disturb one another.
	l = nil
	for user := range byte(200) {
		l = append(l, chunk{1, accessPackets(nil, 300, eap.PEAP, user)[0].b})
	}
	l = append(l, accessPackets(handshake(t, client, server), 300, eap.PEAP, 255)...)
	if h := one(t, playWithin(t, l)); h.Outcome != event.Extracted {
		t.Errorf("outcome %v", h.Outcome)
	}
}

// playEAP gives EAP packets, as flow does, to a new flow between MAC addresses.
func playEAP(t testing.TB, l []chunk) []*event.Handshake {
	t.Helper()
	s := newSensor()
	c := s.Open(&event.Flow{Transport: event.EAPOL})
	for i, ch := range l {
		if b := bytes.Clone(ch.b); LooksEAP(b) {
			c.Datagram(ch.d, event.Moment{Time: int64(i), Frame: uint64(i + 1)}, b)
			clear(b)
		}
	}
	c.Close(event.EndOfInput)
	s.check(t)
	return s.got
}

func TestEAPOL(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	client, server := configs(tls.VersionTLS12, rsaKey())
	cert := server.Certificates[0].Certificate
	identity := chunk{0, []byte("\x02\xf9\x00\x08\x01bob")}
	for method, name := range map[uint8]string{eap.TLS: "eap-tls", eap.TTLS: "eap-ttls", eap.PEAP: "peap"} {
		l := append([]chunk{identity}, eapPackets(handshake(t, client, server), 300, method)...)
		for order, l := range map[string][]chunk{"in order": l, "twice": twice(l)} {
			h := one(t, playEAP(t, l))
			if h.Carrier != name || h.Outcome != event.Extracted || !h.Established || h.Datagram || h.Client != 0 {
				t.Errorf("%s, %s: carrier %q, outcome %v, established %v", name, order, h.Carrier, h.Outcome, h.Established)
			}
			wantChain(t, h.Chain, cert)
		}
		for range 100 { // some are missing, some are cut
			kept := slices.DeleteFunc(slices.Clone(l), func(chunk) bool { return r.IntN(10) == 0 })
			for i := range kept {
				if r.IntN(10) == 0 {
					kept[i].b = kept[i].b[:r.IntN(len(kept[i].b))]
				}
			}
			for _, h := range playEAP(t, kept) {
				for i, e := range h.Chain {
					if !e.Truncated && !bytes.Equal(e.DER, cert[i]) {
						t.Fatalf("%s: a certificate that nobody sent", name)
					}
				}
			}
		}
	}
	// Another method is refused first. Then the user signs in again and again, the
	// last time without the packet that begins it.
	refused := eapPackets(nil, 300, eap.TEAP)
	l := slices.Concat(refused, []chunk{{0, []byte("\x02\xfa\x00\x06\x03\x19")}})
	for i := range 3 {
		again := eapPackets(handshake(t, client, server), 300, eap.PEAP)
		for _, ch := range again {
			ch.b[1] += byte(100 * i)
		}
		l = append(l, again[i/2:]...)
	}
	got := playEAP(t, l)
	if len(got) != 3 {
		t.Errorf("%d handshakes of 3", len(got))
	}
	for i, h := range got {
		if h.Index != i || h.Outcome != event.Extracted {
			t.Errorf("%d: index %d, outcome %v", i, h.Index, h.Outcome)
		}
		wantChain(t, h.Chain, cert)
	}
}

// lengthened puts packets into a stream with their lengths before them.
func lengthened(l []chunk) (out []chunk) {
	for _, ch := range l {
		out = append(out, chunk{ch.d, append(binary.BigEndian.AppendUint16(nil, uint16(len(ch.b))), ch.b...)})
	}
	return out
}

func TestPacketsOverTCP(t *testing.T) {
	client, server := configs(tls.VersionTLS12, rsaKey())
	chunks := handshake(t, client, server)
	data := chunk{1, append([]byte{9<<3 | 1, 0, 0, 1}, make([]byte, 1300)...)}
	datagramChunks, chain := dtlsSample(t)
	for _, c := range []struct {
		name, carrier string
		l             []chunk
		chain         [][]byte
	}{
		{"openvpn", "openvpn", lengthened(append(vpnPackets(chunks, 900, 0, 0), data, data)), server.Certificates[0].Certificate},
		{"openvpn, tls-auth", "openvpn", lengthened(append(vpnPackets(chunks, 900, 20, 0), data, data)), server.Certificates[0].Certificate},
		{"turn", "turn", turned(datagrams(datagramChunks, 300), true), chain},
		{"openvpn after CONNECT", "openvpn", afterProxy(vpnPackets(chunks, 900, 20, 0), "CONNECT a:1194 HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n"), server.Certificates[0].Certificate},
		{"openvpn after SOCKS 5", "openvpn", afterProxy(vpnPackets(chunks, 900, 0, 0), "\x05\x01\x00", "\x05\x00", "\x05\x01\x00\x01\xc0\x00\x02\x07\x04\xaa", "\x05\x00\x00\x01\xc0\x00\x02\x07\x04\xaa"), server.Certificates[0].Certificate},
		{"turn after PROXY", "turn", slices.Concat(talk("PROXY UNKNOWN\r\n"), []chunk{{0, stun(3, "")}, {1, stun(0x103, "")}}, turned(datagrams(datagramChunks, 300), true)), chain},
		{"turn, relayed", "turn", relayed(chunks), server.Certificates[0].Certificate},
		{"ice", "dtls", iced(datagrams(datagramChunks, 300)), chain},
		{"stun in turn", "stun", turned(embedded(datagrams(datagramChunks, 300)), true), chain},
		{"stun in ice", "stun", iced(embedded(datagrams(datagramChunks, 300))), chain},
	} {
		r := rand.New(rand.NewPCG(1, 2))
		for k := range 40 {
			got := split(t, c.l, func(n int) int {
				if k < 20 {
					return min(n, k+1)
				}
				return 1 + r.IntN(n)
			})
			h := one(t, got)
			if h.Outcome != event.Extracted || h.Carrier != c.carrier || !h.Established {
				t.Fatalf("%s: outcome %v, carrier %s, established %v", c.name, h.Outcome, h.Carrier, h.Established)
			}
			wantChain(t, h.Chain, c.chain)
		}
		// The stream does not end at a gap: what comes after it is read again.
		for from := 400; from < len(stream(1, c.l)); from += 97 {
			got := punctured(t, c.l, 1, false, r, 3000, hole{from, from + 50})
			for _, h := range got {
				for _, e := range h.Chain {
					if !e.Truncated && !slices.ContainsFunc(c.chain, func(der []byte) bool { return bytes.Equal(der, e.DER) }) {
						t.Fatalf("%s, hole at %d: a certificate that nobody sent", c.name, from)
					}
				}
			}
		}
	}
	// The flow is done when the data channel begins.
	s := newSensor()
	c := s.Open(testFlow(event.TCP))
	v := NeedMore
	for _, ch := range lengthened(append(vpnPackets(chunks, 900, 0, 0), data)) {
		v = c.Segment(ch.d, still, ch.b)
	}
	if v != Done {
		t.Error("not done when the tunnel is open")
	}
	c.Close(event.EndOfInput)
	s.check(t)
}

// stun is a message of STUN (RFC 8489, section 5).
func stun(typ uint16, attributes string) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, typ), uint16(len(attributes)))
	return append(append(b, "\x21\x12\xa4\x42abcdefghijkl"...), attributes...)
}

// iced are the packets of a connection of ICE over TCP.
func iced(l []chunk) []chunk {
	media := append([]byte{0x80, 96}, make([]byte, 200)...)
	return lengthened(slices.Concat([]chunk{{0, stun(1, "\x00\x06\x00\x04user")}, {1, stun(0x101, "")}, {0, media}}, l, []chunk{{1, media}}))
}

// relayed returns a stream that a TURN server relays after it knows the user.
func relayed(l []chunk) []chunk {
	id := "\x00\x2a\x00\x04\x12\x34\x56\x78"
	return slices.Concat([]chunk{{0, stun(0x0b, id)}, {1, stun(0x11b, "\x00\x09\x00\x04\x00\x00\x04\x01")}, {0, stun(0x0b, id)}, {1, stun(0x10b, "")}}, l)
}

// afterProxy returns a stream of packets after the talk with a proxy.
func afterProxy(l []chunk, turns ...string) []chunk {
	return slices.Concat(talk(turns...), lengthened(l))
}

// What is encrypted as a whole is counted, once.
func TestEncryptedControlChannel(t *testing.T) {
	reset := append([]byte{7 << 3}, bytes.Repeat([]byte{9}, 8)...)
	reset = append(reset, 0, 0, 0, 1, 0x66, 1, 2, 3)
	reset = append(reset, bytes.Repeat([]byte{0xaa}, 37)...)
	s := newSensor()
	c := s.Open(testFlow(event.UDP))
	for range 3 {
		if !Looks(reset) {
			t.Fatal("not seen")
		}
		c.Datagram(0, still, reset)
	}
	c.Close(event.EndOfInput)
	c = s.Open(testFlow(event.TCP))
	if c.Segment(0, still, lengthened([]chunk{{0, reset}})[0].b) != Done {
		t.Error("not done")
	}
	c.Close(event.EndOfInput)
	s.check(t)
	if s.Stats().Opaque != 2 || len(s.got) > 0 {
		t.Errorf("%d counted, %d handshakes", s.Stats().Opaque, len(s.got))
	}
}

// A stream that only begins like a stream of packets loses nothing.
func TestNoPacketStream(t *testing.T) {
	client, server := configs(tls.VersionTLS12, rsaKey())
	l := handshake(t, client, server)
	for _, begin := range []string{"\x00", "\x00\x0e", "\x00\x0e\x38", "\x00\x0e\x38abcdefghijklm", "\x00\x01\x00\x00\x21\x12\xa4"} {
		talk := append([]chunk{{0, []byte(begin)}, {1, []byte(begin)}, {0, []byte("....")}, {1, []byte("....")}}, l...)
		if h := one(t, play(t, talk, event.EndOfInput)); h.Outcome != event.Extracted {
			t.Errorf("%q: outcome %v", begin, h.Outcome)
		}
	}
}

// Looks allocates nothing, and is rarely true for other protocols.
func TestLooksAtOthers(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	b := make([]byte, 1200)
	wrong := 0
	for range 200_000 {
		for i := 0; i < 120; i += 8 {
			binary.LittleEndian.PutUint64(b[i:], r.Uint64())
		}
		if Looks(b) {
			wrong++
		}
	}
	if wrong > 3 {
		t.Errorf("%d of 200,000 random payloads look like a handshake", wrong)
	}
	for name, build := range within(t) {
		var cert tls.Certificate
		l := build(&cert)
		if a := testing.AllocsPerRun(10, func() {
			for _, ch := range l {
				Looks(ch.b)
				Starts(ch.b)
			}
			Looks(b)
		}); a > 0 {
			t.Errorf("%s: %v allocations", name, a)
		}
	}
}

func BenchmarkLooks(b *testing.B) {
	r := rand.New(rand.NewPCG(11, 12))
	payloads := make([][]byte, 256)
	for i := range payloads {
		payloads[i] = make([]byte, 1200)
		for j := range payloads[i] {
			payloads[i][j] = byte(r.Uint32())
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		Looks(payloads[i%len(payloads)])
	}
}

// FuzzWithin gives datagrams to a UDP flow, EAP packets to a flow between MAC
// addresses, and streams to a TCP flow.
func FuzzWithin(f *testing.F) {
	for _, build := range within(f) {
		var cert tls.Certificate
		l := build(&cert)
		for _, l := range [][]chunk{l, lengthened(l), iced(l), relayed(l), afterProxy(l, "CONNECT a:1 HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n")} {
			var script []byte
			for i, d := range l {
				if script = appendStep(script, d.d, stepBytes, d.b); i == 9 {
					script = append(script, byte(d.d)|stepGap<<1, 0, 30)
				}
			}
			f.Add(script[:min(len(script), 6000)])
		}
	}
	var script []byte
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	for _, d := range eapPackets(handshake(f, client, server), 200, eap.TLS) {
		script = appendStep(script, d.d, stepBytes, d.b)
	}
	f.Add(script)
	s := newSensor()
	f.Fuzz(func(t *testing.T, script []byte) {
		for _, transport := range []event.Transport{event.UDP, event.EAPOL, event.TCP} {
			s.got = s.got[:0]
			c := s.Open(testFlow(transport))
			var input [2][]byte
			for b := script; ; {
				d, kind, n, data, rest, ok := step(b)
				if !ok {
					break
				}
				b = rest
				switch {
				case kind == stepGap && transport == event.TCP:
					c.Gap(d, still, n)
				case transport != event.TCP:
					input[d] = append(input[d], data...)
					c.Datagram(d, still, data)
				default:
					input[d] = append(input[d], data...)
					c.Segment(d, still, data)
				}
				if limit := 512*2*(dtlsrecord.MaxPending+maxSessions*2*demux.MaxPiecesHeld) + 4*len(script); s.records.Pool.Lent() > limit {
					t.Fatalf("%d bytes held for %d", s.records.Pool.Lent(), len(script))
				}
				if c.sessions != nil && len(*c.sessions) > maxSessions {
					t.Fatalf("%d sessions", len(*c.sessions))
				}
			}
			c.Close(event.EndOfInput)
			sane(t, s, input, true)
		}
	})
}
