// Package ethertype names the EtherTypes that oddcert follows: the numbers that
// say, in an Ethernet frame and in what borrows from it, which protocol comes
// next. They are assigned by IEEE and listed in
// https://www.iana.org/assignments/ieee-802-numbers.
//
// The constants have no type, so that they fit wherever a number does: a field
// of a header (16 bits), an instruction of a filter (32 bits).
package ethertype

// Min is the lowest EtherType. A lower number in its place is the length of a
// frame of IEEE 802.3 (IEEE 802.3, section 3.2.6).
const Min = 0x0600

// Network protocols.
const (
	IPv4 = 0x0800
	ARP  = 0x0806
	RARP = 0x8035
	IPv6 = 0x86dd
)

// VLAN tags: 2 bytes with the identifier in the lower 12 bits, and then the next
// EtherType.
const (
	VLAN   = 0x8100 // IEEE 802.1Q
	QinQ   = 0x88a8 // IEEE 802.1ad
	QinQ91 = 0x9100 // used before 802.1ad had a number, as are the two below
	QinQ92 = 0x9200
	QinQ93 = 0x9300
)

// Other tags, and headers that switches put in front of a frame.
const (
	PBB        = 0x88e7 // IEEE 802.1ah: a frame in a frame
	MACsec     = 0x88e5 // IEEE 802.1AE
	VNTag      = 0x8926 // Cisco's, from which IEEE 802.1BR was made
	ETag       = 0x893f // IEEE 802.1BR
	RTag       = 0xf1c1 // IEEE 802.1CB
	HSR        = 0x892f // IEC 62439-3; PRP, in the same standard, has a trailer
	CMD        = 0x8909 // Cisco MetaData, with the security group of the sender
	TTag       = 0x8988 // a time stamp of Cisco's switches
	Arista     = 0xd28b // a time stamp of Arista's switches
	FabricPath = 0x8903 // Cisco's
	TRILL      = 0x22f3 // RFC 6325
	JumboLLC   = 0x8870 // LLC in a frame that is longer than a length field can say
)

// What carries other protocols.
const (
	Bridging      = 0x6558 // Transparent Ethernet Bridging: an Ethernet frame, in GRE and others (RFC 1701)
	MPLS          = 0x8847
	MPLSMulticast = 0x8848 // as RFC 3032 named it; see RFC 5332 for its use today
	PPPoE         = 0x8864 // the session stage (RFC 2516)
	PPP           = 0x880b // in GRE (RFC 2637)
	WCCP          = 0x883e // in GRE
	ERSPAN        = 0x88be // in GRE, types I and II
	ERSPAN3       = 0x22eb // in GRE, type III; some senders use the number above for it
	NSH           = 0x894f // RFC 8300
)

// What carries EAP.
const (
	EAPOL   = 0x888e // IEEE 802.1X
	Preauth = 0x88c7 // EAPOL between access points (IEEE 802.11, section 12.6.10.2)
)
