package parsers

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// generations is a cache that forgets: when the young generation is full it
// becomes the old one, and the old one goes.
type generations[V any] struct {
	young, old map[string]V
}

func (g *generations[V]) get(key []byte) (v V, ok bool) {
	if v, ok = g.young[string(key)]; ok {
		return v, true
	}
	if v, ok = g.old[string(key)]; ok {
		g.put(key, v)
	}
	return v, ok
}

func (g *generations[V]) put(key []byte, v V) {
	if len(key) > maxHelloKey {
		return
	}
	if g.young == nil || len(g.young) >= cachedHellos/2 {
		g.old, g.young = g.young, make(map[string]V)
	}
	g.young[string(key)] = v
}

// offer returns what h offers. Hellos that are alike in it share one.
func (p *Parser) offer(h *tls.ClientHello, carrier byte) *event.Offer {
	k := append(p.key[:0], carrier, byte(h.Version>>8), byte(h.Version))
	k = appendBlock(k, h.CipherSuites)
	k = appendBlock(k, h.SupportedGroups)
	k = appendBlock(k, h.PointFormats)
	k = appendBlock(k, h.SignatureAlgorithms)
	k = appendBlock(k, h.SupportedVersions)
	k = appendBlock(k, h.ALPN)
	k = appendTypes(k, h.Extensions)
	p.key = k
	if c, ok := p.clients.get(k); ok {
		return c
	}
	l := h.Lists()
	c := newOffer(&l)
	c.JA3, c.JA3Raw = l.JA3()
	c.JA4 = l.JA4(carrier)
	p.clients.put(k, c)
	return c
}

// newOffer returns the offer of a hello with these lists, without fingerprints.
func newOffer(l *tls.ClientLists) *event.Offer {
	return &event.Offer{
		Version:             l.Version,
		SupportedVersions:   l.SupportedVersions,
		CipherSuites:        l.CipherSuites,
		Extensions:          l.Extensions,
		SupportedGroups:     l.SupportedGroups,
		SignatureAlgorithms: l.SignatureAlgorithms,
		PointFormats:        l.PointFormats,
		ALPN:                l.ALPN,
	}
}

// serverHello is what is reported of h. Hellos that are alike in it share one.
func (p *Parser) serverHello(h *tls.ServerHello) *event.ServerHello {
	k := append(p.key[:0], byte(h.LegacyVersion>>8), byte(h.LegacyVersion), byte(h.SelectedVersion>>8), byte(h.SelectedVersion),
		byte(h.CipherSuite>>8), byte(h.CipherSuite))
	k = appendBlock(k, h.ALPN)
	k = appendTypes(k, h.Extensions)
	p.key = k
	if s, ok := p.servers.get(k); ok {
		return s
	}
	s := &event.ServerHello{Version: h.Version(), CipherSuite: h.CipherSuite, ALPN: string(h.ALPN)}
	s.JA3S, s.JA3SRaw = h.JA3S()
	p.servers.put(k, s)
	return s
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
