package doctor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"syscall"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"
)

// ReadInterface reads what the kernel says about an interface of this network
// namespace. It asks over sockets and not in /sys, which may show another namespace.
func ReadInterface(name string) (*Interface, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return &Interface{Name: name, Missing: true}, nil
	}
	i := &Interface{Name: name, Up: iface.Flags&net.FlagUp != 0, Loopback: iface.Flags&net.FlagLoopback != 0, MTU: iface.MTU}
	addresses, err := iface.Addrs()
	if err != nil {
		return nil, fmt.Errorf("read addresses of %s: %w", name, err)
	}
	for _, a := range addresses {
		i.Addresses = append(i.Addresses, a.String())
	}
	if err := i.readLink(iface.Index); err != nil {
		return nil, fmt.Errorf("read link of %s: %w", name, err)
	}
	e, err := ethtool.NewEthtool()
	if err != nil {
		return nil, fmt.Errorf("ask the card of %s: %w", name, err)
	}
	defer e.Close()
	i.readCard(e)
	return i, nil
}

// readLink asks rtnetlink(7) for the link and its counters.
func (i *Interface) readLink(index int) error {
	table, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	messages, err := syscall.ParseNetlinkMessage(table)
	if err != nil {
		return err
	}
	for _, m := range messages {
		// struct ifinfomsg: the index is its second word.
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg || int(binary.NativeEndian.Uint32(m.Data[4:])) != index {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return err
		}
		for _, a := range attributes {
			switch a.Attr.Type {
			case unix.IFLA_CARRIER:
				i.Carrier = len(a.Value) > 0 && a.Value[0] != 0
			case unix.IFLA_PROMISCUITY:
				if len(a.Value) >= 4 {
					i.Listeners = binary.NativeEndian.Uint32(a.Value)
				}
			case unix.IFLA_STATS64:
				i.Count = countsOf(a.Value)
			}
		}
		return nil
	}
	return errors.New("the kernel does not list it")
}

// countsOf reads a struct rtnl_link_stats64 (linux/if_link.h), whose members are all
// of 64 bits.
func countsOf(b []byte) Counts {
	at := func(n int) uint64 {
		if len(b) < 8*n+8 {
			return 0
		}
		return binary.NativeEndian.Uint64(b[8*n:])
	}
	return Counts{Frames: at(0), Bytes: at(2), Errors: at(4), Dropped: at(6), Length: at(10), Over: at(11), CRC: at(12), FIFO: at(14), Missed: at(15)}
}

// readCard asks the driver. What it does not tell stays zero: virtual interfaces tell
// little.
func (i *Interface) readCard(e *ethtool.Ethtool) {
	if info, err := e.DriverInfo(i.Name); err == nil {
		i.Driver = string(bytes.TrimRight([]byte(info.Driver), "\x00"))
	}
	var s ethtool.EthtoolCmd
	if speed, err := e.CmdGet(&s, i.Name); err == nil {
		if speed != math.MaxUint16 && speed != math.MaxUint32 { // SPEED_UNKNOWN
			i.Speed = speed
		}
		switch s.Duplex {
		case 0:
			i.Duplex = "half"
		case 1:
			i.Duplex = "full"
		}
	}
	if on, err := e.Features(i.Name); err == nil {
		i.Features = on
	}
	if r, err := e.GetRing(i.Name); err == nil {
		i.Ring, i.RingMost = r.RxPending, r.RxMaxPending
	}
	if c, err := e.GetChannels(i.Name); err == nil {
		i.Queues = c.RxCount + c.CombinedCount
	}
	if s, err := e.Stats(i.Name); err == nil {
		i.Card = s
	}
}
