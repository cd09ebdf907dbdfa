package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/sensor/internal/netlab"
)

// message makes a message of netlink, with what follows its header.
func message(kind, flags uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(sizeofNetlinkHeader+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, 7) // sequence number
	b = append(b, 0, 0, 0, 0)                  // the kernel's port
	b = append(b, body...)
	return append(b, make([]byte, align(len(b))-len(b))...)
}

// ifinfo is what a message about an interface carries.
func ifinfo(family byte, k link) []byte {
	b := []byte{family, 0}
	b = binary.NativeEndian.AppendUint16(b, k.hardware)
	b = binary.NativeEndian.AppendUint32(b, uint32(k.index))
	b = binary.NativeEndian.AppendUint32(b, k.flags)
	b = append(b, 0, 0, 0, 0)
	attribute := func(kind uint16, value []byte) {
		b = binary.NativeEndian.AppendUint16(b, uint16(sizeofAttribute+len(value)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = append(b, value...)
		b = append(b, make([]byte, align(len(b))-len(b))...)
	}
	attribute(unix.IFLA_IFNAME, append([]byte(k.name), 0))
	attribute(unix.IFLA_TXQLEN, []byte{1, 0, 0, 0})
	attribute(unix.IFLA_MTU, binary.NativeEndian.AppendUint32(nil, uint32(k.mtu)))
	attribute(unix.IFLA_STATS64, append(binary.NativeEndian.AppendUint64(nil, k.received), make([]byte, 192)...))
	return b
}

var aLink = link{index: 7, name: "span0", hardware: unix.ARPHRD_ETHER, flags: unix.IFF_UP | unix.IFF_LOWER_UP, mtu: 9000, received: 1 << 40}

// TestLinkMessages reads what is made here, whole and cut.
func TestLinkMessages(t *testing.T) {
	for name, test := range map[string]struct {
		bytes []byte
		want  linkMessage
	}{
		"new":         {message(unix.RTM_NEWLINK, unix.NLM_F_MULTI, ifinfo(unix.AF_UNSPEC, aLink)), linkMessage{kind: linkIs, seq: 7, link: aLink}},
		"interrupted": {message(unix.RTM_NEWLINK, unix.NLM_F_DUMP_INTR, ifinfo(unix.AF_UNSPEC, aLink)), linkMessage{kind: linkIs, seq: 7, link: aLink, interrupted: true}},
		"deleted":     {message(unix.RTM_DELLINK, 0, ifinfo(unix.AF_UNSPEC, aLink)), linkMessage{kind: linkDeleted, seq: 7, link: aLink}},
		"bridge port": {message(unix.RTM_DELLINK, 0, ifinfo(unix.AF_BRIDGE, aLink)), linkMessage{kind: linkOther, seq: 7}},
		"end":         {message(unix.NLMSG_DONE, unix.NLM_F_MULTI, make([]byte, 4)), linkMessage{kind: linkEnd, seq: 7}},
		"error":       {message(unix.NLMSG_ERROR, 0, make([]byte, 20)), linkMessage{kind: linkRefused, seq: 7}},
		"address":     {message(unix.RTM_NEWADDR, 0, make([]byte, 8)), linkMessage{kind: linkOther, seq: 7}},
	} {
		got, rest, err := nextLinkMessage(test.bytes)
		if err != nil || len(rest) != 0 || got != test.want {
			t.Errorf("%s: %+v, rest %x, %v; want %+v", name, got, rest, err, test.want)
		}
		for n := range test.bytes {
			if _, _, err := nextLinkMessage(test.bytes[:n]); !errors.Is(err, errLinkMessage) {
				t.Errorf("%s: %d of %d bytes: %v", name, n, len(test.bytes), err)
			}
		}
	}
	long, nameless, without := aLink, aLink, aLink
	long.name, nameless.name, without.index = "sixteen-letters-", "", 0
	for name, k := range map[string]link{"long name": long, "no name": nameless, "no index": without} {
		if got, _, err := nextLinkMessage(message(unix.RTM_NEWLINK, 0, ifinfo(unix.AF_UNSPEC, k))); !errors.Is(err, errLinkMessage) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// FuzzLinkMessages checks that reading goes on to the end, keeps to its limits, and does
// not depend on what follows a message.
func FuzzLinkMessages(f *testing.F) {
	f.Add(message(unix.RTM_NEWLINK, 0, ifinfo(unix.AF_UNSPEC, aLink)))
	f.Add(append(message(unix.RTM_DELLINK, 0, ifinfo(unix.AF_UNSPEC, aLink)), message(unix.NLMSG_DONE, unix.NLM_F_DUMP_INTR, nil)...))
	f.Add(message(unix.RTM_NEWLINK, 0, ifinfo(unix.AF_BRIDGE, aLink)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			m, rest, err := nextLinkMessage(b)
			if err != nil {
				if !errors.Is(err, errLinkMessage) || m.kind != linkOther {
					t.Fatalf("%+v, %v", m, err)
				}
				return
			}
			if len(rest) >= len(b) || !bytes.HasSuffix(b, rest) {
				t.Fatalf("%d of %d bytes are left", len(rest), len(b))
			}
			told := m.kind == linkIs || m.kind == linkDeleted
			if told != (m.link.index > 0) || told != (m.link.name != "") || len(m.link.name) >= unix.IFNAMSIZ || bytes.IndexByte([]byte(m.link.name), 0) >= 0 {
				t.Fatalf("%+v", m)
			}
			alone, _, err := nextLinkMessage(b[:len(b)-len(rest)])
			if err != nil || alone != m {
				t.Fatalf("%+v with what follows, %+v and %v alone", m, alone, err)
			}
			b = rest
		}
	})
}

// TestLinkSocket compares what the kernel tells with what the standard library makes of
// it, and hears only the kernel.
func TestLinkSocket(t *testing.T) {
	n := netlab.NewNamespace(t)
	ip(t, n, "link", "add", "bridge0", "type", "bridge")
	ip(t, n, "link", "add", "span0", "mtu", "1280", "type", "veth", "peer", "name", "fifteen-letters")
	ip(t, n, "link", "set", "span0", "up")
	var socket *linkSocket
	var want []net.Interface
	n.Do(func() {
		var err error
		if socket, err = openLinkSocket(); err == nil {
			want, err = net.Interfaces()
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	defer socket.close()
	got := map[int]link{}
	if err := socket.ask(0); err != nil {
		t.Fatal(err)
	}
	for end := false; !end; {
		b, err := socket.receive(time.Now().Add(patience))
		if err != nil {
			t.Fatal(err)
		}
		for len(b) > 0 {
			var m linkMessage
			if m, b, err = nextLinkMessage(b); err != nil {
				t.Fatal(err)
			}
			if m.seq != socket.seq {
				t.Errorf("%+v", m)
			}
			if end = end || m.kind == linkEnd; m.kind == linkIs {
				got[int(m.link.index)] = m.link
			}
		}
	}
	if len(got) != len(want) || len(want) < 4 {
		t.Errorf("%d interfaces, want %d", len(got), len(want))
	}
	for _, w := range want {
		g := got[w.Index]
		if g.name != w.Name || g.mtu != w.MTU || g.up() != (w.Flags&net.FlagUp != 0) || g.loopback() != (w.Flags&net.FlagLoopback != 0) {
			t.Errorf("%+v, want %+v", g, w)
		}
	}

	// Another program sends what the kernel might.
	address, err := func() (address unix.Sockaddr, err error) {
		failed := socket.conn.Control(func(fd uintptr) { address, err = unix.Getsockname(int(fd)) })
		return address, errors.Join(err, failed)
	}()
	if err != nil {
		t.Fatal(err)
	}
	n.Do(func() {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		forged := message(unix.RTM_DELLINK, 0, ifinfo(unix.AF_UNSPEC, aLink))
		if err := unix.Sendto(fd, forged, 0, address); err != nil {
			t.Fatal(err)
		}
	})
	if b, err := socket.receive(time.Now().Add(patience)); err != nil || len(b) > 0 {
		t.Errorf("heard %x, %v", b, err)
	}
	if b, err := socket.receive(time.Now().Add(50 * time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("heard %x, %v", b, err)
	}
}
