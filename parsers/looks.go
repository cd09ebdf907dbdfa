package parsers

import (
	"github.com/oddcert/oddcert/parsers/dtls"
	"github.com/oddcert/oddcert/parsers/eap"
	"github.com/oddcert/oddcert/parsers/internal/demux"
	"github.com/oddcert/oddcert/parsers/quic"
)

// LooksEncrypted reports whether a UDP payload may be encrypted records of DTLS 1.3
// (RFC 9147, section 4), by themselves or in TURN or CAPWAP. They are of use only
// where the handshake of their flow is under way and [Parser.Decrypts] is true.
func LooksEncrypted(b []byte) bool { return demux.EncryptedRecords(b) != nil }

// Looks reports, at little cost, whether a UDP payload may belong to a handshake in
// plaintext: DTLS by itself or in TURN or CAPWAP, QUIC, the control channel of
// OpenVPN, EAP in RADIUS, or the beginning of Remote Desktop. A [Conn] needs only such
// payloads; after the beginning of Remote Desktop it needs all of the flow.
func Looks(b []byte) bool {
	p, _ := demux.Inspect(b)
	return p != demux.None
}

// Starts reports whether a UDP payload may begin a handshake. The [Conn] of its flow
// needs it even after [Done].
func Starts(b []byte) bool {
	switch p, inner := demux.Inspect(b); p {
	case demux.None:
		return false
	case demux.QUIC:
		return quic.Starts(b)
	case demux.OpenVPN, demux.OpenVPNEncrypted, demux.RADIUS, demux.RDP:
		return true
	default:
		return dtls.Starts(inner)
	}
}

// LooksEAP reports whether an EAP packet is of a method that carries TLS. A [Conn]
// needs only such packets.
func LooksEAP(b []byte) bool {
	_, ok := eap.Parse(b)
	return ok
}
