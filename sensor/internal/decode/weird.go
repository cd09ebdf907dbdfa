package decode

import (
	"cmp"
	"maps"
	"slices"
)

// weird is the name of what is wrong with a malformed frame, in the manner of
// Zeek's weirds: the header at which its reading ended, and why.
type weird string

// A header is truncated where fewer bytes were sent, or captured, than it has.
// It is bad where it contradicts itself or the bytes around it. Headers are
// excessive where there are more of one kind than a limit allows.
const (
	truncatedEthernet   weird = "truncated_ethernet"
	truncatedLinkHeader weird = "truncated_link_header" // of a link type other than the two below
	badLinkHeader       weird = "bad_link_header"       // with a length that is shorter than the header or longer than the frame
	truncatedWLAN       weird = "truncated_802_11"
	nestedAMSDU         weird = "nested_a_msdu" // aggregated frames of 802.11 in aggregated frames
	excessiveLLC        weird = "excessive_llc"
	truncatedTag        weird = "truncated_tag"   // a VLAN tag, or another tag of Ethernet
	excessiveTags       weird = "excessive_tags"  //
	badFrameRelay       weird = "bad_frame_relay" // an address without an end
	truncatedPPP        weird = "truncated_ppp"
	badPPPoE            weird = "bad_pppoe" // truncated, of another version, or not of the session stage
	badMPLS             weird = "bad_mpls"  // a label stack without an end
	truncatedMPLS       weird = "truncated_mpls_payload"
	truncatedPBB        weird = "truncated_pbb"
	truncatedFabricPath weird = "truncated_fabricpath"
	badTRILL            weird = "bad_trill"
	badNSH              weird = "bad_nsh"

	truncatedIP         weird = "truncated_ip"
	badIPLength         weird = "bad_ip_length" // of the header or the packet
	truncatedIPv6       weird = "truncated_ipv6"
	badExtension        weird = "bad_ipv6_extension"
	excessiveExtensions weird = "excessive_ipv6_extensions"
	badFragment         weird = "bad_fragment" // longer than the frame, or a fragment of a fragment
	badAH               weird = "bad_ah"
	truncatedTCP        weird = "truncated_tcp"
	badTCPOffset        weird = "bad_tcp_offset" // shorter than the header or longer than the packet
	truncatedUDP        weird = "truncated_udp"
	badUDPLength        weird = "bad_udp_length"
	truncatedSCTP       weird = "truncated_sctp"
	badSCTPChunk        weird = "bad_sctp_chunk"

	excessiveTunnels weird = "excessive_tunnels"
	truncatedGRE     weird = "truncated_gre"
	truncatedERSPAN  weird = "truncated_erspan"
	badEtherIP       weird = "bad_etherip"
	badGENEVE        weird = "bad_geneve"
	badGTP           weird = "bad_gtp"
	excessiveGTP     weird = "excessive_gtp_extensions"
	badL2TP          weird = "bad_l2tp"
	badCAPWAP        weird = "bad_capwap"
	badTZSP          weird = "bad_tzsp"
)

// malformed notes what is wrong with the frame at hand, for the count of the
// frame if nothing else comes of it.
func (d *Decoder) malformed(w weird) Class {
	d.weird = w
	return Malformed
}

// Weirds counts malformed frames by what is wrong with them. The names are those
// above, so that their number is bounded. The zero value is ready.
type Weirds struct{ frames map[weird]uint64 }

// FrameCount is how many frames have something in common.
type FrameCount struct {
	Name   string `json:"name"`
	Frames uint64 `json:"frames"`
}

func (w *Weirds) add(name weird, frames uint64) {
	if w.frames == nil {
		w.frames = map[weird]uint64{}
	}
	w.frames[name] += frames
}

// Add adds o to w.
func (w *Weirds) Add(o Weirds) {
	for name, frames := range o.frames {
		w.add(name, frames)
	}
}

func (w *Weirds) clone() Weirds { return Weirds{maps.Clone(w.frames)} }

// List returns the counts, the most frequent first. Their sum is that of the
// class [Malformed].
func (w *Weirds) List() (list []FrameCount) {
	for name, frames := range w.frames {
		list = append(list, FrameCount{string(name), frames})
	}
	slices.SortFunc(list, compareCounts)
	return list
}

// compareCounts puts the most frequent first.
func compareCounts(a, b FrameCount) int {
	return cmp.Or(cmp.Compare(b.Frames, a.Frames), cmp.Compare(a.Name, b.Name))
}
