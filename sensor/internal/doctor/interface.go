package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Interface is what the kernel says about a network interface. What a card or its
// driver does not tell is zero.
type Interface struct {
	Name      string
	Missing   bool // there is none of this name; the rest is zero
	Up        bool // somebody has switched it on
	Carrier   bool // something is at the other end of the cable
	Loopback  bool
	Listeners uint32 // that have made it promiscuous
	MTU       int    // bytes
	Addresses []string
	Count     Counts

	Driver   string
	Speed    uint32          // Mbit/s
	Duplex   string          // "full" or "half"
	Features map[string]bool // what the card and its driver do, by the names of ethtool -k's strings, such as "rx-gro"
	Ring     uint32          // descriptors for frames that are received
	RingMost uint32
	Queues   uint32            // that receive
	Card     map[string]uint64 // the counters of the driver, by its own names
}

// Counts are the kernel's counters of an interface since it was made (struct
// rtnl_link_stats64 in linux/if_link.h).
type Counts struct {
	Frames  uint64 // received
	Bytes   uint64
	Errors  uint64 // of all kinds
	Dropped uint64 // by the kernel or the driver, without room or use for them
	Missed  uint64 // by the card, which had no free descriptor
	FIFO    uint64 // by the card, whose buffer was full
	Over    uint64 // the same, in older drivers
	Length  uint64 // too long or too short
	CRC     uint64 // damaged on the way
}

// sub is what came since before. A counter that was set back counts as it is.
func (c Counts) sub(before Counts) Counts {
	d := func(now, then uint64) uint64 {
		if now < then {
			return now
		}
		return now - then
	}
	return Counts{
		Frames: d(c.Frames, before.Frames), Bytes: d(c.Bytes, before.Bytes), Errors: d(c.Errors, before.Errors), Dropped: d(c.Dropped, before.Dropped),
		Missed: d(c.Missed, before.Missed), FIFO: d(c.FIFO, before.FIFO), Over: d(c.Over, before.Over), Length: d(c.Length, before.Length), CRC: d(c.CRC, before.CRC),
	}
}

// lost is what the card lost for want of room. Drivers count the same frame as missed
// and as one that found its buffer full.
func (c Counts) lost() uint64 { return max(c.Missed, c.FIFO, c.Over) }

// LostSince is how many frames were dropped since before that could not be captured.
func (i *Interface) LostSince(before *Interface) uint64 {
	c := i.Count.sub(before.Count)
	return c.lost() + c.Dropped
}

// Usable reports whether frames can come.
func (i *Interface) Usable() bool { return !i.Missing && i.Up && i.Carrier }

// merging are the features with which the kernel, or the card, makes one frame of
// several that it received, with the name that ethtool -K takes for each.
var merging = []struct{ feature, flag string }{
	{"rx-gro", "gro"}, {"rx-lro", "lro"}, {"rx-gro-hw", "rx-gro-hw"}, {"rx-gro-list", "rx-gro-list"}, {"rx-udp-gro-forwarding", "rx-udp-gro-forwarding"},
}

// dropping matches the counters of drivers for frames that were received and lost.
// Each driver has names of its own.
var dropping = regexp.MustCompile(`(?i)rx.*(drop|discard|missed|no_?buf|no_?dma|out_of_buf|fifo_err|over_err|alloc_fail)|(drop|missed).*rx`)

// pausing matches those for pause frames that the card has sent.
var pausing = regexp.MustCompile(`(?i)tx.*(pause|xoff)`)

// JudgeInterface says what is wrong with an interface: now, and since before, which is
// how it was elapsed ago. longest is the length of the longest frame that was seen, in
// bytes; 0 for none.
func JudgeInterface(before, now *Interface, elapsed time.Duration, longest int) []Finding {
	r := &report{group: GroupInterface, subject: now.Name}
	if now.Missing {
		r.problem("link", "ip -brief link", "there is no interface of this name")
		return r.findings
	}
	if now.judgeLink(r); !now.Usable() {
		return r.findings
	}
	now.judgeAddresses(r)
	now.judgeOffloads(r)
	now.judgeMTU(r, before, longest)
	now.judgeCard(r, before, elapsed)
	return r.findings
}

// judgeLink judges the link.
func (i *Interface) judgeLink(r *report) {
	about := ""
	if i.Speed > 0 {
		about = ", " + bits(float64(i.Speed)*1e6)
		if i.Duplex != "" {
			about += " " + i.Duplex + " duplex"
		}
	}
	switch {
	case !i.Up:
		r.problem("link", "ip link set "+i.Name+" up", "the interface is down")
	case !i.Carrier:
		r.problem("link", "ethtool "+i.Name, "it is up and has no carrier: nothing is at the other end of the cable, or it is switched off there")
	case i.Duplex == "half":
		r.warn("link", "ethtool -s "+i.Name+" autoneg on", "it is up%s: frames that collide are lost", about)
	default:
		r.ok("link", "it is up%s%s", about, driven(i.Driver))
	}
}

func driven(driver string) string {
	if driver == "" {
		return ""
	}
	return ", driver " + driver
}

// judgeAddresses judges the addresses: with one, the machine takes part in the network
// that it should only watch.
func (i *Interface) judgeAddresses(r *report) {
	linkLocal := !slices.ContainsFunc(i.Addresses, func(a string) bool { return !strings.HasPrefix(a, "fe80:") })
	text := "it has the address " + strings.Join(i.Addresses, ", ") + ": a mirror port needs none, and the machine could answer there"
	switch {
	case i.Loopback:
	case len(i.Addresses) == 0:
		r.ok("address", "it has no address, as a mirror port should")
	case linkLocal: // the kernel gives itself another one
		r.warn("address", "sysctl -w net/ipv6/conf/"+i.Name+"/disable_ipv6=1", "%s", text)
	default:
		r.warn("address", "ip address flush dev "+i.Name, "%s", text)
	}
}

// judgeOffloads judges what the card and the kernel do to frames before they are
// captured.
func (i *Interface) judgeOffloads(r *report) {
	if i.Features == nil {
		return
	}
	var on, flags []string
	for _, m := range merging {
		if i.Features[m.feature] {
			on, flags = append(on, m.feature), append(flags, m.flag+" off")
		}
	}
	if len(on) > 0 {
		r.warn("offload", "ethtool -K "+i.Name+" "+strings.Join(flags, " "),
			"%s: frames are merged before they are captured, so that lengths, counts and repeated bytes are not those of the wire", strings.Join(on, ", "))
	} else {
		r.ok("offload", "frames are captured as they came: GRO and LRO are off; TSO and GSO are about sending only")
	}
	if i.Features["rx-vlan-hw-parse"] {
		r.ok("vlan", "the card takes VLAN tags off, and oddcert puts them back")
	}
}

// judgeMTU judges whether long frames get in.
func (i *Interface) judgeMTU(r *report, before *Interface, longest int) {
	const headers = 14 + 2*4 // Ethernet with two tags
	jumbo := fmt.Sprintf("ip link set %s mtu 9000", i.Name)
	since := i.Count.sub(before.Count)
	switch {
	case since.Length > 0:
		r.warn("mtu", jumbo, "%d frames were too long or too short for the card and its MTU of %d", since.Length, i.MTU)
	case longest > i.MTU+headers && !i.Loopback:
		r.warn("mtu", jumbo, "frames of up to %d bytes came through an MTU of %d: the card may drop others, or they were merged", longest, i.MTU)
	case longest > 0:
		r.ok("mtu", "the longest frame had %d bytes, with an MTU of %d", longest, i.MTU)
	}
}

// judgeCard judges what the card has lost.
func (i *Interface) judgeCard(r *report, before *Interface, elapsed time.Duration) {
	seconds := elapsed.Round(time.Second)
	since, boot := i.Count.sub(before.Count), i.Count
	room := "" // the command that gives it room
	most := min(i.RingMost, 4096)
	if i.Ring < most {
		room = fmt.Sprintf("ethtool -G %s rx %d", i.Name, most)
	}
	told := map[string]uint64{} // what the driver has counted since before
	paused := uint64(0)
	for name, n := range i.Card {
		grown := n - min(n, before.Card[name])
		switch {
		case grown == 0:
		case dropping.MatchString(name):
			told[name] = grown
		case pausing.MatchString(name):
			paused += grown
		}
	}
	detail := ""
	if names := sortedKeys(told, 3); len(names) > 0 {
		for n, name := range names {
			names[n] = fmt.Sprintf("%s %d", name, told[name])
		}
		detail = " (" + strings.Join(names, ", ") + ")"
	}
	switch lost := i.LostSince(before); {
	case lost > 0:
		r.problem("drops", room, "%d of %d frames were dropped in %v before they could be captured%s", lost, since.Frames+lost, seconds, detail)
	case len(told) > 0:
		r.problem("drops", room, "the card has dropped frames in %v%s", seconds, detail)
	case boot.lost() > 0:
		r.warn("drops", room, "none was dropped in %v, but %d (%s) since the interface was made", seconds, boot.lost(), percent(boot.lost(), boot.Frames+boot.lost()))
	default:
		r.ok("drops", "the card has dropped nothing, in %v and since the interface was made", seconds)
	}
	switch {
	case i.RingMost == 0: // it has none, as virtual ones
	case i.Ring < most && i.Ring < 1024:
		r.warn("ring", room, "the card has room for %d frames, and could have for %d: a burst finds it full", i.Ring, i.RingMost)
	default:
		r.ok("ring", "the card has room for %d frames, of at most %d", i.Ring, i.RingMost)
	}
	switch {
	case since.CRC > 0:
		r.problem("crc", "ethtool -S "+i.Name, "%d frames came damaged in %v: look at cable, transceiver and the other port", since.CRC, seconds)
	case boot.CRC > 0:
		r.warn("crc", "ethtool -S "+i.Name, "%d frames came damaged since the interface was made, none in %v", boot.CRC, seconds)
	}
	if paused > 0 {
		r.warn("pause", "ethtool -A "+i.Name+" tx off", "the card has asked the mirror port to wait %d times in %v: the port drops frames instead", paused, seconds)
	}
	if i.Queues > 0 {
		r.ok("queues", "%s: they spread the kernel's work, while oddcert deals flows by a hash of its own that both directions share", plural(uint64(i.Queues), "receive queue", "receive queues"))
	}
}

func plural(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
