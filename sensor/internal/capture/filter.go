package capture

import (
	"fmt"

	"golang.org/x/net/bpf"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

const (
	// maxFilterProgram is the most instructions that the kernel takes for one
	// filter (BPF_MAXINSNS).
	maxFilterProgram = 4096

	// maxFilterExpression bounds the length of an expression in bytes, and so
	// how deep the recursion of its parser goes.
	maxFilterExpression = 64 << 10

	// maxSnaplen is the most that is kept of a frame: libpcap's
	// MAXIMUM_SNAPLEN, more than any frame but those of BIG TCP on loopback.
	maxSnaplen = 256 << 10
)

// Filter is a compiled capture filter. It may be used by several goroutines at
// once.
type Filter struct {
	vm *bpf.VM
}

// CompileFilter compiles an expression in tcpdump's syntax (pcap-filter(7))
// for frames of one link type, as they are in a capture file. The empty
// expression matches every frame.
//
// Understood are host, net, port and portrange with src and dst; the protocols
// ip, ip6, arp, rarp, tcp, udp, sctp, icmp, icmp6, igmp, pim, ah, esp and vrrp;
// proto, ether, vlan, broadcast, multicast, less and greater; and, or, not and
// parentheses, where and and or bind alike from left to right. What else
// tcpdump knows, such as bytes of the packet in brackets, is refused, and names
// of hosts and networks are: a sensor asks no name server.
//
// As with tcpdump, frames with a VLAN tag are matched by vlan and by what
// follows it in the expression only: "port 443 or (vlan and port 443)" matches
// both kinds. The kernel takes the outer tag off before it runs the filter, so
// that on an interface the words before vlan match frames with one tag too.
func CompileFilter(expression string, link linktype.Type) (*Filter, error) {
	program, err := compileFilter(expression, link, false, maxSnaplen)
	if err != nil {
		return nil, err
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		return nil, fmt.Errorf("compile filter %q: %w", expression, err)
	}
	return &Filter{vm: vm}, nil
}

// Match reports whether the filter lets a frame pass. A frame that was cut
// before a byte that decides does not pass. less and greater compare the length
// of what was captured.
func (f *Filter) Match(frame []byte) bool {
	n, err := f.vm.Run(frame)
	return err == nil && n > 0
}

// compileFilter compiles an expression to a program that keeps snaplen bytes of
// the frames that match and none of the others. With live it finds the outer
// VLAN tag in the kernel's metadata.
func compileFilter(expression string, link linktype.Type, live bool, snaplen uint32) ([]bpf.Instruction, error) {
	program, err := func() ([]bpf.Instruction, error) {
		expr, err := parseFilter(expression)
		if err != nil {
			return nil, err
		}
		matches, err := expr.forLink(link, live)
		if err != nil {
			return nil, err
		}
		return assembleFilter(matches, snaplen)
	}()
	if err != nil {
		return nil, fmt.Errorf("compile filter %q: %w", expression, err)
	}
	return program, nil
}

// filterExpr is a parsed expression. It yields its test for frames laid out as
// l says. Expressions are asked from left to right, for vlan moves what follows.
type filterExpr func(l *frameLayout) (*frameTest, error)

// frameTest is a boolean expression over the bytes of one frame.
type frameTest struct {
	op          testOp
	left, right *frameTest // of testNot only left

	// Of testLeaf: load brings a value into the accumulator, which is compared.
	load  []bpf.Instruction
	cond  bpf.JumpTest
	value uint32
}

type testOp uint8

const (
	testLeaf testOp = iota
	testAnd
	testOr
	testNot
	testTrue
	testFalse
)

var (
	always = &frameTest{op: testTrue}
	never  = &frameTest{op: testFalse}
)

// all is true when each of tests is.
func all(tests ...*frameTest) *frameTest {
	var sum *frameTest
	for _, t := range tests {
		switch {
		case t == never:
			return never
		case sum == nil, sum == always:
			sum = t
		case t != always:
			sum = &frameTest{op: testAnd, left: sum, right: t}
		}
	}
	return sum
}

// either is true when one of tests is.
func either(tests ...*frameTest) *frameTest {
	var sum *frameTest
	for _, t := range tests {
		switch {
		case t == always:
			return always
		case sum == nil, sum == never:
			sum = t
		case t != never:
			sum = &frameTest{op: testOr, left: sum, right: t}
		}
	}
	return sum
}

func negate(t *frameTest) *frameTest {
	switch t {
	case always:
		return never
	case never:
		return always
	}
	return &frameTest{op: testNot, left: t}
}

// assembleFilter lays a test out as a program.
//
// Jumps only go forward, so the program is made from its end: whatever an
// instruction jumps to has its place already.
func assembleFilter(t *frameTest, snaplen uint32) ([]bpf.Instruction, error) {
	const reject, accept = 0, 1
	var a filterAssembler
	a.reversed = append(a.reversed, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: snaplen})
	switch entry := a.add(t, accept, reject); {
	case len(a.reversed) > maxFilterProgram:
		return nil, fmt.Errorf("the program has %d instructions, more than the %d that the kernel takes", len(a.reversed), maxFilterProgram)
	case entry != len(a.reversed)-1:
		a.reversed = append(a.reversed, bpf.Jump{Skip: uint32(len(a.reversed) - 1 - entry)})
	}
	program := make([]bpf.Instruction, len(a.reversed))
	for i, instruction := range a.reversed {
		program[len(program)-1-i] = instruction
	}
	return program, nil
}

type filterAssembler struct {
	reversed []bpf.Instruction // the last of the program first
}

// add puts t before what is there, going on at yes or at no, and returns where
// it begins. Places are indexes of reversed.
func (a *filterAssembler) add(t *frameTest, yes, no int) int {
	switch t.op {
	case testTrue:
		return yes
	case testFalse:
		return no
	case testNot:
		return a.add(t.left, no, yes)
	case testAnd:
		return a.add(t.left, a.add(t.right, yes, no), no)
	case testOr:
		return a.add(t.left, yes, a.add(t.right, yes, no))
	}
	yes, no = a.near(yes), a.near(no)
	here := len(a.reversed)
	a.reversed = append(a.reversed, bpf.JumpIf{
		Cond: t.cond, Val: t.value,
		SkipTrue: uint8(here - yes - 1), SkipFalse: uint8(here - no - 1),
	})
	for i := len(t.load) - 1; i >= 0; i-- {
		a.reversed = append(a.reversed, t.load[i])
	}
	return len(a.reversed) - 1
}

// near returns a place that does the same as target and that a conditional
// jump, which skips 255 instructions at most, reaches, even with one more
// instruction between.
func (a *filterAssembler) near(target int) int {
	here := len(a.reversed)
	if here-target-1 < 255 {
		return target
	}
	a.reversed = append(a.reversed, bpf.Jump{Skip: uint32(here - target - 1)})
	return here
}

// frameLayout says where the headers of a frame are.
type frameLayout struct {
	link    linktype.Type
	typ     uint32 // offset of what says the network protocol
	network uint32 // offset of the network header
	tagAway bool   // the next VLAN tag is in the kernel's metadata, not in the frame
	vlan    bool   // the expression has asked for a VLAN tag
}

// forLink makes the test of a whole expression for frames of one link type.
func (e filterExpr) forLink(link linktype.Type, live bool) (*frameTest, error) {
	l := frameLayout{link: link}
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
		// With HDLC framing (RFC 1662 section 3.1) address and control come
		// first, and no protocol has their number.
		plain, framed := l, l
		plain.typ, plain.network = 0, 2
		framed.typ, framed.network = 2, 4
		return e.forEither(half(0, 0xff03), framed, plain)
	default:
		return nil, fmt.Errorf("no filter for link type %d", link)
	}
	if live && link == linktype.Ethernet {
		inFrame := l
		t, err := e(&inFrame)
		if err != nil || !inFrame.vlan {
			return t, err
		}
		away := l
		away.tagAway = true
		tagged := &frameTest{load: []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtVLANTagPresent}}, cond: bpf.JumpEqual, value: 1}
		return e.forEither(tagged, away, l)
	}
	return e(&l)
}

// forEither makes the test for frames that are laid out one way when the guard
// is true and the other way when it is not.
func (e filterExpr) forEither(guard *frameTest, yes, no frameLayout) (*frameTest, error) {
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
func compare(offset uint32, size int, mask uint32, cond bpf.JumpTest, value uint32) *frameTest {
	load := []bpf.Instruction{bpf.LoadAbsolute{Off: offset, Size: size}}
	if mask != 1<<(8*size)-1 {
		load = append(load, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
	}
	return &frameTest{load: load, cond: cond, value: value}
}

func octet(offset uint32, value uint32) *frameTest {
	return compare(offset, 1, 0xff, bpf.JumpEqual, value)
}

func half(offset uint32, value uint32) *frameTest {
	return compare(offset, 2, 0xffff, bpf.JumpEqual, value)
}

func word32(offset, value uint32) *frameTest {
	return compare(offset, 4, 0xffffffff, bpf.JumpEqual, value)
}

// carries tests for a network protocol, given as its EtherType.
func (l *frameLayout) carries(etherType uint32) *frameTest {
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
func (l *frameLayout) transport4(protocol uint32) *frameTest {
	return all(l.carries(ethertype.IPv4), octet(l.network+9, protocol))
}

// transport6 tests for a transport protocol over IPv6, straight after the fixed
// header or after a fragment header.
func (l *frameLayout) transport6(protocol uint32) *frameTest {
	const fragment = 44
	return all(l.carries(ethertype.IPv6), either(
		octet(l.network+6, protocol),
		all(octet(l.network+6, fragment), octet(l.network+40, protocol))))
}
