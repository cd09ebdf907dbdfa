package traffic

import "time"

// NewNames is the specification of the traffic that a busy sensor sees, for the
// size of its records.
const NewNames = "new-names"

// named holds the specifications at their full size.
var named = map[string]func() Spec{
	// Few flows, long transfers: 1.06 GB.
	"bulk": func() Spec {
		return Spec{Certificates: 200, Planted: 4, Concurrent: 64, MSS: []int{1448}, Shares: downloads(2_440_000,
			Share{Kind: TLS12ECDHE, Flows: 100}, Share{Kind: TLS12ECDSA, Flows: 100},
			Share{Kind: TLS13, Flows: 100}, Share{Kind: TLS13Hybrid, Flows: 100})}
	},
	// Many short flows: 0.93 GB.
	"handshakes": func() Spec {
		return Spec{Certificates: 2000, Planted: 16, Concurrent: 1000, Shares: []Share{
			{Kind: TLS12ECDHE, Flows: 24000}, {Kind: TLS12ECDSA, Flows: 24000}, {Kind: TLS12RSA, Flows: 4000},
			{Kind: TLS12Mutual, Flows: 2000}, {Kind: TLS12Resumed, Flows: 6000},
			{Kind: TLS13, Flows: 24000}, {Kind: TLS13Hybrid, Flows: 24000}, {Kind: TLS13Retry, Flows: 4000},
			{Kind: TLS13Resumed, Flows: 8000}}}
	},
	// Handshakes of which a tenth has a name, and a certificate, that was not seen
	// before.
	NewNames: func() Spec {
		return Spec{Certificates: 1200, Planted: 2, Concurrent: 1000, Shares: []Share{
			{Kind: TLS12ECDHE, Flows: 1500}, {Kind: TLS12ECDSA, Flows: 1500}, {Kind: TLS12Resumed, Flows: 1000},
			{Kind: TLS13, Flows: 3000}, {Kind: TLS13Hybrid, Flows: 3500}, {Kind: TLS13Resumed, Flows: 1500}}}
	},
	// What a link carries: TLS, HTTP, DNS and datagrams in bulk: 1.26 GB.
	"mix": func() Spec {
		return Spec{Certificates: 1000, Planted: 16, Concurrent: 1000, Shares: []Share{
			{Kind: TLS12ECDHE, Flows: 3000, Download: 30_000}, {Kind: TLS12ECDSA, Flows: 2500, Download: 30_000},
			{Kind: TLS12Resumed, Flows: 500, Download: 30_000},
			{Kind: TLS13, Flows: 3000, Download: 30_000}, {Kind: TLS13Hybrid, Flows: 3000, Download: 30_000},
			{Kind: HTTP, Flows: 3000, Download: 160_000}, {Kind: UDP, Flows: 200, Download: 1_000_000},
			{Kind: DNS, Flows: 50_000}}}
	},
	// Everything that a network does to handshakes, once.
	"truth": func() Spec {
		return Spec{Certificates: 1000, Planted: 40, Concurrent: 300, Shares: truthful(), MSS: sizes,
			IPv6: 0.2, VLAN: 0.15, QinQ: 0.05, Twin: 0.02, OneWay: 0.02, MidStream: 0.02, Reused: 0.02, Lossy: 0.01,
			Impairment: Impairment{Duplicate: 0.03, Reorder: 0.05, Overlap: 0.03, Conflict: 0.01}}
	},
	// Handshakes as they should be.
	"clean": func() Spec {
		return Spec{Certificates: 1000, Planted: 40, Concurrent: 300, Shares: truthful(), MSS: sizes, IPv6: 0.2, VLAN: 0.15, QinQ: 0.05}
	},
	// All flows undecided at once: hellos that come in crumbs, seconds apart.
	"undecided": func() Spec {
		return Spec{Certificates: 200, Concurrent: 20_000, Pace: 50 * time.Millisecond, MSS: []int{24},
			Shares: []Share{{Kind: TLS13, Flows: 20_000}}}
	},
	"tiny": func() Spec {
		return Spec{Certificates: 500, Planted: 8, Concurrent: 500, MSS: []int{1, 2, 7, 16, 40}, Shares: scaled(truthful(), 0.2)}
	},
	"disorder": func() Spec {
		return Spec{Certificates: 1000, Planted: 8, Concurrent: 1000, Shares: scaled(truthful(), 2),
			Impairment: Impairment{Reorder: 1, Depth: 12}}
	},
	// Chains of 100 KB.
	"chains": func() Spec {
		return Spec{Certificates: 20, Concurrent: 200, Shares: []Share{{Kind: TLS12Huge, Flows: 1000}}}
	},
	// Random datagrams.
	"datagrams": func() Spec {
		return Spec{Concurrent: 5000, Shares: []Share{{Kind: UDP, Flows: 40_000, Download: 10_000}}}
	},
	// A flood of ClientHellos that nobody answers, and real handshakes in it.
	"hellos": func() Spec {
		return Spec{Certificates: 1000, Planted: 8, Concurrent: 5000,
			Shares: []Share{{Kind: Unanswered, Flows: 300_000}, {Kind: TLS12ECDSA, Flows: 3000}}}
	},
	// A flood of SYNs, and real handshakes in it.
	"syns": func() Spec {
		return Spec{Certificates: 500, Planted: 8, Concurrent: 1000,
			Shares: []Share{{Kind: SYN, Flows: 1_000_000}, {Kind: TLS12ECDSA, Flows: 3000}}}
	},
}

// sizes are the segments of all sorts of links.
var sizes = []int{1448, 1448, 1448, 1440, 1388, 1208, 524, 8948}

// truthful are 10,000 flows of every kind of TLS.
func truthful() []Share {
	return []Share{
		{Kind: TLS10, Flows: 200}, {Kind: TLS11, Flows: 200}, {Kind: TLS12RSA, Flows: 700},
		{Kind: TLS12ECDHE, Flows: 1600}, {Kind: TLS12ECDSA, Flows: 1600}, {Kind: TLS12Mutual, Flows: 300},
		{Kind: TLS12Rejected, Flows: 100}, {Kind: TLS12Resumed, Flows: 500}, {Kind: TLS12Huge, Flows: 20},
		{Kind: TLS13, Flows: 1900}, {Kind: TLS13Hybrid, Flows: 1500}, {Kind: TLS13Mutual, Flows: 200},
		{Kind: TLS13Retry, Flows: 380}, {Kind: TLS13Resumed, Flows: 500}, {Kind: Refused, Flows: 150},
		{Kind: Unanswered, Flows: 150},
	}
}

func downloads(size int64, shares ...Share) []Share {
	for i := range shares {
		shares[i].Download = size
	}
	return shares
}

func scaled(shares []Share, by float64) []Share {
	for i := range shares {
		shares[i].Flows = max(1, int(float64(shares[i].Flows)*by))
	}
	return shares
}
