package capture

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// TestFilterTranslated runs every expression over many frames, whole and cut,
// as the kernel's eBPF and as the classic program that it is made of.
func TestFilterTranslated(t *testing.T) {
	bench := NewShuntBench(t, "", linktype.Ethernet)
	expressions := parses
	var hosts []string
	for i := range 120 {
		hosts = append(hosts, fmt.Sprintf("host 192.0.2.%d", i))
	}
	expressions = append(expressions, strings.Join(hosts, " or "), "host 255.255.255.255 or net 240.0.0.0/4 or not dst net 128.0.0.0/1")
	frames := madeFrames(linktype.Ethernet)
	passed := 0
	for n, expression := range expressions {
		bench.program = bench.load(t, expression)
		program, err := compileFilter(expression, linktype.Ethernet, true, testSnaplen)
		if err != nil {
			t.Fatal(err)
		}
		for i := n % 16; i < len(frames); i += 16 {
			frame := frames[i]
			if i%5 == 0 {
				frame = frame[:14+i*7%(len(frame)-14)]
			}
			want := classic(t, program, frame)
			if got := bench.Run(t, frame); got != want {
				t.Fatalf("%.80q: %d of frame %x, the classic program %d", expression, got, frame, want)
			}
			if want > 0 {
				passed++
			}
		}
	}
	if passed == 0 {
		t.Error("nothing passed")
	}
}

// classic runs a filter of a live capture on a frame, with its outer tag taken
// off as the kernel does it.
func classic(t *testing.T, program []bpf.Instruction, frame []byte) uint32 {
	t.Helper()
	tag, present := outerTag(frame)
	if present {
		frame = append(append([]byte(nil), frame[:macAddresses]...), frame[macAddresses+vlanTagSize:]...)
	}
	known := make([]bpf.Instruction, len(program))
	for i, in := range program {
		known[i] = in
		switch in {
		case bpf.LoadExtension{Num: bpf.ExtVLANTagPresent}:
			known[i] = bpf.LoadConstant{Dst: bpf.RegA}
			if present {
				known[i] = bpf.LoadConstant{Dst: bpf.RegA, Val: 1}
			}
		case bpf.LoadExtension{Num: bpf.ExtVLANTag}:
			known[i] = bpf.LoadConstant{Dst: bpf.RegA, Val: uint32(tag)}
		}
	}
	vm, err := bpf.NewVM(known)
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}
