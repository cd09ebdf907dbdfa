package terminal

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"time"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// sampleHandshake has everything that an alert shows.
func sampleHandshake() *event.Handshake {
	start := time.Date(2022, 2, 21, 16, 39, 40, 7, time.UTC).UnixNano()
	leaf := &cert.Certificate{
		DER: []byte("a leaf"), SHA256: sha256.Sum256([]byte("a leaf")),
		Subject: cert.Name{String: "CN=www.example.com"}, Issuer: cert.Name{String: "CN=Example Root CA"},
		NotBefore: cert.DateOf(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)),
		NotAfter:  cert.DateOf(time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)),
	}
	authority := &cert.Certificate{DER: []byte("an authority"), SHA256: sha256.Sum256([]byte("an authority"))}
	return &event.Handshake{
		Flow: &event.Flow{
			Transport: event.TCP,
			Endpoints: [2]event.Endpoint{
				{Addr: netip.MustParseAddr("66.35.250.204"), Port: 80},
				{Addr: netip.MustParseAddr("128.232.110.120"), Port: 34855},
			},
			Origin: &event.Origin{Path: "/captures/a \"b\".pcapng", Interface: "eth0"},
		},
		Client:      1,
		Carrier:     "starttls-smtp",
		Certificate: event.Moment{Time: start + 1e6, Frame: 6},
		End:         event.Moment{Time: start + 2e9, Frame: 9},
		Version:     0x0303,
		ClientHello: &event.ClientHello{ServerName: "mail.example.com", Offer: &event.Offer{}},
		Outcome:     event.Extracted,
		Chain:       []event.ChainEntry{{Certificate: leaf}, {Certificate: authority}, {Certificate: authority}, {Certificate: leaf, Truncated: true}},
		ClientChain: []event.ChainEntry{{Certificate: authority}, {Certificate: leaf}},
	}
}

func sampleMatch() *rules.Match {
	return &rules.Match{
		Rule:    &rules.Rule{Title: "Look-alike of www.update.microsoft.com", Level: "medium", Severity: 47, Verdict: "disguise"},
		Field:   "tls.server.hash.sha256",
		Reason:  "Someone goes around the filters.",
		Reasons: []string{"the hash is on the list", "it is no certificate of Microsoft"},
	}
}

func sampleAlert() *finding.Alert {
	return &finding.Alert{ID: "00079c0a69156f9e0ccd818c7aedc078", Match: sampleMatch(), Pack: "packs/00079c0a69156f9e0ccd818c7aedc078"}
}

func sampleCounters() *output.Counters {
	c := &output.Counters{
		Start: 1e18, End: 1e18 + 12345,
		Rules: []output.RuleCount{{Rule: sampleMatch().Rule, Matches: 3}},
		Sections: []output.Section{
			{Name: "flow", Value: struct {
				Flows   uint64 `json:"flows"`
				Evicted uint64 `json:"evicted"`
			}{12, 1}, Lost: []string{"evicted"}},
		},
		Parser: parsers.Stats{Handshakes: 12, Decrypted: 1},
	}
	c.NoTLS = []decode.FrameCount{{Name: "EtherType 0x0806 (ARP)", Frames: 40}, {Name: "LLC 0x42 (STP)", Frames: 7}}
	for n := range uint64(15) {
		c.Unread = append(c.Unread, decode.FrameCount{Name: fmt.Sprintf("EtherType %#04x", 0x9400+n), Frames: 100 - n})
	}
	c.Weird = []decode.FrameCount{{Name: "truncated_tcp", Frames: 4}}
	c.Capture.Frames, c.Capture.Bytes = 1000, 900_000
	c.Parser.Outcomes = [event.Outcomes]uint64{5, 4, 1, 0, 2}
	c.Parser.Losses[event.Gap] = 2
	c.Told.Certificates = 7
	return c
}
