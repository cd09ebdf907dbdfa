package memory

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestPool lends and takes back at random: what is in a buffer stays, and the
// sums are right.
func TestPool(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var p Pool
	type lent struct{ buf, want []byte }
	var l []lent
	for range 20_000 {
		if len(l) > 0 && r.IntN(4) == 0 {
			i := r.IntN(len(l))
			if !bytes.Equal(l[i].buf, l[i].want) {
				t.Fatal("a buffer has changed")
			}
			p.Put(l[i].buf)
			l[i] = l[len(l)-1]
			l = l[:len(l)-1]
		} else {
			b := bytes.Repeat([]byte{byte(r.Uint32())}, 1+r.IntN(3000))
			if len(l) > 20 {
				x := &l[r.IntN(len(l))]
				x.buf, _ = p.Append(x.buf, b)
				x.want = append(x.want, b...)
			} else {
				buf, ok := p.Append(nil, b)
				if !ok {
					t.Fatal("no buffer")
				}
				l = append(l, lent{buf, bytes.Clone(b)})
			}
		}
		sum := 0
		for _, x := range l {
			sum += cap(x.buf)
		}
		if p.Lent() != sum || p.Held() != sum || p.spare > maxSpare {
			t.Fatalf("%d bytes lent, want %d; %d spare", p.Lent(), sum, p.spare)
		}
	}
	for _, x := range l {
		p.Put(x.buf)
	}
	if p.Lent() != 0 {
		t.Errorf("%d bytes lent at the end", p.Lent())
	}
}

// TestLongest refuses what is longer than the longest buffer, and keeps what there
// was.
func TestLongest(t *testing.T) {
	var p Pool
	buf, ok := p.Append(nil, make([]byte, 1<<longestBits))
	if !ok {
		t.Fatal("the longest buffer is refused")
	}
	if again, ok := p.Append(buf, []byte{1}); ok || len(again) != len(buf) {
		t.Errorf("%d bytes, %v", len(again), ok)
	}
}

// TestAccounts charges accounts, and discharges them.
func TestAccounts(t *testing.T) {
	var p Pool
	a, b := p.NewAccount(), p.NewAccount()
	a.Charge(10)
	b.Charge(5)
	a.Charge(-3)
	if p.Held() != 12 {
		t.Errorf("%d bytes held", p.Held())
	}
	if a.Discharge(); p.Held() != 5 {
		t.Errorf("%d bytes held after one account is discharged", p.Held())
	}
}
