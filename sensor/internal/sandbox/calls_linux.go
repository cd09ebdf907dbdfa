//go:build amd64 || arm64

package sandbox

import "golang.org/x/sys/unix"

// runtimeCalls are what the Go runtime, the C library of a build with cgo, and every
// process needs.
func runtimeCalls() []call {
	calls := []call{
		{unix.SYS_MMAP, [][]condition{{lacks(2, unix.PROT_EXEC)}}}, // no new code
		{unix.SYS_MPROTECT, [][]condition{{lacks(2, unix.PROT_EXEC)}}},
		// A thread, and no process.
		{unix.SYS_CLONE, [][]condition{{has(0, unix.CLONE_THREAD|unix.CLONE_VM|unix.CLONE_SIGHAND)}}},
		{unix.SYS_TGKILL, oneOf(0, uint32(unix.Getpid()))}, // preemption of goroutines
		{unix.SYS_PRCTL, oneOf(0, unix.PR_SET_VMA)},        // names of memory
		{unix.SYS_PRLIMIT64, [][]condition{null(2)}},       // limits are read only
		// Is it a terminal, what waits in a socket, and how fast is an interface.
		{unix.SYS_IOCTL, oneOf(1, unix.TCGETS, unix.TIOCGWINSZ, unix.SIOCOUTQ, unix.TIOCINQ, unix.SIOCETHTOOL)},
	}
	return append(calls, plain(
		unix.SYS_FUTEX, unix.SYS_EPOLL_PWAIT, unix.SYS_READ, unix.SYS_WRITE, unix.SYS_NANOSLEEP, unix.SYS_SCHED_YIELD,
		unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_GETTIMEOFDAY,
		unix.SYS_MADVISE, unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_BRK,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EVENTFD2, unix.SYS_PIPE2, unix.SYS_CLOSE, unix.SYS_FCNTL,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
		unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETPPID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID,
		unix.SYS_SCHED_GETAFFINITY, unix.SYS_GETCPU, unix.SYS_GETRANDOM, unix.SYS_UNAME, unix.SYS_SYSINFO, unix.SYS_GETRUSAGE, unix.SYS_GETRLIMIT,
		unix.SYS_SET_ROBUST_LIST, unix.SYS_SET_TID_ADDRESS, unix.SYS_RSEQ, unix.SYS_MEMBARRIER,
		unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	)...)
}

// fileCalls work on files. Landlock says which.
func fileCalls() []call {
	return plain(
		unix.SYS_OPENAT, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_LSEEK,
		unix.SYS_FSTAT, fstatat, unix.SYS_STATX, unix.SYS_FSTATFS, unix.SYS_STATFS, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2,
		unix.SYS_READLINKAT, unix.SYS_GETDENTS64, unix.SYS_GETCWD,
		unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_UTIMENSAT,
		unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FLOCK,
		unix.SYS_COPY_FILE_RANGE, unix.SYS_SENDFILE, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_PPOLL,
	)
}

// sensorCalls are what a sensor needs under a policy.
func sensorCalls(p Policy) []call {
	calls := append(runtimeCalls(), fileCalls()...)
	calls = append(calls,
		call{unix.SYS_SOCKET, sockets(p)},
		// With TCP Fast Open, to send is to connect, and Landlock is not asked.
		call{unix.SYS_SENDTO, [][]condition{{lacks(3, unix.MSG_FASTOPEN)}}},
		call{unix.SYS_SENDMSG, [][]condition{{lacks(2, unix.MSG_FASTOPEN)}}},
		// The tables of the capture, which are open. It loads and makes nothing.
		call{unix.SYS_BPF, oneOf(0, unix.BPF_MAP_LOOKUP_ELEM, unix.BPF_MAP_UPDATE_ELEM, unix.BPF_MAP_DELETE_ELEM, unix.BPF_MAP_GET_NEXT_KEY,
			unix.BPF_MAP_LOOKUP_BATCH, unix.BPF_MAP_UPDATE_BATCH, unix.BPF_MAP_DELETE_BATCH, unix.BPF_OBJ_GET_INFO_BY_FD)},
	)
	calls = append(calls, plain(
		unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_ACCEPT4, unix.SYS_SHUTDOWN, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME,
		unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKOPT, unix.SYS_RECVFROM, unix.SYS_RECVMSG,
		unix.SYS_WAITID, unix.SYS_WAIT4, // for the opener
	)...)
	return append(calls, legacyCalls()...)
}

// sockets are the sockets that a policy needs: family, type and protocol. Packet sockets
// and raw ones are never among them.
func sockets(p Policy) (when [][]condition) {
	add := func(family, kind uint32, protocols ...uint32) {
		for _, protocol := range protocols {
			when = append(when, []condition{is(0, family),
				{argument: 1, mask: ^uint32(unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK), value: kind}, is(2, protocol)})
		}
	}
	for _, family := range []uint32{unix.AF_INET, unix.AF_INET6} {
		if len(p.ports()) > 0 || p.AnyPort {
			// Landlock looks at TCP alone, and not at MPTCP or SCTP.
			add(family, unix.SOCK_STREAM, 0, unix.IPPROTO_TCP)
		}
		if p.UDP || p.Resolve {
			add(family, unix.SOCK_DGRAM, 0, unix.IPPROTO_UDP)
		}
	}
	if p.Unix {
		for _, kind := range []uint32{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
			add(unix.AF_UNIX, kind, 0)
		}
	}
	add(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE) // the list of interfaces
	return when
}

// openerCalls are what the opener needs: one kind of socket, and the socket to the
// sensor.
func openerCalls() []call {
	return append(append(runtimeCalls(),
		call{unix.SYS_SOCKET, [][]condition{{is(0, unix.AF_PACKET), is(1, unix.SOCK_RAW|unix.SOCK_CLOEXEC), is(2, 0)}}}),
		plain(unix.SYS_RECVMSG, unix.SYS_SENDMSG)...)
}

func plain(numbers ...uintptr) (calls []call) {
	for _, n := range numbers {
		calls = append(calls, call{number: n})
	}
	return calls
}
