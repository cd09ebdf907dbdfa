package reassembly

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// model is a buffer as simple as can be.
type model struct {
	floor int
	have  []bool
	data  []byte
}

const modelSize = 1 << 13

func newModel() *model { return &model{have: make([]bool, modelSize), data: make([]byte, modelSize)} }

func (m *model) add(offset int, data []byte) {
	for i, v := range data {
		if at := offset + i; at >= m.floor && !m.have[at] {
			m.have[at], m.data[at] = true, v
		}
	}
}

func (m *model) run(from int) (start, end int) {
	for start = from; start < modelSize && !m.have[start]; start++ {
	}
	if start == modelSize {
		return from, from
	}
	for end = start; end < modelSize && m.have[end]; end++ {
	}
	return start, end
}

func (m *model) ready() int {
	end := m.floor
	for end < modelSize && m.have[end] {
		end++
	}
	return end
}

// compare fails unless b is what m is.
func compare(t *testing.T, p *Pool, b *Buffer, m *model) {
	t.Helper()
	if b.Floor() != uint64(m.floor) || b.Ready() != uint64(m.ready()) {
		t.Fatalf("floor %d, ready %d, want %d, %d", b.Floor(), b.Ready(), m.floor, m.ready())
	}
	for from := m.floor; from < modelSize; {
		start, end := b.Run(uint64(from))
		wantStart, wantEnd := m.run(from)
		if start != uint64(wantStart) || end != uint64(wantEnd) {
			t.Fatalf("from %d: run %d to %d, want %d to %d", from, start, end, wantStart, wantEnd)
		}
		if start == end {
			break
		}
		if got := b.Append(nil, start, end); !bytes.Equal(got, m.data[wantStart:wantEnd]) {
			t.Fatalf("run from %d: other bytes", start)
		}
		from = wantEnd
	}
	if p.held < 0 || (p.held == 0) != b.Empty() {
		t.Fatalf("%d bytes held, empty %v", p.held, b.Empty())
	}
}

// FuzzBuffer plays a script of fragments of four bytes each: what is done, the
// offset, how many bytes.
func FuzzBuffer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 10, 0, 0, 20, 10, 0, 0, 5, 20, 1, 0, 9, 0, 0, 1, 0, 255, 2, 0, 0, 0, 0, 2, 0, 9})
	f.Fuzz(func(t *testing.T, script []byte) {
		var p Pool
		var b Buffer
		m := newModel()
		for k := byte(1); len(script) >= 4; k++ {
			op, offset, n := script[0]%8, int(binary.BigEndian.Uint16(script[1:]))%(modelSize-1024), int(script[3])*4
			script = script[4:]
			switch op {
			case 1:
				to := m.floor + offset%(m.ready()-m.floor+1)
				m.floor = to
				b.Discard(&p, uint64(to))
			case 2:
				b.Release(&p)
				m = newModel()
			default:
				data := bytes.Repeat([]byte{k}, n)
				m.add(offset, data)
				b.Add(&p, uint64(offset), data)
			}
			compare(t, &p, &b, m)
		}
		b.Release(&p)
		if p.held != 0 {
			t.Fatalf("%d bytes held of nothing", p.held)
		}
	})
}

// shapes are orders in which a message may come: of its first byte, and length,
// of each fragment.
var shapes = map[string]func(size int, yield func(offset, n int)){
	"rising": func(size int, yield func(offset, n int)) {
		for at := 0; at < size; at += 1000 {
			yield(at, min(1000, size-at))
		}
	},
	"falling": func(size int, yield func(offset, n int)) {
		for at := (size - 1) / 1000 * 1000; at >= 0; at -= 1000 {
			yield(at, min(1000, size-at))
		}
	},
	"interleaved": func(size int, yield func(offset, n int)) {
		for first := range 2 {
			for at := first * 100; at < size; at += 200 {
				yield(at, min(100, size-at))
			}
		}
	},
	"overlapping": func(size int, yield func(offset, n int)) {
		for at := 0; at < size; at += 500 {
			yield(at, min(1000, size-at))
		}
	},
	"all over": func(size int, yield func(offset, n int)) {
		r := rand.New(rand.NewPCG(1, 2))
		for _, i := range r.Perm((size + 99) / 100) {
			yield(i*100, min(100, size-i*100))
		}
	},
	"one byte, falling": func(size int, yield func(offset, n int)) {
		for at := size - 1; at >= 0; at-- {
			yield(at, 1)
		}
	},
	"one byte, interleaved": func(size int, yield func(offset, n int)) {
		for first := range 2 {
			for at := first; at < size; at += 2 {
				yield(at, 1)
			}
		}
	},
}

func TestShapes(t *testing.T) {
	const size = 100_000
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	var p Pool
	for name, shape := range shapes {
		var b Buffer
		shape(size, func(offset, n int) { b.Add(&p, uint64(offset), want[offset:offset+n]) })
		if b.Ready() != size || !bytes.Equal(b.Append(nil, 0, size), want) {
			t.Errorf("%s: ready to %d", name, b.Ready())
		}
		if most := size*3/2 + 8192; p.Held() > most {
			t.Errorf("%s: %d bytes held, want at most %d", name, p.Held(), most)
		}
		b.Release(&p)
	}
}

// BenchmarkShapes counts the bytes of a fragment as DTLS has them on the wire,
// 25 of headers with each. No shape may cost much more a byte than another.
func BenchmarkShapes(b *testing.B) {
	const size, header = 100_000, 25
	data := make([]byte, size)
	for name, shape := range shapes {
		b.Run(name, func(b *testing.B) {
			var p Pool
			wire := 0
			shape(size, func(_, n int) { wire += n + header })
			b.SetBytes(int64(wire))
			b.ReportAllocs()
			for b.Loop() {
				var buffer Buffer
				shape(size, func(offset, n int) { buffer.Add(&p, uint64(offset), data[offset:offset+n]) })
				buffer.Release(&p)
			}
		})
	}
}
