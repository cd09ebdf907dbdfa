package capture

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
)

// joinGroup is the system call by which a ring joins a fanout group.
var joinGroup = func(fd, group int) error {
	return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, group)
}

// joinFanout makes rings of one interface share its frames, as members of one
// group in their order. The program deals the frames (packet(7), PACKET_FANOUT_CBPF).
// Kernels before 4.3 do not know such groups, and say what they also say of an interface
// that is down. Where mayHash is set, it is the kernel's own hash there, which goes by the
// ports of a tunnel over UDP.
func joinFanout(rings []*ring, loopback bool, program []bpf.RawInstruction, mayHash bool) (hashed bool, err error) {
	if len(rings) < 2 {
		return false, nil
	}
	mode, flags := unix.PACKET_FANOUT_CBPF, unix.PACKET_FANOUT_FLAG_DEFRAG
	if loopback {
		flags |= unix.PACKET_FANOUT_FLAG_IGNORE_OUTGOING
	}
	id, unique := 0, unix.PACKET_FANOUT_FLAG_UNIQUEID
	join := func(r *ring) error { return joinGroup(r.fd, id|(mode|flags|unique)<<16) }
	for _, r := range rings {
		err := join(r)
		if unique != 0 && mayHash && errors.Is(err, unix.EINVAL) {
			mode = unix.PACKET_FANOUT_HASH
			err = join(r)
		}
		if err != nil {
			return false, fmt.Errorf("join fanout group: %w", err)
		}
		if unique == 0 {
			continue
		}
		// The kernel has found a number that no other program uses.
		group, err := unix.GetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
		if err != nil {
			return false, fmt.Errorf("read fanout group: %w", err)
		}
		id, unique = group&0xffff, 0
		if mode == unix.PACKET_FANOUT_CBPF {
			if err := setProgram(r.fd, unix.SOL_PACKET, unix.PACKET_FANOUT_DATA, program); err != nil {
				return false, fmt.Errorf("set the program of the fanout group: %w", err)
			}
		}
	}
	return mode == unix.PACKET_FANOUT_HASH, nil
}

// fanout makes a classic BPF program that hashes the ends of a flow, the same for both
// directions. It looks through VLAN tags, PPPoE, MPLS and one tunnel, whose own addresses
// and ports may differ between the directions of what is inside.
//
// Only TCP and SCTP over IPv4 that is in no tunnel go by their ports too: the kernel has
// put their fragments together. What else has addresses goes by these alone, since
// fragments have no ports, and a sender could hide a part of a flow from the worker that
// has the rest. What has no addresses has the hash 0.
//
// Instructions address what follows the header of the link layer (SKF_NET_OFF). X is the
// place of a header there.
type fanout struct {
	program []bpf.Instruction
	jumps   []fanoutJump
	labels  map[string]int
	keys    [6]uint32 // secret, so that nobody can send everything to one worker
}

// fanoutJump is a jump to a label. Conditional ones reach 255 instructions, so that they
// only jump over one that is unconditional.
type fanoutJump struct {
	at int
	to string
}

// Places in the scratch memory.
const (
	fanoutPlace  = iota // X, while it has something else
	fanoutSource        // hash of the source address
	fanoutTarget        // hash of the destination address
	fanoutPorts         // source port; 0 where ports do not count
	fanoutPorts2        // destination port
	fanoutLength        // of a header
	fanoutType          // EtherType of what is in GRE
	fanoutFlags         // of GRE
	fanoutSaved         // A, while it has something else
)

// fanoutNet is SKF_NET_OFF (include/uapi/linux/filter.h).
const fanoutNet = 1<<32 - 0x100000

// fanoutDepth is how many IP headers are looked at, one within the other.
const fanoutDepth = 2

// Protocols of IP, and ports of tunnels over UDP.
const (
	fanoutIPv4 = 4
	fanoutTCP  = 6
	fanoutUDP  = 17
	fanoutIPv6 = 41
	fanoutGRE  = 47
	fanoutSCTP = 132

	fanoutVXLAN  = 4789 // RFC 7348
	fanoutVXLAN2 = 8472 // before it had a number: Linux's default
	fanoutGENEVE = 6081 // RFC 8926
	fanoutGTP    = 2152 // 3GPP TS 29.281
)

// newFanout assembles the program, with keys of its own. A flow has the same hash on
// each interface whose group has the same program.
func newFanout() ([]bpf.RawInstruction, error) {
	f := &fanout{labels: map[string]int{}}
	var random [24]byte
	_, _ = rand.Read(random[:]) // it never fails
	for i := range f.keys {
		f.keys[i] = binary.NativeEndian.Uint32(random[4*i:]) | 1 // odd: no bit is lost
	}
	f.add(bpf.LoadConstant{Dst: bpf.RegX}, bpf.LoadExtension{Num: bpf.ExtProto})
	for depth := range fanoutDepth {
		f.network(depth)
	}
	f.mix()
	return f.assemble()
}

// network goes on at the header at X, whose EtherType is in A. The labels of a depth
// begin with its number.
func (f *fanout) network(depth int) {
	p, next := fmt.Sprint(depth), fmt.Sprint(depth+1)
	inner := depth+1 < fanoutDepth
	f.label(p + "type")
	for i := range 3 {
		f.is(ethertype.IPv4, p+"ipv4")
		f.is(ethertype.IPv6, p+"ipv6")
		f.is(ethertype.PPPoE, p+"pppoe")
		f.is(ethertype.MPLS, p+"mpls")
		f.is(ethertype.MPLSMulticast, p+"mpls")
		if i == 2 {
			f.jump("none")
			break
		}
		tag := fmt.Sprint(p, "tag", i)
		f.is(ethertype.VLAN, tag)
		f.is(ethertype.QinQ, tag)
		f.unless(ethertype.QinQ91, "none")
		f.label(tag)
		f.load(2, 2)
		f.skip(vlanTagSize)
	}

	f.label(p + "pppoe")
	f.load(6, 2)
	f.skip(8)
	f.is(0x21, p+"ipv4")
	f.is(0x57, p+"ipv6")
	f.jump("none")

	f.label(p + "mpls")
	for range 4 {
		f.load(0, 4)
		f.skip(4)
		f.add(bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 1 << 8, SkipFalse: 1})
		f.jump(p + "bottom")
	}
	f.jump("none")
	f.label(p + "bottom")
	f.version(p+"ipv4", p+"ipv6", "none")

	f.label(p + "ipv4")
	f.keep()
	f.address(fanoutSource, 12, 1)
	f.address(fanoutTarget, 16, 1)
	f.noPorts()
	if inner {
		f.load(6, 2)
		f.add(bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipFalse: 1})
		f.jump("mix") // a fragment
		f.load(0, 1)
		f.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 15}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2},
			bpf.StoreScratch{Src: bpf.RegA, N: fanoutLength})
		f.load(9, 1)
		f.skipScratch(fanoutLength)
		f.is(fanoutTCP, p+"ports")
		f.is(fanoutSCTP, p+"ports")
		f.jump(p + "payload")
	} else {
		f.jump("mix")
	}

	f.label(p + "ipv6")
	f.keep()
	f.address(fanoutSource, 8, 4)
	f.address(fanoutTarget, 24, 4)
	f.noPorts()
	if !inner {
		f.jump("mix")
		return
	}
	f.load(6, 1)
	f.skip(headerIPv6)

	// The protocol is in A, and X is after the header.
	f.label(p + "payload")
	f.is(fanoutUDP, p+"udp")
	f.is(fanoutGRE, p+"gre")
	f.is(fanoutIPv4, p+"inner4")
	f.is(fanoutIPv6, p+"inner6")
	f.jump("mix")

	f.label(p + "ports")
	f.load(0, 2)
	f.add(bpf.StoreScratch{Src: bpf.RegA, N: fanoutPorts})
	f.load(2, 2)
	f.add(bpf.StoreScratch{Src: bpf.RegA, N: fanoutPorts2})
	f.jump("mix")
	f.tunnels(p, next)
}

// tunnels goes on inside of the tunnels of a depth, with the labels of the next.
func (f *fanout) tunnels(p, next string) {
	f.label(p + "udp")
	f.load(2, 2)
	f.skip(8)
	f.is(fanoutVXLAN, p+"vxlan")
	f.is(fanoutVXLAN2, p+"vxlan")
	f.is(fanoutGENEVE, p+"geneve")
	f.unless(fanoutGTP, "mix")

	// A packet of a user, without or with the optional part of the header, and no
	// extension headers.
	f.load(0, 2)
	f.is(0x30ff, p+"gtp")
	f.unless(0x32ff, "mix")
	f.skip(4)
	f.label(p + "gtp")
	f.skip(8)
	f.version(p+"inner4", p+"inner6", "mix")

	f.label(p + "geneve")
	f.load(0, 1)
	f.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x3f}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2},
		bpf.StoreScratch{Src: bpf.RegA, N: fanoutLength})
	f.load(2, 2)
	f.skip(8)
	f.skipScratch(fanoutLength)
	f.is(ethertype.Bridging, p+"ethernet")
	f.is(ethertype.IPv4, p+"inner4")
	f.is(ethertype.IPv6, p+"inner6")
	f.jump("mix")

	// GRE, with the optional fields that its flags name (RFC 2784, RFC 2890). Another
	// version is of PPTP.
	f.label(p + "gre")
	f.load(0, 2)
	f.add(bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x4f07, SkipFalse: 1})
	f.jump("mix")
	f.add(bpf.StoreScratch{Src: bpf.RegA, N: fanoutFlags})
	f.load(2, 2)
	f.add(bpf.StoreScratch{Src: bpf.RegA, N: fanoutType})
	f.skip(4)
	for _, field := range []uint32{0x8000, 0x2000, 0x1000} {
		without := fmt.Sprint(p, "without", field)
		f.add(bpf.LoadScratch{Dst: bpf.RegA, N: fanoutFlags}, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: field, SkipTrue: 1})
		f.jump(without)
		f.skip(4)
		f.label(without)
	}
	f.add(bpf.LoadScratch{Dst: bpf.RegA, N: fanoutType})
	f.is(ethertype.Bridging, p+"ethernet")
	f.is(ethertype.IPv4, p+"inner4")
	f.is(ethertype.IPv6, p+"inner6")
	f.unless(ethertype.ERSPAN, "mix")
	f.add(bpf.LoadScratch{Dst: bpf.RegA, N: fanoutFlags}, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1000, SkipTrue: 1})
	f.jump(p + "ethernet") // of type I, which has no header
	f.skip(8)
	f.jump(p + "ethernet")

	f.label(p + "vxlan")
	f.load(0, 1)
	f.unless(8, "mix") // with an identifier, and nothing that only extensions have
	f.skip(8)
	f.label(p + "ethernet")
	f.load(macAddresses, 2)
	f.skip(macAddresses + 2)
	f.jump(next + "type")

	f.label(p + "inner4")
	f.add(bpf.LoadConstant{Dst: bpf.RegA, Val: ethertype.IPv4})
	f.jump(next + "type")
	f.label(p + "inner6")
	f.add(bpf.LoadConstant{Dst: bpf.RegA, Val: ethertype.IPv6})
	f.jump(next + "type")
}

// version jumps by the version of the IP header at X.
func (f *fanout) version(four, six, other string) {
	f.load(0, 1)
	f.add(bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4})
	f.is(4, four)
	f.is(6, six)
	f.jump(other)
}

// mix makes the hash of the ends, whichever of them comes first.
func (f *fanout) mix() {
	f.label("mix")
	f.compareEnds(fanoutSource, fanoutTarget)
	f.compareEnds(fanoutPorts, fanoutPorts2)
	f.jump("hash")
	f.label("swap")
	for _, pair := range [][2]int{{fanoutSource, fanoutTarget}, {fanoutPorts, fanoutPorts2}} {
		f.add(bpf.LoadScratch{Dst: bpf.RegA, N: pair[0]}, bpf.LoadScratch{Dst: bpf.RegX, N: pair[1]},
			bpf.StoreScratch{Src: bpf.RegA, N: pair[1]}, bpf.StoreScratch{Src: bpf.RegX, N: pair[0]})
	}
	f.label("hash")
	f.add(bpf.LoadConstant{Dst: bpf.RegA})
	for i, n := range []int{fanoutSource, fanoutTarget, fanoutPorts, fanoutPorts2} {
		f.add(bpf.TAX{}, bpf.LoadScratch{Dst: bpf.RegA, N: n}, bpf.ALUOpX{Op: bpf.ALUOpXor})
		f.scramble(f.keys[i])
	}
	f.scramble(f.keys[4])
	f.add(bpf.RetA{})
	f.label("none")
	f.add(bpf.RetConstant{})
}

// compareEnds goes on where both are equal, to "swap" where the first is larger, and to
// "hash" where it is not.
func (f *fanout) compareEnds(first, second int) {
	f.add(bpf.LoadScratch{Dst: bpf.RegA, N: first}, bpf.LoadScratch{Dst: bpf.RegX, N: second}, bpf.JumpIfX{Cond: bpf.JumpGreaterThan, SkipFalse: 1})
	f.jump("swap")
	f.add(bpf.JumpIfX{Cond: bpf.JumpEqual, SkipTrue: 1})
	f.jump("hash")
}

// scramble makes each bit of A depend on those around it.
func (f *fanout) scramble(key uint32) {
	f.add(bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: key}, bpf.TAX{}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 15}, bpf.ALUOpX{Op: bpf.ALUOpXor})
}

// address hashes the words of an address into the scratch memory.
func (f *fanout) address(to int, at uint32, words int) {
	for i := range words {
		f.add(bpf.LoadScratch{Dst: bpf.RegX, N: fanoutPlace})
		f.load(at+4*uint32(i), 4)
		if i > 0 {
			f.add(bpf.LoadScratch{Dst: bpf.RegX, N: to}, bpf.ALUOpX{Op: bpf.ALUOpXor})
		}
		f.scramble(f.keys[5])
		f.add(bpf.StoreScratch{Src: bpf.RegA, N: to})
	}
	f.add(bpf.LoadScratch{Dst: bpf.RegX, N: fanoutPlace})
}

func (f *fanout) noPorts() {
	f.add(bpf.LoadConstant{Dst: bpf.RegA}, bpf.StoreScratch{Src: bpf.RegA, N: fanoutPorts}, bpf.StoreScratch{Src: bpf.RegA, N: fanoutPorts2})
}

// keep stores X.
func (f *fanout) keep() { f.add(bpf.StoreScratch{Src: bpf.RegX, N: fanoutPlace}) }

// load loads A from the header at X.
func (f *fanout) load(at uint32, size int) {
	f.add(bpf.LoadIndirect{Off: fanoutNet + at, Size: size})
}

// skip adds to X. It keeps A.
func (f *fanout) skip(n uint32) {
	f.add(bpf.StoreScratch{Src: bpf.RegA, N: fanoutSaved}, bpf.TXA{}, bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: n}, bpf.TAX{}, bpf.LoadScratch{Dst: bpf.RegA, N: fanoutSaved})
}

// skipScratch adds what is in the scratch memory to X. It keeps A.
func (f *fanout) skipScratch(n int) {
	f.add(bpf.StoreScratch{Src: bpf.RegA, N: fanoutSaved}, bpf.LoadScratch{Dst: bpf.RegA, N: n}, bpf.ALUOpX{Op: bpf.ALUOpAdd}, bpf.TAX{}, bpf.LoadScratch{Dst: bpf.RegA, N: fanoutSaved})
}

func (f *fanout) add(list ...bpf.Instruction) { f.program = append(f.program, list...) }

func (f *fanout) label(name string) { f.labels[name] = len(f.program) }

// jump goes on at a label, which is further down.
func (f *fanout) jump(to string) {
	f.jumps = append(f.jumps, fanoutJump{len(f.program), to})
	f.add(bpf.Jump{})
}

// is jumps where A is a number.
func (f *fanout) is(n uint32, to string) {
	f.add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: n, SkipFalse: 1})
	f.jump(to)
}

// unless jumps where A is not the number.
func (f *fanout) unless(n uint32, to string) {
	f.add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: n, SkipTrue: 1})
	f.jump(to)
}

// assemble sets where the jumps go.
func (f *fanout) assemble() ([]bpf.RawInstruction, error) {
	for _, j := range f.jumps {
		to, ok := f.labels[j.to]
		if !ok || to <= j.at {
			return nil, fmt.Errorf("assemble the fanout program: no way to %s", j.to)
		}
		f.program[j.at] = bpf.Jump{Skip: uint32(to - j.at - 1)}
	}
	raw, err := bpf.Assemble(f.program)
	if err != nil {
		return nil, fmt.Errorf("assemble the fanout program: %w", err)
	}
	return raw, nil
}
