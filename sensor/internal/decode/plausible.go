package decode

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
)

// plausibleIP reports whether b is an IP packet beyond what chance would make of
// other bytes. missing bytes would follow on b.
func plausibleIP(b []byte, missing int) bool {
	if len(b) < 20 {
		return false
	}
	switch b[0] >> 4 {
	case 4:
		header, total := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
		if header < 20 || header > len(b) || total < header || total > len(b)+missing {
			return false
		}
		sum := uint32(0)
		for i := 0; i < header; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		return sum>>16+sum&0xffff == 0xffff
	case 6:
		if len(b) < 40 {
			return false
		}
		size := int(binary.BigEndian.Uint16(b[4:]))
		return size > 0 && 40+size <= len(b)+missing
	}
	return false
}

// plausibleEthernet reports the same of an Ethernet frame: it must carry IP.
func (d *Decoder) plausibleEthernet(b []byte, missing int) bool {
	if len(b) < 14 || b[6]&1 != 0 { // a group never sends
		return false
	}
	return d.leadsToIP(binary.BigEndian.Uint16(b[12:]), b[14:], missing)
}

// leadsToIP reports the same of what follows an EtherType.
func (d *Decoder) leadsToIP(proto uint16, b []byte, missing int) bool {
	for range limitTags + 1 {
		n, known := 4, d.isVLAN(proto)
		if !known {
			n, known = d.tagLength(proto, b)
		}
		switch {
		case known && (n == 0 || len(b) < n):
			return false
		case known:
			proto, b = binary.BigEndian.Uint16(b[n-2:]), b[n:]
			continue
		}
		switch proto {
		case ethertype.IPv4, ethertype.IPv6:
			return plausibleIP(b, missing)
		case ethertype.MPLS:
			n := labels(b)
			return n > 0 && plausibleIP(b[n:], missing)
		case ethertype.PPPoE:
			if len(b) < 8 || b[0] != 0x11 || b[1] != 0 {
				return false
			}
			proto := binary.BigEndian.Uint16(b[6:])
			return (proto == pppIPv4 || proto == pppIPv6) && plausibleIP(b[8:], missing)
		}
		return false
	}
	return false
}
