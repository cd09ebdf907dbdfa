//go:build amd64 || arm64

package sandbox

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// seccompData is a system call as a filter sees it.
type seccompData struct {
	number uint32
	arch   uint32
	args   [6]uint64
}

// run runs a filter on a call.
func run(t testing.TB, calls []call, d seccompData) uint32 {
	t.Helper()
	program, err := assemble(calls)
	if err != nil {
		t.Fatal(err)
	}
	if len(program) > 4096 {
		t.Fatalf("%d instructions are more than the kernel takes (BPF_MAXINSNS)", len(program))
	}
	instructions := make([]bpf.Instruction, len(program))
	for i, in := range program {
		instructions[i] = bpf.RawInstruction{Op: in.Code, Jt: in.Jt, Jf: in.Jf, K: in.K}.Disassemble()
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	// The words are big-endian for this machine, and of the host for the kernel.
	words := []uint32{d.number, d.arch, 0, 0}
	for _, a := range d.args {
		words = append(words, uint32(a), uint32(a>>32))
	}
	var data []byte
	for _, w := range words {
		data = binary.BigEndian.AppendUint32(data, w)
	}
	result, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(result)
}

func policies() map[string][]call {
	return map[string][]call{
		"sensor":        sensorCalls(Policy{}),
		"sensor of all": sensorCalls(Policy{AnyPort: true, Resolve: true, UDP: true, Unix: true, KeepBPF: true}),
		"opener":        openerCalls(),
	}
}

// TestFilterNumbers goes through all numbers of system calls.
func TestFilterNumbers(t *testing.T) {
	for name, calls := range policies() {
		listed := map[uint32]call{}
		for _, c := range calls {
			if _, twice := listed[uint32(c.number)]; twice {
				t.Errorf("%s: system call %d is listed twice", name, c.number)
			}
			listed[uint32(c.number)] = c
		}
		for n := range uint32(unknownCall + 100) {
			want := uint32(deny)
			c, ok := listed[n]
			switch {
			case ok && c.when == nil:
				want = allow
			case n == unix.SYS_CLONE3, n >= unknownCall:
				want = none
			}
			// No condition is met by these arguments, and none may be by accident.
			got := run(t, calls, seccompData{n, auditArch, [6]uint64{1<<64 - 1, 1<<64 - 1, 1<<64 - 1, 1<<64 - 1, 1<<64 - 1, 1<<64 - 1}})
			if n == unix.SYS_CLONE {
				want = allow // it has all flags
			}
			if got != want {
				t.Errorf("%s: system call %d: %#x, want %#x", name, n, got, want)
			}
		}
		for _, arch := range []uint32{0, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, auditArch + 1} {
			if got := run(t, calls, seccompData{number: unix.SYS_READ, arch: arch}); got != deny {
				t.Errorf("%s: a call of architecture %#x: %#x", name, arch, got)
			}
		}
		const x32 = 1 << 30
		if got := run(t, calls, seccompData{number: unix.SYS_READ | x32, arch: auditArch}); got != none {
			t.Errorf("%s: a call of x32: %#x", name, got)
		}
	}
}

// TestFilterArguments holds the conditions to what they are for.
func TestFilterArguments(t *testing.T) {
	const (
		garbage = 0xdead << 32 // what the kernel ignores of an int
		threads = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD
	)
	all := policies()
	for _, c := range []struct {
		calls  string
		number uint32
		args   [6]uint64
		want   uint32
	}{
		{"sensor", unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, allow},
		{"sensor", unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, deny},
		{"sensor", unix.SYS_MPROTECT, [6]uint64{0, 4096, garbage | unix.PROT_EXEC}, deny},
		{"sensor", unix.SYS_CLONE, [6]uint64{threads}, allow},
		{"sensor", unix.SYS_CLONE, [6]uint64{uint64(unix.SIGCHLD)}, deny},
		{"sensor", unix.SYS_CLONE, [6]uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}, deny},
		{"sensor", unix.SYS_TGKILL, [6]uint64{uint64(unix.Getpid()), 1, 23}, allow},
		{"sensor", unix.SYS_TGKILL, [6]uint64{1, 1, 23}, deny},
		{"sensor", unix.SYS_PRLIMIT64, [6]uint64{0, 7, 0, 1}, allow},
		{"sensor", unix.SYS_PRLIMIT64, [6]uint64{0, 7, 1 << 32, 1}, deny},
		{"sensor", unix.SYS_PRLIMIT64, [6]uint64{0, 7, 1, 1}, deny},
		{"sensor", unix.SYS_SENDTO, [6]uint64{3, 0, 0, unix.MSG_NOSIGNAL}, allow},
		{"sensor", unix.SYS_SENDTO, [6]uint64{3, 0, 0, unix.MSG_FASTOPEN | unix.MSG_NOSIGNAL}, deny},
		{"sensor", unix.SYS_BPF, [6]uint64{unix.BPF_MAP_UPDATE_ELEM}, allow},
		{"sensor", unix.SYS_BPF, [6]uint64{unix.BPF_PROG_LOAD}, deny},
		{"sensor", unix.SYS_BPF, [6]uint64{garbage | unix.BPF_PROG_LOAD}, deny},
		{"sensor", unix.SYS_SOCKET, [6]uint64{unix.AF_INET, unix.SOCK_STREAM, 0}, deny},
		{"sensor of all", unix.SYS_SOCKET, [6]uint64{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, 0}, allow},
		{"sensor of all", unix.SYS_SOCKET, [6]uint64{garbage | unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, allow},
		{"sensor of all", unix.SYS_SOCKET, [6]uint64{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP}, deny},
		{"sensor of all", unix.SYS_SOCKET, [6]uint64{unix.AF_PACKET, unix.SOCK_RAW, 0}, deny},
		{"sensor of all", unix.SYS_SOCKET, [6]uint64{unix.AF_PACKET, unix.SOCK_DGRAM, 0}, deny},
		{"opener", unix.SYS_SOCKET, [6]uint64{unix.AF_PACKET, unix.SOCK_RAW | unix.SOCK_CLOEXEC, 0}, allow},
		{"opener", unix.SYS_SOCKET, [6]uint64{unix.AF_PACKET, unix.SOCK_RAW | unix.SOCK_CLOEXEC, 0x300}, deny}, // it would see packets
		{"opener", unix.SYS_SOCKET, [6]uint64{unix.AF_INET, unix.SOCK_RAW | unix.SOCK_CLOEXEC, 1}, deny},
		{"opener", unix.SYS_BIND, [6]uint64{4}, deny},
		{"opener", unix.SYS_OPENAT, [6]uint64{4}, deny},
		{"opener", unix.SYS_RECVFROM, [6]uint64{4}, deny},
	} {
		if got := run(t, all[c.calls], seccompData{c.number, auditArch, c.args}); got != c.want {
			t.Errorf("%s: system call %d with %#x: %#x, want %#x", c.calls, c.number, c.args, got, c.want)
		}
	}
}
