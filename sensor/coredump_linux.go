package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// forbidCoreDumps keeps keys and passwords in memory from being written to the
// disk when the program crashes, and from other processes, which cannot trace it.
func forbidCoreDumps() {
	// Neither fails for a process that asks for less than it has.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}
