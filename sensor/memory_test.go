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
