package flow

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
)

// Key identifies a flow: both directions have the same. It has no pointers, so
// that a table of a million of them costs the garbage collector nothing.
//
// The end with the lower address (the lower port where both have one address)
// is a. IPv4 addresses stand in the low half of the second word, below a word of
// zero. MAC addresses, where there is no IP, stand below macWord; that it is no
// IPv6 tells them from it.
type Key struct {
	a0, a1, b0, b1 uint64
	// From the top: port of a (16 bits), port of b (16), then the flags below.
	rest uint64
}

// macWord is the first word of an end that is a MAC address.
const macWord = 1

const (
	keyIPv6 = capture.ShuntIPv6
	keyUDP  = 1 << 1
	keySCTP = 1 << 7
)

// setKey sets the key of a packet, and Swapped. It goes word by word: a Key as
// a value passes through memory.
func (p *Packet) setKey() {
	k := &p.Key
	ports := uint64(p.SrcPort)<<16 | uint64(p.DstPort)
	p.Swapped = p.src0 > p.dst0 || p.src0 == p.dst0 && (p.src1 > p.dst1 || p.src1 == p.dst1 && p.SrcPort > p.DstPort)
	if p.Swapped {
		k.a0, k.a1, k.b0, k.b1 = p.dst0, p.dst1, p.src0, p.src1
		ports = uint64(p.DstPort)<<16 | uint64(p.SrcPort)
	} else {
		k.a0, k.a1, k.b0, k.b1 = p.src0, p.src1, p.dst0, p.dst1
	}
	rest := ports << 32
	if p.v6 {
		rest |= keyIPv6
	}
	switch p.Transport {
	case event.UDP:
		rest |= keyUDP
	case event.SCTP:
		rest |= keySCTP
	}
	k.rest = rest
}

// hash mixes the key with a seed (the multiplications of wyhash). The dealing
// of flows to shards uses a fixed seed, so that it is the same in every run;
// the tables use a secret one, so that nobody can choose colliding flows.
func (k *Key) hash(seed uint64) uint64 {
	h1, l1 := bits.Mul64(k.a0^seed^0x9e3779b97f4a7c15, k.a1^0xe7037ed1a0b428db)
	h2, l2 := bits.Mul64(k.b0^seed^0x8ebc6af09c88c6e3, k.b1^0x589965cc75374cc3)
	h3, l3 := bits.Mul64(k.rest^h1^l2^0x1d8e4e27c47d124f, seed^h2^l1^0xeb44accab455d165)
	return h3 ^ l3
}

// isMAC says whether the ends are MAC addresses.
func (k *Key) isMAC() bool { return k.a0 == macWord && k.rest&keyIPv6 == 0 }

// macs returns the ends of a flow where they are MAC addresses, a first.
func (k *Key) macs() (a, b [6]byte) { return macOf(k.a1), macOf(k.b1) }

// tableSeed is the secret of all tables.
var tableSeed = rand.Uint64()

func (k *Key) shard() uint8 { return uint8(k.hash(0) >> (64 - shardBits)) }

// endpoints returns the ends of the flow, a first.
func (k *Key) endpoints() (a, b netip.AddrPort) {
	if k.isMAC() {
		return netip.AddrPort{}, netip.AddrPort{}
	}
	addr := func(w0, w1 uint64) netip.Addr {
		var raw [16]byte
		binary.BigEndian.PutUint64(raw[:8], w0)
		binary.BigEndian.PutUint64(raw[8:], w1)
		if k.rest&keyIPv6 == 0 {
			return netip.AddrFrom4([4]byte(raw[12:]))
		}
		return netip.AddrFrom16(raw)
	}
	return netip.AddrPortFrom(addr(k.a0, k.a1), uint16(k.rest>>48)),
		netip.AddrPortFrom(addr(k.b0, k.b1), uint16(k.rest>>32))
}

// vlanTags returns what tells the VLAN of p from others: 0 without tags, or the
// outer and the inner identifier, 12 bits each, below how many there are. A tag
// with identifier 0 has a priority, and no VLAN (IEEE 802.1Q, section 9.6).
func (p *Packet) vlanTags() uint32 {
	outer, inner := p.vlan>>12, p.vlan&0xfff
	if p.tags == 0 || outer == 0 && inner == 0 {
		return 0
	}
	if p.tags == 1 || outer == 0 || inner == 0 {
		return 1<<24 | max(outer, inner)<<12
	}
	return 2<<24 | p.vlan
}

// vlans returns the identifiers in what vlanTags returns, outer first, and how
// many there are.
func vlans(tags uint32) (ids [2]uint16, n uint8) {
	return [2]uint16{uint16(tags>>12) & 0xfff, uint16(tags) & 0xfff}, uint8(tags >> 24)
}

// ShuntKey returns the key of a TCP flow as the kernel has it, which tells flows
// apart by all their tags.
func (p *Packet) ShuntKey() capture.ShuntKey {
	k := &p.Key
	s := capture.ShuntKey{
		Low: [2]uint64{k.a0, k.a1}, High: [2]uint64{k.b0, k.b1},
		LowPort: uint16(k.rest >> 48), HighPort: uint16(k.rest >> 32),
		Stack: uint32(k.rest) | p.vlan<<8,
	}
	if p.tags > 0 {
		s.Stack |= capture.ShuntOneTag
	}
	if p.tags > 1 {
		s.Stack |= capture.ShuntTwoTags
	}
	return s
}

func (k *Key) transport() event.Transport {
	if k.isMAC() {
		return event.EAPOL
	}
	if k.rest&keyUDP != 0 {
		return event.UDP
	}
	if k.rest&keySCTP != 0 {
		return event.SCTP
	}
	return event.TCP
}
