// Package trust judges whether the chain of a server is genuine: whether it leads, at
// the time when it was captured, to a root of a store. It looks at nothing but what
// it is given. No intermediate is fetched and no revocation is asked for.
package trust

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
	"github.com/oddcert/oddcert/rules/judgement"
)

// Verifier judges chains, and remembers its answers, the certificates and the
// signatures. What it answers does not depend on what it remembers. It is for one
// goroutine.
type Verifier struct {
	stores       *Stores
	cache        int // bytes of all caches
	answers      *generations.Cache[[32]byte, answer]
	certificates *generations.Cache[[32]byte, *certificate]
	signatures   *generations.Cache[pair, error]
	key          []byte // of an answer, before it is hashed

	checks int // signatures that were looked at, for tests
}

// answer is a judgement within a span of time.
type answer struct {
	trust   *judgement.Trust
	pending bool
	span
}

// pair is a certificate, by its SHA-256, and a key, by that of its
// SubjectPublicKeyInfo.
type pair struct{ certificate, key [32]byte }

// About what an entry of a cache takes, in bytes, beyond the certificates.
const (
	answerSize    = 512
	signatureSize = 160

	constraintSize  = 128
	smallConstraint = 6 // bytes of the smallest in a certificate
)

// NewVerifier returns a verifier whose caches take about that many bytes together.
func (s *Stores) NewVerifier(cache int) *Verifier {
	v := &Verifier{
		cache:        cache,
		certificates: generations.New[[32]byte, *certificate](cache / 2),
		signatures:   generations.New[pair, error](cache / 4),
	}
	v.Use(s)
	return v
}

// Use makes v judge by other stores from now on. It still knows certificates and
// signatures, which are the same whatever stores hold.
func (v *Verifier) Use(s *Stores) {
	v.stores, v.answers = s, generations.New[[32]byte, answer](v.cache/4)
}

var leafCut = &judgement.Trust{Status: judgement.TrustUnknown, Reasons: []string{"The leaf was not seen whole."}}

// Verify judges the chain of h at the time of its packets. It returns nil where h
// shows no certificate. What it returns is shared and read-only.
//
// Without seen, pending says that a certificate is missing that some handshake
// before may have shown; the judgement is nil then. With seen, which has the
// intermediates of the handshakes before h, it is complete.
func (v *Verifier) Verify(h *event.Handshake, seen *Seen) (t *judgement.Trust, pending bool) {
	if len(h.Chain) == 0 {
		return nil, false
	}
	if h.Chain[0].Truncated || h.Chain[0].DER == nil {
		return leafCut, false
	}
	at := h.Certificate.Time
	if h.Certificate == (event.Moment{}) {
		at = h.End.Time
	}
	a := v.ask(h, at, nil)
	if a.pending && seen != nil {
		a = v.ask(h, at, seen)
	}
	return a.trust, a.pending
}

// ask returns the answer that is remembered, or finds one.
func (v *Verifier) ask(h *event.Handshake, at int64, seen *Seen) answer {
	var epoch uint64
	if seen != nil {
		epoch = seen.epoch
	}
	b := binary.BigEndian.AppendUint64(v.key[:0], epoch)
	for i := range h.Chain {
		c := &h.Chain[i]
		if c.Truncated {
			b = append(b, make([]byte, 32)...)
			continue
		}
		b = append(b, c.SHA256[:]...)
	}
	// The answer depends on the name asked for only where the leaf is not for it.
	if h.ClientHello != nil && h.ClientHello.ServerName != "" {
		if b = append(b, 1); !isFor(h.Chain[0].Certificate, h.ClientHello.ServerName) {
			b = append(append(b, 1), h.ClientHello.ServerName...)
		}
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(h.Chain))) // what is a hash and what is a name
	v.key = b
	key := sha256.Sum256(b)
	if cap(v.key) > maxKey {
		v.key = nil
	}
	if a, ok := v.answers.Get(key); ok && a.from <= at && at <= a.to {
		return a
	}
	a := v.judge(h, at, seen)
	size := answerSize
	if a.trust != nil {
		for _, r := range a.trust.Reasons {
			size += len(r)
		}
	}
	v.answers.Put(key, a, size)
	return a
}

// certificate returns the node of a certificate that was sent.
func (v *Verifier) certificate(e *event.ChainEntry) *certificate {
	if c, ok := v.certificates.Get(e.SHA256); ok {
		return c
	}
	c := newCertificate(e.Certificate)
	size := e.Size() + answerSize
	if len(e.Permitted)+len(e.Excluded) > 0 {
		size += min(len(e.DER)/smallConstraint, maxConstraints) * constraintSize
	}
	v.certificates.Put(e.SHA256, c, size)
	return c
}

// verify checks the signature of c with the key of by.
func (v *Verifier) verify(p pair, c, by *certificate) error {
	if err, ok := v.signatures.Get(p); ok {
		return err
	}
	v.checks++
	err := by.key.Verify(c.scheme, c.parts.TBS, c.parts.Signature)
	v.signatures.Put(p, err, signatureSize)
	return err
}

func (v *Verifier) judge(h *event.Handshake, at int64, seen *Seen) answer {
	s := &search{
		v: v, x: v.stores.index(), at: at, span: span{math.MinInt64, math.MaxInt64}, seen: seen,
		budget: &budget{cost: maxCost, checks: maxChecks, steps: maxSteps, names: maxNameChecks},
	}
	if h.ClientHello != nil {
		s.name = h.ClientHello.ServerName
	}
	missing := 0
	for i := range h.Chain[1:] {
		e := &h.Chain[1+i]
		if e.Truncated || e.DER == nil {
			missing++
			continue
		}
		s.sent = append(s.sent, v.certificate(e))
	}
	s.explore(v.certificate(&h.Chain[0]))
	if s.best != nil {
		t := s.accepted() // narrows the span
		return answer{trust: t, span: s.span}
	}
	if s.open && seen == nil && !s.spent {
		return answer{pending: true, span: s.span}
	}
	t := s.rejected(v.certificate(&h.Chain[0]), missing) // narrows the span
	return answer{trust: t, span: s.span}
}

// accepted is the judgement of a path that ends in a root of a store.
func (s *search) accepted() *judgement.Trust {
	f := s.best
	last := len(f.path) - 1
	root := f.path[last]
	r := reasons{}
	r.problems(f.problems)
	for _, c := range f.path[1:max(1, last)] {
		switch {
		case slices.Contains(s.sent, c):
		case c.store != nil:
			r.add("The server did not send the certificate of %s: the store %s has it.", displayName(c), c.store.name)
		default:
			r.add("The server did not send the certificate of %s: it was seen earlier.", displayName(c))
		}
	}
	later := ""
	if root.until.IsValid() && !s.after(root.until) {
		later = ", from which it was removed later"
	}
	r.add("The chain ends in the root %s of the store %s%s.", displayName(root), root.store.name, later)
	if s.name == "" {
		r.add("The client asked for no name, so those of the leaf were not compared.")
	}
	return &judgement.Trust{
		Status:  f.status,
		Store:   root.store.name,
		Anchor:  judgement.Anchor{Subject: root.Subject.String, SHA256: root.SHA256},
		Reasons: r,
	}
}

// rejected is the judgement of a chain that no root of a store was found for. cut is
// how many certificates of it were not seen whole.
func (s *search) rejected(leaf *certificate, cut int) *judgement.Trust {
	slices.SortStableFunc(s.ends, func(a, b end) int {
		if a, b := gravity[a.status], gravity[b.status]; a != b {
			return a - b
		}
		return len(b.path) - len(a.path)
	})
	t := &judgement.Trust{Status: judgement.TrustUnknown}
	path := []*certificate{leaf}
	r := reasons{}
	if s.spent {
		r.add("The chain is too costly to judge: its names and keys allow for more paths than are tried.")
	} else {
		t.Status, path = s.ends[0].status, s.ends[0].path
	}
	for _, e := range s.ends {
		r.add("%s", e.text)
	}
	r.problems(s.judge(path, false))
	switch {
	case cut == 1:
		r.add("Another certificate of the chain was not seen whole.")
	case cut > 1:
		r.add("%d other certificates of the chain were not seen whole.", cut)
	}
	t.Reasons = r
	return t
}

// reasons are sentences, each once.
type reasons []string

func (r *reasons) add(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); len(*r) < maxReasons && !slices.Contains(*r, text) {
		*r = append(*r, text)
	}
}

// problems adds them, the gravest first.
func (r *reasons) problems(list []problem) {
	slices.SortStableFunc(list, func(a, b problem) int { return gravity[a.status] - gravity[b.status] })
	for _, p := range list {
		r.add("%s", p.text)
	}
}
