package capture

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
	"github.com/oddcert/oddcert/sensor/internal/pcapfilter"
)

// shunt is what the sources of one capture share to withhold flows.
type shunt struct {
	flows    *ebpf.Map
	counters *ebpf.Map
	users    atomic.Int32 // sources that are not freed

	// Loading a program takes CAP_BPF, and attaching it nothing. So those of the link
	// types that there are stay loaded, for interfaces that come later. By link type
	// and worker; only who opens interfaces uses it.
	programs map[linktype.Type][]*ebpf.Program
}

// newShunt makes the maps for a number of workers.
func newShunt(workers int) (*shunt, error) {
	flows, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "oddcert_flows", Type: ebpf.LRUHash, MaxEntries: ShuntedFlows,
		KeySize: uint32(unsafe.Sizeof(ShuntKey{})), ValueSize: uint32(unsafe.Sizeof(withheld)),
	})
	if err != nil {
		return nil, fmt.Errorf("create map of flows: %w", err)
	}
	counters, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "oddcert_count", Type: ebpf.PerCPUArray, MaxEntries: uint32(workers),
		KeySize: 4, ValueSize: uint32(unsafe.Sizeof(shuntCount{})),
	})
	if err != nil {
		flows.Close()
		return nil, fmt.Errorf("create map of counters: %w", err)
	}
	sh := &shunt{flows: flows, counters: counters, programs: map[linktype.Type][]*ebpf.Program{}}
	sh.users.Store(int32(workers))
	return sh, nil
}

// close ends what one source needs of it.
func (sh *shunt) close() {
	if sh.users.Add(-1) == 0 {
		sh.free()
	}
}

func (sh *shunt) free() {
	for _, programs := range sh.programs {
		for _, program := range programs {
			if program != nil {
				program.Close() // sockets keep it
			}
		}
	}
	sh.flows.Close()
	sh.counters.Close()
}

// count returns what was withheld from a worker.
func (sh *shunt) count(worker int) (sum shuntCount) {
	var each [][2]uint64 // one for each processor
	if sh.counters.Lookup(uint32(worker), &each) == nil {
		for _, c := range each {
			sum.frames += c[0]
			sum.bytes += c[1]
		}
	}
	return sum
}

// load loads the program of a ring of a worker.
func (sh *shunt) load(filter []bpf.Instruction, link linktype.Type, snaplen, worker int) (*ebpf.Program, error) {
	p := shuntProgram{filter: filter, link: link, snaplen: uint32(snaplen), flows: sh.flows, counters: sh.counters, worker: worker}
	instructions, err := p.assemble()
	if err != nil {
		return nil, err
	}
	program, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{
		Name: "oddcert_shunt", Type: ebpf.SocketFilter, License: "MIT", Instructions: instructions,
	}, ebpf.ProgramOptions{LogDisabled: true})
	if err != nil {
		return nil, fmt.Errorf("load program: %w", err)
	}
	return program, nil
}

// attach puts a program that withholds flows in place of the filter of a ring of a
// worker.
func (sh *shunt) attach(r *ring, snaplen, worker int) error {
	program := sh.programs[r.link][worker]
	if program == nil {
		var err error
		if program, err = sh.load(r.filter, r.link, snaplen, worker); err != nil {
			return err
		}
		sh.programs[r.link][worker] = program
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, program.FD()); err != nil {
		return fmt.Errorf("attach program: %w", err)
	}
	return nil
}

// startShunting makes the sources withhold flows, and loads the programs of interfaces
// that there may be.
func (l *listening) startShunting() error {
	sh, err := newShunt(len(l.sources))
	if err != nil {
		return err
	}
	for _, link := range []linktype.Type{linktype.Ethernet, linktype.Raw} {
		sh.programs[link] = make([]*ebpf.Program, len(l.sources))
		filter, err := pcapfilter.CompileLive(l.opt.Filter, link, uint32(l.opt.Snaplen))
		if err != nil {
			continue // said if there is such an interface
		}
		for worker := range l.sources {
			if sh.programs[link][worker], err = sh.load(filter, link, l.opt.Snaplen, worker); err != nil {
				sh.free()
				return err
			}
		}
	}
	l.shunt = sh
	for i, s := range l.sources {
		s.shunt, s.worker = sh, i
	}
	return nil
}

// needsBPF reports whether flows can be withheld only with CAP_BPF, by trying without.
//
// Where kernel.unprivileged_bpf_disabled is set, as it is by default, Linux before 5.19
// refuses a process without it also those calls that need no more than an open map
// (commit c8644cd0efe7, "bpf: refine kernel.unprivileged_bpf_disabled behaviour").
func (sh *shunt) needsBPF() bool {
	// Capabilities are those of a thread. This one gets its own back: whoever changes
	// those of all threads, as syscall.AllThreadsSyscall does, wants all to be alike.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var own, none [2]unix.CapUserData
	if err := unix.Capget(&header, &own[0]); err != nil {
		return true
	}
	for i := range own {
		none[i] = own[i]
		none[i].Effective = 0
	}
	if err := unix.Capset(&header, &none[0]); err != nil {
		return true
	}
	var key ShuntKey
	var each [][2]uint64
	err := errors.Join(sh.flows.Put(key, announced), sh.flows.Delete(key), sh.counters.Lookup(uint32(0), &each))
	// What is permitted can be made effective again (capabilities(7)).
	return errors.Join(err, unix.Capset(&header, &own[0])) != nil
}

// mayShunt adds to err which capability is missing.
func mayShunt(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("not allowed without CAP_BPF, or CAP_SYS_ADMIN before Linux 5.8: %w", err)
	}
	return err
}

// shuntingSource is a live source whose rings have the program.
type shuntingSource struct {
	*liveSource
	key     ShuntKey // what the kernel reads must not move
	verdict shuntVerdict
}

func (s *shuntingSource) Shunt(flow ShuntKey, seen int64, state ShuntState) ShuntState {
	// The state is when the flow was announced, or the same below 0 when it was
	// withheld.
	switch at := int64(state); {
	case at > 0 && seen <= at+int64(shuntSettle), at < 0 && seen < int64(shuntRetry)-at:
		return state
	case at > 0 && s.update(flow, withheld, ebpf.UpdateExist):
		return ShuntState(-time.Now().UnixNano())
	}
	s.update(flow, announced, ebpf.UpdateAny)
	return ShuntState(time.Now().UnixNano())
}

// update says what is to become of the frames of a flow.
func (s *shuntingSource) update(flow ShuntKey, verdict shuntVerdict, flags ebpf.MapUpdateFlags) bool {
	s.key, s.verdict = flow, verdict
	return s.shunt.flows.Update(unsafe.Pointer(&s.key), unsafe.Pointer(&s.verdict), flags) == nil
}
