package output

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
)

// Each step changes the handshake of the step before.
func TestTold(t *testing.T) {
	h := fullHandshake(t)
	told := NewTold()
	leaf, ca := h.Chain[0].SHA256, h.Chain[1].SHA256
	both := []Place{{false, 0}, {false, 1}, {false, 2}} // the last is truncated, and the client's are the same
	hello := *h.ClientHello
	h.ClientHello = &hello
	for i, step := range []struct {
		change func()
		want   News
	}{
		{func() {}, News{Certificates: both, Sighting: true, Hello: true}},
		{func() {}, News{}},
		{func() { h.Flow.Endpoints[1].Port++ }, News{}}, // another client
		{func() { h.Flow.Endpoints[0].Port++ }, News{Sighting: true}},
		{func() { h.Flow.Transport = event.UDP }, News{Sighting: true}},
		{func() { hello.ServerName = "x" }, News{Sighting: true}},
		{func() { h.Chain[0], h.Chain[1] = h.Chain[1], h.Chain[0] }, News{Sighting: true, Previous: &leaf}},
		{func() { h.Chain[0], h.Chain[1] = h.Chain[1], h.Chain[0] }, News{}}, // the server has both
		{func() { h.Chain[0], h.Chain[1] = h.Chain[1], h.Chain[0] }, News{}},
		{func() { h.Chain[0] = h.Chain[2] }, News{Sighting: true, Previous: &ca}},
		{func() { h.End.Time += 24 * 3600e9 }, News{Certificates: []Place{{false, 0}, {false, 1}, {true, 0}}, Hello: true}},
		{func() { told.Next() }, News{Certificates: []Place{{false, 0}, {false, 1}, {true, 0}}, Sighting: true, Hello: true}},
		{func() { h.Chain, h.ClientChain, h.ClientHello = []event.ChainEntry{h.Chain[3], {}}, nil, nil }, News{}},
	} {
		step.change()
		got := *told.See(h)
		if d := cmp.Diff(step.want.Certificates, slices.Clip(got.Certificates), cmp.Transformer("empty", func(p []Place) int { return len(p) })); d != "" ||
			!slices.Equal(got.Certificates, step.want.Certificates) && len(got.Certificates) > 0 {
			t.Errorf("step %d: certificates %v, want %v", i, got.Certificates, step.want.Certificates)
		}
		if got.Sighting != step.want.Sighting || got.Hello != step.want.Hello {
			t.Errorf("step %d: %+v, want %+v", i, got, step.want)
		}
		if (got.Previous == nil) != (step.want.Previous == nil) || got.Previous != nil && *got.Previous != *step.want.Previous {
			t.Errorf("step %d: the leaf before is %x, want %x", i, got.Previous, step.want.Previous)
		}
	}
	want := ToldStats{Certificates: 6, Sightings: 7, Changed: 2, Hellos: 3}
	if got := told.Stats(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Clients that shuffle their extensions have one JA4 and ever another JA3.
func TestToldVariants(t *testing.T) {
	h := fullHandshake(t)
	told := NewTold()
	n := 0
	for day := range int64(2) {
		for i := range 100 {
			hello := *h.ClientHello
			offer := *hello.Offer
			offer.JA3 = fmt.Sprintf("%032x", i)
			hello.Offer = &offer
			one := *h
			one.ClientHello = &hello
			one.End.Time += day * 24 * 3600e9
			if told.See(&one).Hello {
				n++
			}
		}
	}
	if s := told.Stats(); n != 2*maxVariants || s.Hellos != uint64(n) || s.Variants != uint64(200-n) {
		t.Errorf("%d told, %+v", n, s)
	}
}

// A small Told is held against a plain map: what it tells again, it has forgotten,
// and counted.
func TestToldForgets(t *testing.T) {
	told := NewTold()
	told.certificates = generations.New[sum, int64](100)
	h := fullHandshake(t)
	h.ClientHello, h.ClientChain = nil, nil
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[byte]bool{}
	var fresh, again uint64
	for range 5000 {
		c := &cert.Certificate{DER: []byte{0}}
		c.SHA256[0] = byte(r.Uint32())
		h.Chain = []event.ChainEntry{{Certificate: c}}
		got := told.See(h).Certificates
		if !seen[c.SHA256[0]] && len(got) == 0 {
			t.Fatal("a certificate never seen is not told")
		}
		if len(got) > 0 {
			fresh++
			if seen[c.SHA256[0]] {
				again++
			}
		}
		seen[c.SHA256[0]] = true
		if n := told.certificates.Len(); n > 100 {
			t.Fatalf("%d certificates where 100 have room", n)
		}
		if again > told.Stats().Forgotten {
			t.Fatalf("%d were forgotten, %d counted", again, told.Stats().Forgotten)
		}
	}
	if s := told.Stats(); s.Certificates != fresh || again == 0 {
		t.Errorf("%+v with %d told, %d of them again", s, fresh, again)
	}
	forgotten := told.Stats().Forgotten
	told.Next()
	if s := told.Stats(); s.Forgotten != forgotten {
		t.Errorf("%d forgotten after the capture, %d before its end", s.Forgotten, forgotten)
	}
}

func TestToldAllocatesNothing(t *testing.T) {
	h, told := fullHandshake(t), NewTold()
	told.See(h)
	if n := testing.AllocsPerRun(100, func() { told.See(h) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
