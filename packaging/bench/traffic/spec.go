// Package traffic makes captures whose truth is known.
//
// [Named] gives the ready-made specifications, [Generate] writes one as a pcap
// file and returns what a sensor must find in it, and [Truth.Check] compares
// that with what one did find.
//
// The TLS is real: handshakes of crypto/tls are recorded, and replayed between
// many hosts and ports. The application data of long transfers is random bytes
// in well-formed records, which is all that an observer can tell of it.
package traffic

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// Kind is what happens on a flow.
type Kind string

// The kinds of flows.
const (
	TLS10         Kind = "tls10"          // ECDHE, RSA certificate
	TLS11         Kind = "tls11"          // ECDHE, RSA certificate
	TLS12RSA      Kind = "tls12-rsa"      // RSA key exchange
	TLS12ECDHE    Kind = "tls12-ecdhe"    // RSA certificate
	TLS12ECDSA    Kind = "tls12-ecdsa"    // ECDSA certificate
	TLS12Mutual   Kind = "tls12-mutual"   // the client sends a certificate too
	TLS12Rejected Kind = "tls12-rejected" // the client refuses the certificate with an alert
	TLS12Resumed  Kind = "tls12-resumed"  // by a session ticket
	TLS12Huge     Kind = "tls12-huge"     // a chain of about 100 KB
	TLS13         Kind = "tls13"
	TLS13Hybrid   Kind = "tls13-hybrid"  // X25519MLKEM768: a ClientHello of two segments
	TLS13Mutual   Kind = "tls13-mutual"  //
	TLS13Retry    Kind = "tls13-retry"   // after a HelloRetryRequest
	TLS13Resumed  Kind = "tls13-resumed" // by a pre-shared key
	Refused       Kind = "refused"       // the server answers the ClientHello with an alert
	Unanswered    Kind = "unanswered"    // the server acknowledges the ClientHello and stays silent
	SYN           Kind = "syn"           // one SYN and nothing else
	HTTP          Kind = "http"
	DNS           Kind = "dns"
	UDP           Kind = "udp" // random datagrams
)

// Spec says what a capture holds. Rates and shares are from 0 to 1.
type Spec struct {
	Seed         uint64
	Shares       []Share
	Certificates int // distinct server certificates, about; at least one for each TLS share
	Planted      int // how many of them bear names that the sensor looks for
	Concurrent   int // flows at once

	// Shares of flows.
	IPv6, VLAN, QinQ float64
	OneWay           float64 // of which only one direction was captured
	MidStream        float64 // whose first frames were not captured
	Reused           float64 // on the five-tuple of a flow that has ended
	Twin             float64 // on the five-tuple of another flow at the same time, in another VLAN
	Lossy            float64 // from which one data segment is missing

	MSS        []int         // bytes of payload in a segment at most, dealt out to the flows; 1448 and some smaller ones if empty
	Pace       time.Duration // mean time between segments of one flight; 20 µs if zero
	Impairment Impairment
	Snaplen    int // bytes captured of a frame; all if zero
}

// Share is a number of flows of one kind.
type Share struct {
	Kind     Kind  `json:"kind"`
	Flows    int   `json:"flows"`
	Download int64 `json:"download,omitempty"` // bytes of application data that the server sends besides
}

// Impairment says how frames suffer on their way into the capture, each by
// its own chance. Where a frame is lost, only the sensor has missed it: nobody
// sends it again.
type Impairment struct {
	Drop      float64 `json:"drop,omitempty"`
	Duplicate float64 `json:"duplicate,omitempty"` // the frame again, or its segment in a new packet
	Reorder   float64 `json:"reorder,omitempty"`   // the frame comes up to Depth frames of its flow later
	Overlap   float64 `json:"overlap,omitempty"`   // another segment, before or after, shares bytes with this one
	Conflict  float64 `json:"conflict,omitempty"`  // the segment comes again later with other bytes in it
	Depth     int     `json:"depth,omitempty"`     // 4 if zero
}

// Uniform is an impairment of which each fault that leaves the content alone
// has the same rate.
func Uniform(rate float64) Impairment {
	return Impairment{Drop: rate, Duplicate: rate, Reorder: rate, Overlap: rate}
}

// Named returns the specification of the given name: see [Names]. The number
// of flows is multiplied by scale, which is 1 for the full size.
func Named(name string, scale float64, seed uint64) (Spec, error) {
	build, ok := named[name]
	if !ok {
		return Spec{}, fmt.Errorf("no specification %q: there are %v", name, Names())
	}
	s := build()
	s.Seed = seed
	for i := range s.Shares {
		s.Shares[i].Flows = max(1, int(float64(s.Shares[i].Flows)*scale+0.5))
	}
	s.Certificates = max(1, int(float64(s.Certificates)*min(scale, 1)+0.5))
	s.Planted = min(s.Planted, (s.Certificates+1)/2)
	return s, nil
}

// Names lists the named specifications.
func Names() []string {
	var names []string
	for name := range named {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Generate writes the capture that s describes to w, in pcap format with
// nanoseconds, link type Ethernet, and returns what is in it. Memory is
// bounded by the flows at once and by the truth, not by the capture.
//
// Addresses, times, sizes, certificates and the truth depend on s alone. The
// random values inside of the handshakes differ from run to run, because
// crypto/tls lets nobody choose them.
func Generate(w io.Writer, s Spec) (*Truth, error) {
	g, err := newGenerator(w, s)
	if err != nil {
		return nil, err
	}
	return g.run()
}
