package parsers

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/dtls"
	"github.com/oddcert/oddcert/parsers/eap"
	"github.com/oddcert/oddcert/parsers/openvpn"
	"github.com/oddcert/oddcert/parsers/quic"
	"github.com/oddcert/oddcert/parsers/rdpudp"
	"github.com/oddcert/oddcert/parsers/tls13"
	"github.com/oddcert/oddcert/parsers/turn"
)

// payload is what a UDP payload holds.
type payload uint8

const (
	noPayload      payload = iota
	dtlsPayload            // DTLS
	quicPayload            // QUIC, a packet with a long header
	turnPayload            // DTLS in channel data or an indication of TURN
	stunPayload            // DTLS in a connectivity check of ICE, which TURN may relay
	capwapPayload          // DTLS behind the preamble of CAPWAP
	openvpnPayload         // a packet of OpenVPN's control channel
	cryptPayload           // the first of one that is encrypted
	radiusPayload          // EAP in RADIUS
	rdpPayload             // the first packet of Remote Desktop, or the answer to it
)

// carrier is what carries the DTLS of p.
func (p payload) carrier() carrier.Carrier {
	switch p {
	case turnPayload:
		return carrier.TURN
	case stunPayload:
		return carrier.STUN
	case capwapPayload:
		return carrier.CAPWAP
	}
	return carrier.None
}

// capwapPreamble comes before DTLS (RFC 5415, section 4.2), and
// capwapPreambleLength is how long it is.
const (
	capwapPreamble       = 0x01000000
	capwapPreambleLength = 4
)

// inspect tells what b holds, and where it is DTLS returns that.
func inspect(b []byte) (payload, []byte) {
	if dtls.Looks(b) {
		return dtlsPayload, b
	}
	if quic.Looks(b) {
		return quicPayload, nil
	}
	if len(b) < capwapPreambleLength {
		return noPayload, nil
	}
	switch {
	case turn.IsChannel(b) || turn.IsMessage(b):
		data := turn.Data(b)
		if dtls.Looks(data) {
			return turnPayload, data
		}
		if data == nil {
			data = b
		}
		if data = turn.Embedded(data); dtls.Looks(data) {
			return stunPayload, data
		}
	case binary.BigEndian.Uint32(b) == capwapPreamble:
		if dtls.Looks(b[capwapPreambleLength:]) {
			return capwapPayload, b[capwapPreambleLength:]
		}
		return noPayload, nil
	}
	if _, ok := openvpn.Parse(b); ok {
		return openvpnPayload, nil
	}
	if openvpn.Encrypted(b) {
		return cryptPayload, nil
	}
	if _, ok := eap.ParseAccess(b); ok {
		return radiusPayload, nil
	}
	if _, ok := rdpudp.ParseSYN(b); ok {
		return rdpPayload, nil
	}
	return noPayload, nil
}

// sealedRecords are the encrypted records of DTLS 1.3 that b may be, or hold.
func sealedRecords(b []byte) []byte {
	inner := b
	switch {
	case len(b) < capwapPreambleLength:
		return nil
	case turn.IsChannel(b) || turn.IsMessage(b):
		if inner = turn.Data(b); inner == nil {
			inner = b
		}
		if turn.IsMessage(inner) {
			inner = turn.Embedded(inner)
		}
	case len(b) > capwapPreambleLength && binary.BigEndian.Uint32(b) == capwapPreamble:
		inner = b[capwapPreambleLength:]
	}
	if !tls13.IsUnified(inner) {
		return nil
	}
	return inner
}

// LooksSealed reports whether a UDP payload may be encrypted records of DTLS 1.3,
// by themselves or in TURN or CAPWAP. They are of use to a flow whose handshake a
// parser with [Parser.Keys] follows, and say nothing by themselves.
func LooksSealed(b []byte) bool { return sealedRecords(b) != nil }

// Looks tells, at little cost, whether a UDP payload may belong to a handshake
// in plaintext: DTLS, by itself or in TURN or CAPWAP, QUIC, OpenVPN's control
// channel, EAP in RADIUS, or the beginning of Remote Desktop. Only such payloads
// need to reach a [Conn], and all that follow on the last.
func Looks(b []byte) bool {
	p, _ := inspect(b)
	return p != noPayload
}

// Starts reports whether a UDP payload may begin a handshake: the flow it is of
// needs a [Conn], whatever was decided about it before.
func Starts(b []byte) bool {
	switch p, inner := inspect(b); p {
	case noPayload:
		return false
	case quicPayload:
		return quic.Starts(b)
	case openvpnPayload, cryptPayload, radiusPayload, rdpPayload:
		return true
	default:
		return dtls.Starts(inner)
	}
}
