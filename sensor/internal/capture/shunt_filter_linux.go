package capture

import (
	"fmt"
	"math"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/net/bpf"
)

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
