package parsers

import (
	"container/list"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/record"
	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/parsers/tls13"
)

// waiting is a flow that waits for secrets.
type waiting struct {
	conn  *Conn
	since int64 // flow time
	entry *list.Element
	ended bool       // [Conn.Close] was called
	cause event.Loss // that Close was given
}

// SetKeys gives p the secrets that decrypt handshakes of TLS 1.3, before the first
// packet. Others may be added to the store later, but those of a handshake must be
// in it when its first encrypted packet comes: see [Parser.WaitForKeys].
func (p *Parser) SetKeys(store *keylog.Store) {
	p.keys = store
	p.datagrams.Keys = store != nil
}

// WaitForKeys lets secrets come later than the packets. It is called after SetKeys,
// before the first packet. Encrypted packets without a secret are held for up to ten
// seconds of packet time, within [Limits].Sealed.
func (p *Parser) WaitForKeys() { p.wait = true }

// Decrypts reports whether handshakes may be decrypted: p has a store, and there are
// secrets in it or p waits for them. Any goroutine may call it, once the store is set.
func (p *Parser) Decrypts() bool { return p.keys != nil && (p.wait || p.keys.Added() > 0) }

// protect prepares the decryption of direction d, if there is a secret for it or one
// may come. It reports whether it has.
func (c *Conn) protect(d event.Direction, at event.Moment) bool {
	if c.replaces || !c.p.Decrypts() || !c.hs.Decryptable() {
		return false
	}
	c.stream.Protect()
	v := c.stream.Direction(d).Protection()
	v.Client, v.EarlyData = d == c.hs.Client(), c.hs.EarlyData()
	if v.Keyed || v.Waits() || c.lookupSecret(d, v) {
		return true
	}
	if !c.p.wait {
		return false
	}
	if v.Client {
		v.Wait(record.MaxHeldClient)
	} else {
		v.Wait(record.MaxHeldServer)
	}
	c.enqueue(at)
	return true
}

// lookupSecret gives v the secret of direction d, and reports whether there is one.
func (c *Conn) lookupSecret(d event.Direction, v *record.Protection) bool {
	known := c.p.keys.Secrets(c.hs.Random())
	secret := known.Server
	if d == c.hs.Client() {
		secret = known.Client
	}
	if secret == nil {
		return false
	}
	suite, version := c.hs.Selected()
	switch {
	case c.quic != nil:
		v.Keyed = true
	case c.dtls():
		v.Datagrams = tls13.NewDatagrams(secret, suite)
		v.Keyed = v.Datagrams != nil
	default:
		v.Stream = tls13.NewStream(secret, suite, version)
		v.Keyed = v.Stream != nil
	}
	if v.Keyed {
		c.hs.Opened = &event.Opened{Random: *c.hs.Random(), Client: known.Client, Server: known.Server}
	}
	return v.Keyed
}

// crowded reports whether more waits for secrets than the limits allow.
func (p *Parser) crowded() bool {
	return p.waiting.Len() > 0 && (p.records.Waiting > p.limits.Sealed || p.waiting.Len() > maxWaiting)
}

// evictWaiting evicts the flows that have waited longest, until the limits are kept.
func (p *Parser) evictWaiting() {
	for p.crowded() {
		p.stats.SealedLimit++
		p.retry(p.waiting.Front().Value.(*waiting), true)
	}
}

// enqueue puts c into the list of flows that wait.
func (c *Conn) enqueue(at event.Moment) {
	if c.waiting == nil {
		since := c.p.now
		if since == 0 {
			since = at.Time
		}
		c.waiting = &waiting{conn: c, since: since}
		c.waiting.entry = c.p.waiting.PushBack(c.waiting)
	}
}

// Tick decrypts what waits for secrets that have come, and gives up what has waited
// too long. Handshakes of flows that were closed meanwhile are emitted then, and those
// that [Parser.Prompt] is about. now is flow time, in nanoseconds, which a jump of the
// clock does not move. Before the first Tick, the parser takes the times of packets
// for it.
func (p *Parser) Tick(now int64) {
	p.now = now
	p.retryWaiting(now)
	p.tellUnended(now)
}

// retryWaiting does what Tick does for those that wait for secrets.
func (p *Parser) retryWaiting(now int64) {
	if p.waiting.Len() == 0 {
		return
	}
	added := p.keys.Added()
	fresh := added != p.added
	p.added = added
	for e := p.waiting.Front(); e != nil; {
		w := e.Value.(*waiting)
		late := now-w.since >= maxWaitingTime
		if !fresh && !late {
			return
		}
		e = e.Next()
		p.retry(w, late)
	}
}

// Flush gives up all that waits for secrets, at the end of a capture, when all flows
// are closed.
func (p *Parser) Flush() {
	for p.waiting.Len() > 0 {
		p.retry(p.waiting.Front().Value.(*waiting), true)
	}
	p.now = 0
}

// retry decrypts what w has held, with the secrets that have come. When both
// directions have theirs, or last says that no more will come, w waits no longer.
func (p *Parser) retry(w *waiting, last bool) {
	c := w.conn
	root := c.root()
	defer func() { // a Conn that has ended has no parser, and nothing to enter
		if root.p != nil {
			root.enter(root.sender)
		}
	}()
	left := false
	for d := range event.Direction(2) {
		h := c.stream.Direction(d)
		v := h.Protection()
		switch {
		case !v.Waits():
		case c.lookupSecret(d, v):
			c.replayBuffered(d)
		case last:
			h.EndProtection()
		default:
			left = true
		}
	}
	if left || c.waiting == nil { // nil: what was decrypted has ended the handshake
		c.list()
		return
	}
	p.waiting.Remove(w.entry)
	c.waiting = nil
	switch {
	case w.ended && c.done:
		c.finish(event.NoLoss)
		c.end(w.cause)
	case w.ended:
		c.end(w.cause)
	case c.done:
		c.finish(event.NoLoss)
	default:
		c.conclude()
	}
}

// replayBuffered reads what was held of direction d, whose secret is known now.
func (c *Conn) replayBuffered(d event.Direction) {
	switch {
	case c.quic != nil:
		c.quicSecrets()
	case c.datagrams != nil:
		c.datagrams.ReplayBuffered(d)
	default:
		c.stream.Direction(d).ReplayBuffered(nil)
	}
}

// countKeys counts what the keys have done for a handshake that is over. opened says
// in which directions something was decrypted.
func (c *Conn) countKeys(opened [2]bool) {
	if !c.stream.Protected() {
		return
	}
	if opened[0] || opened[1] {
		c.p.stats.Decrypted++
	}
	for d := range event.Direction(2) {
		if c.stream.Direction(d).Protection().Failed && !opened[d] {
			c.p.stats.WrongSecrets++
		}
	}
}

// forgetSecrets drops the secrets and the encrypted part of a handshake that is over.
func (c *Conn) forgetSecrets() {
	if !c.stream.Protected() {
		return
	}
	if c.quic != nil {
		c.quic.session.Forget()
	}
	c.stream.ResetProtection()
	if w := c.waiting; w != nil && !w.ended {
		c.p.waiting.Remove(w.entry)
		c.waiting = nil
	}
}
