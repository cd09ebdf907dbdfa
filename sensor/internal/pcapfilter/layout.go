package pcapfilter

import (
	"fmt"

	"golang.org/x/net/bpf"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// layout is where the headers of a frame are.
type layout struct {
	link    linktype.Type
	typ     uint32 // offset of the number of the network protocol
	network uint32 // offset of the network header
	tagAway bool   // the next VLAN tag is in the kernel's metadata, not in the frame
	vlan    bool   // the expression has asked for a VLAN tag
}

// forLink makes the test of a whole expression for frames of one link type.
func (e expr) forLink(link linktype.Type, live bool) (*test, error) {
	l := layout{link: link}
	switch link {
	case linktype.Ethernet:
		l.typ, l.network = 12, 14
	case linktype.LinuxSLL:
		l.typ, l.network = 14, 16
	case linktype.LinuxSLL2:
		l.typ, l.network = 0, 20
	case linktype.Null, linktype.Loop:
		l.network = 4
	case linktype.Raw, linktype.IPv4, linktype.IPv6:
	case linktype.PPP:
		// With HDLC framing (RFC 1662, section 3.1) an address and a control byte
		// come first. No protocol has the number that they would be.
		plain, framed := l, l
		plain.typ, plain.network = 0, 2
		framed.typ, framed.network = 2, 4
		return e.forEither(half(0, 0xff03), framed, plain)
	default:
		return nil, fmt.Errorf("filters do not support link type %v", link)
	}
	if live && link == linktype.Ethernet {
		inFrame := l
		t, err := e(&inFrame)
		if err != nil || !inFrame.vlan {
			return t, err
		}
		away := l
		away.tagAway = true
		tagged := &test{load: []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtVLANTagPresent}}, cond: bpf.JumpEqual, value: 1}
		return e.forEither(tagged, away, l)
	}
	return e(&l)
}

// forEither makes the test for frames that are laid out one way when the guard
// is true and the other way when it is not.
func (e expr) forEither(guard *test, yes, no layout) (*test, error) {
	a, err := e(&yes)
	if err != nil {
		return nil, err
	}
	b, err := e(&no)
	if err != nil {
		return nil, err
	}
	return either(all(guard, a), all(negate(guard), b)), nil
}

// compare tests a field of 1, 2 or 4 bytes.
func compare(offset uint32, size int, mask uint32, cond bpf.JumpTest, value uint32) *test {
	load := []bpf.Instruction{bpf.LoadAbsolute{Off: offset, Size: size}}
	if mask != 1<<(8*size)-1 {
		load = append(load, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
	}
	return &test{load: load, cond: cond, value: value}
}

func octet(offset uint32, value uint32) *test {
	return compare(offset, 1, 0xff, bpf.JumpEqual, value)
}

func half(offset uint32, value uint32) *test {
	return compare(offset, 2, 0xffff, bpf.JumpEqual, value)
}

func word32(offset, value uint32) *test {
	return compare(offset, 4, 0xffffffff, bpf.JumpEqual, value)
}

// carries tests for a network protocol, given as its EtherType.
func (l *layout) carries(etherType uint32) *test {
	switch l.link {
	case linktype.PPP:
		switch etherType {
		case ethertype.IPv4:
			return half(l.typ, 0x0021)
		case ethertype.IPv6:
			return half(l.typ, 0x0057)
		}
		return never
	case linktype.Null, linktype.Loop:
		var families []uint32
		switch etherType {
		case ethertype.IPv4:
			families = []uint32{2} // AF_INET everywhere
		case ethertype.IPv6:
			families = []uint32{24, 28, 30, 10} // AF_INET6 of NetBSD and OpenBSD, FreeBSD, Darwin, Linux
		}
		t := never
		for _, family := range families {
			t = either(t, word32(0, family))
			if l.link == linktype.Null {
				t = either(t, word32(0, family<<24))
			}
		}
		return t
	case linktype.Raw, linktype.IPv4, linktype.IPv6:
		switch {
		case etherType == ethertype.IPv4 && l.link == linktype.IPv4, etherType == ethertype.IPv6 && l.link == linktype.IPv6:
			return always
		case etherType == ethertype.IPv4 && l.link == linktype.Raw:
			return compare(0, 1, 0xf0, bpf.JumpEqual, 0x40)
		case etherType == ethertype.IPv6 && l.link == linktype.Raw:
			return compare(0, 1, 0xf0, bpf.JumpEqual, 0x60)
		}
		return never
	}
	return half(l.typ, etherType)
}

// transport4 tests for a transport protocol over IPv4.
func (l *layout) transport4(protocol uint32) *test {
	return all(l.carries(ethertype.IPv4), octet(l.network+9, protocol))
}

// transport6 tests for a transport protocol over IPv6, straight after the fixed
// header or after a fragment header.
func (l *layout) transport6(protocol uint32) *test {
	const fragment = 44
	return all(l.carries(ethertype.IPv6), either(
		octet(l.network+6, protocol),
		all(octet(l.network+6, fragment), octet(l.network+40, protocol))))
}
