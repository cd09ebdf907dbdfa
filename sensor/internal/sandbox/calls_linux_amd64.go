package sandbox

import "golang.org/x/sys/unix"

// auditArch is how the kernel calls this architecture (linux/audit.h).
const auditArch = unix.AUDIT_ARCH_X86_64

const fstatat = unix.SYS_NEWFSTATAT

// legacyCalls are older forms of calls, which newer architectures lack.
func legacyCalls() []call {
	return plain(unix.SYS_EPOLL_WAIT, unix.SYS_POLL, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_ACCESS, unix.SYS_READLINK)
}
