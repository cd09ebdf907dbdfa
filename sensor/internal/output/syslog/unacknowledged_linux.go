package syslog

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unacknowledged returns how many bytes of a socket its peer has not acknowledged
// (SIOCOUTQ in tcp(7)), or, for a socket of the machine, about how many it has not
// read (unix(7)).
func unacknowledged(c syscall.Conn) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	if failed := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); failed != nil {
		return 0, failed
	}
	return n, err
}
