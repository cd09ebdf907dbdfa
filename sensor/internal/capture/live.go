package capture

import (
	"errors"
	"fmt"
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

	// maxInterfaces bounds the rings, of which there is one for each worker
	// and interface.
	maxInterfaces = 64

	// ringBlockSize is one block of a ring, which becomes one batch. The
	// longest frame, reassembled or offloaded, is 64 KiB.
	ringBlockSize = 128 << 10

	// retireAfter is how long the kernel keeps a block that is not full.
	retireAfter = 60 * time.Millisecond

	// returnInterval is how often an interface that disappeared is looked for.
	returnInterval = 2 * time.Second

	// drainAfter is how long after Stop the kernel has handed over all blocks, also
	// those that are not full. drainLimit is how long reading them may take.
	drainAfter = 2 * retireAfter
	drainLimit = 3 * time.Second

	// idleAfter is how long Next waits before it says that time has passed.
	idleAfter = 100 * time.Millisecond
)

// LiveOptions say what OpenLive captures.
type LiveOptions struct {
	Interfaces []string // by name
	Workers    int      // sources to spread the flows over, 1..MaxWorkers; 0 means 1
	Filter     string   // as pcapfilter.Compile takes it; empty for every frame
	Snaplen    int      // bytes kept of each frame, MinSnaplen or more; 0 for the whole frame
	RingSize   int      // bytes of each ring, MinRingSize..MaxRingSize; 0 for DefaultRingSize

	// NoShunt has the kernel hand over the frames of decided flows too.
	NoShunt bool
	// Warn is told what the capture goes on without, also later, and from any
	// goroutine. May be nil.
	Warn func(error)
}

// OpenLive captures from network interfaces in promiscuous mode, and returns one
// source for each worker. It never sends.
//
// Each worker has a ring of its own on every interface, and reads its rings in turn.
// The kernel deals the frames of an interface to the workers by a hash that is the
// same for both directions of a flow and for every interface. So all frames of a flow
// reach the same worker, also where its two directions are mirrored to two interfaces.
// VLANs are not part of the hash. Frames of a UDP tunnel go by the outer ports.
// Fragments of IPv4 are put together by the kernel first when there is more than one
// worker. Fragments of IPv6 have no ports for the hash, and may reach another worker
// than the rest of their flow.
//
// A batch is one block of a ring, lent without copying. While the caller keeps many
// batches, the kernel has no room and drops frames, which Stats counts. Frames are
// numbered by ring. Frames that this machine itself sends are captured too, except on
// loopback, where they would be seen twice.
//
// The sources are [Shunter]s, unless the kernel does not allow it or NoShunt is set.
// Capturing needs CAP_NET_RAW. Shunting also needs CAP_BPF, or CAP_SYS_ADMIN before
// Linux 5.8, and before 5.11 room for ShuntedFlows under RLIMIT_MEMLOCK. Withheld
// frames are counted by Stats of the source that they would have reached.
//
// When an interface disappears, Warn is told and it is counted; the capture goes on on
// the others, and on that one when an interface of its name is there again. Next
// returns an error only when no interface is left.
//
// The sources are [Stopper]s. After Close, Next returns io.EOF. Close may be called
// while another goroutine is in Next; Stats may be called at any time, also after
// Close. What was lent stays valid until it is released.
func OpenLive(opt LiveOptions) ([]Source, error) {
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
	case len(opt.Interfaces) > maxInterfaces:
		return fmt.Errorf("%d interfaces are more than %d", len(opt.Interfaces), maxInterfaces)
	case opt.Workers < 1 || opt.Workers > MaxWorkers:
		return fmt.Errorf("%d workers: not between 1 and %d", opt.Workers, MaxWorkers)
	case opt.RingSize < MinRingSize || opt.RingSize > MaxRingSize:
		return fmt.Errorf("a ring of %d bytes: not between %d and %d", opt.RingSize, MinRingSize, MaxRingSize)
	case opt.Snaplen < MinSnaplen || opt.Snaplen > maxSnaplen:
		return fmt.Errorf("a snaplen of %d bytes: not between %d and %d", opt.Snaplen, MinSnaplen, maxSnaplen)
	}
	for i, name := range opt.Interfaces {
		if slices.Contains(opt.Interfaces[:i], name) {
			return fmt.Errorf("open %s: the interface is given twice", name)
		}
	}
	// Before anything is opened, and without needing to be allowed to.
	return pcapfilter.Check(opt.Filter)
}
