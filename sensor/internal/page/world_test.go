package page

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// key is that of all certificates of the tests.
var key = sync.OnceValue(func() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
})

// certificate makes a self-signed certificate for a name.
func certificate(t testing.TB, serial int64, name string, until time.Time) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: strings.ToValidUTF8(name, "?"), Organization: []string{"Example"}},
		NotBefore: until.AddDate(-1, 0, 0), NotAfter: until,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: "Example CA", Organization: []string{"Example Trust"}}, SerialNumber: big.NewInt(1)}, &key().PublicKey, key())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// shown is a finding: a server shows a certificate to a client that has asked for a name.
func shown(der []byte, n int, name string, at time.Time, alerts ...finding.Alert) *finding.Finding {
	client := event.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), Port: uint16(1024 + n%60000)}
	server := event.Endpoint{Addr: netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}), Port: 443}
	h := &event.Handshake{
		Flow:    &event.Flow{Transport: event.TCP, Endpoints: [2]event.Endpoint{client, server}, Start: at.UnixNano(), Origin: &event.Origin{Interface: "span0"}},
		Carrier: "tls", Start: event.Moment{Time: at.UnixNano(), Frame: uint64(4*n + 1)}, Certificate: event.Moment{Time: at.UnixNano(), Frame: uint64(4*n + 2)},
		End: event.Moment{Time: at.UnixNano(), Frame: uint64(4*n + 3)}, Version: 0x303, CipherSuite: 0xc02b, Curve: 29,
		ClientHello: &event.ClientHello{ServerName: name, Offer: &event.Offer{}}, ServerHello: &event.ServerHello{}, Outcome: event.Extracted,
		Chain: []event.ChainEntry{{Certificate: cert.Parse(der)}},
	}
	return &finding.Finding{Handshake: h, Judged: &judgement.Judgement{Trust: &judgement.Trust{Status: judgement.SelfSigned, Reasons: []string{"the leaf is its own issuer"}}}, Alerts: alerts}
}

// raised is an alert of a rule.
func raised(id, level, title, reason string) finding.Alert {
	return finding.Alert{ID: id, Record: []byte(`{"event":{"id":"` + id + `"}}`), Match: &rules.Match{
		Rule: &rules.Rule{ID: "3f0a2a3e-0d9e-4b8e-8d3c-2f0a7c5d1b11", Title: title, Level: level, Verdict: "forged", Version: "2026-01-01"}, Reason: reason,
		Reasons: []string{"oddcert.trust.status is self-signed", "Servers that showed the certificate in the last days: 1"},
	}}
}

// hostile are texts that somebody might send.
var hostile = []string{
	`<script>document.title="owned"</script>`, `"><img src=x onerror=alert(1)>`, "\u202egnp.exe", "a\x00b\x1b[2J", "cut \xe6\xbc", `</title><svg onload=alert(1)>`,
	"{{.}}", "javascript:alert(1)", strings.Repeat("n", 60000), strings.Repeat("\u202e", 9000),
}

// world is a page with all that it can show.
type world struct {
	*Page
	store     *inventory.Store
	now       time.Time
	handshake *event.Handshake // one of them
}

// newWorld returns a page that has seen some handshakes.
func newWorld(t testing.TB, c Config) *world {
	t.Helper()
	w := &world{now: time.Now()}
	c.Sensor, c.Version = "span-1", "v1.2.3"
	store, err := inventory.Temporary()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	w.Page = New(c)
	t.Cleanup(func() { w.Close() })
	w.store = store
	w.handshake = shown(certificate(t, 6, "many.example.net", w.now.AddDate(1, 0, 0)), 9, "many.example.net", w.now).Handshake
	w.see(shown(certificate(t, 7, "www.example.net", w.now.AddDate(1, 0, 0)), 1, "www.example.net", w.now))
	w.see(shown(certificate(t, 8, "old.example.net", w.now.AddDate(0, -1, 0)), 2, "old.example.net", w.now))
	w.see(shown(certificate(t, 9, "www.update.microsoft.com", w.now.AddDate(1, 0, 0)), 3, "www.update.microsoft.com", w.now,
		raised("67e5a1d0aabbccddeeff001122334455", "high", "Certificate that Microsoft's CA for Windows Update did not sign",
			`198.51.0.3:443 showed 10.0.0.3 a forged certificate (subject "CN=www.update.microsoft.com"): it names a CA as its issuer that did not sign it; find out what the client runs and keep the capture.`)))
	w.Ask(store)
	for i := range 100 {
		w.rates.see(counters(uint64(i)), w.now.Add(time.Duration(i-100)*sampleInterval))
	}
	w.Watch(counters(100))
	w.settled(t)
	return w
}

func (w *world) see(f *finding.Finding) {
	w.store.See(f)
	w.See(f)
}

// settled waits for a look at the inventory that has just begun.
func (w *world) settled(t testing.TB) {
	t.Helper()
	if err := w.store.Flush(); err != nil {
		t.Fatal(err)
	}
	w.surveyor.look(w.Page, w.store)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if totals, _ := w.store.Totals(); w.surveyor.last.Load() != nil && w.surveyor.last.Load().totals.Certificates == totals.Certificates {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody looks at the inventory")
		}
		w.surveyor.look(w.Page, w.store)
	}
}

// counters are what a sensor has counted after some time.
func counters(n uint64) *output.Counters {
	c := &output.Counters{}
	c.Capture.Frames, c.Capture.Dropped = n*n*100, n/40*7
	c.Parser = parsers.Stats{Handshakes: n * 12}
	c.Parser.Outcomes[event.Extracted], c.Parser.Outcomes[event.Encrypted], c.Parser.Outcomes[event.Lost] = n*5, n*6, n
	c.Interfaces = []capture.Interface{{Name: "span0", State: capture.LinkUp, Since: time.Now().Add(-time.Hour), Frames: n * n * 100, Last: time.Now()}}
	c.Rules = []output.RuleCount{{Rule: &rules.Rule{Title: "Certificate that Microsoft's CA for Windows Update did not sign", Level: "high", Severity: 73, Ruleset: "windows-update"}, Matches: n / 25}}
	c.Sections = []output.Section{
		{Name: "spool", Value: spool.Stats{Bytes: 3 << 20, Limit: 1 << 30}},
		{Name: "outputs", Value: map[string]delivery.Stats{"siem": {Trouble: "dial tcp 192.0.2.1:9200: connection refused", Outage: 75}}},
	}
	return c
}

// get asks for a page.
func (w *world) get(path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9847"+path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	a := httptest.NewRecorder()
	w.ServeHTTP(a, r)
	return a
}
