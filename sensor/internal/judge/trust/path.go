package trust

import (
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/judge/signature"
)

var errUnreadable = fmt.Errorf("%w: the certificate cannot be read", signature.ErrMalformed)

// problem is one thing that is wrong.
type problem struct {
	status judgement.TrustStatus
	text   string // a sentence
	path   bool   // it may be otherwise on another path
}

// gravity orders the statuses, the gravest first. What cannot be judged comes after
// what would be wrong all the same.
var gravity = [...]int{
	judgement.BadSignature:  0,
	judgement.Invalid:       1,
	judgement.SelfSigned:    2,
	judgement.UntrustedRoot: 3,
	judgement.TrustUnknown:  4,
	judgement.Incomplete:    5,
	judgement.Expired:       6,
	judgement.NotYetValid:   7,
	judgement.NameMismatch:  8,
	judgement.Weak:          9,
	judgement.Trusted:       10,
}

// gravest is the status of what is wrong altogether.
func gravest(problems []problem, pathOnly bool) judgement.TrustStatus {
	status := judgement.Trusted
	for _, p := range problems {
		if (p.path || !pathOnly) && gravity[p.status] < gravity[status] {
			status = p.status
		}
	}
	return status
}

// found is a path of good signatures from the leaf to a root of a store.
type found struct {
	path     []*certificate
	problems []problem
	status   judgement.TrustStatus
}

// better reports whether a is to be preferred.
func (a *found) better(b *found) bool {
	if b == nil {
		return true
	}
	if a, b := gravity[a.status], gravity[b.status]; a != b {
		return a > b
	}
	if a, b := a.path[len(a.path)-1].store.rank, b.path[len(b.path)-1].store.rank; a != b {
		return a < b
	}
	return len(a.path) < len(b.path)
}

// end is a certificate from which no path goes on.
type end struct {
	problem
	path []*certificate
}

// span is the times at which an answer is the same, both included, in nanoseconds.
type span struct{ from, to int64 }

// budget is what a judgement may still do. A search within another shares it.
type budget struct {
	cost, checks, steps, names int
	checked                    []checked
	spent                      bool
}

// checked is a signature check of this judgement.
type checked struct {
	pair
	outcome error
}

// search builds the paths of one chain.
type search struct {
	v    *Verifier
	x    *index
	at   int64 // nanoseconds since the Unix epoch
	span span
	name string // asked for; empty when none was

	sent []*certificate // the chain without the leaf
	seen *Seen          // nil when nobody knows what was seen before
	*budget

	path []*certificate
	best *found
	ends []end
	open bool // with what was seen before, the answer may be another
	done bool // no better path can be found
}

// nanos is a moment of a certificate in nanoseconds, or the first or last there is.
func nanos(seconds int64) int64 {
	switch {
	case seconds > math.MaxInt64/1_000_000_000:
		return math.MaxInt64
	case seconds < math.MinInt64/1_000_000_000:
		return math.MinInt64
	}
	return seconds * 1e9
}

// after reports whether the time is after the end of a validity.
func (s *search) after(d cert.Date) bool {
	end := nanos(d.Unix())
	if s.at > end {
		s.span.from = max(s.span.from, end+1)
		return true
	}
	s.span.to = min(s.span.to, end)
	return false
}

// before reports whether the time is before the beginning of a validity.
func (s *search) before(d cert.Date) bool {
	begin := nanos(d.Unix())
	if s.at < begin {
		s.span.to = min(s.span.to, begin-1)
		return true
	}
	s.span.from = max(s.span.from, begin)
	return false
}

// days is the whole days between a date and the time, and narrows the span to those
// times of which the same is true.
func (s *search) days(d cert.Date) int64 {
	const day = 24 * 60 * 60
	second := s.at / 1e9
	if s.at%1e9 < 0 {
		second--
	}
	apart := second - d.Unix()
	if apart >= 0 {
		n := apart / day
		s.span.from = max(s.span.from, nanos(d.Unix()+n*day))
		s.span.to = min(s.span.to, nanos(d.Unix()+(n+1)*day)-1)
		return n
	}
	n := (-apart - 1) / day
	s.span.from = max(s.span.from, nanos(d.Unix()-(n+1)*day))
	s.span.to = min(s.span.to, nanos(d.Unix()-n*day)-1)
	return n
}

// candidates yields what may have issued c by its name: roots, what was sent, other
// certificates of stores, and what was seen before.
func (s *search) candidates(c *certificate) iter.Seq[*certificate] {
	return func(yield func(*certificate) bool) {
		stored := s.x.byName[c.issuer]
		for _, by := range stored {
			if by.anchor && !yield(by) {
				return
			}
		}
		for _, by := range s.sent {
			if by.subject == c.issuer && !yield(by) {
				return
			}
		}
		for _, by := range stored {
			if !by.anchor && !yield(by) {
				return
			}
		}
		if s.seen != nil {
			for _, by := range s.seen.byName[c.issuer] {
				if !yield(by.certificate) {
					return
				}
			}
		}
	}
}

// onPath reports whether by is part of the path. Another certificate of the same name
// and key leads nowhere new.
func (s *search) onPath(by *certificate) bool {
	for _, c := range s.path {
		if c.SPKISHA256 == by.SPKISHA256 && c.subject == by.subject {
			return true
		}
	}
	return false
}

// check returns nil if the signature of c is by the key of by. Otherwise the error is
// [signature.ErrMismatch], or says why it cannot be known.
func (s *search) check(c, by *certificate) error {
	by.prepare()
	switch {
	case by.keyErr != nil:
		return by.keyErr
	case !s.lengthFits(c, by):
		return signature.ErrMismatch
	}
	p := pair{c.SHA256, by.SPKISHA256}
	for i := range s.checked {
		if s.checked[i].pair == p {
			return s.checked[i].outcome
		}
	}
	cost := by.cost + len(c.parts.TBS)/400 // hashes take a microsecond for some 400 bytes
	if len(s.checked) > 0 && cost > s.cost || s.checks == 0 {
		s.spent = true
		return signature.ErrTooCostly
	}
	s.cost -= cost
	s.checks--
	outcome := s.v.verify(p, c, by)
	s.checked = append(s.checked, checked{p, outcome})
	return outcome
}

// lengthFits reports whether an RSA signature is as long as the modulus, as it must be
// (RFC 8017, section 8.2.2).
func (s *search) lengthFits(c, by *certificate) bool {
	if k := by.key.Algorithm(); k != "RSA" && k != "RSASSA-PSS" || c.scheme.Kind != signature.PKCS1 && c.scheme.Kind != signature.PSS {
		return true
	}
	return len(c.parts.Signature) == (by.key.Bits()+7)/8
}

// explore follows the issuers of c, to which the path leads.
func (s *search) explore(c *certificate) {
	if s.steps--; s.steps < 0 {
		s.spent = true
		return
	}
	c.prepare()
	s.path = append(s.path, c)
	defer func() { s.path = s.path[:len(s.path)-1] }()
	if root := s.x.roots[c.SHA256]; root != nil {
		s.path[len(s.path)-1] = root
		s.complete()
		return
	}
	switch {
	case !c.whole:
		s.end(judgement.TrustUnknown, "%s cannot be read as far as its signature.", s.who())
		return
	case c.schemeErr != nil:
		s.end(judgement.TrustUnknown, "%s cannot be checked: %s.", s.whose("signature"), c.schemeErr)
		return
	case len(s.path) == maxDepth:
		s.end(judgement.TrustUnknown, "The chain is longer than %d certificates, too costly to judge.", maxDepth)
		return
	}
	var t attempt
	for way := range keyIDFits {
		for by := range s.candidates(c) {
			if c.keyIDs(by) != way {
				continue
			}
			if s.onPath(by) {
				t.circle = t.circle || by.SPKISHA256 != c.SPKISHA256
				continue
			}
			if t.had(by) {
				continue
			}
			err := s.check(c, by)
			if s.spent {
				return
			}
			t.note(s, by, way, err)
			if s.spent {
				return
			}
			if err == nil {
				s.explore(by)
				if s.done || s.spent {
					return
				}
			}
		}
	}
	s.conclude(c, &t)
}

// attempt is what came of the candidates for one certificate.
type attempt struct {
	tried      [][32]byte
	issued     bool // by one of them
	circle     bool // one is on the path already
	pinned     *certificate
	pinnedGood bool // a pinned one has issued it
	pinnedSame bool // the pinned one has the key identifier that is named
	ground     *certificate
	sameKeyID  bool // and it is named by its key identifier
	unclear    error
	unclearBy  *certificate
}

// had reports whether the same certificate was tried.
func (t *attempt) had(by *certificate) bool {
	if slices.Contains(t.tried, by.SHA256) {
		return true
	}
	t.tried = append(t.tried, by.SHA256)
	return false
}

func (t *attempt) note(s *search, by *certificate, way int, err error) {
	pinned := by.store != nil && by.store.pinned
	switch {
	case err == nil:
		t.issued = true
		t.pinnedGood = t.pinnedGood || pinned
	case !errors.Is(err, signature.ErrMismatch):
		if t.unclear == nil {
			t.unclear, t.unclearBy = err, by
		}
	case pinned:
		if t.pinned == nil {
			t.pinned = by
			t.pinnedSame = way == sameKeyID
		}
	case way == otherKeyID || t.ground != nil:
		// Another authority of the same name.
	case s.seen != nil && s.seen.has(by) && !s.authentic(by):
		// Anybody can show a certificate of that name.
	default:
		t.ground, t.sameKeyID = by, way == sameKeyID
	}
}

// authentic reports whether by itself has a path to a root of a store.
func (s *search) authentic(by *certificate) bool {
	inner := &search{v: s.v, x: s.x, at: s.at, span: s.span, sent: s.sent, seen: s.seen, budget: s.budget}
	inner.explore(by)
	s.span = inner.span
	return inner.best != nil
}

// conclude says why no path goes on from c, if none does.
func (s *search) conclude(c *certificate, t *attempt) {
	known, fits := (*knownKey)(nil), false
	for i, k := range s.v.stores.known[c.issuer] {
		if c.scheme.Kind == signature.PKCS1 || c.scheme.Kind == signature.PSS {
			fits = fits || len(c.parts.Signature) == (k.bits+7)/8
		}
		known = &s.v.stores.known[c.issuer][i]
	}
	self := c.selfIssued()
	var own error
	if self {
		own = s.check(c, c)
		if s.spent {
			return
		}
	}
	switch {
	case t.pinned != nil && !t.pinnedGood && !fits:
		// Whatever else carries that name, it is not the authority that is pinned.
		s.open = s.open || !t.pinnedSame
		s.end(judgement.BadSignature, "%s", s.mismatch(c, t.pinned))
	case known != nil && !t.pinnedGood && !fits:
		s.end(judgement.BadSignature, "%s has %s bits, and the key of %s has %s (pinned for the store %s): that key cannot have made it.",
			s.whose("signature"), thousands(int64(8*len(c.parts.Signature))), quote(displayed(known.name)), thousands(int64(known.bits)), known.store)
	case self && own == nil && len(s.path) == 1:
		s.end(judgement.SelfSigned, "The leaf is signed with its own key, and is in no store.")
	case self && own == nil:
		s.end(judgement.UntrustedRoot, "The chain ends in the root %s, which is in no store.", displayName(c))
	case t.issued:
	case t.ground != nil:
		s.open = s.open || !t.sameKeyID
		s.end(judgement.BadSignature, "%s", s.mismatch(c, t.ground))
	case t.unclear != nil:
		s.end(judgement.TrustUnknown, "%s cannot be checked with the key of %s: %s.", s.whose("signature"), displayName(t.unclearBy), t.unclear)
	case self && own != nil && !errors.Is(own, signature.ErrMismatch):
		s.end(judgement.TrustUnknown, "%s cannot be checked with its own key: %s.", s.whose("signature"), own)
	case self && c.keyIDs(c) != otherKeyID:
		s.open = s.open || c.keyIDs(c) != sameKeyID
		s.end(judgement.BadSignature, "%s names itself as its issuer, and its own key has not made its signature.", s.who())
	case t.circle:
		s.open = true
		s.end(judgement.Incomplete, "The authorities that were sent name one another as issuers, and no root.")
	default:
		s.open = true
		s.end(judgement.Incomplete, "The certificate of %s, which is named as the issuer of %s, was not sent, was not seen before and is in no store.", issuerName(c), s.whom())
	}
}

func (s *search) end(status judgement.TrustStatus, format string, args ...any) {
	s.ends = append(s.ends, end{problem{status: status, text: fmt.Sprintf(format, args...), path: true}, slices.Clone(s.path)})
}

// complete judges the path, which ends in a root of a store.
func (s *search) complete() {
	path := slices.Clone(s.path)
	f := &found{path: path, problems: s.judge(path, true)}
	f.status = gravest(f.problems, false)
	if f.better(s.best) {
		s.best = f
	}
	s.done = gravest(f.problems, true) == judgement.Trusted
}

// judge says what is wrong with a path of good signatures, which may end in a root of
// a store (RFC 5280, section 6.1).
func (s *search) judge(path []*certificate, anchored bool) (problems []problem) {
	add := func(i int, status judgement.TrustStatus, format string, args ...any) {
		problems = append(problems, problem{status, fmt.Sprintf(format, args...), i > 0})
	}
	last := len(path) - 1
	for i, c := range path {
		c.prepare()
		who := who(path, i)
		switch {
		case !c.NotBefore.IsValid() || !c.NotAfter.IsValid():
			add(i, judgement.TrustUnknown, "The validity of %s cannot be read.", lower(who))
		case s.before(c.NotBefore):
			add(i, judgement.NotYetValid, "%s begins %s, %s after the capture.", who, c.NotBefore.Time().Format(time.DateOnly), s.daysFrom(c.NotBefore))
		case s.after(c.NotAfter):
			add(i, judgement.Expired, "%s ended %s, %s before the capture.", who, c.NotAfter.Time().Format(time.DateOnly), s.daysFrom(c.NotAfter))
		}
	}
	if s.name != "" && !isFor(path[0].Certificate, s.name) {
		add(0, judgement.NameMismatch, "The client asked for %s, and the leaf is for %s.", quote(s.name), namesOf(path[0].Certificate))
	}
	for i, c := range path {
		if !c.whole {
			continue
		}
		who := who(path, i)
		anchor := anchored && i == last
		if !anchor {
			if !c.strict {
				add(i, judgement.Invalid, "%s is not encoded in DER around what is signed, so somebody may have changed it.", who)
			}
			if !c.sameAlg {
				add(i, judgement.Invalid, "%s names another algorithm of its signature outside of what is signed than inside.", who)
			}
			for n, oid := range c.critical {
				if n == maxNames {
					break
				}
				add(i, judgement.TrustUnknown, "%s has a critical extension that is not understood: %s.", who, oid)
			}
			// What a key signs of itself proves nothing, whatever the hash is.
			own := i == last && c.selfIssued()
			if hash := WeakHash(c.SignatureAlgorithm); hash != "" && !own {
				add(i, judgement.Weak, "The signature of %s uses %s.", lower(who), hash)
			}
		}
		if WeakKey(c.PublicKeyAlgorithm, c.PublicKeySize) {
			add(i, judgement.Weak, "The key of %s is weak: %s of %s bits.", lower(who), c.PublicKeyAlgorithm, thousands(int64(c.PublicKeySize)))
		}
		if !servesServers(c.Certificate) {
			add(i, judgement.Invalid, "%s is for other uses than servers: %s.", who, listed(c.ExtendedKeyUsage))
		}
		if i > 0 {
			s.judgeIssuer(path, i, anchor, add)
		}
	}
	if anchored && path[last].distrust != nil {
		chain := make([]*x509.Certificate, 0, last)
		for _, c := range path[:last] {
			chain = append(chain, &x509.Certificate{NotBefore: c.NotBefore.Time()})
		}
		if err := path[last].distrust(chain); err != nil {
			add(last, judgement.UntrustedRoot, "%s is not trusted for this in the store %s: %v.", who(path, last), path[last].store.name, err)
		}
	}
	if root := path[last]; anchored && root.until.IsValid() && s.after(root.until) {
		add(last, judgement.UntrustedRoot, "%s was removed from the store %s before the capture, by %s.", who(path, last), root.store.name, root.until.Time().Format(time.DateOnly))
	}
	return problems
}

// judgeIssuer judges the certificate at i of the path as an issuer of those before it.
func (s *search) judgeIssuer(path []*certificate, i int, anchor bool, add func(int, judgement.TrustStatus, string, ...any)) {
	c, whoever := path[i], who(path, i)
	if !c.mayIssue() && (anchor || i < len(path)-1 || c.Version == 3) {
		text := "and is no CA"
		if c.IsCA {
			text = "and its key is not for that"
		}
		add(i, judgement.Invalid, "%s signed %s, %s.", whoever, lower(who(path, i-1)), text)
	}
	below := 0
	for _, x := range path[1:i] {
		if !x.selfIssued() {
			below++
		}
	}
	if c.IsCA && c.PathLen >= 0 && below > c.PathLen {
		add(i, judgement.Invalid, "%s may have %d authorities below it, and has %d.", whoever, c.PathLen, below)
	}
	for n := i - 1; n >= 0; n-- {
		if n > 0 && path[n].selfIssued() {
			continue
		}
		switch a, text := c.limits.allow(path[n], &s.names); a {
		case outside:
			add(i, judgement.Invalid, "%s is not allowed to issue for %s, which %s has.", whoever, quote(text), lower(who(path, n)))
		case unclear:
			add(i, judgement.TrustUnknown, "%s cannot be judged as an issuer: %s.", whoever, text)
			return
		case tooMany:
			add(i, judgement.TrustUnknown, "%s has more name constraints than can be judged at this cost.", whoever)
			return
		}
	}
}

// servesServers reports whether the extended key usage, where there is one, allows
// TLS servers. The two of server-gated cryptography stand for it in old chains.
func servesServers(c *cert.Certificate) bool {
	if len(c.ExtendedKeyUsage) == 0 {
		return true
	}
	for _, u := range c.ExtendedKeyUsage {
		switch u {
		case "serverAuth", "anyExtendedKeyUsage", "msSGC", "nsSGC":
			return true
		}
	}
	return false
}
