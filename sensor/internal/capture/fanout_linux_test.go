package capture

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestLiveFanoutCarried checks that both directions of a flow reach one worker whatever
// carries them, and that many flows reach several: tunnels whose ports, addresses, labels
// and numbers differ between the directions, and packets and fragments of one flow.
func TestLiveFanoutCarried(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	u16 := func(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	ip4 := func(proto int, src, dst [4]byte, data []byte) []byte {
		return join([]byte{0x45, 0}, u16(20+len(data)), u16(r.IntN(1<<16)), []byte{0x40, 0, 64, byte(proto), 0, 0}, src[:], dst[:], data)
	}
	ip6 := func(next int, src, dst [4]byte, data []byte) []byte {
		address := func(a [4]byte) []byte { return join([]byte{0x20, 1, 0xd, 0xb8}, a[:], make([]byte, 6), a[2:]) }
		return join([]byte{0x60, 0, 0, byte(r.IntN(256))}, u16(len(data)), []byte{byte(next), 64}, address(src), address(dst), data)
	}
	udp := func(src, dst int, data []byte) []byte {
		return join(u16(src), u16(dst), u16(8+len(data)), u16(0), data)
	}
	tcp := func(src, dst int) []byte {
		return join(u16(src), u16(dst), make([]byte, 8), []byte{0x50, 0x10, 4, 0, 0, 0, 0, 0}, u16(r.IntN(1<<16)))
	}
	ethernet := func(kind int, data []byte) []byte {
		return join([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}, u16(kind), data)
	}
	anyPort := func() int { return 49152 + r.IntN(16000) }
	// The ends of flow i, as direction d has them, and those of a tunnel.
	ends := func(i, d int) (src, dst [4]byte, sport, dport int) {
		a, b := [4]byte{10, 1, byte(i), 1}, [4]byte{10, 2, byte(i * 7), 2}
		if d == 1 {
			return b, a, 443, 30000 + i
		}
		return a, b, 30000 + i, 443
	}
	outer := func(d int) (src, dst [4]byte) {
		far, near := [4]byte{192, 0, 2, 1}, [4]byte{192, 0, 2, byte(2 + r.IntN(3))} // several at one place
		if d == 1 {
			return near, far
		}
		return far, near
	}
	flow4 := func(i, d int) []byte {
		src, dst, sport, dport := ends(i, d)
		return ip4(6, src, dst, tcp(sport, dport))
	}
	flow6 := func(i, d int) []byte {
		src, dst, sport, dport := ends(i, d)
		return ip6(6, src, dst, tcp(sport, dport))
	}
	overUDP := func(port int, head []byte, inner func(i, d int) []byte) func(i, d int) []byte {
		return func(i, d int) []byte {
			src, dst := outer(d)
			return ethernet(0x0800, ip4(17, src, dst, udp(anyPort(), port, join(head, inner(i, d)))))
		}
	}
	over := func(proto int, head []byte, inner func(i, d int) []byte) func(i, d int) []byte {
		return func(i, d int) []byte {
			src, dst := outer(d)
			return ethernet(0x0800, ip4(proto, src, dst, join(head, inner(i, d))))
		}
	}
	in := func(kind int, inner func(i, d int) []byte) func(i, d int) []byte {
		return func(i, d int) []byte { return ethernet(kind, inner(i, d)) }
	}
	before := func(head func(d int) []byte, inner func(i, d int) []byte) func(i, d int) []byte {
		return func(i, d int) []byte { return join(head(d), inner(i, d)) }
	}
	inFrame := in(0x0800, flow4)
	vxlan := []byte{8, 0, 0, 0, 0, 0, 7, 0}
	cases := map[string]func(i, d int) []byte{
		"IPv4":                     inFrame,
		"IPv6":                     in(0x86dd, flow6),
		"two tags":                 in(0x88a8, before(func(d int) []byte { return []byte{0, 5, 0x81, 0, 0, byte(d), 8, 0} }, flow4)),
		"PPPoE":                    in(0x8864, before(func(d int) []byte { return []byte{0x11, 0, 0, byte(d), 0, 40, 0, 0x21} }, flow4)),
		"MPLS":                     in(0x8847, before(func(d int) []byte { return []byte{0, byte(d), 0, 64, 0, 3, byte(d)<<4 | 1, 64} }, flow6)),
		"VXLAN":                    overUDP(4789, vxlan, inFrame),
		"VXLAN, with a tag inside": overUDP(8472, vxlan, in(0x8100, before(func(int) []byte { return []byte{0, 9, 8, 0} }, flow4))),
		"VXLAN over IPv6": func(i, d int) []byte {
			src, dst := outer(d)
			return ethernet(0x86dd, ip6(17, src, dst, udp(anyPort(), 4789, join(vxlan, ethernet(0x86dd, flow6(i, d))))))
		},
		"GENEVE":                  overUDP(6081, []byte{1, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 4}, inFrame),
		"GENEVE, IP":              overUDP(6081, []byte{0, 0, 0x86, 0xdd, 0, 0, 7, 0}, flow6),
		"GTP":                     overUDP(2152, []byte{0x30, 0xff, 0, 42, 0, 0, 0, 1}, flow4),
		"GTP with a number":       overUDP(2152, []byte{0x32, 0xff, 0, 46, 0, 0, 0, 1, 0, 9, 0, 0}, flow4),
		"GRE":                     over(47, []byte{0, 0, 8, 0}, flow4),
		"GRE with key and number": over(47, []byte{0x30, 0, 0x65, 0x58, 0, 0, 0, 1, 0, 0, 0, 2}, inFrame),
		"ERSPAN":                  over(47, []byte{0x10, 0, 0x88, 0xbe, 0, 0, 0, 2, 0x10, 0, 0, 0, 0, 0, 0, 0}, inFrame),
		"IP in IP":                over(4, nil, flow4),
		"IPv6 in IP":              over(41, nil, flow6),
		"datagrams and fragments of IPv6": func(i, d int) []byte {
			src, dst, sport, dport := ends(i, d)
			if d == 0 {
				return ethernet(0x86dd, ip6(17, src, dst, udp(sport, dport, []byte("whole"))))
			}
			return ethernet(0x86dd, ip6(44, src, dst, []byte{17, 0, 0, 16, 0, 0, 0, 1, 'r', 'e', 's', 't'}))
		},
		"segments and fragments inside": func(i, d int) []byte {
			src, dst, sport, dport := ends(i, d)
			inner := ip4(6, src, dst, tcp(sport, dport))
			if d == 1 {
				inner[6] = 0x20
			}
			a, b := outer(d)
			return ethernet(0x0800, ip4(17, a, b, udp(anyPort(), 4789, join(vxlan, ethernet(0x0800, inner)))))
		},
		"tunnels in a tunnel that is not looked into": func(i, d int) []byte {
			src, dst, sport, dport := ends(i, d)
			return ethernet(0x0800, ip4(4, [4]byte{192, 0, 2, 1}, [4]byte{192, 0, 2, 2}, ip4(17, src, dst, udp(sport, dport, join(vxlan, inFrame(i, d))))))
		},
		"a tunnel on a port of its own": func(i, d int) []byte {
			src, dst, _, _ := ends(i, d)
			return ethernet(0x0800, ip4(17, src, dst, udp(anyPort(), 14789, join(vxlan, inFrame(i, d)))))
		},
	}
	lab := newWire(t)
	send := rawSocket(t, lab.Server, lab.MirrorIface)
	sources := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}, Workers: 4})
	for name, frame := range cases {
		t.Run(name, func(t *testing.T) {
			const flows = 32
			sent := map[string]int{}
			for i := range flows {
				for d := range 2 {
					f := frame(i, d)
					sent[string(f)] = i
					send(f)
				}
			}
			owners := make([][]int, flows)
			seen := 0
			for deadline := time.Now().Add(patience); seen < 2*flows && time.Now().Before(deadline); {
				for w, s := range sources {
					batch, err := s.Next()
					if err != nil {
						t.Fatal(err)
					}
					for _, f := range batch.Frames {
						if i, ok := sent[string(f.Data)]; ok {
							owners[i] = append(owners[i], w)
							seen++
						}
					}
					batch.Release()
				}
			}
			used := map[int]bool{}
			for i, at := range owners {
				if len(at) != 2 || at[0] != at[1] {
					t.Fatalf("the two directions of flow %d reached the workers %v", i, at)
				}
				used[at[0]] = true
			}
			if len(used) < 3 {
				t.Errorf("%d flows reached %d of %d workers", flows, len(used), len(sources))
			}
		})
	}
}
