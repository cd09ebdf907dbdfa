package cef

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output/document"
)

// event is what both formats say about a record.
type event struct {
	class    string // of the event: the rule, or the dataset
	name     string // for people
	severity int    // 1 to 10
	fields   []field
}

// field is one pair. The fields of an event are in the order of their importance.
type field struct {
	cef   string // key, empty where CEF does not have the field
	label string // what a field such as cs1 holds
	leef  string // key, empty where LEEF does not have the field
	limit int    // characters, as the dictionary of CEF has it
	text  string
	when  time.Time // instead of text
}

func (f *field) empty() bool { return strings.TrimFunc(f.text, blank) == "" && f.when.IsZero() }

// Severities of alerts by the level of their rule. CEF calls 0 to 3 low, 4 to 6
// medium, 7 and 8 high, 9 and 10 very high; LEEF has 1 to 10.
var severities = map[string]int{"low": 3, "medium": 5, "high": 8, "critical": 10}

// noSeverity is that of a record that is no alert.
const noSeverity = 1

// names of the events that are no alerts, by their dataset.
var names = map[string]string{
	"handshake":   "TLS handshake",
	"certificate": "TLS certificate",
	"sighting":    "TLS certificate first seen on a server",
	"hello":       "TLS client hello first seen",
	"stats":       "Sensor statistics",
}

// The limits of the dictionary, in characters, for strings that share them.
const (
	maxText   = 1023 // of most strings, and of those with a key of our own
	maxCustom = 4000 // of cs1 to cs6
)

func eventOf(d *document.Document) (*event, error) {
	dataset := strings.TrimPrefix(d.Event.Dataset, "oddcert.")
	e := &event{class: dataset, name: names[dataset], severity: noSeverity}
	if dataset == "alert" {
		e.class, e.name = d.Rule.ID, d.Rule.Name
		if s, ok := severities[d.Rule.Level]; ok {
			e.severity = s
		}
	} else if e.name == "" {
		return nil, ErrNoForm
	}

	e.add("externalId", "eventId", 40, d.Event.ID)
	e.at("rt", "devTime", d.Time)
	e.add("", "devTimeFormat", 64, "MMM dd yyyy HH:mm:ss.SSS z")
	e.add("", "sev", 2, strconv.Itoa(e.severity))
	e.add("cat", "cat", maxText, dataset)
	e.end("src", "c6a2", "Source IPv6 Address", "src", d.Source.IP)
	e.port("spt", "srcPort", &d.Source)
	e.end("dst", "c6a3", "Destination IPv6 Address", "dst", d.Destination.IP)
	e.port("dpt", "dstPort", &d.Destination)
	e.add("proto", "proto", 31, strings.ToUpper(d.Network.Transport))
	e.add("dhost", "serverName", maxText, d.Destination.Domain)
	e.add("reason", "reason", maxText, d.Event.Reason)
	e.add("msg", "msg", maxText, d.Message)
	if dataset == "alert" {
		e.add("", "ruleName", maxText, d.Rule.Name)
	}

	leaf := &d.TLS.Server
	sum, subject, issuer, until := leaf.Hash.SHA256, leaf.Subject, leaf.Issuer, leaf.NotAfter
	if c := &d.Oddcert.Certificate; c.Hash.SHA256 != "" { // a certificate or a sighting
		sum, subject, issuer, until = c.Hash.SHA256, c.Subject, c.Issuer, c.X509.NotAfter
	}
	e.add("fileHash", "certificateSHA256", 255, sum)
	e.custom("cs1", "Certificate subject", "certificateSubject", subject)
	e.custom("cs2", "Certificate issuer", "certificateIssuer", issuer)
	e.labelled("deviceCustomDate1", "Certificate not after", "certificateNotAfter", field{when: until})
	e.custom("cs3", "Verdict", "verdict", d.Oddcert.Verdict)
	e.custom("cs4", "Trust", "trust", d.Oddcert.Trust.Status)
	e.custom("cs5", "JA4", "ja4", d.Oddcert.JA4)
	e.custom("cs6", "TLS version and cipher suite", "tls", strings.TrimSpace(d.TLS.Version+" "+d.TLS.Cipher))
	e.add("oddcertNetworkCommunityId", "communityId", maxText, d.Network.CommunityID)
	e.add("oddcertClientJA3", "ja3", maxText, d.TLS.Client.JA3)
	e.add("oddcertServerJA3S", "ja3s", maxText, d.TLS.Server.JA3S)
	e.add("oddcertThreatTechnique", "technique", maxText, strings.Join(d.Threat.Technique.ID, ","))
	e.add("oddcertKeyProof", "keyProof", maxText, d.Oddcert.KeyProof)
	e.add("oddcertCertificates", "certificates", maxText, d.Oddcert.Certificates)
	e.add("oddcertCertificatesLoss", "loss", maxText, d.Oddcert.Loss)
	e.add("oddcertSightingChange", "change", maxText, d.Oddcert.Sighting.Change)
	e.add("oddcertSightingPreviousSHA256", "previousSHA256", maxText, d.Oddcert.Sighting.Previous.Hash.SHA256)
	if n := max(d.Oddcert.Suppressed.Count, d.Oddcert.Correlation.Count); n > 0 {
		e.add("cnt", "count", 20, strconv.FormatUint(n, 10))
	}

	app := d.Network.Application
	if app == "" {
		app = d.Network.Protocol
	}
	e.add("app", "app", 31, strings.ToUpper(app))
	e.at("start", "start", d.Event.Start)
	if ok := d.TLS.Established; ok != nil {
		e.add("outcome", "outcome", 63, map[bool]string{true: "success", false: "failure"}[*ok])
	}
	e.add("dvchost", "sensor", 100, d.Observer.Name)
	e.add("deviceInboundInterface", "interface", 128, d.Observer.Ingress.Interface.Name)
	e.add("deviceDirection", "", 1, map[string]string{"inbound": "0", "outbound": "1"}[d.Network.Direction])
	e.add("", "direction", maxText, d.Network.Direction)
	e.add("smac", "srcMAC", 17, colons(d.Source.MAC))
	e.add("dmac", "dstMAC", 17, colons(d.Destination.MAC))
	e.add("filePath", "file", maxText, d.Log.File.Path)
	if n := d.Oddcert.PCAP.PacketNumber; n > 0 {
		e.labelled("cn1", "Packet number", "packetNumber", field{text: strconv.FormatUint(n, 10), limit: 20})
	}
	if dataset == "stats" {
		e.statistics(d.Oddcert.Stats)
	}
	return e, nil
}

// statistics adds the counts that tell whether the sensor sees and loses something.
func (e *event) statistics(raw json.RawMessage) {
	var s struct {
		Capture struct {
			Frames  uint64 `json:"frames"`
			Dropped uint64 `json:"dropped"`
		} `json:"capture"`
		Parser struct {
			Handshakes uint64 `json:"handshakes"`
		} `json:"parser"`
	}
	if json.Unmarshal(raw, &s) != nil {
		return // it says that the sensor lives, at least
	}
	count := func(key, label, leef string, n uint64) {
		e.labelled(key, label, leef, field{text: strconv.FormatUint(n, 10), limit: 20})
	}
	count("cn1", "Frames", "frames", s.Capture.Frames)
	count("cn2", "Handshakes", "handshakes", s.Parser.Handshakes)
	count("cn3", "Dropped frames", "droppedFrames", s.Capture.Dropped)
}

func (e *event) add(cef, leef string, limit int, text string) {
	e.fields = append(e.fields, field{cef: cef, leef: leef, limit: limit, text: text})
}

func (e *event) at(cef, leef string, when time.Time) {
	e.fields = append(e.fields, field{cef: cef, leef: leef, limit: 64, when: when})
}

// custom adds one of the strings that CEF leaves to vendors.
func (e *event) custom(cef, label, leef, text string) {
	e.labelled(cef, label, leef, field{text: text, limit: maxCustom})
}

func (e *event) labelled(cef, label, leef string, f field) {
	if !f.when.IsZero() {
		f.limit = 64
	}
	f.cef, f.label, f.leef = cef, label, leef
	e.fields = append(e.fields, f)
}

// end adds the address of an end of the flow. CEF has other keys for IPv6.
func (e *event) end(v4, v6, label, leef, text string) {
	f := field{cef: v4, leef: leef, limit: 64, text: text}
	if ip, err := netip.ParseAddr(text); err == nil && ip.Unmap().Is6() {
		f.cef, f.label = v6, label
	}
	e.fields = append(e.fields, f)
}

// port adds the port of an end of the flow, where there is an end at all.
func (e *event) port(cef, leef string, p *document.Endpoint) {
	if p.IP != "" {
		e.add(cef, leef, 5, strconv.Itoa(int(p.Port)))
	}
}

// colons turns the hyphens of a MAC address into the colons that both formats want.
func colons(mac string) string { return strings.ReplaceAll(mac, "-", ":") }
