package quic

import (
	"bytes"
	"slices"

	"github.com/oddcert/oddcert/parsers/internal/reassembly"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/parsers/tls13"
)

// Level is an encryption level of CRYPTO data (RFC 9001, section 4).
type Level uint8

// The levels that are read.
const (
	Initial   Level = iota // the hellos
	Handshake              // EncryptedExtensions, Certificate, …, Finished
	levels
)

// Message is a TLS handshake message that a connection sent.
type Message struct {
	tls.Message
	Connection int   // as in [Result]
	Direction  uint8 // of the datagram that it came in
	Level      Level
	Mark       [2]uint64 // that the session had when the datagram came that completed it
}

// Result is what a datagram, or secrets, have shown.
type Result struct {
	// Connection is the 0-based number, on the session, of the connection that
	// the datagram belongs to, -1 when that is not known. Client is the
	// direction in which its client sends.
	Connection int
	Client     uint8

	// Version is that of the last packet with a long header; 0 when there was
	// none, and in Version Negotiation.
	Version uint32

	// Messages are those that are whole now and were not before, of each
	// direction and level in the order sent. The slice is good until the next
	// call of a method of the session; the bodies are the caller's.
	Messages []Message

	Retry       bool    // the server, it turns out, has asked the client to prove its address
	Negotiation bool    // the server does not know the version: this connection is over
	Sealed      bool    // the sender has sent Handshake or 1-RTT packets
	Unopened    [2]bool // there are Handshake packets of that direction that the secrets do not open
	Blind       bool    // there are Initials that no key opens: the client's first was not seen
	Limited     [2]bool // data of that direction was dropped because of a limit
	Closed      bool    // the sender closed the connection, with Code, where all can see it
	Code        uint64  // the error (RFC 9000, section 20.1); 0x100 plus an alert for one of TLS
}

// Alert is the description of the TLS alert that closed the connection
// (RFC 9001, section 4.8).
func (r *Result) Alert() (description uint8, ok bool) {
	return uint8(r.Code), r.Closed && r.Code&^0xff == 0x100
}

// Stats counts packets and connections by what became of them.
type Stats struct {
	Initials    uint64 // packets that were opened
	Handshakes  uint64 // packets that were opened
	Blind       uint64 // Initials that no key opened, or only later
	Unopened    uint64 // Handshake packets that the secrets did not open
	Cut         uint64 // Initial and Handshake packets that the datagram does not have whole
	Limited     uint64 // runs of CRYPTO data, and waiting packets, dropped because of a limit
	Connections uint64
	Evicted     uint64 // connections that were evicted by newer ones of their flow
}

// Decoder holds what sessions share: scratch space and counters. The zero value
// is ready. It and its sessions are not safe for concurrent use.
type Decoder struct {
	// Wait makes sessions keep Handshake packets, within limits, until
	// [Session.SetSecrets].
	Wait bool

	stats   Stats
	pool    reassembly.Pool // of the CRYPTO data that the sessions hold
	waits   int             // bytes of packets that wait
	keyed   int             // connections that are not over, each with keys
	scratch scratch
}

// Stats returns the counters so far.
func (d *Decoder) Stats() Stats { return d.stats }

// Held is what the sessions hold together, in bytes. The caller bounds it, by
// closing those that it can do without.
func (d *Decoder) Held() int { return d.pool.Held() + d.waits + d.keyed*connectionCost }

// Session is the state of one flow of datagrams, with one connection or, when
// a client uses its port again, several.
type Session struct {
	// Mark is what the caller wants to know of the datagram to come when a
	// message in it is whole.
	Mark [2]uint64

	d           *Decoder
	connections []*connection // the oldest first
	count       int           // of the connections so far
	trials      int
	waiting     []waiting
	waits       int // bytes in waiting
	messages    []Message
}

// waiting is a packet for which there was no key yet.
type waiting struct {
	direction uint8
	level     Level
	mark      [2]uint64
	bytes     []byte
}

// connection is one QUIC connection.
type connection struct {
	number  int
	client  uint8
	keys    []*keySet  // the newest last
	ids     [2][]byte  // the Source Connection IDs by direction; nil when not known
	retry   []byte     // the Source Connection ID of a Retry; nil without one
	secrets [2][]byte  // of the Handshake packets by direction
	openers [2]*opener // for those, when they have proved right
	streams [levels][2]stream
	random  []byte // of the ClientHello, nil before that
}

// keySet is what opens the Initials of a connection. It follows from a version
// and from the first Destination Connection ID of the client (after a Retry,
// from that which the server chose).
type keySet struct {
	version uint32
	scheme  *scheme
	dcid    []byte
	openers [2]*opener // of the client, of the server; nil until they are needed
}

// opener is the opener for Initials of one side, 0 for the client.
func (k *keySet) opener(side int) *opener {
	if k.openers[side] == nil {
		label := [2]string{"client in", "server in"}[side]
		k.openers[side] = newOpener(tls13.AES128GCM, initialSecret(k.scheme.salt, k.dcid, label), k.scheme.labels)
	}
	return k.openers[side]
}

// Open begins a session. The caller ends it with [Session.Close].
func (d *Decoder) Open() *Session { return &Session{d: d} }

// Close ends the session, which must not be used again.
func (s *Session) Close() {
	for _, c := range s.connections {
		s.d.release(c)
	}
	s.Forget()
	*s = Session{d: s.d}
}

func (d *Decoder) release(c *connection) {
	d.keyed--
	for level := range c.streams {
		for i := range c.streams[level] {
			c.streams[level][i].Release(&d.pool)
		}
	}
}

// Datagram takes the payload of one datagram in direction 0 or 1. b is borrowed
// until the return. Datagrams may come late, twice, or not at all.
func (s *Session) Datagram(direction uint8, b []byte) Result {
	direction &= 1
	r := s.begin()
	var c *connection
	for len(b) > 0 {
		if b[0]&0x80 == 0 { // a short header goes to the end (RFC 9000, section 12.2)
			r.Sealed = b[0]&0x40 != 0 && len(b) > tagLength
			break
		}
		p, rest, ok := next(b)
		if !ok {
			break
		}
		b = rest
		r.Version = p.version
		switch p.typ {
		case initial:
			if at := s.initial(&r, direction, &p); at != nil {
				c = at
			}
		case handshake:
			r.Sealed = true
			if at := s.handshake(&r, direction, &p); at != nil {
				c = at
			}
		case retry:
			if at := s.retryPacket(direction, &p); at != nil {
				c = at
				r.Retry = true
			}
		case negotiation:
			if at := s.find(direction, &p); at != nil && at.beganWith(p.scid) && at.client != direction {
				c = at
				r.Negotiation = true
			}
		}
		if c == nil {
			c = s.find(direction, &p)
		}
	}
	if c == nil && r.Sealed && len(s.connections) > 0 {
		c = s.connections[len(s.connections)-1]
	}
	return s.end(r, c)
}

// Begins tells, at little cost, whether the payload of a datagram may begin a
// connection besides those that are known: whether it [Starts], with connection
// IDs that none of them has.
func (s *Session) Begins(direction uint8, b []byte) bool {
	if !Starts(b) {
		return false
	}
	direction &= 1
	p, _, _ := next(b)
	return !slices.ContainsFunc(s.connections, func(c *connection) bool {
		return len(p.scid) > 0 && bytes.Equal(c.ids[direction], p.scid) ||
			bytes.Equal(c.ids[direction^1], p.dcid) || bytes.Equal(c.retry, p.dcid) || c.beganWith(p.dcid)
	})
}

// SetSecrets gives the secrets of a connection's Handshake packets: the
// CLIENT_HANDSHAKE_TRAFFIC_SECRET and SERVER_HANDSHAKE_TRAFFIC_SECRET of a key
// log, of 32 or 48 bytes, which are copied; nil for one that is not known. What
// has waited for them comes in the result.
func (s *Session) SetSecrets(connection int, client, server []byte) Result {
	r := s.begin()
	for _, c := range s.connections {
		if c.number == connection {
			for i, secret := range [2][]byte{client, server} {
				if d := c.client ^ uint8(i); secret != nil && !bytes.Equal(secret, c.secrets[d]) {
					c.secrets[d] = bytes.Clone(secret)
					c.openers[d] = nil
				}
			}
			s.replay(&r)
			return s.end(r, c)
		}
	}
	return s.end(r, nil)
}

// Unfinished are the messages that are there in part: with what lies before
// their first hole, and between that and the second. The slice is good until
// the next call of a method of the session.
func (s *Session) Unfinished() []Message {
	s.begin()
	for _, c := range s.connections {
		for level := range c.streams {
			for direction := range c.streams[level] {
				if m, ok := c.streams[level][direction].rest(); ok {
					s.messages = append(s.messages, Message{m, c.number, uint8(direction), Level(level), s.Mark})
				}
			}
		}
	}
	return s.messages
}

// begin makes ready for a call.
func (s *Session) begin() Result {
	s.messages = s.messages[:0]
	return Result{Connection: -1}
}

// end completes the result of a call that was about c.
func (s *Session) end(r Result, c *connection) Result {
	if c != nil {
		r.Connection, r.Client = c.number, c.client
	}
	r.Messages = s.messages
	return r
}

// find is the connection whose IDs p has, the newest of several; nil when there
// is none.
func (s *Session) find(direction uint8, p *packet) *connection {
	for _, c := range slices.Backward(s.connections) {
		from, to := c.ids[direction], c.ids[direction^1]
		if (from == nil || bytes.Equal(from, p.scid)) &&
			(direction == c.client || bytes.Equal(to, p.dcid)) {
			return c
		}
	}
	return nil
}

// initial reads an Initial packet and returns its connection.
func (s *Session) initial(r *Result, direction uint8, p *packet) *connection {
	if p.cut {
		s.d.stats.Cut++
		return nil
	}
	if c := s.openInitial(r, direction, p); c != nil {
		return c
	}
	if c := s.accept(r, direction, p); c != nil {
		return c
	}
	s.d.stats.Blind++
	r.Blind = true
	s.wait(r, direction, Initial, p)
	return nil
}

// openInitial reads an Initial packet with the keys that are there.
func (s *Session) openInitial(r *Result, direction uint8, p *packet) *connection {
	for _, c := range slices.Backward(s.connections) {
		side := int(direction ^ c.client)
		for _, k := range slices.Backward(c.keys) {
			if k.version != p.version {
				continue
			}
			if o := k.opener(side); o != nil {
				if frames, ok := s.d.scratch.open(o, p); ok {
					return s.opened(r, c, direction, Initial, p, frames)
				}
			}
		}
		if k := s.otherVersion(c, p); k != nil {
			if frames, ok := s.d.scratch.open(k.opener(side), p); ok {
				c.addKeys(k)
				return s.opened(r, c, direction, Initial, p, frames)
			}
		}
	}
	return nil
}

// otherVersion makes the keys of p's version for a connection that began in
// another (compatible version negotiation: RFC 9368, section 2.3, and RFC 9369,
// section 4.1). It is nil when there are such keys or no more can be tried.
func (s *Session) otherVersion(c *connection, p *packet) *keySet {
	if s.trials >= maxTrials || c.speaks(p.version) {
		return nil
	}
	s.trials++
	return &keySet{version: p.version, scheme: schemesOf(p.version)[0], dcid: c.keys[len(c.keys)-1].dcid}
}

// accept takes p for the first Initial of a client, whose keys follow from its
// own Destination Connection ID.
func (s *Session) accept(r *Result, direction uint8, p *packet) *connection {
	known := s.known(direction, p)
	if s.trials >= maxTrials || len(p.dcid) < minFirstID && len(p.token) == 0 && known == nil {
		return nil
	}
	for _, scheme := range schemesOf(p.version) {
		k := &keySet{version: p.version, scheme: scheme, dcid: bytes.Clone(p.dcid)}
		o := k.opener(0)
		if o == nil {
			continue
		}
		frames, ok := s.d.scratch.open(o, p)
		if !ok {
			continue
		}
		c := known
		if c == nil {
			c = s.connect(direction)
		} else {
			r.Retry = true // nothing else gives a connection a second one
		}
		c.addKeys(k)
		s.trials = 0
		c = s.opened(r, c, direction, Initial, p, frames)
		s.replay(r)
		return c
	}
	s.trials++
	return nil
}

// known is the connection whose client sends p, an Initial with another
// Destination Connection ID than those before: after a Retry, seen or not, or,
// when datagrams come late, before it. It is nil when p begins a connection.
func (s *Session) known(direction uint8, p *packet) *connection {
	for _, c := range slices.Backward(s.connections) {
		if c.client == direction && c.speaks(p.version) && (c.retry != nil && bytes.Equal(c.retry, p.dcid) ||
			len(p.scid) > 0 && bytes.Equal(c.ids[direction], p.scid)) {
			return c
		}
	}
	return nil
}

// speaks reports whether there are keys of a version.
func (c *connection) speaks(version uint32) bool {
	return slices.ContainsFunc(c.keys, func(k *keySet) bool { return k.version == version })
}

// connect begins a connection whose client sends in direction.
func (s *Session) connect(direction uint8) *connection {
	if len(s.connections) == maxConnections {
		s.remove(s.connections[0])
		s.d.stats.Evicted++
	}
	c := &connection{number: s.count, client: direction}
	s.count++
	s.d.stats.Connections++
	s.d.keyed++
	s.connections = append(s.connections, c)
	return c
}

func (s *Session) remove(c *connection) {
	s.d.release(c)
	s.connections = slices.DeleteFunc(s.connections, func(o *connection) bool { return o == c })
}

// beganWith reports whether id is a Destination Connection ID of the client's
// first Initials.
func (c *connection) beganWith(id []byte) bool {
	return slices.ContainsFunc(c.keys, func(k *keySet) bool { return bytes.Equal(k.dcid, id) })
}

func (c *connection) addKeys(k *keySet) {
	if len(c.keys) == maxKeySets {
		c.keys = slices.Delete(c.keys, 0, 1)
	}
	c.keys = append(c.keys, k)
}

// retryPacket reads a Retry packet and returns the connection that it is for.
func (s *Session) retryPacket(direction uint8, p *packet) *connection {
	for _, c := range slices.Backward(s.connections) {
		if c.client == direction || c.ids[direction] != nil {
			continue
		}
		for _, k := range slices.Backward(c.keys) {
			if k.version != p.version {
				continue
			}
			if tag := k.scheme.retry; tag != nil && tag.signed(p.bytes, k.dcid) ||
				tag == nil && bytes.Equal(p.dcid, c.ids[c.client]) {
				c.retry = append([]byte{}, p.scid...)
				return c
			}
		}
	}
	return nil
}

// handshake reads a Handshake packet and returns its connection when it could
// be opened.
func (s *Session) handshake(r *Result, direction uint8, p *packet) *connection {
	if p.cut {
		s.d.stats.Cut++
		return nil
	}
	c, tried := s.openHandshake(r, direction, p)
	if c == nil {
		if tried {
			s.unopened(r, direction)
		}
		if s.d.Wait {
			s.wait(r, direction, Handshake, p)
		}
	}
	return c
}

// openHandshake reads a Handshake packet with the secrets that are there, and
// reports whether there were any.
func (s *Session) openHandshake(r *Result, direction uint8, p *packet) (c *connection, tried bool) {
	for _, c := range slices.Backward(s.connections) {
		secret := c.secrets[direction]
		if secret == nil {
			continue
		}
		tried = true
		if o := c.openers[direction]; o != nil {
			if frames, ok := s.d.scratch.open(o, p); ok {
				return s.opened(r, c, direction, Handshake, p, frames), true
			}
			continue
		}
		if s.trials >= maxTrials {
			continue
		}
		// The secret does not say which suite it is for; the first packet does.
		for _, suite := range tls13.Suites(0, len(secret)) {
			o := newOpener(suite, secret, schemesOf(p.version)[0].labels)
			if o == nil {
				continue
			}
			if frames, ok := s.d.scratch.open(o, p); ok {
				c.openers[direction] = o
				return s.opened(r, c, direction, Handshake, p, frames), true
			}
		}
		s.trials++
	}
	return nil, tried
}

func (s *Session) unopened(r *Result, direction uint8) {
	s.d.stats.Unopened++
	r.Unopened[direction] = true
}

// Forget gives up the packets that wait.
func (s *Session) Forget() {
	s.d.waits -= s.waits
	s.waiting, s.waits = nil, 0
}

// wait keeps a packet until there are other keys.
func (s *Session) wait(r *Result, direction uint8, level Level, p *packet) {
	n, most := len(p.bytes), maxWaiting
	if level == Initial {
		most = maxWaitingInitials
	}
	count := 0
	for _, w := range s.waiting {
		if w.level == level {
			count++
		}
	}
	if count >= most || s.waits+n > maxWaitingBytes {
		s.limited(r, direction)
		return
	}
	s.waits += n
	s.d.waits += n
	s.waiting = append(s.waiting, waiting{direction, level, s.Mark, bytes.Clone(p.bytes)})
}

// replay reads the waiting packets with the keys that are there now.
func (s *Session) replay(r *Result) {
	list, mark := s.waiting, s.Mark
	s.waiting = nil
	defer func() { s.Mark = mark }()
	for _, w := range list {
		p, _, _ := next(w.bytes)
		s.Mark = w.mark
		var c *connection
		if w.level == Initial {
			c = s.openInitial(r, w.direction, &p)
		} else {
			var tried bool
			if c, tried = s.openHandshake(r, w.direction, &p); c == nil && tried {
				s.unopened(r, w.direction)
			}
		}
		if c == nil {
			s.waiting = append(s.waiting, w)
		} else {
			s.waits -= len(w.bytes)
			s.d.waits -= len(w.bytes)
		}
	}
}

func (s *Session) limited(r *Result, direction uint8) {
	s.d.stats.Limited++
	r.Limited[direction] = true
}

// opened reads the frames of a packet of c and returns the connection that c
// turns out to be.
func (s *Session) opened(r *Result, c *connection, direction uint8, level Level, p *packet, frames []byte) *connection {
	window := uint64(maxInitialStream)
	if level == Initial {
		s.d.stats.Initials++
	} else {
		s.d.stats.Handshakes++
		window = maxHandshakeStream
	}
	if !bytes.Equal(c.ids[direction], p.scid) || c.ids[direction] == nil {
		c.ids[direction] = append([]byte{}, p.scid...)
	}
	t := &c.streams[level][direction]
	crypto := schemesOf(p.version)[0].crypto
	limited := false
	for {
		f, rest, ok := nextFrame(frames, crypto)
		if !ok {
			break
		}
		frames = rest
		switch f.typ {
		case frameCrypto:
			limited = !t.place(s.d, f.offset, f.data, window) || limited
		case frameClose, frameCloseApplication:
			r.Closed, r.Code = true, f.code
		}
	}
	for {
		first := t.Floor() == 0
		m, ok := t.message(s.d, window)
		if !ok {
			break
		}
		if first && m.Type == tls.TypeClientHello && direction == c.client {
			if same := s.again(c, &m); same != nil {
				r.Retry = true
				return same
			}
		}
		s.messages = append(s.messages, Message{m, c.number, direction, level, s.Mark})
	}
	if !t.settle(s.d) || limited {
		s.limited(r, direction)
	}
	return c
}

// again reports whether a connection's first ClientHello is that of an earlier
// one: then its client obeys a Retry that was not seen, or the datagram is one
// from before the Retry. The earlier connection goes on with the keys of both.
func (s *Session) again(c *connection, m *tls.Message) *connection {
	h, ok := tls.ParseClientHello(m.Head, false)
	if !ok {
		return nil
	}
	for _, o := range s.connections {
		if o != c && o.client == c.client && bytes.Equal(o.random, h.Random) {
			for _, k := range c.keys {
				o.addKeys(k)
			}
			s.remove(c)
			return o
		}
	}
	c.random = bytes.Clone(h.Random)
	return nil
}
