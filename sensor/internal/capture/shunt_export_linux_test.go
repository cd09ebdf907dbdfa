package capture

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// ShuntBench runs the program of a ring on frames, without a socket.
type ShuntBench struct {
	shunt   *shunt
	program *ebpf.Program
	link    linktype.Type
}

// testSnaplen is what a ShuntBench keeps of frames that pass.
const testSnaplen = 1 << 17

// NewShuntBench skips the test where eBPF cannot be loaded, and says why.
func NewShuntBench(t testing.TB, filter string, link linktype.Type) *ShuntBench {
	t.Helper()
	sh, err := newShunt(1)
	if err != nil {
		t.Skipf("eBPF: %v", mayShunt(err))
	}
	t.Cleanup(sh.close)
	b := &ShuntBench{shunt: sh, link: link}
	b.program = b.load(t, filter)
	return b
}

func (b *ShuntBench) load(t testing.TB, filter string) *ebpf.Program {
	t.Helper()
	classic, err := compileFilter(filter, b.link, true, testSnaplen)
	if err != nil {
		t.Fatal(err)
	}
	p := shuntProgram{filter: classic, link: b.link, snaplen: testSnaplen, flows: b.shunt.flows, counters: b.shunt.counters}
	instructions, err := p.assemble()
	if err != nil {
		t.Fatal(err)
	}
	kind := ebpf.SocketFilter
	if b.link == linktype.Ethernet {
		// The kernel lets a test run set no VLAN tag in the metadata of a
		// frame, and refuses IP that is cut. A program of this type can do
		// what is needed itself.
		kind = ebpf.SchedCLS
		const skbMark, skbPriority = 8, 32
		instructions = append(asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadMem(asm.R3, asm.R6, skbPriority, asm.Word),
			asm.StoreMem(asm.RFP, -8, asm.R3, asm.Half),
			asm.Mov.Imm(asm.R2, macAddresses),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, -8),
			asm.Mov.Imm(asm.R4, 2),
			asm.Mov.Imm(asm.R5, 0),
			asm.FnSkbStoreBytes.Call(),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.LoadMem(asm.R3, asm.R6, skbMark, asm.Word),
			asm.JEq.Imm(asm.R3, 0, "begin"),
			asm.And.Imm(asm.R3, 0xffff),
			asm.Mov.Imm(asm.R2, ethertype.VLAN),
			asm.HostTo(asm.BE, asm.R2, asm.Half),
			asm.FnSkbVlanPush.Call(),
			asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("begin"),
		}, instructions...)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: kind, License: "MIT", Instructions: instructions})
	if err != nil {
		t.Fatalf("%q: %+v", filter, err)
	}
	t.Cleanup(func() { program.Close() })
	return program
}

// Run returns what the program keeps of a frame, whose outer VLAN tag it finds
// in the metadata, as on a socket.
func (b *ShuntBench) Run(t testing.TB, frame []byte) uint32 {
	t.Helper()
	// Before the data of a socket filter the kernel takes off a header.
	options := ebpf.RunOptions{Data: append(make([]byte, 14), frame...)}
	if b.link == linktype.Ethernet {
		var context [9]uint32
		if tag, ok := outerTag(frame); ok {
			frame = append(append([]byte(nil), frame[:macAddresses]...), frame[macAddresses+vlanTagSize:]...)
			context[2] = 1<<16 | uint32(tag)
		}
		context[8] = uint32(binary.NativeEndian.Uint16(frame[macAddresses:]))
		options.Context = context
		options.Data = append([]byte(nil), frame...)
		binary.BigEndian.PutUint16(options.Data[macAddresses:], 0xffff)
	}
	kept, err := b.program.Run(&options)
	if err != nil {
		t.Fatalf("%x: %v", frame, err)
	}
	return kept
}

// outerTag returns the VLAN tag that a kernel takes off.
func outerTag(frame []byte) (tci uint16, ok bool) {
	if len(frame) < macAddresses+vlanTagSize+2 {
		return 0, false
	}
	switch binary.BigEndian.Uint16(frame[macAddresses:]) {
	case ethertype.VLAN, ethertype.QinQ:
		return binary.BigEndian.Uint16(frame[macAddresses+2:]), true
	}
	return 0, false
}

// Forget takes a flow out of the map.
func (b *ShuntBench) Forget(t testing.TB, k ShuntKey) {
	t.Helper()
	if err := b.shunt.flows.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Fatal(err)
	}
}

// Withhold and Announce put a flow in the map, Known looks it up.
func (b *ShuntBench) Withhold(t testing.TB, k ShuntKey) { b.put(t, k, withheld) }
func (b *ShuntBench) Announce(t testing.TB, k ShuntKey) { b.put(t, k, announced) }

func (b *ShuntBench) put(t testing.TB, k ShuntKey, v shuntVerdict) {
	t.Helper()
	if err := b.shunt.flows.Put(k, v); err != nil {
		t.Fatal(err)
	}
}

func (b *ShuntBench) Known(t testing.TB, k ShuntKey) bool {
	t.Helper()
	var v shuntVerdict
	err := b.shunt.flows.Lookup(k, &v)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// Counted returns how many frames were withheld, and how many bytes.
func (b *ShuntBench) Counted() (frames, bytes uint64) {
	c := b.shunt.count(0)
	return c.frames, c.bytes
}

// Time returns what the program takes for a frame, as the kernel measures it.
func (b *ShuntBench) Time(t testing.TB, frame []byte) time.Duration {
	t.Helper()
	_, one, err := b.program.Benchmark(append(make([]byte, 14), frame...), 10_000, nil)
	if err != nil {
		t.Fatal(err)
	}
	return one
}
