package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/oddcert/oddcert/sensor/internal/browsertest"
)

// forward has a port of this network namespace lead to a socket, until the test ends.
func forward(t *testing.T, socket string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("unix", socket)
			if err != nil {
				from.Close()
				continue
			}
			go func() { _, _ = io.Copy(to, from); to.Close() }()
			go func() { _, _ = io.Copy(from, to); from.Close() }()
		}
	}()
	return l.Addr().String()
}

// TestDrillPage has a sensor watch a wire, and a browser look at its page: what passes on
// the wire is on the page a moment later.
func TestDrillPage(t *testing.T) {
	w := newDrillWire(t)
	b := browsertest.Start(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "page.sock")
	s := w.live(t, nil, "--metrics", "unix:"+socket, "--page", "--inventory", filepath.Join(dir, "inventory.db"), "--name", "span-1", "--evidence", filepath.Join(dir, "evidence"))
	address := forward(t, socket)
	p := b.Open(t, "http://"+address+"/", browsertest.View{})
	p.Run(chromedp.WaitVisible("#state"))
	streams := func() string {
		a, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for deadline := time.Now().Add(patience); !strings.Contains(streams(), "\noddcert_page_open_streams 1\n"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nobody follows the events:\n%s", streams())
		}
	}
	sent := time.Now()
	w.handshakes(t, "span0", 1)
	p.Run(chromedp.WaitVisible("#alerts .alert", chromedp.ByQuery))
	t.Logf("the alert is on the page %v after it was on the wire", time.Since(sent).Round(time.Millisecond))
	if got := browsertest.Eval[string](p, `document.querySelector("#alerts").textContent`); !strings.Contains(got, "www.update.microsoft.com") || !strings.Contains(got, "192.0.2.2:443") {
		t.Errorf("the alert: %q", got)
	}
	p.Picture("page-live")

	// The alert, its certificate and its server have pages of their own.
	p.Run(chromedp.Click("#alerts h3 a", chromedp.ByQuery), chromedp.WaitVisible("main .facts", chromedp.ByQuery))
	follow := func(what, link string) {
		t.Helper()
		p.Run(chromedp.Click(link, chromedp.ByQuery), chromedp.WaitVisible("main .facts", chromedp.ByQuery))
		if got := browsertest.Eval[string](p, `document.querySelector("main").textContent`); !strings.Contains(got, what) {
			t.Errorf("%s: %q", link, got)
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) { // the inventory writes each second
		p.Run(chromedp.Reload(), chromedp.WaitVisible("main .facts", chromedp.ByQuery))
		if browsertest.Eval[bool](p, `!!document.querySelector(".chain a")`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the certificate is not in the inventory")
		}
	}
	follow("SHA-256 of the key", ".chain a")
	follow("TLS 1.2", `#servers a, section a[href^="/servers/"]`)
	p.Quiet("http://" + address + "/")
	const hash = "149190E5014F4322BB51A9F77207A83AF3C71793C4ED810D2DA91488EA4828BD"
	a, err := http.Get("http://" + address + "/certificates/" + hash + ".der")
	if err != nil {
		t.Fatal(err)
	}
	der, err := io.ReadAll(a.Body)
	a.Body.Close()
	if err != nil || a.StatusCode != 200 || fmt.Sprintf("%X", sha256.Sum256(der)) != hash {
		t.Errorf("%s, %d bytes, %v", a.Status, len(der), err)
	}

	// Its evidence pack can be had, and holds.
	id := browsertest.Eval[string](p, `document.querySelector("a[href^='/alerts/']").getAttribute("href").split("/")[2]`)
	var pack []byte
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) { // it is written when the handshake is over
		a, err := http.Get("http://" + address + "/alerts/" + id + "/evidence.zip")
		if err != nil {
			t.Fatal(err)
		}
		pack, err = io.ReadAll(a.Body)
		a.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if a.StatusCode == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no pack: %s", a.Status)
		}
	}
	packed := filepath.Join(dir, id+".zip")
	if err := os.WriteFile(packed, pack, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(drilled(t), "evidence", "verify", packed, "--rules", everyAlert(t)).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	} else {
		t.Logf("%s", out)
	}
	if status := s.end(t, syscall.SIGTERM); status != exitOK {
		t.Errorf("exit status %d: %s", status, s.stderr.String())
	}
}
