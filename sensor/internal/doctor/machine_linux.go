package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ReadMachine reads what is known of the machine, but for its memory.
func ReadMachine() (*Machine, error) {
	m := &Machine{Processors: runtime.NumCPU(), Governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fmt.Errorf("read the kernel's version: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(name.Release[:])
	var clock unix.Timex // asked for nothing but its state
	if _, err := unix.Adjtimex(&clock); err == nil {
		m.Synchronised = clock.Status&unix.STA_UNSYNC == 0
		m.ClockError = time.Duration(clock.Maxerror) * time.Microsecond
	}
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return nil, fmt.Errorf("read capabilities: %w", err)
	}
	for text := range bytes.Lines(status) {
		if value, ok := bytes.CutPrefix(text, []byte("CapEff:")); ok {
			if m.Capabilities, err = strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64); err != nil {
				return nil, fmt.Errorf("read capabilities: %w", err)
			}
		}
	}
	// landlock(7): without a ruleset it returns the version of the interface.
	if version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno == 0 {
		m.Landlock = int(version)
	}
	m.Seccomp = strings.Contains(line("/proc/sys/kernel/seccomp/actions_avail"), "kill_process")
	// Who may not read it has a kernel whose owner cares; it is 1 wherever the kernel
	// has no interpreter.
	jit := line("/proc/sys/net/core/bpf_jit_enable")
	m.JIT = jit != "0"
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, fmt.Errorf("read limits: %w", err)
	}
	m.OpenFiles = files.Cur
	return m, nil
}

// line is the first line of a file, empty where it cannot be read.
func line(path string) string {
	text, _ := os.ReadFile(path)
	first, _, _ := strings.Cut(string(text), "\n")
	return first
}

// remote are the file systems of the network by their numbers (linux/magic.h, and for
// CIFS and 9p the sources of their file systems). FUSE may be one, and mostly is: sshfs, s3fs, glusterfs.
var remote = map[uint32]string{
	unix.NFS_SUPER_MAGIC: "NFS", unix.CIFS_SUPER_MAGIC: "CIFS", unix.SMB_SUPER_MAGIC: "SMB", unix.SMB2_SUPER_MAGIC: "SMB",
	unix.V9FS_MAGIC: "9p", unix.CEPH_SUPER_MAGIC: "Ceph", unix.AFS_SUPER_MAGIC: "AFS", unix.CODA_SUPER_MAGIC: "Coda",
	unix.FUSE_SUPER_MAGIC: "FUSE",
}

// ReadFolder reads where a folder is, or will be made.
func ReadFolder(path string, size int64) (*Folder, error) {
	on, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	f := &Folder{Path: path, Size: size}
	for {
		var system unix.Statfs_t
		err := unix.Statfs(on, &system)
		if errors.Is(err, fs.ErrNotExist) && on != "/" {
			on = filepath.Dir(on)
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "statfs", Path: on, Err: err}
		}
		f.On, f.System, f.Free = on, remote[uint32(system.Type)], int64(system.Bavail)*int64(system.Bsize)
		return f, nil
	}
}
