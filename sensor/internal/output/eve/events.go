package eve

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output/document"
)

// timestamp is the form of Suricata's times, and date that of the times of
// certificates, which are UTC.
const (
	timestamp = "2006-01-02T15:04:05.000000-0700"
	date      = "2006-01-02T15:04:05"
)

// head returns an event with what all have: the client is the source.
func head(d *document.Document, kind string) *event {
	e := &event{
		Timestamp:   d.Time.UTC().Format(timestamp),
		FlowID:      flowID(d),
		InIface:     d.Observer.Ingress.Interface.Name,
		PcapCnt:     d.Oddcert.PCAP.PacketNumber,
		EventType:   kind,
		SrcIP:       d.Source.IP,
		DestIP:      d.Destination.IP,
		CommunityID: d.Network.CommunityID,
		PcapFile:    d.Log.File.Path,
		Host:        d.Observer.Name,
		Oddcert: &own{
			ID:           d.Event.ID,
			Labels:       d.Labels,
			Carrier:      d.Oddcert.Carrier,
			Cipher:       d.TLS.Cipher,
			Established:  d.TLS.Established,
			Certificates: d.Oddcert.Certificates,
			Loss:         d.Oddcert.Loss,
			SHA256:       d.Oddcert.Chain.SHA256,
			ClientSHA256: d.Oddcert.ClientChain.SHA256,
			KeyProof:     d.Oddcert.KeyProof,
			Network:      d.Oddcert.Network,
			Alerts:       d.Oddcert.Alerts,
			Filter:       d.Oddcert.PCAP.Filter,
		},
	}
	if d.Oddcert.Trust.Status != "" {
		e.Oddcert.Trust = &trust{d.Oddcert.Trust.Status, d.Oddcert.Trust.Store}
	}
	switch d.Network.Transport {
	case "tcp", "udp", "sctp":
		e.Proto = strings.ToUpper(d.Network.Transport)
	}
	if e.Proto != "" || d.Source.Port > 0 {
		e.SrcPort = &d.Source.Port
	}
	if e.Proto != "" || d.Destination.Port > 0 {
		e.DestPort = &d.Destination.Port
	}
	switch d.Network.Type {
	case "ipv4":
		e.IPV = 4
	case "ipv6":
		e.IPV = 6
	}
	for _, tag := range []document.VLAN{d.Network.VLAN, d.Network.Inner.VLAN} {
		if id, err := strconv.Atoi(tag.ID); err == nil {
			e.VLAN = append(e.VLAN, id)
		}
	}
	switch d.Network.Protocol {
	case "quic":
		e.AppProto = "quic"
	case "tls", "dtls": // Suricata has no name for DTLS
		e.AppProto = "tls"
		e.AppOrig = fromProto(d)
	}
	return e
}

// flowID is the same in all events of a flow: of its community id, or of the
// addresses of its link where it has none. It has as many bits as Suricata's, which
// are those that a number of JavaScript holds.
func flowID(d *document.Document) uint64 {
	key := d.Network.CommunityID
	if key == "" {
		if d.Source.MAC == "" && d.Destination.MAC == "" {
			return 0
		}
		key = d.Network.Transport + " " + d.Source.MAC + " " + d.Destination.MAC
	}
	sum := sha256.Sum256([]byte(key))
	return binary.BigEndian.Uint64(sum[:])&(1<<51-1) | 1 // 0 is for none
}

// fromProto is the protocol that the flow began with, in Suricata's name for it.
func fromProto(d *document.Document) string {
	switch d.Network.Application {
	case "http-connect":
		return "http"
	case "postgresql":
		return "pgsql"
	}
	return d.Network.Application
}

// handshakesOf returns the events of a handshake.
func handshakesOf(d *document.Document) []*event {
	if d.Network.Protocol != "quic" {
		e := head(d, "tls")
		e.TLS = tlsOf(d)
		return []*event{e}
	}
	e := head(d, "quic")
	e.QUIC = quicOf(d)
	if !hasCertificate(d) {
		return []*event{e}
	}
	seen := head(d, "tls")
	seen.TLS = tlsOf(d)
	return []*event{e, seen}
}

func hasCertificate(d *document.Document) bool {
	return len(d.TLS.Server.CertificateChain)+len(d.TLS.Client.CertificateChain) > 0
}

func quicOf(d *document.Document) *quic {
	return &quic{SNI: d.TLS.Client.ServerName, JA3: hashOf(d.TLS.Client.JA3), JA3S: hashOf(d.TLS.Server.JA3S), JA4: d.Oddcert.JA4}
}

func tlsOf(d *document.Document) *tls {
	t := &tls{
		certificate:    certificateOf(&d.TLS.Server, &d.Oddcert.Chain),
		SessionResumed: d.TLS.Resumed,
		FromProto:      fromProto(d),
		SNI:            d.TLS.Client.ServerName,
		Version:        version(d.TLS.VersionProtocol, d.TLS.Version),
		JA3:            hashOf(d.TLS.Client.JA3),
		JA3S:           hashOf(d.TLS.Server.JA3S),
		JA4:            d.Oddcert.JA4,
		ClientALPNs:    d.Oddcert.Hello.ALPN,
	}
	if d.TLS.NextProtocol != "" {
		t.ServerALPNs = []string{d.TLS.NextProtocol}
	}
	if len(d.TLS.Client.CertificateChain) > 0 {
		c := certificateOf(&d.TLS.Client, &d.Oddcert.ClientChain)
		t.Client = &c
	}
	return t
}

// certificateOf returns the leaf of an end. A leaf that was not seen whole has no
// DER and no hash.
func certificateOf(p *document.Party, chain *document.Chain) certificate {
	c := certificate{
		Subject:     p.Subject,
		IssuerDN:    p.Issuer,
		AltNames:    p.X509.AlternativeNames,
		Serial:      serial(p.X509.SerialNumber),
		Fingerprint: strings.ToLower(colons(p.Hash.SHA1)),
		NotBefore:   dateOf(p.NotBefore),
		NotAfter:    dateOf(p.NotAfter),
	}
	whole := len(chain.Certificates) > 0 && !chain.Certificates[0].Truncated
	if whole && len(p.CertificateChain) > 0 {
		c.DER = p.CertificateChain[0]
	}
	if !whole || len(p.CertificateChain) > 1 {
		c.Chain = p.CertificateChain
	}
	return c
}

// dateOf is the form of the times of certificates; those before the year 1000 and
// after 2999 have none in the schema.
func dateOf(t time.Time) string {
	if t = t.UTC(); t.Year() < 1000 || t.Year() > 2999 {
		return ""
	}
	return t.Format(date)
}

// serial is a serial number as Suricata has it: the octets of the DER, so that a
// positive one never begins with a bit that is set (X.690, section 8.3).
func serial(number string) string {
	n, ok := new(big.Int).SetString(number, 16)
	if !ok || n.Sign() == 0 {
		return colons(number)
	}
	octets := n.Bytes()
	if n.Sign() < 0 {
		size := new(big.Int).Not(n).BitLen()/8 + 1
		octets = n.Add(n, new(big.Int).Lsh(big.NewInt(1), uint(8*size))).Bytes()
	} else if octets[0] >= 0x80 {
		octets = slices.Insert(octets, 0, 0)
	}
	return colons(fmt.Sprintf("%X", octets))
}

// colons puts a colon between the bytes of a text in hex.
func colons(hex string) string {
	var b strings.Builder
	for i, digit := range hex {
		if i > 0 && i%2 == 0 {
			b.WriteByte(':')
		}
		b.WriteRune(digit)
	}
	return b.String()
}

func hashOf(sum string) *hash {
	if sum == "" {
		return nil
	}
	return &hash{sum}
}

// version is Suricata's name of a version, and one like it where Suricata has none.
func version(protocol, number string) string {
	switch name := protocol + number; name {
	case "":
		return "UNDETERMINED"
	case "ssl2.0":
		return "SSLv2"
	case "ssl3.0":
		return "SSLv3"
	case "tls1.0":
		return "TLSv1"
	}
	return strings.ToUpper(protocol) + " " + number
}

// alertOf returns the event of an alert. Its source is the server, as that of the
// packet is that Suricata's rules about certificates match; flow has the client as
// its source, as the tls event has. An alert that sums up others has
// no flow, and only the ends that these have in common.
func alertOf(d *document.Document) *event {
	e := head(d, "alert")
	if d.Network.Protocol != "" {
		e.Flow = &flow{SrcIP: e.SrcIP, DestIP: e.DestIP, SrcPort: e.SrcPort, DestPort: e.DestPort}
		e.Direction = "to_client"
	}
	e.SrcIP, e.DestIP = e.DestIP, e.SrcIP
	e.SrcPort, e.DestPort = e.DestPort, e.SrcPort
	severity, named := severityOf(d.Rule.Level)
	e.Alert = &alert{
		Action:      "allowed",
		GID:         1,
		SignatureID: signatureID(d.Rule.ID),
		Rev:         revision(d.Rule.Version),
		Signature:   d.Rule.Name,
		Category:    d.Rule.Category,
		Severity:    severity,
		References:  d.Rule.Reference,
		Metadata:    map[string][]string{"signature_severity": {named}},
	}
	// The names of these, with underscores in their values, are those of the rules
	// of Emerging Threats.
	technique := &d.Threat.Technique
	for key, values := range map[string][]string{
		"mitre_tactic_id":      d.Threat.Tactic.ID,
		"mitre_tactic_name":    d.Threat.Tactic.Name,
		"mitre_technique_id":   append(technique.ID, technique.Subtechnique.ID...),
		"mitre_technique_name": append(technique.Name, technique.Subtechnique.Name...),
		"oddcert_rule":         {d.Rule.ID},
		"oddcert_verdict":      {d.Oddcert.Verdict},
	} {
		for _, v := range values {
			if v != "" {
				e.Alert.Metadata[key] = append(e.Alert.Metadata[key], strings.ReplaceAll(v, " ", "_"))
			}
		}
	}
	switch {
	case d.Network.Protocol == "quic":
		e.QUIC = quicOf(d)
		if hasCertificate(d) {
			e.TLS = tlsOf(d)
		}
	case d.Network.Protocol != "":
		e.TLS = tlsOf(d)
	}
	e.Oddcert.RuleID, e.Oddcert.Ruleset = d.Rule.ID, d.Rule.Ruleset
	e.Oddcert.Verdict, e.Oddcert.VerdictReasons, e.Oddcert.Reason = d.Oddcert.Verdict, d.Oddcert.VerdictReasons, d.Event.Reason
	if d.Oddcert.Suppressed.Count > 0 {
		e.Oddcert.Suppressed = &d.Oddcert.Suppressed
	}
	return e
}

// severityOf returns Suricata's priority for a level, 1 for the worst, and the name
// that Emerging Threats has for it in signature_severity.
func severityOf(level string) (int, string) {
	switch level {
	case "critical":
		return 1, "Critical"
	case "high":
		return 2, "Major"
	case "medium":
		return 3, "Minor"
	}
	return 4, "Informational"
}

// Signature ids are in the range that the SID allocation of Emerging Threats
// (sidallocation.org) reserves for local use, 1,000,000 to 1,999,999, without its
// beginning, where people number their own rules.
const (
	firstSID = 1_100_000
	sids     = 900_000
)

// signatureID is always the same for a rule. Two rules may share one by chance: with
// a hundred rules, this is so in 1 of 180 sets of rules. The id of the rule itself
// is in the metadata.
func signatureID(rule string) uint32 {
	sum := sha256.Sum256([]byte(rule))
	return firstSID + uint32(binary.BigEndian.Uint64(sum[:])%sids)
}

// revision is the version of a rule as a number: 20261129 for the date 2026-11-29,
// 0 for a text that has none.
func revision(version string) int {
	digits := version
	if _, err := time.Parse(time.DateOnly, version); err == nil {
		digits = strings.ReplaceAll(version, "-", "")
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

// stats are the counters that Suricata has too, under its names. oddcert.stats has
// all of ours.
type stats struct {
	Capture *captured `json:"capture,omitzero"`
	Decoder decoded   `json:"decoder"`
	Flow    total     `json:"flow"`
	TCP     segments  `json:"tcp"`
	Detect  detected  `json:"detect"`
}

type captured struct {
	Packets uint64 `json:"kernel_packets"` // those dropped too, as Linux counts them
	Drops   uint64 `json:"kernel_drops"`
}

type decoded struct {
	Packets uint64 `json:"pkts"`
	Bytes   uint64 `json:"bytes"`
	Invalid uint64 `json:"invalid"`
	TCP     uint64 `json:"tcp"`
	UDP     uint64 `json:"udp"`
	SCTP    uint64 `json:"sctp"`
}

type total struct {
	Total uint64 `json:"total"`
}

type segments struct {
	Gaps    uint64 `json:"reassembly_gap"`
	Overlap uint64 `json:"overlap"`
}

type detected struct {
	Alert uint64 `json:"alert"`
}

// statsOf returns the event of a record of statistics.
func statsOf(d *document.Document) (*event, error) {
	var ours struct {
		Captures []string `json:"captures"`
		Capture  struct {
			Frames, Bytes, Dropped uint64
		} `json:"capture"`
		Decoded struct {
			TCP, UDP, SCTP, Malformed uint64
		} `json:"decoded"`
		Flows struct {
			Total, Gaps, Overlapping uint64
		} `json:"flows"`
		Records struct {
			Alerts uint64
		} `json:"records"`
	}
	if len(d.Oddcert.Stats) > 0 {
		if err := json.Unmarshal(d.Oddcert.Stats, &ours); err != nil {
			return nil, fmt.Errorf("read statistics: %w", err)
		}
	}
	e := head(d, "stats")
	e.Stats = &stats{
		Decoder: decoded{
			Packets: ours.Capture.Frames, Bytes: ours.Capture.Bytes, Invalid: ours.Decoded.Malformed,
			TCP: ours.Decoded.TCP, UDP: ours.Decoded.UDP, SCTP: ours.Decoded.SCTP,
		},
		Flow:   total{ours.Flows.Total},
		TCP:    segments{ours.Flows.Gaps, ours.Flows.Overlapping},
		Detect: detected{ours.Records.Alerts},
	}
	if len(ours.Captures) == 0 { // live: in a replay there is no kernel that drops
		e.Stats.Capture = &captured{ours.Capture.Frames + ours.Capture.Dropped, ours.Capture.Dropped}
	}
	e.Oddcert.Stats = d.Oddcert.Stats
	return e, nil
}
