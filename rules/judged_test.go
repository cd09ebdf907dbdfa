package rules

import (
	"strconv"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// judge counts what it is asked.
type judge struct {
	judgement.Judgement
	pending                                      bool
	trust, keyProof, places, transparency, shape int
}

func (j *judge) Trust(*event.Handshake) (*judgement.Trust, bool) {
	j.trust++
	return j.Judgement.Trust, j.pending
}
func (j *judge) KeyProof(*event.Handshake) (*judgement.KeyProof, bool) {
	j.keyProof++
	return j.Judgement.KeyProof, j.pending
}
func (j *judge) Places(*event.Handshake) (c, s *judgement.Place, d judgement.Direction) {
	j.places++
	return j.Client, j.Server, j.Direction
}
func (j *judge) Transparency(*event.Handshake) *judgement.Transparency {
	j.transparency++
	return j.Judgement.Transparency
}
func (j *judge) Shape(*event.Handshake) *judgement.Shape { j.shape++; return j.Judgement.Shape }

// A judge is asked only where the other conditions of a rule hold, wherever these
// stand, and only once for a handshake.
func TestJudgedLast(t *testing.T) {
	for _, c := range []struct {
		detection string
		asked     int // for the trust of a handshake of the sample
		hits      int
	}{
		{"a:\n  oddcert.trust.status: expired\n  server.port: 1\ncondition: a", 0, 0},
		{"a:\n  oddcert.trust.status: expired\nb:\n  server.port: 1\ncondition: a and b", 0, 0},
		{"a:\n  oddcert.trust.status: expired\nb:\n  server.port: 443\ncondition: a or b", 1, 1}, // it is asked to explain the match
		{"a:\n  oddcert.trust.status: expired\nb:\n  server.port: 443\ncondition: a and b", 1, 1},
		{"a:\n  oddcert.trust.status: trusted\nb:\n  oddcert.trust.store: microsoft\ncondition: not a and b", 1, 1},
		{"a:\n  oddcert.trust.status: trusted\n  oddcert.trust.store: microsoft\ncondition: a", 1, 0},
		{"a:\n  oddcert.trust.status|neq: trusted\ncondition: a", 1, 1},
	} {
		s := mustLoad(t, map[string]string{"r.yml": rule(c.detection)})
		who := &judge{Judgement: *sampleJudgement()}
		var j judgement.Judgement
		got := s.NewMatcher(who).Match(sample(), &j, nil)
		if len(got) != c.hits || who.trust != c.asked || j.Pending {
			t.Errorf("%s: %d matches, asked %d times, pending %v", c.detection, len(got), who.trust, j.Pending)
		}
		if (j.Trust != nil) != (c.asked > 0) {
			t.Errorf("%s: the judgement does not have what was asked, and that alone", c.detection)
		}
		if who.keyProof+who.places+who.transparency+who.shape > 0 {
			t.Errorf("%s: asked for more than trust", c.detection)
		}
	}
}

// What only the stage with the handshakes in order knows is pending elsewhere, and
// has no value without a judge.
func TestPending(t *testing.T) {
	many := mustLoad(t, map[string]string{"r.yml": rule("a:\n  oddcert.prevalence.servers|gte: 5\n  server.port: 443\ncondition: a")})
	var j judgement.Judgement
	if got := many.NewMatcher(&judge{}).Match(sample(), &j, nil); len(got) != 0 || !j.Pending {
		t.Error("the number of servers is known without an order")
	}
	other := sample()
	other.Flow.Endpoints[other.Client.Other()].Port = 444
	j = judgement.Judgement{}
	if many.NewMatcher(&judge{}).Match(other, &j, nil); j.Pending {
		t.Error("pending, though the port decides")
	}
	j = judgement.Judgement{Memory: &judgement.Memory{Servers: 5}}
	if got := many.NewMatcher(&judge{}).Match(sample(), &j, nil); len(got) != 1 || j.Pending {
		t.Error("five servers are not five")
	}
	j = judgement.Judgement{}
	if got := many.NewMatcher(nil).Match(sample(), &j, nil); len(got) != 0 || j.Pending {
		t.Error("pending, though there is nobody to ask")
	}

	trust := mustLoad(t, map[string]string{"r.yml": rule("a:\n  oddcert.trust.status: trusted\ncondition: not a")})
	j = judgement.Judgement{}
	if trust.NewMatcher(&judge{pending: true}).Match(sample(), &j, nil); !j.Pending || j.Trust != nil {
		t.Error("a chain without its issuer is final")
	}
}

// another is a rule with another id.
func another(n int, detection string) string {
	return strings.Replace(rule(detection), "11111111-", "1111111"+strconv.Itoa(n)+"-", 1)
}

// A rule that asks for nothing but what is judged from time to time, or what most
// handshakes lack, costs the others nothing.
func TestToldNotAsked(t *testing.T) {
	s := mustLoad(t, map[string]string{"r.yml": rule("a:\n  oddcert.key_proof: mismatch\ncondition: a"),
		"s.yml": another(2, "a:\n  oddcert.flagged.verdict|exists: true\ncondition: a"), "t.yml": another(3, "a:\n  oddcert.server.openvpn|exists: true\ncondition: a")})
	who := &judge{Judgement: *sampleJudgement()}
	m := s.NewMatcher(who)
	var j judgement.Judgement
	if got := m.Match(sample(), &j, nil); len(got) != 0 || who.keyProof > 0 || j.Pending {
		t.Errorf("%d matches, asked %d times", len(got), who.keyProof)
	}
	j = judgement.Judgement{KeyProof: who.Judgement.KeyProof, Memory: who.Memory}
	if got := m.Match(sample(), &j, nil); len(got) != 3 || who.keyProof > 0 {
		t.Errorf("%d matches of what was told, asked %d times", len(got), who.keyProof)
	}
	empty := &event.Handshake{Chain: []event.ChainEntry{{Certificate: &cert.Certificate{}}}}
	if got := m.Match(empty, &judgement.Judgement{}, nil); len(got) != 0 {
		t.Error("matches of nothing")
	}
}
