package query

import "net/netip"

// At reports whether p is an address or network that has a, and names no other port.
func (p *Peer) At(a netip.Addr, port uint16) bool { return p.is(a, port) }

// Named reports whether p is a name, and the name that a client asks for is that one or
// below it.
func (p *Peer) Named(name string) bool { return p.named(name) }
