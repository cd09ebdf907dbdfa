package doctor

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Machine is what is known of the machine and of the rights of this process.
type Machine struct {
	Kernel       string // its release, such as "6.1.0-18-amd64"
	Processors   int
	Governor     string        // of the first processor's clock; empty where it has none
	Synchronised bool          // something sets the clock
	ClockError   time.Duration // the most that it may be off, as the kernel reckons
	Capabilities uint64        // that are effective
	Landlock     int           // version of its interface, 0 where there is none
	Seccomp      bool          // the kernel has filters of system calls
	JIT          bool          // the kernel compiles BPF
	OpenFiles    uint64        // that the process may have
	Memory       int64         // bytes that the process can have: the machine's or its control group's
	MemoryLimit  int64         // bytes that the program takes at most
}

// Capabilities of capabilities(7), by their bits.
const (
	capNetRaw   = 1 << 13
	capSysAdmin = 1 << 21
	capBPF      = 1 << 39
)

// leastFiles is how many open files a sensor needs: rings, files of the spool and
// connections of its outputs.
const leastFiles = 1024

// Judge says what is wrong with the machine.
func (m *Machine) Judge() []Finding {
	r := &report{group: GroupMachine}
	switch {
	case !m.atLeast(4, 14):
		r.problem("kernel", "uname -r", "Linux %s is older than 4.14, which oddcert needs", m.Kernel)
	default:
		r.ok("kernel", "Linux %s, %s", m.Kernel, plural(uint64(m.Processors), "processor", "processors"))
	}
	switch {
	case !m.Synchronised:
		r.warn("clock", "chronyc tracking", "nobody sets the clock: times of alerts may be wrong, and whether certificates had expired then")
	case m.ClockError > time.Second:
		r.warn("clock", "chronyc tracking", "the clock may be off by %v", m.ClockError.Round(time.Millisecond))
	default:
		r.ok("clock", "the clock is set, and at most %v off", m.ClockError.Round(time.Millisecond))
	}
	const mend = "setcap cap_net_raw,cap_bpf+ep $(command -v oddcert)"
	switch admin := m.Capabilities&capSysAdmin != 0; {
	case m.Capabilities&capNetRaw == 0:
		r.problem("capabilities", mend, "CAP_NET_RAW is missing: this process cannot capture")
	case m.Capabilities&capBPF == 0 && !admin:
		r.warn("capabilities", mend, "CAP_BPF is missing: the kernel cannot withhold flows whose handshake is over")
	default:
		r.ok("capabilities", "CAP_NET_RAW and CAP_BPF are there")
	}
	if !m.JIT {
		r.warn("jit", "sysctl -w net.core.bpf_jit_enable=1", "the kernel interprets filters instead of compiling them, which costs processor time with each frame")
	}
	if m.Landlock > 0 && m.Seccomp {
		r.ok("sandbox", "the kernel can confine oddcert: Landlock %d, seccomp", m.Landlock)
	} else {
		r.warn("sandbox", "cat /sys/kernel/security/lsm", "the kernel cannot confine oddcert wholly: Landlock %s, seccomp %s", had(m.Landlock > 0), had(m.Seccomp))
	}
	switch {
	case m.Memory > 0 && m.MemoryLimit > m.Memory:
		r.problem("memory", fmt.Sprintf("oddcert live --memory %dM", m.Memory/2>>20), "oddcert may take %d MiB, and there are %d MiB: the kernel would end it",
			m.MemoryLimit>>20, m.Memory>>20)
	case m.Memory > 0 && m.MemoryLimit > m.Memory*9/10:
		r.warn("memory", fmt.Sprintf("oddcert live --memory %dM", m.Memory/2>>20), "oddcert may take %d MiB of %d MiB, which leaves little for the rest", m.MemoryLimit>>20, m.Memory>>20)
	default:
		r.ok("memory", "oddcert takes at most %d MiB of %d MiB", m.MemoryLimit>>20, m.Memory>>20)
	}
	if m.OpenFiles < leastFiles {
		r.warn("files", "ulimit -n 4096", "the process may have %d open files, and could need %d", m.OpenFiles, leastFiles)
	} else {
		r.ok("files", "the process may have %d open files", m.OpenFiles)
	}
	if m.Governor == "powersave" {
		r.warn("governor", "cpupower frequency-set -g performance", "the processors save power: bursts find them slow")
	}
	return r.findings
}

func had(there bool) string {
	if there {
		return "is there"
	}
	return "is missing"
}

// atLeast compares the kernel's version.
func (m *Machine) atLeast(major, minor int) bool {
	parts := strings.FieldsFunc(m.Kernel, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		return true // whatever that is
	}
	a, _ := strconv.Atoi(parts[0]) // digits
	b, _ := strconv.Atoi(parts[1])
	return a > major || a == major && b >= minor
}

// Folder is where the queue on disk is, or will be.
type Folder struct {
	Path   string
	On     string // the folder that is there: Path, or the nearest above it
	System string // what kind of file system that is, where it is one of the network; else empty
	Free   int64  // bytes that this user can have
	Size   int64  // that the queue may take
}

// Judge says what is wrong with a folder.
func (f *Folder) Judge() []Finding {
	r := &report{group: GroupMachine, subject: f.Path}
	switch {
	case f.System != "":
		r.warn("spool", "df -T "+f.On, "%s", f.Remote())
	case f.Free < f.Size:
		r.warn("spool", "df -h "+f.On, "the disk has %d MiB free, and the spool may take %d MiB", f.Free>>20, f.Size>>20)
	default:
		r.ok("spool", "the disk has %d MiB free, and the spool takes at most %d MiB", f.Free>>20, f.Size>>20)
	}
	return r.findings
}

// Remote says that the folder is on a file system of the network.
func (f *Folder) Remote() string {
	return fmt.Sprintf("%s is on a file system of the network (%s): records wait for it, and a lock may not hold", f.Path, f.System)
}
