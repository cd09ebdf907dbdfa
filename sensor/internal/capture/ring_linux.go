package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/ethertype"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

const (
	vlanTagSize  = 4
	macAddresses = 12 // bytes before a VLAN tag
)

// ring is one TPACKET_V3 ring on one interface
// (Documentation/networking/packet_mmap.rst of the kernel).
type ring struct {
	fd     int
	id     int32  // among the rings of its source
	memory []byte // shared with the kernel, which owns the blocks that are not filled
	blocks []block
	next   int // the block that the kernel fills next
	origin *event.Origin
	sum    *ringSum
	lent   int       // blocks that are lent
	left   time.Time // when its interface was given up; zero before
	link   linktype.Type
	filter []bpf.Instruction // what the user wants to see
}

// block is one block of a ring and the batch that it becomes.
type block struct {
	memory []byte
	batch  Batch
	lent   bool
}

// Socket opens a packet socket as [LiveOptions.Socket] does. Without a protocol it sees
// nothing until it is bound with one.
func Socket() (fd int, err error) {
	return unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
}

// openRing opens a ring of size bytes that is bound to an interface and rejects every
// frame. Beside the socket it needs no capability.
func openRing(k *link, size int, socket func() (int, error)) (_ *ring, err error) {
	if socket == nil {
		socket = Socket
	}
	fd, err := socket()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("capturing needs CAP_NET_RAW: run as root, give it with `setcap cap_net_raw+ep` on the program, "+
			"or with AmbientCapabilities=CAP_NET_RAW in its systemd unit: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("create packet socket: %w", err)
	}
	r := &ring{fd: fd}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if err := attachFilter(fd, reject); err != nil {
		return nil, err
	}
	if err := r.mmap(size); err != nil {
		return nil, err
	}
	if k.loopback() {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return nil, fmt.Errorf("set PACKET_IGNORE_OUTGOING: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: int(k.index)}); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	address, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("read link type: %w", err)
	}
	if r.link, err = linkTypeOf(address.(*unix.SockaddrLinklayer).Hatype); err != nil {
		return nil, err
	}
	membership := unix.PacketMreq{Ifindex: k.index, Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &membership); err != nil {
		return nil, fmt.Errorf("make promiscuous: %w", err)
	}
	return r, nil
}

// mmap makes the ring and maps it.
func (r *ring) mmap(size int) error {
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("set TPACKET_V3: %w", err)
	}
	// Room to put a VLAN tag back in place.
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_RESERVE, vlanTagSize); err != nil {
		return fmt.Errorf("set PACKET_RESERVE: %w", err)
	}
	count := size / ringBlockSize
	request := unix.TpacketReq3{
		Block_size: ringBlockSize, Block_nr: uint32(count),
		Frame_size: ringBlockSize, Frame_nr: uint32(count), // frames are packed, whatever their size
		Retire_blk_tov: uint32(retireAfter.Milliseconds()),
	}
	if err := unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request); err != nil {
		return fmt.Errorf("create ring of %d bytes: %w", size, err)
	}
	memory, err := unix.Mmap(r.fd, 0, count*ringBlockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map ring of %d bytes: %w", size, err)
	}
	r.memory = memory
	r.blocks = make([]block, count)
	for i := range r.blocks {
		r.blocks[i].memory = memory[i*ringBlockSize:][:ringBlockSize:ringBlockSize]
	}
	return nil
}

// reject is the filter that takes no frame.
var reject = []bpf.Instruction{bpf.RetConstant{Val: 0}}

func attachFilter(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	if err := setProgram(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, raw); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

// setProgram sets an option of a socket whose value is a classic BPF program.
func setProgram(fd, level, option int, raw []bpf.RawInstruction) error {
	program := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		program[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return unix.SetsockoptSockFprog(fd, level, option, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// bound reports whether the interface is still there.
func (r *ring) bound() bool {
	address, err := unix.Getsockname(r.fd)
	if err != nil {
		return false
	}
	link, ok := address.(*unix.SockaddrLinklayer)
	return ok && link.Ifindex > 0
}

func (r *ring) close() {
	// Neither can fail for a mapping and a socket of our own, and nothing
	// would be left to do.
	if r.memory != nil {
		unix.Munmap(r.memory)
	}
	unix.Close(r.fd)
}

// pending reports whether the kernel has handed over a block that was not read.
func (r *ring) pending() bool {
	b := &r.blocks[r.next]
	return !b.lent && atomic.LoadUint32(&b.header().Block_status)&unix.TP_STATUS_USER != 0
}

// filled returns the next block if the kernel has filled it, nil if not.
func (r *ring) filled() *block {
	if !r.pending() {
		return nil
	}
	b := &r.blocks[r.next]
	r.next = (r.next + 1) % len(r.blocks)
	return b
}

// unread is how many frames the kernel has handed over that were not read.
func (r *ring) unread() (frames uint64) {
	for i := range r.blocks {
		b := &r.blocks[i]
		if !b.lent && atomic.LoadUint32(&b.header().Block_status)&unix.TP_STATUS_USER != 0 {
			frames += uint64(b.header().Num_pkts)
		}
	}
	return frames
}

func (b *block) header() *unix.TpacketHdrV1 {
	return (*unix.TpacketHdrV1)(unsafe.Pointer(&(*unix.TpacketBlockDesc)(unsafe.Pointer(&b.memory[0])).Hdr))
}

// giveBack lets the kernel fill the block again.
func (b *block) giveBack() {
	atomic.StoreUint32(&b.header().Block_status, unix.TP_STATUS_KERNEL)
}

// read makes the block's batch, and returns how many bytes were captured.
func (b *block) read(r *ring) (bytes uint64) {
	header := b.header()
	frames := b.batch.Frames[:0]
	offset := header.Offset_to_first_pkt
	number := r.sum.frames
	for range header.Num_pkts {
		h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&b.memory[offset]))
		start, end := offset+uint32(h.Mac), offset+uint32(h.Mac)+h.Snaplen
		length := h.Len
		if h.Status&unix.TP_STATUS_VLAN_VALID != 0 && r.link == linktype.Ethernet && h.Snaplen >= macAddresses {
			start -= vlanTagSize
			length += vlanTagSize
			b.restoreTag(start, h)
		}
		number++
		time := int64(h.Sec)*1e9 + int64(h.Nsec)
		frames = append(frames, Frame{
			Data:     b.memory[start:end:end],
			Time:     time,
			Clock:    time,
			Number:   number,
			Length:   length,
			LinkType: r.link,
			Checksum: checksumOf(h.Status),
		})
		bytes += uint64(end - start)
		offset += h.Next_offset
	}
	r.sum.frames = number
	b.batch.Frames = frames
	return bytes
}

// checksumOf returns what the kernel knows of the checksum (packet(7)).
func checksumOf(status uint32) Checksum {
	switch {
	case status&unix.TP_STATUS_CSUMNOTREADY != 0:
		return ChecksumNotReady
	case status&unix.TP_STATUS_CSUM_VALID != 0:
		return ChecksumValid
	}
	return ChecksumUnknown
}

// restoreTag puts the VLAN tag that the kernel took off back behind the MAC
// addresses of a frame, which then begins at start.
func (b *block) restoreTag(start uint32, h *unix.Tpacket3Hdr) {
	frame := b.memory[start:]
	copy(frame[:macAddresses], frame[vlanTagSize:])
	protocol := uint16(ethertype.VLAN)
	if h.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		protocol = h.Hv1.Vlan_tpid
	}
	binary.BigEndian.PutUint16(frame[macAddresses:], protocol)
	binary.BigEndian.PutUint16(frame[macAddresses+2:], uint16(h.Hv1.Vlan_tci))
}

// networkOrder gives a number as the kernel wants protocols: big-endian in
// memory.
func networkOrder(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}
