//go:build !linux

package main

import "syscall"

// secure keeps what is in memory, keys and passwords, from being written to
// disk when the program crashes.
func secure() { _ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) }
