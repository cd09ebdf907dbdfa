package pipeline

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// TestFloodWorkers has floods for which there is too little room: what gives
// way, and which hellos are recorded, does not depend on the number of workers,
// and every handshake is recorded or counted.
func TestFloodWorkers(t *testing.T) {
	limits := flow.Limits{Flows: 1 << 13, Undecided: 1 << 10, Held: 1 << 20, Parsing: 2 << 20}
	sampled := uint64(0)
	for _, name := range []string{"hello-flood", "dtls-hellos", "quic-hellos", "certificates", "certificates-spoofed", "radius", "openvpn", "eapol", "tcp-rising"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "flood.pcap")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := traffic.GenerateFlood(f, name, 0.05, 1); err != nil {
				t.Fatal(err)
			}
			one := replay(t, 1, limits, path)
			for _, workers := range []int{2, 8} {
				if other := replay(t, workers, limits, path); !bytes.Equal(one.lines, other.lines) {
					t.Errorf("the output of %d workers differs from that of one", workers)
				}
			}
			recorded := uint64(bytes.Count(one.lines, []byte(`"dataset":"oddcert.handshake"`)))
			if seen := one.counters.Parser.Handshakes; recorded != one.pipeline.delivered[output.Handshake] || recorded+one.pipeline.total.unrecorded != seen {
				t.Errorf("%d handshakes are recorded, %d are counted, %d were seen", recorded, one.pipeline.total.unrecorded, seen)
			}
			sampled += one.pipeline.total.unrecorded
		})
	}
	if sampled == 0 {
		t.Error("every hello was recorded")
	}
}
