package pcapfilter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// vlan reads the identifier that may follow the word. What comes after it in
// the expression is looked for after the tag.
func (p *parser) vlan() (expr, error) {
	var id uint32
	given := p.identifier()
	if given {
		var err error
		if id, err = parseNumber("VLAN", p.next(), 4095); err != nil {
			return nil, err
		}
	}
	return func(l *layout) (*test, error) {
		if l.link != linktype.Ethernet {
			return nil, errors.New("vlan needs Ethernet frames")
		}
		l.vlan = true
		const mask = 0x0fff
		if l.tagAway {
			l.tagAway = false
			if !given {
				return always, nil
			}
			return &test{
				load: []bpf.Instruction{
					bpf.LoadExtension{Num: bpf.ExtVLANTag},
					bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
				},
				cond: bpf.JumpEqual, value: id,
			}, nil
		}
		t := either(half(l.typ, ethertype.VLAN), half(l.typ, ethertype.QinQ), half(l.typ, ethertype.QinQ91))
		if given {
			t = all(t, compare(l.network, 2, mask, bpf.JumpEqual, id))
		}
		l.typ += 4
		l.network += 4
		return t, nil
	}, nil
}

// length reads the number after less or greater; both include it.
func (p *parser) length(greater bool) (expr, error) {
	if !p.identifier() {
		return nil, p.unexpected()
	}
	n, err := parseNumber("length", p.next(), 1<<31)
	if err != nil {
		return nil, err
	}
	cond := bpf.JumpLessOrEqual
	if greater {
		cond = bpf.JumpGreaterOrEqual
	}
	t := &test{load: []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtLen}}, cond: cond, value: n}
	return func(*layout) (*test, error) { return t, nil }, nil
}

// protocolExpr tests for a protocol that stands alone.
func protocolExpr(name string) expr {
	return func(l *layout) (*test, error) {
		if etherType, ok := etherTypes[name]; ok {
			return l.carries(etherType), nil
		}
		protocol, t := ipProtocols[name], never
		if protocol.v4 {
			t = either(t, l.transport4(protocol.number))
		}
		if protocol.v6 {
			t = either(t, l.transport6(protocol.number))
		}
		return t, nil
	}
}

// castExpr tests for broadcast or multicast destinations.
func castExpr(protocol, word string) (expr, error) {
	switch {
	case protocol == "ip" && word == "broadcast":
		return nil, errors.New("ip broadcast needs the netmask of the network, which is not known")
	case protocol == "ip":
		return func(l *layout) (*test, error) {
			return all(l.carries(ethertype.IPv4), compare(l.network+16, 1, 0xff, bpf.JumpGreaterOrEqual, 224)), nil
		}, nil
	case protocol == "ip6" && word == "multicast":
		return func(l *layout) (*test, error) {
			return all(l.carries(ethertype.IPv6), octet(l.network+24, 0xff)), nil
		}, nil
	case protocol != "" && protocol != "ether":
		return nil, unqualified(protocol, word)
	}
	return func(l *layout) (*test, error) {
		switch {
		case l.link != linktype.Ethernet:
			return nil, fmt.Errorf("%s needs Ethernet frames", word)
		case word == "multicast":
			return compare(0, 1, 0xff, bpf.JumpBitsSet, 1), nil
		}
		return all(word32(2, 0xffffffff), half(0, 0xffff)), nil
	}, nil
}

// apply reads one identifier and tests for it as qualified.
func (q *qualifiers) apply(p *parser) (expr, error) {
	word := p.next()
	switch q.kind {
	case "host":
		if q.protocol == "ether" {
			return q.mac(word)
		}
		addr, err := netip.ParseAddr(word)
		if err != nil {
			return nil, fmt.Errorf("host %q: not an address, and names are not looked up", word)
		}
		return q.network(netip.PrefixFrom(addr, addr.BitLen()))
	case "net":
		prefix, err := parseNetwork(word, p)
		if err != nil {
			return nil, err
		}
		return q.network(prefix)
	case "port", "portrange":
		return q.ports(word)
	}
	return q.proto(word)
}

func (q *qualifiers) mac(word string) (expr, error) {
	mac, err := net.ParseMAC(word)
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("ether host %q: not a MAC address", word)
	}
	return func(l *layout) (*test, error) {
		if l.link != linktype.Ethernet {
			return nil, errors.New("ether host needs Ethernet frames")
		}
		at := func(offset uint32) *test {
			return all(
				word32(offset+2, binary.BigEndian.Uint32(mac[2:])),
				half(offset, uint32(binary.BigEndian.Uint16(mac))))
		}
		return q.direction.choose(at(6), at(0)), nil
	}, nil
}

// network tests for addresses in a prefix: of IP, and of ARP and RARP too when
// no protocol is named.
func (q *qualifiers) network(prefix netip.Prefix) (expr, error) {
	addr := prefix.Addr()
	if q.protocol != "" && (q.protocol == "ip6") != addr.Is6() {
		return nil, fmt.Errorf("%s: %s is not an address of that protocol", q, addr)
	}
	if addr.Is6() {
		return func(l *layout) (*test, error) {
			address := addr.As16()
			at := func(offset uint32) *test {
				t := always
				for i := range 4 {
					if mask := leadingBits(prefix.Bits() - 32*i); mask != 0 {
						field := offset + uint32(4*i)
						t = all(t, compare(field, 4, mask, bpf.JumpEqual, binary.BigEndian.Uint32(address[4*i:])))
					}
				}
				return t
			}
			return all(l.carries(ethertype.IPv6), q.direction.choose(at(l.network+8), at(l.network+24))), nil
		}, nil
	}
	return func(l *layout) (*test, error) {
		address := addr.As4()
		mask := leadingBits(prefix.Bits())
		at := func(offset uint32) *test {
			if mask == 0 {
				return always
			}
			return compare(l.network+offset, 4, mask, bpf.JumpEqual, binary.BigEndian.Uint32(address[:]))
		}
		t := never
		for _, protocol := range [...]struct {
			name                string
			etherType           uint32
			source, destination uint32
		}{
			{"ip", ethertype.IPv4, 12, 16},
			{"arp", ethertype.ARP, 14, 24},
			{"rarp", ethertype.RARP, 14, 24},
		} {
			if q.protocol == "" || q.protocol == protocol.name {
				t = either(t, all(
					l.carries(protocol.etherType),
					q.direction.choose(at(protocol.source), at(protocol.destination))))
			}
		}
		return t, nil
	}, nil
}

// leadingBits returns a mask of the first n bits; n may be below 0 or above 32.
func leadingBits(n int) uint32 {
	return ^uint32(0) << (32 - min(max(n, 0), 32))
}

// parseNetwork reads a network as a prefix, as the leading bytes of an IPv4
// address, or with a mask after it.
func parseNetwork(word string, p *parser) (netip.Prefix, error) {
	address, length, slash := strings.Cut(word, "/")
	addr, err := netip.ParseAddr(address)
	bits := addr.BitLen()
	if parts := strings.Count(address, ".") + 1; err != nil && parts < 4 {
		addr, err = netip.ParseAddr(address + strings.Repeat(".0", 4-parts))
		bits = 8 * parts
	}
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("net %q: not an address, and names are not looked up", word)
	}
	switch {
	case slash:
		n, err := parseNumber("prefix length", length, uint32(addr.BitLen()))
		if err != nil {
			return netip.Prefix{}, err
		}
		bits = int(n)
	case addr.Is4() && p.take("mask"):
		mask, err := netip.ParseAddr(p.next())
		if err != nil || !mask.Is4() {
			return netip.Prefix{}, fmt.Errorf("net %s: the mask is not an IPv4 address", word)
		}
		octets := mask.As4()
		ones, size := net.IPMask(octets[:]).Size()
		if size == 0 {
			return netip.Prefix{}, fmt.Errorf("net %s: the mask %s is not a run of leading ones", word, mask)
		}
		bits = ones
	}
	prefix := netip.PrefixFrom(addr, bits)
	if prefix.Masked() != prefix {
		return netip.Prefix{}, fmt.Errorf("net %s: bits are set past the prefix of %d", word, bits)
	}
	return prefix, nil
}

// ports tests for a port or a range of ports, of TCP, UDP and SCTP, or of the
// protocol that is named.
func (q *qualifiers) ports(word string) (expr, error) {
	low, high, protocol, err := q.parsePorts(word)
	if err != nil {
		return nil, err
	}
	return func(l *layout) (*test, error) {
		oneOf := func(offset uint32) *test {
			if protocol != "" {
				return octet(offset, ipProtocols[protocol].number)
			}
			return either(
				octet(offset, ipProtocols["tcp"].number),
				octet(offset, ipProtocols["udp"].number),
				octet(offset, ipProtocols["sctp"].number))
		}
		inRange := func(load ...bpf.Instruction) *test {
			if low == high {
				return &test{load: load, cond: bpf.JumpEqual, value: low}
			}
			return all(
				&test{load: load, cond: bpf.JumpGreaterOrEqual, value: low},
				&test{load: load, cond: bpf.JumpLessOrEqual, value: high})
		}
		header := bpf.LoadMemShift{Off: l.network}
		return either(
			all(
				l.carries(ethertype.IPv4), oneOf(l.network+9),
				// A later fragment has no ports.
				negate(compare(l.network+6, 2, 0xffff, bpf.JumpBitsSet, 0x1fff)),
				q.direction.choose(
					inRange(header, bpf.LoadIndirect{Off: l.network, Size: 2}),
					inRange(header, bpf.LoadIndirect{Off: l.network + 2, Size: 2}))),
			all(
				l.carries(ethertype.IPv6), oneOf(l.network+6),
				q.direction.choose(
					inRange(bpf.LoadAbsolute{Off: l.network + 40, Size: 2}),
					inRange(bpf.LoadAbsolute{Off: l.network + 42, Size: 2}))),
		), nil
	}, nil
}

// parsePorts reads a port, by its number or by the name of its service, or a range
// of numbers. It returns the protocol too, since some services have one alone.
func (q *qualifiers) parsePorts(word string) (low, high uint32, protocol string, err error) {
	first, last := word, word
	if from, to, ok := strings.Cut(word, "-"); ok && q.kind == "portrange" {
		first, last = from, to
	}
	if q.kind == "port" && (word[0] < '0' || '9' < word[0]) {
		port, protocol, err := q.service(word)
		return port, port, protocol, err
	}
	if low, err = parseNumber("port", first, 65535); err == nil {
		high, err = parseNumber("port", last, 65535)
	}
	return min(low, high), max(low, high), q.protocol, err
}

// service looks a name up in the list of services of this machine, which is a file.
func (q *qualifiers) service(name string) (port uint32, protocol string, err error) {
	tcp, notTCP := net.LookupPort("tcp", name)
	udp, notUDP := net.LookupPort("udp", name)
	switch {
	case q.protocol == "" && notTCP == nil && notUDP == nil && tcp == udp:
		return uint32(tcp), "", nil
	case q.protocol != "udp" && q.protocol != "sctp" && notTCP == nil:
		return uint32(tcp), "tcp", nil
	case q.protocol != "tcp" && q.protocol != "sctp" && notUDP == nil:
		return uint32(udp), "udp", nil
	}
	return 0, "", fmt.Errorf("%s %q: no such service, give its number", q, name)
}

// proto tests for a protocol by number, or by name. The backslash before a name
// distinguishes it from the word that stands alone.
func (q *qualifiers) proto(word string) (expr, error) {
	name := strings.TrimPrefix(word, `\`)
	if q.protocol == "ether" {
		etherType, ok := etherTypes[name]
		if !ok {
			var err error
			if etherType, err = parseNumber("ether proto", word, 65535); err != nil {
				return nil, err
			}
			if etherType < ethertype.Min {
				return nil, fmt.Errorf("ether proto %s: not an EtherType, which is 1536 or more", word)
			}
		}
		return func(l *layout) (*test, error) { return l.carries(etherType), nil }, nil
	}
	number := ipProtocols[name].number
	if number == 0 {
		var err error
		if number, err = parseNumber("proto", word, 255); err != nil {
			return nil, err
		}
	}
	return func(l *layout) (*test, error) {
		t := never
		if q.protocol != "ip6" {
			t = either(t, l.transport4(number))
		}
		if q.protocol != "ip" {
			t = either(t, l.transport6(number))
		}
		return t, nil
	}, nil
}

// parseNumber reads a number: decimal, octal after 0, or hexadecimal after 0x.
func parseNumber(what, word string, most uint32) (uint32, error) {
	n, err := strconv.ParseUint(word, 0, 32)
	if err != nil {
		return 0, fmt.Errorf("%s %q: not a number", what, word)
	}
	if n > uint64(most) {
		return 0, fmt.Errorf("%s %s: more than %d", what, word, most)
	}
	return uint32(n), nil
}
