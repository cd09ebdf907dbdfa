package page

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"
)

// TestLarge has an inventory of many certificates and servers. The pages are as long as
// those of a small one, and come about as fast. ODDCERT_LARGE is how many there are.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills an inventory")
	}
	n := 20_000
	if text := os.Getenv("ODDCERT_LARGE"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, Config{})
	ask := func(path string) (took time.Duration, size int) {
		t.Helper()
		began := time.Now()
		a := w.get(path)
		took = time.Since(began)
		if a.Code != http.StatusOK {
			t.Errorf("%s: %d", path, a.Code)
		}
		check(t, path, a)
		return took, a.Body.Len()
	}
	began := time.Now()
	der := certificate(t, 0x7766554433221100, "many.example.net", w.now.AddDate(1, 0, 0))
	at := len(der)
	for i := range der {
		if binary.BigEndian.Uint64(der[i:]) == 0x7766554433221100 {
			at = i
			break
		}
	}
	for i := range n {
		binary.BigEndian.PutUint32(der[at+4:], uint32(i)) // another serial number, and so another certificate
		f := shown(der, i%60000, fmt.Sprintf("%d.example.net", i), w.now.Add(time.Duration(i)*time.Millisecond))
		f.Handshake.Flow.Endpoints[1].Port = uint16(1 + i/60000)
		w.store.See(f)
		if i%10_000 == 0 {
			if err := w.store.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.settled(t)
	totals, err := w.store.Totals()
	if err != nil || totals.Certificates < uint64(n) {
		t.Fatalf("%d certificates, %v", totals.Certificates, err)
	}
	s := w.surveyor.last.Load()
	t.Logf("%d certificates, %d servers: filled in %v, looked at in %v", totals.Certificates, totals.Servers, time.Since(began), s.took)
	for _, path := range []string{
		"/", "/alerts", "/certificates", "/certificates?skip=500", "/certificates?after=80" + fmt.Sprintf("%062d", 0), certificateAddress(s.newest[0].SHA256),
		"/servers", "/servers?after=198.51.99.1/1/tcp/tls", serverAddress(w.alert("67e5a1d0aabbccddeeff001122334455").Server),
		"/certificates?only=expired", "/certificates?q=nobody", "/servers?q=nobody",
	} {
		ask(path)
		took, size := ask(path)
		t.Logf("%-60.60s %8v %8d bytes", path, took.Round(10*time.Microsecond), size)
	}
}
