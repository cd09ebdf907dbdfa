package query

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
)

// own are the fields of documents that no record has, with their types.
var own = map[string]string{
	"oddcert.inventory.first":      "date_nanos", // when it was first shown; @timestamp is the last time
	"oddcert.inventory.handshakes": "long",
	"oddcert.inventory.servers":    "long",
	"oddcert.inventory.clients":    "long",
	"oddcert.inventory.names":      "long", // asked for
	"oddcert.inventory.estimated":  "keyword",
	"oddcert.inventory.flags":      "keyword",
}

// shared are the fields of records that documents have too, beside those of the
// certificate. What is of servers has a value for each server of Sightings.
var shared = []string{
	"@timestamp", "destination.ip", "destination.mac", "destination.port", "network.transport", "tls.client.server_name",
	"log.file.path", "observer.ingress.interface.name", "rule.level",
	"oddcert.alerts", "oddcert.carrier", "oddcert.chain.hash.sha256", "oddcert.key_proof", "oddcert.pcap.filter",
	"oddcert.pcap.packet_number", "oddcert.trust.status", "oddcert.trust.reasons",
}

// Fields are the fields of documents with their types, as [rules.ParseSelection] wants
// them.
func Fields() map[string]string {
	types := map[string]string{}
	for _, f := range schema.Fields() {
		if strings.HasPrefix(f.Name, "oddcert.certificate.") || strings.HasPrefix(f.Name, "tls.server.") || slices.Contains(shared, f.Name) {
			types[f.Name] = string(f.Type)
		}
	}
	for _, not := range []string{"oddcert.certificate.der", "oddcert.certificate.position", "oddcert.certificate.truncated", "oddcert.certificate.abridged",
		"tls.server.ja3s", "tls.server.certificate_chain", "tls.server.certificate"} {
		delete(types, not)
	}
	for name, t := range own {
		types[name] = t
	}
	return types
}

type document struct {
	Time        string         `json:"@timestamp"`
	Destination *addresses     `json:"destination,omitempty"`
	Network     *network       `json:"network,omitempty"`
	TLS         tlsMembers     `json:"tls"`
	Log         *logFile       `json:"log,omitempty"`
	Observer    map[string]any `json:"observer,omitempty"`
	Rule        *rule          `json:"rule,omitempty"`
	Oddcert     members        `json:"oddcert"`
}

type addresses struct {
	IP   []string `json:"ip,omitempty"`
	MAC  []string `json:"mac,omitempty"`
	Port []uint16 `json:"port,omitempty"`
}

type network struct {
	Transport []string `json:"transport"`
}

type tlsMembers struct {
	Client *client         `json:"client,omitempty"`
	Server json.RawMessage `json:"server,omitempty"`
}

type client struct {
	Name []string `json:"server_name"`
}

type logFile struct {
	File struct {
		Path string `json:"path"`
	} `json:"file"`
}

type rule struct {
	Level string `json:"level"`
}

type members struct {
	Certificate json.RawMessage `json:"certificate"`
	Chain       *hashes         `json:"chain,omitempty"`
	Trust       *trustMembers   `json:"trust,omitempty"`
	KeyProof    string          `json:"key_proof,omitempty"`
	Carrier     []string        `json:"carrier,omitempty"`
	Alerts      uint64          `json:"alerts,omitempty"`
	PCAP        pcap            `json:"pcap"`
	Inventory   inventoryFields `json:"inventory"`
}

type hashes struct {
	Hash struct {
		SHA256 []string `json:"sha256"`
	} `json:"hash"`
}

type trustMembers struct {
	Status  string   `json:"status"`
	Reasons []string `json:"reasons,omitempty"`
}

type pcap struct {
	Frame  uint64 `json:"packet_number,omitempty"`
	Filter string `json:"filter,omitempty"`
}

type inventoryFields struct {
	First      string   `json:"first"`
	Handshakes uint64   `json:"handshakes"`
	Servers    uint64   `json:"servers"`
	Clients    uint64   `json:"clients"`
	Names      uint64   `json:"names"`
	Estimated  []string `json:"estimated,omitempty"` // which of the numbers
	Flags      []string `json:"flags,omitempty"`
}

// Document returns what is known of the certificate as one JSON object, with the names
// that records have, see [Fields]. Its time is the last handshake's, like where it was
// captured. The bytes of the certificate are in it only if der is set.
func (r *Row) Document(der bool) ([]byte, error) {
	bytesOf, err := r.store.DER(r.SHA256)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", hex(r.SHA256), err)
	}
	sightings, err := r.Sightings()
	if err != nil {
		return nil, err
	}
	at := r.At
	if at == 0 {
		at = r.Last.Time
	}
	full, leaf := output.CertificateMembers(cert.Parse(bytesOf), at)
	head := []byte(`{"role":`)
	roles, err := json.Marshal(RoleNames(r.Roles))
	if err != nil {
		return nil, err
	}
	head = append(append(head, roles...), ',')
	full = append(head, full...)
	if der {
		full = append(full, `"der":"`...)
		full = append(base64.StdEncoding.AppendEncode(full, bytesOf), `",`...)
	}
	d := document{
		Time: Time(r.Last.Time),
		Oddcert: members{
			Certificate: object(full), Alerts: r.Alerts,
			PCAP: pcap{r.Last.Frame, frames.Filter(r.Last.Flow)},
			Inventory: inventoryFields{First: Time(r.First.Time), Handshakes: r.Handshakes, Servers: r.Servers.N, Clients: r.Clients.N,
				Names: r.AskedFor.N, Flags: r.Flags.Names()},
		},
	}
	for name, estimated := range map[string]bool{"servers": r.Servers.Estimated, "clients": r.Clients.Estimated, "names": r.AskedFor.Estimated} {
		if estimated {
			d.Oddcert.Inventory.Estimated = append(d.Oddcert.Inventory.Estimated, name)
		}
	}
	slices.Sort(d.Oddcert.Inventory.Estimated)
	if len(leaf) > 0 {
		d.TLS.Server = object(append([]byte{'{'}, leaf...))
	}
	names, err := r.Asked()
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		d.TLS.Client = &client{names}
	}
	if len(sightings) > 0 {
		d.Destination, d.Network = new(addresses), new(network)
	}
	for i := range sightings {
		k := &sightings[i].Server
		if k.Address.IsValid() {
			once(&d.Destination.IP, k.Address.String())
			once(&d.Destination.Port, k.Port)
		} else {
			once(&d.Destination.MAC, strings.ToUpper(strings.ReplaceAll(ServerName(*k), ":", "-")))
		}
		once(&d.Network.Transport, k.Transport.String())
		once(&d.Oddcert.Carrier, k.Carrier)
	}
	if r.Last.Path != "" {
		d.Log = new(logFile)
		d.Log.File.Path = r.Last.Path
	}
	if r.Last.Interface != "" {
		d.Observer = map[string]any{"ingress": map[string]any{"interface": map[string]any{"name": r.Last.Interface}}}
	}
	if r.Level != "" {
		d.Rule = &rule{r.Level}
	}
	if r.Judged {
		d.Oddcert.Trust = &trustMembers{r.Trust.String(), r.Reasons}
	}
	if len(RoleNames(r.Roles)) > 0 && RoleNames(r.Roles)[0] == "leaf" {
		d.Oddcert.KeyProof = r.Proof.String()
		d.Oddcert.Chain = new(hashes)
		d.Oddcert.Chain.Hash.SHA256 = append(d.Oddcert.Chain.Hash.SHA256, hex(r.SHA256))
		for _, h := range r.Chain {
			d.Oddcert.Chain.Hash.SHA256 = append(d.Oddcert.Chain.Hash.SHA256, hex(h))
		}
	} else {
		d.TLS.Server = nil // what it says of a server is of the leaf
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(&d); err != nil {
		return nil, fmt.Errorf("write certificate %s as JSON: %w", hex(r.SHA256), err)
	}
	return b.Bytes(), nil
}

// object closes an object whose last member has a comma after it.
func object(b []byte) json.RawMessage {
	return append(bytes.TrimSuffix(b, []byte{','}), '}')
}

func once[T comparable](list *[]T, v T) {
	if !slices.Contains(*list, v) {
		*list = append(*list, v)
	}
}
