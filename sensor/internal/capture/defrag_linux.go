package capture

import (
	"bytes"
	"os"
	"strconv"
)

// defragmenter counts what becomes of the fragments of IPv4 before a fanout group
// deals them. The kernel puts them together, so that a datagram reaches the worker of
// its flow; datagrams that stay incomplete never reach a ring. The counts are those of
// the whole network namespace, with what this machine itself receives.
type defragmenter struct {
	file  *os.File
	taken uint64 // as counted when the capture began
	lost  uint64
}

// openDefragmenter returns the counters of the network namespace of the calling
// thread, nil if the kernel does not show them.
func openDefragmenter() *defragmenter {
	file, err := os.Open("/proc/thread-self/net/snmp")
	if err != nil {
		return nil
	}
	d := &defragmenter{file: file}
	d.taken, d.lost = d.read()
	return d
}

// collect sets what was counted since the capture began.
func (d *defragmenter) collect(s *Stats) {
	taken, lost := d.read()
	s.Fragments, s.Unassembled = taken-d.taken, lost-d.lost
}

// read returns how many fragments the kernel has taken, and how many datagrams it
// has given up.
func (d *defragmenter) read() (taken, lost uint64) {
	b := make([]byte, 8<<10)
	n, _ := d.file.ReadAt(b, 0)
	lines := bytes.Split(b[:n], []byte("\n"))
	if len(lines) < 2 {
		return 0, 0
	}
	names, values := bytes.Fields(lines[0]), bytes.Fields(lines[1])
	for i := range min(len(names), len(values)) {
		switch v, _ := strconv.ParseUint(string(values[i]), 10, 64); string(names[i]) {
		case "ReasmReqds":
			taken = v
		case "ReasmFails":
			lost = v
		}
	}
	return taken, lost
}

func (d *defragmenter) close() { d.file.Close() }
