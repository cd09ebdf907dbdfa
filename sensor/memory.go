package main

import (
	"fmt"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
)

// leastMemory is the smallest limit that can be set. Without a setting the limit
// is half of the machine's memory, and at least defaultMemory.
const (
	leastMemory   = 160 << 20
	defaultMemory = 256 << 20
)

// The memory that one of these takes, in bytes. DESIGN.md has the arithmetic.
const (
	costFlow      = 128 + 8  // a slot of the table, and its bucket
	costUndecided = 4 << 10  // a flow with state in the parser: its Conn, its streams, its handshake so far
	costProgram   = 40 << 20 // pages of the program itself, which the runtime does not count
	costProcess   = 48 << 20 // program, rules, inventory of certificates
	costWorker    = 32 << 20 // a decoder with its fragments, the handshakes of its epochs
)

// allotment is how the memory of the process is divided.
type allotment struct {
	flows    flow.Limits
	parsers  parsers.Limits // of all workers together
	encoders int            // bytes of certificates that all encoders remember
	ring     int            // bytes of one ring of a live capture
	judged   float64        // share of pipeline.JudgeMemory
}

// allot divides limit bytes between everything that grows with the traffic. Each
// gets what DefaultLimits say or, where memory is short, the same share of that.
// Three quarters of the limit can be in use; the garbage collector needs the rest.
// rings is 0 in a replay; held is what is in use before the first packet, beside the
// program and its rules.
func allot(limit int64, workers, rings int, held int64) allotment {
	a := allotment{
		flows: flow.DefaultLimits,
		parsers: parsers.Limits{
			Sealed: workers * parsers.DefaultLimits.Sealed,
			Cached: workers * parsers.DefaultLimits.Cached,
		},
		encoders: (workers + 1) * output.DefaultCache,
		ring:     capture.DefaultRingSize,
		judged:   1,
	}
	wanted := a.flows.Flows*costFlow + a.flows.Undecided*costUndecided + a.flows.Held + a.flows.Transcripts + a.flows.Aside + a.flows.Parsing +
		a.parsers.Sealed + a.parsers.Cached + a.encoders + pipeline.JudgeMemory + rings*a.ring
	fixed := int64(costProcess+workers*costWorker) + held
	share := float64(max(limit*3/4-fixed, limit/8)) / float64(wanted)
	if share >= 1 {
		return a
	}
	for _, n := range []*int{&a.flows.Flows, &a.flows.Undecided, &a.flows.Held, &a.flows.Transcripts, &a.flows.Aside, &a.flows.Parsing,
		&a.parsers.Sealed, &a.parsers.Cached, &a.encoders} {
		*n = int(float64(*n) * share)
	}
	a.judged = share
	a.ring = max(int(float64(a.ring)*share), capture.MinRingSize)
	return a
}

// divideMemory divides the limit that was set, or else half of the machine's
// memory, and sets the limit of the Go runtime, whose garbage collector works
// harder near it. The program itself and the rings are not the runtime's memory,
// and are subtracted. GOMEMLIMIT in the environment overrides the runtime's limit.
// held is as for allot, and buffer is what the frames for evidence take.
func (c *config) divideMemory(workers, rings int, held, buffer int64) allotment {
	limit := c.memory()
	a := allot(limit, workers, rings, held+c.deliveryMemory()+2*c.inventoryMemory(rings > 0)+buffer) // of the inventory, the pages of a transaction too
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(min(limit*9/10, limit-costProgram) - int64(rings*a.ring))
	}
	return a
}

// memory is the memory that the process may take, in bytes.
func (c *config) memory() int64 {
	if c.Memory != 0 {
		return c.Memory
	}
	return max(machineMemory()/2, defaultMemory)
}

// deliveryMemory is the memory for records on their way to the outputs: 0 where none
// go through the spool.
func (c *config) deliveryMemory() int64 {
	if len(c.Outputs) == 0 && !c.Elasticsearch.Given() {
		return 0
	}
	return min(delivery.DefaultMemory, c.memory()/16)
}

// bufferMemory is the memory for the frames of evidence, in bytes: 0 where nobody wants
// evidence, else what was set, or the default, and that at most a quarter of all.
func (c *config) bufferMemory() int64 {
	switch {
	case c.Evidence == "":
		return 0
	case c.EvidenceBuffer != 0:
		return c.EvidenceBuffer
	}
	return min(frames.DefaultBuffer, c.memory()/4)
}

// windowMemory is the memory for what Zstandard must remember of a capture, in bytes. With the
// three quarters that can be in use otherwise it is less than the runtime's limit. The
// levels of zstd up to 19 take 8 MiB, and the least memory leaves 20.
func (c *config) windowMemory() int64 { return min(capture.MaxWindow, c.memory()/8) }

// checkMemory refuses tables and buffers that leave too little memory for the traffic.
func (c *config) checkMemory(held int64) error {
	limit := c.memory()
	if buffer := c.bufferMemory(); buffer > limit/2 {
		return fmt.Errorf("the frames for evidence take %d MiB (--evidence-buffer), more than half of the %d MiB that the process may take: see --memory", buffer>>20, limit>>20)
	}
	if held > limit/2 {
		return fmt.Errorf("the lists of networks and the databases take %d MiB, more than half of the %d MiB that the process may take: see --memory", held>>20, limit>>20)
	}
	return nil
}

// machineMemory is the memory that the process can have, in bytes: that of the
// machine or of its control group, whichever is less. It is 0 where neither is
// known.
func machineMemory() int64 {
	least := int64(math.MaxInt64)
	take := func(text string, unit int64) {
		if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil && n > 0 && n < math.MaxInt64/unit {
			least = min(least, n*unit)
		}
	}
	info, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(info)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			take(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 1<<10)
		}
	}
	groups, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(groups)) {
		// A hierarchy, its controllers, the path of the group in it: cgroups(7).
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		root, file := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		switch fields[1] {
		case "":
			root, file = "/sys/fs/cgroup", "memory.max"
		case "memory":
		default:
			continue
		}
		// The limits of the groups above hold too. In a container the path can be
		// that of the host, while the root is the group itself.
		for group := path.Clean("/" + fields[2]); ; group = path.Dir(group) {
			text, _ := os.ReadFile(path.Join(root, group, file))
			take(string(text), 1)
			if group == "/" {
				break
			}
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}
