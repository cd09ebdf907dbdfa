package negotiation

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
	"github.com/oddcert/oddcert/parsers/ja"
	"github.com/oddcert/oddcert/parsers/tls"
)

// offer returns what x offers. Hellos that offer the same share one.
func (s *Shared) offer(x *tls.ClientHello, over ja.Transport) *event.Offer {
	k := append(s.key[:0], byte(over), byte(x.Version>>8), byte(x.Version))
	k = appendBlock(k, x.CipherSuites)
	k = appendBlock(k, x.SupportedGroups)
	k = appendBlock(k, x.PointFormats)
	k = appendBlock(k, x.SignatureAlgorithms)
	k = appendBlock(k, x.SupportedVersions)
	k = appendBlock(k, x.ALPN)
	k = appendTypes(k, x.Extensions)
	s.key = k
	if o, ok := generations.GetBytes(s.clients, k); ok {
		return o
	}
	o := ja.Lists(x)
	o.JA3, o.JA3Raw = ja.JA3(&o)
	o.JA4 = ja.JA4(&o, over)
	remember(s.clients, k, &o)
	return &o
}

// serverHello is what is reported of x. Hellos that are alike in it share one.
func (s *Shared) serverHello(x *tls.ServerHello) *event.ServerHello {
	k := append(s.key[:0], byte(x.LegacyVersion>>8), byte(x.LegacyVersion), byte(x.SelectedVersion>>8), byte(x.SelectedVersion),
		byte(x.CipherSuite>>8), byte(x.CipherSuite))
	k = appendBlock(k, x.ALPN)
	k = appendTypes(k, x.Extensions)
	s.key = k
	if h, ok := generations.GetBytes(s.servers, k); ok {
		return h
	}
	h := &event.ServerHello{Version: x.Version(), CipherSuite: x.CipherSuite, ALPN: string(x.ALPN)}
	h.JA3S, h.JA3SRaw = ja.JA3S(x)
	remember(s.servers, k, h)
	return h
}

// remember caches what was made of a hello with this key.
func remember[V any](c *generations.Cache[string, V], key []byte, v V) {
	if len(key) <= maxHelloKey {
		c.Put(string(key), v, 1)
	}
}

// appendBlock appends b with its length before it.
func appendBlock(k, b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(k, uint16(len(b))), b...)
}

// appendTypes appends the types of a block of extensions.
func appendTypes(k, block []byte) []byte {
	for {
		typ, _, rest, ok := tls.NextExtension(block)
		if !ok {
			return k
		}
		k = binary.BigEndian.AppendUint16(k, typ)
		block = rest
	}
}

// charge charges the flow for n bytes that one message has left behind, unless
// they are as few as mostly.
func (h *Handshake) charge(n int) {
	if n > chargedFrom {
		h.account.Charge(n)
	}
}

// chargeClientHello charges the flow for its ClientHello.
func (h *Handshake) chargeClientHello() {
	x := &h.hello
	h.charge(len(x.ServerName) + 2*(len(x.CipherSuites)+len(x.SupportedVersions)+len(x.Extensions)+len(x.SupportedGroups)+len(x.SignatureAlgorithms)) +
		len(x.PointFormats) + len(x.JA3Raw) + sizeOf(x.ALPN))
}

// chargeAuthorities charges it for the authorities that its server names.
func (h *Handshake) chargeAuthorities() { h.charge(sizeOf(h.AuthorityNames)) }

// sizeOf is what strings take, in bytes.
func sizeOf(list []string) (n int) {
	for _, s := range list {
		n += 16 + len(s)
	}
	return n
}
