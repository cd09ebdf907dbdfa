package decode

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
)

// Key identifies a flow by its five-tuple: both directions have the same. It has
// no pointers, so that a table of a million of them costs the garbage collector
// nothing, and two Keys are equal where they are ==.
//
// Its layout is that of the kernel's key, without the VLAN tags: the Low end has
// the lower address, or the lower port where both ends have one address. An IPv4
// address is the low half of the second word of an end, and the first word is
// zero. Where there is no IP the ends are MAC addresses, each in the second word
// after a first word of macWord. That Stack has no ShuntIPv6 tells them from IPv6.
type Key struct{ capture.ShuntKey }

// macWord is the first word of an end that is a MAC address.
const macWord = 1

// Bits of Stack beside those of the kernel, which withholds TCP only.
const (
	keyUDP  = 1 << 1
	keySCTP = 1 << 7
)

// setKey sets Key and Swapped from the addresses and ports. It goes word by
// word: a Key as a value would pass through memory.
func (p *Packet) setKey() {
	k := &p.Key
	p.Swapped = p.src0 > p.dst0 || p.src0 == p.dst0 && (p.src1 > p.dst1 || p.src1 == p.dst1 && p.SrcPort > p.DstPort)
	if p.Swapped {
		k.Low[0], k.Low[1], k.High[0], k.High[1] = p.dst0, p.dst1, p.src0, p.src1
		k.LowPort, k.HighPort = p.DstPort, p.SrcPort
	} else {
		k.Low[0], k.Low[1], k.High[0], k.High[1] = p.src0, p.src1, p.dst0, p.dst1
		k.LowPort, k.HighPort = p.SrcPort, p.DstPort
	}
	stack := uint32(0)
	if p.v6 {
		stack |= capture.ShuntIPv6
	}
	switch p.Transport {
	case event.UDP:
		stack |= keyUDP
	case event.SCTP:
		stack |= keySCTP
	}
	k.Stack = stack
}

// mix mixes the key with a seed (the multiplications of wyhash).
func (k *Key) mix(seed uint64) uint64 {
	rest := uint64(k.LowPort)<<48 | uint64(k.HighPort)<<32 | uint64(k.Stack)
	h1, l1 := bits.Mul64(k.Low[0]^seed^0x9e3779b97f4a7c15, k.Low[1]^0xe7037ed1a0b428db)
	h2, l2 := bits.Mul64(k.High[0]^seed^0x8ebc6af09c88c6e3, k.High[1]^0x589965cc75374cc3)
	h3, l3 := bits.Mul64(rest^h1^l2^0x1d8e4e27c47d124f, seed^h2^l1^0xeb44accab455d165)
	return h3 ^ l3
}

// hashSeed is a secret of the process, so that nobody can choose flows whose
// hashes collide.
var hashSeed = rand.Uint64()

// Hash returns a hash of k for flow tables. It differs from run to run.
func (k *Key) Hash() uint32 { return uint32(k.mix(hashSeed)) }

const (
	shardBits = 4
	// Shards is how many shards flows are dealt to. What a shard does depends on
	// its own packets only, and so not on how many workers share the shards.
	Shards = 1 << shardBits
)

// shard returns the shard of the flow, which is the same in every run.
func (k *Key) shard() uint8 { return uint8(k.mix(0) >> (64 - shardBits)) }

// isMAC reports whether the ends are MAC addresses.
func (k *Key) isMAC() bool { return k.Low[0] == macWord && k.Stack&capture.ShuntIPv6 == 0 }

// MACs returns the ends of a flow over EAPOL, the low one first. Of other flows it
// returns nothing of use.
func (k *Key) MACs() (low, high [6]byte) { return macOf(k.Low[1]), macOf(k.High[1]) }

// Endpoints returns the ends of the flow, the low one first; zero where they are
// MAC addresses.
func (k *Key) Endpoints() (low, high netip.AddrPort) {
	if k.isMAC() {
		return netip.AddrPort{}, netip.AddrPort{}
	}
	addr := func(words [2]uint64) netip.Addr {
		var raw [16]byte
		binary.BigEndian.PutUint64(raw[:8], words[0])
		binary.BigEndian.PutUint64(raw[8:], words[1])
		if k.Stack&capture.ShuntIPv6 == 0 {
			return netip.AddrFrom4([4]byte(raw[12:]))
		}
		return netip.AddrFrom16(raw)
	}
	return netip.AddrPortFrom(addr(k.Low), k.LowPort), netip.AddrPortFrom(addr(k.High), k.HighPort)
}

// Transport returns the transport of the flow.
func (k *Key) Transport() event.Transport {
	switch {
	case k.isMAC():
		return event.EAPOL
	case k.Stack&keyUDP != 0:
		return event.UDP
	case k.Stack&keySCTP != 0:
		return event.SCTP
	}
	return event.TCP
}

// ends returns the ends as text, the low one first.
func (k *Key) ends() (low, high string) {
	if k.isMAC() {
		a, b := k.MACs()
		return net.HardwareAddr(a[:]).String(), net.HardwareAddr(b[:]).String()
	}
	a, b := k.Endpoints()
	return a.String(), b.String()
}

// String returns the five-tuple, for tests and messages, such as
// "192.0.2.1:443 - 198.51.100.7:50000 tcp".
func (k *Key) String() string {
	low, high := k.ends()
	return fmt.Sprintf("%s - %s %s", low, high, k.Transport())
}

// VLANs is what tells the VLANs of a packet from those of others: 0 without, or
// the identifiers of the outer and the inner tag, 12 bits each, below how many
// there are.
type VLANs uint32

// VLANs returns the VLANs of the innermost frame of p. A tag with identifier 0
// has a priority, and no VLAN (IEEE 802.1Q, section 9.6).
func (p *Packet) VLANs() VLANs {
	if p.tags == 0 {
		return 0
	}
	outer, inner := p.vlan>>12, p.vlan&0xfff
	switch {
	case outer == 0 && inner == 0:
		return 0
	case p.tags == 1 || outer == 0 || inner == 0:
		return VLANs(1<<24 | max(outer, inner)<<12)
	}
	return VLANs(2<<24 | p.vlan)
}

// IDs returns the identifiers, the outer one first, and how many there are.
func (v VLANs) IDs() (ids [2]uint16, n uint8) {
	return [2]uint16{uint16(v>>12) & 0xfff, uint16(v) & 0xfff}, uint8(v >> 24)
}

// ShuntKey returns the key of the TCP flow of p as the kernel has it, which tells
// flows apart by all their tags.
func (p *Packet) ShuntKey() capture.ShuntKey {
	s := p.Key.ShuntKey
	s.Stack |= p.vlan << 8
	if p.tags > 0 {
		s.Stack |= capture.ShuntOneTag
	}
	if p.tags > 1 {
		s.Stack |= capture.ShuntTwoTags
	}
	return s
}
