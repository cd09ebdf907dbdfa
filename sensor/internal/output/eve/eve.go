// Package eve writes records as Suricata's EVE JSON, so that what reads Suricata's
// eve.json reads them too.
//
// The names and the forms of values are those of the Suricata user guide, "EVE JSON
// Format", and of Suricata's published schema (etc/schema.json of release 8). What a
// record does not tell is left out. One member is ours: oddcert, at the top of each
// event. Suricata's schema has no place for it there; readers ignore it or keep it.
package eve

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/document"
	"github.com/oddcert/oddcert/sensor/internal/output/logfile"
)

// Datasets are those that have an EVE event: alert, tls or quic, and stats. A full
// handshake is asked for because Suricata's tls event has the certificate in it.
const Datasets = output.Set(1<<output.Alert | 1<<output.FullHandshake | 1<<output.Stats)

// Format makes events of records. Records of other datasets than [Datasets] have
// none.
type Format struct{}

var _ logfile.Format = Format{}

// Files is the file at the path, as eve.json is.
func (Format) Files() []logfile.File { return []logfile.File{{}} }

// Format gives the events of r. A handshake over QUIC whose certificate could be
// seen has two: Suricata's quic event has no certificate, so a tls event has it.
func (Format) Format(r *output.Record, emit func(file int, line []byte)) error {
	if !Datasets.Has(r.Dataset) {
		return nil
	}
	d, err := document.Read(r.JSON)
	if err != nil {
		return err
	}
	var events []*event
	switch {
	case r.Dataset == output.Alert:
		events = append(events, alertOf(d))
	case r.Dataset == output.Stats:
		e, err := statsOf(d)
		if err != nil {
			return err
		}
		events = append(events, e)
	default:
		events = handshakesOf(d)
	}
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	for _, e := range events {
		line.Reset()
		if err := enc.Encode(e); err != nil {
			return fmt.Errorf("encode EVE: %w", err)
		}
		emit(0, bytes.TrimSuffix(line.Bytes(), []byte{'\n'}))
	}
	return nil
}

// event is a line of eve.json, in the order of Suricata's members.
type event struct {
	Timestamp   string  `json:"timestamp"`
	FlowID      uint64  `json:"flow_id,omitzero"`
	InIface     string  `json:"in_iface,omitzero"`
	PcapCnt     uint64  `json:"pcap_cnt,omitzero"`
	EventType   string  `json:"event_type"`
	VLAN        []int   `json:"vlan,omitempty"`
	SrcIP       string  `json:"src_ip,omitzero"`
	SrcPort     *uint16 `json:"src_port,omitzero"`
	DestIP      string  `json:"dest_ip,omitzero"`
	DestPort    *uint16 `json:"dest_port,omitzero"`
	Proto       string  `json:"proto,omitzero"`
	IPV         int     `json:"ip_v,omitzero"`
	CommunityID string  `json:"community_id,omitzero"`
	Alert       *alert  `json:"alert,omitzero"`
	TLS         *tls    `json:"tls,omitzero"`
	QUIC        *quic   `json:"quic,omitzero"`
	Stats       *stats  `json:"stats,omitzero"`
	AppProto    string  `json:"app_proto,omitzero"`
	AppOrig     string  `json:"app_proto_orig,omitzero"`
	Direction   string  `json:"direction,omitzero"`
	Flow        *flow   `json:"flow,omitzero"`
	PcapFile    string  `json:"pcap_filename,omitzero"`
	Host        string  `json:"host,omitzero"`
	Oddcert     *own    `json:"oddcert"`
}

// flow is the ends of the flow, the client as its source, in an event whose source
// is that of a packet.
type flow struct {
	SrcIP    string  `json:"src_ip,omitzero"`
	DestIP   string  `json:"dest_ip,omitzero"`
	SrcPort  *uint16 `json:"src_port,omitzero"`
	DestPort *uint16 `json:"dest_port,omitzero"`
}

// alert is Suricata's alert object.
type alert struct {
	Action      string              `json:"action"`
	GID         int                 `json:"gid"`
	SignatureID uint32              `json:"signature_id"`
	Rev         int                 `json:"rev"`
	Signature   string              `json:"signature"`
	Category    string              `json:"category"`
	Severity    int                 `json:"severity"`
	References  []string            `json:"references,omitempty"`
	Metadata    map[string][]string `json:"metadata,omitempty"`
}

// tls is Suricata's tls object with the members of its option extended, and the
// certificates.
type tls struct {
	certificate
	SessionResumed bool         `json:"session_resumed,omitzero"`
	FromProto      string       `json:"from_proto,omitzero"`
	SNI            string       `json:"sni,omitzero"`
	Version        string       `json:"version,omitzero"`
	JA3            *hash        `json:"ja3,omitzero"`
	JA3S           *hash        `json:"ja3s,omitzero"`
	JA4            string       `json:"ja4,omitzero"`
	ClientALPNs    []string     `json:"client_alpns,omitempty"`
	ServerALPNs    []string     `json:"server_alpns,omitempty"`
	Client         *certificate `json:"client,omitzero"`
}

// certificate is the leaf of an end, and what else that end sent.
type certificate struct {
	Subject     string   `json:"subject,omitzero"`
	IssuerDN    string   `json:"issuerdn,omitzero"`
	AltNames    []string `json:"subjectaltname,omitempty"`
	Serial      string   `json:"serial,omitzero"`      // 0A:1B
	Fingerprint string   `json:"fingerprint,omitzero"` // SHA-1, 0a:1b
	NotBefore   string   `json:"notbefore,omitzero"`   // 2026-11-29T00:00:00, UTC
	NotAfter    string   `json:"notafter,omitzero"`
	DER         string   `json:"certificate,omitzero"` // base64
	Chain       []string `json:"chain,omitempty"`      // where there is more than one
}

// trust is whether the chain is trusted, and by which store.
type trust struct {
	Status string `json:"status"`
	Store  string `json:"store,omitzero"`
}

// hash is a JA3 or a JA3S. Records do not have the string that it is of.
type hash struct {
	Hash string `json:"hash"`
}

// quic is Suricata's quic object.
type quic struct {
	SNI  string `json:"sni,omitzero"`
	JA3  *hash  `json:"ja3,omitzero"`
	JA3S *hash  `json:"ja3s,omitzero"`
	JA4  string `json:"ja4,omitzero"`
}

// own is what EVE has no place for.
type own struct {
	ID             string               `json:"id"` // event.id of the record: the same in all outputs
	Labels         map[string]string    `json:"labels,omitempty"`
	Carrier        string               `json:"carrier,omitzero"`
	Cipher         string               `json:"cipher,omitzero"`
	Established    *bool                `json:"established,omitzero"`
	Certificates   string               `json:"certificates,omitzero"` // extracted, encrypted, resumed, none, lost
	Loss           string               `json:"loss,omitzero"`
	SHA256         []string             `json:"sha256,omitempty"` // of the chain, in order
	ClientSHA256   []string             `json:"client_sha256,omitempty"`
	Trust          *trust               `json:"trust,omitzero"`
	KeyProof       string               `json:"key_proof,omitzero"`
	Network        []string             `json:"network,omitempty"`
	Alerts         int                  `json:"alerts,omitzero"` // raised by the handshake
	RuleID         string               `json:"rule_id,omitzero"`
	Ruleset        string               `json:"ruleset,omitzero"`
	Verdict        string               `json:"verdict,omitzero"`
	Reason         string               `json:"reason,omitzero"`
	VerdictReasons []string             `json:"verdict_reasons,omitempty"`
	Suppressed     *document.Suppressed `json:"suppressed,omitzero"`
	Filter         string               `json:"display_filter,omitzero"` // Wireshark's, for the flow
	Stats          json.RawMessage      `json:"stats,omitempty"`
}
