package decode

import (
	"slices"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// checkWeirds holds the names of malformed frames against their count.
func checkWeirds(t testing.TB, d *Decoder) {
	t.Helper()
	sum := uint64(0)
	w := d.Weirds()
	for _, c := range w.List() {
		if c.Name == "" || c.Frames == 0 {
			t.Fatalf("%d frames of the name %q", c.Frames, c.Name)
		}
		sum += c.Frames
	}
	if malformed := d.Decoded()[Malformed]; sum != malformed {
		t.Fatalf("%d malformed frames, %d with a name", malformed, sum)
	}
}

// What is wrong with a frame is named after the header that it is wrong with.
func TestWeirds(t *testing.T) {
	tagged := make([]byte, 12, 100)
	for range 20 {
		tagged = append(tagged, 0x81, 0, 0, 1)
	}
	tunnels := overIP4(t, 4)[14:]
	for range 20 {
		tunnels = overIP4(t, 4, tunnels)[14:]
	}
	extensions := append(hex("60 00 00 00 00 00 00 40"), make([]byte, 32)...)
	for range 20 {
		extensions = append(extensions, hex("00 00 01 04 00 00 00 00")...)
	}
	extensions[5] = byte(len(extensions) - 40)
	for want, data := range map[weird][]byte{
		truncatedEthernet:   make([]byte, 13),
		truncatedTag:        slices.Concat(overEther(t, 0x8100)[:14], hex("00 01 08")),
		excessiveTags:       tagged,
		badPPPoE:            overEther(t, 0x8864, hex("12 00 00 01 00 00 00 21")),
		badMPLS:             overEther(t, 0x8847, hex("00 00 10 40")),
		badNSH:              overEther(t, 0x894f, hex("0f c1 02 03 00 00 01 ff")),
		badTRILL:            overEther(t, 0x22f3, hex("07 c0 00 01 00 02")),
		truncatedPBB:        slices.Concat(overEther(t, 0x88e7)[:14], hex("00 01 e2")),
		truncatedFabricPath: slices.Concat(overEther(t, 0x8903)[:14], hex("00")),
		truncatedIP:         slices.Concat(overEther(t, 0x0800)[:14], hex("45 00 00 14")),
		badIPLength:         overEther(t, 0x0800, append(hex("45 00 00 10"), make([]byte, 16)...)),
		truncatedIPv6:       slices.Concat(overEther(t, 0x86dd)[:14], append(hex("60 00 00 00"), make([]byte, 20)...)),
		badExtension:        overEther(t, 0x86dd, append(append(hex("60 00 00 00 00 08 00 40"), make([]byte, 32)...), hex("06 09 00 00 00 00 00 00")...)),
		excessiveExtensions: overEther(t, 0x86dd, extensions),
		badFragment:         overEther(t, 0x0800, append(hex("45 00 00 40 00 07 20 00 40 06"), make([]byte, 30)...)),
		badAH:               overIP4(t, 51, hex("06 20 00 00 00 00 00 01 00 00 00 01")),
		truncatedTCP:        overIP4(t, 6, make([]byte, 19)),
		badTCPOffset:        overIP4(t, 6, append(append(make([]byte, 12), 0x40), make([]byte, 7)...)),
		truncatedUDP:        overIP4(t, 17, make([]byte, 7)),
		badUDPLength:        overIP4(t, 17, hex("00 01 00 02 00 07 00 00")),
		truncatedSCTP:       overIP4(t, 132, make([]byte, 11)),
		badSCTPChunk:        overIP4(t, 132, append(make([]byte, 12), hex("00 03 00 03")...)),
		excessiveTunnels:    overIP4(t, 4, tunnels),
		truncatedGRE:        overIP4(t, 47, hex("80 00 08 00")),
		truncatedERSPAN:     overIP4(t, 47, hex("10 00 88 be 00 00 00 01 10 07")),
		badEtherIP:          overIP4(t, 97, hex("20 00")),
	} {
		var d Decoder
		var p Packet
		c := d.Decode(frame(linktype.Ethernet, data), &p)
		if w := d.Weirds(); c != Malformed || !slices.Equal(w.List(), []FrameCount{{string(want), 1}}) {
			t.Errorf("%s: %v, %v", want, c, w.List())
		}
		checkWeirds(t, &d)
	}
}
