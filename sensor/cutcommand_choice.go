package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/query"
)

// cutChoice is which flows are cut out. Of each kind one must fit, where there are any.
type cutChoice struct {
	alerts   cutAlerts
	hashes   []string // what SHA-256s begin with, upper-case hex digits
	servers  []*query.Peer
	clients  []*query.Peer
	keys     map[decode.Key]bool // five-tuples
	ids      map[string]bool     // Community IDs
	parsed   bool                // handshakes must be looked at
	believed map[decode.Key]bool // five-tuples that were looked up in ids
}

// maxBelieved bounds cutChoice.believed: a Community ID costs a hash function.
const maxBelieved = 1 << 16

// leastHash is how many hex digits name a certificate.
const leastHash = 8

// parse reads what was said on the command line. A file of records that is named - is in.
func (c *cut) parse(in io.Reader) (*cutChoice, error) {
	choice := &cutChoice{keys: map[decode.Key]bool{}, ids: map[string]bool{}, believed: map[decode.Key]bool{}}
	choice.alerts = cutAlerts{ids: map[string]bool{}, starts: map[decode.Key][]int64{}}
	var errs []error
	for _, text := range c.alerts {
		if err := choice.alerts.add(text, in); err != nil {
			errs = append(errs, fmt.Errorf("--alert: %w", err))
		}
	}
	for _, text := range c.certificates {
		digits := strings.ToUpper(strings.ReplaceAll(text, ":", ""))
		if _, err := hex.DecodeString(digits + digits); err != nil || len(digits) < leastHash || len(digits) > 64 {
			errs = append(errs, fmt.Errorf("--certificate: %q is not a SHA-256, or the first %d hex digits of one or more", text, leastHash))
		}
		choice.hashes = append(choice.hashes, digits)
	}
	peers := func(flag string, texts []string) (list []*query.Peer) {
		for _, text := range texts {
			p, err := query.ParsePeer(text)
			if err != nil {
				errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
				continue
			}
			choice.parsed = choice.parsed || p.Name() != ""
			list = append(list, p)
		}
		return list
	}
	choice.servers, choice.clients = peers("server", c.servers), peers("client", c.clients)
	for _, p := range choice.clients {
		if p.Name() != "" {
			errs = append(errs, fmt.Errorf("--client: %q is a name: give an address or a network", p.Name()))
		}
	}
	for _, text := range c.flows {
		if strings.HasPrefix(text, "1:") && strings.HasSuffix(text, "=") {
			choice.ids[text] = true
			continue
		}
		key, err := parseFlow(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--flow: %w", err))
		}
		choice.keys[key] = true
	}
	if len(c.alerts)+len(c.certificates)+len(c.servers)+len(c.clients)+len(c.flows) == 0 && !c.handshakes {
		errs = append(errs, errors.New("say what to cut out: --alert, --certificate, --server, --client, --flow or --handshakes"))
	}
	choice.parsed = choice.parsed || len(choice.alerts.ids)+len(c.certificates) > 0 || c.handshakes
	return choice, errors.Join(errs...)
}

// told returns the flows that records of alerts tell, as far as the addresses fit.
func (c *cutChoice) told() (flows []frames.Flow) {
	for _, f := range c.alerts.flows {
		if key, ok := decode.NewKey(f.Transport, f.Endpoints[0], f.Endpoints[1]); ok && c.fitsKey(&key) {
			flows = append(flows, f)
		}
	}
	return flows
}

// flowText is a flow as parseFlow reads it.
func flowText(f *frames.Flow) string {
	var ends [2]string
	for i, e := range f.Endpoints {
		ends[i] = netip.AddrPortFrom(e.Addr, e.Port).String()
		if f.Transport == event.EAPOL {
			ends[i] = net.HardwareAddr(e.MAC[:]).String()
		}
	}
	return ends[0] + "-" + ends[1] + "/" + f.Transport.String()
}

// parseFlow reads a five-tuple, such as 192.0.2.1:50000-192.0.2.2:443/tcp.
func parseFlow(text string) (decode.Key, error) {
	wrong := fmt.Errorf("%q is no flow: write 192.0.2.1:50000-192.0.2.2:443/tcp, with udp, sctp or eapol in the place of tcp, or a Community ID", text)
	ends, name, found := strings.Cut(text, "/")
	if !found {
		name = "tcp"
	}
	transport, known := event.ParseTransport(strings.ToLower(name))
	a, b, two := strings.Cut(ends, "-")
	if !known || !two {
		return decode.Key{}, wrong
	}
	var pair [2]event.Endpoint
	for i, end := range []string{a, b} {
		end = strings.TrimSpace(end)
		if transport == event.EAPOL {
			mac, err := net.ParseMAC(end)
			if err != nil || len(mac) != 6 {
				return decode.Key{}, wrong
			}
			pair[i].MAC = [6]byte(mac)
			continue
		}
		ap, err := netip.ParseAddrPort(end)
		if err != nil {
			return decode.Key{}, wrong
		}
		pair[i].Addr, pair[i].Port = ap.Addr().Unmap().WithZone(""), ap.Port()
	}
	key, ok := decode.NewKey(transport, pair[0], pair[1])
	if !ok {
		return decode.Key{}, wrong
	}
	return key, nil
}

// fits reports whether a handshake is one of those that are wanted.
func (c *cutChoice) fits(f *finding.Finding) bool {
	h := f.Handshake
	server, client := &h.Flow.Endpoints[h.Client.Other()], &h.Flow.Endpoints[h.Client]
	key, ok := decode.NewKey(h.Flow.Transport, *server, *client)
	if !ok || c.alerts.any() && !c.alerts.has(f, &key) {
		return false
	}
	if len(c.hashes) > 0 && !c.shows(h.Chain) && !c.shows(h.ClientChain) {
		return false
	}
	if len(c.servers) > 0 && !slices.ContainsFunc(c.servers, func(p *query.Peer) bool {
		return p.At(server.Addr, server.Port) || h.ClientHello != nil && p.Named(h.ClientHello.ServerName)
	}) {
		return false
	}
	if len(c.clients) > 0 && !anyAt(c.clients, netip.AddrPortFrom(client.Addr, client.Port)) {
		return false
	}
	return c.hasFlow(&key)
}

// shows reports whether a chain has a certificate that is wanted.
func (c *cutChoice) shows(chain []event.ChainEntry) bool {
	return slices.ContainsFunc(chain, func(e event.ChainEntry) bool {
		if e.Certificate == nil || e.Truncated {
			return false
		}
		digits := strings.ToUpper(hex.EncodeToString(e.SHA256[:]))
		return slices.ContainsFunc(c.hashes, func(h string) bool { return strings.HasPrefix(digits, h) })
	})
}

func anyAt(peers []*query.Peer, end netip.AddrPort) bool {
	return slices.ContainsFunc(peers, func(p *query.Peer) bool { return p.At(end.Addr(), end.Port()) })
}

// hasFlow reports whether a five-tuple is wanted.
func (c *cutChoice) hasFlow(key *decode.Key) bool {
	switch {
	case len(c.keys)+len(c.ids) == 0, c.keys[*key]:
		return true
	case len(c.ids) == 0 || key.Transport() == event.EAPOL:
		return false
	}
	wanted, known := c.believed[*key]
	if !known {
		if len(c.believed) == maxBelieved {
			clear(c.believed)
		}
		low, high := key.Endpoints()
		wanted = c.ids[output.CommunityID(key.Transport(), [2]event.Endpoint{{Addr: low.Addr(), Port: low.Port()}, {Addr: high.Addr(), Port: high.Port()}})]
		c.believed[*key] = wanted
	}
	return wanted
}

// Match looks at addresses alone.
func (c *cutChoice) Match(p *decode.Packet, _ *capture.Batch, of []int) []int {
	if !c.fitsKey(&p.Key) {
		return of
	}
	return append(of, 0)
}

// fitsKey reports whether a five-tuple is one of those that are wanted. It is not said
// which end is the server.
func (c *cutChoice) fitsKey(key *decode.Key) bool {
	if len(c.servers)+len(c.clients) > 0 {
		low, high := key.Endpoints()
		if !c.between(low, high) && !c.between(high, low) {
			return false
		}
	}
	return c.hasFlow(key)
}

// between reports whether a flow is wanted whose server and client these are.
func (c *cutChoice) between(server, client netip.AddrPort) bool {
	return (len(c.servers) == 0 || anyAt(c.servers, server)) && (len(c.clients) == 0 || anyAt(c.clients, client))
}
