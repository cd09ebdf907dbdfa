package output

import (
	"crypto/sha256"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
)

// Told knows what records have told already, in each capture for itself: what is
// told of a capture does not depend on what was read before. It belongs to the one
// stage that has the handshakes in order, and is not safe for concurrent use.
//
// What it forgets is told again, with the same id on the same day.
type Told struct {
	certificates *generations.Cache[sum, int64]       // the day for which each was told
	servers      *generations.Cache[sum, [32]byte]    // by server and name asked for, the SHA-256 of the last leaf
	others       *generations.Cache[sum, struct{}]    // leaves of servers and names that have several
	hellos       *generations.Cache[string, int64]    // by JA4 and JA3, the day for which each was told
	variants     *generations.Cache[string, variants] // by JA4
	stats        ToldStats
	past         uint64 // forgotten in captures before
	news         News
	previous     [32]byte // that news refers to
	keeps        bool     // see Keep
	key          []byte
}

// sum is the first half of a SHA-256: enough to tell things apart, also for
// somebody who tries to make them alike.
type sum [16]byte

// variants counts the JA3 that were told for one JA4.
type variants struct {
	day int64
	n   int
}

// ToldStats counts what was told. Once something was forgotten, the other figures
// may count it again.
type ToldStats struct {
	Certificates uint64 `json:"certificates"` // distinct
	Sightings    uint64 `json:"sightings"`    // distinct leaves, servers and names asked for
	Changed      uint64 `json:"changed"`      // of these, with another leaf than before
	Hellos       uint64 `json:"hellos"`       // distinct fingerprints, on each day
	Variants     uint64 `json:"variants"`     // hellos not told: others of the day with the same JA4 were, see maxVariants
	Forgotten    uint64 `json:"forgotten"`    // for want of room
}

// News is what a handshake has that was not told before.
type News struct {
	Certificates []Place
	Sighting     bool      // of the leaf on its server, under the name asked for
	Previous     *[32]byte // the SHA-256 of the leaf before, nil where the server is new under that name
	Hello        bool
}

// NewTold returns a Told that knows nothing.
func NewTold() *Told {
	t := new(Told)
	t.forget()
	return t
}

// forget makes all of it new.
func (t *Told) forget() {
	t.certificates = generations.New[sum, int64](maxTold)
	t.servers = generations.New[sum, [32]byte](maxTold)
	t.others = generations.New[sum, struct{}](maxToldOthers)
	t.hellos = generations.New[string, int64](maxToldHellos)
	t.variants = generations.New[string, variants](maxToldHellos)
}

// Keep makes t keep what was told from one capture to the next.
func (t *Told) Keep() { t.keeps = true }

// ToldCertificate takes a certificate for told on the day of a time, in nanoseconds since
// the Unix epoch.
func (t *Told) ToldCertificate(sha256 [32]byte, at int64) {
	t.certificates.Put(sum(sha256[:16]), dayOf(at), 1)
}

// ToldSighting takes the sighting of a leaf on a server, under a name, for told. Of several
// leaves the one of the last call is that of the last sighting.
func (t *Told) ToldSighting(server *event.Endpoint, transport event.Transport, name string, leaf [32]byte) {
	t.key = appendNamedServer(t.key[:0], server, transport, name)
	k := firstHalf(t.key)
	if previous, known := t.servers.Get(k); known && previous != leaf {
		t.key = append(t.key, previous[:]...)
		t.others.Put(firstHalf(t.key), struct{}{}, 1)
	}
	t.servers.Put(k, leaf, 1)
}

// MaxTold is how many certificates, and how many sightings, are known to be told.
const MaxTold = maxTold

// Next says that what comes is of another capture than what came.
func (t *Told) Next() {
	if t.keeps {
		return
	}
	if t.certificates.Len()+t.servers.Len()+t.hellos.Len()+t.variants.Len() == 0 {
		return
	}
	t.past = t.forgotten()
	t.forget()
}

func (t *Told) forgotten() uint64 {
	return t.past + t.certificates.Forgotten() + t.servers.Forgotten() + t.others.Forgotten() + t.hellos.Forgotten() + t.variants.Forgotten()
}

// Stats returns the counters so far.
func (t *Told) Stats() ToldStats {
	s := t.stats
	s.Forgotten = t.forgotten()
	return s
}

// See returns what of h is news, and takes it for told. Truncated certificates
// are not news: nothing says which they are. The result is lent until the next call.
func (t *Told) See(h *event.Handshake) *News {
	n := &t.news
	*n = News{Certificates: n.Certificates[:0]}
	day := dayOf(h.End.Time)
	for i := range h.Chain {
		t.certificate(&h.Chain[i], Place{false, i}, day)
	}
	for i := range h.ClientChain {
		t.certificate(&h.ClientChain[i], Place{true, i}, day)
	}
	if len(h.Chain) > 0 && whole(&h.Chain[0]) {
		t.sighting(h)
	}
	if c := h.ClientHello; c != nil && c.JA3 != "" {
		t.hello(c, day)
	}
	return n
}

// whole reports whether a certificate is not truncated, and so has a hash.
func whole(c *event.ChainEntry) bool { return !c.Truncated && c.Certificate != nil && c.DER != nil }

func (t *Told) certificate(c *event.ChainEntry, p Place, day int64) {
	if !whole(c) {
		return
	}
	k := sum(c.SHA256[:16])
	last, known := t.certificates.Get(k)
	if known && last == day {
		return
	}
	if !known {
		t.stats.Certificates++
	}
	t.certificates.Put(k, day, 1)
	t.news.Certificates = append(t.news.Certificates, p)
}

func (t *Told) sighting(h *event.Handshake) {
	leaf := &h.Chain[0].SHA256
	t.key = appendServer(t.key[:0], h)
	k := firstHalf(t.key)
	var known bool
	if t.previous, known = t.servers.Get(k); known && t.previous == *leaf {
		return
	}
	t.servers.Put(k, *leaf, 1)
	if known {
		// A server with several certificates has them in turn: each is told once.
		server := len(t.key)
		t.key = append(t.key, t.previous[:]...)
		t.others.Put(firstHalf(t.key), struct{}{}, 1)
		t.key = append(t.key[:server], leaf[:]...)
		if _, ok := t.others.Get(firstHalf(t.key)); ok {
			return
		}
		t.news.Previous = &t.previous
		t.stats.Changed++
	}
	t.news.Sighting = true
	t.stats.Sightings++
}

func firstHalf(b []byte) sum {
	all := sha256.Sum256(b)
	return sum(all[:16])
}

// hello tells a fingerprint once a day. Clients that shuffle their extensions
// have another JA3 with every hello, and the same JA4.
func (t *Told) hello(c *event.ClientHello, day int64) {
	t.key = append(append(t.key[:0], c.JA4...), c.JA3...)
	if last, ok := generations.GetBytes(t.hellos, t.key); ok && last == day {
		return
	}
	v, _ := t.variants.Get(c.JA4)
	if v.day != day {
		v = variants{day: day}
	}
	if v.n++; v.n > maxVariants {
		t.stats.Variants++
		return
	}
	t.variants.Put(c.JA4, v, 1)
	t.hellos.Put(string(t.key), day, 1)
	t.news.Hello = true
	t.stats.Hellos++
}
