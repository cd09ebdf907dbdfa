package demux

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/dtls"
	"github.com/oddcert/oddcert/parsers/openvpn"
	"github.com/oddcert/oddcert/parsers/turn"
)

// Framing is how a TCP stream holds packets that mostly go over UDP.
type Framing uint8

const (
	Unframed Framing = iota // not known yet
	OpenVPNFraming
	TURNFraming
	ICEFraming // datagrams with their lengths (RFC 4571), for ICE over TCP (RFC 6544)
)

const (
	Prefix      = 2    // the length of a packet
	longest     = 1400 // no first packet is longer
	vpnShortest = 14

	stunHeader = 20
	stunCookie = "\x21\x12\xa4\x42"
)

// Frame finds what the packet that w begins with is, and how long, with what
// is before and after it. Where it might be several things, it is the first.
// The length is 0 when there are too few bytes.
func Frame(f Framing, w []byte) (Framing, int) {
	first := f == Unframed
	if first || f == OpenVPNFraming {
		if n, ok := vpnLength(w, first); ok {
			return OpenVPNFraming, n
		}
	}
	if first || f == TURNFraming {
		if n, ok := TURNLength(w, first); ok {
			return TURNFraming, n
		}
	}
	if first || f == ICEFraming {
		if n, ok := iceLength(w, first); ok {
			return ICEFraming, n
		}
	}
	return Unframed, 0
}

func vpnLength(w []byte, first bool) (int, bool) {
	if first && w[0] > longest>>8 {
		return 0, false
	}
	if len(w) < Prefix {
		return 0, true
	}
	n := int(binary.BigEndian.Uint16(w))
	if n == 0 || first && (n < vpnShortest || n > longest) {
		return 0, false
	}
	if first && len(w) > Prefix {
		switch w[Prefix] >> 3 {
		case openvpn.HardResetClientV1, openvpn.HardResetServerV1, openvpn.HardResetClientV2, openvpn.HardResetServerV2, openvpn.HardResetClientV3:
		default:
			return 0, false
		}
	}
	return Prefix + n, true
}

// iceLength wants a STUN message first, as ICE does.
func iceLength(w []byte, first bool) (int, bool) {
	if first && w[0] > longest>>8 {
		return 0, false
	}
	if len(w) < Prefix {
		return 0, true
	}
	n := int(binary.BigEndian.Uint16(w))
	if n == 0 || first && (n < stunHeader || n > longest) {
		return 0, false
	}
	if w = w[Prefix:]; first && len(w) > 0 {
		if _, ok := TURNLength(w, true); !ok || len(w) >= 4 && stunHeader+int(binary.BigEndian.Uint16(w[2:])) != n {
			return 0, false
		}
	}
	return Prefix + n, true
}

func TURNLength(w []byte, first bool) (int, bool) {
	switch {
	case w[0]>>6 == 1 && !first:
		if len(w) < 4 {
			return 0, true
		}
		return 4 + (int(binary.BigEndian.Uint16(w[2:]))+3)&^3, true
	case w[0] > 1: // the types in use
		return 0, false
	case len(w) >= 8 && string(w[4:8]) != stunCookie, len(w) >= 4 && w[3]&3 != 0:
		return 0, false
	case len(w) < 8:
		return 0, true
	}
	return stunHeader + int(binary.BigEndian.Uint16(w[2:])), true
}

// Resumes reports whether a packet of the handshake, of n bytes, begins with w, after
// a gap.
func (f Framing) Resumes(w []byte, n int) bool {
	if n == 0 || n > len(w) {
		return false
	}
	switch f {
	case TURNFraming:
		return dtls.Looks(turn.Data(w[:n])) || turn.IsMessage(w)
	case ICEFraming:
		return dtls.Looks(w[Prefix:n]) || turn.IsMessage(w[Prefix:n])
	}
	_, ok := openvpn.Parse(w[Prefix:n])
	return ok
}

// MayBePackets reports whether b, the first bytes of a direction, may be those of
// a stream of packets.
func MayBePackets(b []byte) bool {
	f, _ := Frame(Unframed, b)
	return f != Unframed
}
