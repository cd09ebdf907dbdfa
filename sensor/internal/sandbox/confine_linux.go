package sandbox

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

func confine(p Policy) (r Report, err error) {
	preload(p)
	paths, err := p.grants(&r)
	if err != nil {
		return r, err
	}
	if err := forbidNewPrivileges(); err != nil {
		return r, err
	}
	r.NoNewPrivs = true
	r.restrict(paths, p.ports(), p.AnyPort)

	keep := uint64(0)
	if p.KeepBPF {
		keep = 1 << unix.CAP_BPF
	}
	if err := r.drop(keep); err != nil {
		return r, err
	}
	r.filter(sensorCalls(p))
	return r, nil
}

// preload reads what libraries would read later, from places that only they know.
func preload(p Policy) {
	_, _ = time.Now().Zone() // the time zone
	if len(p.ports()) > 0 || p.AnyPort {
		_, _ = x509.SystemCertPool() // TLS says what is wrong with it
	}
	if p.Resolve {
		// The resolver of the C library loads modules, whose needs nobody knows.
		net.DefaultResolver.PreferGo = true
	}
}

// dnsPort is where the resolver asks again over TCP when an answer is too long (RFC
// 7766).
const dnsPort = 53

// ports are the TCP ports that can be connected to.
func (p *Policy) ports() []uint16 {
	if p.Resolve {
		return append([]uint16{dnsPort}, p.Ports...)
	}
	return p.Ports
}

func forbidNewPrivileges() error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("set no_new_privs: %w", errno)
	}
	return nil
}

// securebits make user id 0 a user like any other, and keep ambient capabilities
// down, for good (capabilities(7)).
const securebits = secbitNoRoot | secbitNoRoot<<1 | secbitNoSetuidFixup | secbitNoSetuidFixup<<1 |
	secbitKeepCaps<<1 | secbitNoAmbientRaise | secbitNoAmbientRaise<<1

// From linux/securebits.h. The bit above each of them locks it.
const (
	secbitNoRoot         = 1 << 0
	secbitNoSetuidFixup  = 1 << 2
	secbitKeepCaps       = 1 << 4
	secbitNoAmbientRaise = 1 << 6
)

// drop takes all capabilities but some from every thread: from the effective,
// permitted, inheritable and ambient sets, and from the bounding set where that is
// allowed.
func (r *Report) drop(keep uint64) error {
	has, err := permitted()
	if err != nil {
		return err
	}
	// Kernels before 4.3 have no ambient capabilities.
	_, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0)
	if errno != 0 && errno != unix.EINVAL {
		return fmt.Errorf("clear ambient capabilities: %w", errno)
	}
	if has&(1<<unix.CAP_SETPCAP) != 0 {
		if err := emptyBounding(); err != nil {
			return err
		}
	}
	r.Bounding = bounding() == 0
	keep &= has
	if err := setCapabilities(keep); err != nil {
		return err
	}
	if keep&(1<<unix.CAP_BPF) != 0 {
		r.Capabilities = append(r.Capabilities, "cap_bpf")
	}
	if left, err := permitted(); err != nil || left != keep {
		return errors.Join(err, fmt.Errorf("drop capabilities: %#x are left", left))
	}
	return nil
}

// permitted are the capabilities that the calling thread can have in effect, a bit
// each.
func permitted() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

// setCapabilities leaves every thread these, permitted and in effect.
func setCapabilities(set uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(set), Permitted: uint32(set)},
		{Effective: uint32(set >> 32), Permitted: uint32(set >> 32)},
	}
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return fmt.Errorf("drop capabilities: %w", errno)
	}
	return nil
}

// emptyBounding empties the bounding set of every thread. It takes CAP_SETPCAP.
func emptyBounding() error {
	// Kernels that lack one of the bits refuse them all.
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, securebits, 0, 0, 0, 0); errno != 0 && errno != unix.EPERM {
		return fmt.Errorf("set securebits: %w", errno)
	}
	set := bounding()
	for c := range uintptr(64) {
		if set&(1<<c) == 0 {
			continue
		}
		if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0, 0); errno != 0 {
			return fmt.Errorf("empty the bounding set: %w", errno)
		}
	}
	return nil
}

// bounding is the bounding set of the calling thread, a bit for each capability.
func bounding() (set uint64) {
	for c := range 64 {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil { // the kernel has no more
			break
		}
		set |= uint64(in) << c
	}
	return set
}

// filter installs a system call filter for every thread.
func (r *Report) filter(calls []call) {
	if auditArch == 0 {
		r.Lacks = append(r.Lacks, "seccomp: the system calls of "+runtime.GOARCH+" are not known to this program")
		return
	}
	program, err := assemble(calls)
	if err == nil {
		err = kernel.seccomp(program)
	}
	if err != nil {
		r.Lacks = append(r.Lacks, fmt.Sprintf("seccomp: system calls are not restricted: %v", err))
		return
	}
	r.Seccomp = true
}

// installFilter is seccomp(2), for all threads at once.
func installFilter(program []unix.SockFilter) error {
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC|unix.SECCOMP_FILTER_FLAG_LOG, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(program)
	switch {
	case errno != 0:
		return errno
	case thread != 0:
		return fmt.Errorf("thread %d has a filter of its own", thread)
	}
	return nil
}

// kernel is what the kernel may lack. Tests stand in for one that does.
var kernel = struct {
	landlockABI func() (int, error)
	seccomp     func([]unix.SockFilter) error
}{landlockABI, installFilter}

// isRoot reports whether the files of root belong to this process.
func isRoot() bool { return os.Geteuid() == 0 }
