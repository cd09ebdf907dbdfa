package capture

import (
	"encoding/binary"
	"math/rand/v2"
)

// builder writes capture files and remembers where their packets end.
type builder struct {
	order   binary.AppendByteOrder
	out     []byte
	ends    []int // of the records: where the file may be cut without loss
	packets []int // how many packets there are up to each of them
	count   int
}

func (w *builder) u16(v uint16) *builder { w.out = w.order.AppendUint16(w.out, v); return w }
func (w *builder) u32(v uint32) *builder { w.out = w.order.AppendUint32(w.out, v); return w }
func (w *builder) u64(v uint64) *builder { w.out = w.order.AppendUint64(w.out, v); return w }
func (w *builder) raw(b []byte) *builder { w.out = append(w.out, b...); return w }

// end marks the end of a record that holds packets packets.
func (w *builder) end(packets int) {
	w.count += packets
	w.ends = append(w.ends, len(w.out))
	w.packets = append(w.packets, w.count)
}

func newPcap(order binary.AppendByteOrder, magic uint32, link uint32) *builder {
	w := &builder{order: order}
	w.u32(magic).u16(2).u16(4).u32(0).u32(0).u32(262144).u32(link)
	w.end(0)
	return w
}

// record appends a packet; more is the rest of Kuznetzov's record header.
func (w *builder) record(sec, frac, length uint32, data []byte, more ...byte) {
	w.u32(sec).u32(frac).u32(uint32(len(data))).u32(length).raw(more).raw(data)
	w.end(1)
}

// block appends a pcapng block with the body that fill writes.
func (w *builder) block(kind uint32, packets int, fill func()) {
	at := len(w.out)
	w.u32(kind).u32(0)
	if fill != nil {
		fill()
	}
	for (len(w.out)-at)%4 != 0 {
		w.out = append(w.out, 0)
	}
	total := uint32(len(w.out) - at + 4)
	w.u32(total)
	copy(w.out[at+4:], w.order.AppendUint32(nil, total))
	w.end(packets)
}

func (w *builder) section(order binary.AppendByteOrder) {
	w.order = order
	w.block(blockSection, 0, func() {
		w.u32(0x1a2b3c4d).u16(1).u16(0).u64(1<<64 - 1)
		w.option(3, []byte("Linux"))
		w.option(0, nil)
	})
}

func (w *builder) option(code uint16, value []byte) {
	w.u16(code).u16(uint16(len(value))).raw(value)
	for n := len(value); n%4 != 0; n++ {
		w.out = append(w.out, 0)
	}
}

// iface appends an interface; resolution 6 and offset 0 are left to be the
// defaults.
func (w *builder) iface(link uint16, snaplen uint32, name string, resolution uint8, offset int64) {
	w.block(blockInterface, 0, func() {
		w.u16(link).u16(0).u32(snaplen)
		if name != "" {
			w.option(optionName, []byte(name))
		}
		if resolution != 6 {
			w.option(optionTimeResolution, []byte{resolution})
		}
		if offset != 0 {
			w.option(optionTimeOffset, w.order.AppendUint64(nil, uint64(offset)))
		}
		w.option(optionEnd, nil)
	})
}

func (w *builder) enhanced(id uint32, ts uint64, length uint32, data []byte, comment string) {
	w.block(blockEnhanced, 1, func() {
		w.u32(id).u32(uint32(ts >> 32)).u32(uint32(ts)).u32(uint32(len(data))).u32(length).raw(data)
		for n := len(data); n%4 != 0; n++ {
			w.out = append(w.out, 0)
		}
		if comment != "" {
			w.option(1, []byte(comment))
			w.option(0, nil)
		}
	})
}

func (w *builder) secrets(kind uint32, text []byte) {
	w.block(blockSecrets, 0, func() { w.u32(kind).u32(uint32(len(text))).raw(text) })
}

func (w *builder) obsolete(id uint16, ts uint64, length uint32, data []byte) {
	w.block(blockPacket, 1, func() {
		w.u16(id).u16(7).u32(uint32(ts >> 32)).u32(uint32(ts)).u32(uint32(len(data))).u32(length).raw(data)
	})
}

func (w *builder) simple(length uint32, data []byte) {
	w.block(blockSimple, 1, func() { w.u32(length).raw(data) })
}

// payload is n bytes that no other seed has.
func payload(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

const aTime = 1_645_461_580 // 2022-02-21 16:39:40 UTC

// pcapSample is a pcap file of some frames of all kinds of lengths.
func pcapSample(order binary.AppendByteOrder, magic, link uint32) *builder {
	w := newPcap(order, magic, link)
	var more []byte
	if magic == magicModified {
		more = []byte{1, 0, 0, 0, 8, 0, 4, 0}
	}
	for i, n := range []int{60, 0, 1, 300, 66, 514, 3, 128} {
		length := uint32(n)
		if i%3 == 0 {
			length += 1000
		}
		w.record(aTime+uint32(i), 999_000+uint32(i), length, payload(uint64(i), n), more...)
	}
	return w
}

// ngSample is a pcapng file of two sections, of different byte orders, with
// what there is of blocks.
func ngSample() *builder {
	w := &builder{}
	w.section(binary.LittleEndian)
	w.iface(1, 0, "eth0", 6, 0)
	w.enhanced(0, aTime*1e6+1, 60, payload(1, 60), "")
	w.block(0x7777, 0, func() { w.raw(payload(2, 200)) })
	w.block(4, 0, func() { w.u16(0).u16(0) }) // name resolution
	w.enhanced(0, aTime*1e6+2, 1514, payload(3, 101), "a comment")
	w.block(5, 0, func() { w.u32(0).u64(0) }) // interface statistics
	w.iface(101, 100, "tun0", 9, 0)
	w.enhanced(1, aTime*1e9+3_000_000_001, 90, payload(4, 90), "")
	w.enhanced(0, aTime*1e6+4, 0, payload(5, 0), "")
	w.secrets(secretsTLS, payload(6, 63))
	w.obsolete(1, aTime*1e9+5, 77, payload(7, 77))
	w.section(binary.BigEndian)
	w.block(0x7777, 0, nil)
	w.iface(113, 64, "eth0", 0x80|20, 3600)
	w.enhanced(0, aTime<<20|1<<19, 1000, payload(8, 99), "")
	w.enhanced(0, (aTime+1)<<20|1, 1000, payload(9, 1), "another comment")
	w.section(binary.LittleEndian)
	w.iface(229, 0, "", 3, -3600)
	w.enhanced(0, aTime*1e3+7, 70, payload(10, 70), "")
	return w
}

// snoopSample is a file as snoop writes it, with padding behind the frames.
func snoopSample() []byte {
	w := &builder{order: binary.BigEndian}
	w.raw([]byte(snoopMagic)).u32(2).u32(4)
	for i, n := range []int{60, 0, 1, 300} {
		pad := -n & 3
		w.u32(uint32(n + 100*(i&1))).u32(uint32(n)).u32(uint32(snoopRecordLen + n + pad)).u32(0).u32(aTime + uint32(i)).u32(7)
		w.raw(payload(uint64(i), n)).raw(make([]byte, pad))
	}
	return w.out
}
