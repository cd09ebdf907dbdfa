package inventory

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// killChild names the variable that makes this test a process which writes until it is
// killed: the path of the inventory, and a seed.
const killChild = "ODDCERT_TEST_INVENTORY"

// TestKillChild is that process. For each handshake that is on disk it says so: the number of
// certificates so far.
func TestKillChild(t *testing.T) {
	path, text, ok := strings.Cut(os.Getenv(killChild), "|")
	if !ok {
		t.Skip("TestKill runs it")
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, Options{Block: true})
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	r := rand.New(rand.NewPCG(23, seed))
	totals, _ := s.Totals()
	base := findings(r, 1)[0]
	for n := int(totals.Certificates); ; {
		for range 1 + r.IntN(50) {
			f, h := *base, *base.Handshake
			h.Chain = base.Handshake.Chain[:0:0]
			h.Chain = append(h.Chain, findingOf(n))
			h.Start.Time += int64(n) * 1e6
			f.Handshake = &h
			s.See(&f)
			n++
		}
		if err := s.Flush(); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		fmt.Println("stored", n)
	}
}

// TestKill kills a process a hundred times while it writes: what it said was stored is
// there each time.
func TestKill(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	path := filepath.Join(t.TempDir(), "inventory.db")
	r := rand.New(rand.NewPCG(25, 26))
	stored := 0
	for round := range rounds {
		child := exec.Command(os.Args[0], "-test.run=^TestKillChild$")
		child.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%d", killChild, path, round))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(10+r.IntN(120))*time.Millisecond, func() { _ = child.Process.Kill() })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			text, ok := strings.CutPrefix(lines.Text(), "stored ")
			if !ok {
				t.Errorf("it says: %s", lines.Text())
				continue
			}
			if n, err := strconv.Atoi(text); err == nil {
				stored = n
			}
		}
		_ = child.Wait() // it was killed
		s := open(t, path, Options{})
		for n := range stored {
			if round%10 != 0 && n < stored-100 {
				continue
			}
			c, err := s.Certificate(Hash(certificate(n).SHA256))
			if err != nil || c.Handshakes != 1 || c.Servers.N != 1 {
				t.Fatalf("round %d: certificate %d of %d: %v, %v", round, n, stored, c, err)
			}
			if _, err := s.DER(c.SHA256); err != nil {
				t.Fatal(err)
			}
		}
		all, err := s.Totals()
		if err != nil || int(all.Certificates) < stored || all.Certificates != all.Sightings {
			t.Errorf("round %d: %d were stored: %+v, %v", round, stored, all, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		stored = int(all.Certificates)
	}
	if len(asides(t, path)) > 0 {
		t.Error("an inventory was damaged")
	}
	t.Logf("%d certificates after %d kills", stored, rounds)
	if stored == 0 {
		t.Error("nothing was stored")
	}
}
