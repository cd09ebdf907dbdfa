package output

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
)

// object is a JSON object that is put together by hand in the reference
// documents. Members with no value are left out, as in records.
type object map[string]any

func (o object) with(more object) object {
	maps.Copy(o, more)
	return o
}

func strip(v any) any {
	switch v := v.(type) {
	case object:
		out := map[string]any{}
		for k, m := range v {
			switch m := strip(m).(type) {
			case nil:
			default:
				out[k] = m
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []object:
		var out []any
		for _, m := range v {
			out = append(out, strip(m))
		}
		if out == nil {
			return nil
		}
		return out
	case []string:
		if len(v) == 0 {
			return nil
		}
		return v
	case string:
		if v == "" {
			return nil
		}
		return v
	case time.Time:
		if v.IsZero() {
			return nil
		}
		return v.Format(time.RFC3339)
	}
	return v
}

// decoded is what encoding/json makes of a reference document.
func (o object) decoded(t *testing.T) any {
	t.Helper()
	b, err := json.Marshal(strip(o))
	if err != nil {
		t.Fatal(err)
	}
	return decodeJSON(t, b)
}

// decodeJSON decodes one JSON object, strictly: keys are there once, and nothing
// follows.
func decodeJSON(t testing.TB, b []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	v, err := value(d)
	if err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("more than one value: %s", b)
	}
	return v
}

func value(d *json.Decoder) (any, error) {
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('{'):
		m := map[string]any{}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			if _, twice := m[k.(string)]; twice {
				return nil, fmt.Errorf("key %q is there twice", k)
			}
			if strings.Contains(k.(string), ".") {
				return nil, fmt.Errorf("key %q is dotted", k)
			}
			if m[k.(string)], err = value(d); err != nil {
				return nil, err
			}
		}
		_, err := d.Token()
		return m, err
	case json.Delim('['):
		var l []any
		for d.More() {
			v, err := value(d)
			if err != nil {
				return nil, err
			}
			l = append(l, v)
		}
		_, err := d.Token()
		return l, err
	}
	return tok, nil
}

func at(t int64) string {
	return time.Unix(0, t).UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
}

func refName(n cert.Name) object {
	return object{
		"distinguished_name": n.String, "common_name": n.CommonName, "organization": n.Organization,
		"organizational_unit": n.OrganizationalUnit, "country": n.Country, "locality": n.Locality,
		"state_or_province": n.StateOrProvince,
	}
}

func refHash(c *cert.Certificate) object {
	if c.DER == nil {
		return nil
	}
	return object{"md5": upper(c.MD5[:]), "sha1": upper(c.SHA1[:]), "sha256": upper(c.SHA256[:])}
}

// refX509 is what x509 says of a certificate.
func refX509(c *cert.Certificate) object {
	x := object{
		"serial_number": c.Serial, "signature_algorithm": c.SignatureAlgorithm,
		"public_key_algorithm": c.PublicKeyAlgorithm, "public_key_curve": c.PublicKeyCurve,
		"not_before": c.NotBefore.String(), "not_after": c.NotAfter.String(),
		"subject": refName(c.Subject), "issuer": refName(c.Issuer),
		"alternative_names": slices.Concat(c.DNSNames, c.IPAddresses, c.EmailAddresses, c.URIs),
	}
	if c.Version != 0 {
		x["version_number"] = fmt.Sprint(c.Version)
	}
	if c.PublicKeySize != 0 {
		x["public_key_size"] = c.PublicKeySize
	}
	if c.PublicKeyExponent != 0 {
		x["public_key_exponent"] = c.PublicKeyExponent
	}
	return x
}

// refLeaf is what tls.server and tls.client say of a certificate.
func refLeaf(c *cert.Certificate) object {
	return object{
		"hash": refHash(c), "subject": c.Subject.String, "issuer": c.Issuer.String,
		"not_before": c.NotBefore.String(), "not_after": c.NotAfter.String(), "x509": refX509(c),
	}
}

// refFull is an entry of a chain in records about certificates, at the end of the
// handshake fullHandshake.
func refFull(position int, e event.ChainEntry) object {
	c := e.Certificate
	o := refEntry(position, e)
	x := refX509(c)
	if c.AltNames > 0 {
		x["alternative_names_count"] = c.AltNames
	}
	o.with(object{
		"x509": x, "name": slices.Concat(c.Subject.CommonName, c.DNSNames, c.IPAddresses),
		"extended_key_usage": c.ExtendedKeyUsage, "policies": c.Policies, "key_usage": slices.Collect(c.KeyUsage.Names),
		"name_constraints": object{"permitted": c.Permitted, "excluded": c.Excluded},
		"subject_key_id":   upper(c.SubjectKeyID), "authority_key_id": upper(c.AuthorityKeyID),
	})
	if c.SignatureBits > 0 {
		o["signature_bits"] = c.SignatureBits
	}
	if c.Version != 0 {
		o["is_ca"], o["sct"] = c.IsCA, object{"count": c.SCTs}
	}
	if c.BasicConstraints {
		o["path_len"] = c.PathLen
	}
	if c.NotAfter.IsValid() {
		expired := c.NotAfter.Time().Year() < 2022
		left := int64(-417) // from 21 February 2022 to the start of 2021: 416 days and some hours
		if !expired {
			left = int64(c.NotAfter.Time().Sub(time.Date(2022, 2, 21, 16, 39, 42, 0, time.UTC)).Hours() / 24)
		}
		days := int64(c.NotAfter.Time().Sub(c.NotBefore.Time()).Hours() / 24)
		o["validity"] = object{"days": days, "days_left": left, "expired": expired, "not_yet_valid": false}
	}
	return o
}

func refFullChain(chain []event.ChainEntry) (list []object) {
	for i, e := range chain {
		list = append(list, refFull(i, e))
	}
	return list
}

func refEntry(position int, e event.ChainEntry) object {
	c := e.Certificate
	o := object{
		"position": position, "hash": refHash(c), "subject": c.Subject.String, "issuer": c.Issuer.String,
		"serial_number": c.Serial, "not_before": c.NotBefore.String(), "not_after": c.NotAfter.String(), "parse_error": c.ParseError,
	}
	if c.SPKISHA256 != [32]byte{} {
		o["spki"] = object{"sha256": upper(c.SPKISHA256[:])}
	}
	if c.TBSSHA256 != [32]byte{} {
		o["tbs"] = object{"sha256": upper(c.TBSSHA256[:])}
	}
	if c.Version != 0 {
		o["self_signed"] = c.SelfSigned
	}
	if e.Truncated {
		o["truncated"] = true
	}
	return o
}

func refHashes(chains ...[]event.ChainEntry) (sums []string) {
	for _, chain := range chains {
		for _, e := range chain {
			if e.DER != nil {
				sums = append(sums, upper(e.SHA256[:]), upper(e.SHA1[:]), upper(e.MD5[:]))
			}
		}
	}
	return sums
}

func refDERs(chain []event.ChainEntry) (ders []string) {
	for _, e := range chain {
		if e.DER != nil {
			ders = append(ders, base64.StdEncoding.EncodeToString(e.DER))
		}
	}
	return ders
}

func refEnd(e event.Endpoint) object {
	return object{
		"ip": e.Addr.String(), "port": e.Port,
		"mac": strings.ToUpper(strings.ReplaceAll(net.HardwareAddr(e.MAC[:]).String(), ":", "-")),
	}
}

// refShared is what all records about the flow of fullHandshake have, without event.
func refShared(h *event.Handshake) object {
	server, client := h.Flow.Endpoints[0], h.Flow.Endpoints[1]
	return object{
		"@timestamp":  at(h.End.Time),
		"ecs":         object{"version": "9.4.0"},
		"tags":        []string{"forwarded"},
		"source":      refEnd(client),
		"destination": refEnd(server).with(object{"domain": "mail.example.com"}),
		"network": object{
			"transport": "tcp", "type": "ipv4", "protocol": "tls", "application": "smtp",
			"community_id": "1:LQU9qZlK+B5F3KDmev6m5PMibrg=", // of the specification's own tests
			"vlan":         object{"id": "100"},
			"inner":        object{"vlan": object{"id": "4095"}},
		},
		"observer": object{"name": "span-1", "ingress": object{"interface": object{"name": "eth0"}}},
		"log":      object{"file": object{"path": `a "b".pcapng`}},
	}
}

// refFilter is the display filter for the flow of fullHandshake.
const refFilter = "ip.addr==66.35.250.204&&tcp.port==80&&ip.addr==128.232.110.120&&tcp.port==34855"

var refSuites = []string{
	"0x5a5a", "TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
	"TLS_EMPTY_RENEGOTIATION_INFO_SCSV", "0x4242",
}

// refOffer is what fullHandshake's client offers beside its suites.
var refOffer = object{
	"version": "1.2", "supported_versions": []string{"0x1a1a", "1.3", "1.2"}, "extensions": []string{"0x0000", "0x002b"},
	"supported_groups": []string{"x25519", "0x4243"}, "signature_algorithms": []string{"0x0403"},
	"point_formats": []string{"0x00"}, "alpn": []string{"h2", "http/1.1"},
}

// refHandshake is the lean record of fullHandshake, without event. The server's
// chain has a truncated certificate, and so is there in full.
func refHandshake(h *event.Handshake) object {
	leaf := h.Chain[0].Certificate
	var clients []string
	for _, c := range h.ClientChain {
		clients = append(clients, upper(c.SHA256[:]))
	}
	return refShared(h).with(object{
		"tls": object{
			"version": "1.2", "version_protocol": "tls", "cipher": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
			"curve": "secp256r1", "next_protocol": "h2", "established": true, "resumed": false,
			"client": object{"server_name": "mail.example.com", "ja3": "d4e5b18d6b55c71272893221c96ba240"},
			"server": object{
				"ja3s": "394441ab65754e2207b1e1b457b3641d", "subject": leaf.Subject.String, "issuer": leaf.Issuer.String,
				"not_after": leaf.NotAfter.String(), "hash": object{"sha1": upper(leaf.SHA1[:]), "sha256": upper(leaf.SHA256[:])},
			},
		},
		"oddcert": object{
			"pcap": object{"packet_number": 9, "filter": refFilter}, "tunnel": []string{"vxlan", "gre"}, "carrier": "starttls-smtp",
			"ja4": "t13d1516h2_8daaf6152771_02713d6af862", "certificates": "extracted", "alerts": 2,
			"authority_names": h.AuthorityNames,
			"raw_key":         object{"sha256": upper(h.RawKey[:])},
			"client_raw_key":  object{"sha256": upper(h.ClientRawKey[:])},
			"chain":           refFullChain(h.Chain), "client_chain": object{"hash": object{"sha256": clients}},
		},
	})
}

// refComplete is what alerts have of fullHandshake, without event, and full
// handshakes with another packet number and the count of alerts.
func refComplete(h *event.Handshake) object {
	o := refHandshake(h)
	tls := o["tls"].(object)
	tls["client"].(object).with(refLeaf(h.ClientChain[0].Certificate)).with(object{
		"supported_ciphers": refSuites, "certificate_chain": refDERs(h.ClientChain),
	})
	tls["server"].(object).with(refLeaf(h.Chain[0].Certificate)).with(object{"certificate_chain": refDERs(h.Chain)})
	own := o["oddcert"].(object)
	delete(own, "alerts")
	own.with(object{
		"pcap": object{"packet_number": 6, "filter": refFilter}, "hello": refOffer,
		"chain": refFullChain(h.Chain), "client_chain": refFullChain(h.ClientChain),
	})
	return o
}

func refEvent(h *event.Handshake, s Stamp) object {
	return object{
		"kind": "event", "category": []string{"network"}, "type": []string{"connection", "protocol"},
		"dataset": "oddcert.handshake", "id": string(s.ID[:]), "duration": h.End.Time - h.Start.Time,
	}
}

// lean returns an encoder of records as they are without options.
func lean(o Observer) *Encoder { return NewEncoder(o, Options{}, 0) }

func diff(t *testing.T, got []byte, want object) {
	t.Helper()
	if d := cmp.Diff(want.decoded(t), decodeJSON(t, got)); d != "" {
		t.Errorf("- want, + got:\n%s", d)
	}
	if bytes.ContainsAny(got, "\n\r") {
		t.Error("a line feed in the record")
	}
}

func TestHandshakeRecord(t *testing.T) {
	h := fullHandshake(t)
	e := lean(testObserver)
	for range 2 { // the second time out of the caches
		got, s := e.AppendHandshake([]byte("before"), h, nil, 2)
		got, ok := bytes.CutPrefix(got, []byte("before"))
		if !ok {
			t.Fatal("what was in dst is gone")
		}
		diff(t, got, refHandshake(h).with(object{"event": refEvent(h, s)}))
		if s.Time != h.End.Time {
			t.Errorf("time %d, want %d", s.Time, h.End.Time)
		}
	}
	// Without a truncated certificate, a chain is its hashes.
	h.Chain = h.Chain[:2]
	got, _ := e.AppendHandshake(nil, h, nil, 0)
	want := object{"hash": object{"sha256": []string{upper(h.Chain[0].SHA256[:]), upper(h.Chain[1].SHA256[:])}}}
	if d := cmp.Diff(want.decoded(t), decodeJSON(t, got).(map[string]any)["oddcert"].(map[string]any)["chain"]); d != "" {
		t.Errorf("- want, + got:\n%s", d)
	}
	// What a hello without fingerprints offers is in no other record.
	hello := *h.ClientHello
	offer := *hello.Offer
	offer.JA3, offer.JA4 = "", ""
	hello.Offer = &offer
	h.ClientHello = &hello
	got, _ = e.AppendHandshake(nil, h, nil, 0)
	for _, want := range []string{`"supported_ciphers":[`, `"hello":{"version":"1.2"`} {
		if !bytes.Contains(got, []byte(want)) {
			t.Errorf("no %s in %s", want, got)
		}
	}
}

func TestFullHandshakeRecord(t *testing.T) {
	h := fullHandshake(t)
	got, s := lean(testObserver).AppendFullHandshake(nil, h, nil, 2)
	want := refComplete(h)
	want["oddcert"].(object).with(object{"alerts": 2, "pcap": object{"packet_number": 9, "filter": refFilter}})
	diff(t, got, want.with(object{"event": refEvent(h, s)}))
}

// What all records of a dataset share is there where it is asked for, and so are
// the operator's labels.
func TestConstants(t *testing.T) {
	h := fullHandshake(t)
	e := NewEncoder(testObserver, Options{Constants: true, Labels: map[string]string{"site": `north "1"`, "a.rea": "x"}}, 0)
	got, s := e.AppendHandshake(nil, h, nil, 2)
	want := refHandshake(h)
	want["event"] = refEvent(h, s).with(object{"module": "oddcert", "action": "tls-handshake"})
	want["observer"].(object).with(object{"vendor": "oddcert", "product": "oddcert", "type": "sensor", "version": "1.2.3"})
	want["agent"] = object{"type": "oddcert"}
	want["data_stream"] = object{"type": "logs", "dataset": "oddcert.handshake"}
	want["labels"] = object{"a_rea": "x", "site": `north "1"`}
	diff(t, got, want)
}

func TestSparseHandshakeRecord(t *testing.T) {
	h := &event.Handshake{
		Flow: &event.Flow{
			Transport: event.UDP,
			Endpoints: [2]event.Endpoint{
				{Addr: netip.MustParseAddr("fe80::1"), Port: 1},
				{Addr: netip.MustParseAddr("fe80::1"), Port: 2},
			},
			Start: 5,
		},
		Carrier: "dtls", Datagram: true, Version: 0xfefd,
		End:     event.Moment{Time: 1_600_000_000_000_000_000, Frame: 1},
		Outcome: event.Lost, Loss: event.EndOfInput,
	}
	got, s := lean(Observer{Name: "n"}).AppendHandshake(nil, h, nil, 0)
	ev := refEvent(h, s)
	ev["duration"] = int64(1_600_000_000_000_000_000 - 5)
	end := func(port int) object { return object{"ip": "fe80::1", "port": port} }
	diff(t, got, object{
		"@timestamp": "2020-09-13T12:26:40.000000000Z", "ecs": object{"version": "9.4.0"}, "tags": []string{"forwarded"}, "event": ev,
		"source": end(1), "destination": end(2),
		"network": object{
			"transport": "udp", "type": "ipv6", "protocol": "dtls",
			"community_id": decodeJSON(t, got).(map[string]any)["network"].(map[string]any)["community_id"],
		},
		"observer": object{"name": "n"},
		"tls":      object{"version": "1.2", "version_protocol": "dtls", "resumed": false},
		"oddcert":  object{"carrier": "dtls", "certificates": "lost", "loss": "end-of-input"},
	})
}

// Over EAPOL there are MAC addresses and nothing of IP, and where a frame has
// none of those either the record is JSON still.
func TestEAPOLRecord(t *testing.T) {
	for _, client := range [][6]byte{{2, 0, 0, 0, 0, 0xab}, {}} {
		h := &event.Handshake{
			Flow:    &event.Flow{Transport: event.EAPOL, Endpoints: [2]event.Endpoint{{MAC: client}, {MAC: [6]byte{2, 0, 0, 0, 0, 1}}}, Start: 5},
			Carrier: "peap", Version: 0x0303,
			End:     event.Moment{Time: 1_600_000_000_000_000_000, Frame: 1},
			Outcome: event.Lost, Loss: event.EndOfInput,
		}
		got, s := lean(Observer{Name: "n"}).AppendHandshake(nil, h, nil, 0)
		ev := refEvent(h, s)
		ev["duration"] = int64(1_600_000_000_000_000_000 - 5)
		want := object{
			"@timestamp": "2020-09-13T12:26:40.000000000Z", "ecs": object{"version": "9.4.0"}, "tags": []string{"forwarded"}, "event": ev,
			"source": object{"mac": "02-00-00-00-00-AB"}, "destination": object{"mac": "02-00-00-00-00-01"},
			"network":  object{"transport": "eapol", "protocol": "tls", "application": "peap"},
			"observer": object{"name": "n"},
			"tls":      object{"version": "1.2", "version_protocol": "tls", "resumed": false},
			"oddcert":  object{"carrier": "peap", "certificates": "lost", "loss": "end-of-input"},
		}
		if client == [6]byte{} {
			delete(want, "source")
		}
		diff(t, got, want)
		// Another authenticator is another server, and another event.
		other := *h
		flow := *h.Flow
		flow.Endpoints[1].MAC[5] = 2
		other.Flow = &flow
		if _, o := lean(Observer{Name: "n"}).AppendHandshake(nil, &other, nil, 0); o.ID == s.ID {
			t.Error("two authenticators have one id")
		}
		h.Chain = fullHandshake(t).Chain[:1]
		other.Chain = h.Chain
		told := NewTold()
		if !told.See(h).Sighting || told.See(h).Sighting || !told.See(&other).Sighting {
			t.Error("authenticators are not told apart")
		}
		if server, _ := ends(h); server != "02:00:00:00:00:01" {
			t.Errorf("shown as %s", server)
		}
	}
}

func TestAlertRecord(t *testing.T) {
	h, m := fullHandshake(t), fullMatch()
	got, s := lean(testObserver).AppendAlert(nil, h, nil, m)
	want := refComplete(h)
	want["event"] = refEvent(h, s).with(object{
		"kind": "alert", "category": []string{"network", "intrusion_detection"}, "type": []string{"info"},
		"dataset": "oddcert.alert", "start": at(h.Start.Time),
		"severity": 47, "risk_score": 50, "reason": m.Reason,
	})
	want["message"] = "Look-alike of www.update.microsoft.com: server 66.35.250.204:80 (mail.example.com), client 128.232.110.120:34855"
	want["rule"] = object{
		"id": m.Rule.ID, "uuid": m.Rule.ID, "name": m.Rule.Title, "description": m.Rule.Description,
		"category": "tls", "ruleset": "microsoft-update", "version": "2024-05-06", "author": []string{"Example"},
		"reference": m.Rule.References, "license": "CC0-1.0", "level": "medium",
	}
	indicator := object{"type": "x509-certificate", "provider": "divd", "name": "1073570F"}
	want["threat"] = object{
		"framework": "MITRE ATT&CK",
		"tactic": object{
			"id": []string{"TA0011"}, "name": []string{"Command and Control"},
			"reference": []string{"https://attack.mitre.org/tactics/TA0011/"},
		},
		"technique": object{
			"id": []string{"T1573", "T1090"}, "reference": []string{"https://attack.mitre.org/techniques/T1573/"},
			"subtechnique": object{
				"id": []string{"T1573.002"}, "name": []string{"Asymmetric Cryptography"},
				"reference": []string{"https://attack.mitre.org/techniques/T1573/002/"},
			},
		},
		"indicator": indicator,
		"enrichments": []object{{
			"indicator": indicator,
			"matched":   object{"atomic": "1073570F", "field": "tls.server.hash.sha256", "type": "indicator_match_rule"},
		}},
	}
	want["client"], want["server"] = want["source"], want["destination"]
	want["related"] = object{
		"ip":    []string{"128.232.110.120", "66.35.250.204"},
		"hosts": []string{"mail.example.com", "www.example.com"},
		"hash":  refHashes(h.Chain, h.ClientChain),
	}
	want["oddcert"].(object).with(object{
		"verdict": "disguise", "verdict_reasons": m.Reasons, "rule": object{"false_positives": m.Rule.FalsePositives},
		"match": object{"field": m.Field, "value": m.Value, "list": "divd", "chain_index": 0},
	})
	diff(t, got, want)
	if s.Time != h.End.Time {
		t.Errorf("time %d, want %d", s.Time, h.End.Time)
	}
}

func TestAlertWithLittle(t *testing.T) {
	h := fullHandshake(t)
	h.Certificate, h.Chain, h.ClientChain = event.Moment{}, nil, nil
	for name, threat := range map[string]rules.Threat{
		"none":              {},
		"only subtechnique": {Framework: "MITRE ATT&CK", Subtechniques: []rules.ThreatEntry{{ID: "T1573.002"}}},
		"only tactic":       {Framework: "MITRE ATT&CK", Tactics: []rules.ThreatEntry{{ID: "TA0011"}}},
	} {
		m := &rules.Match{Rule: &rules.Rule{ID: "i", Title: "t", Severity: 99, RiskScore: 99, Threat: threat}, ChainIndex: -1}
		got, s := lean(testObserver).AppendAlert(nil, h, nil, m)
		want := refWithoutChains(h)
		want["event"] = refEvent(h, s).with(object{
			"kind": "alert", "category": []string{"network", "intrusion_detection"}, "type": []string{"info"},
			"dataset": "oddcert.alert", "start": at(h.Start.Time), "severity": 99, "risk_score": 99,
		})
		want["message"] = "t: server 66.35.250.204:80 (mail.example.com), client 128.232.110.120:34855"
		want["rule"] = object{"id": "i", "uuid": "i", "name": "t"}
		switch name {
		case "only subtechnique":
			want["threat"] = object{"framework": "MITRE ATT&CK", "technique": object{"subtechnique": object{"id": []string{"T1573.002"}}}}
		case "only tactic":
			want["threat"] = object{"framework": "MITRE ATT&CK", "tactic": object{"id": []string{"TA0011"}}}
		}
		diff(t, got, want)
	}
}

// refWithoutChains is the alert of fullHandshake without its certificates, and
// without rule and event.
func refWithoutChains(h *event.Handshake) object {
	full := *h
	full.Chain = []event.ChainEntry{{Certificate: new(cert.Certificate)}}
	full.ClientChain = full.Chain
	o := refComplete(&full)
	o["related"] = object{"ip": []string{"128.232.110.120", "66.35.250.204"}, "hosts": []string{"mail.example.com"}}
	o["client"], o["server"] = o["source"], o["destination"]
	own := o["oddcert"].(object)
	delete(own, "chain")
	delete(own, "client_chain")
	own["pcap"] = object{"packet_number": 9, "filter": refFilter}
	for _, party := range []string{"client", "server"} {
		p := o["tls"].(object)[party].(object)
		for _, name := range []string{"not_before", "not_after", "x509", "hash"} {
			delete(p, name)
		}
	}
	return o
}

func TestCertificateRecord(t *testing.T) {
	h := fullHandshake(t)
	e := lean(testObserver)
	ids := map[[32]byte]string{}
	for _, c := range []struct {
		place Place
		role  string
		frame int
	}{
		{Place{false, 0}, "leaf", 6}, {Place{false, 1}, "root", 6}, {Place{false, 2}, "issuer", 6},
		{Place{true, 0}, "client", 9}, {Place{true, 1}, "issuer", 9},
	} {
		got, s := e.AppendCertificate(nil, h, c.place)
		one := c.place.in(h)[c.place.Index]
		want := refShared(h)
		want["event"] = refEvent(h, s).with(object{"type": []string{"info"}, "dataset": "oddcert.certificate"})
		if c.role == "leaf" {
			want["tls"] = object{"server": refLeaf(one.Certificate)}
		}
		want["oddcert"] = object{
			"pcap": object{"packet_number": c.frame, "filter": refFilter}, "tunnel": []string{"vxlan", "gre"}, "carrier": "starttls-smtp",
			"certificate": refFull(c.place.Index, one).with(object{
				"role": c.role, "der": base64.StdEncoding.EncodeToString(one.DER),
			}),
		}
		diff(t, got, want)
		if sum, twice := ids[s.ID]; twice && sum != upper(one.SHA256[:]) {
			t.Errorf("two certificates have the id %s", s.ID)
		}
		ids[s.ID] = upper(one.SHA256[:])
	}
	if len(ids) != 3 {
		t.Errorf("%d ids for 3 certificates", len(ids))
	}
}

func TestSightingRecord(t *testing.T) {
	h := fullHandshake(t)
	e := lean(testObserver)
	leaf := h.Chain[0].Certificate
	got, s := e.AppendSighting(nil, h, nil, nil)
	want := refShared(h)
	want["event"] = refEvent(h, s).with(object{"type": []string{"info"}, "dataset": "oddcert.sighting"})
	want["tls"] = object{"client": object{"server_name": "mail.example.com"}}
	want["oddcert"] = object{
		"pcap": object{"packet_number": 6, "filter": refFilter}, "tunnel": []string{"vxlan", "gre"}, "carrier": "starttls-smtp",
		"certificate": object{
			"hash": object{"sha256": upper(leaf.SHA256[:])}, "spki": object{"sha256": upper(leaf.SPKISHA256[:])},
			"subject": leaf.Subject.String, "issuer": leaf.Issuer.String,
		},
		"sighting": object{"change": "new"},
	}
	diff(t, got, want)
	got, again := e.AppendSighting(nil, h, nil, &h.Chain[1].SHA256)
	want["oddcert"].(object)["sighting"] = object{
		"change": "changed", "previous": object{"hash": object{"sha256": upper(h.Chain[1].SHA256[:])}},
	}
	diff(t, got, want)
	if again.ID != s.ID {
		t.Error("the same sighting has two ids")
	}
}

func TestHelloRecord(t *testing.T) {
	h := fullHandshake(t)
	got, s := lean(testObserver).AppendHello(nil, h)
	want := refShared(h)
	want["event"] = refEvent(h, s).with(object{"type": []string{"info"}, "dataset": "oddcert.hello"})
	want["tls"] = object{"client": object{"ja3": h.ClientHello.JA3, "supported_ciphers": refSuites}}
	want["oddcert"] = object{
		"pcap": object{"packet_number": 9, "filter": refFilter}, "tunnel": []string{"vxlan", "gre"}, "carrier": "starttls-smtp",
		"ja4": h.ClientHello.JA4, "hello": refOffer,
	}
	diff(t, got, want)
}

// What is told once a day has one id on that day, whichever handshake tells it.
func TestIDsOfTheDay(t *testing.T) {
	type ids [3][32]byte
	of := func(change func(h *event.Handshake)) (all ids) {
		h := fullHandshake(t)
		change(h)
		e := lean(testObserver)
		for i, f := range []func() ([]byte, Stamp){
			func() ([]byte, Stamp) { return e.AppendCertificate(nil, h, Place{}) },
			func() ([]byte, Stamp) { return e.AppendSighting(nil, h, nil, nil) },
			func() ([]byte, Stamp) { return e.AppendHello(nil, h) },
		} {
			_, s := f()
			all[i] = s.ID
		}
		return all
	}
	first := of(func(*event.Handshake) {})
	hour := time.Date(2022, 2, 21, 0, 0, 0, 0, time.UTC).Unix() / 3600
	for _, id := range first {
		if got := string(id[:8]); got != fmt.Sprintf("%08x", hour) {
			t.Errorf("id %s does not begin with the first hour of the day, %08x", id, hour)
		}
	}
	for name, c := range map[string]struct {
		change func(h *event.Handshake)
		same   [3]bool // certificate, sighting, hello
	}{
		"later that day":  {func(h *event.Handshake) { h.End.Time += 7 * 3600e9 }, [3]bool{true, true, true}},
		"another client":  {func(h *event.Handshake) { h.Flow.Endpoints[1].Port++ }, [3]bool{true, true, true}},
		"another server":  {func(h *event.Handshake) { h.Flow.Endpoints[0].Port++ }, [3]bool{true, false, true}},
		"another name":    {func(h *event.Handshake) { h.ClientHello.ServerName = "x" }, [3]bool{true, false, true}},
		"another leaf":    {func(h *event.Handshake) { h.Chain = h.Chain[1:] }, [3]bool{false, false, true}},
		"another hello":   {func(h *event.Handshake) { h.ClientHello.JA3 = "x" }, [3]bool{true, true, false}},
		"the next day":    {func(h *event.Handshake) { h.End.Time += 8 * 3600e9 }, [3]bool{}},
		"another capture": {func(h *event.Handshake) { h.Flow.Origin.Path = "x" }, [3]bool{}},
		"another folder":  {func(h *event.Handshake) { h.Flow.Origin.Path = `/else/a "b".pcapng` }, [3]bool{true, true, true}},
	} {
		got := of(c.change)
		for i := range got {
			if (got[i] == first[i]) != c.same[i] {
				t.Errorf("%s: id %d is the same: %v, want %v", name, i, got[i] == first[i], c.same[i])
			}
		}
	}
}

func TestStatsRecord(t *testing.T) {
	c := fullCounters()
	got, s, err := lean(testObserver).AppendStats(nil, c)
	if err != nil {
		t.Fatal(err)
	}
	captured, err := json.Marshal(c.Capture)
	if err != nil {
		t.Fatal(err)
	}
	parser, err := json.Marshal(c.Parser)
	if err != nil {
		t.Fatal(err)
	}
	var unread []object
	for _, u := range c.Unread {
		unread = append(unread, object{"name": u.Name, "frames": u.Frames})
	}
	diff(t, got, object{
		"@timestamp": at(c.Time), "ecs": object{"version": "9.4.0"}, "tags": []string{"forwarded"},
		"event": object{
			"kind": "metric", "category": []string{"network"}, "type": []string{"info"},
			"dataset": "oddcert.stats", "id": string(s.ID[:]),
		},
		"observer": object{"version": "1.2.3", "name": "span-1"},
		"oddcert": object{"stats": object{
			"packets": object{"first": at(c.Start), "last": at(c.End)},
			"uptime":  90_000_000_000,
			"lag":     3_000_000,
			"interfaces": []object{
				{"name": "span0", "state": "up", "since": at(1.9e18), "silence": 0, "changes": 2, "mtu": 1500, "speed": 10000, "frames": 900, "dropped": 3},
				{"name": "span1", "state": "up", "since": at(2e18 - 100e9), "silence": 31_000_000_000, "changes": 0, "frames": 0, "dropped": 0},
				{"name": "span2", "state": "no-carrier", "since": at(2e18 - 100e9), "silence": 0, "changes": 0, "frames": 0, "dropped": 0},
			},
			"links":            object{"up": 2, "down": []string{"span2"}, "silent": []string{"span1"}},
			"captures":         []string{"/a/b.pcap", "c.pcap"},
			"captures_unnamed": 3,
			"failure":          "match rules: nil",
			"capture":          json.RawMessage(captured),
			"parser":           json.RawMessage(parser),
			"told":             object{"certificates": 7, "sightings": 9, "changed": 1, "hellos": 2, "variants": 0, "forgotten": 0},
			"flow":             object{"flows": 12, "evicted": 1},
			"certificates": object{
				"extracted": 5, "encrypted": 4, "resumed": 1, "none": 0, "lost": 2,
			},
			"loss": object{
				"gap": 2, "evicted": 0, "malformed": 0, "limit": 0, "end-of-input": 0,
			},
			"no_tls": []object{
				{"name": "EtherType 0x0806 (ARP)", "frames": 40}, {"name": "LLC 0x42 (STP)", "frames": 7},
			},
			"unread": unread,
			"weird":  []object{{"name": "truncated_tcp", "frames": 4}},
			"rules":  []object{{"id": fullMatch().Rule.ID, "name": fullMatch().Rule.Title, "matches": 3}},
		}},
	})
	c.Sections = append(c.Sections, Section{Name: "bad", Value: func() {}})
	if _, _, err := lean(testObserver).AppendStats(nil, c); err == nil || !strings.Contains(err.Error(), "counters of bad") {
		t.Errorf("a section that cannot be encoded: %v", err)
	}
}

// fullJudgement has all that can be judged.
func fullJudgement() *judgement.Judgement {
	sum := [32]byte{0xAB}
	return &judgement.Judgement{
		Trust: &judgement.Trust{Status: judgement.Expired, Store: "microsoft", Anchor: judgement.Anchor{Subject: "CN=Root", SHA256: sum},
			Reasons: []string{"The leaf is over.", "It says \"no\"."}},
		KeyProof: &judgement.KeyProof{Status: judgement.Mismatch, Reason: "Another key has signed."},
		Client: &judgement.Place{Networks: []string{"internal"}, Labels: []judgement.Label{{Key: "customer", Value: "acme"}, {Key: "site", Value: "berlin"}},
			ASN: 64496, ASOrg: "Example", Country: "NL"},
		Server: &judgement.Place{Networks: []string{"cdn", "microsoft"}, Labels: []judgement.Label{{Key: "site", Value: "paris"}, {Key: "zone", Value: "dmz"}},
			ASN: 8075, ASOrg: "Microsoft", Country: "US"},
		Direction: judgement.Outbound,
		Transparency: &judgement.Transparency{SCTs: 3, Judged: true, Valid: 2, Operators: []string{"Google"}, OCSP: "revoked",
			Revoked: 1_600_000_000e9, Reasons: []string{"One is of an unknown log."}},
		Shape: &judgement.Shape{Certificate: 1278, Verify: 281, Finished: 69, Coalesced: true, Fits: [][32]byte{sum}},
		Memory: &judgement.Memory{Servers: 7, Clients: 2, Names: 3, OpenVPN: 1_600_000_000e9, Flagged: &judgement.Flagged{
			AlertID: "65a1b2c3000000000000000000000000", Rule: "A rule", Verdict: "disguise", Level: "medium", Time: 1_600_000_000e9, SHA256: sum}},
	}
}

// A record tells what was judged. The labels of the client go before the server's,
// and these before those of all records.
func TestJudged(t *testing.T) {
	h := fullHandshake(t)
	e := NewEncoder(testObserver, Options{Labels: map[string]string{"site": "north", "sensor.rack": "7"}}, 0)
	lean, _ := e.AppendHandshake(nil, h, fullJudgement(), 0)
	alert, _ := e.AppendAlert(nil, h, fullJudgement(), fullMatch())
	for name, record := range map[string][]byte{"handshake": lean, "alert": alert} {
		for _, want := range []string{
			`"labels":{"customer":"acme","site":"berlin","zone":"dmz","sensor_rack":"7"}`, `"direction":"outbound"`,
			`"as":{"number":8075,"organization":{"name":"Microsoft"}},"geo":{"country_iso_code":"US"}`, `"trust":{"status":"expired"`,
			`"key_proof":"mismatch"`, `"network":["cdn","microsoft"]`, `"server":{"openvpn":"2020-09-13T12:26:40.000000000Z"}`,
			`"shape":{"certificate_bytes":1278,"verify_bytes":281,"finished_bytes":69,"coalesced":true,"fits":["AB00`, `"flagged":{"verdict":"disguise"`,
		} {
			if !bytes.Contains(record, []byte(want)) {
				t.Errorf("%s has no %s", name, want)
			}
		}
		for _, want := range []string{
			`"store":"microsoft","anchor":{"subject":"CN=Root","sha256":"AB00`, `"reasons":["The leaf is over.","It says \"no\"."]`,
			`"key_proof_reason":"Another key has signed."`, `"prevalence":{"servers":7,"clients":2,"names":3}`,
			`"sct":{"count":3,"valid":2,"operators":["Google"],"reasons":["One is of an unknown log."]},"ocsp":{"status":"revoked","revoked":"2020-09-13T12:26:40.000000000Z"}`,
		} {
			if bytes.Contains(record, []byte(want)) != (name == "alert") {
				t.Errorf("%s: %s is there, or is not", name, want)
			}
		}
	}
	plain, _ := e.AppendHandshake(nil, h, nil, 0)
	if !bytes.Contains(plain, []byte(`"labels":{"sensor_rack":"7","site":"north"}`)) || bytes.Contains(plain, []byte("trust")) {
		t.Errorf("nothing was judged: %s", plain)
	}
}

// TestEvidence holds that an alert names its evidence by its id, which is the same
// without.
func TestEvidence(t *testing.T) {
	h, m := fullHandshake(t), fullMatch()
	_, without := lean(testObserver).AppendAlert(nil, h, nil, m)
	b, with := NewEncoder(testObserver, Options{Evidence: func(id string) string { return "a\"b/" + id + ".zip" }}, 0).AppendAlert(nil, h, nil, m)
	if with != without {
		t.Errorf("the stamp is %v with evidence and %v without", with, without)
	}
	want := "a\"b/" + string(with.ID[:]) + ".zip"
	if got := decodeJSON(t, b).(map[string]any)["oddcert"].(map[string]any)["evidence"]; got != want {
		t.Errorf("oddcert.evidence is %v, not %s", got, want)
	}
}

// TestAlertID holds that whoever tells of an alert names it as its record does, also
// where the encoder has made other records before.
func TestAlertID(t *testing.T) {
	h, m := fullHandshake(t), fullMatch()
	_, want := lean(testObserver).AppendAlert(nil, h, nil, m)
	e := lean(testObserver)
	if got := e.AlertID(h, m); got != string(want.ID[:]) {
		t.Errorf("the id is %s, and %s in the record", got, want.ID)
	}
	other := *h
	other.Flow = &event.Flow{Origin: &event.Origin{Path: "another.pcap"}}
	e.AppendHandshake(nil, &other, nil, 0)
	if got := e.AlertID(h, m); got != string(want.ID[:]) {
		t.Errorf("after another record the id is %s, and %s in the record", got, want.ID)
	}
}

// everyRecord returns records that together have all that records can have, by
// their datasets.
func everyRecord(t *testing.T) map[Dataset][][]byte {
	t.Helper()
	h, m := fullHandshake(t), fullMatch()
	h.Outcome, h.Loss = event.Lost, event.Gap
	h.Forged, h.Alternative = event.ForgedRST|event.ForgedConflict, true
	rsa := *h.Chain[0].Certificate
	rsa.PublicKeyExponent, rsa.PublicKeyCurve, rsa.SerialPadded, rsa.ParseError = 65537, "P-256", true, "odd"
	client := rsa
	h.Chain[0].Certificate, h.ClientChain[0].Certificate = &rsa, &client
	h.ClientChain[1].Truncated = true
	of := map[Dataset][][]byte{}
	for _, opt := range []Options{
		{},
		{Constants: true, Labels: map[string]string{"site": "north"}, Evidence: func(id string) string { return "/evidence/" + id }},
	} {
		e := NewEncoder(testObserver, opt, 0)
		add := func(d Dataset) func([]byte, Stamp) {
			return func(b []byte, _ Stamp) { of[d] = append(of[d], b) }
		}
		add(Handshake)(e.AppendHandshake(nil, h, nil, 2))
		add(Handshake)(e.AppendHandshake(nil, h, fullJudgement(), 2))
		add(Handshake)(e.AppendFullHandshake(nil, h, nil, 2))
		add(Handshake)(e.AppendFullHandshake(nil, h, fullJudgement(), 2))
		add(Alert)(e.AppendAlert(nil, h, nil, m))
		add(Alert)(e.AppendAlert(nil, h, fullJudgement(), m))
		for i := range h.Chain[:2] {
			add(Certificate)(e.AppendCertificate(nil, h, Place{false, i}))
		}
		add(Certificate)(e.AppendCertificate(nil, h, Place{true, 0}))
		add(Sighting)(e.AppendSighting(nil, h, nil, nil))
		add(Sighting)(e.AppendSighting(nil, h, fullJudgement(), nil))
		add(Sighting)(e.AppendSighting(nil, h, nil, &rsa.SHA256))
		add(Hello)(e.AppendHello(nil, h))
		stats, _, err := e.AppendStats(nil, fullCounters())
		if err != nil {
			t.Fatal(err)
		}
		add(Stats)(stats, Stamp{})
	}
	e := lean(testObserver)
	summary, _ := e.AppendSummary(nil, fullSummary(h.Flow.Origin))
	of[Alert] = append(of[Alert], summary)
	for _, change := range map[string]func(h *event.Handshake, m *rules.Match){
		"named technique": func(_ *event.Handshake, m *rules.Match) { m.Rule.Threat.Techniques[0].Name = "Encrypted Channel" },
		"many names":      func(h *event.Handshake, _ *rules.Match) { *h = *fullOfNames(t, 8, 8) },
		"address on list": func(_ *event.Handshake, m *rules.Match) { m.Field, m.Value = "server.ip", "192.0.2.1" },
		"correlation": func(_ *event.Handshake, m *rules.Match) {
			m.Correlation = &rules.Correlation{Count: 5, From: 1e18, To: 1e18 + 5e9, Group: []rules.ByValue{{Field: "client.ip", Value: "192.0.2.1"}}}
		},
		"both whole": func(h *event.Handshake, _ *rules.Match) { h.Chain, h.ClientChain = h.Chain[:2], h.ClientChain[:1] },
		"clock":      func(h *event.Handshake, _ *rules.Match) { h.End.Time = h.Start.Time - 3600e9 },
	} {
		h, m := *h, fullMatch()
		change(&h, m)
		alert, _ := e.AppendAlert(nil, &h, nil, m)
		handshake, _ := e.AppendHandshake(nil, &h, nil, 1)
		of[Alert], of[Handshake] = append(of[Alert], alert), append(of[Handshake], handshake)
	}
	return of
}

// fullSummary is a summary with something in every member.
func fullSummary(o *event.Origin) *rules.Summary {
	return &rules.Summary{
		Rule: fullMatch().Rule, Count: 42, Raised: 1_600_000_000e9, First: 1_600_000_001e9, Last: 1_600_000_009_500e6, Time: 1_600_003_600e9,
		FirstAlert: "000685a2000000000000000000000000", Origin: o,
		By: []rules.ByValue{{Field: "server.ip", Value: "198.51.100.7"}, {Field: "destination.port", Value: "443"}, {Field: "source.ip", Value: "2001:db8::1"},
			{Field: "client.mac", Value: "00-1B-21-AB-CD-EF"}, {Field: "tls.client.server_name", Value: "www.example.com"}, {Field: "oddcert.loss"}},
	}
}

// A summary has the rule, what makes the matches alike and how many there were; the
// ends of flows are where alerts have them.
func TestAppendSummary(t *testing.T) {
	s := fullSummary(&event.Origin{Path: "/captures/a.pcap"})
	e := lean(testObserver)
	b, stamp := e.AppendSummary(nil, s)
	client := object{"ip": "2001:db8::1", "mac": "00-1B-21-AB-CD-EF"}
	server := object{"ip": "198.51.100.7", "port": 443, "domain": "www.example.com"}
	want := object{
		"@timestamp": "2020-09-13T13:26:40.000000000Z", "ecs": object{"version": schema.ECS}, "tags": []string{"forwarded"},
		"event": object{
			"kind": "alert", "category": []string{"network", "intrusion_detection"}, "type": []string{"info"}, "dataset": "oddcert.alert", "id": string(stamp.ID[:]),
			"start": "2020-09-13T12:26:41.000000000Z", "duration": 8_500_000_000, "severity": 47, "risk_score": 50,
			"reason": "42 more matches like the alert before, of the same server.ip, destination.port, source.ip, client.mac, tls.client.server_name, oddcert.loss.",
		},
		"message": "Look-alike of www.update.microsoft.com: 42 more",
		"source":  client, "client": client, "destination": server, "server": server,
		"related":  object{"ip": []string{"2001:db8::1", "198.51.100.7"}, "hosts": []string{"www.example.com"}},
		"observer": object{"name": testObserver.Name}, "log": object{"file": object{"path": "a.pcap"}},
		"tls": object{"client": object{"server_name": "www.example.com"}},
		"oddcert": object{
			"rule": object{"false_positives": s.Rule.FalsePositives}, "verdict": "disguise",
			"suppressed": object{
				"count": 42, "from": "2020-09-13T12:26:41.000000000Z", "to": "2020-09-13T12:26:49.500000000Z", "first_alert": s.FirstAlert,
				"by": []string{"server.ip 198.51.100.7", "destination.port 443", "source.ip 2001:db8::1", "client.mac 00-1B-21-AB-CD-EF",
					"tls.client.server_name www.example.com", "oddcert.loss"},
			},
		},
	}
	got := decodeJSON(t, b).(map[string]any)
	for _, of := range []string{"rule", "threat"} { // as in alerts
		alert, _ := e.AppendAlert(nil, fullHandshake(t), nil, &rules.Match{Rule: s.Rule})
		want[of] = decodeJSON(t, alert).(map[string]any)[of]
	}
	if d := cmp.Diff(want.decoded(t), any(got)); d != "" {
		t.Error(d)
	}
	// Every part of what makes a summary makes its id.
	for name, change := range map[string]func(s *rules.Summary){
		"rule":  func(s *rules.Summary) { r := *s.Rule; r.ID = "x"; s.Rule = &r },
		"value": func(s *rules.Summary) { s.By = []rules.ByValue{{Field: "server.ip", Value: "198.51.100.8"}} },
		"time":  func(s *rules.Summary) { s.Raised++ },
	} {
		other := *s
		change(&other)
		if _, id := e.AppendSummary(nil, &other); id.ID == stamp.ID {
			t.Errorf("another %s, and the same id", name)
		}
	}
	one := &rules.Summary{Rule: s.Rule, Count: 1}
	if b, _ := e.AppendSummary(nil, one); !bytes.Contains(b, []byte(`"reason":"One more match like the alert before."`)) || !json.Valid(b) {
		t.Errorf("%s", b)
	}
}

// TestSchema holds the list of fields against all that records have: each field of
// a record is in the list, for that dataset and with that type; each field of the
// list is in a record; and so is each name that rules can use.
func TestSchema(t *testing.T) {
	used := map[string]schema.Set{}
	for d, records := range everyRecord(t) {
		in := schema.Only(schema.Dataset(d))
		var walk func(path string, v any)
		walk = func(path string, v any) {
			f, ok := schema.Lookup(path)
			switch v := v.(type) {
			case map[string]any:
				if ok && f.Type == schema.Nested {
					used[path] |= in
				}
				for k, m := range v {
					walk(strings.TrimPrefix(path+"."+k, "."), m)
				}
				return
			case []any:
				for _, m := range v {
					walk(path, m)
				}
				return
			}
			if !ok || !f.In.Has(schema.Dataset(d)) {
				t.Errorf("%v: %s is not a field of it: %v", d, path, f.In)
				return
			}
			used[f.Name] |= in
			used[path] |= in
			if !hasType(v, f.Type) {
				t.Errorf("%v: %s is not a %s: %v", d, path, f.Type, v)
			}
			if value, ok := f.Constant[schema.Dataset(d)]; ok && v != value {
				t.Errorf("%v: %s is %v, not %s", d, path, v, value)
			}
		}
		for _, record := range records {
			walk("", decodeJSON(t, record))
		}
	}
	for _, f := range schema.Fields() {
		if f.In != 0 && used[f.Name] == 0 && !slices.Contains(unwritten, f.Name) {
			t.Errorf("%s is in the list, and in no record", f.Name)
		}
	}
	for _, name := range rules.FieldNames() {
		if used[name] == 0 {
			t.Errorf("rules can use %s, which is in no record", name)
		}
	}
}

// unwritten are fields that only Elasticsearch sets, and those that are in the list
// since all fields of a chain are: a certificate record is about a whole certificate.
var unwritten = []string{"data_stream.namespace", "oddcert.certificate.abridged", "oddcert.certificate.truncated"}

// hasType reports whether a value in JSON is one of a type of Elasticsearch.
func hasType(v any, t schema.Type) (ok bool) {
	switch t {
	case schema.Keyword, schema.ConstantKeyword, schema.Text, schema.MatchOnlyText:
		_, ok = v.(string)
	case schema.Long:
		var n json.Number
		if n, ok = v.(json.Number); ok {
			_, err := n.Int64()
			ok = err == nil
		}
	case schema.Float:
		_, ok = v.(json.Number)
	case schema.Boolean:
		_, ok = v.(bool)
	case schema.Date, schema.DateNanos:
		var s string
		if s, ok = v.(string); ok {
			_, err := time.Parse(time.RFC3339Nano, s)
			ok = err == nil
		}
	case schema.IP:
		var s string
		if s, ok = v.(string); ok {
			_, err := netip.ParseAddr(s)
			ok = err == nil
		}
	}
	return ok
}

// fullOfNames is a handshake with so many certificates, whose chains are as long as messages allow, and made
// of what takes most room in JSON.
func fullOfNames(t *testing.T, server, client int) *event.Handshake {
	h := fullHandshake(t)
	chain := func(certificates int) (chain []event.ChainEntry) {
		for i := range certificates {
			c := *h.Chain[0].Certificate
			c.DER = append([]byte{byte(i)}, make([]byte, (1<<20)/certificates)...)
			c.DNSNames = slices.Repeat([]string{strings.Repeat("\x01", 1000)}, (1<<20)/certificates/1000)
			c.AltNames = len(c.DNSNames)
			chain = append(chain, event.ChainEntry{Certificate: &c})
		}
		return chain
	}
	h.Chain, h.ClientChain = chain(server), chain(client)
	return h
}

// A record is never more than the queue on disk takes, whatever is in the
// certificates, and says what it leaves out.
func TestRecordSize(t *testing.T) {
	h := fullOfNames(t, 1, 8)
	e := lean(testObserver)
	for range 2 {
		handshake, _ := e.AppendHandshake(nil, h, nil, 1)
		full, _ := lean(testObserver).AppendFullHandshake(nil, h, nil, 1)
		certificate, _ := e.AppendCertificate(nil, h, Place{})
		alert, _ := e.AppendAlert(nil, h, nil, fullMatch())
		for name, record := range map[string][]byte{"handshake": handshake, "full": full, "certificate": certificate, "alert": alert} {
			if len(record) > 6<<20 || !json.Valid(record) {
				t.Errorf("%s: %d bytes, valid: %v", name, len(record), json.Valid(record))
			}
			if name == "handshake" {
				continue
			}
			if !bytes.Contains(record, []byte(`"alternative_names_count":1048`)) {
				t.Errorf("%s does not say how many names there are", name)
			}
		}
		doc := decodeJSON(t, alert).(map[string]any)["oddcert"].(map[string]any)["client_chain"].([]any)
		last, first := doc[7].(map[string]any), doc[0].(map[string]any)
		if last["abridged"] != true || first["abridged"] != nil || last["hash"] == nil || last["name"] != nil || first["name"] == nil {
			t.Errorf("the first entry %.200v, the last %.200v", first, last)
		}
	}
}

// Every date of a certificate is in its records, and names that are left out are
// counted.
func TestOddCertificateRecord(t *testing.T) {
	h := fullHandshake(t)
	odd := *h.Chain[0].Certificate
	odd.NotBefore, odd.NotAfter, odd.AltNames = cert.DateOf(time.Time{}), cert.DateOf(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)), 50_000
	h.Chain[0].Certificate = &odd
	e := lean(testObserver)
	alert, _ := e.AppendAlert(nil, h, nil, fullMatch())
	certificate, _ := e.AppendCertificate(nil, h, Place{})
	for name, record := range map[string][]byte{"alert": alert, "certificate": certificate} {
		for _, want := range []string{
			`"not_before":"0001-01-01T00:00:00Z","not_after":"9999-12-31T23:59:59Z"`, `"alternative_names_count":50000`,
		} {
			if !bytes.Contains(record, []byte(want)) {
				t.Errorf("%s: no %s in %s", name, want, record)
			}
		}
	}
	if want := `"validity":{"days":3652058,"days_left":2913852,"expired":false,"not_yet_valid":false}`; !bytes.Contains(certificate, []byte(want)) {
		t.Errorf("no %s in %s", want, certificate)
	}
}

// TestArrays: arrays where ECS has arrays, and only there.
func TestArrays(t *testing.T) {
	arrays := map[string]bool{
		"tags": true, "rule.reference": true, "oddcert.rule.false_positives": true,
		"oddcert.hello.supported_versions": true, "oddcert.hello.extensions": true, "oddcert.hello.supported_groups": true,
		"oddcert.hello.signature_algorithms": true, "oddcert.hello.point_formats": true, "oddcert.hello.alpn": true,
		"event.category": true, "event.type": true, "related.ip": true, "related.hosts": true, "related.hash": true,
		"rule.author": true, "oddcert.tunnel": true, "oddcert.chain": true, "oddcert.client_chain": true,
		"oddcert.verdict_reasons": true, "oddcert.chain[].name": true, "oddcert.client_chain[].name": true, "oddcert.authority_names": true, "tls.client.supported_ciphers": true, "threat.enrichments": true,
	}
	for _, p := range []string{"tactic", "technique", "technique.subtechnique"} {
		for _, m := range []string{"id", "name", "reference"} {
			arrays["threat."+p+"."+m] = true
		}
	}
	for _, chain := range []string{"oddcert.chain[].", "oddcert.client_chain[]."} {
		for _, m := range []string{"key_usage", "extended_key_usage", "policies", "name_constraints.permitted", "name_constraints.excluded"} {
			arrays[chain+m] = true
		}
	}
	for _, party := range []string{"tls.client.", "tls.server.", "oddcert.chain[].", "oddcert.client_chain[]."} {
		arrays[party+"certificate_chain"] = true
		arrays[party+"x509.alternative_names"] = true
		for _, dn := range []string{"subject.", "issuer."} {
			for _, m := range []string{"common_name", "organization", "organizational_unit", "country", "locality", "state_or_province"} {
				arrays[party+"x509."+dn+m] = true
			}
		}
	}
	record, _ := lean(testObserver).AppendAlert(nil, fullHandshake(t), nil, fullMatch())
	var walk func(path string, v any)
	walk = func(path string, v any) {
		list, isArray := v.([]any)
		if m, ok := v.(map[string]any); ok {
			for k, m := range m {
				walk(strings.TrimPrefix(path+"."+k, "."), m)
			}
			return
		}
		if isArray != arrays[path] {
			t.Errorf("%s: array is %v, want %v", path, isArray, arrays[path])
		}
		for _, m := range list {
			if m, ok := m.(map[string]any); ok {
				for k, m := range m {
					if path == "oddcert.chain" || path == "oddcert.client_chain" {
						walk(path+"[]."+k, m)
					}
				}
			}
		}
	}
	walk("", decodeJSON(t, record))
}

func TestEventID(t *testing.T) {
	id := func(change func(h *event.Handshake, m *rules.Match, o *Observer)) [2][32]byte {
		h, m, o := fullHandshake(t), fullMatch(), testObserver
		if change != nil {
			change(h, m, &o)
		}
		e := lean(o)
		_, handshake := e.AppendHandshake(nil, h, nil, 0)
		_, alert := e.AppendAlert(nil, h, nil, m)
		return [2][32]byte{handshake.ID, alert.ID}
	}
	base := id(nil)
	hour := time.Date(2022, 2, 21, 16, 0, 0, 0, time.UTC).Unix() / 3600
	for _, one := range base {
		if got := string(one[:8]); got != fmt.Sprintf("%08x", hour) {
			t.Errorf("id %s does not begin with hour %08x", one, hour)
		}
		if _, err := hex.DecodeString(string(one[:])); err != nil {
			t.Error(err)
		}
	}
	if base[0] == base[1] {
		t.Error("records of different kinds have one id")
	}
	for name, c := range map[string]struct {
		change func(h *event.Handshake, m *rules.Match, o *Observer)
		other  [2]bool // whether the ids of handshake and alert differ
	}{
		"nothing":        {nil, [2]bool{}},
		"other folder":   {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Flow.Origin.Path = `/else/a "b".pcapng` }, [2]bool{}},
		"program":        {func(h *event.Handshake, m *rules.Match, o *Observer) { o.Version = "9" }, [2]bool{}},
		"sensor, replay": {func(h *event.Handshake, m *rules.Match, o *Observer) { o.Name = "z" }, [2]bool{}},
		"capture":        {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Flow.Origin.Path = "b.pcap" }, [2]bool{true, true}},
		"sensor, live": {func(h *event.Handshake, m *rules.Match, o *Observer) {
			h.Flow.Origin.Path, o.Name = "", "z"
		}, [2]bool{true, true}},
		"port":       {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Flow.Endpoints[0].Port++ }, [2]bool{true, true}},
		"transport":  {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Flow.Transport = event.UDP }, [2]bool{true, true}},
		"vlan":       {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Flow.VLANs[1]-- }, [2]bool{true, true}},
		"flow start": {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Flow.Start++ }, [2]bool{true, true}},
		"handshake":  {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Index++ }, [2]bool{true, true}},
		"other copy": {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Alternative = !h.Alternative }, [2]bool{true, true}},
		"leaf": {func(h *event.Handshake, m *rules.Match, o *Observer) {
			h.Chain[0] = h.Chain[1]
		}, [2]bool{true, true}},
		"rule":    {func(h *event.Handshake, m *rules.Match, o *Observer) { m.Rule.ID = "z" }, [2]bool{false, true}},
		"version": {func(h *event.Handshake, m *rules.Match, o *Observer) { m.Rule.Version = "z" }, [2]bool{false, true}},
		"shifted": {func(h *event.Handshake, m *rules.Match, o *Observer) {
			m.Rule.ID, m.Rule.Version = m.Rule.ID+m.Rule.Version[:1], m.Rule.Version[1:]
		}, [2]bool{false, true}},
	} {
		got := id(c.change)
		for i := range got {
			if (got[i] != base[i]) != c.other[i] {
				t.Errorf("%s: id %d differs: %v, want %v", name, i, got[i] != base[i], c.other[i])
			}
		}
	}
}

// The vectors are those of the specification's own tests
// (corelight/pycommunityid), seed 0.
func TestCommunityID(t *testing.T) {
	for _, v := range []struct {
		transport event.Transport
		a, b      string
		want      string
	}{
		{event.TCP, "128.232.110.120:34855", "66.35.250.204:80", "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		{event.TCP, "10.0.0.1:10", "10.0.0.2:11569", "1:SXBGMX1lBOwhhoDrZynfROxnhnM="},
		{event.UDP, "192.168.1.52:54585", "8.8.8.8:53", "1:d/FP5EW3wiY1vCndhwleRRKHowQ="},
		{132, "192.168.170.8:7", "192.168.170.56:80", "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ="},
	} {
		a, b := netip.MustParseAddrPort(v.a), netip.MustParseAddrPort(v.b)
		f := &event.Flow{Transport: v.transport, Endpoints: [2]event.Endpoint{
			{Addr: a.Addr(), Port: a.Port()}, {Addr: b.Addr(), Port: b.Port()},
		}}
		for range 2 {
			if got := string(appendCommunityID(nil, f)); got != v.want {
				t.Errorf("%s %s: %s, want %s", v.a, v.b, got, v.want)
			}
			f.Endpoints[0], f.Endpoints[1] = f.Endpoints[1], f.Endpoints[0]
		}
	}
}
