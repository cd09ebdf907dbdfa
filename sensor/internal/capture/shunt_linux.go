package capture

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// shunt is what the sources of one capture share to withhold flows.
type shunt struct {
	flows    *ebpf.Map
	counters *ebpf.Map
	users    atomic.Int32 // sources that are not freed
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
	sh := &shunt{flows: flows, counters: counters}
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

// attach puts a program that withholds flows in place of the filters of rings
// of a worker. After an error some rings have one and some have not.
func (sh *shunt) attach(rings []*ring, snaplen, worker int) error {
	programs := map[linktype.Type]*ebpf.Program{}
	for _, r := range rings {
		program := programs[r.link]
		if program == nil {
			var err error
			if program, err = sh.load(r.filter, r.link, snaplen, worker); err != nil {
				return err
			}
			defer program.Close() // the socket keeps it
			programs[r.link] = program
		}
		if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, program.FD()); err != nil {
			return fmt.Errorf("attach program to %s: %w", r.origin.Interface, err)
		}
	}
	return nil
}

// startShunted makes the sources withhold flows.
func startShunted(sources []*liveSource, snaplen int) error {
	sh, err := newShunt(len(sources))
	if err != nil {
		return mayShunt(err)
	}
	for worker, s := range sources {
		if err := sh.attach(s.rings, snaplen, worker); err != nil {
			sh.free()
			return mayShunt(err)
		}
	}
	for i, s := range sources {
		s.shunt, s.worker = sh, i
	}
	return nil
}

// mayShunt says in err what it takes to be allowed to.
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
