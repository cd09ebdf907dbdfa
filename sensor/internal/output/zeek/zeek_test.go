package zeek

import (
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// headers are of Zeek 8.2: those of the baselines of its tests
// (scripts.base.protocols.mysql.encrypted-aws-rds, scripts.base.protocols.imap.starttls)
// and of Known::CertsInfo; notice.log's is that of its documentation, "notice.log".
var headers = []struct{ path, fields, types string }{
	{"ssl", "ts uid id.orig_h id.orig_p id.resp_h id.resp_p version cipher curve server_name resumed last_alert next_protocol established ssl_history cert_chain_fps client_cert_chain_fps sni_matches_cert",
		"time string addr port addr port string string string string bool string string bool string vector[string] vector[string] bool"},
	{"x509", "ts fingerprint certificate.version certificate.serial certificate.subject certificate.issuer certificate.not_valid_before certificate.not_valid_after certificate.key_alg certificate.sig_alg certificate.key_type certificate.key_length certificate.exponent certificate.curve san.dns san.uri san.email san.ip basic_constraints.ca basic_constraints.path_len host_cert client_cert",
		"time string count string string string time time string string string count string string vector[string] vector[string] vector[string] vector[addr] bool count bool bool"},
	{"notice", "ts uid id.orig_h id.orig_p id.resp_h id.resp_p fuid file_mime_type file_desc proto note msg sub src dst p n peer_descr actions email_dest suppress_for remote_location.country_code remote_location.region remote_location.city remote_location.latitude remote_location.longitude",
		"time string addr port addr port string string string enum enum string string addr addr port count string set[enum] set[string] interval string string string double double"},
	{"known_certs", "ts host port_num subject issuer_subject serial", "time addr port string string string"},
}

func TestHeaders(t *testing.T) {
	for i, text := range write(t, false) {
		want := headers[i]
		lines := strings.Split(text, "\n")
		got := []string{
			`#separator \x09`, "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-", "#path\t" + want.path,
			"#open\t2026-11-29-07-08-09", "#fields\t" + strings.ReplaceAll(want.fields, " ", "\t"),
			"#types\t" + strings.ReplaceAll(want.types, " ", "\t"), "#close\t2026-11-29-07-08-09", "",
		}
		if !slices.Equal(lines, got) {
			t.Errorf("%s.log:\n%s", want.path, text)
		}
		if name := New(false).Files()[i].Name; name != want.path+".log" {
			t.Errorf("file %s, want %s.log", name, want.path)
		}
	}
	for _, text := range write(t, true) {
		if text != "" {
			t.Errorf("JSON has a header: %q", text)
		}
	}
}

// TestZeek compares with what Zeek has written about the same packets and the same
// certificates. The rows are from the baselines of Zeek's own tests, in which ts is left
// out: scripts.base.protocols.imap.starttls, from the capture that nDPI has too, and
// the certificates of scripts.base.protocols.smtp.starttls.
func TestZeek(t *testing.T) {
	logs := write(t, false, records(t, "public.txt")...)
	_, _, ssls := parse(t, logs[ssl])
	gmx := []string{
		"e0129ac9d82beb2ad399c85a2d246c0a5376e1094a5410ba9157cc42c3d514c1",
		"3c80fe6e6a70e12fae2e7c7b289420f10a69e80dcc88847bb9836ff14a20f872",
		"b6191a50d0c3977f7da99bcdaac86a227daeb9679ec70ba3b0c9d92271c170d3",
	}
	want := []values{{
		"id.orig_h": "192.168.17.53", "id.orig_p": "49640", "id.resp_h": "212.227.17.186", "id.resp_p": "143",
		"version": "TLSv12", "cipher": "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "curve": "secp256r1",
		"resumed": "F", "established": "T", "cert_chain_fps": gmx, "client_cert_chain_fps": []string{},
	}}
	for i := range ssls {
		delete(ssls[i], "ts")
		delete(ssls[i], "uid")
	}
	if !reflect.DeepEqual(ssls, want) {
		t.Errorf("ssl.log has %v", ssls)
	}

	const fields = "fingerprint version serial subject issuer not_valid_before not_valid_after key_alg sig_alg key_type key_length exponent curve dns uri email ip ca path_len host_cert"
	rows := `e0129ac9d82beb2ad399c85a2d246c0a5376e1094a5410ba9157cc42c3d514c1	3	339D9ED8E73927C9	CN=imap.gmx.net,emailAddress=server-certs@1und1.de,L=Montabaur,ST=Rhineland-Palatinate,O=1&1 Mail & Media GmbH,C=DE	CN=TeleSec ServerPass DE-1,street=Untere Industriestr. 20,L=Netphen,postalCode=57250,ST=NRW,OU=T-Systems Trust Center,O=T-Systems International GmbH,C=DE	1384251451.000000	1479427199.000000	rsaEncryption	sha1WithRSAEncryption	rsa	2048	65537	-	imap.gmx.net,imap.gmx.de	-	-	-	F	-	T
3c80fe6e6a70e12fae2e7c7b289420f10a69e80dcc88847bb9836ff14a20f872	3	21B6777E8CBD0EA8	CN=TeleSec ServerPass DE-1,street=Untere Industriestr. 20,L=Netphen,postalCode=57250,ST=NRW,OU=T-Systems Trust Center,O=T-Systems International GmbH,C=DE	CN=Deutsche Telekom Root CA 2,OU=T-TeleSec Trust Center,O=Deutsche Telekom AG,C=DE	1362146309.000000	1562716740.000000	rsaEncryption	sha1WithRSAEncryption	rsa	2048	65537	-	-	-	-	-	T	0	F
b6191a50d0c3977f7da99bcdaac86a227daeb9679ec70ba3b0c9d92271c170d3	3	26	CN=Deutsche Telekom Root CA 2,OU=T-TeleSec Trust Center,O=Deutsche Telekom AG,C=DE	CN=Deutsche Telekom Root CA 2,OU=T-TeleSec Trust Center,O=Deutsche Telekom AG,C=DE	931522260.000000	1562716740.000000	rsaEncryption	sha1WithRSAEncryption	rsa	2048	65537	-	-	-	-	-	T	5	F
4f0a1ac1c6e873c8805fe2fc56c7aac77025f1dcbbbf907e768f1ec88c3485db	3	325D8297987D50B0	CN=mx.google.com,O=Google Inc,L=Mountain View,ST=California,C=US	CN=Google Internet Authority G2,O=Google Inc,C=US	1378726355.000000	1410262355.000000	rsaEncryption	sha1WithRSAEncryption	rsa	2048	65537	-	aspmx.l.google.com,alt1.aspmx.l.google.com,alt2.aspmx.l.google.com,alt3.aspmx.l.google.com,alt4.aspmx.l.google.com,gmail-smtp-in.l.google.com,alt1.gmail-smtp-in.l.google.com,alt2.gmail-smtp-in.l.google.com,alt3.gmail-smtp-in.l.google.com,alt4.gmail-smtp-in.l.google.com,gmr-smtp-in.l.google.com,alt1.gmr-smtp-in.l.google.com,alt2.gmr-smtp-in.l.google.com,alt3.gmr-smtp-in.l.google.com,alt4.gmr-smtp-in.l.google.com,mx.google.com,aspmx2.googlemail.com,aspmx3.googlemail.com,aspmx4.googlemail.com,aspmx5.googlemail.com	-	-	-	F	-	T
a047a37fa2d2e118a4f5095fe074d6cfe0e352425a7632bf8659c03919a6c81d	3	023A69	CN=Google Internet Authority G2,O=Google Inc,C=US	CN=GeoTrust Global CA,O=GeoTrust Inc.,C=US	1365174955.000000	1428160555.000000	rsaEncryption	sha1WithRSAEncryption	rsa	2048	65537	-	-	-	-	-	T	0	F
3c35cc963eb004451323d3275d05b353235053490d9cd83729a2faf5e7ca1cc0	3	12BBE6	CN=GeoTrust Global CA,O=GeoTrust Inc.,C=US	OU=Equifax Secure Certificate Authority,O=Equifax,C=US	1021953600.000000	1534824000.000000	rsaEncryption	sha1WithRSAEncryption	rsa	2048	65537	-	-	-	-	-	T	-	F
`
	var got []string
	for line := range strings.Lines(logs[x509]) {
		if cells := strings.Split(line, "\t"); !strings.HasPrefix(line, "#") {
			got = append(got, strings.Join(cells[1:len(cells)-1], "\t")) // client_cert may be unset
		}
	}
	for row := range strings.Lines(rows) {
		row = strings.TrimSpace(row)
		if n := strings.Count(row, "\t") + 1; n != len(strings.Fields(fields)) {
			t.Fatalf("%d columns in %s", n, row)
		}
		if !slices.Contains(got, row) {
			t.Errorf("x509.log does not have\n%s\nbut\n%s", row, strings.Join(got, "\n"))
		}
	}
	if n := strings.Count(rows, "\n"); len(got) != n {
		t.Errorf("%d certificates, want %d", len(got), n)
	}
}

// TestRecords looks at the lines of records whose captures are in this repository:
// their README says what is in them.
func TestRecords(t *testing.T) {
	list := records(t, "records.txt")
	logs := write(t, false, list...)
	uids := map[any]bool{}
	seen := map[string]int{}
	_, _, lines := parse(t, logs[ssl])
	for _, v := range lines {
		uids[v["uid"]] = true
		seen[v["version"].(string)+" "+v["resumed"].(string)+" "+v["id.resp_p"].(string)]++
		for _, name := range []string{"last_alert", "ssl_history"} {
			if v[name] != nil {
				t.Errorf("%s is set", name)
			}
		}
		if strings.Contains(v["cipher"].(string), "anon") {
			t.Errorf("cipher %s: Zeek writes ANON", v["cipher"])
		}
		if len(v["uid"].(string)) != 18 || v["uid"].(string)[0] != 'C' {
			t.Errorf("uid %s", v["uid"])
		}
	}
	if seen["TLSv12 T 465"] != 2 || seen["DTLSv12 F 4443"] != 2 || len(uids)*2 != len(lines) {
		t.Errorf("%d lines of %d connections, %v: want each as a lean and as a full handshake, and one resumed", len(lines), len(uids), seen)
	}

	_, _, lines = parse(t, logs[notice])
	notes := map[any]int{}
	for _, v := range lines {
		notes[v["note"]]++
		if !uids[v["uid"]] {
			t.Errorf("the notice's uid %v is in no line of ssl.log", v["uid"])
		}
		if v["msg"] == nil || v["sub"] == nil || v["src"] != v["id.orig_h"] || v["dst"] != v["id.resp_h"] || v["p"] != v["id.resp_p"] ||
			v["proto"] != "tcp" && v["proto"] != "udp" || v["suppress_for"] != nil ||
			!reflect.DeepEqual(v["actions"], []string{"Notice::ACTION_LOG"}) || !reflect.DeepEqual(v["email_dest"], []string{}) {
			t.Errorf("notice.log has %s", show(v))
		}
	}
	if len(lines) != 2 || notes["Oddcert::Forged"] != 2 {
		t.Errorf("notes are %v", notes)
	}

	clients := 0
	_, _, lines = parse(t, logs[x509])
	subjects := map[any]bool{}
	for _, v := range lines {
		subjects[v["certificate.subject"]] = true
		if v["client_cert"] == "T" {
			clients++
			if v["certificate.subject"] != "CN=client.example" || v["host_cert"] != "T" || v["certificate.key_alg"] != "id-ecPublicKey" ||
				v["certificate.key_type"] != "ecdsa" || v["certificate.curve"] != "prime256v1" || v["certificate.key_length"] != "256" ||
				v["certificate.sig_alg"] != "ecdsa-with-SHA256" || v["certificate.exponent"] != nil {
				t.Errorf("x509.log has %s", show(v))
			}
		}
	}
	if clients != 1 {
		t.Errorf("%d certificates of clients, want 1", clients)
	}

	_, _, lines = parse(t, logs[knownCerts])
	if len(lines) == 0 {
		t.Error("no line in known_certs.log")
	}
	for _, v := range lines {
		if !subjects[v["subject"]] || v["issuer_subject"] == nil || v["serial"] != nil {
			t.Errorf("known_certs.log has %s, whose subject is to be in x509.log", show(v))
		}
	}

	// JSON says the same.
	for i, text := range write(t, true, list...) {
		_, _, want := parse(t, logs[i])
		if got := parseJSON(t, text); !reflect.DeepEqual(got, want) {
			t.Errorf("%s as JSON:\n%s", headers[i].path, text)
		}
	}
}

func TestSighting(t *testing.T) {
	for _, r := range records(t, "public.txt") {
		if r.Dataset != output.Sighting {
			continue
		}
		_, _, lines := parse(t, write(t, false, r)[knownCerts])
		want := values{
			"ts": "1437584568.961276", "host": "212.227.17.186", "port_num": "143",
			"subject":        "CN=imap.gmx.net,emailAddress=server-certs@1und1.de,L=Montabaur,ST=Rhineland-Palatinate,O=1&1 Mail & Media GmbH,C=DE",
			"issuer_subject": "CN=TeleSec ServerPass DE-1,street=Untere Industriestr. 20,L=Netphen,postalCode=57250,ST=NRW,OU=T-Systems Trust Center,O=T-Systems International GmbH,C=DE",
		}
		if len(lines) != 1 || !reflect.DeepEqual(lines[0], want) {
			t.Errorf("known_certs.log has %v", lines)
		}
	}
}

func TestUnknown(t *testing.T) {
	for _, text := range write(t, false,
		record(t, `handshake {"@timestamp":"2026-11-29T07:08:09.123456789Z","event":{"duration":9000000000},"network":{"transport":"eapol"},"tls":{"version":"1.2","version_protocol":"tls"}}`),
		record(t, `alert {"@timestamp":"1969-12-31T23:59:58.500000001Z","network":{"transport":"sctp"},"source":{"ip":"2001:db8::1","port":5},"destination":{"ip":"2001:db8::2","port":0},"message":"-","oddcert":{"suppressed":{"count":7}}}`),
		record(t, `sighting {"@timestamp":"2026-11-29T07:08:09Z"}`),
		record(t, `certificate {"@timestamp":"2026-11-29T07:08:09Z","oddcert":{"certificate":{"role":"issuer","der":"MAA="}}}`),
		record(t, `stats {}`), record(t, `hello {}`),
	) {
		path, _, lines := parse(t, text)
		want := map[string]values{
			"ssl": {"ts": "1795936080.123456", "resumed": "F"},
			"notice": {"ts": "-1.500000", "uid": lines[0]["uid"], "id.orig_h": "2001:db8::1", "id.orig_p": "5", "id.resp_h": "2001:db8::2",
				"id.resp_p": "0", "proto": "unknown_transport", "note": "Oddcert::Alert", "msg": "-", "src": "2001:db8::1",
				"dst": "2001:db8::2", "p": "0", "n": "7", "actions": []string{"Notice::ACTION_LOG"}, "email_dest": []string{}},
			"known_certs": {"ts": "1795936089.000000"},
			"x509":        {"ts": "1795936089.000000", "host_cert": "F"},
		}[path]
		if len(lines) != 1 || !reflect.DeepEqual(lines[0], want) {
			t.Errorf("%s.log has %v, want %v", path, lines, want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range [][3]string{
		{"ssl", "2.0", "SSLv2"}, {"ssl", "3.0", "SSLv3"}, {"tls", "1.0", "TLSv10"}, {"tls", "1.3", "TLSv13"},
		{"dtls", "1.0", "DTLSv10"}, {"dtls", "1.2", "DTLSv12"}, {"dtls", "1.3", "DTLSv13"}, {"tlcp", "1.1", "unknown-257"}, {"", "", ""},
	} {
		if got := version(c[0], c[1]); got != c[2] {
			t.Errorf("version %s %s is %s, want %s", c[0], c[1], got, c[2])
		}
	}
	for name, want := range map[string]string{
		"TLS_DH_anon_WITH_RC4_128_MD5": "TLS_DH_ANON_WITH_RC4_128_MD5", "0x1A1A": "unknown-6682", "": "",
		"TLS_ECDH_anon_WITH_AES_128_CBC_SHA": "TLS_ECDH_ANON_WITH_AES_128_CBC_SHA",
	} {
		if got := cipher(name); got != want {
			t.Errorf("cipher %s is %s, want %s", name, got, want)
		}
	}
	for name, want := range map[string]string{"0x4138": "CECPQ2", "x25519": "x25519", "0x0200": "unknown-512"} {
		if got := curve(name); got != want {
			t.Errorf("curve %s is %s, want %s", name, got, want)
		}
	}
	for verdict, want := range map[string]string{"forged": "Forged", "weak-ca": "Weak_Ca", "": "Alert"} {
		if got := noteName(verdict); got != want {
			t.Errorf("verdict %q is %s, want %s", verdict, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, line := range []string{
		`handshake {`, `certificate {"oddcert":{"certificate":{"der":"?"}}}`,
		`full_handshake {"tls":{"client":{"server_name":"a"},"server":{"certificate_chain":["?"]}}}`,
	} {
		err := New(false).Format(record(t, line), func(int, []byte) { t.Errorf("a line for %s", line) })
		if err == nil {
			t.Errorf("no error for %s", line)
		}
	}
}

// Certificates and alerts come from different queues.
func TestConcurrent(t *testing.T) {
	f := New(true)
	list := records(t, "records.txt")
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for _, r := range list {
				if err := f.Format(r, func(int, []byte) {}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
