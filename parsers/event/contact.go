package event

import "net/netip"

// Contact is a flow to a port of which the number says what probably runs there, and
// that the server has answered.
type Contact struct {
	Server, Client netip.Addr
	Port           uint16 // of the server
	Transport      Transport
	Time           int64 // of the packet that made it certain, nanoseconds since the Unix epoch, UTC
}

// PortOpenVPN is the port that IANA has assigned to OpenVPN, over TCP and UDP.
const PortOpenVPN = 1194
