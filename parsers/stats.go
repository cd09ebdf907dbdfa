package parsers

import "github.com/oddcert/oddcert/parsers/event"

// Stats counts what a parser has seen and lost: packets, flows, directions and
// sessions, never bytes.
type Stats struct {
	Handshakes uint64                 `json:"handshakes"` // the sum of Outcomes
	Outcomes   [event.Outcomes]uint64 `json:"-"`
	Losses     [event.Losses]uint64   `json:"-"`          // by cause; their sum is Outcomes[Lost]
	Opaque     uint64                 `json:"opaque"`     // control channels of OpenVPN that are encrypted as a whole
	Monologues uint64                 `json:"monologues"` // flows given up because one direction said a lot that was not TLS, and the other said nothing

	BlindQUIC    uint64 `json:"quic_blind"`    // Initial packets that could not be decrypted: the first one of the client was not captured
	CutQUIC      uint64 `json:"quic_cut"`      // Initial and Handshake packets that are not complete in their datagram
	LimitedQUIC  uint64 `json:"quic_limit"`    // pieces of CRYPTO data, and packets that waited for keys, that were dropped because of a limit
	UnopenedQUIC uint64 `json:"quic_unopened"` // Handshake packets that the secrets did not decrypt

	Decrypted    uint64 `json:"decrypted"`     // handshakes of which one or both directions were decrypted with keys
	WrongSecrets uint64 `json:"wrong_secrets"` // directions of handshakes that the secret from the key log did not decrypt
	SealedLimit  uint64 `json:"sealed_limit"`  // directions that waited for secrets, or were decrypted, and were given up because of a limit

	EvictedStreams     uint64 `json:"evicted_streams"`          // flows of TCP with unfinished messages that were evicted because all flows together held too much
	EvictedDatagrams   uint64 `json:"evicted_datagrams"`        // the same, of DTLS
	EvictedQUIC        uint64 `json:"evicted_quic"`             // the same, of QUIC
	EvictedConnections uint64 `json:"evicted_quic_connections"` // connections of QUIC that were evicted for newer ones of their flow
	EvictedSessions    uint64 `json:"evicted_sessions"`         // the same, of flows that carry several sessions; and sessions that were evicted for newer ones of their flow

	CarvingLimit uint64 `json:"carving_limit"` // directions with a gap, in which the search for certificates ended at a limit
	ChainLimit   uint64 `json:"chain_limit"`   // messages with more certificates, or names of authorities, than are kept
	PacketLimit  uint64 `json:"packet_limit"`  // flows of packets that were given up because many packets did not belong to a handshake
}

// Add adds o to s.
func (s *Stats) Add(o Stats) {
	s.Handshakes += o.Handshakes
	s.Opaque += o.Opaque
	s.Monologues += o.Monologues
	s.BlindQUIC += o.BlindQUIC
	s.CutQUIC += o.CutQUIC
	s.LimitedQUIC += o.LimitedQUIC
	s.UnopenedQUIC += o.UnopenedQUIC
	s.Decrypted += o.Decrypted
	s.WrongSecrets += o.WrongSecrets
	s.SealedLimit += o.SealedLimit
	s.EvictedStreams += o.EvictedStreams
	s.EvictedDatagrams += o.EvictedDatagrams
	s.EvictedQUIC += o.EvictedQUIC
	s.EvictedConnections += o.EvictedConnections
	s.EvictedSessions += o.EvictedSessions
	s.CarvingLimit += o.CarvingLimit
	s.ChainLimit += o.ChainLimit
	s.PacketLimit += o.PacketLimit
	for i, n := range o.Outcomes {
		s.Outcomes[i] += n
	}
	for i, n := range o.Losses {
		s.Losses[i] += n
	}
}

// Stats returns the counters so far.
func (p *Parser) Stats() Stats {
	s, quic := p.stats, p.quic.Stats()
	s.SealedLimit += p.records.Limited
	s.CarvingLimit = p.records.CarvingLimited
	s.ChainLimit = p.records.ChainLimited + p.handshakes.Limited
	s.BlindQUIC, s.CutQUIC, s.LimitedQUIC = quic.Blind, quic.Cut, quic.Limited
	s.UnopenedQUIC, s.EvictedConnections = quic.Unopened, quic.Evicted
	return s
}
