//go:build linux

package main

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// forge makes a segment between the two ends of the frame f, in its direction,
// with numbers that are guessed: nobody who has to guess knows better. payload is
// the length of what it carries, which is no TLS.
func forge(r *rand.Rand, f []byte, port uint16, flags byte, payload int) []byte {
	const ip, tcp = 14, 14 + 20
	g := slices.Clone(f[:tcp+20])
	binary.BigEndian.PutUint16(g[ip+2:], uint16(40+payload))
	g[ip+10], g[ip+11] = 0, 0
	binary.BigEndian.PutUint16(g[ip+10:], ^sum16(0, g[ip:tcp]))
	at := tcp
	if binary.BigEndian.Uint16(g[tcp:]) == 443 {
		at += 2
	}
	binary.BigEndian.PutUint16(g[at:], port)
	binary.BigEndian.PutUint32(g[tcp+4:], r.Uint32())
	binary.BigEndian.PutUint32(g[tcp+8:], r.Uint32())
	g[tcp+12], g[tcp+13] = 5<<4, flags
	for i := range payload {
		g = append(g, "HTTP/1.1 200 OK\r\n"[i%17])
	}
	g[tcp+16], g[tcp+17] = 0, 0
	sum := sum16(uint32(unix.IPPROTO_TCP)+uint32(20+payload), g[ip+12:tcp])
	binary.BigEndian.PutUint16(g[tcp+16:], ^sum16(uint32(sum), g[tcp:]))
	return g
}

// TestBlindFloods has somebody who knows client and server, and the ports that
// the client uses, but not the numbers of the connections, flood the wire while
// 200 handshakes go over it: 99 of 100 raise their alert.
func TestBlindFloods(t *testing.T) {
	const (
		handshakes = 200
		seconds    = 3
		rate       = 20_000 // forged packets a second, at least
	)
	for name, flags := range map[string][]byte{
		"resets and ends": {flagRST, flagRST | flagACK, flagFIN | flagACK},
		"openings":        {flagSYN, flagSYN | flagACK},
		"segments":        {flagACK, flagACK | flagPSH, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newDrillWire(t)
			file := t.TempDir() + "/records.json"
			s := w.live(t, nil, "--json", file, "--records", "alert")
			var flows [][][]byte
			for i := range handshakes {
				flows = append(flows, oddFrames(t, uint16(1024+i)))
			}
			w.sender.Do(func() {
				fd := rawSocket(t, "span0")
				defer unix.Close(fd)
				send := func(f []byte) {
					for unix.Send(fd, f, 0) == unix.ENOBUFS {
						time.Sleep(time.Millisecond)
					}
				}
				r := rand.New(rand.NewPCG(1, 2))
				// The handshakes go on side by side, one frame of each at a time.
				frames, forged := len(flows[0]), 0
				total := seconds * rate
				for k := range frames {
					for i, flow := range flows {
						send(flow[k])
						due := (k*handshakes + i + 1) * total / (frames * handshakes)
						for ; forged < due; forged++ {
							f := flows[0][r.IntN(frames)]
							n := 0
							if flags[0]&flagACK != 0 || r.IntN(4) == 0 {
								n = r.IntN(40)
							}
							send(forge(r, f, uint16(1024+r.IntN(handshakes)), flags[r.IntN(len(flags))], n))
						}
						if i%20 == 0 {
							time.Sleep(time.Millisecond)
						}
					}
				}
			})
			time.Sleep(time.Second)
			if status := s.end(t, syscall.SIGTERM); status != exitOK {
				t.Errorf("exit status %d", status)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			alerts := raised(records(t, text))
			if alerts < handshakes*99/100 {
				t.Errorf("%d alerts of %d\n%s", alerts, handshakes, s.summary())
			}
			if !strings.Contains(s.summary(), "forged") {
				t.Error("nothing is said of what was forged")
			}
		})
	}
}

// The flags of TCP (RFC 9293, section 3.1).
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)
