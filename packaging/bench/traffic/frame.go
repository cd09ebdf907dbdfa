package traffic

import (
	"bufio"
	"encoding/binary"
	"io"
	"math/bits"
	"net/netip"
)

// The bits of TCP's flags.
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// segment is one TCP segment or UDP datagram on its way into the capture.
type segment struct {
	dir      uint8
	flags    uint8
	conflict bool // its bytes are not those of the stream
	id       uint16
	seq, ack uint32
	stamp    uint32 // TCP timestamp, and below the other side's last one
	echo     uint32
	offset   int64 // of the payload in its stream
	payload  []byte
	at       int64 // nanoseconds since the Unix epoch
}

// frameWriter writes segments as Ethernet frames into a pcap file.
type frameWriter struct {
	w       *bufio.Writer
	snaplen int
	frames  int
	bytes   int64
	last    int64
	buf     [16 + 14 + 8 + 40 + 60 + 65536]byte
}

func newFrameWriter(w io.Writer, snaplen int) (*frameWriter, error) {
	if snaplen <= 0 {
		snaplen = 262144
	}
	fw := &frameWriter{w: bufio.NewWriterSize(w, 1<<20), snaplen: snaplen, bytes: 24}
	le := binary.LittleEndian
	var h [24]byte
	le.PutUint32(h[0:], 0xa1b23c4d) // nanoseconds
	le.PutUint16(h[4:], 2)
	le.PutUint16(h[6:], 4)
	le.PutUint32(h[16:], uint32(snaplen))
	le.PutUint32(h[20:], 1) // Ethernet
	_, err := fw.w.Write(h[:])
	return fw, err
}

// write writes one frame of f and returns how many bytes of its payload are in
// the capture. Time goes up by at least a nanosecond a frame.
func (fw *frameWriter) write(f *flow, s *segment) (int, error) {
	be := binary.BigEndian
	src, dst := f.client, f.server
	if s.dir == toClient {
		src, dst = dst, src
	}
	b := append(fw.buf[:16], 2, 0)
	b = appendMAC(b[:16], dst.Addr())
	b = appendMAC(b, src.Addr())
	for i, id := range f.vlans {
		tag := uint16(0x8100)
		if i == 0 && len(f.vlans) == 2 {
			tag = 0x88a8
		}
		b = be.AppendUint16(be.AppendUint16(b, tag), id)
	}
	var options []byte
	if !f.conv.udp {
		options = f.options(s)
	}
	b = appendIP(b, f, s, src.Addr(), dst.Addr(), len(options))
	header := len(b)
	b = be.AppendUint16(be.AppendUint16(b, src.Port()), dst.Port())
	at := 6 // of the checksum
	if f.conv.udp {
		b = be.AppendUint16(b, uint16(8+len(s.payload)))
	} else {
		at = 16
		b = be.AppendUint32(be.AppendUint32(b, s.seq), s.ack)
		b = append(b, byte(20+len(options))/4<<4, s.flags)
		b = be.AppendUint16(b, 502) // window, scaled
	}
	b = append(b, 0, 0)
	if !f.conv.udp {
		b = append(b, 0, 0) // urgent pointer
		b = append(b, options...)
	}
	data := len(b)
	b = append(b, s.payload...)
	sum := uint64(f.protocol()) + uint64(len(b)-header)
	sum = sumAddr(sumAddr(sum, src.Addr()), dst.Addr())
	check := fold(onesComplement(sum, b[header:]))
	if f.conv.udp && check == 0 {
		check = 0xffff
	}
	be.PutUint16(b[header+at:], check)

	frame := len(b) - 16
	captured := min(frame, fw.snaplen)
	now := max(s.at, fw.last+1)
	fw.last, s.at = now, now
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(now/1e9))
	le.PutUint32(b[4:], uint32(now%1e9))
	le.PutUint32(b[8:], uint32(captured))
	le.PutUint32(b[12:], uint32(frame))
	fw.frames++
	fw.bytes += int64(16 + captured)
	_, err := fw.w.Write(b[:16+captured])
	return max(0, min(len(s.payload), 16+captured-data)), err
}

// options are those that Linux sends: always a timestamp, more with SYN. The
// result is valid until the next call.
func (f *flow) options(s *segment) []byte {
	o := f.optionSpace[:0]
	if s.flags&syn != 0 {
		o = append(o, 2, 4, byte((f.mss+12)>>8), byte(f.mss+12), 4, 2)
	} else {
		o = append(o, 1, 1)
	}
	o = append(o, 8, 10)
	o = binary.BigEndian.AppendUint32(o, s.stamp)
	o = binary.BigEndian.AppendUint32(o, s.echo)
	if s.flags&syn != 0 {
		o = append(o, 1, 3, 3, 7)
	}
	return o
}

func appendIP(b []byte, f *flow, s *segment, src, dst netip.Addr, options int) []byte {
	be := binary.BigEndian
	length := 8 + len(s.payload)
	if !f.conv.udp {
		length = 20 + options + len(s.payload)
	}
	if src.Is6() {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0)
		b = be.AppendUint16(b, uint16(length))
		b = append(b, f.protocol(), 64)
		a, z := src.As16(), dst.As16()
		return append(append(b, a[:]...), z[:]...)
	}
	b = append(b, 8, 0)
	start := len(b)
	b = append(b, 0x45, 0)
	b = be.AppendUint16(b, uint16(20+length))
	b = be.AppendUint16(b, s.id)
	b = append(b, 0x40, 0, 64, f.protocol(), 0, 0)
	a, z := src.As4(), dst.As4()
	b = append(append(b, a[:]...), z[:]...)
	be.PutUint16(b[start+10:], fold(onesComplement(0, b[start:])))
	return b
}

// appendMAC makes a locally administered address out of the host's.
func appendMAC(b []byte, a netip.Addr) []byte {
	s := a.As16()
	return append(append(b, 2, 0), s[12:]...)
}

// onesComplement adds b to an Internet checksum (RFC 1071). Words of eight
// bytes give the same sum as words of two.
func onesComplement(sum uint64, b []byte) uint64 {
	var carry uint64
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	var tail [8]byte
	copy(tail[:], b)
	sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(tail[:]), carry)
	sum, carry = bits.Add64(sum, 0, carry)
	return sum + carry
}

func sumAddr(sum uint64, a netip.Addr) uint64 {
	if a.Is4() {
		s := a.As4()
		return onesComplement(sum, s[:])
	}
	s := a.As16()
	return onesComplement(sum, s[:])
}

// fold turns a sum into a checksum.
func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
