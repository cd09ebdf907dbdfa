// Package openvpn reads the control channel of OpenVPN (OpenVPN wire protocol,
// draft-openvpn-wire-protocol): packets with the pieces of a TLS stream. Bytes
// in, structs out: it keeps no state, and what it returns points into what it
// was given.
package openvpn

import "encoding/binary"

// The opcodes of the control channel.
const (
	HardResetClientV1 = 1
	HardResetServerV1 = 2
	SoftReset         = 3
	Control           = 4
	Ack               = 5
	HardResetClientV2 = 7
	HardResetServerV2 = 8
	HardResetClientV3 = 10
)

// IsData reports whether a packet that begins with b is one of the data channel.
func IsData(b byte) bool { return b>>3 == dataV1 || b>>3 == dataV2 }

const (
	dataV1 = 6
	dataV2 = 9

	sessionLength = 8
	replayLength  = 8 // a packet number and a time
	idLength      = 4

	shortest = 1 + sessionLength + 1 + idLength

	maxAcks = 8       // of one packet
	maxID   = 1 << 20 // of a packet: the control channel is not a bulk transfer
	// A time in a packet is from 1999 to 2106, less some.
	minTime, maxTime = 0x38000000, 0xf0000000

	cryptHMAC = 32 // of tls-crypt

	// What the first packet of a client counts from that offers to agree on the
	// rest early, with tls-crypt-v2 (OpenVPN 2.6).
	early = 0x0f000000
)

// digests are the lengths of the HMACs of tls-auth; 0 is without it.
var digests = [...]int{0, 20, 32, 64, 16, 28, 48}

// Packet is one packet of the control channel.
type Packet struct {
	Opcode  uint8
	Key     uint8 // which of the TLS sessions of a session, 0 to 7
	Session uint64
	Peer    uint64 // the session of the other side; only with Acks
	Acks    int    // how many packets it acknowledges
	ID      uint32 // number of the packet; not of an Ack
	Payload []byte // a piece of the TLS stream, by ID
	Digest  int    // length of the HMAC of tls-auth, 0 without
}

// Reset reports whether p begins a session, or another TLS session within one.
func (p *Packet) Reset() bool { return p.Opcode != Control && p.Opcode != Ack }

// Parse reads a packet. What is encrypted by tls-crypt is not one, and neither is
// one of the data channel.
func Parse(b []byte) (Packet, bool) {
	if len(b) < shortest || !isControl(b[0]>>3) {
		return Packet{}, false
	}
	for _, digest := range digests {
		if p, ok := parse(b, digest); ok {
			return p, true
		}
	}
	return Packet{}, false
}

func isControl(opcode uint8) bool {
	switch opcode {
	case HardResetClientV1, HardResetServerV1, SoftReset, Control, Ack, HardResetClientV2, HardResetServerV2, HardResetClientV3:
		return true
	}
	return false
}

func parse(b []byte, digest int) (p Packet, ok bool) {
	p = Packet{Opcode: b[0] >> 3, Key: b[0] & 7, Session: binary.BigEndian.Uint64(b[1:]), Digest: digest}
	b = b[1+sessionLength:]
	if digest > 0 {
		if len(b) < digest+replayLength || !isReplay(b[digest:]) {
			return p, false
		}
		b = b[digest+replayLength:]
	}
	if len(b) == 0 || b[0] > maxAcks {
		return p, false
	}
	p.Acks = int(b[0])
	b = b[1:]
	if p.Acks > 0 {
		if len(b) < 4*p.Acks+sessionLength {
			return p, false
		}
		for range p.Acks {
			if binary.BigEndian.Uint32(b) >= maxID {
				return p, false
			}
			b = b[4:]
		}
		p.Peer = binary.BigEndian.Uint64(b)
		b = b[sessionLength:]
	}
	if p.Opcode == Ack {
		return p, p.Acks > 0 && len(b) == 0
	}
	if len(b) < idLength {
		return p, false
	}
	p.ID, p.Payload = binary.BigEndian.Uint32(b), b[idLength:]
	if p.Reset() {
		return p, p.ID == 0 && len(p.Payload) == 0 && p.Session != 0
	}
	return p, p.ID < maxID && p.Session != 0
}

// isReplay reports whether b begins with the number and the time of a packet.
func isReplay(b []byte) bool {
	number, time := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	return number > 0 && number < maxID && time >= minTime && time < maxTime
}

// Encrypted reports whether b is the first packet of a client that encrypts the
// control channel (tls-crypt, tls-crypt-v2), or a server's answer to it: nothing of the
// TLS in it shows.
func Encrypted(b []byte) bool {
	const reset = 1 + sessionLength + replayLength + cryptHMAC + 1 + idLength
	const answer = reset + idLength + sessionLength // it acknowledges the client's packet
	if len(b) < reset {
		return false
	}
	replay := b[1+sessionLength:]
	if b[0] == HardResetServerV2<<3 {
		return len(b) == answer && isReplay(replay)
	}
	if !isReplay(replay) && binary.BigEndian.Uint32(replay) != early+1 {
		return false
	}
	switch b[0] {
	case HardResetClientV2 << 3:
		return len(b) == reset
	case HardResetClientV3 << 3: // with the wrapped key, whose length comes last
		return len(b) == reset+int(binary.BigEndian.Uint16(b[len(b)-2:]))
	}
	return false
}
