package output

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
)

var (
	_ Output = (*Lines)(nil)
)

func TestLines(t *testing.T) {
	set, err := ParseDatasets("alert, handshake")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	l := NewLines(NewSink(&out, SinkOptions{}), set)
	for _, r := range []Record{
		{Dataset: Handshake, JSON: []byte(`{"n":1}`)},
		{Dataset: Certificate, JSON: []byte(`{"n":2}`)},
		{Dataset: Alert, JSON: []byte(`{"n":3}`)},
		{Dataset: Stats, JSON: []byte(`{"n":4}`)},
	} {
		if err := l.Write(&r); err != nil {
			t.Fatal(err)
		}
	}
	want := "{\"n\":1}\n{\"n\":3}\n"
	big := Record{Dataset: Alert, JSON: bytes.Repeat([]byte("x"), 1<<20)}
	if err := l.Write(&big); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, want) || len(got)-len(want) != 1<<20+1 {
		t.Errorf("%d bytes, beginning with %.40q", len(got), got)
	}
}

func TestParseDatasets(t *testing.T) {
	for list, want := range map[string][]Dataset{
		"alert":                             {Alert},
		"handshake,alert,handshake":         {Handshake, Alert},
		"handshake,certificate,alert,stats": {Handshake, Certificate, Alert, Stats},
	} {
		set, err := ParseDatasets(list)
		if err != nil {
			t.Errorf("%q: %v", list, err)
		}
		for d := range Datasets {
			if set.Has(d) != slices.Contains(want, d) {
				t.Errorf("%q: %v is %v", list, d, set.Has(d))
			}
		}
	}
	for _, list := range []string{"", "alerts", "alert,", "alert;stats", "Alert"} {
		if _, err := ParseDatasets(list); err == nil || !strings.Contains(err.Error(), "handshake, certificate, sighting, hello, alert and stats") {
			t.Errorf("%q: %v", list, err)
		}
	}
}

func TestInventory(t *testing.T) {
	h := fullHandshake(t)
	v := NewInventory()
	for i, step := range []struct {
		change func()
		want   []int
	}{
		{func() {}, []int{0, 1, 2}}, // the last is truncated
		{func() {}, nil},
		{func() { h.Flow.Endpoints[1].Port++ }, nil}, // another client
		{func() { h.Chain[2] = h.Chain[0] }, nil},
		{func() { h.Flow.Endpoints[0].Port++ }, []int{0, 1}}, // once, though it is there twice
		{func() { h.Client = 0 }, []int{0, 1}},
		{func() { h.Flow.Transport = event.UDP }, []int{0, 1}},
		{func() { h.Chain = append(h.Chain[3:], event.ChainEntry{}) }, nil},
	} {
		step.change()
		if got := v.Seen(h); !slices.Equal(got, step.want) {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	if got, want := v.Stats(), (InventoryStats{Certificates: 3, Servers: 9}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestInventoryForgets holds a small inventory against a plain map: what it
// reports again, it has forgotten, and counted.
func TestInventoryForgets(t *testing.T) {
	v := NewInventory()
	h := fullHandshake(t)
	v.Seen(h)
	*v = Inventory{file: shelf{path: h.Flow.Origin.Path, pairs: generations[pair]{limit: 50}, certificates: generations[[32]byte]{limit: maxInventory}}}
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[byte]bool{}
	var fresh, again uint64
	for range 5000 {
		c := &cert.Certificate{DER: []byte{0}}
		c.SHA256[0] = byte(r.Uint32())
		h.Chain = []event.ChainEntry{{Certificate: c}}
		got := v.Seen(h)
		if !seen[c.SHA256[0]] && len(got) == 0 {
			t.Fatal("a certificate never seen is not new")
		}
		if len(got) > 0 {
			fresh++
			if seen[c.SHA256[0]] {
				again++
			}
		}
		seen[c.SHA256[0]] = true
		if n := len(v.file.pairs.young) + len(v.file.pairs.old); n > 100 {
			t.Fatalf("%d pairs in two generations of 50", n)
		}
		if again > v.Stats().Forgotten {
			t.Fatalf("%d were forgotten, %d counted", again, v.Stats().Forgotten)
		}
	}
	if s := v.Stats(); s.Servers != fresh || again == 0 || s.Certificates != uint64(len(seen)) {
		t.Errorf("%+v with %d new ones, %d of them again, %d distinct", s, fresh, again, len(seen))
	}
}

// What is told of a file does not depend on others, and the counts are of all.
func TestInventoryOfFiles(t *testing.T) {
	v, h := NewInventory(), fullHandshake(t)
	first := len(v.Seen(h))
	for i, step := range []struct {
		path string
		want int
	}{{"b", first}, {"b", 0}, {"a", first}, {"b", 0}, {"a", 0}, {"c", first}, {"c", 0}} {
		h.Flow.Origin = &event.Origin{Path: step.path}
		if got := len(v.Seen(h)); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
	v.Renew()
	if got := v.Stats(); got.Servers != uint64(first) {
		t.Errorf("%+v, want %d pairs", got, first)
	}
	if got := len(v.Seen(h)); got != first {
		t.Errorf("in another capture %d, want %d", got, first)
	}
}

func TestInventoryAllocatesNothing(t *testing.T) {
	h, v := fullHandshake(t), NewInventory()
	v.Seen(h)
	if n := testing.AllocsPerRun(100, func() { v.Seen(h) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
