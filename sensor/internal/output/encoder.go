package output

import (
	"encoding/binary"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
)

// Observer is the sensor as records name it.
type Observer struct {
	Name    string // of the sensor, as its operator calls it; part of the ids of live events
	Version string // of the program
}

// Encoder turns what was seen into records, each one JSON object without a
// line feed. It belongs to one worker and is not safe for concurrent use.
//
// Except in statistics, a record holds nothing of the time or place of its
// making: the same handshake of the same capture always has the same bytes and
// the same id.
//
// The bytes that a method appends are the caller's.
type Encoder struct {
	observer Observer
	fixed    [Datasets][]byte // the members of event that a dataset's records share
	streams  [Datasets]string // the data_stream members; empty without Options.Constants
	common   []byte           // the members that all records share, but labels
	static   []byte           // the labels object of records whose endpoints have none
	labels   []judgement.Label
	about    []byte // the constant members of observer
	evidence func(id string) string
	clock    clock

	origin     *event.Origin // that originJSON and originName are of
	originJSON []byte        // the members observer and log
	originName string

	certificates *generations.Cache[*cert.Certificate, *certificateJSON]
	offers       *generations.Cache[*event.Offer, []byte]
	cut          uint64

	addrs  [2][]byte // the JSON of the client's and the server's address
	name   []byte    // of the server's name in the ClientHello
	server chainJSON // what the record shows of the certificates
	client chainJSON
	event  []byte // what an id is made of

	judged *judgement.Judgement // of the handshake; never nil

	scratch []byte // in which the JSON of certificates is made
}

// NewEncoder returns an encoder of the records that opt asks for. It remembers at
// most cache bytes of certificates and of their JSON; 0 stands for [DefaultCache].
func NewEncoder(o Observer, opt Options, cache int) *Encoder {
	if cache == 0 {
		cache = DefaultCache
	}
	e := &Encoder{
		observer:     o,
		certificates: generations.New[*cert.Certificate, *certificateJSON](cache),
		offers:       generations.New[*event.Offer, []byte](maxOfferBytes),
		evidence:     opt.Evidence,
	}
	action, _ := schema.Lookup("event.action")
	for d := range e.fixed {
		if d := Dataset(d); d.Form() != d {
			continue
		}
		e.fixed[d] = append(e.fixed[d], kinds[d]...)
		if opt.Constants {
			e.fixed[d] = append(e.fixed[d], `"module":"oddcert",`...)
			e.fixed[d] = appendText(e.fixed[d], `"action":`, action.Constant[schema.Dataset(d)])
		}
	}
	e.common = append(e.common, `"tags":["forwarded"],`...)
	if opt.Constants {
		for d := range e.streams {
			if d := Dataset(d); d.Form() != d {
				continue
			}
			e.streams[d] = `"data_stream":{"type":"` + schema.Dataset(d).Stream() + `","dataset":"oddcert.` + Dataset(d).String() + `"},`
		}
		e.about = append(e.about, `"vendor":"oddcert","product":"oddcert","type":"sensor",`...)
		e.common = append(e.common, `"agent":{"type":"oddcert"},`...)
	}
	e.setLabels(opt.Labels)
	return e
}

// setLabels sets the labels of all records. A dot in a key becomes an underscore, as
// ECS asks for: it would nest.
func (e *Encoder) setLabels(labels map[string]string) {
	keys := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		keys[strings.ReplaceAll(key, ".", "_")] = labels[key]
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		e.labels = append(e.labels, judgement.Label{Key: key, Value: keys[key]})
	}
	e.setJudged(nil)
	e.static = e.appendPlaceLabels(nil)
}

// Cut returns how many values were left out of the lists that clients offer,
// because a hello had more than [maxOffered] in one list.
func (e *Encoder) Cut() uint64 { return e.cut }

// kinds is what the event.* members of a dataset have in common.
var kinds = [Datasets]string{
	Handshake:   `"kind":"event","category":["network"],"type":["connection","protocol"],"dataset":"oddcert.handshake",`,
	Certificate: `"kind":"event","category":["network"],"type":["info"],"dataset":"oddcert.certificate",`,
	Sighting:    `"kind":"event","category":["network"],"type":["info"],"dataset":"oddcert.sighting",`,
	Hello:       `"kind":"event","category":["network"],"type":["info"],"dataset":"oddcert.hello",`,
	Alert:       `"kind":"alert","category":["network","intrusion_detection"],"type":["info"],"dataset":"oddcert.alert",`,
	Stats:       `"kind":"metric","category":["network"],"type":["info"],"dataset":"oddcert.stats",`,
}

// AppendHandshake appends the record of a handshake for which alerts rules
// matched. Its time and its packet are those of the last packet of the handshake.
//
// It names certificates by their hashes, and what the client offers by its
// fingerprints: the records of certificates and hellos have the rest. What those
// cannot have is in the handshake: a chain that has a truncated certificate, and
// the offer of a hello that was not seen whole.
//
// j is what was judged of h; nil for nothing.
func (e *Encoder) AppendHandshake(dst []byte, h *event.Handshake, j *judgement.Judgement, alerts int) ([]byte, Stamp) {
	return e.appendHandshake(dst, h, j, alerts, false)
}

// AppendFullHandshake is AppendHandshake with all that an alert holds of chains and
// hello.
func (e *Encoder) AppendFullHandshake(dst []byte, h *event.Handshake, j *judgement.Judgement, alerts int) ([]byte, Stamp) {
	return e.appendHandshake(dst, h, j, alerts, true)
}

func (e *Encoder) appendHandshake(dst []byte, h *event.Handshake, j *judgement.Judgement, alerts int, full bool) ([]byte, Stamp) {
	e.begin(Handshake, h, j)
	stamp := e.stamp(h.End.Time)
	dst = e.appendHead(dst, Handshake, h, stamp)
	dst = end(dst, '}')
	dst = e.appendFlow(dst, h)
	dst = e.appendTLS(dst, h, full)
	dst = e.appendOddcert(dst, h, h.End.Frame)
	dst = e.appendJudged(dst, full)
	if alerts > 0 {
		dst = appendUint(dst, `"alerts":`, uint64(alerts))
	}
	if c := h.ClientHello; c != nil && (full || c.JA3 == "") {
		dst = append(dst, e.offer(c.Offer)...)
	}
	for _, c := range [...]struct {
		chain *chainJSON
		key   string
	}{{&e.server, `"chain":`}, {&e.client, `"client_chain":`}} {
		if full || c.chain.truncated() {
			dst = c.chain.appendFull(dst, c.key, h.End.Time)
		} else {
			dst = c.chain.appendHashes(dst, c.key)
		}
	}
	return finish(dst), stamp
}

// AppendAlert appends the record of a match. It is complete: the handshake, the
// rule, the reason, what the client offered, and of both chains the DER and all
// that rules can ask. Its time is that of the handshake's last packet, so that the
// records of a handshake are together; its packet is the one that completed the
// server's certificate, or the handshake's last where there was none.
func (e *Encoder) AppendAlert(dst []byte, h *event.Handshake, j *judgement.Judgement, m *rules.Match) ([]byte, Stamp) {
	e.begin(Alert, h, j)
	stamp := e.stampAlert(h, m)
	dst = e.appendHead(dst, Alert, h, stamp)
	dst = appendEvaluation(dst, h, m)
	dst = appendRule(dst, m.Rule)
	dst = appendThreat(dst, m)
	dst = e.appendFlow(dst, h)
	dst = e.appendParty(dst, `"client":{`, h, h.Client, "")
	dst = e.appendParty(dst, `"server":{`, h, h.Client.Other(), `"domain":`)
	dst = e.appendTLS(dst, h, true)
	dst = e.appendRelated(dst, h)
	dst = e.appendOddcert(dst, h, completed(h).Frame)
	dst = e.appendJudged(dst, true)
	dst = appendVerdict(dst, m)
	if e.evidence != nil {
		dst = appendText(dst, `"evidence":`, e.evidence(string(stamp.ID[:])))
	}
	dst = e.appendCorrelation(dst, m.Correlation)
	if h.ClientHello != nil {
		dst = append(dst, e.offer(h.ClientHello.Offer)...)
	}
	dst = e.server.appendFull(dst, `"chain":`, h.End.Time)
	dst = e.client.appendFull(dst, `"client_chain":`, h.End.Time)
	return finish(dst), stamp
}

// AlertID is event.id of the record of a match, for those who tell of it without the
// record.
func (e *Encoder) AlertID(h *event.Handshake, m *rules.Match) string {
	e.setOrigin(h.Flow.Origin)
	e.identify(Alert, h)
	stamp := e.stampAlert(h, m)
	return string(stamp.ID[:])
}

// stampAlert is the stamp of a match of h, which was identified.
func (e *Encoder) stampAlert(h *event.Handshake, m *rules.Match) Stamp {
	e.event = appendCounted(e.event, m.Rule.ID)
	e.event = appendCounted(e.event, m.Rule.Version)
	return e.stamp(h.End.Time)
}

// completed returns when the server's certificate was complete, or the handshake
// over where there was none.
func completed(h *event.Handshake) event.Moment {
	if h.Certificate == (event.Moment{}) {
		return h.End
	}
	return h.Certificate
}

// begin starts e.event with what tells the record of h from others of its
// dataset, and prepares what the record says of origin, addresses and certificates.
func (e *Encoder) begin(d Dataset, h *event.Handshake, j *judgement.Judgement) {
	e.setJudged(j)
	e.setOrigin(h.Flow.Origin)
	e.setAddrs(h)
	e.server.set(e, h.Chain)
	e.client.set(e, h.ClientChain)
	e.identify(d, h)
}

// identify begins what the id of a record of h is made of.
func (e *Encoder) identify(d Dataset, h *event.Handshake) {
	e.event = e.appendSubject(e.event[:0], d)
	e.event = appendFlowKey(e.event, h.Flow)
	e.event = binary.BigEndian.AppendUint32(e.event, uint32(h.Index))
	if h.Alternative { // else a receiver would drop one of the two as a duplicate
		e.event = append(e.event, "alternative"...)
	}
	if len(h.Chain) > 0 && h.Chain[0].Certificate != nil {
		e.event = append(e.event, h.Chain[0].SHA256[:]...)
	}
}

// appendSubject appends what all ids of a dataset begin with. A capture is named
// by the last element of its path, so that it has the same ids when it is read from
// another folder.
func (e *Encoder) appendSubject(b []byte, d Dataset) []byte {
	return appendCounted(append(b, byte(d)), e.originName)
}

// setAddrs makes the JSON of the addresses, and of the name that the client asks
// for.
func (e *Encoder) setAddrs(h *event.Handshake) {
	for i, d := range [2]event.Direction{h.Client, h.Client.Other()} {
		b := e.addrs[i][:0]
		if a := h.Flow.Endpoints[d].Addr; a.IsValid() {
			b = append(b, '"')
			b = a.AppendTo(b)
			b = append(b, '"', ',')
		}
		e.addrs[i] = b
	}
	e.name = e.name[:0]
	if c := h.ClientHello; c != nil {
		e.name = appendText(e.name, "", c.ServerName)
	}
}

func (e *Encoder) stamp(t int64) Stamp { return Stamp{eventID(t, e.event), t} }

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
		path = filepath.Base(path)
		e.originName = path
	}
	b := append(e.originJSON[:0], `"observer":{`...)
	b = append(b, e.about...)
	if len(e.about) > 0 {
		b = appendText(b, `"version":`, e.observer.Version)
	}
	b = appendText(b, `"name":`, e.observer.Name)
	if iface != "" {
		b = append(b, `"ingress":{"interface":{`...)
		b = appendText(b, `"name":`, iface)
		b = end(end(b, '}'), '}')
	}
	b = closeOrDrop(b, 0, '}')
	if path != "" {
		b = append(b, `"log":{"file":{`...)
		b = appendText(b, `"path":`, path)
		b = end(end(b, '}'), '}')
	}
	e.originJSON = b
}

// appendHead appends all up to the end of event, which stays open.
func (e *Encoder) appendHead(b []byte, d Dataset, h *event.Handshake, s Stamp) []byte {
	b = e.appendEvent(b, d, s, s.Time)
	start := h.Start.Time
	if h.Start == (event.Moment{}) {
		start = h.Flow.Start
	}
	if d == Alert {
		b = e.clock.appendTime(b, `"start":`, start)
	}
	if duration := h.End.Time - start; duration >= 0 && start >= 0 { // else the clock has jumped
		b = appendInt(b, `"duration":`, duration)
	}
	return b
}

func (e *Encoder) appendEvent(b []byte, d Dataset, s Stamp, at int64) []byte {
	b = append(b, '{')
	b = e.clock.appendTime(b, `"@timestamp":`, at)
	b = append(b, `"ecs":{"version":"`+schema.ECS+`"},`...)
	b = append(b, e.common...)
	if e.labelled() {
		b = e.appendPlaceLabels(b)
	} else {
		b = append(b, e.static...)
	}
	b = append(b, e.streams[d]...)
	b = append(b, `"event":{`...)
	b = append(b, e.fixed[d]...)
	b = append(b, `"id":"`...)
	b = append(b, s.ID[:]...)
	return append(b, '"', ',')
}

// appendParty appends an object with the members of one end of the flow. Where
// domain is the key of a name, the object has the name that the client asks for.
func (e *Encoder) appendParty(b []byte, key string, h *event.Handshake, d event.Direction, domain string) []byte {
	from := len(b)
	b = append(b, key...)
	party := &h.Flow.Endpoints[d]
	i := d ^ h.Client
	if len(e.addrs[i]) > 0 {
		b = append(b, `"ip":`...)
		b = append(b, e.addrs[i]...)
	}
	if len(e.addrs[i]) > 0 || party.Port > 0 {
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
	if domain != "" && len(e.name) > 0 {
		b = append(b, domain...)
		b = append(b, e.name...)
	}
	b = appendPlace(b, e.placeOf(h, d))
	return closeOrDrop(b, from, '}')
}

// appendFlow appends who talked, how, and through what it was seen.
func (e *Encoder) appendFlow(b []byte, h *event.Handshake) []byte {
	b = e.appendParty(b, `"source":{`, h, h.Client, "")
	b = e.appendParty(b, `"destination":{`, h, h.Client.Other(), `"domain":`)
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
	b = appendText(b, `"application":`, application(h.Carrier))
	b = appendText(b, `"direction":`, string(e.judged.Direction))
	if f.Endpoints[0].Addr.IsValid() {
		b = append(b, `"community_id":"`...)
		b = appendCommunityID(b, f)
		b = append(b, '"', ',')
	}
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

// application returns the name of the protocol that TLS secures where the carrier
// names one, such as "smtp" for "starttls-smtp"; else it is empty.
func application(carrier string) string {
	switch carrier {
	case "tls", "dtls", "quic", "sslv2", "unknown":
		return ""
	}
	return strings.TrimPrefix(carrier, "starttls-")
}

// appendVLAN appends a vlan object; its id is a keyword in ECS.
func appendVLAN(b []byte, id uint16) []byte {
	b = append(b, `"vlan":{"id":"`...)
	b = strconv.AppendUint(b, uint64(id), 10)
	return append(b, `"},`...)
}

// appendTLS appends the tls object. tls.server and tls.client are about the first
// certificates of the chains: with all that ECS has for them and the DER of the
// whole chains where full is set, else with what identifies the server's.
func (e *Encoder) appendTLS(b []byte, h *event.Handshake, full bool) []byte {
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
	if h.Established || h.Alerted { // else it is not known: the rest was not seen
		b = appendBool(b, `"established":`, h.Established)
	}
	b = appendBool(b, `"resumed":`, h.Resumed)

	from := len(b)
	b = append(b, `"client":{`...)
	if c := h.ClientHello; c != nil {
		if len(e.name) > 0 {
			b = append(b, `"server_name":`...)
			b = append(b, e.name...)
		}
		b = appendText(b, `"ja3":`, c.JA3)
		if full || c.JA3 == "" {
			b = e.appendSuites(b, c.Offer)
		}
	}
	if full {
		b = e.client.appendLeaf(b)
	}
	b = closeOrDrop(b, from, '}')

	from = len(b)
	b = append(b, `"server":{`...)
	if h.ServerHello != nil {
		b = appendText(b, `"ja3s":`, h.ServerHello.JA3S)
	}
	if full {
		b = e.server.appendLeaf(b)
	} else if len(e.server.json) > 0 {
		b = append(b, e.server.json[0].brief...)
	}
	b = closeOrDrop(b, from, '}')
	return end(b, '}')
}

// appendRelated appends the addresses, names and hashes to search by. In other
// datasets the template collects them.
func (e *Encoder) appendRelated(b []byte, h *event.Handshake) []byte {
	all := len(b)
	b = append(b, `"related":{`...)
	from := len(b)
	b = append(b, `"ip":[`...)
	b = append(b, e.addrs[0]...)
	if h.Flow.Endpoints[0].Addr != h.Flow.Endpoints[1].Addr {
		b = append(b, e.addrs[1]...)
	}
	b = closeOrDrop(b, from, ']')

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
	b = closeOrDrop(b, from, ']')

	from = len(b)
	b = append(b, `"hash":[`...)
	for _, c := range [2]*chainJSON{&e.server, &e.client} {
		for _, j := range c.json {
			b = append(b, j.hashes...)
		}
	}
	b = closeOrDrop(b, from, ']')
	return closeOrDrop(b, all, '}')
}

// appendOddcert appends the oddcert object of a handshake, without its chains, and
// leaves it open.
func (e *Encoder) appendOddcert(b []byte, h *event.Handshake, frame uint64) []byte {
	b = e.appendWhere(b, h, frame)
	if h.ClientHello != nil {
		b = appendText(b, `"ja4":`, h.ClientHello.JA4)
	}
	b = append(b, `"certificates":"`...)
	b = append(b, h.Outcome.String()...)
	b = append(b, '"', ',')
	b = appendText(b, `"loss":`, h.Loss.String())
	if h.Forged != 0 {
		b = appendTexts(b, `"forged":`, h.Forged.Names())
	}
	if h.Alternative {
		b = appendBool(b, `"alternative":`, true)
	}
	if h.ClockJumped() {
		b = appendBool(b, `"clock_jump":`, true)
	}
	b = appendTexts(b, `"authority_names":`, h.AuthorityNames)
	b = appendRawKey(b, `"raw_key":{`, &h.RawKey)
	return appendRawKey(b, `"client_raw_key":{`, &h.ClientRawKey)
}

// appendWhere appends the beginning of the oddcert object: where in the capture
// the event is, with a display filter for its flow, and what carried it. The object
// stays open. A live capture has no such place.
func (e *Encoder) appendWhere(b []byte, h *event.Handshake, frame uint64) []byte {
	b = append(b, `"oddcert":{`...)
	if o := h.Flow.Origin; o != nil && o.Path != "" {
		from := len(b)
		b = append(b, `"pcap":{`...)
		if frame != 0 {
			b = appendUint(b, `"packet_number":`, frame)
		}
		b = appendDisplayFilter(b, h.Flow)
		b = closeOrDrop(b, from, '}')
	}
	b = appendTexts(b, `"tunnel":`, h.Flow.Tunnel)
	return appendText(b, `"carrier":`, h.Carrier)
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

// finish closes oddcert and the record.
func finish(b []byte) []byte {
	b[len(b)-1] = '}'
	return append(b, '}')
}
