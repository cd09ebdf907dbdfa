package pcapfilter

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// test is a boolean expression over the bytes of one frame.
type test struct {
	op          testOp
	left, right *test // of testNot only left

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
	always = &test{op: testTrue}
	never  = &test{op: testFalse}
)

// all is true when each of tests is.
func all(tests ...*test) *test {
	var sum *test
	for _, t := range tests {
		switch {
		case t == never:
			return never
		case sum == nil, sum == always:
			sum = t
		case t != always:
			sum = &test{op: testAnd, left: sum, right: t}
		}
	}
	return sum
}

// either is true when one of tests is.
func either(tests ...*test) *test {
	var sum *test
	for _, t := range tests {
		switch {
		case t == always:
			return always
		case sum == nil, sum == never:
			sum = t
		case t != never:
			sum = &test{op: testOr, left: sum, right: t}
		}
	}
	return sum
}

func negate(t *test) *test {
	switch t {
	case always:
		return never
	case never:
		return always
	}
	return &test{op: testNot, left: t}
}

// assemble lays a test out as a program.
//
// Jumps only go forward, so the program is made from its end: whatever an
// instruction jumps to has its place already.
func assemble(t *test, snaplen uint32) ([]bpf.Instruction, error) {
	const reject, accept = 0, 1
	var a assembler
	a.reversed = append(a.reversed, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: snaplen})
	switch entry := a.add(t, accept, reject); {
	case len(a.reversed) > maxProgram:
		return nil, fmt.Errorf("the program has %d instructions, more than the %d that the kernel takes", len(a.reversed), maxProgram)
	case entry != len(a.reversed)-1:
		a.reversed = append(a.reversed, bpf.Jump{Skip: uint32(len(a.reversed) - 1 - entry)})
	}
	program := make([]bpf.Instruction, len(a.reversed))
	for i, instruction := range a.reversed {
		program[len(program)-1-i] = instruction
	}
	return program, nil
}

type assembler struct {
	reversed []bpf.Instruction // the last of the program first
}

// add puts t before what is there, going on at yes or at no, and returns where
// it begins. Places are indexes of reversed.
func (a *assembler) add(t *test, yes, no int) int {
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
func (a *assembler) near(target int) int {
	here := len(a.reversed)
	if here-target-1 < 255 {
		return target
	}
	a.reversed = append(a.reversed, bpf.Jump{Skip: uint32(here - target - 1)})
	return here
}
