// Package sandbox takes rights away from a live sensor once its sockets and files are
// open, so that whoever finds a fault in a parser gains next to nothing. [Confine] is
// the whole of it, but for one right: interfaces that come back need new packet
// sockets. Those come from the [Opener], a small process beside the sensor.
//
// Four layers of Linux stand behind each other, and each does what the others cannot:
//
//   - Capabilities are dropped: no raw sockets, no eBPF, no way around permissions.
//   - no_new_privs: no program that is executed gains rights (prctl(2)).
//   - Landlock: only files and TCP ports that the policy names (landlock(7)).
//   - seccomp: only system calls that the program is known to need (seccomp(2)).
//
// User id 0 is special. Without capabilities it still owns the files of root, which
// only Landlock keeps it from, and a program that it executes gets all capabilities of
// the bounding set, unless no_new_privs or SECBIT_NOROOT is set (capabilities(7)). All
// of it is done, where the kernel allows it, so that none depends on the others. A user
// of its own is still better.
//
// Nothing of it can be undone, by nobody.
package sandbox

import (
	"fmt"
	"log/slog"
	"strings"
)

// Policy says what the process still does after [Confine]. What is open already stays
// open, and needs no mention. The zero value is a process that opens nothing.
type Policy struct {
	// Read and Write name files and folders. A folder stands for all that is below it.
	// A file stands for its folder, and for the folder that symbolic links lead to: only
	// so can it be replaced (rotated, renewed) and be opened again under its name. It may
	// be missing; its folder may not. Of folders that belong to the whole system, such as
	// /etc, only the file itself is granted.
	//
	// What is in Write can also be read, created, renamed and removed. Nothing can be
	// executed.
	Read, Write []string

	Ports   []uint16 // of TCP, to connect to
	AnyPort bool     // connect to any port, in the place of Ports

	// Resolve is for names of hosts: the files of the resolver, UDP, and port 53 of TCP.
	Resolve bool
	UDP     bool // to any port
	Unix    bool // sockets of the Unix domain; without, what is connected stays so

	// KeepBPF keeps CAP_BPF. Kernels before 5.19 want it for tables that are open.
	// Nothing can be loaded or created with it.
	KeepBPF bool
}

// Report is what is in force after [Confine].
type Report struct {
	Capabilities []string `json:"capabilities"` // those that are left
	Bounding     bool     `json:"bounding"`     // the bounding set is empty, and root is a user like any other
	NoNewPrivs   bool     `json:"no_new_privs"`
	Landlock     int      `json:"landlock"` // version of its ABI, 0 for none
	Seccomp      bool     `json:"seccomp"`

	Read  []string `json:"read"`  // files and folders that can be read
	Write []string `json:"write"` // and those that can be changed

	// Lacks says what the sensor goes on without, and why, a sentence each.
	Lacks []string `json:"lacks"`
}

// LogValue is r without the lists, which say how to mend it.
func (r Report) LogValue() slog.Value {
	left := "none"
	if len(r.Capabilities) > 0 {
		left = strings.Join(r.Capabilities, ",")
	}
	landlock := "none"
	if r.Landlock > 0 {
		landlock = fmt.Sprintf("ABI %d", r.Landlock)
	}
	return slog.GroupValue(slog.String("capabilities", left), slog.Bool("no_new_privs", r.NoNewPrivs),
		slog.String("landlock", landlock), slog.Bool("seccomp", r.Seccomp))
}

// Confine takes every right from the process that p does not name, from all its
// threads, for good. Call it once, when everything is open, and before the first byte of
// a stranger is parsed. It is for a process without children, but the [Opener].
//
// What the kernel does not offer is in Report.Lacks, and no error. An error means that
// the process must not go on: the policy cannot be kept, or capabilities are left.
//
// A system call that is denied returns EPERM, one that touches other files or ports
// EACCES. The kernel logs both: seccomp as audit records of type SECCOMP (1326) with the
// number of the call, Landlock (Linux 6.15) as LANDLOCK_ACCESS (1423). Where no audit
// daemon runs, the first kind is in the kernel's log.
func Confine(p Policy) (Report, error) { return confine(p) }
