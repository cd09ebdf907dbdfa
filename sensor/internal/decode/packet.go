package decode

import (
	"encoding/binary"
	"fmt"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
)

// Packet is one TCP segment, UDP datagram, user message of SCTP or EAP packet,
// as decoded from a frame. The caller owns a Packet and reuses it; [Decoder]
// overwrites it. Payload, Frame and the MAC addresses are lent as long as the
// frame is. The payload of a datagram that came in fragments is memory of its
// own, which the decoder does not use again.
//
// After [Decoder.Decode] has returned one of [Segment], [EAP], [Message] and
// [Datagram], and after [Decoder.Next] has returned true, all fields are valid,
// except that Key, Swapped, Shard and Hash of a packet that is idle are valid
// only after [Packet.Address].
type Packet struct {
	Frame   *capture.Frame // the frame that completed the packet
	Payload []byte         // the captured bytes of the payload
	Missing int            // bytes of the payload that the capture's snaplen cut off
	Kind    Kind           // what the payload looks like

	Key     Key
	Hash    uint32 // of Key, as [Key.Hash]
	Shard   uint8  // the shard of the flow, below [Shards]; the same in every run
	Swapped bool   // the source is the High end of Key

	SrcPort, DstPort uint16 // 0 for EAP
	Transport        event.Transport

	// Of a TCP header (RFC 9293, section 3.1); 0 for the others. Flags is the
	// header's 14th byte.
	Seq, Ack uint32
	Flags    uint8

	// Of the innermost frame that has any, nil where no frame has; lent.
	SrcMAC, DstMAC *[6]byte

	// The addresses. IPv4 and MAC addresses stand in them as in a Key.
	src0, src1, dst0, dst1 uint64

	// What a checksum is computed over: the captured bytes of the segment or
	// datagram from its header on, with the addresses above.
	segment     []byte
	unsummed    bool // the headers do not say what the checksum is of
	badHeader   bool // see BadHeader
	reassembled bool // from fragments

	v6    bool
	idle  bool   // see Idle
	tags  uint8  // VLAN tags of the innermost frame
	snaps uint8  // LLC headers
	vlan  uint32 // identifier of the outer tag in the upper 12 of 24 bits, of the inner in the lower

	tunnels   tunnels
	assembled uint64 // see Assembled
}

// Flags of TCP (RFC 9293, section 3.1).
const (
	FlagFIN = 1 << 0
	FlagSYN = 1 << 1
	FlagRST = 1 << 2
	FlagACK = 1 << 4
	FlagURG = 1 << 5

	// FlagsControl are those that mean something without a payload too.
	FlagsControl = FlagSYN | FlagFIN | FlagRST | FlagURG
)

// Kind is what a payload looks like. It is found once, when the packet is
// decoded.
type Kind uint8

// The kinds of payloads.
const (
	Unknown   Kind = iota // like nothing that is followed
	Stream                // a part of a TCP stream: the parser finds out what it is
	Handshake             // like a part of a handshake in plaintext: see parsers.Looks and parsers.LooksEAP
	Encrypted             // like encrypted records of DTLS 1.3 (RFC 9147, section 4): see parsers.LooksEncrypted
	Followed              // like nothing, but of a flow that is followed (Remote Desktop over UDP)
)

// String returns the name of k, for tests and messages.
func (k Kind) String() string {
	return [...]string{"unknown", "stream", "handshake", "encrypted", "followed"}[k]
}

// Class is what a frame turned out to hold.
type Class uint8

// The classes. Frames decoded are the sum over them.
const (
	Segment   Class = iota // a TCP segment
	EAP                    // an EAP packet over EAPOL
	Message                // a user message of SCTP
	Datagram               // a UDP datagram
	OtherIP                // another protocol over IP
	NotIP                  // another protocol than IP
	Fragment               // a fragment that completes nothing
	Malformed              // headers that contradict themselves, are cut, or nest too deep: see [Weirds]
	Classes                // how many classes there are
)

// String returns the name of c in the statistics.
func (c Class) String() string {
	return [...]string{"tcp", "eapol", "sctp", "udp", "other_ip", "not_ip", "fragments", "malformed"}[c]
}

// String describes p in one line, for tests and messages: its flow in the
// direction of p, its transport, and where its payload is.
func (p *Packet) String() string {
	q := *p
	q.Address()
	a, b := q.Key.ends()
	if q.Swapped {
		a, b = b, a
	}
	s := fmt.Sprintf("%s > %s %s", a, b, q.Key.Transport())
	if p.Transport == event.TCP {
		s += fmt.Sprintf(" [%s] seq %d ack %d", flagNames(p.Flags), p.Seq, p.Ack)
	}
	s += fmt.Sprintf(" len %d", len(p.Payload))
	if p.Missing > 0 {
		s += fmt.Sprintf("+%d", p.Missing)
	}
	if p.Transport != event.TCP {
		s += " " + p.Kind.String()
	}
	return s
}

// flagNames returns one letter for each flag that is set, as tcpdump does.
func flagNames(flags uint8) (s string) {
	for i, letter := range "FSRP.UEW" {
		if flags>>i&1 != 0 {
			s += string(letter)
		}
	}
	return s
}

// Idle reports whether p is not worth a look-up in a flow table: a bare
// acknowledgement, since the next segment with a payload acknowledges the same,
// or a datagram, message or EAP packet that looks like no handshake and is of no
// flow that is followed. A tracker need not be told of it.
func (p *Packet) Idle() bool { return p.idle }

// Encrypted reports whether p may be of the encrypted part of a DTLS 1.3
// handshake. Such a packet is idle, but of use to a parser that has keys.
func (p *Packet) Encrypted() bool { return p.Kind == Encrypted }

// Address sets Key, Swapped, Shard and Hash. The decoder does it for all packets
// that are not idle.
func (p *Packet) Address() {
	p.setKey()
	p.Shard = p.Key.shard()
	p.Hash = p.Key.Hash()
}

// Tunnelled reports whether p came through a tunnel.
func (p *Packet) Tunnelled() bool { return p.tunnels[0] != 0 }

// Tunnels returns the names of the tunnels around p, the outermost first, nil
// where there is none. The caller owns the slice.
func (p *Packet) Tunnels() []string { return p.tunnels.list() }

// BadHeader reports whether the checksum of the IPv4 header is wrong, so that no router or
// host takes p (RFC 1122, section 3.2.1.2). A checksum of 0 is left to a network card, and
// that of a fragment is not looked at.
func (p *Packet) BadHeader() bool { return p.badHeader }

// Urgent returns how far the urgent byte of the TCP segment p is from its sequence
// number; false where there is none. Hosts take the urgent pointer for that of the byte
// after it, but for 0 (RFC 6093, section 3). It must be asked while the frame is lent.
func (p *Packet) Urgent() (uint32, bool) {
	if p.Flags&FlagURG == 0 || len(p.segment) < 20 {
		return 0, false
	}
	return uint32(max(binary.BigEndian.Uint16(p.segment[18:]), 1)) - 1, true
}

// Timestamp returns the value of the timestamps option of the TCP segment p (RFC
// 7323, section 3); false where there is none. It must be asked while the frame
// is lent.
func (p *Packet) Timestamp() (uint32, bool) {
	const stamps, size = 8, 10
	b := p.segment
	if len(b) < 32 || b[12]>>4 < 8 {
		return 0, false
	}
	if binary.BigEndian.Uint32(b[20:]) == optionNop<<24|optionNop<<16|stamps<<8|size { // as appendix A has it
		return binary.BigEndian.Uint32(b[24:]), true
	}
	if b = p.option(stamps, size); b == nil {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[2:]), true
}

// Signed reports whether the TCP segment p has an MD5 signature (RFC 2385). Hosts drop it
// where they have agreed on none. It must be asked while the frame is lent.
func (p *Packet) Signed() bool {
	const signature, size = 19, 18
	return len(p.segment) >= 40 && p.segment[12]>>4 >= 10 && p.option(signature, size) != nil
}

// Options of TCP that have no length (RFC 9293, section 3.2).
const (
	optionEnd = 0
	optionNop = 1
)

// option returns the first option of the TCP segment p of a kind and size; nil where there
// is none. The segment has 20 bytes at least.
func (p *Packet) option(kind uint8, size int) []byte {
	b := p.segment
	b = b[20:max(20, min(int(b[12]>>4)*4, len(b)))]
	for len(b) >= size {
		switch n := int(b[1]); {
		case b[0] == optionNop:
			b = b[1:]
		case b[0] == kind && n == size:
			return b[:n]
		case b[0] == optionEnd || n < 2 || n > len(b):
			return nil
		default:
			b = b[n:]
		}
	}
	return nil
}
