package capture

import (
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/net/bpf"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// shuntProgram describes the socket filter of one ring. The kernel's functions
// and fields that it uses are those of Linux 4.14.
type shuntProgram struct {
	filter   []bpf.Instruction // decides first
	link     linktype.Type
	snaplen  uint32
	flows    *ebpf.Map // ShuntKey to a shuntVerdict
	counters *ebpf.Map // a shuntCount for each worker
	worker   int
}

// shuntVerdict is what becomes of the frames of a flow in the map.
type shuntVerdict uint32

const (
	announced shuntVerdict = iota // they pass
	withheld
)

// shuntCount is what was withheld from a worker.
type shuntCount struct {
	frames uint64
	bytes  uint64 // on the wire
}

// Registers. The kernel's functions leave R6 to R9 alone.
const (
	regContext = asm.R6 // struct __sk_buff
	regStack   = asm.R7 // ShuntKey.Stack
	regIndex   = asm.R7 // of the translated filter, which is done before
	regOffset  = asm.R8 // of the EtherType
	regFlags   = asm.R8 // TCP's
	regSave    = asm.R9
)

// Fields of struct __sk_buff (include/uapi/linux/bpf.h), which stays as it is.
const (
	skbLength      = 0
	skbVLANPresent = 20
	skbVLANTag     = 24
)

// Places below the frame pointer. The verifier wants loads from them aligned,
// so the IP header is, and the EtherType is just before it.
const (
	stackIP    = -64
	stackEther = stackIP - 2
	stackKey   = stackEther - 6 - 40
	stackIndex = stackKey - 8
)

// Lengths of headers.
const (
	headerIPv4 = 20
	headerIPv6 = 40
	headerTCP  = 20
)

// assemble makes the program: the user's filter, then a peek at the headers
// that passes whatever it does not know, then one look-up.
func (p *shuntProgram) assemble() (asm.Instructions, error) {
	program, err := translateFilter(p.filter, "peek")
	if err != nil {
		return nil, err
	}
	program = append(program, asm.Mov.Imm(regStack, 0).WithSymbol("peek"))
	if p.link == linktype.Ethernet {
		program = append(program, peekEthernet()...)
	} else {
		program = append(program, peekRaw()...)
	}
	program = append(program, peekIPv4()...)
	program = append(program, peekIPv6()...)
	program = append(program, orderEnds()...)
	return append(program, p.judge()...), nil
}

// loadFrame copies n bytes of the frame at regOffset to the stack. A shorter
// frame passes.
func loadFrame(n int32, to int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, regContext),
		asm.Mov.Reg(asm.R2, regOffset),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, to),
		asm.Mov.Imm(asm.R4, n),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
	}
}

// field brings a field of a header on the stack into a register.
func field(dst asm.Register, at int16, size asm.Size) asm.Instructions {
	load := asm.Instructions{asm.LoadMem(dst, asm.RFP, at, size)}
	if size != asm.Byte {
		load = append(load, asm.HostTo(asm.BE, dst, size))
	}
	return load
}

// peekEthernet follows up to two VLAN tags, of which the kernel keeps the outer
// one in the frame's metadata, to "ipv4" or "ipv6" with the header of IPv4, or
// as much of IPv6, and that of TCP on the stack.
func peekEthernet() asm.Instructions {
	program := asm.Instructions{
		asm.Mov.Imm(regOffset, macAddresses),
		asm.LoadMem(asm.R0, regContext, skbVLANPresent, asm.Word),
		asm.JEq.Imm(asm.R0, 0, "ether0"),
		asm.LoadMem(regStack, regContext, skbVLANTag, asm.Word),
		asm.And.Imm(regStack, 0xfff),
		asm.LSh.Imm(regStack, 20),
		asm.Or.Imm(regStack, ShuntOneTag),
	}
	for tags := range 3 {
		here, second, next := fmt.Sprint("ether", tags), fmt.Sprint("second", tags), fmt.Sprint("ether", tags+1)
		load := loadFrame(2+headerIPv4+headerTCP, stackEther)
		load[0] = load[0].WithSymbol(here)
		program = append(program, load...)
		program = append(program, field(asm.R1, stackEther, asm.Half)...)
		program = append(program,
			asm.JEq.Imm(asm.R1, ethertype.IPv4, "ipv4"),
			asm.JEq.Imm(asm.R1, ethertype.IPv6, "ipv6"),
		)
		if tags == 2 {
			program = append(program, asm.Ja.Label("pass"))
			break
		}
		tag := fmt.Sprint("tag", tags)
		program = append(program,
			asm.JEq.Imm(asm.R1, ethertype.VLAN, tag),
			asm.JEq.Imm(asm.R1, ethertype.QinQ, tag),
			asm.JNE.Imm(asm.R1, ethertype.QinQ91, "pass"),
			asm.JSet.Imm(regStack, ShuntTwoTags, "pass").WithSymbol(tag),
		)
		program = append(program, field(asm.R2, stackIP, asm.Half)...)
		program = append(program,
			asm.And.Imm(asm.R2, 0xfff),
			asm.Add.Imm(regOffset, vlanTagSize),
			asm.JSet.Imm(regStack, ShuntOneTag, second),
			asm.LSh.Imm(asm.R2, 20),
			asm.Or.Reg(regStack, asm.R2),
			asm.Or.Imm(regStack, ShuntOneTag),
			asm.Ja.Label(next),
			asm.LSh.Imm(asm.R2, 8).WithSymbol(second),
			asm.Or.Reg(regStack, asm.R2),
			asm.Or.Imm(regStack, ShuntTwoTags),
		)
	}
	return program
}

// peekRaw does the same for frames that begin with IP.
func peekRaw() asm.Instructions {
	program := append(
		asm.Instructions{asm.Mov.Imm(regOffset, 0)},
		loadFrame(headerIPv4+headerTCP, stackIP)...)
	return append(program,
		asm.Sub.Imm(regOffset, 2), // where the EtherType would be
		asm.LoadMem(asm.R1, asm.RFP, stackIP, asm.Byte),
		asm.And.Imm(asm.R1, 0xf0),
		asm.JEq.Imm(asm.R1, 0x60, "ipv6"),
		// and anything but IPv4 is found out there
	)
}

// peekIPv4 leaves the addresses in R1 to R4, the ports in R5 and R0, and the
// flags of TCP in regFlags.
func peekIPv4() asm.Instructions {
	program := asm.Instructions{
		asm.LoadMem(asm.R1, asm.RFP, stackIP, asm.Byte).WithSymbol("ipv4"),
		asm.JNE.Imm(asm.R1, 0x45, "pass"),
	}
	program = append(program, field(asm.R1, stackIP+6, asm.Half)...)
	program = append(program, asm.JSet.Imm(asm.R1, 0x3fff, "pass")) // a fragment
	program = append(program, field(asm.R1, stackIP+2, asm.Half)...)
	program = append(program,
		asm.JLT.Imm(asm.R1, headerIPv4+headerTCP, "pass"),
		asm.Sub.Imm(asm.R1, headerIPv4),
		asm.LoadMem(asm.R2, asm.RFP, stackIP+9, asm.Byte),
	)
	program = append(program, peekTCP(stackIP+headerIPv4)...)
	program = append(program, asm.Mov.Imm(asm.R1, 0), asm.Mov.Imm(asm.R3, 0))
	program = append(program, field(asm.R2, stackIP+12, asm.Word)...)
	program = append(program, field(asm.R4, stackIP+16, asm.Word)...)
	return append(program, asm.Ja.Label("order"))
}

// peekIPv6 does the same for IPv6, of which it copies the headers first.
func peekIPv6() asm.Instructions {
	program := append(
		asm.Instructions{asm.Add.Imm(regOffset, 2).WithSymbol("ipv6")},
		loadFrame(headerIPv6+headerTCP, stackIP)...)
	program = append(program,
		asm.LoadMem(asm.R1, asm.RFP, stackIP, asm.Byte),
		asm.And.Imm(asm.R1, 0xf0),
		asm.JNE.Imm(asm.R1, 0x60, "pass"),
	)
	program = append(program, field(asm.R1, stackIP+4, asm.Half)...)
	program = append(program, asm.LoadMem(asm.R2, asm.RFP, stackIP+6, asm.Byte))
	program = append(program, peekTCP(stackIP+headerIPv6)...)
	program = append(program, asm.Or.Imm(regStack, ShuntIPv6))
	for i, address := range []asm.Register{asm.R1, asm.R2, asm.R3, asm.R4} {
		program = append(program, field(address, stackIP+8+8*int16(i), asm.DWord)...)
	}
	return program
}

// peekTCP reads the header at a place on the stack. R1 is the length of what
// IP carries and R2 its protocol.
func peekTCP(at int16) asm.Instructions {
	program := asm.Instructions{
		asm.JNE.Imm(asm.R2, 6, "pass"),
		asm.LoadMem(asm.R2, asm.RFP, at+12, asm.Byte),
		asm.RSh.Imm(asm.R2, 4),
		asm.LSh.Imm(asm.R2, 2),
		asm.JLT.Imm(asm.R2, headerTCP, "pass"),
		asm.JGT.Reg(asm.R2, asm.R1, "pass"),
		asm.LoadMem(regFlags, asm.RFP, at+13, asm.Byte),
	}
	program = append(program, field(asm.R5, at, asm.Half)...)
	return append(program, field(asm.R0, at+2, asm.Half)...)
}

// orderEnds puts the key on the stack.
func orderEnds() asm.Instructions {
	program := asm.Instructions{
		asm.JGT.Reg(asm.R1, asm.R3, "swap").WithSymbol("order"),
		asm.JLT.Reg(asm.R1, asm.R3, "key"),
		asm.JGT.Reg(asm.R2, asm.R4, "swap"),
		asm.JLT.Reg(asm.R2, asm.R4, "key"),
		asm.JLE.Reg(asm.R5, asm.R0, "key"),
	}
	for i, pair := range [][2]asm.Register{{asm.R1, asm.R3}, {asm.R2, asm.R4}, {asm.R5, asm.R0}} {
		first := asm.Mov.Reg(regSave, pair[0])
		if i == 0 {
			first = first.WithSymbol("swap")
		}
		program = append(program, first, asm.Mov.Reg(pair[0], pair[1]), asm.Mov.Reg(pair[1], regSave))
	}
	return append(program,
		asm.StoreMem(asm.RFP, stackKey, asm.R1, asm.DWord).WithSymbol("key"),
		asm.StoreMem(asm.RFP, stackKey+8, asm.R2, asm.DWord),
		asm.StoreMem(asm.RFP, stackKey+16, asm.R3, asm.DWord),
		asm.StoreMem(asm.RFP, stackKey+24, asm.R4, asm.DWord),
		asm.StoreMem(asm.RFP, stackKey+32, asm.R5, asm.Half),
		asm.StoreMem(asm.RFP, stackKey+34, asm.R0, asm.Half),
		asm.StoreMem(asm.RFP, stackKey+36, regStack, asm.Word),
	)
}

// judge looks the key up, and counts and drops the frame or passes it.
func (p *shuntProgram) judge() asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, p.flows.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),

		asm.And.Imm(regFlags, 0x01|0x02|0x04), // FIN, SYN, RST
		asm.JEq.Imm(regFlags, 0, "known"),
		asm.LoadMapPtr(asm.R1, p.flows.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapDeleteElem.Call(),
		asm.Ja.Label("pass"),

		asm.LoadMem(asm.R0, asm.R0, 0, asm.Word).WithSymbol("known"),
		asm.JNE.Imm(asm.R0, int32(withheld), "pass"),

		// The kernel runs the filters of packet sockets with bottom halves
		// off, so that nothing else counts on this processor meanwhile.
		asm.StoreImm(asm.RFP, stackIndex, int64(p.worker), asm.Word),
		asm.LoadMapPtr(asm.R1, p.counters.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackIndex),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"), // for the verifier: the index exists
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R0, 8, asm.DWord),
		asm.LoadMem(asm.R2, regContext, skbLength, asm.Word),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.LoadMem(asm.R2, regContext, skbVLANPresent, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "count"),
		asm.Add.Imm(asm.R1, vlanTagSize),
		asm.StoreMem(asm.R0, 8, asm.R1, asm.DWord).WithSymbol("count"),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),

		asm.Mov.Imm(asm.R0, int32(p.snaplen)).WithSymbol("pass"),
		asm.Return(),
	}
}

// translateFilter turns the classic program of a filter into the beginning of
// an eBPF program: what it accepts goes on at a label. The accumulator is R0,
// where loads from a frame leave what they read.
func translateFilter(filter []bpf.Instruction, accept string) (asm.Instructions, error) {
	// Classic programs begin with both registers 0.
	program := asm.Instructions{asm.Mov.Reg(regContext, asm.R1), asm.Mov.Imm(asm.R0, 0), asm.Mov.Imm(regIndex, 0)}
	// The kernel refuses what is never reached.
	reached := make([]bool, len(filter)+1)
	reached[0] = true
	label := func(i int) string {
		reached[i] = true // jumps go forward
		return fmt.Sprint("filter", i)
	}
	for i, in := range filter {
		if !reached[i] {
			continue
		}
		start := len(program)
		falls := true
		switch in := in.(type) {
		case bpf.LoadAbsolute:
			// As in the classic machine, reading beyond the end rejects.
			program = append(program, asm.LoadAbs(int32(in.Off), loadSize(in.Size)))
		case bpf.LoadIndirect:
			program = append(program, asm.LoadInd(asm.R0, regIndex, int32(in.Off), loadSize(in.Size)))
		case bpf.LoadMemShift:
			program = append(program,
				asm.Mov.Reg(regSave, asm.R0),
				asm.LoadAbs(int32(in.Off), asm.Byte),
				asm.And.Imm(asm.R0, 0x0f),
				asm.LSh.Imm(asm.R0, 2),
				asm.Mov.Reg(regIndex, asm.R0),
				asm.Mov.Reg(asm.R0, regSave))
		case bpf.LoadExtension:
			at, ok := map[bpf.Extension]int16{
				bpf.ExtLen: skbLength, bpf.ExtVLANTagPresent: skbVLANPresent, bpf.ExtVLANTag: skbVLANTag,
			}[in.Num]
			if !ok {
				return nil, fmt.Errorf("translate filter: extension %d", in.Num)
			}
			program = append(program, asm.LoadMem(asm.R0, regContext, at, asm.Word))
		case bpf.ALUOpConstant:
			if in.Op != bpf.ALUOpAnd {
				return nil, fmt.Errorf("translate filter: %v", in)
			}
			program = append(program, asm.And.Imm32(asm.R0, int32(in.Val)))
		case bpf.Jump:
			program = append(program, asm.Ja.Label(label(i+1+int(in.Skip))))
			falls = false
		case bpf.JumpIf:
			jump, negated := jumpOp(in.Cond)
			yes, no := label(i+1+int(in.SkipTrue)), label(i+1+int(in.SkipFalse))
			if negated {
				yes, no = no, yes
			}
			if in.Val <= math.MaxInt32 {
				program = append(program, jump.Imm(asm.R0, int32(in.Val), yes))
			} else { // constants are extended by their sign
				program = append(program, asm.Mov.Imm32(asm.R1, int32(in.Val)), jump.Reg(asm.R0, asm.R1, yes))
			}
			program = append(program, asm.Ja.Label(no))
			falls = false
		case bpf.RetConstant:
			if in.Val != 0 {
				program = append(program, asm.Ja.Label(accept))
			} else {
				program = append(program, asm.Mov.Imm(asm.R0, 0), asm.Return())
			}
			falls = false
		default:
			return nil, fmt.Errorf("translate filter: %v", in)
		}
		program[start] = program[start].WithSymbol(label(i))
		if falls {
			reached[i+1] = true
		}
	}
	return program, nil
}

func loadSize(bytes int) asm.Size {
	switch bytes {
	case 1:
		return asm.Byte
	case 2:
		return asm.Half
	}
	return asm.Word
}

// jumpOp returns the jump on a condition, or on its opposite.
func jumpOp(cond bpf.JumpTest) (op asm.JumpOp, negated bool) {
	switch cond {
	case bpf.JumpEqual:
		return asm.JEq, false
	case bpf.JumpNotEqual:
		return asm.JNE, false
	case bpf.JumpGreaterThan:
		return asm.JGT, false
	case bpf.JumpLessThan:
		return asm.JGE, true
	case bpf.JumpGreaterOrEqual:
		return asm.JGE, false
	case bpf.JumpLessOrEqual:
		return asm.JGT, true
	case bpf.JumpBitsSet:
		return asm.JSet, false
	}
	return asm.JSet, true // JumpBitsNotSet
}
