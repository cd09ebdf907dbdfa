package decode

import (
	"encoding/binary"
	"slices"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
)

// tagLength measures the tag that begins at b, up to and with the EtherType that
// ends it: what stands between the addresses of an Ethernet frame and the
// EtherType of what it carries, itself marked by an EtherType, proto. A tag that
// is followed is one line here; those of VLANs are apart, as they tell flows from
// one another. known is false where proto is of no tag; the length is 0 where
// nothing can be read behind this one.
func (d *Decoder) tagLength(proto uint16, b []byte) (n int, known bool) {
	switch proto {
	case ethertype.CMD:
		return 8, true
	case ethertype.MACsec:
		return macsecTag(b), true
	case ethertype.VNTag, ethertype.HSR, ethertype.RTag:
		return 6, true
	case ethertype.ETag:
		return 8, true
	case ethertype.TTag:
		return d.ciscoTimestamp(b), true
	case ethertype.Arista:
		return aristaTimestamp(b), true
	}
	return 0, false
}

// isVLAN reports whether proto marks a VLAN tag: those of the standards, those that
// switches had before them, and those that the operator knows.
func (d *Decoder) isVLAN(proto uint16) bool {
	switch proto {
	case ethertype.VLAN, ethertype.QinQ, ethertype.QinQ91, ethertype.QinQ92, ethertype.QinQ93:
		return true
	}
	return len(d.VLANs) > 0 && slices.Contains(d.VLANs, proto)
}

// macsecTag measures MACsec's tag (IEEE 802.1AE-2018, section 9.3).
func macsecTag(b []byte) int {
	const encrypted, changed, version, explicit = 0x08, 0x04, 0x80, 0x20
	switch {
	case len(b) == 0:
		return 8
	case b[0]&(encrypted|changed|version) != 0:
		return 0
	case b[0]&explicit != 0: // the secure channel's identifier
		return 16
	}
	return 8
}

// ciscoTimestamp measures the tag in which Cisco's switches put a time stamp, of
// 32 bits, or of 48 or 64 on others: what follows tells. Several in one frame
// are taken for as long as one another, so that it is tried thrice and not thrice
// for each.
func (d *Decoder) ciscoTimestamp(b []byte) int {
	if d.timestamp != 0 {
		return d.timestamp
	}
	defer func() { d.timestamp = 0 }()
	const any = 1 << 16 // bytes that may be missing
	for _, n := range [...]int{6, 8, 10} {
		if len(b) < n {
			break
		}
		d.timestamp = n
		if d.leadsToIP(binary.BigEndian.Uint16(b[n-2:]), b[n:], any) {
			return n
		}
	}
	return 6
}

// aristaTimestamp measures Arista's header: a subtype, the version, and what the
// version says the size of the time stamp is.
func aristaTimestamp(b []byte) int {
	const timestamp, bits64, bits48 = 1, 1, 2
	if len(b) < 4 {
		return 4
	}
	if binary.BigEndian.Uint16(b) != timestamp {
		return 0
	}
	switch b[3] >> 4 {
	case bits64:
		return 14
	case bits48:
		return 12
	}
	return 0
}
