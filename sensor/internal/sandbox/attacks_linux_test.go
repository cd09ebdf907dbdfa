package sandbox

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/sensor/internal/capture"
)

// confined is a process that confines itself, and does then what it is told.
func confined() int {
	if err := runConfined(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "confined:", err)
		return 1
	}
	return 0
}

func runConfined(in io.Reader, out io.Writer) error {
	told, say := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	var k task
	if err := told.Decode(&k); err != nil {
		return err
	}
	w := worker{task: k, hangups: make(chan os.Signal, 1), old: make(chan func())}
	signal.Notify(w.hangups, syscall.SIGHUP)
	started := make(chan struct{})
	go func() { // a thread that is there before
		runtime.LockOSThread()
		close(started)
		for f := range w.old {
			f()
		}
	}()
	<-started
	if err := w.open(); err != nil {
		return err
	}
	if k.ABI >= 0 {
		kernel.landlockABI = func() (int, error) { return k.ABI, nil }
	}
	if k.NoCall {
		kernel.seccomp = func([]unix.SockFilter) error { return unix.ENOSYS }
	}
	var report Report
	if !k.Free {
		var err error
		if report, err = Confine(k.Policy); err != nil {
			return err
		}
	}
	if err := say.Encode(report); err != nil {
		return err
	}
	for {
		var what string
		if err := told.Decode(&what); err == io.EOF {
			return w.close()
		} else if err != nil {
			return err
		}
		if err := say.Encode(w.do(what)); err != nil {
			return err
		}
	}
}

// worker is a little sensor.
type worker struct {
	task
	hangups chan os.Signal
	old     chan func()
	opener  *Opener
	live    *capture.Live
	log     *os.File
	listens net.Listener
	table   *ebpf.Map // nil where the kernel allows none
}

// open opens what a sensor has open when it confines itself.
func (w *worker) open() (err error) {
	if w.opener, err = StartOpener(); err != nil {
		return err
	}
	if w.live, err = w.capture(); err != nil {
		return err
	}
	if w.listens, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		return err
	}
	port := fmt.Sprint(w.listens.Addr().(*net.TCPAddr).Port)
	if err := os.WriteFile(filepath.Join(w.Inside, "port"), []byte(port), 0o644); err != nil {
		return err
	}
	w.table, _ = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, MaxEntries: 1, KeySize: 4, ValueSize: 4})
	w.log, err = os.OpenFile(filepath.Join(w.Inside, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return err
}

func (w *worker) close() error { return errors.Join(w.live.Close(), w.opener.Close()) }

func (w *worker) capture() (*capture.Live, error) {
	return capture.OpenLive(capture.LiveOptions{Interfaces: []string{"lo"}, Workers: 2, Filter: "udp port 9",
		RingSize: capture.MinRingSize, NoShunt: true, Socket: w.opener.Socket})
}

func (w *worker) do(what string) []outcome {
	switch what {
	case "attack":
		return w.attack()
	case "attack on an old thread":
		var all []outcome
		done := make(chan struct{})
		w.old <- func() { all = w.attack(); close(done) }
		<-done
		return all
	case "work":
		return w.work()
	case "read secret":
		text, err := os.ReadFile(w.Secret)
		if err != nil {
			return []outcome{told(what, err)}
		}
		return []outcome{{Step: what, Text: string(text)}}
	case "capture":
		again, err := w.capture()
		if err != nil {
			return []outcome{told("open a ring", err)}
		}
		defer again.Close()
		return []outcome{told("old ring", frames(w.live)), told("new ring", frames(again))}
	case "use a BPF table":
		if w.table == nil {
			return []outcome{told(what, errors.New("there is none"))}
		}
		var value uint32
		return []outcome{told(what, errors.Join(w.table.Put(uint32(1), uint32(2)), w.table.Lookup(uint32(1), &value), w.table.Delete(uint32(1))))}
	case "accept":
		conn, err := w.listens.Accept()
		if err == nil {
			conn.Close()
		}
		return []outcome{told(what, err)}
	case "wait for SIGHUP":
		<-w.hangups
		return []outcome{told(what, nil)}
	case "make sockets":
		return makeSockets()
	}
	return []outcome{told(what, errors.New("unknown task"))}
}

func told(step string, err error) outcome {
	o := outcome{Step: step}
	if err != nil {
		o.Text = err.Error()
		var number syscall.Errno
		if errors.As(err, &number) {
			o.Number = int(number)
		}
	}
	return o
}

// frames waits for a frame on any of the sources.
func frames(live *capture.Live) error {
	for {
		for _, s := range live.Sources {
			batch, err := s.Next()
			if err != nil {
				return err
			}
			n := len(batch.Frames)
			batch.Release()
			if n > 0 {
				return nil
			}
		}
	}
}

// work is what a sensor goes on with.
func (w *worker) work() (all []outcome) {
	step := func(name string, err error) { all = append(all, told(name, err)) }
	path := filepath.Join(w.Inside, "new")
	step("append", errors.Join(second(w.log.WriteString("line\n")), w.log.Sync()))
	step("create", os.WriteFile(path, []byte("text"), 0o600))
	step("truncate", os.WriteFile(path, nil, 0o600))
	step("rename", os.Rename(path, path+".old"))
	step("remove", os.Remove(path+".old"))
	step("make and remove a folder", errors.Join(os.Mkdir(path, 0o700), os.Remove(path)))
	step("list", second(os.ReadDir(w.Inside)))
	step("lock", syscall.Flock(int(w.log.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	step("read about itself", second(os.ReadFile("/proc/self/status")))
	step("read when the machine was started", second(os.ReadFile("/proc/stat")))
	if w.Authorities {
		step("know the authorities of the system", authorities())
	}
	step("list interfaces", second(net.InterfaceByName("lo")))
	step("connect", connect(w.Allowed))
	if w.Policy.Resolve {
		step("read the resolver's files", second(os.ReadFile("/etc/hosts")))
		step("exchange datagrams", exchange(w.Echo))
		step("look up a name", second(net.LookupHost("localhost")))
	}
	// Threads that are not there yet, and memory that has to be collected.
	var threads sync.WaitGroup
	for range 20 {
		threads.Go(func() {
			runtime.LockOSThread() // and end with it
			kept := make([][]byte, 64)
			for i := range kept {
				kept[i] = make([]byte, 64<<10)
			}
			runtime.GC()
		})
	}
	threads.Wait()
	return all
}

// authorities reports whether this process knows those that TLS trusts.
func authorities() error {
	pool, err := x509.SystemCertPool()
	if err == nil && pool.Equal(x509.NewCertPool()) {
		err = errors.New("there are none")
	}
	return err
}

// exchange sends a datagram until it is answered.
func exchange(address string) error {
	conn, err := net.Dial("udp4", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	return second(conn.Read(make([]byte, 1)))
}

func second[T any](_ T, err error) error { return err }

func makeSockets() (all []outcome) {
	for _, s := range []struct {
		name                   string
		family, kind, protocol int
	}{
		{"tcp4", unix.AF_INET, unix.SOCK_STREAM, 0}, {"tcp6", unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP},
		{"udp4", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, {"udp6", unix.AF_INET6, unix.SOCK_DGRAM | unix.SOCK_NONBLOCK, 0},
		{"unix", unix.AF_UNIX, unix.SOCK_STREAM, 0}, {"netlink", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE},
		{"netfilter", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER}, {"ping", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP},
		{"mptcp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, {"sctp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP},
		{"raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, {"packet", unix.AF_PACKET, unix.SOCK_RAW, 0},
		{"packet datagrams", unix.AF_PACKET, unix.SOCK_DGRAM, 0}, {"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0}, {"alg", unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
	} {
		fd, err := unix.Socket(s.family, s.kind|unix.SOCK_CLOEXEC, s.protocol)
		all = append(all, told(s.name, err))
		if err == nil {
			unix.Close(fd)
		}
	}
	return all
}

// attack is something that a sensor never does.
type attack struct {
	name string
	by   int // the layers that stop it
	try  func(w *worker) error
}

func (w *worker) attack() (all []outcome) {
	for _, a := range attacks {
		all = append(all, told(a.name, a.try(w)))
	}
	return all
}

// call6 is a system call of which only the error counts.
func call6(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

// open opens a file, and does nothing with it.
func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// closing closes what an attack has got.
func closing(fd int, err error) error {
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// of returns the address of a text that ends with 0.
func of(s string) uintptr { return uintptr(unsafe.Pointer(unsafe.StringData(s + "\x00"))) }

const minus = ^uintptr(0)

// attacks do no harm where they succeed: the machine of the test is not meant.
var attacks = []attack{
	// Files.
	{"read a file of others", byLandlock, func(w *worker) error { return open(filepath.Join(w.Outside, "file"), unix.O_RDONLY) }},
	{"read /etc/shadow", byLandlock, func(*worker) error { return open("/etc/shadow", unix.O_RDONLY) }},
	{"write to a file of others", byLandlock, func(w *worker) error { return open(filepath.Join(w.Outside, "file"), unix.O_WRONLY) }},
	{"truncate a file of others", byTruncation | bySeccomp, func(w *worker) error { return unix.Truncate(filepath.Join(w.Outside, "file"), 7) }},
	{"write to a file that is only read", byLandlock, func(w *worker) error { return open(w.Secret, unix.O_WRONLY) }},
	{"create a file outside", byLandlock, func(w *worker) error {
		return open(filepath.Join(w.Outside, "created"), unix.O_CREAT|unix.O_WRONLY)
	}},
	{"list a folder outside", byLandlock, func(w *worker) error { return open(w.Outside, unix.O_RDONLY|unix.O_DIRECTORY) }},
	{"move a file outside", byLandlock, func(w *worker) error {
		path := filepath.Join(w.Inside, "moved")
		return errors.Join(os.WriteFile(path, nil, 0o600), os.Rename(path, filepath.Join(w.Outside, "moved")))
	}},
	{"remove a file outside", byLandlock, func(w *worker) error {
		err := os.Remove(filepath.Join(w.Outside, "moved"))
		if errors.Is(err, os.ErrNotExist) && !w.Free {
			err = unix.EACCES // it never got there
		}
		return err
	}},
	{"link into what is writable", byLandlock | bySeccomp, func(w *worker) error {
		return os.Link(filepath.Join(w.Outside, "file"), filepath.Join(w.Inside, "link"))
	}},
	{"make a symbolic link", byLandlock | bySeccomp, func(w *worker) error { return os.Symlink("/etc/shadow", filepath.Join(w.Inside, "symlink")) }},
	{"make a pipe", byLandlock | bySeccomp, func(w *worker) error { return unix.Mkfifo(filepath.Join(w.Inside, "pipe"), 0o600) }},
	{"make a device", byCapabilities | byLandlock | bySeccomp, func(w *worker) error {
		return unix.Mknod(filepath.Join(w.Inside, "device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
	}},
	{"change another process", byLandlock, func(w *worker) error { return open(fmt.Sprintf("/proc/%d/mem", w.Parent), unix.O_RDWR) }},
	{"change its own code", byLandlock, func(*worker) error { return open("/proc/self/mem", unix.O_RDWR) }},
	{"change the kernel's settings", byLandlock, func(*worker) error { return open("/proc/sys/kernel/core_pattern", unix.O_WRONLY) }},
	{"open by handle", bySeccomp, func(*worker) error { return call6(unix.SYS_OPEN_BY_HANDLE_AT, minus, 0, 0) }},

	// Programs and processes.
	{"start a program", byLandlock | bySeccomp, func(*worker) error { return exec.Command("/bin/true").Run() }},
	{"execve", bySeccomp, func(*worker) error { return call6(unix.SYS_EXECVE, of("/oddcert-test-missing"), 0, 0) }},
	{"execveat", bySeccomp, func(*worker) error { return call6(unix.SYS_EXECVEAT, minus, of("missing"), 0, 0, 0) }},
	{"fork", bySeccomp, func(*worker) error { return call6(unix.SYS_CLONE, unix.CLONE_SIGHAND|uintptr(unix.SIGCHLD)) }},
	{"ptrace", bySeccomp, func(*worker) error { return call6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1<<22-1) }},
	{"read another's memory", byCapabilities | byLandlock | bySeccomp, func(w *worker) error {
		return memoryOf(w.Parent, unix.ProcessVMReadv)
	}},
	{"write to another's memory", byCapabilities | byLandlock | bySeccomp, func(w *worker) error {
		return memoryOf(w.Parent, unix.ProcessVMWritev)
	}},
	{"signal another", byScopes | bySeccomp, func(w *worker) error { return unix.Kill(w.Parent, 0) }},
	{"signal a thread of another", byScopes | bySeccomp, func(w *worker) error { return unix.Tgkill(w.Parent, w.Parent, 0) }},
	{"hold another", bySeccomp, func(w *worker) error { return closing(unix.PidfdOpen(w.Parent, 0)) }},
	{"set a limit", bySeccomp, func(*worker) error { return unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{}, nil) }},
	{"map code", bySeccomp, func(*worker) error {
		return second(unix.Mmap(-1, 0, 4096, unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE))
	}},
	{"make memory code", bySeccomp, func(*worker) error {
		memory, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		return errors.Join(err, unix.Mprotect(memory, unix.PROT_READ|unix.PROT_EXEC))
	}},
	{"make a file in memory", bySeccomp, func(*worker) error { return closing(unix.MemfdCreate("x", unix.MFD_CLOEXEC)) }},
	{"type into the terminal", bySeccomp, func(*worker) error { return call6(unix.SYS_IOCTL, 0, unix.TIOCSTI, of("x")) }},

	// The network.
	{"connect to another port", byPorts, func(w *worker) error { return connect(w.Denied) }},
	{"connect by sending", bySeccomp, func(w *worker) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN|unix.MSG_NOSIGNAL, &unix.SockaddrInet4{Port: int(w.Denied), Addr: [4]byte{127, 0, 0, 1}})
	}},
	{"connect with MPTCP", bySeccomp, func(*worker) error { return closing(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)) }},
	{"listen", byPorts | bySeccomp, func(*worker) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	}},
	{"send datagrams", bySeccomp, func(*worker) error { return closing(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)) }},
	{"speak to a local service", bySeccomp, func(*worker) error { return closing(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)) }},
	{"speak to an abstract socket", byScopes | bySeccomp, func(w *worker) error {
		conn, err := net.Dial("unix", w.Abstract)
		if err == nil {
			conn.Close()
		}
		return err
	}},
	{"open a packet socket", byCapabilities | bySeccomp, func(*worker) error { return closing(capture.Socket()) }},
	{"open a raw socket", byCapabilities | bySeccomp, func(*worker) error {
		return closing(unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP))
	}},
	{"speak to netfilter", bySeccomp, func(*worker) error {
		return closing(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER))
	}},

	// The kernel.
	{"load a BPF program", bySeccomp, func(*worker) error { return bpfCall(unix.BPF_PROG_LOAD) }},
	{"make a BPF table", bySeccomp, func(*worker) error { return bpfCall(unix.BPF_MAP_CREATE) }},
	{"load BTF", bySeccomp, func(*worker) error { return bpfCall(unix.BPF_BTF_LOAD) }},
	{"mount", byCapabilities | byLandlock | bySeccomp, func(w *worker) error { return unix.Mount("none", w.Inside, "oddcert-test-missing", 0, "") }},
	{"open a tree", bySeccomp, func(*worker) error { return call6(unix.SYS_OPEN_TREE, minus, of("missing"), 0) }},
	{"make namespaces", byCapabilities | bySeccomp, func(*worker) error { return unix.Unshare(unix.CLONE_NEWUTS) }},
	{"become root of a namespace", bySeccomp, func(*worker) error { return unix.Unshare(unix.CLONE_NEWUSER) }},
	{"join a namespace", bySeccomp, func(*worker) error { return unix.Setns(-1, 0) }},
	{"change the root folder", bySeccomp, func(*worker) error { return unix.Chroot("/oddcert-test-missing") }},
	{"read keys", bySeccomp, func(*worker) error { return call6(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, minus-3, 0) }},
	{"load a module", byCapabilities | bySeccomp, func(*worker) error { return unix.FinitModule(-1, "", 0) }},
	{"load a kernel", bySeccomp, func(*worker) error { return call6(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0xffff) }},
	{"restart the machine", byCapabilities | bySeccomp, func(*worker) error { return call6(unix.SYS_REBOOT, 0, 0, 0, 0) }},
	{"swap", byCapabilities | bySeccomp, func(*worker) error { return call6(unix.SYS_SWAPON, of("/oddcert-test-missing"), 0) }},
	{"set the clock", bySeccomp, func(*worker) error { return call6(unix.SYS_CLOCK_SETTIME, unix.CLOCK_REALTIME, 1) }},
	{"measure the kernel", bySeccomp, func(*worker) error { return call6(unix.SYS_PERF_EVENT_OPEN, 0, 0, minus, minus, 0) }},
	{"io_uring", bySeccomp, func(*worker) error { return call6(unix.SYS_IO_URING_SETUP, 0, 0) }},
	{"userfaultfd", bySeccomp, func(*worker) error { return call6(unix.SYS_USERFAULTFD, ^uintptr(0)) }},
	{"personality", bySeccomp, func(*worker) error { return call6(unix.SYS_PERSONALITY, 0xffffffff) }},
	{"become another user", bySeccomp, func(*worker) error { return call6(unix.SYS_SETRESUID, minus, minus, minus) }},
	{"take capabilities back", byCapabilities | bySeccomp, func(*worker) error {
		set := unix.CapUserData{Effective: 1 << unix.CAP_SYS_ADMIN, Permitted: 1 << unix.CAP_SYS_ADMIN}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var have [2]unix.CapUserData
		if err := unix.Capget(&header, &have[0]); err != nil {
			return err
		}
		have[0].Effective |= set.Effective
		have[0].Permitted |= set.Permitted
		return unix.Capset(&header, &have[0])
	}},
	{"replace the filter", bySeccomp, func(*worker) error { return call6(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_STRICT, 1, 0) }},
	{"replace Landlock's rules", bySeccomp, func(*worker) error {
		return call6(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	}},
}

// memoryOf reaches for memory of another process where it has none.
func memoryOf(pid int, move func(int, []unix.Iovec, []unix.RemoteIovec, uint) (int, error)) error {
	var b byte
	return second(move(pid, []unix.Iovec{{Base: &b, Len: 1}}, []unix.RemoteIovec{{Base: 1, Len: 1}}, 0))
}

func bpfCall(command uintptr) error {
	var attr [128]byte
	return call6(unix.SYS_BPF, command, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
}

// connect connects to a port of this machine.
func connect(port uint16) error {
	conn, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), time.Minute)
	if err == nil {
		conn.Close()
	}
	return err
}
