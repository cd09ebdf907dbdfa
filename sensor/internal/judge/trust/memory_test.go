package trust

import (
	"crypto/x509"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// A chain without its intermediate waits for the handshakes before it, and only such
// a chain.
func TestSeen(t *testing.T) {
	root, private := issue(t, nil, "Root", isCA), issue(t, nil, "Private Root", isCA)
	ca, below := issue(t, root, "CA", isCA), issue(t, private, "Private CA", isCA)
	leaf, other := issue(t, ca, "a.example", forHost("a.example")), issue(t, below, "b.example", forHost("b.example"))
	v, seen := trusting(t, root).NewVerifier(1<<20), NewSeen(1)

	short := handshake(noon, "a.example", leaf.Raw)
	whole := handshake(noon, "a.example", leaf.Raw, ca.Raw)
	if got, pending := v.Verify(short, nil); got != nil || !pending {
		t.Errorf("without what was seen: %v, %v", got, pending)
	}
	if got, pending := v.Verify(whole, nil); pending {
		t.Errorf("a whole chain: %v is pending", got)
	}
	got, _ := v.Verify(short, seen)
	check(t, got, judgement.Incomplete, "", "was not seen before")
	seen.Add(whole)
	got, _ = v.Verify(short, seen)
	check(t, got, judgement.Trusted, operator, `did not send the certificate of "CA": it was seen earlier.`)
	got, _ = v.Verify(handshake(noon, "b.example", other.Raw), seen)
	check(t, got, judgement.Incomplete, "")
	seen.Next()
	got, _ = v.Verify(short, seen)
	check(t, got, judgement.Incomplete, "")

	// Whoever shows another authority of that name and key identifier changes nothing.
	fake := issue(t, nil, "Root", isCA)
	copied := issue(t, fake, "CA", all(isCA, func(c *x509.Certificate) { c.SubjectKeyId = ca.SubjectKeyId }))
	seen.Add(handshake(noon, "x.example", issue(t, copied, "x.example", forHost("x.example")).Raw, copied.Raw))
	got, _ = v.Verify(short, seen)
	check(t, got, judgement.Incomplete, "")
	seen.Add(whole)
	got, _ = v.Verify(short, seen)
	check(t, got, judgement.Trusted, operator)
	// What the real one would have to have signed is not.
	forged := append([]byte(nil), leaf.Raw...)
	forged[len(forged)-5] ^= 1
	got, _ = v.Verify(handshake(noon, "a.example", forged), seen)
	check(t, got, judgement.BadSignature, "", `names "CA" as its issuer, and is not signed with the key of that name (seen before)`)
}

// Seen stays within its limits, whatever is sent, and keeps what is sent again.
func TestSeenBounds(t *testing.T) {
	root := issue(t, nil, "Root", isCA)
	ca := issue(t, root, "CA", isCA)
	leaf := issue(t, ca, "a.example", forHost("a.example"))
	whole := handshake(noon, "a.example", leaf.Raw, ca.Raw)
	seen := NewSeen(1)
	flood := func(n int, name func(int) string) {
		for i := range n {
			seen.Add(whole)
			c := *ca.Certificate
			c.Subject.CommonName = name(i)
			h := handshake(noon, "", leaf.Raw, ca.Raw)
			junk := *h.Chain[1].Certificate // names and hashes are all that Seen looks at
			junk.SHA256[0] ^= byte(i + 1)
			junk.SHA256[1] ^= byte((i + 1) >> 8)
			junk.SHA256[2] ^= 1
			junk.Subject.String = name(i)
			h.Chain[1].Certificate = &junk
			seen.Add(h)
			if len(seen.entries) > maxSeen || seen.bytes > maxSeenBytes || len(seen.order) > 2*maxSeen || len(seen.byName[nameOf(name(i))]) > maxSameName {
				t.Fatalf("%d entries, %d bytes, %d in order", len(seen.entries), seen.bytes, len(seen.order))
			}
		}
	}
	flood(3*maxSeen, func(i int) string { return fmt.Sprintf("CN=Junk %d", i) })
	flood(3*maxSeen, func(int) string { return "CN=CA" })
	if !seen.has(seen.byName[nameOf("CN=CA")][0].certificate) || seen.entries[whole.Chain[1].SHA256] == nil {
		t.Error("what is sent again and again was forgotten")
	}
	size, count := 0, 0
	for _, list := range seen.byName {
		count += len(list)
		for _, e := range list {
			size += e.size
		}
	}
	if size != seen.bytes || count != len(seen.entries) {
		t.Errorf("%d bytes and %d certificates, counted as %d and %d", size, count, seen.bytes, len(seen.entries))
	}
	if n := testing.AllocsPerRun(100, func() { seen.Add(whole) }); n != 0 {
		t.Errorf("%v allocations where nothing is new", n)
	}
}

// What a verifier remembers changes no answer, at whatever times and in whatever
// order it is asked.
func TestRemembered(t *testing.T) {
	root := issue(t, nil, "Root", isCA)
	until := time.Date(2021, 12, 31, 23, 59, 59, 0, time.UTC)
	ca := issue(t, root, "CA", all(isCA, func(c *x509.Certificate) { c.NotAfter = until.AddDate(0, -6, 0) }))
	cross := issueFor(t, issue(t, nil, "Old Root", isCA), "Root", root.key, isCA)
	leaf := issue(t, ca, "a.example", forHost("a.example"))
	early := issue(t, ca, "a.example", all(forHost("a.example"), func(c *x509.Certificate) { c.NotAfter = noon.Add(time.Hour) }))
	stores := trusting(t, root)
	v, seen := stores.NewVerifier(64<<10), NewSeen(1)
	chains := [][][]byte{{leaf.Raw, ca.Raw}, {leaf.Raw}, {early.Raw, ca.Raw}, {early.Raw}, {leaf.Raw, cross.Raw, ca.Raw}, {genuine(t)}, {ca.Raw}, {root.Raw}}
	r := rand.New(rand.NewPCG(1, 2))
	moments := []time.Time{noon, noon.Add(time.Hour), until, until.AddDate(0, -6, 0), leaf.NotBefore, leaf.NotBefore.Add(-time.Nanosecond),
		time.Unix(0, math.MaxInt64), time.Unix(0, math.MinInt64)}
	for i := range 3000 {
		at := moments[r.IntN(len(moments))]
		switch r.IntN(4) {
		case 0:
			at = at.Add(time.Duration(r.IntN(3)-1) * time.Nanosecond)
		case 1:
			at = at.Add(time.Duration(r.Int64N(5e9) - 25e8))
		case 2:
			at = at.Add(time.Duration(r.Int64N(1<<58) - 1<<57))
		}
		h := handshake(at, []string{"", "a.example", "c.example"}[r.IntN(3)], chains[r.IntN(len(chains))]...)
		asked := seen
		if r.IntN(3) == 0 {
			asked = nil
		}
		got, pending := v.Verify(h, asked)
		want, waits := stores.NewVerifier(64<<10).Verify(h, asked)
		if pending != waits || !reflect.DeepEqual(got, want) {
			t.Fatalf("%d: at %s: %v %+v, alone %v %+v", i, at, pending, got, waits, want)
		}
		switch r.IntN(8) {
		case 0:
			seen.Add(h)
		case 1:
			if r.IntN(4) == 0 {
				seen.Next()
			}
		}
	}
}

// What was judged already costs no allocation.
func TestAllocations(t *testing.T) {
	root := issue(t, nil, "Root", isCA)
	ca := issue(t, root, "CA", isCA)
	leaf := issue(t, ca, "a.example", forHost("a.example"))
	v, seen := trusting(t, root).NewVerifier(1<<20), NewSeen(1)
	whole, short := handshake(noon, "a.example", leaf.Raw, ca.Raw), handshake(noon, "a.example", leaf.Raw)
	cut := handshake(noon, "a.example", leaf.Raw)
	cut.Chain[0].Truncated = true
	for name, f := range map[string]func(){
		"whole":   func() { v.Verify(whole, nil) },
		"pending": func() { v.Verify(short, nil) },
		"seen":    func() { v.Verify(short, seen) },
		"cut":     func() { v.Verify(cut, seen) },
		"none":    func() { v.Verify(&event.Handshake{}, seen) },
	} {
		f()
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestCut(t *testing.T) {
	root := issue(t, nil, "Root", isCA)
	ca := issue(t, root, "CA", isCA)
	leaf := issue(t, ca, "a.example", forHost("a.example"))
	stores := trusting(t, root)
	h := handshake(noon, "a.example", leaf.Raw, ca.Raw)
	h.Chain[1].Truncated = true
	check(t, verify(t, stores, h), judgement.Incomplete, "", "Another certificate of the chain was not seen whole.")
	h.Chain[0].Truncated = true
	check(t, verify(t, stores, h), judgement.TrustUnknown, "", "The leaf was not seen whole.")
	if got, pending := stores.NewVerifier(0).Verify(&event.Handshake{}, nil); got != nil || pending {
		t.Errorf("without a certificate: %v, %v", got, pending)
	}
}

func BenchmarkVerify(b *testing.B) {
	leaf := genuine(b)
	v := builtin().NewVerifier(1 << 20)
	h := handshake(time.Date(2016, 8, 14, 0, 0, 0, 0, time.UTC), "fe2.update.microsoft.com", leaf)
	b.Run("remembered", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			v.Verify(h, nil)
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			builtin().NewVerifier(1<<20).Verify(h, nil)
		}
	})
}
