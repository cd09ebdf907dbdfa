package flow

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// said is what one side has sent at once.
type said struct {
	d    int
	data []byte
}

// tap is one end of a connection, which notes what is written to it.
type tap struct {
	net.Conn
	d   int
	mu  *sync.Mutex
	all *[]said
}

func (c tap) Write(b []byte) (int, error) {
	c.mu.Lock()
	*c.all = append(*c.all, said{c.d, bytes.Clone(b)})
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// tlsHandshake is a handshake of TLS 1.2, whose lengths are always the same.
func tlsHandshake(t testing.TB) (all []said) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	var mu sync.Mutex
	server := tls.Server(tap{b, 1, &mu, &all}, &tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := tls.Client(tap{a, 0, &mu, &all}, &tls.Config{ServerName: "example.com", InsecureSkipVerify: true}).Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return all
}

// What FuzzForged does to a packet of the handshake, or puts in front of it.
const (
	swap     = iota // with a later one
	again           // it comes once more, later
	overlap         // the bytes around it come too
	lose            // it does not come
	cutShort        // the snaplen cuts it
	inWindow        // somebody forges a packet that the endpoint takes
	far             // with a number that it does not take
	farACK          // which acknowledges what was not sent
	badSum          // with a bad checksum
	wait            // time passes
	mischiefs
)

// FuzzForged cuts a handshake into segments, mixes them, loses some, and puts forged
// packets between them, for the real parsers: nothing panics, what is kept is within
// its limits, accounted for and given back, and the sums add up. Where nothing was
// lost or forged, the certificate is found.
func FuzzForged(f *testing.F) {
	handshake := tlsHandshake(f)
	f.Add([]byte{200, 40, 9}, []byte{swap, 3, 1, again, 4, 9, overlap, 5, 80})
	f.Add([]byte{100}, []byte{inWindow, 4, 0x12, far, 5, 0x43, farACK, 6, 1, badSum, 4, 9})
	f.Add([]byte{255}, []byte{inWindow, 5, 0x06, wait, 6, 9, inWindow, 6, 0x31, wait, 8, 80})
	f.Add([]byte{30, 1}, []byte{lose, 9, 0, lose, 14, 0, cutShort, 18, 7, wait, 20, 90, wait, 22, 90})
	f.Add([]byte{60}, []byte{inWindow, 0, 0x32, inWindow, 1, 0x22, inWindow, 2, 0x32, far, 3, 0x25, swap, 1, 5})
	var found []*event.Handshake
	parser := parsers.New(func(h *event.Handshake) { found = append(found, h) }, parsers.DefaultLimits)
	roomy := DefaultLimits.Share(decode.Shards)
	narrow := Limits{Flows: 3, Undecided: 3, Held: 4 * heldPageCost, Transcripts: 2048, Aside: 2048, Parsing: 4096, Live: true}
	f.Fuzz(func(t *testing.T, cuts, mischief []byte) {
		packets, harmless := forge(handshake, cuts, mischief[:min(len(mischief), 90)])
		for _, limits := range []Limits{roomy, narrow} {
			limits.noRecover = true
			found = nil
			before := parser.Stats()
			tracker := NewTracker(parser, limits)
			now := second
			for i, x := range packets {
				now += int64(x.wait) * second / 4
				p := *x.packet
				frame := *p.Frame
				frame.Time, frame.Clock, frame.Number = now, now, uint64(i)
				p.Frame = &frame
				if x.wait > 0 {
					tracker.Tick(now)
					parser.Tick(now)
				}
				tracker.Packet(&p, nil)
				checkStates(t, tracker)
				checkHeld(t, tracker)
				checkAccounts(t, tracker)
			}
			tracker.Close()
			parser.Flush()
			checkEmpty(t, tracker)
			if s := tracker.Stats(); s.Flows != s.Embryonic+s.Undecided+s.Decided {
				t.Fatalf("the sums do not add up: %+v", s)
			}
			after := parser.Stats()
			if n := after.Handshakes - before.Handshakes; n != uint64(len(found)) || harmless && limits.Flows == roomy.Flows && n != 1 {
				t.Fatalf("%d handshakes, %d counted", len(found), n)
			}
			if harmless && limits.Flows == roomy.Flows && found[0].Outcome != event.Extracted {
				t.Fatalf("the outcome is %v", found[0].Outcome)
			}
		}
	})
}

// timed is a packet, and how many quarters of a second pass before it.
type timed struct {
	packet *decode.Packet
	wait   uint8
}

// forge makes packets of a handshake; see FuzzForged. It reports whether all of the
// handshake comes, and nothing else.
func forge(handshake []said, cuts, mischief []byte) (packets []timed, harmless bool) {
	x := &exchange{seq: [2]uint32{1 << 31, 3000}}
	first := x.seq
	x.send(0, decode.FlagSYN, nil)
	x.send(1, decode.FlagSYN|decode.FlagACK, nil)
	for i, s := range handshake {
		for data := s.data; len(data) > 0; i++ {
			n := len(data)
			if len(cuts) > 0 {
				n = min(n, 20+4*int(cuts[i%len(cuts)]))
			}
			x.send(s.d, decode.FlagACK|8, data[:n])
			data = data[n:]
		}
	}
	x.send(0, decode.FlagFIN|decode.FlagACK, nil)
	x.send(1, decode.FlagFIN|decode.FlagACK, nil)
	for _, p := range x.packets {
		packets = append(packets, timed{packet: p})
	}
	harmless = true
	for ; len(mischief) >= 3 && len(packets) > 0; mischief = mischief[3:] {
		i, arg := int(mischief[1])%len(packets), mischief[2]
		p := packets[i].packet
		d := 0
		if p.SrcPort == 443 {
			d = 1
		}
		put := func(at int, p *decode.Packet) { packets = slices.Insert(packets, at, timed{packet: p}) }
		kind := mischief[0] % mischiefs
		harmless = harmless && kind <= overlap
		flags := decode.FlagACK | arg&(decode.FlagFIN|decode.FlagSYN|decode.FlagRST)
		junk := bytes.Repeat([]byte{arg}, int(arg>>4)*30)
		switch kind {
		case swap:
			if j := min(i+int(arg%16), len(packets)-3); i >= 2 && j >= 2 && i < len(packets)-2 { // neither SYN nor FIN
				packets[i], packets[j] = packets[j], packets[i]
			}
		case again:
			if i >= 2 {
				put(min(i+int(arg), len(packets)), p)
			}
		case overlap:
			from, to := int(p.Seq-first[d]-1)-int(arg), int(p.Seq-first[d]-1)+len(p.Payload)+int(arg)
			if from, to = max(from, 0), min(to, len(x.sent[d])); i >= 2 && from < to {
				put(i, wire(d, first[d]+1+uint32(from), p.Ack, decode.FlagACK, x.sent[d][from:to], true))
			}
		case lose:
			packets = slices.Delete(packets, i, i+1)
		case cutShort:
			q := *p
			n := min(int(arg), len(q.Payload))
			q.Payload, q.Missing = q.Payload[:len(q.Payload)-n], q.Missing+n
			f := *p.Frame
			f.Length += uint32(n)
			q.Frame = &f
			packets[i].packet = &q
		case inWindow:
			put(i, wire(d, p.Seq+uint32(arg>>5), p.Ack, flags, junk, true))
		case far:
			put(i, wire(d, p.Seq+uint32(arg)<<20, p.Ack, flags, junk, true))
		case farACK:
			put(i, wire(d, p.Seq, p.Ack+uint32(arg)<<24+1<<14, flags, junk, true))
		case badSum:
			put(i, wire(d, p.Seq, p.Ack, flags, junk, false))
		case wait:
			packets[i].wait = arg
		}
	}
	return packets, harmless
}
