package capture

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/pcapfilter"
)

const (
	// DefaultRingSize holds half a second of 1 Gbit/s.
	DefaultRingSize = 64 << 20

	// MinRingSize is the least bytes of a ring: one block is filled while another is
	// read.
	MinRingSize = 2 * ringBlockSize

	// MaxRingSize bounds the memory of the kernel that one ring pins.
	MaxRingSize = 1 << 30

	// MinSnaplen keeps the headers that every frame is judged by.
	MinSnaplen = 128

	// maxSnaplen is the most that is kept of a frame: libpcap's
	// MAXIMUM_SNAPLEN, more than any frame except those of BIG TCP on loopback.
	maxSnaplen = 256 << 10

	// MaxWorkers is the most members of a fanout group that older kernels allow
	// (PACKET_FANOUT_MAX).
	MaxWorkers = 256

	// MaxInterfaces bounds the rings, of which there is one for each worker
	// and interface.
	MaxInterfaces = 64

	// ringBlockSize is one block of a ring, which becomes one batch. The
	// longest frame, reassembled or offloaded, is 64 KiB.
	ringBlockSize = 128 << 10

	// retireAfter is how long the kernel keeps a block that is not full.
	retireAfter = 60 * time.Millisecond

	// drainAfter is how long after Stop, or after an interface is gone, the kernel has handed over all blocks, also
	// those that are not full. drainLimit is how long reading them may take.
	drainAfter = 2 * retireAfter
	drainLimit = 3 * time.Second

	// idleAfter is how long Next waits before it says that time has passed.
	idleAfter = 100 * time.Millisecond
)

// LiveOptions say what OpenLive captures.
type LiveOptions struct {
	Interfaces []string // by name, or by a pattern as path.Match takes it; MaxInterfaces or fewer
	Workers    int      // sources to spread the flows over, 1..MaxWorkers; 0 means 1
	Filter     string   // as pcapfilter.Compile takes it; empty for every frame
	Snaplen    int      // bytes kept of each frame, MinSnaplen or more; 0 for the whole frame
	RingSize   int      // bytes of each ring, MinRingSize..MaxRingSize; 0 for DefaultRingSize

	// NoShunt has the kernel hand over the frames of decided flows too.
	NoShunt bool
	// Warn is told what the capture goes on without, also later, and from any
	// goroutine. May be nil.
	Warn func(error)
	// Socket opens a packet socket (packet(7)) of type SOCK_RAW and protocol 0, with
	// close-on-exec: for a process that has given up the right to. Any goroutine may call
	// it. Nil opens it here.
	Socket func() (fd int, err error)
}

// Live is a live capture.
type Live struct {
	Sources    []Source           // one for each worker
	Interfaces func() []Interface // what is captured on; any goroutine may ask, also after Close

	// NeedsBPF says that the process must keep CAP_BPF to withhold flows. If not, it
	// may give up all its capabilities: it then needs LiveOptions.Socket to open an
	// interface again.
	NeedsBPF bool
}

// Close closes the sources.
func (l *Live) Close() (err error) {
	for _, s := range l.Sources {
		err = errors.Join(err, s.Close())
	}
	return err
}

// OpenLive captures from network interfaces in promiscuous mode, with one source for
// each worker. It never sends.
//
// Each worker has a ring of its own on every interface, and reads its rings in turn.
// The kernel deals the frames of an interface to the workers by a hash that is the
// same for both directions of a flow and for every interface. So all frames of a flow
// reach the same worker, also where its two directions are mirrored to two interfaces.
// VLANs are not part of the hash, nor are the ends of a tunnel around the flow, where
// it is VXLAN, GENEVE, GTP, GRE, ERSPAN or IP in IP on its own port. TCP over IPv4 goes
// by addresses and ports, all else by the addresses alone, so that fragments are with
// the rest of their flow. Those of IPv4 are put together by the kernel first when there
// is more than one worker.
//
// A batch is one block of a ring, lent without copying. While the caller keeps many
// batches, the kernel has no room and drops frames, which Stats counts. Frames are
// numbered by worker and interface. Frames that this machine itself sends are captured too, except on
// loopback, where they would be seen twice.
//
// The sources are [Shunter]s, unless the kernel does not allow it or NoShunt is set.
// Capturing needs CAP_NET_RAW. Shunting also needs CAP_BPF, or CAP_SYS_ADMIN before
// Linux 5.8, and before 5.11 room for ShuntedFlows under RLIMIT_MEMLOCK. Withheld
// frames are counted by Stats of the source that they would have reached.
//
// The capture never ends because of an interface. Warn is told when one is gone, down,
// without carrier, renamed or silent, and when that is over; it goes on on the others,
// and within about a second on that one when there is one of its name again. A renamed
// interface is captured under its new name until another has the name that was given.
// An interface that is named must be there and up at the start.
//
// A pattern stands for all interfaces that match it, but loopback, also those that
// appear later: up to MaxInterfaces altogether, and the others are refused and counted.
// Those that are gone are forgotten, but for the sums of Stats.
//
// The sources are [Stopper]s. After Close, Next returns io.EOF. Close may be called
// while another goroutine is in Next; Stats may be called at any time, also after
// Close. What was lent stays valid until it is released.
func OpenLive(opt LiveOptions) (*Live, error) {
	if opt.Workers == 0 {
		opt.Workers = 1
	}
	if opt.RingSize == 0 {
		opt.RingSize = DefaultRingSize
	}
	if opt.Snaplen == 0 {
		opt.Snaplen = maxSnaplen
	}
	if err := opt.check(); err != nil {
		return nil, err
	}
	return openLive(opt)
}

func (opt *LiveOptions) check() error {
	switch {
	case len(opt.Interfaces) == 0:
		return errors.New("no interface to capture on")
	case len(opt.Interfaces) > MaxInterfaces:
		return fmt.Errorf("%d interfaces are more than %d", len(opt.Interfaces), MaxInterfaces)
	case opt.Workers < 1 || opt.Workers > MaxWorkers:
		return fmt.Errorf("%d workers: not between 1 and %d", opt.Workers, MaxWorkers)
	case opt.RingSize < MinRingSize || opt.RingSize > MaxRingSize:
		return fmt.Errorf("a ring of %d bytes: not between %d and %d", opt.RingSize, MinRingSize, MaxRingSize)
	case opt.Snaplen < MinSnaplen || opt.Snaplen > maxSnaplen:
		return fmt.Errorf("a snaplen of %d bytes: not between %d and %d", opt.Snaplen, MinSnaplen, maxSnaplen)
	}
	for i, name := range opt.Interfaces {
		if _, err := path.Match(name, ""); err != nil {
			return fmt.Errorf("open %s: %w", name, err)
		}
		if slices.Contains(opt.Interfaces[:i], name) {
			return fmt.Errorf("open %s: the interface is given twice", name)
		}
	}
	// Before anything is opened, and without needing to be allowed to.
	return pcapfilter.Check(opt.Filter)
}
