package parsers

// session is one of the TLS conversations that share a flow. Each has a Conn of
// its own, in which it is a stream.
type session struct {
	conn *Conn
	vpn  vpn
	eap  eapState
}

// sessions are those of one flow, the oldest first.
type sessions []*session

// openSession begins one more session of the flow of c, carried by carrier. The
// oldest gives way when there are too many.
func (p *Parser) openSession(c *Conn, carrier string) *session {
	if len(c.sessions) == maxSessions {
		p.closeSession(c.sessions[0], Evicted)
		c.sessions = c.sessions[:copy(c.sessions, c.sessions[1:])]
	}
	s := &session{conn: p.Open(c.flow)}
	s.conn.parent, s.conn.within = c, carrier
	c.sessions = append(c.sessions, s)
	return s
}

// closeSession ends a session with what is there of it.
func (p *Parser) closeSession(s *session, cause Loss) {
	p.drainVPN(s)
	p.Close(s.conn, cause)
}

// closeSessions ends all sessions of a flow.
func (p *Parser) closeSessions(c *Conn, cause Loss) {
	for _, s := range c.sessions {
		p.closeSession(s, cause)
	}
	c.sessions = nil
}
