package sandbox

import "golang.org/x/sys/unix"

// auditArch is how the kernel calls this architecture (linux/audit.h).
const auditArch = unix.AUDIT_ARCH_AARCH64

const fstatat = unix.SYS_FSTATAT

func legacyCalls() []call { return nil }
