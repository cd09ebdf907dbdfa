package doctor

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"maps"
	"strings"
	"sync"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Listener hears what a capture brings: the frames of its sources, on their way to the
// pipeline, and the handshake records that the pipeline makes. It is an
// [output.Output].
type Listener struct {
	ears []*ear

	mu         sync.Mutex // guards what follows
	handshakes Handshakes
}

var _ output.Output = (*Listener)(nil)

// Handshakes counts handshakes by what they are.
type Handshakes struct {
	All       uint64
	TLS13     uint64 // TLS 1.3 and DTLS 1.3, with QUIC
	QUIC      uint64
	Extracted uint64 // with the server's certificate
	Encrypted uint64 // whose certificate is encrypted
	Lost      uint64 // whose certificate was not seen completely
}

// Heard is what a listener has heard of frames.
type Heard struct {
	ByInterface map[string]Frames
	Packets     uint64 // of TCP and UDP, with a payload, that were compared with those before
	Doubled     uint64 // of these, copies of one that came just before
	OtherVLAN   uint64 // of these, in another VLAN than the one before
	OtherMAC    uint64 // of these, in the same VLAN, with other MAC addresses
	Cut         uint64 // frames that lack the end of their packet
	Flows       uint64 // of TCP, with enough segments to judge
	OneSided    uint64 // of these, seen in one direction only
	Unjudged    uint64 // packets of flows that there was no room for
	VLANs       map[decode.VLANs]uint64
	Tunnels     map[string]uint64
}

// Frames counts those of an interface.
type Frames struct {
	Count, Bytes uint64
	Group        uint64 // of Count, to a group of stations: broadcast and multicast
	Longest      int    // bytes
}

// Frames is how many were heard.
func (h *Heard) Frames() (n uint64) {
	for _, f := range h.ByInterface {
		n += f.Count
	}
	return n
}

// NewListener returns a listener that has heard nothing.
func NewListener() *Listener { return new(Listener) }

// Source returns source, which the listener hears from now on: all that
// [capture.OpenLive] says of it holds. vlans are EtherTypes of VLAN tags, beside those
// of the standards.
func (l *Listener) Source(source capture.Source, vlans []uint16) capture.Source {
	e := &ear{Source: source, heard: Heard{ByInterface: map[string]Frames{}, VLANs: map[decode.VLANs]uint64{}, Tunnels: map[string]uint64{}},
		flows: map[decode.Key]*sides{}, last: make([]seen, recent)}
	e.decoder.VLANs = vlans
	l.ears = append(l.ears, e)
	if s, ok := source.(capture.Shunter); ok {
		return struct {
			*ear
			capture.Shunter
		}{e, s}
	}
	return e
}

// Heard is what was heard. It is for after the capture.
func (l *Listener) Heard() Heard {
	all := Heard{ByInterface: map[string]Frames{}, VLANs: map[decode.VLANs]uint64{}, Tunnels: map[string]uint64{}}
	for _, e := range l.ears {
		h := &e.heard
		for name, f := range h.ByInterface {
			sum := all.ByInterface[name]
			all.ByInterface[name] = Frames{sum.Count + f.Count, sum.Bytes + f.Bytes, sum.Group + f.Group, max(sum.Longest, f.Longest)}
		}
		all.Packets += h.Packets
		all.Doubled += h.Doubled
		all.OtherVLAN += h.OtherVLAN
		all.OtherMAC += h.OtherMAC
		all.Cut += h.Cut
		all.Unjudged += h.Unjudged
		for v, n := range h.VLANs {
			all.VLANs[v] += n
		}
		for t, n := range h.Tunnels {
			all.Tunnels[t] += n
		}
		for s := range maps.Values(e.flows) {
			if s.telling() {
				all.Flows++
				if s.count[0] == 0 || s.count[1] == 0 {
					all.OneSided++
				}
			}
		}
	}
	return all
}

// Handshakes is what was heard of handshakes.
func (l *Listener) Handshakes() Handshakes {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.handshakes
}

// Write takes a record; those that are not of handshakes say nothing here.
func (l *Listener) Write(r *output.Record) error {
	if r.Dataset != output.Handshake {
		return nil
	}
	var h struct {
		TLS     struct{ Version string }
		Network struct{ Protocol string }
		Oddcert struct{ Certificates string }
	}
	if err := json.Unmarshal(r.JSON, &h); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := &l.handshakes
	n.All++
	if h.TLS.Version == "1.3" {
		n.TLS13++
	}
	if h.Network.Protocol == "quic" {
		n.QUIC++
	}
	switch h.Oddcert.Certificates {
	case "extracted":
		n.Extracted++
	case "encrypted":
		n.Encrypted++
	case "lost":
		n.Lost++
	}
	return nil
}

// Close does nothing.
func (l *Listener) Close(context.Context) error { return nil }

// ear hears one source. One goroutine reads it.
type ear struct {
	capture.Source
	decoder decode.Decoder
	packet  decode.Packet
	heard   Heard
	flows   map[decode.Key]*sides
	last    []seen // by hash
}

// sides counts the segments of a flow in each direction.
type sides struct{ count [2]uint32 }

// telling reports whether a direction that was not seen was not captured: the receiver
// of some segments has acknowledged them (RFC 9293, section 3.8.6.3).
func (s *sides) telling() bool { return s.count[0]+s.count[1] >= 5 }

// seen is a packet that was seen.
type seen struct {
	hash uint64
	time int64
	vlan decode.VLANs
	mac  [12]byte // of the sender and of the receiver
}

// seed is that of the hashes of packets.
var seed = maphash.MakeSeed()

// Stop is that of [capture.Stopper].
func (e *ear) Stop() {
	if s, ok := e.Source.(capture.Stopper); ok {
		s.Stop()
	}
}

// Next hears the next batch.
func (e *ear) Next() (*capture.Batch, error) {
	batch, err := e.Source.Next()
	if err != nil || len(batch.Frames) == 0 {
		return batch, err
	}
	on := e.heard.ByInterface[batch.Origin.Interface]
	for i := range batch.Frames {
		f := &batch.Frames[i]
		on.Count++
		on.Bytes += uint64(f.Length)
		on.Longest = max(on.Longest, int(f.Length))
		if f.LinkType == linktype.Ethernet && len(f.Data) > 0 && f.Data[0]&1 != 0 { // IEEE 802.3, section 3.2.3
			on.Group++
		}
		if e.decoder.Decode(f, &e.packet) <= decode.Datagram {
			e.hear(&e.packet)
			for e.decoder.Next(&e.packet) {
				e.hear(&e.packet)
			}
		}
	}
	e.heard.ByInterface[batch.Origin.Interface] = on
	return batch, nil
}

// hear hears a packet.
func (e *ear) hear(p *decode.Packet) {
	p.Address()
	if p.Missing > 0 {
		e.heard.Cut++
	}
	if v := p.VLANs(); v != 0 && (len(e.heard.VLANs) < maxKinds || e.heard.VLANs[v] > 0) {
		e.heard.VLANs[v]++
	}
	if p.Tunnelled() {
		if name := strings.Join(p.Tunnels(), " in "); len(e.heard.Tunnels) < maxKinds || e.heard.Tunnels[name] > 0 {
			e.heard.Tunnels[name]++
		}
	}
	if p.Kind == decode.Stream {
		e.direction(p)
	}
	if len(p.Payload) > 0 {
		e.double(p)
	}
}

// direction counts a segment of TCP. What only asks for a connection, or refuses one,
// may rightly get no answer.
func (e *ear) direction(p *decode.Packet) {
	if p.Flags&(decode.FlagSYN|decode.FlagRST) != 0 {
		return
	}
	s := e.flows[p.Key]
	if s == nil {
		if len(e.flows) == maxFlows {
			e.heard.Unjudged++
			return
		}
		s = new(sides)
		e.flows[p.Key] = s
	}
	if p.Swapped {
		s.count[1]++
	} else {
		s.count[0]++
	}
}

// double looks for a packet with the same bytes shortly before. A segment that is sent
// again comes later, and mostly has another timestamp.
func (e *ear) double(p *decode.Packet) {
	stamp, _ := p.Timestamp()
	hash := maphash.Comparable(seed, struct {
		key       decode.Key
		swapped   bool
		seq, ack  uint32
		flags     uint8
		timestamp uint32
		payload   uint64
	}{p.Key, p.Swapped, p.Seq, p.Ack, p.Flags, stamp, maphash.Bytes(seed, p.Payload)})
	e.heard.Packets++
	now := seen{hash: hash, time: p.Frame.Time, vlan: p.VLANs()}
	if p.SrcMAC != nil {
		copy(now.mac[:], p.SrcMAC[:])
		copy(now.mac[6:], p.DstMAC[:])
	}
	slot := &e.last[hash%recent]
	if before := *slot; before.hash == hash && abs(now.time-before.time) <= int64(doubledWithin) {
		e.heard.Doubled++
		switch {
		case before.vlan != now.vlan:
			e.heard.OtherVLAN++
		case before.mac != now.mac:
			e.heard.OtherMAC++
		}
	}
	*slot = now
}

func abs(n int64) int64 { return max(n, -n) }
