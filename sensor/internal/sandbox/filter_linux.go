package sandbox

import (
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A filter is a list of the system calls that are allowed. A list of those that are
// denied would be shorter, and would leave open whatever the kernel learns next, and
// what nobody thought of: most of the calls that local exploits begin with are obscure.
// What a Go program needs is known, small, and changes with releases of Go, which the
// tests notice. A mistake is a denied call and a line in the log, not the end of the
// sensor.

// call allows a system call: always, or where one of the alternatives is met.
type call struct {
	number uintptr
	when   [][]condition
}

// condition looks at 32 bits of an argument. The kernel looks at no more where the
// argument is an int.
type condition struct {
	argument uint32 // 0..5
	high     bool   // the upper half
	mask     uint32
	value    uint32 // of the masked bits
}

// is is a condition on the whole of an int.
func is(argument, value uint32) condition {
	return condition{argument: argument, mask: ^uint32(0), value: value}
}

// has and lacks are conditions on flags.
func has(argument, flags uint32) condition {
	return condition{argument: argument, mask: flags, value: flags}
}

func lacks(argument, flags uint32) condition {
	return condition{argument: argument, mask: flags}
}

// null are conditions on a pointer.
func null(argument uint32) []condition {
	return []condition{is(argument, 0), {argument: argument, high: true, mask: ^uint32(0)}}
}

// oneOf are alternatives for an int.
func oneOf(argument uint32, values ...uint32) (when [][]condition) {
	for _, v := range values {
		when = append(when, []condition{is(argument, v)})
	}
	return when
}

// Offsets into struct seccomp_data (linux/seccomp.h). Its arguments are words of 64
// bits, of which the lower half is first on the machines that have a filter.
const (
	dataNumber    = 0
	dataArch      = 4
	dataArguments = 16
)

// unknownCall is the first system call that this package has not heard of. Programs try
// new ones, and take the old one when they hear ENOSYS, but not always on EPERM.
const unknownCall = unix.SYS_RSEQ_SLICE_YIELD + 1

const (
	allow = unix.SECCOMP_RET_ALLOW
	deny  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	none  = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// assemble makes a filter that allows calls and denies all others.
func assemble(calls []call) ([]unix.SockFilter, error) {
	instructions := []bpf.Instruction{
		load(dataArch),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		bpf.RetConstant{Val: deny}, // calls of another architecture have other numbers
		load(dataNumber),
	}
	for _, c := range calls {
		block := c.block()
		if len(block) > 255 {
			return nil, fmt.Errorf("system call %d has too many conditions", c.number)
		}
		instructions = append(instructions, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(c.number), SkipFalse: uint8(len(block))})
		instructions = append(instructions, block...)
	}
	instructions = append(instructions,
		// Its flags are in memory, where a filter cannot see them. The C library takes
		// clone instead.
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_CLONE3, SkipTrue: 2},
		// So are the calls of the x32 ABI, whose numbers have bit 30.
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: unknownCall, SkipTrue: 1},
		bpf.RetConstant{Val: deny},
		bpf.RetConstant{Val: none})
	raw, err := bpf.Assemble(instructions)
	if err != nil {
		return nil, fmt.Errorf("assemble filter: %w", err)
	}
	program := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		program[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return program, nil
}

// block decides about a call whose number was met. The accumulator need not hold the
// number after it, as it always returns.
func (c call) block() (block []bpf.Instruction) {
	if len(c.when) == 0 {
		return []bpf.Instruction{bpf.RetConstant{Val: allow}}
	}
	for _, all := range c.when {
		var tests []bpf.Instruction
		const size = 3 // instructions of a test
		for i, t := range all {
			offset := dataArguments + 8*t.argument
			if t.high {
				offset += 4
			}
			left := (len(all) - i - 1) * size
			tests = append(tests, load(offset),
				bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: t.mask},
				bpf.JumpIf{Cond: bpf.JumpEqual, Val: t.value, SkipFalse: uint8(left + 1)})
		}
		block = append(block, append(tests, bpf.RetConstant{Val: allow})...)
	}
	return append(block, bpf.RetConstant{Val: deny})
}

func load(offset uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offset, Size: 4} }
