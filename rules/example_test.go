package rules_test

import (
	"fmt"
	"log"
	"net/netip"
	"testing/fstest"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
)

// seen is a handshake as the parsers give it: the client asked a server for a
// name of Windows Update, and got a certificate of that issuer.
func seen(issuer string) *event.Handshake {
	return &event.Handshake{
		Flow: &event.Flow{Transport: event.TCP, Endpoints: [2]event.Endpoint{
			{Addr: netip.MustParseAddr("192.0.2.1"), Port: 50000},
			{Addr: netip.MustParseAddr("198.51.100.7"), Port: 443},
		}},
		ClientHello: &event.ClientHello{ServerName: "www.update.microsoft.com", Offer: &event.Offer{}},
		Chain: []event.ChainEntry{{Certificate: &cert.Certificate{
			Subject: cert.Name{String: "CN=www.update.microsoft.com", CommonName: []string{"www.update.microsoft.com"}},
			Issuer:  cert.Name{String: "CN=" + issuer, CommonName: []string{issuer}},
		}}},
	}
}

// The packs that are part of the program, on one handshake.
func Example() {
	set, err := rules.Load(rules.Builtin())
	if err != nil {
		log.Fatal(err)
	}
	matcher, correlator := set.NewMatcher(nil), set.NewCorrelator(nil, 1)
	h := seen("DigiNotar Public CA 2025")
	for _, match := range correlator.See(h, nil, matcher.Match(h, nil, nil)) {
		fmt.Printf("%s: %s\n", match.Rule.Level, match.Rule.Title)
		fmt.Printf("%s is %s\n", match.Field, match.Value)
	}
	// Output:
	// critical: Certificate of DigiNotar for a Microsoft name
	// oddcert.chain.name is www.update.microsoft.com
}

// Rules of one's own, from any tree of files. [rules.Dir] is one of the machine.
func ExampleLoad() {
	mine := rules.Source{Name: "mine", FS: fstest.MapFS{"proxy.yml": {Data: []byte(`
title: Certificate of the proxy
id: 3c1f0c5e-4a57-4d7c-9d1e-6a8b0f6f4c10
taxonomy: ecs
level: low
logsource: {category: network, service: tls}
detection:
  proxy:
    oddcert.chain.issuer|contains: Example Proxy CA
  condition: proxy
oddcert:
  reason: '{client.ip} reached {tls.client.server_name} through the proxy at {server.ip}'
`)}}}
	set, err := rules.Load(rules.Builtin(), mine)
	if err != nil {
		log.Fatal(err)
	}
	for _, match := range set.NewMatcher(nil).Match(seen("Example Proxy CA"), nil, nil) {
		if match.Rule.Ruleset == "mine" {
			fmt.Println(match.Reason)
		}
	}
	// Output:
	// 192.0.2.1 reached www.update.microsoft.com through the proxy at 198.51.100.7
}

// What is wrong with rules comes all at once, each with its place.
func ExampleProblems() {
	bad := rules.Source{Name: "bad", FS: fstest.MapFS{"rule.yml": {Data: []byte(`title: A rule with mistakes
id: 3c1f0c5e-4a57-4d7c-9d1e-6a8b0f6f4c11
level: hihg
logsource: {category: tls}
detection:
  a:
    tls.client.servername: example.net
  condition: a
`)}}}
	_, err := rules.Load(bad)
	fmt.Println(err)
	// Output:
	// bad/rule.yml:3:8: "hihg": level must be one of informational, low, medium, high, critical: did you mean high?
	// bad/rule.yml:7:5: "tls.client.servername": is not a known field: did you mean tls.client.server_name?
}
