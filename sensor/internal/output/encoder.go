package output

import (
	"encoding/base64"
	"encoding/binary"
	"path/filepath"
	"strconv"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/rules"
)

// ecsVersion is the version of the Elastic Common Schema that records follow.
const ecsVersion = "9.4.0"

// Observer describes the sensor in each record.
type Observer struct {
	Name    string // of the sensor, as its operator calls it; part of the ids of live events
	Version string // of the program
}

// Encoder turns what was seen into records, each one JSON object without a
// line feed. It belongs to one worker and is not safe for concurrent use.
//
// A record holds nothing of the time or place of its making: the same
// handshake of the same capture always has the same bytes and the same id.
// event.created, the time at which the sensor got the event, is that of the
// packet which completed it, both live and when a capture is read.
//
// The bytes that a method appends are the caller's.
type Encoder struct {
	observer Observer
	clock    clock

	origin     *event.Origin // that originJSON and originName are of
	originJSON []byte        // the members observer, host and log
	originName string

	certificates cache[*cert.Certificate, *certificateJSON]
	suites       cache[suiteList, []byte]
	cut          uint64

	ends   [2][]byte // the JSON of the client's and the server's end
	addrs  [2][]byte // their addresses
	name   []byte    // the server's name in the ClientHello
	server chainJSON // what the record shows of the certificates
	client chainJSON
	event  []byte // what an id is made of

	scratch []byte // in which the JSON of certificates is made
}

// chainJSON is a chain with the JSON of its certificates.
type chainJSON struct {
	chain []event.ChainEntry
	json  []*certificateJSON
}

// NewEncoder returns an encoder for what o observes.
func NewEncoder(o Observer) *Encoder {
	return &Encoder{
		observer:     o,
		certificates: newCache[*cert.Certificate, *certificateJSON](DefaultCache / 2),
		suites:       newCache[suiteList, []byte](maxSuiteBytes),
	}
}

// Remember bounds the memory of the certificates that e remembers, in bytes,
// before the first record; without, it is DefaultCache.
func (e *Encoder) Remember(bytes int) {
	e.certificates = newCache[*cert.Certificate, *certificateJSON](bytes / 2)
}

// Cut is how many cipher suites were left out of tls.client.supported_ciphers
// because a hello listed more than the registry has.
func (e *Encoder) Cut() uint64 { return e.cut }

// kind is what the event.* members of a dataset have in common.
var kind = [Datasets]string{
	Handshake:   `"kind":"event","category":["network"],"type":["connection","protocol"],"action":"tls-handshake","dataset":"oddcert.handshake","module":"oddcert",`,
	Certificate: `"kind":"event","category":["network"],"type":["info"],"action":"certificate-first-seen","dataset":"oddcert.certificate","module":"oddcert",`,
	Alert:       `"kind":"alert","category":["network","intrusion_detection"],"type":["info"],"action":"rule-matched","dataset":"oddcert.alert","module":"oddcert",`,
	Stats:       `"kind":"metric","category":["host"],"type":["info"],"action":"statistics","dataset":"oddcert.stats","module":"oddcert",`,
}

// AppendHandshake appends the record of a handshake. Its time and frame are
// those of the last packet that belongs to it.
func (e *Encoder) AppendHandshake(dst []byte, h *event.Handshake) ([]byte, Stamp) {
	e.begin(Handshake, h, h.Chain, h.ClientChain)
	stamp := e.stamp(h.End.Time)
	dst = e.appendHead(dst, Handshake, h, stamp)
	dst = end(dst, '}')
	dst = e.appendEnds(dst, h)
	dst = e.appendTLS(dst, h, false)
	dst = e.appendRelated(dst, h)
	dst = e.appendOddcert(dst, h, h.End.Frame)
	dst = e.server.append(dst, `"chain":[`)
	dst = e.client.append(dst, `"client_chain":[`)
	return finish(dst), stamp
}

// AppendCertificate appends the record of one certificate of the server's
// chain, h.Chain[index]. In it tls.server and oddcert.chain are about that
// certificate alone, whatever its place in the chain, and
// tls.server.certificate_chain has its DER; what the client sent is left out.
// Its time is that of the handshake's last packet, so that the
// records of a handshake stand together; its frame is the one that completed the
// chain.
func (e *Encoder) AppendCertificate(dst []byte, h *event.Handshake, index int) ([]byte, Stamp) {
	at := completed(h)
	one := h.Chain[index : index+1]
	e.begin(Certificate, h, one, nil)
	if one[0].Certificate != nil {
		e.event = append(e.event, one[0].SHA256[:]...)
	}
	e.event = binary.BigEndian.AppendUint32(e.event, uint32(index))
	stamp := e.stamp(h.End.Time)
	dst = e.appendHead(dst, Certificate, h, stamp)
	dst = end(dst, '}')
	dst = e.appendEnds(dst, h)
	dst = e.appendTLS(dst, h, true)
	dst = e.appendRelated(dst, h)
	dst = e.appendOddcert(dst, h, at.Frame)
	dst = e.server.appendFull(dst, `"chain":[`, index, h.End.Time)
	return finish(dst), stamp
}

// AppendAlert appends the record of a match. It is the record of the handshake,
// with the rule, the reason, the DER of the certificates, and all of their fields
// that rules can ask. Its time is
// that of the handshake's last packet, so that the records of a handshake stand
// together; its frame is the one that completed the server's certificate, or the
// handshake's last where there was none.
func (e *Encoder) AppendAlert(dst []byte, h *event.Handshake, m *rules.Match) ([]byte, Stamp) {
	at := completed(h)
	e.begin(Alert, h, h.Chain, h.ClientChain)
	e.event = appendCounted(e.event, m.Rule.ID)
	e.event = appendCounted(e.event, m.Rule.Version)
	stamp := e.stamp(h.End.Time)
	dst = e.appendHead(dst, Alert, h, stamp)
	dst = appendEvaluation(dst, h, m)
	dst = appendRule(dst, m.Rule)
	dst = appendThreat(dst, m)
	dst = e.appendEnds(dst, h)
	dst = e.appendTLS(dst, h, true)
	dst = e.appendRelated(dst, h)
	dst = e.appendOddcert(dst, h, at.Frame)
	dst = appendVerdict(dst, m)
	dst = e.server.appendFull(dst, `"chain":[`, 0, h.End.Time)
	dst = e.client.appendFull(dst, `"client_chain":[`, 0, h.End.Time)
	return finish(dst), stamp
}

// completed is when the server's certificate was there, or the handshake over.
func completed(h *event.Handshake) event.Moment {
	if h.Certificate == (event.Moment{}) {
		return h.End
	}
	return h.Certificate
}

// begin starts e.event with what tells the record of h from others of its
// dataset, and makes ready what the record says of the origin, the ends and the
// certificates, of which it is to show server and client.
//
// A capture is told by the last element of its path, so that it has the same
// ids when it is read from another folder.
func (e *Encoder) begin(d Dataset, h *event.Handshake, server, client []event.ChainEntry) {
	e.setOrigin(h.Flow.Origin)
	e.show(server, client)
	for i, d := range [2]event.Direction{h.Client, h.Client.Other()} {
		party := &h.Flow.Endpoints[d]
		e.addrs[i] = e.addrs[i][:0]
		if party.Addr.IsValid() {
			e.addrs[i] = append(e.addrs[i], '"')
			e.addrs[i] = party.Addr.AppendTo(e.addrs[i])
			e.addrs[i] = append(e.addrs[i], '"', ',')
		}
		e.ends[i] = appendEnd(e.ends[i][:0], party, e.addrs[i])
	}
	e.name = e.name[:0]
	if c := h.ClientHello; c != nil {
		e.name = appendText(e.name, "", c.ServerName)
	}
	b := append(e.event[:0], byte(d))
	b = appendCounted(b, e.originName)
	b = appendFlow(b, h.Flow)
	b = binary.BigEndian.AppendUint32(b, uint32(h.Index))
	if len(h.Chain) > 0 && h.Chain[0].Certificate != nil {
		b = append(b, h.Chain[0].SHA256[:]...)
	}
	e.event = b
}

// show makes ready what the record shows of certificates.
func (e *Encoder) show(server, client []event.ChainEntry) {
	e.server.chain, e.client.chain = server, client
	for _, c := range [2]*chainJSON{&e.server, &e.client} {
		c.json = c.json[:0]
		for i := range c.chain {
			c.json = append(c.json, e.certificate(&c.chain[i]))
		}
	}
}

func (e *Encoder) stamp(t int64) Stamp { return Stamp{eventID(t, e.event), t} }

// appendEnd appends the members of source, destination, client and server.
func appendEnd(b []byte, party *event.Endpoint, addr []byte) []byte {
	if len(addr) > 0 {
		b = append(b, `"ip":`...)
		b = append(b, addr...)
	}
	if len(addr) > 0 || party.Port > 0 {
		b = appendUint(b, `"port":`, uint64(party.Port))
	}
	if party.MAC != [6]byte{} {
		b = append(b, `"mac":"`...)
		for i, c := range party.MAC {
			if i > 0 {
				b = append(b, '-')
			}
			b = append(b, upperHex[c>>4], upperHex[c&15])
		}
		b = append(b, '"', ',')
	}
	return b
}

func (e *Encoder) setOrigin(o *event.Origin) {
	if o == e.origin && e.originJSON != nil {
		return
	}
	e.origin = o
	e.originName = e.observer.Name
	var path, iface string
	if o != nil {
		path, iface = o.Path, o.Interface
	}
	if path != "" {
		e.originName = filepath.Base(path)
	}
	b := append(e.originJSON[:0], `"observer":{"type":"sensor","product":"oddcert",`...)
	b = appendText(b, `"version":`, e.observer.Version)
	b = appendText(b, `"name":`, e.observer.Name)
	if iface != "" {
		b = append(b, `"ingress":{"interface":{`...)
		b = appendText(b, `"name":`, iface)
		b = end(end(b, '}'), '}')
	}
	b = end(b, '}')
	if path != "" {
		b = append(b, `"log":{"file":{`...)
		b = appendText(b, `"path":`, path)
		b = end(end(b, '}'), '}')
	}
	e.originJSON = b
}

// appendHead appends all up to the end of event, which stays open.
func (e *Encoder) appendHead(b []byte, d Dataset, h *event.Handshake, s Stamp) []byte {
	start := h.Start.Time
	if h.Start == (event.Moment{}) {
		start = h.Flow.Start
	}
	return e.appendEvent(b, d, s, start, h.End.Time)
}

func (e *Encoder) appendEvent(b []byte, d Dataset, s Stamp, start, created int64) []byte {
	b = append(b, '{')
	b = e.clock.appendTime(b, `"@timestamp":`, s.Time)
	b = append(b, `"ecs":{"version":"`+ecsVersion+`"},"event":{`...)
	b = append(b, kind[d]...)
	b = append(b, `"id":"`...)
	b = append(b, s.ID[:]...)
	b = append(b, '"', ',')
	b = e.clock.appendTime(b, `"start":`, start)
	return e.clock.appendTime(b, `"created":`, created)
}

// appendEnds appends who talked, how, and through what it was seen.
func (e *Encoder) appendEnds(b []byte, h *event.Handshake) []byte {
	for i, keys := range [2][2]string{
		{`"source":{`, `"client":{`},
		{`"destination":{`, `"server":{`},
	} {
		for j, key := range keys {
			from := len(b)
			b = append(b, key...)
			b = append(b, e.ends[i]...)
			if i == 1 && j == 1 && len(e.name) > 0 {
				b = append(b, `"domain":`...)
				b = append(b, e.name...)
			}
			b = closed(b, from, '}')
		}
	}
	f := h.Flow
	b = append(b, `"network":{`...)
	switch f.Transport {
	case event.TCP:
		b = append(b, `"transport":"tcp",`...)
	case event.UDP:
		b = append(b, `"transport":"udp",`...)
	case event.SCTP:
		b = append(b, `"transport":"sctp",`...)
	case event.EAPOL:
		b = append(b, `"transport":"eapol",`...)
	}
	switch a := f.Endpoints[0].Addr; {
	case a.Is4():
		b = append(b, `"type":"ipv4",`...)
	case a.IsValid():
		b = append(b, `"type":"ipv6",`...)
	}
	switch {
	case h.Carrier == "quic":
		b = append(b, `"protocol":"quic",`...)
	case h.Datagram:
		b = append(b, `"protocol":"dtls",`...)
	default:
		b = append(b, `"protocol":"tls",`...)
	}
	if f.Endpoints[0].Addr.IsValid() {
		b = append(b, `"community_id":"`...)
		b = appendCommunityID(b, f)
		b = append(b, '"', ',')
	}
	b = append(b, `"direction":"unknown",`...) // which networks are ours is not known here
	if f.VLANCount > 0 {
		b = appendVLAN(b, f.VLANs[0])
	}
	if f.VLANCount > 1 {
		b = append(b, `"inner":{`...)
		b = appendVLAN(b, f.VLANs[1])
		b = end(b, '}')
	}
	b = end(b, '}')
	return append(b, e.originJSON...)
}

// appendVLAN appends a vlan object; its id is a keyword in ECS.
func appendVLAN(b []byte, id uint16) []byte {
	b = append(b, `"vlan":{"id":"`...)
	b = strconv.AppendUint(b, uint64(id), 10)
	return append(b, `"},`...)
}

// appendTLS appends the tls object. The first certificates are what tls.server
// and tls.client are about; ders says whether all of them themselves go into the
// record.
func (e *Encoder) appendTLS(b []byte, h *event.Handshake, ders bool) []byte {
	b = append(b, `"tls":{`...)
	protocol, number := tls.VersionName(h.Version)
	b = appendText(b, `"version":`, number)
	b = appendText(b, `"version_protocol":`, protocol)
	if h.ServerHello != nil {
		b = append(b, `"cipher":`...)
		b = appendCode(b, tls.CipherSuiteName(h.CipherSuite), h.CipherSuite)
	}
	if h.Curve != 0 {
		b = append(b, `"curve":`...)
		b = appendCode(b, tls.GroupName(h.Curve), h.Curve)
	}
	if h.ServerHello != nil {
		b = appendText(b, `"next_protocol":`, h.ServerHello.ALPN)
	}
	b = appendBool(b, `"established":`, h.Established)
	b = appendBool(b, `"resumed":`, h.Resumed)

	from := len(b)
	b = append(b, `"client":{`...)
	if c := h.ClientHello; c != nil {
		if len(e.name) > 0 {
			b = append(b, `"server_name":`...)
			b = append(b, e.name...)
		}
		b = appendText(b, `"ja3":`, c.JA3)
		b = append(b, e.supportedCiphers(c.CipherSuites)...)
	}
	b = e.client.appendParty(b, ders)
	b = closed(b, from, '}')

	from = len(b)
	b = append(b, `"server":{`...)
	if h.ServerHello != nil {
		b = appendText(b, `"ja3s":`, h.ServerHello.JA3S)
	}
	b = e.server.appendParty(b, ders)
	b = closed(b, from, '}')
	return end(b, '}')
}

// appendParty appends what tls.client and tls.server say of certificates.
func (c *chainJSON) appendParty(b []byte, ders bool) []byte {
	if len(c.chain) == 0 {
		return b
	}
	b = append(b, c.json[0].leaf...)
	if !ders {
		return b
	}
	from := len(b)
	b = append(b, `"certificate_chain":[`...)
	for _, c := range c.chain {
		if c.Certificate == nil || c.DER == nil || c.Truncated {
			continue
		}
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, c.DER)
		b = append(b, '"', ',')
	}
	return closed(b, from, ']')
}

// appendRelated appends the addresses, names and hashes to search by.
func (e *Encoder) appendRelated(b []byte, h *event.Handshake) []byte {
	all := len(b)
	b = append(b, `"related":{`...)
	from := len(b)
	b = append(b, `"ip":[`...)
	b = append(b, e.addrs[0]...)
	if h.Flow.Endpoints[0].Addr != h.Flow.Endpoints[1].Addr {
		b = append(b, e.addrs[1]...)
	}
	b = closed(b, from, ']')

	var leaf *certificateJSON
	if len(e.server.json) > 0 {
		leaf = e.server.json[0]
	}
	from = len(b)
	b = append(b, `"hosts":[`...)
	if c := h.ClientHello; c != nil && (leaf == nil || leaf.host != c.ServerName) {
		b = append(b, e.name...)
	}
	if leaf != nil {
		b = append(b, leaf.hosts...)
	}
	b = closed(b, from, ']')

	from = len(b)
	b = append(b, `"hash":[`...)
	for _, c := range [2]*chainJSON{&e.server, &e.client} {
		for _, j := range c.json {
			b = append(b, j.hashes...)
		}
	}
	b = closed(b, from, ']')
	return closed(b, all, '}')
}

// appendOddcert appends the oddcert object without its chains, and leaves it
// open.
func (e *Encoder) appendOddcert(b []byte, h *event.Handshake, frame uint64) []byte {
	b = append(b, `"oddcert":{`...)
	if frame != 0 {
		b = append(b, `"pcap":{`...)
		b = appendUint(b, `"packet_number":`, frame)
		b = end(b, '}')
	}
	b = appendTexts(b, `"tunnel":`, h.Flow.Tunnel)
	b = appendText(b, `"carrier":`, h.Carrier)
	if h.ClientHello != nil {
		b = appendText(b, `"ja4":`, h.ClientHello.JA4)
	}
	b = append(b, `"certificates":"`...)
	b = append(b, h.Outcome.String()...)
	b = append(b, '"', ',')
	b = appendText(b, `"loss":`, h.Loss.String())
	b = appendTexts(b, `"forged":`, h.Forged.Names())
	if h.Alternative {
		b = appendBool(b, `"alternative":`, true)
	}
	if h.ClockJumped() {
		b = append(b, `"clock_jump":true,`...)
	}
	b = appendTexts(b, `"authority_names":`, h.AuthorityNames)
	b = appendRawKey(b, `"raw_key":{`, &h.RawKey)
	return appendRawKey(b, `"client_raw_key":{`, &h.ClientRawKey)
}

// appendRawKey appends what is known of a key that was sent in the place of a
// certificate, or nothing when none was.
func appendRawKey(b []byte, key string, sum *[32]byte) []byte {
	if *sum == [32]byte{} {
		return b
	}
	b = append(b, key...)
	b = appendHash(b, `"sha256":`, sum[:])
	return end(b, '}')
}

// append appends the chain as handshakes have it.
func (c *chainJSON) append(b []byte, key string) []byte {
	from := len(b)
	b = append(b, key...)
	for i, j := range c.json {
		b = append(b, '{')
		b = appendUint(b, `"position":`, uint64(i))
		b = append(b, j.entry...)
		b = append(b, j.more...)
		b = end(b, '}')
	}
	return closed(b, from, ']')
}

// appendFull appends the chain with all that rules can ask of it; first is the
// place of its first certificate, now the time for which its validity is judged.
func (c *chainJSON) appendFull(b []byte, key string, first int, now int64) []byte {
	from, room := len(b), maxRestBytes
	b = append(b, key...)
	for i, j := range c.json {
		b = append(b, '{')
		b = appendUint(b, `"position":`, uint64(first+i))
		b = append(b, j.entry...)
		if room -= len(j.rest); room >= 0 {
			b = append(b, j.rest...)
		} else {
			b = append(b, j.more...)
			b = appendBool(b, `"abridged":`, true)
		}
		if x := c.chain[i].Certificate; x != nil {
			b = appendValidity(b, x, now)
		}
		b = end(b, '}')
	}
	return closed(b, from, ']')
}

// finish closes oddcert and the record.
func finish(b []byte) []byte {
	b[len(b)-1] = '}'
	return append(b, '}')
}
