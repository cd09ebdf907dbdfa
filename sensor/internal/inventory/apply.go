package inventory

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/oddcert/oddcert/rules/judgement"
)

// entry is a value of a bucket.
type entry interface{ fields(*codec) }

// nothing is an entry that says all with its key.
type nothing struct{}

func (nothing) fields(*codec) {}

// raw is an entry of bytes.
type raw []byte

func (r raw) fields(c *codec) { c.out = append(c.out, r...) }

// slot is an entry that is decoded, and may have to be written.
type slot struct {
	entry        // nil for one to be removed
	key   string // bucket and key
	size  int    // bytes that it takes, about
	uses  int    // how often it was wanted
	dirty bool
	fresh bool // nothing on disk refers to it yet
	gone  bool // it is not in the cache any more
}

const (
	// slotCost is what a slot takes beside its entry, and onceCost what is counted once.
	slotCost = 160
	onceCost = 88
	// freshCost is what a new entry takes, about.
	freshCost = 512
	// valueCost is what a value of a map takes.
	valueCost = 48
)

// cache has entries that were read or changed by the goroutine that writes.
type cache struct {
	slots map[string]*slot // by bucket and key
	dirty []*slot          // those to write
	bytes int
	bad   func(bucket, []byte)
	key   []byte // scratch

	once     map[onceKey]struct{} // what was counted, and is not yet on disk
	onces    []onceKey            // the same, as it came
	ders     []*slot              // certificates that are not yet on disk
	meetings meetings             // that are not yet on disk
	changes  int                  // keys that are not yet on disk, about
	number   uint64               // of the last certificate of all

	// Of a batch.
	tx      *bolt.Tx              // to read what is missing
	buckets [buckets]*bolt.Bucket // of tx
	newest  []byte                // the last key on disk of what is counted once
}

// onceKey is a key of the bucket known.
type onceKey [24]byte

// reset forgets what is on disk. Nothing waits to be written.
func (c *cache) reset() {
	c.slots, c.once, c.onces, c.dirty, c.ders, c.meetings, c.bytes, c.changes = map[string]*slot{}, map[onceKey]struct{}{}, nil, nil, nil, meetings{}, 0, 0
}

// begin begins a batch.
func (c *cache) begin(tx *bolt.Tx) {
	c.tx = tx
	c.newest, _ = tx.Bucket(known.name()).Cursor().Last()
	if last, _ := tx.Bucket(ders.name()).Cursor().Last(); len(last) == 8 {
		c.number = max(c.number, binary.BigEndian.Uint64(last))
	}
}

// end ends a batch.
func (c *cache) end() { c.tx, c.newest, c.buckets = nil, nil, [buckets]*bolt.Bucket{} }

// get returns the value of a key on disk; nil where there is none.
func (c *cache) get(b bucket, key []byte) []byte {
	if c.buckets[b] == nil {
		c.buckets[b] = c.tx.Bucket(b.name())
	}
	return c.buckets[b].Get(key)
}

// written notes that all is on disk.
func (c *cache) written() {
	for _, s := range c.dirty {
		if s.dirty, s.fresh = false, false; s.entry == nil {
			c.drop(s)
		}
	}
	for _, s := range c.ders {
		c.bytes -= s.size
	}
	c.bytes -= onceCost*len(c.once) + c.meetings.bytes()
	clear(c.dirty)
	clear(c.ders)
	clear(c.once)
	c.dirty, c.ders, c.onces = c.dirty[:0], c.ders[:0], c.onces[:0]
	c.meetings.reset()
	c.changes = 0
}

func (c *cache) drop(s *slot) {
	c.bytes -= s.size
	s.gone = true
	delete(c.slots, s.key)
}

// trim makes room: what only one finding wanted goes first. Nothing waits to be written.
func (c *cache) trim(most int) {
	if c.bytes <= most {
		return
	}
	for _, s := range c.slots {
		if s.uses < 2 {
			c.drop(s)
		}
		s.uses = 0
	}
	if c.bytes > most/2 {
		c.reset()
	}
}

// find returns the entry of a key, as cached or on disk; nil where there is none.
func find[T any, P interface {
	*T
	entry
}](c *cache, b bucket, key func([]byte) []byte) (P, *slot) {
	c.key = key(append(c.key[:0], byte(b)))
	if s := c.slots[string(c.key)]; s != nil {
		if s.entry == nil { // it is to be removed
			return nil, nil
		}
		s.uses++
		return s.entry.(P), s
	}
	value := c.get(b, c.key[1:])
	if value == nil {
		return nil, nil
	}
	v := P(new(T))
	data, _, ok := unseal(b, c.key[1:], value)
	if !ok || !decode(data, v.fields) {
		c.bad(b, c.key[1:])
		return nil, nil
	}
	return v, c.put(b, v, len(data)*2)
}

// put puts an entry under the key at hand.
func (c *cache) put(b bucket, v entry, size int) *slot {
	s := c.slots[string(c.key)]
	if s == nil {
		s = &slot{key: string(c.key), uses: 1}
		c.slots[s.key] = s
	}
	s.entry = v
	c.grow(s, size+slotCost+len(s.key))
	return s
}

// grow notes that an entry takes more bytes.
func (c *cache) grow(s *slot, n int) {
	s.size += n
	c.bytes += n
}

// change returns the entry of a key to be changed, and whether it is a new one.
func change[T any, P interface {
	*T
	entry
}](c *cache, b bucket, key func([]byte) []byte) (v P, s *slot, fresh bool) {
	v, s = find[T, P](c, b, key)
	if fresh = s == nil; fresh {
		v = P(new(T))
		s = c.put(b, v, freshCost)
		s.fresh = true
	}
	c.touch(s)
	return v, s, fresh
}

// touch has an entry written.
func (c *cache) touch(s *slot) {
	if !s.dirty {
		s.dirty = true
		c.dirty = append(c.dirty, s)
		c.changes++
	}
}

// isNew notes something that is counted once, and reports whether it was not yet.
func (c *cache) isNew(key onceKey) bool {
	if _, ok := c.once[key]; ok {
		return false
	}
	if bytes.Compare(key[:], c.newest) <= 0 && c.get(known, key[:]) != nil {
		return false
	}
	c.once[key] = struct{}{}
	c.onces = append(c.onces, key)
	c.bytes += onceCost
	c.changes++
	return true
}

// storeDER has a certificate written, and returns its number.
func (c *cache) storeDER(der []byte) uint64 {
	c.number++
	s := &slot{key: string(binary.BigEndian.AppendUint64([]byte{byte(ders)}, c.number)), entry: raw(der)}
	c.grow(s, slotCost+len(der))
	c.ders = append(c.ders, s)
	c.changes++
	return c.number
}

// hasDER reports whether a certificate is on disk as it must be.
func (c *cache) hasDER(number uint64, der []byte) bool {
	key := binary.BigEndian.AppendUint64(nil, number)
	data, _, ok := unseal(ders, key, c.get(ders, key))
	return ok && bytes.Equal(data, der)
}

// tally is the hashes of what a finding adds to what is counted of an entry; 0 for nothing.
type tally [3]uint64

// count counts something of the entry that has v, and returns its counts if they have
// changed. of is its slot.
func (c *cache) count(of *slot, v *counter, t *tally) (counts [3]Count, changed [3]bool) {
	in, s := &v.sets, of
	if v.apart {
		if s = v.at; s == nil || s.gone {
			if _, s = find[sets](c, counted, of.appendKey); s == nil { // it was bad
				s = c.put(counted, new(sets), 0)
			}
			v.at = s
		}
		in = s.entry.(*sets)
		s.uses++
	}
	for i, h := range t {
		if h != 0 && in[i].add(h) {
			changed[i], counts[i] = true, in[i].count()
			c.grow(s, 8)
		}
	}
	switch {
	case changed == [3]bool{}:
	case v.apart:
		c.touch(s)
	case !in.small():
		c.key = of.appendKey(append(c.key[:0], byte(counted)))
		large := v.sets
		v.sets, v.apart, v.at = sets{}, true, c.put(counted, &large, 8*maxInline)
		c.touch(v.at)
	}
	return counts, changed
}

// appendKey appends the bucket and the key of a slot.
func (s *slot) appendKey(b []byte) []byte { return append(b, s.key...) }

var levels = []string{"", "informational", "low", "medium", "high", "critical"}

func highest(a, b string) string {
	if b != "" && slices.Index(levels, b) > slices.Index(levels, a) {
		return b
	}
	return a
}

// see counts a value n times.
func see[K uint16 | string](m *map[K]uint64, v K, n uint64) {
	var none K
	if v == none {
		return
	}
	if *m == nil {
		*m = map[K]uint64{}
	}
	if old := (*m)[v]; old > 0 || len(*m) < MaxValues {
		(*m)[v] = old + n
	}
}

// negotiated is what a handshake of a server was about.
type negotiated struct {
	version, suite, group uint16 // 0 where nothing answered
	alpn                  string // likewise
	scheme                uint16
	offered               []uint16
}

// is reports whether two are the same. Offers of the same groups mostly share them; where
// they do not, nothing is lost but time.
func (v *negotiated) is(w *negotiated) bool {
	return v.version == w.version && v.suite == w.suite && v.group == w.group && v.scheme == w.scheme && v.alpn == w.alpn &&
		len(v.offered) == len(w.offered) && (len(v.offered) == 0 || &v.offered[0] == &w.offered[0])
}

// seen counts what a server negotiated, once more. Mostly it is what it was the last time;
// then it is counted in the maps later, see settle.
func (v *serverEntry) seen(n *negotiated) {
	if v.again > 0 && v.last.is(n) {
		v.again++
		return
	}
	v.settle()
	v.last, v.again = *n, 1
	v.countLast(1)
}

// settle counts in the maps what is not yet there.
func (v *serverEntry) settle() {
	if v.again > 1 {
		v.countLast(v.again - 1)
	}
	v.last, v.again = negotiated{}, 0
}

func (v *serverEntry) countLast(n uint64) {
	see(&v.Versions, v.last.version, n)
	see(&v.Suites, v.last.suite, n)
	see(&v.Groups, v.last.group, n)
	see(&v.ALPN, v.last.alpn, n)
	see(&v.Signatures, v.last.scheme, n)
	for _, g := range v.last.offered {
		see(&v.Offered, g, n)
	}
}

func (p *Place) widen(last *Place, at *Place, fresh bool) {
	if fresh || at.Time < p.Time {
		*p = *at
	}
	if fresh || at.Time >= last.Time {
		*last = *at
	}
}

// apply adds an observation to the entries. The same observations in the same order
// make the same entries, however many are written at once.
func (s *Store) apply(o *observation) {
	c := &s.cache
	if o.run != nil {
		s.applyRun(o)
		return
	}
	raisedNow, level := s.applyAlerts(o)
	fresh := !o.unfinished && c.isNew(knownKey(o.at.Time, o.state))
	if !fresh && raisedNow == 0 {
		return
	}
	var n uint64
	t := &s.totals
	if fresh {
		n = 1
		t.Handshakes++
		t.Outcomes[o.outcome]++
		if o.answered {
			see(&t.Versions, o.version, 1)
			see(&t.Suites, o.suite, 1)
			see(&t.Groups, o.group, 1)
		}
		if t.First == 0 || o.at.Time < t.First {
			t.First = o.at.Time
		}
		t.Last = max(t.Last, o.at.Time)
	}
	s.dirtyTotals = true
	var serverKey, clientKey [96]byte
	server, client := appendServer(serverKey[:0], &o.server), appendAddress(clientKey[:0], o.client)
	hashes := hashed{server: hashOf(server), leaf: binary.BigEndian.Uint64(o.leaf[:])}
	if o.client.IsValid() {
		hashes.client = hashOf(client)
	}
	if o.name != "" {
		hashes.name = hashOf([]byte(o.name))
	}
	s.applyServer(o, n, raisedNow, level, server, &hashes)
	if o.client.IsValid() {
		c.bytes += c.meetings.add(o, client, server, fresh, raisedNow)
		c.changes += 2 // the contact, and the index
	}
	for i := range o.certificates {
		s.applyCertificate(o, &o.certificates[i], n, raisedNow, level, server, &hashes)
	}
}

// hashed are the hashes of what a finding has to be counted; 0 for nothing.
type hashed struct{ server, client, name, leaf uint64 }

func (s *Store) applyServer(o *observation, n, raised uint64, level string, server []byte, h *hashed) {
	v, slot, fresh := change[serverEntry](&s.cache, servers, func(b []byte) []byte { return append(b, server...) })
	if fresh {
		v.ServerKey = o.server
		s.cache.grow(slot, freshCost)
		s.totals.Servers++
	}
	if fresh || n > 0 {
		v.First.widen(&v.Last, &o.at, fresh)
	}
	v.Alerts += raised
	v.Level = highest(v.Level, level)
	if n > 0 {
		v.Handshakes++
		v.Outcomes[o.outcome]++
		values := len(v.ALPN)
		if v.seen(&negotiated{o.version, o.suite, o.group, o.alpn, o.scheme, o.offered}); len(v.ALPN) > values {
			s.cache.grow(slot, valueCost+len(o.alpn))
		}
		if o.retry {
			v.Retries++
		}
	}
	counts, changed := s.cache.count(slot, &v.counter, &tally{countClients: h.client, countNames: h.name, countCertificates: h.leaf})
	for i, to := range []*Count{countClients: &v.Clients, countNames: &v.AskedFor, countCertificates: &v.Certificates} {
		if changed[i] {
			*to = counts[i]
		}
	}
}

func (s *Store) applyCertificate(o *observation, e *shownCertificate, n, raised uint64, level string, server []byte, h *hashed) {
	c := &s.cache
	v, slot, fresh := change[certificateEntry](c, certificates, func(b []byte) []byte { return append(b, e.SHA256[:]...) })
	if fresh {
		v.describe(e)
		s.totals.Certificates++
		c.grow(slot, 2*len(e.DER)) // what it has of the certificate keeps all of its texts
	}
	if !v.checked && (fresh || !c.hasDER(v.number, e.DER)) {
		v.number = c.storeDER(e.DER)
	}
	v.checked = true
	v.Roles |= e.role
	if fresh || n > 0 {
		v.First.widen(&v.Last, &o.at, fresh)
	}
	v.Handshakes += n
	t := tally{countClients: h.client, countServers: h.server}
	leaf := e.role == Leaf
	if leaf {
		t[countNames] = h.name
	}
	counts, changed := c.count(slot, &v.counter, &t)
	for i, to := range []*Count{countClients: &v.Clients, countNames: &v.AskedFor, countServers: &v.Servers} {
		if changed[i] {
			*to = counts[i]
		}
	}
	if leaf {
		v.Alerts += raised
		v.Level = highest(v.Level, level)
		v.Chain = o.chain
		if o.trust != nil {
			v.Trust, v.Judged, v.Reasons = *o.trust, true, o.reasons
		}
		if o.proof != nil && (v.Proof == judgement.ProofUnknown || *o.proof == judgement.Proven) {
			v.Proof = *o.proof
		}
	}
	s.applySighting(o, e, n, raised, server, h)
}

func (s *Store) applySighting(o *observation, e *shownCertificate, n, raised uint64, server []byte, h *hashed) {
	c := &s.cache
	v, slot, fresh := change[sightingEntry](c, sightings, func(b []byte) []byte { return append(append(b, e.SHA256[:]...), server...) })
	if fresh {
		v.Certificate, v.Server = e.SHA256, o.server
		s.totals.Sightings++
	}
	v.Roles |= e.role
	if fresh || n > 0 {
		v.First.widen(&v.Last, &o.at, fresh)
	}
	v.Handshakes += n
	if e.role != Leaf {
		return
	}
	v.Alerts += raised
	if o.name == "" {
		v.Unnamed += n
		return
	}
	if counts, changed := c.count(slot, &v.counter, &tally{countNames: h.name}); changed[countNames] {
		v.AskedFor = counts[countNames]
		if len(v.Names) < MaxNames && !slices.Contains(v.Names, o.name) {
			v.Names = append(v.Names, o.name)
			c.grow(slot, 16+len(o.name))
		}
	}
}

// describe sets what a certificate says of itself.
func (v *Certificate) describe(e *shownCertificate) {
	*v = Certificate{SHA256: e.SHA256, SPKI: e.SPKISHA256, Subject: cut(e.Subject.String), Issuer: cut(e.Issuer.String),
		CommonName: cut(first(e.Subject.CommonName)), Organization: cut(first(e.Issuer.Organization)),
		Names: cuts(e.DNSNames, MaxNames), Serial: cut(e.Serial), KeyAlgorithm: cut(e.PublicKeyAlgorithm),
		KeySize: max(e.PublicKeySize, 0), KeyCurve: cut(e.PublicKeyCurve), SignatureAlgorithm: cut(e.SignatureAlgorithm), SelfSigned: e.SelfSigned,
		CA: e.IsCA, ParseError: cut(e.ParseError)}
	if e.NotBefore.IsValid() && e.NotAfter.IsValid() {
		v.NotBefore, v.NotAfter = e.NotBefore.Time().Unix(), e.NotAfter.Time().Unix()
	}
}

func first[T any](list []T) (v T) {
	if len(list) > 0 {
		v = list[0]
	}
	return v
}

// applyAlerts takes the alerts of an observation that were not counted before, and
// returns how many there are, and the highest of their levels.
func (s *Store) applyAlerts(o *observation) (n uint64, level string) {
	c := &s.cache
	for i := range o.alerts {
		a := &o.alerts[i]
		which := o.handshake.ofRule(a.RuleID)
		if !c.isNew(knownKey(o.at.Time, which)) {
			continue
		}
		n++
		level = highest(level, a.level)
		if a.ID == "" {
			continue
		}
		s.dirtyTotals = true
		at, ok := s.alertTime(a.ID)
		switch {
		case a.counted && ok:
			v, _, fresh := change[Alert](c, alerts, (&Alert{Time: at, ID: a.ID}).keyOf)
			if fresh { // its value was bad
				*v = Alert{Time: at, ID: a.ID, RuleID: a.RuleID, Level: a.level}
			}
			v.Counted++
		case !a.counted && !ok:
			v, slot, _ := change[Alert](c, alerts, a.Alert.keyOf)
			*v = a.Alert
			c.grow(slot, len(a.Record)+len(a.Reason))
			c.key = append(append(c.key[:0], byte(alertTimes)), a.ID...)
			c.touch(c.put(alertTimes, raw(binary.BigEndian.AppendUint64(nil, uint64(a.Time))), 8))
			s.totals.Alerts++
		}
	}
	return n, level
}

// alertTime returns the time of the alert with an id.
func (s *Store) alertTime(id string) (t int64, ok bool) {
	c := &s.cache
	c.key = append(append(c.key[:0], byte(alertTimes)), id...)
	if e := c.slots[string(c.key)]; e != nil {
		e.uses++
		return int64(binary.BigEndian.Uint64(e.entry.(raw))), true
	}
	v := c.get(alertTimes, c.key[1:])
	if len(v) != 8 {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(v)), true
}

// applyRun takes a run, or its end.
func (s *Store) applyRun(o *observation) {
	if !o.ended || s.run == 0 {
		s.run++
		if last, _ := s.cache.tx.Bucket(runs.name()).Cursor().Last(); len(last) == 8 {
			s.run = max(s.run, binary.BigEndian.Uint64(last)+1)
		}
	}
	key := func(b []byte) []byte { return binary.BigEndian.AppendUint64(b, s.run) }
	v, slot, _ := change[Run](&s.cache, runs, key)
	*v = *o.run
	s.cache.grow(slot, len(v.Stats))
	if s.run > maxRuns {
		s.cache.forget(runs, binary.BigEndian.AppendUint64(nil, s.run-maxRuns))
	}
}

// forget has a key removed.
func (c *cache) forget(b bucket, key []byte) {
	c.key = append(append(c.key[:0], byte(b)), key...)
	c.touch(c.put(b, nil, 0))
}

func (t *Totals) clone() Totals {
	c := *t
	c.Versions, c.Suites, c.Groups = maps.Clone(t.Versions), maps.Clone(t.Suites), maps.Clone(t.Groups)
	return c
}
