package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The opener is the program of the sensor, executed once more under this name. It gets
// no other argument, no variables of the environment, where secrets may be, and three
// descriptors beside the socket: /dev/null twice, and the sensor's standard error.
//
// A request is one byte, and a message of its own (SOCK_SEQPACKET). The answer is an
// error number, 0 for none, in four bytes of the machine's order, with the descriptor
// of the socket where there is no error (SCM_RIGHTS, unix(7)). The end of the stream is
// the end of the opener.
const (
	openerName   = "oddcert-opener"
	openerSocket = 3 // its descriptor
	answerSize   = 4
)

// openerEnvironment is all of its environment: one processor is enough, and the runtime
// need not watch files of the control group.
var openerEnvironment = []string{"GOMAXPROCS=1", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}

// Opener is the sensor's end of a process that opens packet sockets. It keeps CAP_NET_RAW
// when the sensor has given it up, and can do nothing else: what it opens it cannot
// bind, and so it never sees a packet. It is in the network namespace in which it was
// started. Its methods may be called by any goroutine.
type Opener struct {
	mu     sync.Mutex // one request at a time
	conn   *net.UnixConn
	failed error // no more requests after it

	process *os.Process
	over    chan struct{} // closed when the process has ended
}

// StartOpener starts the process, which is to end with this one. Call it before
// [Confine], which would forbid it. Where this process lacks CAP_NET_RAW, so does the
// opener, and [Opener.Socket] says so.
func StartOpener() (_ *Opener, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start %s: %w", openerName, err)
		}
	}()
	if err := closeOnExec(); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), openerName), os.NewFile(uintptr(pair[1]), openerName)
	defer ours.Close() // net.FileConn copies it
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	o := &Opener{conn: conn.(*net.UnixConn), over: make(chan struct{})}
	if err := o.start(theirs); err != nil {
		conn.Close()
		return nil, err
	}
	return o, nil
}

// closeOnExec keeps descriptors that this process has inherited from going on to the
// opener. Those that Go opens do not.
func closeOnExec() error {
	folder, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range folder {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd) // some are closed by now
		}
	}
	return nil
}

// start starts the process. The kernel ends it when the thread ends that has started it
// (PR_SET_PDEATHSIG), and so that thread waits for it, and does nothing else.
func (o *Opener) start(socket *os.File) error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{openerName}
	cmd.Env = openerEnvironment
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{socket} // becomes openerSocket
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if has, err := permitted(); err != nil {
		return err
	} else if has&(1<<unix.CAP_NET_RAW) != 0 {
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_NET_RAW}
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // Socket says how it ended
			close(o.over)
		}
	}()
	err := <-started
	o.process = cmd.Process
	return err
}

// Socket returns a packet socket (packet(7)) of type SOCK_RAW, bound to nothing, that is
// closed on exec. The caller owns it. The error is the kernel's where that refuses one,
// EAGAIN where too many were asked for, and else final. It waits for 5 s at most.
func (o *Opener) Socket() (fd int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed != nil {
		return -1, o.failed
	}
	fd, err = o.ask()
	var refused refusal
	switch {
	case err == nil:
		return fd, nil
	case errors.As(err, &refused):
		return -1, fmt.Errorf("open packet socket: %w", syscall.Errno(refused))
	}
	// A late answer would be taken for that of the next request.
	o.failed = fmt.Errorf("ask %s for a packet socket: %w", openerName, err)
	o.conn.Close()
	return -1, o.failed
}

// refusal is an error number in an answer.
type refusal syscall.Errno

func (r refusal) Error() string { return syscall.Errno(r).Error() }

func (o *Opener) ask() (fd int, err error) {
	if err := o.conn.SetDeadline(time.Now().Add(socketLimit)); err != nil {
		return -1, err
	}
	if _, err := o.conn.Write([]byte{0}); err != nil {
		return -1, err
	}
	answer, control := make([]byte, maxRequest), make([]byte, unix.CmsgSpace(4))
	n, rights, flags, _, err := o.conn.ReadMsgUnix(answer, control)
	if err != nil {
		return -1, err
	}
	return parseAnswer(answer[:n], control[:rights], flags)
}

// parseAnswer takes the socket out of an answer. It closes every other descriptor.
func parseAnswer(answer, control []byte, flags int) (fd int, err error) {
	fds := descriptors(control)
	number := syscall.Errno(0)
	switch {
	case len(answer) == 0:
		err = errors.New("the process has ended")
	case len(answer) != answerSize || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("the answer is malformed")
	default:
		number = syscall.Errno(binary.NativeEndian.Uint32(answer))
		if number != 0 {
			err = refusal(number)
		} else if len(fds) != 1 {
			err = errors.New("the answer has no socket")
		}
	}
	if err == nil {
		return fds[0], nil
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	return -1, err
}

// descriptors are those in the control messages of an answer.
func descriptors(control []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for i := range messages {
		if len(messages[i].Data)%4 != 0 { // which the kernel does not send, and the parser does not expect
			continue
		}
		rights, err := unix.ParseUnixRights(&messages[i])
		if err == nil {
			fds = append(fds, rights...)
		}
	}
	return fds
}

// Close ends the process, and waits for that.
func (o *Opener) Close() error {
	o.conn.Close()
	select {
	case <-o.over:
		return nil
	case <-time.After(closeLimit):
	}
	if err := o.process.Kill(); err != nil {
		return fmt.Errorf("end %s: %w", openerName, err)
	}
	<-o.over
	return nil
}

// IsOpener reports whether this process is an opener. Its main has to do nothing then
// but call [Serve], before it reads a configuration or makes anything.
func IsOpener() bool { return len(os.Args) == 1 && os.Args[0] == openerName }

// Serve is the opener. It returns the exit status.
func Serve() int {
	if err := serve(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", openerName, err)
		return 1
	}
	return 0
}

func serve() error {
	if kind, err := unix.GetsockoptInt(openerSocket, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		return errors.New("started by nobody: a live capture starts it")
	}
	// What tells the sensor to end or to reload may reach its whole group. The opener
	// ends with the sensor.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGPIPE)
	unix.CloseOnExec(openerSocket)
	if err := renounce(); err != nil {
		return err
	}
	debug.FreeOSMemory() // what the packages of the program made at the start
	return answerRequests(openerSocket, newBucket(time.Now()))
}

// renounce leaves the opener nothing but CAP_NET_RAW and the calls that it needs.
func renounce() error {
	_ = os.WriteFile("/proc/self/comm", []byte(openerName), 0) // for ps; else it is "exe"
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	for resource, limit := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_NOFILE: openerFiles} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fmt.Errorf("limit resource %d: %w", resource, err)
		}
	}
	if err := forbidNewPrivileges(); err != nil {
		return err
	}
	var r Report // the sensor says what the kernel lacks
	r.restrict(nil, nil, false)
	if err := r.drop(1 << unix.CAP_NET_RAW); err != nil {
		return err
	}
	// The sensor may have died before; a change of rights would have undone it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("set PR_SET_PDEATHSIG: %w", err)
	}
	r.filter(openerCalls())
	return nil
}

// answerRequests answers until the other end is closed.
func answerRequests(socket int, b *bucket) error {
	request := make([]byte, maxRequest)
	for {
		n, _, _, _, err := unix.Recvmsg(socket, request, nil, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		case n == 0:
			return nil
		}
		var fd int
		err = unix.EAGAIN
		if b.take(time.Now()) {
			fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		}
		err = answer(socket, fd, err)
		if err == unix.EPIPE || err == unix.ECONNRESET {
			return nil
		}
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
}

// answer sends a socket, which it closes, or the error.
func answer(to, fd int, refused error) error {
	var text [answerSize]byte
	var rights []byte
	if refused == nil {
		defer unix.Close(fd)
		rights = unix.UnixRights(fd)
	} else {
		number, _ := refused.(syscall.Errno)
		binary.NativeEndian.PutUint32(text[:], uint32(number))
	}
	for {
		err := unix.Sendmsg(to, text[:], rights, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// bucket is a token bucket.
type bucket struct {
	tokens float64
	last   time.Time
}

func newBucket(now time.Time) *bucket { return &bucket{tokens: openerBurst, last: now} }

// take reports whether one more is allowed.
func (b *bucket) take(now time.Time) bool {
	b.tokens = min(openerBurst, b.tokens+now.Sub(b.last).Seconds()*openerRate)
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
