package parsers

import (
	"slices"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/demux"
)

// session is one of several TLS conversations of a flow. Each has a Conn of its own,
// which reads it as a stream.
type session struct {
	conn   *Conn
	pieces [2]demux.Pieces // by direction, of OpenVPN and of Remote Desktop
	vpn    vpn
	radius radiusState
	eap    demux.EAP
}

// inner is the Conn of a session as package demux sees it: a [demux.Stream].
type inner Conn

func (s *inner) Segment(d event.Direction, at event.Moment, b []byte) { (*Conn)(s).take(d, at, b) }

func (s *inner) Gap(d event.Direction, at event.Moment, n int) { (*Conn)(s).gap(d, at, n) }

// sessions are those of one flow, the oldest first.
type sessions []*session

// openSession begins one more session of the flow of c. It evicts the oldest if there
// are too many.
func (c *Conn) openSession(within carrier.Carrier) *session {
	if c.sessions == nil {
		c.sessions = new(sessions)
	}
	l := *c.sessions
	if len(l) == maxSessions {
		c.p.stats.EvictedSessions++
		c.closeSession(l[0], event.Evicted)
		l = l[:copy(l, l[1:])]
	}
	s := &session{conn: c.p.newConn(&c.flow)}
	s.conn.account.Charge(sessionCost)
	s.conn.parent, s.conn.within = c, within
	*c.sessions = append(l, s)
	return s
}

// find returns the youngest session of c for which is returns true; nil without one.
func (c *Conn) find(is func(*session) bool) *session {
	if c.sessions != nil {
		for _, s := range slices.Backward(*c.sessions) {
			if is(s) {
				return s
			}
		}
	}
	return nil
}

// closeSession ends a session, and reads the pieces of it that still waited for others.
func (c *Conn) closeSession(s *session, cause event.Loss) {
	for d := range event.Direction(2) {
		s.pieces[d].Drain(&c.p.records.Pool, (*inner)(s.conn), d)
	}
	s.conn.Close(cause)
}

// closeSessions ends all sessions of a flow.
func (c *Conn) closeSessions(cause event.Loss) {
	if c.sessions == nil {
		return
	}
	for _, s := range *c.sessions {
		c.closeSession(s, cause)
	}
	c.sessions = nil
}
