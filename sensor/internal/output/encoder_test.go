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
	return decode(t, b)
}

// decode decodes one JSON object, strictly: keys are there once, and nothing
// follows.
func decode(t testing.TB, b []byte) any {
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

// refHandshake is the record of fullHandshake, without event.
func refHandshake(h *event.Handshake) object {
	server, client := h.Flow.Endpoints[0], h.Flow.Endpoints[1]
	var chain, clientChain []object
	for i, e := range h.Chain {
		chain = append(chain, refEntry(i, e))
	}
	for i, e := range h.ClientChain {
		clientChain = append(clientChain, refEntry(i, e))
	}
	return object{
		"@timestamp": at(h.End.Time),
		"ecs":        object{"version": "9.4.0"},
		"source":     refEnd(client), "client": refEnd(client),
		"destination": refEnd(server), "server": refEnd(server).with(object{"domain": "mail.example.com"}),
		"network": object{
			"transport": "tcp", "type": "ipv4", "protocol": "tls", "direction": "unknown",
			"community_id": "1:LQU9qZlK+B5F3KDmev6m5PMibrg=", // of the specification's own tests
			"vlan":         object{"id": "100"},
			"inner":        object{"vlan": object{"id": "4095"}},
		},
		"observer": object{
			"type": "sensor", "product": "oddcert", "version": "1.2.3", "name": "span-1",
			"ingress": object{"interface": object{"name": "eth0"}},
		},
		"log": object{"file": object{"path": `/captures/a "b".pcapng`}},
		"tls": object{
			"version": "1.2", "version_protocol": "tls", "cipher": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
			"curve": "secp256r1", "next_protocol": "h2", "established": true, "resumed": false,
			"client": refLeaf(h.ClientChain[0].Certificate).with(object{
				"server_name": "mail.example.com", "ja3": "d4e5b18d6b55c71272893221c96ba240",
				"supported_ciphers": []string{
					"0x5a5a", "TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
					"TLS_EMPTY_RENEGOTIATION_INFO_SCSV", "0x4242",
				},
			}),
			"server": refLeaf(h.Chain[0].Certificate).with(object{"ja3s": "394441ab65754e2207b1e1b457b3641d"}),
		},
		"related": object{
			"ip":    []string{"128.232.110.120", "66.35.250.204"},
			"hosts": []string{"mail.example.com", "www.example.com"},
			"hash":  refHashes(h.Chain, h.ClientChain),
		},
		"oddcert": object{
			"pcap": object{"packet_number": 9}, "tunnel": []string{"vxlan", "gre"}, "carrier": "starttls-smtp",
			"ja4": "t13d1516h2_8daaf6152771_02713d6af862", "certificates": "extracted",
			"authority_names": h.AuthorityNames,
			"raw_key":         object{"sha256": upper(h.RawKey[:])},
			"client_raw_key":  object{"sha256": upper(h.ClientRawKey[:])},
			"chain":           chain, "client_chain": clientChain,
		},
	}
}

func refEvent(h *event.Handshake, s Stamp) object {
	return object{
		"kind": "event", "category": []string{"network"}, "type": []string{"connection", "protocol"},
		"action": "tls-handshake", "dataset": "oddcert.handshake", "module": "oddcert",
		"id": string(s.ID[:]), "start": at(h.Start.Time), "created": at(h.End.Time),
	}
}

func diff(t *testing.T, got []byte, want object) {
	t.Helper()
	if d := cmp.Diff(want.decoded(t), decode(t, got)); d != "" {
		t.Errorf("- want, + got:\n%s", d)
	}
	if bytes.ContainsAny(got, "\n\r") {
		t.Error("a line feed in the record")
	}
}

func TestHandshakeRecord(t *testing.T) {
	h := fullHandshake(t)
	e := NewEncoder(testObserver)
	for range 2 { // the second time out of the caches
		got, s := e.AppendHandshake([]byte("before"), h)
		got, ok := bytes.CutPrefix(got, []byte("before"))
		if !ok {
			t.Fatal("what was in dst is gone")
		}
		diff(t, got, refHandshake(h).with(object{"event": refEvent(h, s)}))
		if s.Time != h.End.Time {
			t.Errorf("time %d, want %d", s.Time, h.End.Time)
		}
	}
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
	got, s := NewEncoder(Observer{Name: "n"}).AppendHandshake(nil, h)
	ev := refEvent(h, s)
	ev["start"] = "1970-01-01T00:00:00.000000005Z"
	end := func(port int) object { return object{"ip": "fe80::1", "port": port} }
	diff(t, got, object{
		"@timestamp": "2020-09-13T12:26:40.000000000Z", "ecs": object{"version": "9.4.0"}, "event": ev,
		"source": end(1), "client": end(1), "destination": end(2), "server": end(2),
		"network": object{
			"transport": "udp", "type": "ipv6", "protocol": "dtls", "direction": "unknown",
			"community_id": decode(t, got).(map[string]any)["network"].(map[string]any)["community_id"],
		},
		"observer": object{"type": "sensor", "product": "oddcert", "name": "n"},
		"tls":      object{"version": "1.2", "version_protocol": "dtls", "established": false, "resumed": false},
		"related":  object{"ip": []string{"fe80::1"}},
		"oddcert": object{
			"pcap": object{"packet_number": 1}, "carrier": "dtls", "certificates": "lost", "loss": "end-of-input",
		},
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
		got, s := NewEncoder(Observer{Name: "n"}).AppendHandshake(nil, h)
		ev := refEvent(h, s)
		ev["start"] = "1970-01-01T00:00:00.000000005Z"
		want := object{
			"@timestamp": "2020-09-13T12:26:40.000000000Z", "ecs": object{"version": "9.4.0"}, "event": ev,
			"source": object{"mac": "02-00-00-00-00-AB"}, "client": object{"mac": "02-00-00-00-00-AB"},
			"destination": object{"mac": "02-00-00-00-00-01"}, "server": object{"mac": "02-00-00-00-00-01"},
			"network":  object{"transport": "eapol", "protocol": "tls", "direction": "unknown"},
			"observer": object{"type": "sensor", "product": "oddcert", "name": "n"},
			"tls":      object{"version": "1.2", "version_protocol": "tls", "established": false, "resumed": false},
			"oddcert":  object{"pcap": object{"packet_number": 1}, "carrier": "peap", "certificates": "lost", "loss": "end-of-input"},
		}
		if client == [6]byte{} {
			delete(want, "source")
			delete(want, "client")
		}
		diff(t, got, want)
		// Another authenticator is another server, and another event.
		other := *h
		flow := *h.Flow
		flow.Endpoints[1].MAC[5] = 2
		other.Flow = &flow
		if _, o := NewEncoder(Observer{Name: "n"}).AppendHandshake(nil, &other); o.ID == s.ID {
			t.Error("two authenticators have one id")
		}
		h.Chain = fullHandshake(t).Chain[:1]
		other.Chain = h.Chain
		v := NewInventory()
		if len(v.Seen(h)) != 1 || len(v.Seen(h)) != 0 || len(v.Seen(&other)) != 1 {
			t.Error("the inventory does not know authenticators")
		}
		if server, _ := ends(h); server != "02:00:00:00:00:01" {
			t.Errorf("shown as %s", server)
		}
	}
}

func TestAlertRecord(t *testing.T) {
	h, m := fullHandshake(t), fullMatch()
	got, s := NewEncoder(testObserver).AppendAlert(nil, h, m)
	want := refHandshake(h)
	want["event"] = refEvent(h, s).with(object{
		"kind": "alert", "category": []string{"network", "intrusion_detection"}, "type": []string{"info"},
		"action": "rule-matched", "dataset": "oddcert.alert",
		"severity": 47, "risk_score": 50, "reason": m.Reason,
	})
	want["message"] = "Look-alike of www.update.microsoft.com: server 66.35.250.204:80 (mail.example.com), client 128.232.110.120:34855"
	want["rule"] = object{
		"id": m.Rule.ID, "uuid": m.Rule.ID, "name": m.Rule.Title, "description": m.Rule.Description,
		"category": "tls", "ruleset": "microsoft-update", "version": "2024-05-06", "author": []string{"Example"},
		"reference": "https://csirt.divd.nl/x?a=1&b=2", "license": "CC0-1.0",
	}
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
		"enrichments": []object{{
			"indicator": object{"type": "x509-certificate", "provider": "divd"},
			"matched":   object{"atomic": "1073570F", "field": "tls.server.hash.sha256", "type": "indicator_match_rule"},
		}},
	}
	tls := want["tls"].(object)
	tls["server"].(object)["certificate_chain"] = refDERs(h.Chain)
	tls["client"].(object)["certificate_chain"] = refDERs(h.ClientChain)
	want["oddcert"].(object).with(object{
		"pcap": object{"packet_number": 6}, "verdict": "disguise", "verdict_reasons": m.Reasons,
		"match": object{"field": m.Field, "value": m.Value, "list": "divd", "chain_index": 0},
		"chain": refFullChain(h.Chain), "client_chain": refFullChain(h.ClientChain),
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
		got, s := NewEncoder(testObserver).AppendAlert(nil, h, m)
		want := refHandshakeWithoutChains(h)
		want["event"] = refEvent(h, s).with(object{
			"kind": "alert", "category": []string{"network", "intrusion_detection"}, "type": []string{"info"},
			"action": "rule-matched", "dataset": "oddcert.alert", "severity": 99, "risk_score": 99,
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

func refHandshakeWithoutChains(h *event.Handshake) object {
	full := *h
	full.Chain = []event.ChainEntry{{Certificate: new(cert.Certificate)}}
	full.ClientChain = full.Chain
	o := refHandshake(&full)
	o["related"].(object)["hosts"] = []string{"mail.example.com"}
	for _, chain := range []string{"chain", "client_chain"} {
		delete(o["oddcert"].(object), chain)
	}
	return o
}

func TestCertificateRecord(t *testing.T) {
	h := fullHandshake(t)
	e := NewEncoder(testObserver)
	ids := map[[32]byte]int{}
	for i := range h.Chain {
		got, s := e.AppendCertificate(nil, h, i)
		one := h.Chain[i : i+1]
		want := refHandshake(h)
		want["event"] = refEvent(h, s).with(object{
			"type": []string{"info"}, "action": "certificate-first-seen", "dataset": "oddcert.certificate",
		})
		tls := want["tls"].(object)
		tls["server"] = refLeaf(one[0].Certificate).with(object{
			"ja3s": "394441ab65754e2207b1e1b457b3641d", "certificate_chain": refDERs(one),
		})
		hello := tls["client"].(object)
		tls["client"] = object{
			"server_name": hello["server_name"], "ja3": hello["ja3"], "supported_ciphers": hello["supported_ciphers"],
		}
		delete(want["oddcert"].(object), "client_chain")
		related := want["related"].(object)
		related["hash"] = refHashes(one)
		if i > 0 {
			related["hosts"] = []string{"mail.example.com"}
		}
		want["oddcert"].(object).with(object{
			"pcap": object{"packet_number": 6}, "chain": []object{refFull(i, one[0])},
		})
		diff(t, got, want)
		if before, twice := ids[s.ID]; twice {
			t.Errorf("certificates %d and %d have the same id", before, i)
		}
		ids[s.ID] = i
	}
}

func TestStatsRecord(t *testing.T) {
	c := fullCounters()
	got, s, err := NewEncoder(testObserver).AppendStats(nil, c)
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
		"@timestamp": at(c.End), "ecs": object{"version": "9.4.0"},
		"event": object{
			"kind": "metric", "category": []string{"host"}, "type": []string{"info"}, "action": "statistics",
			"dataset": "oddcert.stats", "module": "oddcert", "id": string(s.ID[:]),
			"start": at(c.Start), "created": at(c.End),
		},
		"observer": object{
			"type": "sensor", "product": "oddcert", "version": "1.2.3", "name": "span-1",
		},
		"oddcert": object{"stats": object{
			"capture":   json.RawMessage(captured),
			"parser":    json.RawMessage(parser),
			"inventory": object{"certificates": 7, "pairs": 9, "forgotten": 0},
			"flow":      object{"flows": 12, "evicted": 1},
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
			"rules":  []object{{"id": fullMatch().Rule.ID, "name": fullMatch().Rule.Title, "matches": 3}},
		}},
	})
	c.Sections = append(c.Sections, Section{Name: "bad", Value: func() {}})
	if _, _, err := NewEncoder(testObserver).AppendStats(nil, c); err == nil || !strings.Contains(err.Error(), "counters of bad") {
		t.Errorf("a section that cannot be encoded: %v", err)
	}
}

// TestFields holds the table of fields against all that records have.
func TestFields(t *testing.T) {
	h, m := fullHandshake(t), fullMatch()
	h.Outcome, h.Loss = event.Lost, event.Gap
	h.Forged, h.Alternative = event.ForgedRST|event.ForgedConflict, true
	rsa := *h.Chain[0].Certificate
	rsa.PublicKeyExponent, rsa.PublicKeyCurve, rsa.SerialPadded = 65537, "P-256", true
	client := rsa
	client.ParseError = "odd"
	h.Chain[0].Certificate, h.ClientChain[0].Certificate = &rsa, &client
	h.ClientChain[1].Truncated = true
	e := NewEncoder(testObserver)
	handshake, _ := e.AppendHandshake(nil, h)
	alert, _ := e.AppendAlert(nil, h, m)
	m.Rule.Threat.Techniques[0].Name = "Encrypted Channel"
	named, _ := e.AppendAlert(nil, h, m)
	certificate, _ := e.AppendCertificate(nil, h, 0)
	abridged, _ := e.AppendAlert(nil, fullOfNames(t, 8, 8), m)
	mad := *h
	mad.End.Time = h.Start.Time - 3600e9
	jumped, _ := e.AppendHandshake(nil, &mad)
	stats, _, err := e.AppendStats(nil, fullCounters())
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if Fields[path] == "nested" {
				used[path] = true
			}
			for k, m := range v {
				walk(strings.TrimPrefix(path+"."+k, "."), m)
			}
		case []any:
			for _, m := range v {
				walk(path, m)
			}
		default:
			kind, ok := Fields[path]
			if !ok && strings.HasPrefix(path, "oddcert.stats.") {
				path = "oddcert.stats.*"
				kind, ok = Fields[path]
			}
			if !ok {
				t.Errorf("%s is not in Fields", path)
				return
			}
			used[path] = true
			switch kind {
			case "keyword", "text":
				_, ok = v.(string)
			case "long":
				var n json.Number
				if n, ok = v.(json.Number); ok {
					_, err := n.Int64()
					ok = err == nil
				}
			case "float":
				_, ok = v.(json.Number)
			case "boolean":
				_, ok = v.(bool)
			case "date":
				_, err := time.Parse(time.RFC3339Nano, v.(string))
				ok = err == nil
			case "ip":
				_, err := netip.ParseAddr(v.(string))
				ok = err == nil
			default:
				ok = false
			}
			if !ok {
				t.Errorf("%s is no %s: %v", path, kind, v)
			}
		}
	}
	for _, record := range [][]byte{handshake, alert, named, certificate, abridged, jumped, stats} {
		walk("", decode(t, record))
	}
	for path := range Fields {
		if !used[path] {
			t.Errorf("%s is in Fields, and in no record", path)
		}
	}
	for _, name := range rules.FieldNames() {
		if !used[name] {
			t.Errorf("rules can ask for %s, which is in no record", name)
		}
	}
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
	e := NewEncoder(testObserver)
	for range 2 {
		handshake, _ := e.AppendHandshake(nil, h)
		certificate, _ := e.AppendCertificate(nil, h, 0)
		alert, _ := e.AppendAlert(nil, h, fullMatch())
		for name, record := range map[string][]byte{"handshake": handshake, "certificate": certificate, "alert": alert} {
			if len(record) > 6<<20 || !json.Valid(record) {
				t.Errorf("%s: %d bytes, valid: %v", name, len(record), json.Valid(record))
			}
			if !bytes.Contains(record, []byte(`"alternative_names_count":1048`)) {
				t.Errorf("%s does not say how many names there are", name)
			}
		}
		doc := decode(t, alert).(map[string]any)["oddcert"].(map[string]any)["client_chain"].([]any)
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
	e := NewEncoder(testObserver)
	handshake, _ := e.AppendHandshake(nil, h)
	certificate, _ := e.AppendCertificate(nil, h, 0)
	for name, record := range map[string][]byte{"handshake": handshake, "certificate": certificate} {
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
	record, _ := NewEncoder(testObserver).AppendAlert(nil, fullHandshake(t), fullMatch())
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
	walk("", decode(t, record))
}

func TestEventID(t *testing.T) {
	id := func(change func(h *event.Handshake, m *rules.Match, o *Observer)) [3][32]byte {
		h, m, o := fullHandshake(t), fullMatch(), testObserver
		if change != nil {
			change(h, m, &o)
		}
		e := NewEncoder(o)
		_, handshake := e.AppendHandshake(nil, h)
		_, certificate := e.AppendCertificate(nil, h, 0)
		_, alert := e.AppendAlert(nil, h, m)
		return [3][32]byte{handshake.ID, certificate.ID, alert.ID}
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
	if base[0] == base[1] || base[1] == base[2] || base[0] == base[2] {
		t.Error("records of different kinds have one id")
	}
	for name, c := range map[string]struct {
		change func(h *event.Handshake, m *rules.Match, o *Observer)
		other  [3]bool // whether the ids of handshake, certificate and alert differ
	}{
		"nothing":        {nil, [3]bool{}},
		"other folder":   {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Flow.Origin.Path = `/else/a "b".pcapng` }, [3]bool{}},
		"program":        {func(h *event.Handshake, m *rules.Match, o *Observer) { o.Version = "9" }, [3]bool{}},
		"sensor, replay": {func(h *event.Handshake, m *rules.Match, o *Observer) { o.Name = "z" }, [3]bool{}},
		"capture":        {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Flow.Origin.Path = "b.pcap" }, [3]bool{true, true, true}},
		"sensor, live": {func(h *event.Handshake, m *rules.Match, o *Observer) {
			h.Flow.Origin.Path, o.Name = "", "z"
		}, [3]bool{true, true, true}},
		"port":       {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Flow.Endpoints[0].Port++ }, [3]bool{true, true, true}},
		"transport":  {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Flow.Transport = event.UDP }, [3]bool{true, true, true}},
		"vlan":       {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Flow.VLANs[1]-- }, [3]bool{true, true, true}},
		"flow start": {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Flow.Start++ }, [3]bool{true, true, true}},
		"handshake":  {func(h *event.Handshake, m *rules.Match, o *Observer) { h.Index++ }, [3]bool{true, true, true}},
		"leaf": {func(h *event.Handshake, m *rules.Match, o *Observer) {
			h.Chain[0] = h.Chain[1]
		}, [3]bool{true, true, true}},
		"rule":    {func(h *event.Handshake, m *rules.Match, o *Observer) { m.Rule.ID = "z" }, [3]bool{false, false, true}},
		"version": {func(h *event.Handshake, m *rules.Match, o *Observer) { m.Rule.Version = "z" }, [3]bool{false, false, true}},
		"shifted": {func(h *event.Handshake, m *rules.Match, o *Observer) {
			m.Rule.ID, m.Rule.Version = m.Rule.ID+m.Rule.Version[:1], m.Rule.Version[1:]
		}, [3]bool{false, false, true}},
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
