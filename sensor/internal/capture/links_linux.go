package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// linkReceiveBuffer is what the kernel may keep of messages that were not read. It
	// is asked for, and the kernel gives less where net.core.rmem_max is less. When it
	// is full, messages are lost, and all interfaces are looked at again.
	linkReceiveBuffer = 1 << 20

	// linkMessageSize is the most bytes of one read: the kernel makes a datagram of a
	// dump no longer than 32 KiB (netlink_dump in net/netlink/af_netlink.c).
	linkMessageSize = 64 << 10
)

// link is an interface as the kernel describes it (rtnetlink(7), linux/if_link.h).
type link struct {
	index    int32 // 0 where there is none
	name     string
	hardware uint16 // ARPHRD of linux/if_arp.h
	flags    uint32 // IFF of linux/if.h
	mtu      int
	received uint64 // frames, as the driver counts them
}

func (k *link) up() bool       { return k.flags&unix.IFF_UP != 0 }
func (k *link) carrier() bool  { return k.flags&unix.IFF_LOWER_UP != 0 }
func (k *link) loopback() bool { return k.flags&unix.IFF_LOOPBACK != 0 }

// linkMessage is one message of the kernel about interfaces.
type linkMessage struct {
	kind        linkKind
	seq         uint32 // of the request that it answers; 0 where nobody asked
	interrupted bool   // interfaces changed while the kernel told them, and one may be missing
	link        link
}

type linkKind uint8

const (
	linkOther   linkKind = iota // nothing about an interface
	linkIs                      // an interface is new, has changed or was asked for
	linkDeleted                 // an interface is no longer there
	linkEnd                     // all interfaces were told
	linkRefused                 // a request was not answered
)

var errLinkMessage = errors.New("malformed message of rtnetlink")

const (
	sizeofNetlinkHeader = unix.NLMSG_HDRLEN
	sizeofAttribute     = unix.SizeofRtAttr
)

// align rounds up to the boundary that netlink keeps (NLMSG_ALIGN and RTA_ALIGN).
func align(n int) int { return (n + 3) &^ 3 }

// nextLinkMessage reads the first message of what a netlink socket returned, and
// returns the rest, which is shorter.
func nextLinkMessage(b []byte) (m linkMessage, rest []byte, err error) {
	if len(b) < sizeofNetlinkHeader {
		return m, nil, errLinkMessage
	}
	length := binary.NativeEndian.Uint32(b)
	if length < sizeofNetlinkHeader || uint64(length) > uint64(len(b)) {
		return m, nil, errLinkMessage
	}
	kind, flags := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
	m.seq = binary.NativeEndian.Uint32(b[8:])
	m.interrupted = flags&unix.NLM_F_DUMP_INTR != 0
	body := b[sizeofNetlinkHeader:length]
	rest = b[min(align(int(length)), len(b)):]
	switch kind {
	case unix.NLMSG_DONE:
		m.kind = linkEnd
	case unix.NLMSG_ERROR:
		m.kind = linkRefused
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(body) < unix.SizeofIfInfomsg {
			return m, nil, errLinkMessage
		}
		// Those of other families are about the ports of a bridge: one that is deleted is
		// an interface that has left the bridge.
		if body[0] != unix.AF_UNSPEC {
			break
		}
		if m.link, err = parseLink(body); err != nil {
			return m, nil, err
		}
		if m.kind = linkIs; kind == unix.RTM_DELLINK {
			m.kind = linkDeleted
		}
	}
	return m, rest, nil
}

// parseLink reads a struct ifinfomsg and the attributes after it.
func parseLink(b []byte) (k link, err error) {
	k.hardware = binary.NativeEndian.Uint16(b[2:])
	k.index = int32(binary.NativeEndian.Uint32(b[4:]))
	k.flags = binary.NativeEndian.Uint32(b[8:])
	for b = b[unix.SizeofIfInfomsg:]; len(b) >= sizeofAttribute; {
		length := int(binary.NativeEndian.Uint16(b))
		if length < sizeofAttribute || length > len(b) {
			return k, errLinkMessage
		}
		value := b[sizeofAttribute:length]
		switch binary.NativeEndian.Uint16(b[2:]) {
		case unix.IFLA_IFNAME:
			value, _, _ = bytes.Cut(value, []byte{0})
			if len(value) >= unix.IFNAMSIZ {
				return k, errLinkMessage
			}
			k.name = string(value)
		case unix.IFLA_MTU:
			if len(value) >= 4 {
				k.mtu = int(binary.NativeEndian.Uint32(value))
			}
		case unix.IFLA_STATS64:
			if len(value) >= 8 {
				k.received = binary.NativeEndian.Uint64(value) // rx_packets
			}
		}
		b = b[min(align(length), len(b)):]
	}
	if k.index <= 0 || k.name == "" {
		return k, errLinkMessage
	}
	return k, nil
}

// linkSocket hears from the kernel how interfaces change, in the network namespace in
// which it was opened. It needs no capability.
type linkSocket struct {
	file *os.File
	conn syscall.RawConn // of file
	seq  uint32          // of the last request

	// What the last call of receive has read, and how it does.
	attempt func(fd uintptr) bool
	buffer  []byte
	n       int
	flags   int
	from    unix.Sockaddr
	failed  error
}

func openLinkSocket() (*linkSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("create rtnetlink socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "rtnetlink")
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, linkReceiveBuffer) // with less, more is lost and looked for
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_LINK - 1)}); err != nil {
		file.Close()
		return nil, fmt.Errorf("bind rtnetlink socket: %w", err)
	}
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	c := &linkSocket{file: file, conn: conn, buffer: make([]byte, linkMessageSize)}
	c.attempt = func(fd uintptr) bool {
		c.n, _, c.flags, c.from, c.failed = unix.Recvmsg(int(fd), c.buffer, nil, 0)
		return c.failed != unix.EAGAIN && c.failed != unix.EINTR
	}
	return c, nil
}

// ask has the kernel tell one interface, or all of them where index is 0.
func (c *linkSocket) ask(index int32) error {
	c.seq++
	const length = sizeofNetlinkHeader + unix.SizeofIfInfomsg
	flags := uint16(unix.NLM_F_REQUEST)
	if index == 0 {
		flags |= unix.NLM_F_DUMP
	}
	b := make([]byte, 0, length)
	b = binary.NativeEndian.AppendUint32(b, length)
	b = binary.NativeEndian.AppendUint16(b, unix.RTM_GETLINK)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, c.seq)
	b = b[:length] // family AF_UNSPEC, and no wish for flags
	binary.NativeEndian.PutUint32(b[sizeofNetlinkHeader+4:], uint32(index))
	var failed error
	err := c.conn.Control(func(fd uintptr) {
		failed = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("ask rtnetlink: %w", err)
	}
	return nil
}

// receive waits for messages, which are lent until the next call. The error is
// os.ErrDeadlineExceeded when none has come until the deadline, and ENOBUFS when some
// were lost.
func (c *linkSocket) receive(deadline time.Time) ([]byte, error) {
	if err := c.file.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	err := c.conn.Read(c.attempt)
	switch {
	case err != nil:
		return nil, err
	case c.failed != nil:
		return nil, fmt.Errorf("read rtnetlink: %w", c.failed)
	case c.flags&unix.MSG_TRUNC != 0:
		return nil, fmt.Errorf("read rtnetlink: a datagram of more than %d bytes: %w", len(c.buffer), unix.ENOBUFS)
	}
	// Other programs can send to the socket. The kernel's messages are of port 0.
	if kernel, ok := c.from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
		return nil, nil
	}
	return c.buffer[:c.n], nil
}

// speed returns what an interface can carry in Mbit/s, or 0 where its driver does not
// know.
func (c *linkSocket) speed(name string) uint64 {
	// struct ethtool_cmd and ETHTOOL_GSET of linux/ethtool.h, which any driver answers
	// that knows a speed, and which takes no capability.
	command := struct {
		cmd, supported, advertising                                 uint32
		speed                                                       uint16
		duplex, port, phyAddress, transceiver, autoneg, mdioSupport uint8
		maxTx, maxRx                                                uint32
		speedHigh                                                   uint16
		mdix, control                                               uint8
		partner                                                     uint32
		reserved                                                    [2]uint32
	}{cmd: unix.ETHTOOL_GSET}
	request := struct { // struct ifreq of linux/if.h
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&command)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	var errno unix.Errno
	err := c.conn.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	})
	speed := uint32(command.speedHigh)<<16 | uint32(command.speed)
	if err != nil || errno != 0 || speed == ^uint32(0) { // SPEED_UNKNOWN
		return 0
	}
	return uint64(speed)
}

func (c *linkSocket) close() { c.file.Close() }
