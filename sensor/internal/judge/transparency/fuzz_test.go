package transparency

import (
	"crypto/x509"
	"slices"
	"testing"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"golang.org/x/crypto/ocsp"
)

// Whatever comes in an extension or is stapled, what is said of it agrees with itself.
func FuzzJudge(f *testing.F) {
	w := made()
	der := w.embed(f, leaf(1), w.ecLog, w.rsaLog)
	list := listOf(stamp(f, w.ecLog, der, nil), stamp(f, w.rsaLog, der, nil))
	f.Add(der, list, []byte{0x30, 3, 0x0a, 1, 3}, int64(1577836800_000000000))
	f.Add(w.issue(f, leaf(100)), list[:len(list)-1], []byte(nil), int64(0))
	for _, status := range []int{ocsp.Good, ocsp.Revoked, ocsp.Unknown} {
		f.Add(der, []byte(nil), w.answer(f, der, status), start.UnixNano())
	}
	j := w.judge()
	f.Fuzz(func(t *testing.T, leaf, stamps, staple []byte, at int64) {
		h := &event.Handshake{SCTs: stamps, OCSP: staple, End: event.Moment{Time: at}}
		for _, der := range [][]byte{leaf, w.ca.Raw} {
			h.Chain = append(h.Chain, event.ChainEntry{Certificate: cert.Parse(der)})
		}
		got := j.Judge(h, nil)
		if got.Valid > got.SCTs || got.Valid > maxTimestamps || got.Valid > 0 && !got.Judged || len(got.Operators) > got.Valid {
			t.Fatalf("%+v", got)
		}
		if !slices.Contains([]string{"", "good", "revoked", "unknown", "invalid"}, got.OCSP) || got.Revoked != 0 && got.OCSP != "revoked" {
			t.Fatalf("%+v", got)
		}
		if got.Judged && (len(staple) > 0) != (got.OCSP != "") || (got.OCSP == "invalid" || got.OCSP == "revoked") && len(got.Reasons) == 0 {
			t.Fatalf("%+v", got)
		}
		if again := j.Judge(h, w.issuer); again != got {
			t.Fatal("judged twice")
		}
	})
}

// answer has another implementation answer for a certificate.
func (w *world) answer(t testing.TB, der []byte, status int) []byte {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := ocsp.CreateResponse(w.ca, w.ca, ocsp.Response{
		Status: status, SerialNumber: c.SerialNumber, ThisUpdate: start, NextUpdate: start.AddDate(0, 0, 7), RevokedAt: start,
	}, w.caKey)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// What we take as an answer of the issuer, another implementation does.
func FuzzOCSP(f *testing.F) {
	w := made()
	names := []string{ocsp.Good: "good", ocsp.Revoked: "revoked", ocsp.Unknown: "unknown"}
	der := w.issue(f, leaf(1))
	c, err := x509.ParseCertificate(der)
	if err != nil {
		f.Fatal(err)
	}
	for status := range names {
		f.Add(w.answer(f, der, status))
	}
	j := w.judge()
	f.Fuzz(func(t *testing.T, staple []byte) {
		h := handshake(der, w.ca.Raw)
		h.OCSP = staple
		got := j.Judge(h, nil)
		other, err := ocsp.ParseResponseForCert(staple, c, w.ca)
		if len(staple) > 0 && got.OCSP != "invalid" && (err != nil || names[other.Status] != got.OCSP) {
			t.Fatalf("%+v, but %+v, %v", got, other, err)
		}
		if err == nil && got.OCSP == "invalid" && other.Certificate == nil && len(staple) <= maxOCSP {
			t.Fatalf("%+v, but %+v", got, other)
		}
	})
}

// Nothing but the timestamps is taken out of a TBSCertificate.
func FuzzBody(f *testing.F) {
	w := made()
	for _, n := range []int{0, 1, 100} {
		parts, _ := cert.Parse(w.embed(f, leaf(n), w.ecLog)).Parts()
		f.Add(parts.TBS)
	}
	f.Fuzz(func(t *testing.T, tbs []byte) {
		b, ok := readBody(tbs)
		if !ok {
			return
		}
		if b.stamps == nil && !b.malformed {
			if string(b.timeless) != string(tbs) {
				t.Fatalf("%x became %x", tbs, b.timeless)
			}
			return
		}
		if len(b.timeless) >= len(tbs) {
			t.Fatalf("%d bytes without timestamps, %d with", len(b.timeless), len(tbs))
		}
		again, ok := readBody(b.timeless)
		if !ok || again.stamps != nil || again.malformed || string(again.timeless) != string(b.timeless) ||
			string(again.serial) != string(b.serial) || string(again.issuer) != string(b.issuer) || string(again.key) != string(b.key) {
			t.Fatalf("%x became %x, which is %+v", tbs, b.timeless, again)
		}
	})
}
