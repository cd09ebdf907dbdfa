//go:build unix && !linux

package main

import "syscall"

// forbidCoreDumps keeps keys and passwords in memory from being written to the
// disk when the program crashes.
func forbidCoreDumps() { _ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) }
