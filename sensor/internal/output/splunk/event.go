package splunk

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/document"
)

// event is one event of a request (Splunk, Getting Data In, "Format events for HTTP
// Event Collector").
type event struct {
	Time       json.Number     `json:"time"` // seconds since the epoch
	Host       string          `json:"host,omitempty"`
	Source     string          `json:"source"`
	Sourcetype string          `json:"sourcetype"`
	Index      string          `json:"index,omitempty"`
	Event      json.RawMessage `json:"event"`
	Fields     fields          `json:"fields,omitempty"`
}

// fields are the fields of Splunk's Common Information Model that a record fills:
// strings, and lists of them.
//
// They are sent as indexed fields beside the event, which stays the record that it is
// everywhere else. So searches by these names, and tstats, work at once, without an
// add-on that maps names and before anybody accelerates a data model; and text that
// counts as data is not sent twice.
type fields map[string]any

func (f fields) set(name, value string) {
	if value != "" {
		f[name] = value
	}
}

func (f fields) list(name string, values []string) {
	switch n := min(len(values), maxNames); {
	case n == 1:
		f.set(name, values[0])
	case n > 1:
		f[name] = values[:n]
	}
}

func (f fields) number(name string, n int) {
	if n != 0 {
		f[name] = strconv.Itoa(n)
	}
}

// seconds sets a time as the data model calculates with it, or a length of time.
func (f fields) seconds(name string, n int64) { f[name] = strconv.FormatInt(n, 10) }

func (f fields) flag(name string, b *bool) {
	if b != nil {
		f[name] = strconv.FormatBool(*b)
	}
}

// encode is the event of a record.
func (d *Destination) encode(r *output.Record) ([]byte, error) {
	doc, err := document.Read(r.JSON)
	if err != nil {
		return nil, err
	}
	e := event{
		Time: epoch(r.Time), Host: doc.Observer.Name, Source: d.source(), Index: d.config.Index,
		Sourcetype: "oddcert:" + r.Dataset.Form().String(), Event: r.JSON, Fields: cim(doc),
	}
	return json.Marshal(&e)
}

// epoch is a time in seconds with six digits behind the point: of more, Splunk keeps
// none.
func epoch(nanoseconds int64) json.Number {
	t := time.Unix(0, nanoseconds).UnixMicro()
	sign := ""
	if t < 0 {
		sign, t = "-", -t
	}
	fraction := strconv.FormatInt(1_000_000+t%1_000_000, 10)[1:]
	return json.Number(sign + strconv.FormatInt(t/1_000_000, 10) + "." + fraction)
}

// cim maps a record to the data models Certificates, and Intrusion Detection for an
// alert (Splunk, Common Information Model Add-on Manual 6.0, "Certificates",
// "Intrusion Detection" and "CIM fields per associated data model").
func cim(doc *document.Document) fields {
	f := fields{}
	f.set("event_id", doc.Event.ID)
	f.set("vendor_product", "oddcert")
	f.set("dvc", doc.Observer.Name)
	if doc.Event.Dataset == "oddcert.stats" {
		return f
	}
	f.set("src", doc.Source.IP)
	f.number("src_port", int(doc.Source.Port))
	f.set("dest", doc.Destination.IP)
	f.number("dest_port", int(doc.Destination.Port))
	f.set("transport", doc.Network.Transport)
	f.set("app", doc.Network.Application)
	f.set("ssl_version", version(&doc.TLS))
	f.certificate(doc)
	if doc.Event.Dataset == "oddcert.alert" {
		f.alert(doc)
	}
	return f
}

// version is the version of the protocol as Splunk's own add-ons write it: TLSv1.2.
func version(t *document.TLS) string {
	if t.Version == "" {
		return ""
	}
	return strings.ToUpper(t.VersionProtocol) + "v" + t.Version
}

// certificate is about the one certificate of a certificate or a sighting, or else
// about the server's leaf.
func (f fields) certificate(doc *document.Document) {
	c := &doc.Oddcert.Certificate
	if c.Hash.SHA256 == "" && len(doc.Oddcert.Chain.Certificates) > 0 {
		c = &doc.Oddcert.Chain.Certificates[0]
	}
	server := &doc.TLS.Server
	first := func(a, b string) string {
		if a != "" {
			return a
		}
		return b
	}
	f.set("ssl_hash", first(c.Hash.SHA256, server.Hash.SHA256))
	f.set("ssl_subject", first(c.Subject, server.Subject))
	f.set("ssl_issuer", first(c.Issuer, server.Issuer))
	f.set("ssl_serial", c.SerialNumber)
	f.set("ssl_signature_algorithm", c.X509.SignatureAlgorithm)
	f.set("ssl_publickey_algorithm", c.X509.PublicKeyAlgorithm)
	f.flag("ssl_self_signed", c.SelfSigned) // the data model has no field for it
	f.list("ssl_name", c.Names[:min(len(c.Names), 1)])
	f.list("ssl_subject_common_name", c.X509.Subject.CommonName)
	f.list("ssl_subject_organization", c.X509.Subject.Organization)
	f.list("ssl_subject_unit", c.X509.Subject.OrganizationalUnit)
	f.list("ssl_subject_locality", c.X509.Subject.Locality)
	f.list("ssl_subject_state", c.X509.Subject.StateOrProvince)
	f.list("ssl_issuer_common_name", c.X509.Issuer.CommonName)
	f.list("ssl_issuer_organization", c.X509.Issuer.Organization)
	f.list("ssl_issuer_unit", c.X509.Issuer.OrganizationalUnit)
	f.list("ssl_issuer_locality", c.X509.Issuer.Locality)
	f.list("ssl_issuer_state", c.X509.Issuer.StateOrProvince)
	start, noStart := time.Parse(time.RFC3339, c.NotBefore)
	end, noEnd := time.Parse(time.RFC3339, c.NotAfter)
	if noEnd != nil && !server.NotAfter.IsZero() {
		end, noEnd = server.NotAfter, nil
	}
	if noStart == nil {
		f.seconds("ssl_start_time", start.Unix())
	}
	if noEnd == nil {
		f.seconds("ssl_end_time", end.Unix())
	}
	if noStart == nil && noEnd == nil {
		f.seconds("ssl_validity_window", end.Unix()-start.Unix())
		valid := !doc.Time.Before(start) && !doc.Time.After(end)
		f.flag("ssl_is_valid", &valid)
	}
}

// alert is about the rule that matched.
func (f fields) alert(doc *document.Document) {
	f.set("signature", doc.Rule.Name)
	f.set("signature_id", doc.Rule.ID)
	f.set("category", doc.Rule.Category)
	f.set("severity", doc.Rule.Level) // low, medium, high, critical: the data model has the same words
	f.set("ids_type", "network")
	f.set("action", "allowed")
	f.list("mitre_technique_id", doc.Threat.Technique.ID)
}
