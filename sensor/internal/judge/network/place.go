package network

import (
	"net/netip"
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
	"github.com/oddcert/oddcert/rules/judgement"
)

// Lookup answers for one goroutine, and remembers addresses.
type Lookup struct {
	t      *Tables
	known  *generations.Cache[netip.Addr, answer]
	places *generations.Cache[key, *judgement.Place]
}

// answer is what is known of an address.
type answer struct {
	place    *judgement.Place
	internal bool // in the operator's own networks
}

// key is what makes the places of two addresses the same.
type key struct {
	own, pack uint32 // numbers of sets
	records   [maxDatabases]uint32
}

// NewLookup returns what answers for one goroutine.
func (t *Tables) NewLookup() *Lookup {
	return &Lookup{t, generations.New[netip.Addr, answer](knownAddresses), generations.New[key, *judgement.Place](knownPlaces)}
}

// Places says where the client and the server of h are, and where the flow goes.
// A place is empty where nothing is known, and nil where there is no address. It
// is shared and read-only.
func (l *Lookup) Places(h *event.Handshake) (client, server *judgement.Place, d judgement.Direction) {
	c := l.address(h.Flow.Endpoints[h.Client].Addr)
	s := l.address(h.Flow.Endpoints[h.Client.Other()].Addr)
	if !l.t.internal || c.place == nil || s.place == nil {
		return c.place, s.place, judgement.DirectionUnknown
	}
	switch {
	case c.internal && s.internal:
		d = judgement.Internal
	case c.internal:
		d = judgement.Outbound
	case s.internal:
		d = judgement.Inbound
	default:
		d = judgement.External
	}
	return c.place, s.place, d
}

func (l *Lookup) address(a netip.Addr) answer {
	if !a.IsValid() {
		return answer{}
	}
	a = a.WithZone("").Unmap()
	if known, ok := l.known.Get(a); ok {
		return known
	}
	t := l.t
	k := key{own: t.own.find(a)}
	if public := translated(a); !special(public) {
		k.pack = t.pack.find(public)
		for i := range t.databases {
			k.records[i] = t.databases[i].find(public)
		}
	}
	place, ok := l.places.Get(k)
	if !ok {
		place = t.place(&k)
		l.places.Put(k, place, 1)
	}
	_, internal := slices.BinarySearch(t.sets[k.own].networks, listInternal)
	known := answer{place, internal}
	l.known.Put(a, known, 1)
	return known
}

// place makes the place of a key.
func (t *Tables) place(k *key) *judgement.Place {
	own, pack := &t.sets[k.own], &t.sets[k.pack]
	p := &judgement.Place{Networks: own.networks, Labels: own.labels}
	if k.pack != 0 {
		p.Networks = mergeNames(own.networks, pack.networks)
	}
	for i, at := range k.records {
		if at == 0 {
			continue
		}
		v, err := t.databases[i].values(at - 1)
		if err != nil {
			continue // corrupt where newDatabase has not looked: nothing is known
		}
		if p.ASN == 0 {
			p.ASN = v.asn
		}
		if p.ASOrg == "" && v.asn == p.ASN { // the name of one system says nothing of another
			p.ASOrg = v.organisation
		}
		if p.Country == "" {
			p.Country = v.country
		}
	}
	return p
}

// specials are the networks that are not of one place in the Internet: those of
// RFC 6890 with what IANA has added to its registries since (not the anycast
// addresses of relays, which are reachable from everywhere), site-local addresses
// (RFC 3879) and multicast.
var specials = func() (prefixes [2][]netip.Prefix) {
	for i, texts := range [2][]string{{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	}, {
		"::/128", "::1/128", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001:2::/48", "2001:10::/28", "2001:20::/28", "2001:db8::/32",
		"3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
	}} {
		for _, s := range texts {
			prefixes[i] = append(prefixes[i], netip.MustParsePrefix(s))
		}
	}
	return prefixes
}()

// special reports whether an address is in none of the networks that packs and
// databases speak of.
func special(a netip.Addr) bool {
	for _, p := range specials[family(a)] {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// translated returns the IPv4 address for which a stands in a network that has
// IPv6 alone (RFC 6052, section 2.1), or else a.
func translated(a netip.Addr) netip.Addr {
	b := a.As16()
	if a.Is6() && [12]byte(b[:]) == [12]byte{0, 0x64, 0xff, 0x9b} {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}
