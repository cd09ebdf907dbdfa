package parsers

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
	"github.com/oddcert/oddcert/parsers/ja"
	"github.com/oddcert/oddcert/parsers/tls"
)

// offer returns what h offers. Hellos that offer the same share one.
func (p *Parser) offer(h *tls.ClientHello, over ja.Transport) *event.Offer {
	k := append(p.key[:0], byte(over), byte(h.Version>>8), byte(h.Version))
	k = appendBlock(k, h.CipherSuites)
	k = appendBlock(k, h.SupportedGroups)
	k = appendBlock(k, h.PointFormats)
	k = appendBlock(k, h.SignatureAlgorithms)
	k = appendBlock(k, h.SupportedVersions)
	k = appendBlock(k, h.ALPN)
	k = appendTypes(k, h.Extensions)
	p.key = k
	if o, ok := generations.GetBytes(p.clients, k); ok {
		return o
	}
	o := ja.Lists(h)
	o.JA3, o.JA3Raw = ja.JA3(&o)
	o.JA4 = ja.JA4(&o, over)
	cache(p.clients, k, &o)
	return &o
}

// serverHello is what is reported of h. Hellos that are alike in it share one.
func (p *Parser) serverHello(h *tls.ServerHello) *event.ServerHello {
	k := append(p.key[:0], byte(h.LegacyVersion>>8), byte(h.LegacyVersion), byte(h.SelectedVersion>>8), byte(h.SelectedVersion),
		byte(h.CipherSuite>>8), byte(h.CipherSuite))
	k = appendBlock(k, h.ALPN)
	k = appendTypes(k, h.Extensions)
	p.key = k
	if s, ok := generations.GetBytes(p.servers, k); ok {
		return s
	}
	s := &event.ServerHello{Version: h.Version(), CipherSuite: h.CipherSuite, ALPN: string(h.ALPN)}
	s.JA3S, s.JA3SRaw = ja.JA3S(h)
	cache(p.servers, k, s)
	return s
}

// cache remembers what was made of a hello with this key.
func cache[V any](c *generations.Cache[string, V], key []byte, v V) {
	if len(key) <= maxHelloKey {
		c.Put(string(key), v, 1)
	}
}

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
