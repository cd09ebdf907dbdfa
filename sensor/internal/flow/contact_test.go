package flow

import (
	"encoding/binary"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// fromPort moves the server of the test flow to another port.
func fromPort(p *decode.Packet, d int, port uint16) *decode.Packet {
	b, t := p.Frame.Data, p.Frame.Time
	binary.BigEndian.PutUint16(b[20+2*(1-d):], port)
	class := decode.Segment
	if b[9] == 17 {
		class = decode.Datagram
	}
	return at(t, decoded(b, class))
}

// datagramFrom1194 is a datagram of the test flow where the client has the port of
// OpenVPN too.
func datagramFrom1194(d int, time int64, data string) *decode.Packet {
	p := datagram(d, time, data)
	binary.BigEndian.PutUint16(p.Frame.Data[20+2*d:], 1194)
	return p
}

// A server whose port of OpenVPN answers is told once a day, whatever comes twice;
// one that does not answer is not, and no other port is.
func TestContact(t *testing.T) {
	const day = 24 * 3600e9
	syn := func(time int64, port uint16) *decode.Packet {
		return fromPort(seg(0, time, 100, decode.FlagSYN, ""), 0, port)
	}
	answer := func(time int64, port uint16) *decode.Packet {
		p := seg(1, time, 500, decode.FlagSYN|decode.FlagACK, "")
		p = fromPort(p, 1, port)
		p.Ack = 101
		return p
	}
	reset := "\x38" + "12345678" + "\x00" + "\x00\x00\x00\x00" // of a client, and of a server
	udp := func(d int, time int64, port uint16) *decode.Packet {
		data := reset
		if d == 1 {
			data = "\x40" + reset[1:]
		}
		return fromPort(datagram(d, time, data), d, port)
	}
	for name, c := range map[string]struct {
		packets []*decode.Packet
		want    int
	}{
		"no answer":        {[]*decode.Packet{syn(1, 1194)}, 0},
		"answered":         {[]*decode.Packet{syn(1, 1194), answer(2, 1194)}, 1},
		"answered again":   {[]*decode.Packet{syn(1, 1194), answer(2, 1194), answer(3, 1194)}, 1},
		"the answer first": {[]*decode.Packet{answer(1, 1194), syn(2, 1194), answer(3, 1194)}, 1},
		"another port":     {[]*decode.Packet{syn(1, 443), answer(2, 443)}, 0},
		"two days":         {[]*decode.Packet{syn(1, 1194), answer(2, 1194), syn(2*day, 1194), answer(2*day+1, 1194)}, 2},
		"datagrams":        {[]*decode.Packet{udp(0, 1, 1194), udp(1, 2, 1194), udp(1, 3, 1194)}, 1},
		"one port": {[]*decode.Packet{fromPort(datagramFrom1194(0, 1, reset), 0, 1194), fromPort(datagramFrom1194(1, 2, "\x40"+reset[1:]), 1, 1194),
			fromPort(datagramFrom1194(0, 3, reset), 0, 1194)}, 1},
		"one way":           {[]*decode.Packet{udp(1, 1, 1194), udp(1, 2, 1194)}, 0},
		"to another server": {[]*decode.Packet{udp(0, 1, 443), udp(1, 2, 443)}, 0},
	} {
		var got []event.Contact
		tracker, _ := newTestTracker(DefaultLimits)
		tracker.Contact = func(c event.Contact) { got = append(got, c) }
		for _, p := range c.packets {
			tracker.Packet(p, nil)
		}
		if len(got) != c.want {
			t.Errorf("%s: %v", name, got)
		}
		for _, g := range got {
			if g.Server.String() != "192.0.2.2" || g.Client.String() != "192.0.2.1" || g.Port != 1194 {
				t.Errorf("%s: %v", name, g)
			}
		}
	}
}
