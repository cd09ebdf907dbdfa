package main

import (
	"strings"
	"testing"
)

// What is in use before the first packet is not there for the traffic.
func TestMemoryHeld(t *testing.T) {
	const limit = 512 << 20
	none, half := allot(limit, 2, 2, 0), allot(limit, 2, 2, limit/2)
	if half.flows.Flows >= none.flows.Flows || half.encoders >= none.encoders || half.flows.Flows == 0 {
		t.Errorf("flows %d of %d, encoders %d of %d", half.flows.Flows, none.flows.Flows, half.encoders, none.encoders)
	}
	c := &config{Memory: limit}
	if err := c.checkMemory(limit / 2); err != nil {
		t.Error(err)
	}
	if err := c.checkMemory(limit/2 + 1); err == nil || !strings.Contains(err.Error(), "take 256 MiB, more than half of the 512 MiB") {
		t.Error(err)
	}
}

// The frames for evidence take memory only where evidence is wanted, and leave some for
// the traffic.
func TestMemoryOfFrames(t *testing.T) {
	c := &config{Memory: 200 << 20, EvidenceBuffer: 150 << 20}
	if n := c.bufferMemory(); n != 0 {
		t.Errorf("%d bytes without evidence", n)
	}
	c.Evidence = "packs"
	if err := c.checkMemory(0); err == nil || !strings.Contains(err.Error(), "take 150 MiB (--evidence-buffer), more than half of the 200 MiB") {
		t.Error(err)
	}
	c.EvidenceBuffer = 0
	if n := c.bufferMemory(); n != 50<<20 || c.checkMemory(0) != nil {
		t.Errorf("%d bytes by default: %v", n, c.checkMemory(0))
	}
	c.Memory = 1 << 30
	if n := c.bufferMemory(); n != 64<<20 {
		t.Errorf("%d bytes by default", n)
	}
}

// What a compressed capture may have remembered is part of the memory.
func TestMemoryOfWindow(t *testing.T) {
	for limit, want := range map[int64]int64{leastMemory: 20 << 20, 512 << 20: 64 << 20, 1 << 30: 128 << 20, 1 << 40: 128 << 20} {
		c := &config{Memory: limit}
		if n := c.windowMemory(); n != want || limit*3/4+n > limit*9/10 {
			t.Errorf("a window of %d bytes, of %d", n, limit)
		}
	}
}
