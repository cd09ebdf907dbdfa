// Package demux takes TLS out of what carries several conversations, or carries
// them in pieces: UDP payloads of several protocols, packets in a TCP stream,
// numbered pieces of a stream, EAP, Remote Desktop. It keeps what is needed to
// tell which piece follows which, and hands on streams and datagrams.
package demux

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

// Payload is what a UDP payload holds.
type Payload uint8

const (
	None             Payload = iota
	DTLS                     // DTLS
	QUIC                     // QUIC, a packet with a long header
	TURN                     // DTLS in channel data or an indication of TURN
	STUN                     // DTLS in a connectivity check of ICE, which TURN may relay
	CAPWAP                   // DTLS after the preamble of CAPWAP
	OpenVPN                  // a packet of OpenVPN's control channel
	OpenVPNEncrypted         // the first of one that is encrypted
	RADIUS                   // EAP in RADIUS
	RDP                      // the first packet of Remote Desktop, or the answer to it
)

// Carrier is what carries the DTLS of p.
func (p Payload) Carrier() carrier.Carrier {
	switch p {
	case TURN:
		return carrier.TURN
	case STUN:
		return carrier.STUN
	case CAPWAP:
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

// Inspect finds what b holds, and where it is DTLS returns that.
func Inspect(b []byte) (Payload, []byte) {
	if dtls.Looks(b) {
		return DTLS, b
	}
	if quic.Looks(b) {
		return QUIC, nil
	}
	if len(b) < capwapPreambleLength {
		return None, nil
	}
	switch {
	case turn.IsChannel(b) || turn.IsMessage(b):
		data := turn.Data(b)
		if dtls.Looks(data) {
			return TURN, data
		}
		if data == nil {
			data = b
		}
		if data = turn.Embedded(data); dtls.Looks(data) {
			return STUN, data
		}
	case binary.BigEndian.Uint32(b) == capwapPreamble:
		if dtls.Looks(b[capwapPreambleLength:]) {
			return CAPWAP, b[capwapPreambleLength:]
		}
		return None, nil
	}
	if _, ok := openvpn.Parse(b); ok {
		return OpenVPN, nil
	}
	if openvpn.Encrypted(b) {
		return OpenVPNEncrypted, nil
	}
	if _, ok := eap.ParseAccess(b); ok {
		return RADIUS, nil
	}
	if _, ok := rdpudp.ParseSYN(b); ok {
		return RDP, nil
	}
	return None, nil
}

// EncryptedRecords are the encrypted records of DTLS 1.3 that b may be, or hold.
func EncryptedRecords(b []byte) []byte {
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
