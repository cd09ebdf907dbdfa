package inventory

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	bolt "go.etcd.io/bbolt"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/finding"
)

// certificate makes the certificate of a number.
func certificate(n int) *cert.Certificate {
	der := fmt.Appendf(nil, "certificate %d %s", n, strings.Repeat("x", n%700))
	c := &cert.Certificate{DER: der, SHA256: sha256.Sum256(der), SPKISHA256: sha256.Sum256(fmt.Append(nil, n/2)), Serial: fmt.Sprintf("%X", n), DNSNames: []string{fmt.Sprintf("%d.example.net", n)}}
	c.Subject.String, c.Subject.CommonName = fmt.Sprintf("CN=%d.example.net", n), []string{fmt.Sprintf("%d.example.net", n)}
	c.Issuer.String = "CN=Issuer of examples"
	return c
}

var highRule = &rules.Rule{ID: "3f0a2a3e-0d9e-4b8e-8d3c-2f0a7c5d1b11", Title: "An example", Level: "high", Verdict: "forged"}

// findings makes n findings of a few servers and clients, of which some are there twice.
func findings(r *rand.Rand, n int) (list []*finding.Finding) {
	for i := range n {
		if i > 0 && r.IntN(8) == 0 {
			list = append(list, list[r.IntN(len(list))])
			continue
		}
		server := event.Endpoint{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(30))}), Port: uint16(443 + r.IntN(2))}
		client := event.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(3)), byte(r.IntN(250))}), Port: uint16(1024 + i)}
		if r.IntN(20) == 0 {
			server, client = event.Endpoint{MAC: [6]byte{2, byte(r.IntN(4))}}, event.Endpoint{MAC: [6]byte{4, byte(r.IntN(4))}}
		}
		at := event.Moment{Time: 1.7e18 + r.Int64N(1e15), Frame: uint64(i + 1)}
		h := &event.Handshake{Carrier: "tls", Start: at, End: at, Certificate: at, Version: 0x303, CipherSuite: uint16(r.IntN(5)), Curve: 29,
			Flow:        &event.Flow{Transport: event.TCP, Endpoints: [2]event.Endpoint{client, server}, Origin: &event.Origin{Path: "a.pcap"}},
			ClientHello: &event.ClientHello{ServerName: fmt.Sprintf("%d.example.net", r.IntN(5)), Offer: &event.Offer{SupportedGroups: []uint16{29, 23}}},
			ServerHello: &event.ServerHello{ALPN: "h2"}, Outcome: event.Outcome(r.IntN(int(event.Outcomes)))}
		if h.Outcome == event.Extracted {
			h.Chain = []event.ChainEntry{{Certificate: certificate(r.IntN(40))}, {Certificate: certificate(1000 + r.IntN(2))}}
		}
		f := &finding.Finding{Handshake: h, Judged: &judgement.Judgement{}}
		if r.IntN(3) == 0 {
			f.Judged.Trust = &judgement.Trust{Status: judgement.TrustStatus(r.IntN(int(judgement.Trusted) + 1)), Reasons: []string{"a reason"}}
			f.Judged.KeyProof = &judgement.KeyProof{Status: judgement.ProofStatus(r.IntN(3))}
		}
		if r.IntN(10) == 0 {
			f.Alerts = []finding.Alert{{ID: fmt.Sprintf("%032x", i), Match: &rules.Match{Rule: highRule, Reason: "for an example"}, Record: []byte(`{"a":1}`)}}
		} else if r.IntN(10) == 0 && len(list) > 0 && len(list[0].Alerts) > 0 {
			f.Alerts = []finding.Alert{{ID: list[0].Alerts[0].ID, Counted: true, Match: &rules.Match{Rule: highRule}}}
		}
		list = append(list, f)
	}
	return list
}

// everything is all that an inventory says.
type everything struct {
	Totals       Totals
	Certificates []*Certificate
	DER          [][]byte
	Servers      []*Server
	Sightings    []*Sighting
	Contacts     []*Contact
	Alerts       []*Alert
}

func read(t testing.TB, s *Store) (all everything) {
	t.Helper()
	fail := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	var err error
	all.Totals, err = s.Totals()
	fail(err)
	for v, err := range s.Certificates() {
		fail(err)
		all.Certificates = append(all.Certificates, v)
		der, err := s.DER(v.SHA256)
		if errors.Is(err, ErrNotFound) { // the damage has hit it
			err = nil
		}
		fail(err)
		if der != nil && sha256.Sum256(der) != v.SHA256 {
			t.Errorf("the DER of %x is of another certificate", v.SHA256)
		}
		all.DER = append(all.DER, der)
	}
	for v, err := range s.Servers() {
		fail(err)
		all.Servers = append(all.Servers, v)
	}
	for v, err := range s.Sightings() {
		fail(err)
		all.Sightings = append(all.Sightings, v)
	}
	for v, err := range s.Contacts() {
		fail(err)
		all.Contacts = append(all.Contacts, v)
	}
	for v, err := range s.Alerts() {
		fail(err)
		all.Alerts = append(all.Alerts, v)
	}
	return all
}

// consistent compares what an inventory says in one way with what it says in another.
func consistent(t *testing.T, s *Store, all *everything) {
	t.Helper()
	n := &all.Totals
	got := []int{len(all.Certificates), len(all.Servers), len(all.Sightings), len(all.Contacts), len(all.Alerts)}
	want := []int{int(n.Certificates), int(n.Servers), int(n.Sightings), int(n.Contacts), int(n.Alerts)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("totals and entries differ: %s", diff)
	}
	shownBy, met := 0, 0
	for i, v := range all.Servers {
		if i > 0 && all.Servers[i-1].Compare(v.ServerKey) >= 0 {
			t.Errorf("servers are not in order: %v", v.ServerKey)
		}
		if one, err := s.Server(v.ServerKey); err != nil || !cmp.Equal(one, v, compared) {
			t.Errorf("%v: %v, %v", v.ServerKey, one, err)
		}
		var leaves, clients uint64
		for x, err := range s.ShownBy(v.ServerKey) {
			if err != nil || x.Server != v.ServerKey {
				t.Fatal(x, err)
			}
			if x.Roles&Leaf != 0 {
				leaves++
			}
			shownBy++
		}
		for x, err := range s.Met(v.ServerKey) {
			if err != nil || x.Server != v.ServerKey {
				t.Fatal(x, err)
			}
			clients++
			met++
		}
		if (v.Certificates != Count{N: leaves}) || (v.Clients != Count{N: clients}) {
			t.Errorf("%v: %d leaves and %d clients: %v, %v", v.ServerKey, leaves, clients, v.Certificates, v.Clients)
		}
	}
	if shownBy != len(all.Sightings) || met != len(all.Contacts) {
		t.Errorf("the indexes have %d sightings and %d contacts of %d and %d", shownBy, met, len(all.Sightings), len(all.Contacts))
	}
	for _, v := range all.Certificates {
		var servers uint64
		for x, err := range s.ShownAt(v.SHA256) {
			if err != nil || x.Certificate != v.SHA256 {
				t.Fatal(x, err)
			}
			servers++
		}
		if (v.Servers != Count{N: servers}) {
			t.Errorf("%x: %d servers: %v", v.SHA256, servers, v.Servers)
		}
	}
	for _, v := range all.Alerts {
		if one, err := s.Alert(v.ID); err != nil || !cmp.Equal(one, v, compared) {
			t.Errorf("%s: %v, %v", v.ID, one, err)
		}
	}
}

// compared are the types that are compared as they are.
var compared = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})

func diff(a, b any) string { return cmp.Diff(a, b, compared) }

func open(t testing.TB, path string, o Options) *Store {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	o.Block = true
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestBatches gives the same entries however many findings are written at once, whether
// the inventory is opened anew in between, and when all of them come once more.
func TestBatches(t *testing.T) {
	list := findings(rand.New(rand.NewPCG(1, 2)), 3000)
	want, err := Temporary()
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	for _, f := range list {
		want.See(f)
	}
	all := read(t, want)
	consistent(t, want, &all)
	if len(all.Alerts) < 100 || len(all.Contacts) < 1000 || all.Totals.Handshakes < 2000 {
		t.Fatalf("%+v", all.Totals)
	}
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(3, seed))
		path := filepath.Join(t.TempDir(), "inventory.db")
		s := open(t, path, Options{})
		for range 2 {
			for _, f := range list {
				s.See(f)
				switch r.IntN(100) {
				case 0:
					if err := s.Flush(); err != nil {
						t.Fatal(err)
					}
				case 1:
					if r.IntN(5) == 0 {
						if err := s.Close(); err != nil {
							t.Fatal(err)
						}
						s = open(t, path, Options{})
					}
				}
			}
			got := read(t, s)
			if d := diff(all, got); d != "" {
				t.Fatal(d)
			}
		}
		s.Close()
	}
}

// TestSummary compares counts with those of maps.
func TestSummary(t *testing.T) {
	list := findings(rand.New(rand.NewPCG(5, 6)), 4000)
	s := open(t, filepath.Join(t.TempDir(), "inventory.db"), Options{})
	type key struct {
		c Hash
		s netip.Addr
	}
	once, shown, sightingsOf := map[*finding.Finding]bool{}, map[Hash]uint64{}, map[key]bool{}
	firsts := map[Hash]int64{}
	for _, f := range list {
		s.See(f)
		if once[f] {
			continue
		}
		once[f] = true
		for _, e := range f.Handshake.Chain {
			id := Hash(e.SHA256)
			shown[id]++
			sightingsOf[key{id, f.Handshake.Flow.Endpoints[1].Addr}] = true
			if at := f.Handshake.End.Time; firsts[id] == 0 || at < firsts[id] {
				firsts[id] = at
			}
		}
	}
	for c, err := range s.Certificates() {
		if err != nil || c.Handshakes != shown[c.SHA256] || c.First.Time != firsts[c.SHA256] || c.Last.Time < c.First.Time {
			t.Errorf("%x: %d handshakes, want %d; %v", c.SHA256, c.Handshakes, shown[c.SHA256], err)
		}
		delete(shown, c.SHA256)
	}
	if len(shown) > 0 {
		t.Errorf("%d certificates are missing", len(shown))
	}
}

// TestInUse names who has the inventory open.
func TestInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.db")
	open(t, path, Options{Holder: "oddcert live"})
	_, err := Open(path, Options{})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d, oddcert live", os.Getpid())) {
		t.Error(err)
	}
}

// TestForeign leaves a file alone that never was an inventory.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "notes.txt")
	text := bytes.Repeat([]byte("what somebody wants to keep\n"), 1000)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); !errors.Is(err, errForeign) {
		t.Error(err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, text) {
		t.Error("it was changed")
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err == nil {
		if _, err := Open(link, Options{}); err == nil {
			t.Error("a link was followed")
		}
	}
	if _, err := Open(dir, Options{}); err == nil {
		t.Error("a folder was opened")
	}
}

// sparse is a file that has no bytes behind those that it begins with.
type sparse struct{ begins []byte }

func (s sparse) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	if at < int64(len(s.begins)) {
		copy(b, s.begins[at:])
	}
	return len(b), nil
}

// TestTooLarge has a file without bytes that says how large it is: its size, its pages in
// use, and those that continue one, cost neither time nor memory.
func TestTooLarge(t *testing.T) {
	file, _ := written(t, 20)
	const exabyte = 1 << 60
	if _, err := openImage(sparse{file}, exabyte); !errors.Is(err, errTooLarge) {
		t.Error(err)
	}
	if err := salvage(sparse{file}, exabyte, 4096, nil); !errors.Is(err, errTooLarge) {
		t.Error(err)
	}

	pages := func(n uint64) []byte { // says that as many are in use
		file, size := bytes.Clone(file), binary.NativeEndian.Uint32(file[pageHeader+8:])
		for _, at := range []uint32{pageHeader, size + pageHeader} {
			meta := file[at:][:metaSize]
			binary.NativeEndian.PutUint32(meta[8:], 512)
			binary.NativeEndian.PutUint64(meta[40:], n)
			h := fnv.New64a()
			h.Write(meta[:metaSize-8])
			binary.NativeEndian.PutUint64(meta[metaSize-8:], h.Sum64())
		}
		copy(file[512:], file[size:][:pageHeader+metaSize]) // where the second one is then
		return file
	}
	if _, err := openImage(sparse{pages(maxPages + 1)}, maxFile); !errors.Is(err, errTooLarge) {
		t.Error(err)
	}
	if _, err := openImage(sparse{pages(maxPages)}, maxFile); err != nil {
		t.Error(err)
	}

	m, err := openImage(sparse{file}, maxFile)
	if err != nil {
		t.Fatal(err)
	}
	root := int64(m.meta.root) * m.pageSize
	binary.NativeEndian.PutUint32(file[root+12:], uint32(maxFile/m.pageSize)-uint32(m.meta.root)-1)
	if _, err := m.read(m.meta.root); err == nil || !strings.Contains(err.Error(), "says that it goes on for") {
		t.Error(err)
	}

	path := filepath.Join(t.TempDir(), "inventory.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, maxFile+1); err != nil {
		t.Skip(err)
	}
	if _, err := Open(path, Options{}); !errors.Is(err, errTooLarge) {
		t.Error(err)
	}
	if len(asides(t, path)) > 0 {
		t.Error("it was renamed")
	}
	if _, err := Open(path, Options{Size: MaxSize + 1}); err == nil || !strings.Contains(err.Error(), "it may take") {
		t.Error(err)
	}
}

// TestListOfNothing decodes entries that say that a list has an element for each byte that
// is left, where the first is none.
func TestListOfNothing(t *testing.T) {
	var c codec
	n := 1 << 20
	number(&c, &n)
	c = codec{in: string(append(c.out, bytes.Repeat([]byte{0xff}, n)...)), decoding: true}
	var got []Source
	if list(&c, &got, func(s *Source) { c.text(&s.Path) }); !c.bad || cap(got) > MaxNames {
		t.Errorf("room for %d elements; bad: %v", cap(got), c.bad)
	}
}

// written makes an inventory of findings, and returns its file and what it says.
func written(t testing.TB, n int) ([]byte, everything) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "inventory.db")
	s, err := Open(path, Options{Block: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range findings(rand.New(rand.NewPCG(7, 8)), n) {
		if s.See(f); i%500 == 0 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := read(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := openImage(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	return file[:m.meta.pages*uint64(m.pageSize)], all // without what is still to be used
}

// asides are the files that were kept aside.
func asides(t testing.TB, path string) []string {
	list, err := filepath.Glob(path + ".damaged-*")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestFlips opens inventories of which bits are flipped: none is lost as a whole, and
// entries that the damage has not hit are there.
func TestFlips(t *testing.T) {
	file, all := written(t, 2000)
	r := rand.New(rand.NewPCG(9, 10))
	rounds := 200
	if testing.Short() {
		rounds = 50
	}
	worst, damaged := len(all.Certificates), 0
	for range rounds {
		path := filepath.Join(t.TempDir(), "inventory.db")
		bad := bytes.Clone(file)
		for range 1 + r.IntN(4) {
			i := r.IntN(len(bad) * 8)
			if r.IntN(3) == 0 {
				i = r.IntN(16384 * 8) // what the database goes by
			}
			bad[i/8] ^= 1 << (i % 8)
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path, Options{Block: true})
		if err != nil {
			t.Fatal(err)
		}
		got := read(t, s)
		if list := asides(t, path); len(list) == 1 {
			damaged++
			if kept, _ := os.ReadFile(list[0]); !bytes.Equal(kept, bad) {
				t.Error("the damaged file is not what it was")
			}
		} else if d := diff(all, got); d != "" || len(list) > 1 {
			t.Errorf("not kept aside, and it says something else: %s", d)
		}
		worst = min(worst, len(got.Certificates))
		for _, f := range findings(r, 100) {
			s.See(f)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d of %d were damaged; of %d certificates, %d were there in the worst case", damaged, rounds, len(all.Certificates), worst)
	if worst < len(all.Certificates)/3 || damaged < rounds/4 {
		t.Errorf("%d certificates in the worst case, %d damaged", worst, damaged)
	}
}

// TestCut opens inventories that are cut.
func TestCut(t *testing.T) {
	file, all := written(t, 2000)
	for _, size := range []int{1, 15, 4095, 4096, 8191, 8192, len(file) / 4, len(file) / 2, len(file) - 1} {
		path := filepath.Join(t.TempDir(), "inventory.db")
		if err := os.WriteFile(path, file[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s := open(t, path, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		got := read(t, s)
		if len(asides(t, path)) != 1 || !strings.Contains(log.String(), "damaged") {
			t.Errorf("%d bytes: not kept aside, or not said: %s", size, &log)
		}
		t.Logf("of %d bytes: %d of %d certificates", size, len(got.Certificates), len(all.Certificates))
		s.Close()
	}
}

// TestFormat keeps an inventory of another version aside.
func TestFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.db")
	s := open(t, path, Options{})
	s.Close()
	db, err := s.database()
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	version := uint64(format + 1)
	w := writer{tx: tx, id: 9, codec: new(codec)}
	if err := w.put(general, []byte("format"), fieldsFunc(func(c *codec) { c.uint(&version) })); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tx.Commit(), db.Close()); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s = open(t, path, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if len(asides(t, path)) != 1 || !strings.Contains(log.String(), "another version") {
		t.Error(&log)
	}
	s.Close()
}

// TestConcurrent has several goroutines see, and several ask.
func TestConcurrent(t *testing.T) {
	list := findings(rand.New(rand.NewPCG(11, 12)), 4000)
	s := open(t, filepath.Join(t.TempDir(), "inventory.db"), Options{Serve: true})
	var all sync.WaitGroup
	for part := range 4 {
		all.Go(func() {
			for _, f := range list[part*1000:][:1000] {
				s.See(f)
			}
		})
		all.Go(func() {
			for range 5 {
				for c, err := range s.Certificates() {
					if err != nil {
						t.Error(err)
						return
					}
					for _, err := range s.ShownAt(c.SHA256) {
						if err != nil {
							t.Error(err)
						}
					}
				}
				s.Stats()
			}
		})
	}
	all.Wait()
	got := read(t, s)
	consistent(t, s, &got)
}

// TestLost counts what there is no room for, and does not wait for it.
func TestLost(t *testing.T) {
	var log bytes.Buffer
	s, err := Open(filepath.Join(t.TempDir(), "inventory.db"), Options{Memory: 64 << 10, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	list := findings(rand.New(rand.NewPCG(13, 14)), 20000)
	for _, f := range list {
		s.See(f)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	lost := s.Stats().Lost
	t.Logf("%d of %d were lost", lost, len(list))
	if totals, _ := s.Totals(); totals.Lost != lost {
		t.Errorf("%d were lost, it says %d", lost, totals.Lost)
	}
	if said := strings.Contains(log.String(), "findings are lost"); said != (lost > 0) {
		t.Error(&log)
	}
}

// TestSet counts exactly up to a limit, and says above it that it estimates. The order
// makes no difference.
func TestSet(t *testing.T) {
	for _, n := range []int{0, 1, 5, maxExact, maxExact + 1, 5000, 100000} {
		var a, b set
		for i := range n {
			a.add(hashOf(fmt.Append(nil, i)))
			b.add(hashOf(fmt.Append(nil, n-1-i)))
			b.add(hashOf(fmt.Append(nil, n-1)))
		}
		if a.count() != b.count() {
			t.Errorf("%d: %v, %v", n, a.count(), b.count())
		}
		got := a.count()
		if off := float64(got.N)/float64(max(n, 1)) - 1; got.Estimated != (n > maxExact) || n > 0 && (off > 0.1 || off < -0.1) || !got.Estimated && got.N != uint64(n) {
			t.Errorf("%d: %v", n, got)
		}
		var c codec
		a.fields(&c)
		var back set
		if !decode(c.out, back.fields) || back.count() != got {
			t.Errorf("%d: %v", n, back.count())
		}
	}
}

// FuzzDecode decodes entries: what is decoded is encoded to the same bytes.
func FuzzDecode(f *testing.F) {
	s, err := Temporary()
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	for _, v := range findings(rand.New(rand.NewPCG(15, 16)), 200) {
		s.See(v)
	}
	add := func(kind uint8, fields func(*codec)) {
		var c codec
		fields(&c)
		f.Add(kind, c.out)
	}
	all := read(f, s)
	add(0, all.Certificates[0].fields)
	add(1, all.Servers[0].fields)
	add(2, all.Sightings[0].fields)
	add(3, all.Contacts[0].fields)
	add(4, all.Alerts[0].fields)
	add(5, (&Run{Version: "1", Sources: []Source{{Path: "a.pcap", Size: 3}}}).fields)
	add(6, all.Totals.fields)
	add(7, new(sets).fields)
	some := sets{{exact: []uint64{1, 2}}}
	add(8, (&certificateEntry{Certificate: *all.Certificates[0], counter: counter{sets: some}, number: 7}).fields)
	add(9, (&serverEntry{Server: *all.Servers[0], counter: counter{apart: true}}).fields)
	add(10, (&sightingEntry{Sighting: *all.Sightings[0], counter: counter{sets: some}}).fields)
	kinds := func() []entry {
		return []entry{new(Certificate), new(Server), new(Sighting), new(Contact), new(Alert), new(Run), new(Totals), new(sets),
			new(certificateEntry), new(serverEntry), new(sightingEntry)}
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		v := kinds()[int(kind)%len(kinds())]
		if !decode(b, v.fields) {
			return
		}
		var c codec
		v.fields(&c)
		again := kinds()[int(kind)%len(kinds())]
		if c.bad || !decode(c.out, again.fields) {
			t.Fatalf("%T: what was encoded is not decoded", v)
		}
		var d codec
		again.fields(&d)
		if !bytes.Equal(c.out, d.out) {
			t.Fatalf("%T: it is encoded in two ways", v)
		}
		switch v := v.(type) { // what readers want of it
		case *certificateEntry:
			beginsWith(t, c.out, &v.Certificate)
		case *serverEntry:
			beginsWith(t, c.out, &v.Server)
		case *sightingEntry:
			beginsWith(t, c.out, &v.Sighting)
		}
	})
}

// beginsWith checks that an entry begins with one that readers want.
func beginsWith[T any, P interface {
	*T
	entry
}](t *testing.T, b []byte, want P) {
	t.Helper()
	got := P(new(T))
	if !begin(b, got.fields) || !cmp.Equal(got, want, compared) {
		t.Fatalf("%T: the beginning of its entry is something else", want)
	}
}

// FuzzPages looks at files: those that are found good are opened and read.
func FuzzPages(f *testing.F) {
	path := filepath.Join(f.TempDir(), "inventory.db")
	s, err := Open(path, Options{Block: true})
	if err != nil {
		f.Fatal(err)
	}
	for _, v := range findings(rand.New(rand.NewPCG(17, 18)), 5) {
		s.See(v)
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file, uint32(0), uint8(0))
	f.Add(file, uint32(4096*3+9), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, at uint32, flip uint8) {
		if len(b) > 1<<20 {
			return
		}
		b = bytes.Clone(b)
		if len(b) > 0 {
			b[int(at)%len(b)] ^= flip
		}
		n := 0
		if err := salvage(bytes.NewReader(b), int64(len(b)), 4096, func(b bucket, key, value []byte, _ uint64) error {
			if n++; b.isIndex() {
				t.Error("an index has values")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		m, err := openImage(bytes.NewReader(b), int64(len(b)))
		if err != nil || m.check() != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "inventory.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path, Options{Block: true, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			return // it lacks a bucket
		}
		for range s.Certificates() {
		}
		for range s.Alerts() {
		}
		s.Close()
	})
}

// TestContinued flips each bit of how many pages continue one: no more is lost with it than
// what is in that page. And it has every page say that all others continue it: what is read
// of such a file stays in proportion to it.
func TestContinued(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.db")
	s := open(t, path, Options{Block: true})
	for _, v := range findings(rand.New(rand.NewPCG(17, 18)), 1000) {
		s.See(v)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := os.Getpagesize()
	r := &counting{}
	salvaged := func() (n int) {
		*r = counting{Reader: bytes.NewReader(file)}
		if err := salvage(r, int64(len(file)), int64(size), func(bucket, []byte, []byte, uint64) error {
			n++
			return nil
		}); err != nil {
			t.Error(err)
		}
		return n
	}
	all, pages := salvaged(), 0
	var heads [][]byte // of leaves
	for id := 2; id < len(file)/size; id++ {
		head := file[id*size:][:pageHeader]
		if binary.NativeEndian.Uint64(head) != uint64(id) || binary.NativeEndian.Uint16(head[8:]) != leafPage {
			continue
		}
		heads = append(heads, head)
		if pages++; pages > 8 {
			continue
		}
		within := int(binary.NativeEndian.Uint16(head[10:]))
		for bit := range 32 {
			head[12+bit/8] ^= 1 << (bit % 8)
			if n := salvaged(); n < all-within {
				t.Errorf("page %d, bit %d: %d values of %d, with %d in the page", id, bit, n, all, within)
			}
			head[12+bit/8] ^= 1 << (bit % 8)
		}
	}
	for _, head := range heads {
		binary.NativeEndian.PutUint32(head[12:], uint32(len(file)/size)-uint32(binary.NativeEndian.Uint64(head))-1)
	}
	if n := salvaged(); n < all || r.read > (vainReads+3)*int64(len(file)) {
		t.Errorf("%d values of %d; %d bytes were read of %d", n, all, r.read, len(file))
	}
}

// counting counts what is read.
type counting struct {
	*bytes.Reader
	read int64
}

func (r *counting) ReadAt(b []byte, at int64) (int, error) {
	n, err := r.Reader.ReadAt(b, at)
	r.read += int64(n)
	return n, err
}

// TestOrder has keys in the order of servers.
func TestOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(19, 20))
	some := func() ServerKey {
		k := ServerKey{Port: uint16(r.IntN(3)), Transport: event.Transport(r.IntN(2) * 17), Carrier: strings.Repeat("a", r.IntN(3))}
		switch r.IntN(3) {
		case 0:
			k.MAC[r.IntN(6)] = byte(r.IntN(3))
		case 1:
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], r.Uint32N(3)<<r.IntN(30))
			k.Address = netip.AddrFrom4(a)
		case 2:
			var a [16]byte
			a[r.IntN(16)] = byte(r.IntN(3))
			k.Address = netip.AddrFrom16(a)
		}
		return k
	}
	for range 20000 {
		a, b := some(), some()
		if got, want := bytes.Compare(appendServer(nil, &a), appendServer(nil, &b)), a.Compare(b); got != want {
			t.Fatalf("%v, %v: %d, want %d", a, b, got, want)
		}
	}
}

// TestReading reads an inventory while it is open, and when it is closed. The file stays
// what it is.
func TestReading(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.db")
	list := findings(rand.New(rand.NewPCG(21, 22)), 2000)
	s := open(t, path, Options{Serve: true, Holder: "oddcert live"})
	for _, f := range list[:1000] {
		s.See(f)
	}
	want := read(t, s)
	reading, err := OpenForReading(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list[1000:] {
		s.See(f)
	}
	if d := diff(want, read(t, reading)); d != "" {
		t.Error(d)
	}
	if err := reading.Close(); err != nil {
		t.Error(err)
	}
	want = read(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if reading, err = OpenForReading(path); err != nil {
		t.Fatal(err)
	}
	reading.See(list[0])
	if d := diff(want, read(t, reading)); d != "" {
		t.Error(d)
	}
	if err := reading.Close(); err != nil {
		t.Error(err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("reading has changed the file")
	}
	if _, err := OpenForReading(path + ".missing"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	open(t, path, Options{Holder: "oddcert replay"}) // gives no copies
	if _, err := OpenForReading(path); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "oddcert replay") {
		t.Error(err)
	}
}

// findingOf is the leaf of a number.
func findingOf(n int) event.ChainEntry { return event.ChainEntry{Certificate: certificate(n)} }

// TestBound keeps the file within its size: the newcomer is taken, what has alerts stays, and
// what is given up is counted, and said.
func TestBound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.db")
	var log bytes.Buffer
	const size = 4 << 20
	s := open(t, path, Options{Size: size, Log: slog.New(slog.NewTextHandler(&log, nil))})
	n := 0
	for ; n < 8000; n++ {
		f := many(n, 1<<30)
		if n < 20 {
			f.Alerts = []finding.Alert{{ID: fmt.Sprintf("%032x", n), Match: &rules.Match{Rule: highRule}, Record: []byte(`{}`)}}
		}
		if s.See(f); n%500 == 499 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The last transaction may come before what is given up for it.
	all := read(t, s)
	consistent := func(what string, got int, want uint64) {
		if uint64(got) != want {
			t.Errorf("%s: %d, the totals say %d", what, got, want)
		}
	}
	consistent("certificates", len(all.Certificates), all.Totals.Certificates)
	consistent("servers", len(all.Servers), all.Totals.Servers)
	consistent("sightings", len(all.Sightings), all.Totals.Sightings)
	consistent("contacts", len(all.Contacts), all.Totals.Contacts)
	for i := range 20 {
		if c, err := s.Certificate(Hash(certificate(i).SHA256)); err != nil || c.Alerts != 1 {
			t.Errorf("certificate %d, which has an alert: %v, %v", i, c, err)
		}
		if _, err := s.Alert(fmt.Sprintf("%032x", i)); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Certificate(Hash(certificate(n - 1).SHA256)); err != nil {
		t.Errorf("the newcomer: %v", err)
	}
	if _, err := s.Certificate(Hash(certificate(100).SHA256)); !errors.Is(err, ErrNotFound) {
		t.Errorf("one of the oldest: %v", err)
	}
	for v := range s.Sightings() {
		if _, err := s.Certificate(v.Certificate); err != nil {
			t.Fatalf("a sighting is of a certificate that was given up: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes on disk, %d in use, %d certificates of %d, %d entries forgotten", info.Size(), s.Stats().Bytes, len(all.Certificates), n, all.Totals.Forgotten)
	if info.Size() > 2*size || all.Totals.Forgotten == 0 || len(all.Certificates) < 500 || strings.Count(log.String(), "it is full") != 1 {
		t.Errorf("%d bytes; %s", info.Size(), &log)
	}
}

// TestFullDisk has a database that may not grow: what is seen waits, up to a limit, is
// written when there is room again, and what is lost is counted. Nobody waits.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.db")
	var log bytes.Buffer
	s, err := Open(path, Options{Block: true, Memory: LeastMemory, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.See(many(0, 1<<30))
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	s.db.Load().MaxSize = 1
	for i := range 3000 {
		s.See(many(1+i, 1<<30))
	}
	if err := s.Flush(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("nothing could be written: %v", err)
	}
	for i := range 20000 {
		s.See(many(3001+i, 1<<30))
	}
	lost := s.Stats().Lost
	if lost == 0 || lost > 23000-500 {
		t.Errorf("%d were lost", lost)
	}
	if c, err := s.Certificate(Hash(certificate(0).SHA256)); err != nil {
		t.Errorf("what was written before: %v, %v", c, err)
	}
	s.db.Load().MaxSize = 0
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	totals, err := s.Totals()
	if err != nil || totals.Certificates != 23001-lost || totals.Lost != lost {
		t.Errorf("%d were lost: %+v, %v", lost, totals, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"nothing is written", "it is written again", "findings are lost", "nothing more is lost"} {
		if strings.Count(log.String(), want) != 1 {
			t.Errorf("it does not say once: %s\n%s", want, &log)
		}
	}
}

// TestDamagedWhileOpen writes over the pages of an inventory that is in use. It goes on,
// and what it is told afterwards is there.
func TestDamagedWhileOpen(t *testing.T) {
	r := rand.New(rand.NewPCG(27, 28))
	for round := range 10 {
		path := filepath.Join(t.TempDir(), "inventory.db")
		s, err := Open(path, Options{Block: true, Memory: LeastMemory}) // most of it is not in memory
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2000 {
			s.See(many(i, 1<<30))
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		pages := info.Size() / 4096
		garbage := bytes.Repeat([]byte{byte(round * 13)}, 4096)
		for range 1 + r.IntN(200) {
			if _, err := f.WriteAt(garbage, (2+r.Int64N(pages-2))*4096); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
		for i := range 500 {
			s.See(many(10000+i, 1<<30))
		}
		flushed := s.Flush()
		for range s.Certificates() {
		}
		for range s.Sightings() {
		}
		if err := s.Close(); err != nil && flushed == nil {
			t.Error(err)
		}
		if s, err = Open(path, Options{Block: true}); err != nil {
			t.Fatal(err)
		}
		n := 0
		for i := range 500 {
			if _, err := s.Certificate(Hash(certificate(10000 + i).SHA256)); err == nil {
				n++
			}
		}
		if flushed == nil && n < 400 {
			t.Errorf("round %d: %d of 500 are there", round, n)
		}
		s.Close()
	}
}

// TestMend damages the bytes of certificates alone: they are missing, and there again when
// their certificates were seen once more. What is left of no certificate is removed.
func TestMend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.db")
	s := open(t, path, Options{Block: true})
	list := findings(rand.New(rand.NewPCG(27, 28)), 200)
	for _, f := range list {
		s.See(f)
	}
	before := read(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := s.database()
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		w := writer{tx: tx, id: uint64(tx.ID()), codec: new(codec)}
		return w.put(ders, []byte("12345678"), raw("of nothing"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for i, der := range before.DER {
		if i%3 > 0 {
			continue
		}
		damaged++
		bad := bytes.Clone(der)
		bad[0] ^= 1
		file = bytes.ReplaceAll(file, der, bad)
	}
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, Options{Block: true})
	defer s.Close()
	missing := 0
	for _, c := range before.Certificates {
		if _, err := s.DER(c.SHA256); errors.Is(err, ErrNotFound) {
			missing++
		} else if err != nil {
			t.Error(err)
		}
	}
	if missing != damaged {
		t.Errorf("%d are missing, of which %d were damaged", missing, damaged)
	}
	for _, f := range list {
		h := *f.Handshake
		h.Start.Time += 1e12
		g := *f
		g.Handshake = &h
		s.See(&g)
	}
	after := read(t, s)
	for i, der := range after.DER {
		if der == nil {
			t.Errorf("%x has no DER", after.Certificates[i].SHA256)
		}
	}
	if err := s.db.Load().View(func(tx *bolt.Tx) error {
		if got := tx.Bucket(ders.name()).Stats().KeyN; got != len(after.Certificates) {
			t.Errorf("%d DERs of %d certificates", got, len(after.Certificates))
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestTransactionsAreBounded has clients all over a large inventory meet its servers: the
// pages of no transaction take much more than they may.
func TestTransactionsAreBounded(t *testing.T) {
	s := newStore(filepath.Join(t.TempDir(), "inventory.db"), Options{Memory: LeastMemory})
	if err := s.openDatabase(); err != nil {
		t.Fatal(err)
	}
	close(s.done) // what waits is taken here
	t.Cleanup(func() { _ = s.files.close(s.db.Load()) })
	r := rand.New(rand.NewPCG(31, 32))
	most, transactions := 0, 0
	for round := range 100 {
		for range 500 {
			f := many(0, 1)
			h := f.Handshake
			h.Start.Time += r.Int64N(1e15)
			h.Flow.Endpoints[0].Addr = netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
			s.See(f)
		}
		before, id := s.db.Load().Stats().TxStats, transaction(t, s)
		s.step(false)
		after := s.db.Load().Stats().TxStats
		n := transaction(t, s) - id
		if transactions += n; n > 0 && round > 50 {
			most = max(most, int(after.GetPageAlloc()-before.GetPageAlloc())/n)
		}
	}
	if lost := s.Stats().Lost; lost > 0 {
		t.Errorf("%d were lost", lost)
	}
	s.step(true)
	if totals, err := s.published.Load(), s.trouble; err != nil || totals.Handshakes != 50000 || totals.Contacts < 49000 {
		t.Errorf("%+v, %v", totals, err)
	}
	if used := s.used.Load(); transactions < 5 || used < 3*LeastMemory || most > LeastMemory {
		t.Errorf("%d transactions, of which one took %d bytes; %d of the file are in use", transactions, most, used)
	}
}

// transaction is the number of the last one.
func transaction(t *testing.T, s *Store) (id int) {
	t.Helper()
	if err := s.db.Load().View(func(tx *bolt.Tx) error { id = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return id
}
