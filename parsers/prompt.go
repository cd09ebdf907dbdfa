package parsers

import "github.com/oddcert/oddcert/parsers/event"

// unended is a handshake whose server has shown its certificate, and that is not over:
// see [Parser.Prompt].
type unended struct {
	conn    *Conn
	shownAt int64        // flow time at which the certificate was seen
	listed  bool         // it is in the parser's list: it may be over soon, and nothing is said yet
	before  *unended     // in that list, the oldest first
	after   *unended     // the same; else the next in the list of spare ones
	notes   *event.Notes // of what was emitted of it; nil without that
	index   int          // the same
}

// Prompt has the parser emit, at a [Parser.Tick], what was seen of a handshake whose
// server has shown its certificate 0.5 s of flow time ago, and that is not over, with
// [event.Handshake].Unfinished set. When the handshake is over, it is emitted like any
// other, so that nothing is lost of what comes late: a client's certificate, an alert.
// Prompt is called before the first packet.
func (p *Parser) Prompt() { p.prompt = true }

// list puts c into the parser's list when the server has shown its certificate, and
// the handshake is not over.
func (c *Conn) list() {
	p := c.p
	if !p.prompt || c.unended != nil || !c.hs.Shown() {
		return
	}
	u := p.spareUnended
	if u == nil {
		u = new(unended)
	} else {
		p.spareUnended = u.after
	}
	*u = unended{conn: c, shownAt: p.now, listed: true, before: p.lastUnended}
	if p.now == 0 {
		u.shownAt = c.hs.End.Time
	}
	if u.before != nil {
		u.before.after = u
	} else {
		p.firstUnended = u
	}
	c.unended, p.lastUnended = u, u
}

// unlist takes u out of the list, if it is there.
func (p *Parser) unlist(u *unended) {
	if !u.listed {
		return
	}
	if u.before != nil {
		u.before.after = u.after
	} else {
		p.firstUnended = u.after
	}
	if u.after != nil {
		u.after.before = u.before
	} else {
		p.lastUnended = u.before
	}
	u.listed, u.before, u.after = false, nil, nil
}

// dropUnended is called when the handshake of c is over.
func (c *Conn) dropUnended() {
	if u := c.unended; u != nil {
		c.p.unlist(u)
		*u = unended{after: c.p.spareUnended}
		c.p.spareUnended, c.unended = u, nil
	}
}

// tellUnended emits what was seen of the handshakes that are not over, and whose
// certificates have waited too long.
func (p *Parser) tellUnended(now int64) {
	for u := p.firstUnended; u != nil && now-u.shownAt >= maxUntold; u = p.firstUnended {
		p.unlist(u)
		u.conn.tell(u)
	}
}

// tell emits what was seen of the handshake u of c. What an alternative says is of
// interest only where that is another certificate.
func (c *Conn) tell(u *unended) {
	leaf := c.hs.Leaf()
	if c.replaces && (c.other != nil && c.other.hs.Leaf() == leaf || c.second && c.leaf == leaf) {
		return
	}
	root, e := c.root(), c.ending(event.NoLoss)
	h := c.hs.Snapshot(&e)
	u.notes, u.index = new(event.Notes), root.nextIndex()
	h.Unfinished, h.Notes, h.Index = true, u.notes, u.index
	h.Forged, h.Alternative = root.forged, c.replaces
	root.enter(root.sender) // a snapshot may add to what is kept
	c.p.emit(h.Handshake)
}
