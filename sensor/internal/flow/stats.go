package flow

// Stats counts what a tracker has seen, and everything that it gave up.
type Stats struct {
	Flows     uint64 `json:"total"`     // seen
	Embryonic uint64 `json:"embryonic"` // ended with a SYN and no payload
	Undecided uint64 `json:"undecided"` // ended before they were decided
	Decided   uint64 `json:"decided"`   // ended or go on decided: their handshake is over, or they are not TLS
	Open      uint64 `json:"open"`      // in the table now
	Expired   uint64 `json:"expired"`   // undecided and silent for the timeout

	EvictedUndecided uint64 `json:"evicted_undecided"` // evicted from a full table before they were decided
	EvictedDecided   uint64 `json:"evicted_decided"`   // the same, after; harmless
	EvictedEmbryonic uint64 `json:"evicted_embryonic"` // the same, with only a SYN seen
	Resets           uint64 `json:"resets"`            // ended by RST

	Retransmitted uint64      `json:"retransmitted"`   // segments with bytes that were delivered before
	OutOfOrder    uint64      `json:"out_of_order"`    // segments held
	Overlapping   uint64      `json:"overlapping"`     // held segments that overlapped others
	Untried       uint64      `json:"untried"`         // contradictions and urgent bytes where only the first reading was parsed
	Untold        uint64      `json:"untold"`          // flows whose transcript was given up because there was no room: retransmissions are not compared
	Unkept        uint64      `json:"unkept"`          // segments that should have been kept aside, when there was no room
	Unverified    uint64      `json:"unverified"`      // segments accepted with a bad checksum, since their sender has sent no good one
	Superseded    uint64      `json:"superseded"`      // flows evicted because others on their five-tuple went on
	Gaps          uint64      `json:"gaps"`            // holes given up
	GapBytes      uint64      `json:"gap_bytes"`       // their length
	CutBytes      uint64      `json:"cut_bytes"`       // payload that the snaplen cut off
	Padding       uint64      `json:"padding"`         // bare acknowledgements with padding for a payload
	HeldLimit     uint64      `json:"held_limit"`      // holes given up because too much was held
	Forged        ForgedStats `json:"forged"`          // packets that an endpoint ignores
	Panics        uint64      `json:"parser_failures"` // flows given up because a parser failed on them, and failures to match or encode a handshake
}

// Add adds o to s.
func (s *Stats) Add(o Stats) {
	s.Flows += o.Flows
	s.Embryonic += o.Embryonic
	s.Undecided += o.Undecided
	s.Decided += o.Decided
	s.Open += o.Open
	s.Expired += o.Expired
	s.EvictedUndecided += o.EvictedUndecided
	s.EvictedDecided += o.EvictedDecided
	s.EvictedEmbryonic += o.EvictedEmbryonic
	s.Resets += o.Resets
	s.Retransmitted += o.Retransmitted
	s.OutOfOrder += o.OutOfOrder
	s.Overlapping += o.Overlapping
	s.Untried += o.Untried
	s.Untold += o.Untold
	s.Unkept += o.Unkept
	s.Unverified += o.Unverified
	s.Superseded += o.Superseded
	s.Forged.Add(o.Forged)
	s.Gaps += o.Gaps
	s.GapBytes += o.GapBytes
	s.CutBytes += o.CutBytes
	s.Padding += o.Padding
	s.HeldLimit += o.HeldLimit
	s.Panics += o.Panics
}
