package parsers

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"
	"unsafe"

	"github.com/oddcert/oddcert/parsers/event"
)

// record3 is a record of TLS 1.2.
func record3(typ byte, body ...byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{typ, 3, 3}, uint16(len(body))), body...)
}

// message3 is a handshake message in a record.
func message3(typ byte, body ...byte) []byte {
	n := len(body)
	return record3(22, append([]byte{typ, byte(n >> 16), byte(n >> 8), byte(n)}, body...)...)
}

func clientHello3(random byte, session []byte, extensions ...byte) []byte {
	b := append([]byte{3, 3}, bytes.Repeat([]byte{random}, 32)...)
	b = append(append(b, byte(len(session))), session...)
	b = append(b, 0, 2, 0xc0, 0x2f, 1, 0)
	return message3(1, append(binary.BigEndian.AppendUint16(b, uint16(len(extensions))), extensions...)...)
}

func serverHello3(suite uint16, session []byte, extensions ...byte) []byte {
	b := append([]byte{3, 3}, bytes.Repeat([]byte{7}, 32)...)
	b = append(append(b, byte(len(session))), session...)
	b = append(binary.BigEndian.AppendUint16(b, suite), 0)
	return message3(2, append(binary.BigEndian.AppendUint16(b, uint16(len(extensions))), extensions...)...)
}

func certificate3(ders ...[]byte) []byte {
	var list []byte
	for _, d := range ders {
		list = append(list, byte(len(d)>>16), byte(len(d)>>8), byte(len(d)))
		list = append(list, d...)
	}
	return message3(11, append([]byte{byte(len(list) >> 16), byte(len(list) >> 8), byte(len(list))}, list...)...)
}

var (
	done3     = message3(14)
	exchange3 = message3(16, 1, 2, 3)
	ccs3      = record3(20, 1)
	finished3 = record3(22, bytes.Repeat([]byte{0xe7}, 40)...)
	data3     = record3(23, bytes.Repeat([]byte{0xe8}, 40)...)
	ticket3   = message3(4, 0, 0, 0, 0, 0, 1, 9)
)

func TestOutcomes(t *testing.T) {
	der := newAuthority().cert.Raw
	id := bytes.Repeat([]byte{5}, 32)
	offer13 := []byte{0, 43, 0, 3, 2, 3, 4}
	c := func(b ...[]byte) chunk { return chunk{0, slices.Concat(b...)} }
	s := func(b ...[]byte) chunk { return chunk{1, slices.Concat(b...)} }
	for _, tt := range []struct {
		name    string
		chunks  []chunk
		outcome event.Outcome
		loss    event.Loss
		check   func(h *event.Handshake) bool
	}{
		{"anonymous", []chunk{c(clientHello3(1, nil)), s(serverHello3(0xc018, nil), message3(12, 3, 0, 29, 0), done3),
			c(exchange3, ccs3, finished3), s(ccs3, finished3)}, event.None, event.NoLoss,
			func(h *event.Handshake) bool { return h.Established && h.Curve == 29 }},
		{"pre-shared key", []chunk{c(clientHello3(1, nil)), s(serverHello3(0x00a8, nil), done3),
			c(exchange3, ccs3, finished3), s(ccs3, finished3)}, event.None, event.NoLoss, nil},
		{"raw public key", []chunk{c(clientHello3(1, nil)), s(serverHello3(0xc02f, nil, 0, 20, 0, 1, 2), message3(11, 0, 0, 3, 0x30, 1, 0), done3),
			c(exchange3, ccs3, finished3), s(ccs3, finished3)}, event.None, event.NoLoss,
			func(h *event.Handshake) bool {
				return len(h.Chain) == 0 && h.RawKey == sha256.Sum256([]byte{0x30, 1, 0})
			}},
		{"empty list", []chunk{c(clientHello3(1, nil)), s(serverHello3(0xc02f, nil), message3(11, 0, 0, 0), done3)}, event.None, event.NoLoss, nil},
		{"resumed by its session", []chunk{c(clientHello3(1, id)), s(serverHello3(0xc02f, id), ccs3, finished3), c(ccs3, finished3)},
			event.Resumed, event.NoLoss, func(h *event.Handshake) bool { return h.Established }},
		{"resumed by a ticket", []chunk{c(clientHello3(1, nil)), s(serverHello3(0xc02f, nil), ticket3, ccs3, finished3), c(ccs3, finished3)},
			event.Resumed, event.NoLoss, nil},
		{"resumed, the client alone", []chunk{c(clientHello3(1, nil)), c(ccs3, finished3), c(data3)}, event.Resumed, event.NoLoss, nil},
		{"not resumed, the client alone", []chunk{c(clientHello3(1, nil)), c(exchange3, ccs3, finished3), c(data3)}, event.Lost, event.Gap, nil},
		{"TLS 1.3, the client alone", []chunk{c(clientHello3(1, nil, offer13...)), c(ccs3, data3), c(data3)}, event.Encrypted, event.NoLoss, nil},
		{"TLS 1.2, the client alone, which offered more", []chunk{c(clientHello3(1, nil, offer13...)), c(exchange3, ccs3, finished3), c(data3)}, event.Lost, event.Gap, nil},
		{"TLS 1.3", []chunk{c(clientHello3(1, id, offer13...)), s(serverHello3(0x1301, id, 0, 43, 0, 2, 3, 4), ccs3, data3), c(ccs3, data3)},
			event.Encrypted, event.NoLoss, func(h *event.Handshake) bool { return h.Version == 0x0304 && h.Established }},
		{"a draft of TLS 1.3", []chunk{c(clientHello3(1, nil, 0, 43, 0, 3, 2, 0x7f, 28)), s(serverHello3(0x1301, nil, 0, 43, 0, 2, 0x7f, 28), data3), c(data3)},
			event.Encrypted, event.NoLoss, func(h *event.Handshake) bool { return h.Version == 0x7f1c }},
		{"TLS 1.3, pre-shared key", []chunk{c(clientHello3(1, id, offer13...)), s(serverHello3(0x1301, id, 0, 43, 0, 2, 3, 4, 0, 41, 0, 2, 0, 0), data3), c(data3)},
			event.Resumed, event.NoLoss, nil},
		{"refused", []chunk{c(clientHello3(1, nil)), s(record3(21, 2, 40))}, event.None, event.NoLoss,
			func(h *event.Handshake) bool { return h.Alerted && h.Alert == 40 && h.Client == 0 }},
		{"refused, the refusal captured first", []chunk{s(record3(21, 2, 40)), c(clientHello3(1, nil))}, event.None, event.NoLoss,
			func(h *event.Handshake) bool { return h.Alerted && h.Alert == 40 && h.Client == 0 }},
		{"a warning first", []chunk{c(clientHello3(1, nil)), s(record3(21, 1, 112), serverHello3(0xc02f, nil), certificate3(der), done3)},
			event.Extracted, event.NoLoss, func(h *event.Handshake) bool { return !h.Alerted }},
		{"refused after the ServerHello", []chunk{c(clientHello3(1, nil)), s(serverHello3(0xc02f, nil), record3(21, 2, 80))}, event.None, event.NoLoss, nil},
		{"refused by the client", []chunk{c(clientHello3(1, nil)), s(serverHello3(0xc02f, nil), certificate3(der), done3), c(record3(21, 2, 48))},
			event.Extracted, event.NoLoss, func(h *event.Handshake) bool { return h.Alerted && h.Alert == 48 && !h.Established }},
		{"an OCSP response is no certificate", []chunk{c(clientHello3(1, nil)),
			s(serverHello3(0xc02f, nil), certificate3(der), message3(22, append([]byte{1, 0, 0, 3}, der...)...), done3)},
			event.Extracted, event.NoLoss, func(h *event.Handshake) bool { return len(h.Chain) == 1 }},
		{"a list that lies", []chunk{c(clientHello3(1, nil)), s(serverHello3(0xc02f, nil), message3(11, 0, 0, 9, 0, 0, 200, 0x30, 1, 2, 3, 4, 5), done3)},
			event.Lost, event.Malformed, func(h *event.Handshake) bool { return len(h.Chain) == 1 && h.Chain[0].Truncated }},
		{"garbage after the ServerHello", []chunk{c(clientHello3(1, nil)), s(serverHello3(0xc02f, nil), []byte("garbage, no record"))}, event.Lost, event.Malformed, nil},
		{"both are clients", []chunk{c(clientHello3(1, nil)), s(clientHello3(2, nil))}, event.Lost, event.EndOfInput, nil},
		{"an echo", []chunk{c(clientHello3(1, nil)), s(clientHello3(1, nil))}, event.Lost, event.EndOfInput, nil},
		{"certificates alone", []chunk{{0, certificate3(der)}}, event.Extracted, event.NoLoss, func(h *event.Handshake) bool { return h.Client == 1 }},
		{"a client's certificate alone", []chunk{{0, slices.Concat(certificate3(der), exchange3)}}, event.Lost, event.EndOfInput,
			func(h *event.Handshake) bool { return h.Client == 0 && len(h.ClientChain) == 1 && len(h.Chain) == 0 }},
		{"key exchange after the server's key", []chunk{c(clientHello3(1, nil)), s(serverHello3(0xc02f, nil)), c(exchange3, ccs3, finished3), s(ccs3, finished3)},
			event.Lost, event.Gap, nil},
	} {
		h := one(t, play(t, tt.chunks, event.EndOfInput))
		if h.Outcome != tt.outcome || h.Loss != tt.loss || tt.check != nil && !tt.check(h) {
			t.Errorf("%s: outcome %v, loss %v, want %v, %v: %+v", tt.name, h.Outcome, h.Loss, tt.outcome, tt.loss, h)
		}
		for _, h := range split(t, tt.chunks, func(int) int { return 1 }) {
			if h.Outcome != tt.outcome || h.Loss != tt.loss {
				t.Errorf("%s, byte by byte: outcome %v, loss %v", tt.name, h.Outcome, h.Loss)
			}
		}
	}
}

// TestEstablishedBefore begins in the middle of what is encrypted.
func TestEstablishedBefore(t *testing.T) {
	s := newSensor()
	c := s.Open(testFlow(event.TCP))
	c.Midstream(0)
	c.Midstream(1)
	c.Segment(0, still, data3)
	if c.Segment(1, still, data3) != Done {
		t.Error("not done")
	}
	c.Close(event.EndOfInput)
	if s.check(t); len(s.got) > 0 {
		t.Error("a handshake out of nothing")
	}
}

// TestTwoHandshakes plays two handshakes in plaintext on one connection.
func TestTwoHandshakes(t *testing.T) {
	der := newAuthority().cert.Raw
	got := play(t, []chunk{
		{0, clientHello3(1, nil)}, {1, slices.Concat(serverHello3(0xc02f, nil), certificate3(der), done3, message3(0))},
		{0, clientHello3(2, nil)}, {1, slices.Concat(serverHello3(0xc02f, nil), certificate3(der), done3)},
		{0, slices.Concat(exchange3, ccs3, finished3)}, {1, slices.Concat(ccs3, finished3)},
	}, event.EndOfInput)
	if len(got) != 2 || got[0].Outcome != event.Extracted || got[1].Outcome != event.Extracted || got[0].Index != 0 || got[1].Index != 1 ||
		got[0].Established || !got[1].Established {
		t.Fatalf("%d handshakes", len(got))
	}
}

func TestVersion2(t *testing.T) {
	hello := append([]byte{0x80, 31, 1, 3, 1, 0, 6, 0, 0, 0, 16, 0, 0, 0x2f, 1, 0, 0x80}, bytes.Repeat([]byte{9}, 16)...)
	der := newAuthority().cert.Raw
	chunks := []chunk{{0, hello}, {1, slices.Concat(serverHello3(0x002f, nil), certificate3(der), done3)},
		{0, slices.Concat(exchange3, ccs3, finished3)}, {1, slices.Concat(ccs3, finished3)}}
	for _, k := range []int{1, 7, 1 << 16} {
		h := one(t, split(t, chunks, func(n int) int { return min(n, k) }))
		if h.Outcome != event.Extracted || h.Client != 0 || !h.Established || !slices.Equal(h.ClientHello.CipherSuites, []uint16{0x2f}) {
			t.Errorf("by %d: %+v", k, h)
		}
	}

	old := bytes.Clone(hello)
	old[3], old[4] = 0, 2
	answer := []byte{4, 0, 1, 0, 2, byte(len(der) >> 8), byte(len(der)), 0, 3, 0, 16}
	answer = append(append(append(answer, der...), 1, 0, 0x80), bytes.Repeat([]byte{8}, 16)...)
	answer = append([]byte{0x80 | byte(len(answer)>>8), byte(len(answer))}, answer...)
	chunks = []chunk{{0, old}, {1, answer}, {0, []byte("keys")}, {1, []byte("encrypted")}}
	for _, k := range []int{1, 7, 1 << 16} {
		h := one(t, split(t, chunks, func(n int) int { return min(n, k) }))
		if h.Outcome != event.Extracted || h.Carrier != "sslv2" || h.Version != 2 || h.Client != 0 || h.Chain[0].SHA256 != sha256.Sum256(der) {
			t.Errorf("by %d: %+v", k, h)
		}
	}
}

// TestConnSize bounds the size of a Conn, which every flow has.
func TestConnSize(t *testing.T) {
	if n := unsafe.Sizeof(Conn{}); n > 1024 {
		t.Errorf("a Conn takes %d bytes", n)
	}
}
