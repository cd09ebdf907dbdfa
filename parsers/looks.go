package parsers

import (
	"github.com/oddcert/oddcert/parsers/dtls"
	"github.com/oddcert/oddcert/parsers/eap"
	"github.com/oddcert/oddcert/parsers/internal/demux"
	"github.com/oddcert/oddcert/parsers/quic"
)

// LooksSealed reports whether a UDP payload may be encrypted records of DTLS 1.3,
// by themselves or in TURN or CAPWAP. They are of use to a flow whose handshake a
// parser with [Parser.SetKeys] follows, and say nothing by themselves.
func LooksSealed(b []byte) bool { return demux.EncryptedRecords(b) != nil }

// Looks reports, at little cost, whether a UDP payload may belong to a handshake
// in plaintext: DTLS, by itself or in TURN or CAPWAP, QUIC, OpenVPN's control
// channel, EAP in RADIUS, or the beginning of Remote Desktop. Only such payloads
// need to reach a [Conn], and all that follow on the last.
func Looks(b []byte) bool {
	p, _ := demux.Inspect(b)
	return p != demux.None
}

// Starts reports whether a UDP payload may begin a handshake: the flow it is of
// needs a [Conn], whatever was decided about it before.
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

// LooksEAP reports whether an EAP packet is of a method that carries TLS: only
// such packets need to reach a [Conn].
func LooksEAP(b []byte) bool {
	_, ok := eap.Parse(b)
	return ok
}
