package query

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// made says what a certificate is to be like.
type made struct {
	name, issuer string
	key          int // certificates with the same number have the same key
	until        time.Time
	edit         func(c *cert.Certificate)
}

// make makes a certificate, whose bytes are no DER, so that all that is known of it is
// what it says here.
func (m made) make() *cert.Certificate {
	der := fmt.Appendf(nil, "%v", m.name+m.issuer+m.until.String()+fmt.Sprint(m.key))
	c := &cert.Certificate{DER: der, SHA256: sha256.Sum256(der), SPKISHA256: sha256.Sum256(fmt.Append(nil, m.key)), Serial: "01",
		PublicKeyAlgorithm: "RSA", PublicKeySize: 2048, SignatureAlgorithm: "SHA256-RSA", NotBefore: cert.DateOf(begin.AddDate(-1, 0, 0)), NotAfter: cert.DateOf(m.until)}
	c.Subject.String, c.Subject.CommonName, c.DNSNames = "CN="+m.name, []string{m.name}, []string{m.name}
	c.Issuer.String = "O=Test, CN=" + m.issuer
	c.SelfSigned = m.issuer == m.name
	if m.edit != nil {
		m.edit(c)
	}
	return c
}

var begin = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// meeting is a handshake.
type meeting struct {
	server, client, asked string
	minute                int
	chain                 []*cert.Certificate
	status                judgement.TrustStatus
	level                 string // of an alert; empty for none
}

// storeOf is an inventory of some handshakes.
func storeOf(t testing.TB, meetings ...meeting) *inventory.Store {
	t.Helper()
	s, err := inventory.Temporary()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for i, m := range meetings {
		server, client := netip.MustParseAddrPort(m.server), netip.MustParseAddr(m.client)
		at := event.Moment{Time: begin.Add(time.Duration(m.minute) * time.Minute).UnixNano(), Frame: uint64(i + 1)}
		h := &event.Handshake{Carrier: "tls", Start: at, End: at, Certificate: at, ClientHello: &event.ClientHello{ServerName: m.asked, Offer: new(event.Offer)},
			Flow: &event.Flow{Transport: event.TCP, Start: at.Time, Origin: &event.Origin{Path: "a.pcap"},
				Endpoints: [2]event.Endpoint{{Addr: client, Port: uint16(1024 + i)}, {Addr: server.Addr(), Port: server.Port()}}}}
		for _, c := range m.chain {
			h.Chain = append(h.Chain, event.ChainEntry{Certificate: c})
		}
		f := &finding.Finding{Handshake: h, Judged: &judgement.Judgement{Trust: &judgement.Trust{Status: m.status, Reasons: []string{"A reason."}}}}
		if m.level != "" {
			f.Alerts = []finding.Alert{{ID: fmt.Sprintf("%032x", i), Record: []byte("{}"), Match: &rules.Match{Rule: &rules.Rule{ID: "r", Title: "A rule", Level: m.level}}}}
		}
		s.See(f)
	}
	return s
}

func hashOf(c *cert.Certificate) string { return fmt.Sprintf("%X", c.SHA256) }

func chosen(t testing.TB, s *inventory.Store, by Selection) (hashes []string) {
	t.Helper()
	for r, err := range by.Certificates(s) {
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, hex(r.SHA256))
	}
	return hashes
}

// TestSelection has each way to choose.
func TestSelection(t *testing.T) {
	later := begin.AddDate(1, 0, 0)
	plain := made{"www.example.net", "Root", 1, later, nil}.make()
	over := made{"old.example.net", "Root", 2, begin.Add(3 * time.Minute), nil}.make()
	own := made{"router", "router", 3, later, nil}.make()
	weak := made{"short.example.org", "Root", 4, later, func(c *cert.Certificate) { c.PublicKeySize = 1024 }}.make()
	sha1Signed := made{"sha1.example.org", "Root", 5, later, func(c *cert.Certificate) { c.SignatureAlgorithm = "SHA1-RSA" }}.make()
	wild := made{"*.example.com", "Root", 6, later, nil}.make()
	early := made{"early.example.org", "Root", 7, later, func(c *cert.Certificate) { c.NotBefore = cert.DateOf(begin.Add(time.Hour)) }}.make()
	root := made{"Root", "Root", 8, later, func(c *cert.Certificate) { c.SignatureAlgorithm = "SHA1-RSA" }}.make()
	chain := func(c ...*cert.Certificate) []*cert.Certificate { return c }
	s := storeOf(t,
		meeting{"192.0.2.1:443", "10.0.0.1", "www.example.net", 1, chain(plain, root), judgement.Trusted, ""},
		meeting{"192.0.2.2:443", "10.0.0.2", "cdn.example", 2, chain(plain, root), judgement.Trusted, ""},
		meeting{"192.0.2.3:443", "10.0.0.1", "", 4, chain(over), judgement.Expired, ""},
		meeting{"192.0.2.3:8443", "10.0.0.3", "", 5, chain(own), judgement.SelfSigned, "high"},
		meeting{"192.0.2.3:9443", "10.0.0.3", "", 6, chain(own), judgement.SelfSigned, ""},
		meeting{"[2001:db8::1]:443", "2001:db8::2", "", 7, chain(weak), judgement.Weak, ""},
		meeting{"192.0.2.4:443", "10.0.0.4", "", 8, chain(sha1Signed), judgement.Weak, "low"},
		meeting{"192.0.2.5:443", "10.0.1.4", "", 9, chain(wild), judgement.Incomplete, ""},
		meeting{"192.0.2.6:443", "10.0.1.4", "", 10, chain(early), judgement.NotYetValid, ""},
	)
	peer := func(text string) *Peer {
		t.Helper()
		p, err := ParsePeer(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	where := func(text string) *rules.Selection {
		t.Helper()
		w, err := rules.ParseSelection(text, Fields())
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	leaf := inventory.Leaf
	for name, c := range map[string]struct {
		by   Selection
		want []*cert.Certificate
	}{
		"all":                {Selection{}, chain(plain, over, own, weak, sha1Signed, wild, early, root)},
		"leaves":             {Selection{Roles: leaf}, chain(plain, over, own, weak, sha1Signed, wild, early)},
		"issuers":            {Selection{Roles: inventory.Issuer}, chain(root)},
		"expired":            {Selection{Flags: Expired}, chain(over)},
		"not yet valid":      {Selection{Flags: NotYetValid}, chain(early)},
		"self-signed":        {Selection{Flags: SelfSigned}, chain(own, root)},
		"weak":               {Selection{Flags: Weak}, chain(weak, sha1Signed)},
		"untrusted":          {Selection{Flags: Untrusted}, chain(own, wild)},
		"shared":             {Selection{Flags: Shared}, chain(plain)},
		"alerting":           {Selection{Flags: Alerting}, chain(own, sha1Signed)},
		"alerting and weak":  {Selection{Flags: Alerting | Weak}, chain(sha1Signed)},
		"expired in a year":  {Selection{Flags: Expired, Roles: leaf, At: later.UnixNano() + 1}, chain(plain, over, own, weak, sha1Signed, wild, early)},
		"none is over":       {Selection{Flags: Expired, At: begin.UnixNano()}, nil},
		"issuer":             {Selection{Issuer: "ROOT", Roles: leaf}, chain(plain, over, weak, sha1Signed, wild, early)},
		"no such issuer":     {Selection{Issuer: "nobody"}, nil},
		"address":            {Selection{Server: peer("192.0.2.3")}, chain(over, own)},
		"address and port":   {Selection{Server: peer("192.0.2.3:8443")}, chain(own)},
		"mapped address":     {Selection{Server: peer("::ffff:192.0.2.4")}, chain(sha1Signed)},
		"network":            {Selection{Server: peer("192.0.2.4/31"), Roles: leaf}, chain(sha1Signed, wild)},
		"IPv6 and port":      {Selection{Server: peer("[2001:db8::1]:443")}, chain(weak)},
		"name in it":         {Selection{Server: peer("OLD.example.net.")}, chain(over)},
		"name asked for":     {Selection{Server: peer("cdn.example"), Roles: leaf}, chain(plain)},
		"names below":        {Selection{Server: peer("*.example.net"), Roles: leaf}, chain(plain, over)},
		"of a wildcard":      {Selection{Server: peer("a.example.com")}, chain(wild)},
		"two labels":         {Selection{Server: peer("a.b.example.com")}, nil},
		"the wildcard":       {Selection{Server: peer("*.example.com")}, chain(wild)},
		"client":             {Selection{Client: peer("10.0.0.1")}, chain(plain, over)},
		"clients":            {Selection{Client: peer("10.0.0.0/24")}, chain(plain, over, own, sha1Signed)},
		"since":              {Selection{Since: begin.Add(8 * time.Minute).UnixNano()}, chain(sha1Signed, wild, early)},
		"hashes":             {Selection{Hashes: []inventory.Hash{own.SHA256, plain.SHA256}}, chain(own, plain)},
		"none of hashes":     {Selection{Hashes: []inventory.Hash{}}, nil},
		"a field":            {Selection{Where: where("oddcert.inventory.servers|gte: 2"), Roles: leaf}, chain(plain, own)},
		"flags as a field":   {Selection{Where: where("oddcert.inventory.flags: [expired, alerting]")}, chain(over, own, sha1Signed)},
		"trust as a field":   {Selection{Where: where("oddcert.trust.status: incomplete")}, chain(wild)},
		"servers as a field": {Selection{Where: where("{server.ip|cidr: 2001:db8::/32}")}, chain(weak)},
		"level as a field":   {Selection{Where: where("rule.level: low")}, chain(sha1Signed)},
		"time as a field":    {Selection{Where: where("{'@timestamp|gte': '2026-11-01T00:09:00Z'}")}, chain(wild, early)},
	} {
		var want []string
		for _, c := range c.want {
			want = append(want, hashOf(c))
		}
		if c.by.Hashes == nil {
			slices.Sort(want)
		}
		if got := chosen(t, s, c.by); !slices.Equal(got, want) {
			t.Errorf("%s: %d: %v, want %d: %v", name, len(got), got, len(want), want)
		}
	}
}

// TestPeerErrors has what is neither an address nor a name.
func TestPeerErrors(t *testing.T) {
	for _, text := range []string{"", "a b", "192.0.2.0/33", "*", "a.*.example", "*.*.example", "http://example.net/"} {
		if p, err := ParsePeer(text); err == nil {
			t.Errorf("%q: %+v", text, p)
		}
	}
}

// many is an inventory of handshakes by chance.
func many(t testing.TB, r *rand.Rand, n int) *inventory.Store {
	var pool []*cert.Certificate
	for i := range 40 {
		pool = append(pool, made{fmt.Sprintf("h%d.example.net", i%25), "Root", i / 2, begin.Add(time.Duration(r.IntN(200)) * time.Minute), nil}.make())
	}
	var list []meeting
	for range n {
		list = append(list, meeting{fmt.Sprintf("192.0.2.%d:%d", r.IntN(12), 443+r.IntN(2)), fmt.Sprintf("10.0.0.%d", r.IntN(9)), fmt.Sprintf("h%d.example.net", r.IntN(25)),
			r.IntN(300), []*cert.Certificate{pool[r.IntN(len(pool))]}, judgement.TrustStatus(r.IntN(int(judgement.Trusted) + 1)), []string{"", "", "low"}[r.IntN(3)]})
	}
	return storeOf(t, list...)
}

// TestSorted holds that the first rows are those of the whole order.
func TestSorted(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s := many(t, r, 300)
	var all []*Row
	for row, err := range (&Selection{}).Certificates(s) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, row)
	}
	for range 300 {
		var names []string
		for range 1 + r.IntN(3) {
			names = append(names, []string{"", "-"}[r.IntN(2)]+Columns[r.IntN(len(Columns))].Name)
		}
		orders, err := ParseOrder(strings.Join(names, ","))
		if err != nil {
			t.Fatal(err)
		}
		n := 1 + r.IntN(len(all)+5)
		got, total, err := Sorted((&Selection{}).Certificates(s), orders, n)
		if err != nil || total != len(all) || len(got) != min(n, total) {
			t.Fatalf("%v: %d of %d, %v", names, len(got), total, err)
		}
		whole, _, _ := Sorted((&Selection{}).Certificates(s), orders, len(all))
		for i := range got {
			if got[i].SHA256 != whole[i].SHA256 {
				t.Errorf("%v, the first %d: row %d differs", names, n, i)
			}
			if i > 0 && orders[0].Column.compare(got[i-1], got[i])*map[bool]int{false: 1, true: -1}[orders[0].Descending] > 0 {
				t.Errorf("%v: row %d is out of order", names, i)
			}
		}
	}
	if _, err := ParseOrder("name,nothing"); err == nil {
		t.Error("an unknown column sorts")
	}
}

// TestFind has each form of a hash.
func TestFind(t *testing.T) {
	s := many(t, rand.New(rand.NewPCG(3, 4)), 100)
	for c, err := range s.Certificates() {
		if err != nil {
			t.Fatal(err)
		}
		der, err := s.DER(c.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		whole := hex(c.SHA256)
		for _, text := range []string{
			whole, strings.ToLower(whole), whole[:8], strings.ToLower(whole[:13]), whole[:2] + ":" + whole[2:4] + ":" + whole[4:6] + ":" + whole[6:8],
			fmt.Sprintf("%x", sha1.Sum(der)), fmt.Sprintf("%X", md5.Sum(der)),
		} {
			if got, err := FindOne(s, text); err != nil || got.SHA256 != c.SHA256 {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
	for _, text := range []string{strings.Repeat("0", 64), "00000000", strings.Repeat("ab", 20), strings.Repeat("ab", 16)} {
		if _, err := FindOne(s, text); !errors.Is(err, inventory.ErrNotFound) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"", "1234567", "xyz", strings.Repeat("0", 65), "12:34"} {
		if _, err := FindOne(s, text); err == nil || errors.Is(err, inventory.ErrNotFound) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if digits, err := hexDigits("ab cd-EF:01"); err != nil || digits != "ABCDEF01" {
		t.Errorf("%s, %v", digits, err)
	}
}

// TestAmbiguous names the candidates of a prefix.
func TestAmbiguous(t *testing.T) {
	same := func(last byte) *cert.Certificate {
		return made{fmt.Sprint("n", last), "Root", int(last), begin, func(c *cert.Certificate) {
			c.SHA256 = [32]byte{1, 2, 3, 4, 31: last}
		}}.make()
	}
	s := storeOf(t, meeting{"192.0.2.1:443", "10.0.0.1", "", 1, []*cert.Certificate{same(1), same(2)}, 0, ""})
	_, err := FindOne(s, "01020304")
	if err == nil || !strings.Contains(err.Error(), "n1") || !strings.Contains(err.Error(), hex([32]byte{1, 2, 3, 4, 31: 2})) {
		t.Error(err)
	}
}

// TestPivot holds graphs against the handshakes that they are of.
func TestPivot(t *testing.T) {
	s := many(t, rand.New(rand.NewPCG(5, 6)), 120)
	for c, err := range s.Certificates() {
		if err != nil {
			t.Fatal(err)
		}
		g, err := Pivot(s, Start{Certificates: []inventory.Hash{c.SHA256}}, 1)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int{"certificate": 1, "key": 1, "issuer": 1, "name": 0}
		names := map[string]bool{strings.ToLower(c.CommonName): true}
		clients := map[netip.Addr]bool{}
		for v, err := range s.ShownAt(c.SHA256) {
			if err != nil {
				t.Fatal(err)
			}
			want["server"]++
			for _, name := range v.Names {
				names[name] = true
			}
		}
		for v, err := range s.Contacts() {
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(v.Certificates, c.SHA256) {
				clients[v.Client] = true
			}
		}
		want["name"], want["client"] = len(names), len(clients)
		got := map[string]int{}
		for _, n := range g.Nodes {
			got[string(n.Kind)]++
			if n.Depth != 1 || n.links == 0 {
				t.Errorf("%s %s has depth %d and %d links", n.Kind, n.Value, n.Depth, n.links)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", got, want)
		}
		deeper, err := Pivot(s, Start{Certificates: []inventory.Hash{c.SHA256}}, 2)
		if err != nil || len(deeper.Nodes) < len(g.Nodes) {
			t.Errorf("depth 2 has %d nodes, depth 1 has %d: %v", len(deeper.Nodes), len(g.Nodes), err)
		}
		for _, n := range deeper.Nodes {
			if n.Kind != CertificateNode || n.Depth != 2 {
				continue
			}
			common := n.Certificate.SPKI == c.SPKI
			for _, name := range n.Certificate.Names {
				common = common || names[name]
			}
			for a, err := range s.ShownAt(n.Certificate.SHA256) {
				if err != nil {
					t.Fatal(err)
				}
				for b, err := range s.ShownAt(c.SHA256) {
					if err != nil {
						t.Fatal(err)
					}
					common = common || a.Server == b.Server
				}
			}
			if !common {
				t.Errorf("%s has nothing in common with %s", n.Value, hex(c.SHA256))
			}
		}
	}
}

// TestStart finds out what a text is.
func TestStart(t *testing.T) {
	c := made{"www.example.net", "Root", 1, begin, nil}.make()
	s := storeOf(t, meeting{"192.0.2.1:443", "10.0.0.1", "asked.example", 1, []*cert.Certificate{c}, 0, ""})
	for text, nodes := range map[string]int{
		hashOf(c): 7, hashOf(c)[:9]: 7, hex(c.SPKISHA256): 7, strings.ToLower(hex(c.SPKISHA256))[:10]: 7, "192.0.2.1": 7, "192.0.2.0/24": 7,
		"192.0.2.1:443": 7, "10.0.0.1": 7, "www.example.net": 7, "*.example.net": 7, "asked.example": 7,
		"192.0.2.2": 0, "nobody.example": 0, "00000000": 0, "192.0.2.1:444": 0, "deadbeef.example": 0,
	} {
		start, err := ParseStart(s, text)
		if err == nil {
			var g *Graph
			if g, err = Pivot(s, start, 1); err == nil && len(g.Nodes) != nodes {
				t.Errorf("%s: %d nodes, want %d", text, len(g.Nodes), nodes)
			}
		}
		if nodes == 0 != errors.Is(err, inventory.ErrNotFound) || nodes > 0 && err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestBounds holds that a graph has a limit and counts what it leaves out.
func TestBounds(t *testing.T) {
	c := made{"cdn.example", "Root", 1, begin, nil}.make()
	var list []meeting
	for i := range MaxNodes + 100 {
		list = append(list, meeting{fmt.Sprintf("10.%d.%d.%d:443", i>>16, i>>8&255, i&255), "10.0.0.1", "", 1, []*cert.Certificate{c}, 0, ""})
	}
	g, err := Pivot(storeOf(t, list...), Start{Certificates: []inventory.Hash{c.SHA256}}, 2)
	if err != nil || len(g.Nodes) != MaxNodes || len(g.Edges) > MaxEdges || g.LeftOut < 100 {
		t.Errorf("%d nodes, %d edges, %d left out, %v", len(g.Nodes), len(g.Edges), g.LeftOut, err)
	}
}

const hostile = "<b>&\"'\x00\x1b[31m\u202e=cmd|'/C calc'!A0\n\t\xff\ufffe]]>"

// TestGraphML has NetworkX read a graph with hostile names, and finds the nodes and
// edges that there are.
func TestGraphML(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	if err := exec.Command(python, "-c", "import networkx").Run(); err != nil {
		t.Skip("networkx is not installed (pip install networkx)")
	}
	c := made{hostile, hostile + "issuer", 1, begin, nil}.make()
	s := storeOf(t, meeting{"192.0.2.1:443", "10.0.0.1", hostile + "asked", 1, []*cert.Certificate{c}, 0, "high"},
		meeting{"[2001:db8::1]:443", "10.0.0.1", "", 2, []*cert.Certificate{c}, 0, ""})
	g, err := Pivot(s, Start{Certificates: []inventory.Hash{c.SHA256}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := g.WriteGraphML(&b); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", `
import json, networkx, sys
g = networkx.read_graphml(sys.stdin.buffer)
json.dump({"nodes": [d for _, d in g.nodes(data=True)], "edges": [[g.nodes[a]["value"], d["relation"], g.nodes[b]["value"]] for a, b, d in g.edges(data=True)]}, sys.stdout)`)
	cmd.Stdin = &b
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var read struct {
		Nodes []map[string]any
		Edges [][3]string
	}
	if err := json.Unmarshal(out, &read); err != nil {
		t.Fatal(err)
	}
	if len(read.Nodes) != len(g.Nodes) || len(read.Edges) != len(g.Edges) {
		t.Errorf("%d nodes and %d edges, want %d and %d", len(read.Nodes), len(read.Edges), len(g.Nodes), len(g.Edges))
	}
	for i, n := range read.Nodes {
		if n["kind"] != string(g.Nodes[i].Kind) || n["handshakes"] != float64(g.Nodes[i].Handshakes) {
			t.Errorf("%v, want %+v", n, g.Nodes[i])
		}
		for _, value := range n {
			if text, ok := value.(string); ok && strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q is not printable", text)
			}
		}
	}
}

// TestDiff holds that nothing differs from itself, and that B differs from A as A from B.
func TestDiff(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 5 {
		a, b := many(t, r, 60), many(t, r, 60)
		all := func(a, b *inventory.Store) (list []string) {
			for c, err := range Diff(a, b) {
				if err != nil {
					t.Fatal(err)
				}
				text := c.What + " " + c.In
				if c.Certificate != nil {
					text += " " + hex(c.Certificate.SHA256)
				} else {
					text += " " + ServerName(c.Server.ServerKey)
				}
				for i := range c.Only {
					text += " only"
					for _, row := range c.Only[i] {
						text += " " + hex(row.SHA256)
					}
				}
				list = append(list, text)
			}
			return list
		}
		if same := all(a, a); same != nil {
			t.Errorf("%v", same)
		}
		forth, back := all(a, b), all(b, a)
		if len(forth) == 0 || len(forth) != len(back) {
			t.Errorf("%d changes, and %d the other way", len(forth), len(back))
		}
		// Reckon again, over all certificates of each.
		count := 0
		hashes := func(s *inventory.Store) map[string]bool {
			set := map[string]bool{}
			for _, h := range chosen(t, s, Selection{}) {
				set[h] = true
			}
			return set
		}
		inA, inB := hashes(a), hashes(b)
		for h := range inA {
			if !inB[h] {
				count++
				if !slices.ContainsFunc(forth, func(s string) bool { return strings.HasPrefix(s, "certificate A "+h) }) || !slices.ContainsFunc(back, func(s string) bool { return strings.HasPrefix(s, "certificate B "+h) }) {
					t.Errorf("%s is not told", h)
				}
			}
		}
		if n := len(slices.DeleteFunc(slices.Clone(forth), func(s string) bool { return !strings.HasPrefix(s, "certificate A") })); n != count {
			t.Errorf("%d only in A, want %d", n, count)
		}
	}
}

// TestTimeLine holds that a long one has its beginning and its end.
func TestTimeLine(t *testing.T) {
	c := made{"www.example.net", "Root", 1, begin.Add(30 * time.Minute), nil}.make()
	var list []meeting
	for i := range 2000 {
		list = append(list, meeting{fmt.Sprintf("192.0.%d.%d:443", i>>8, i&255), "10.0.0.1", "", i, []*cert.Certificate{c}, 0, ""})
	}
	s := storeOf(t, list...)
	entry, err := s.Certificate(c.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	events, left, err := TimeLine(s, entry)
	if err != nil || len(events) != MaxEvents || left != 2001-MaxEvents {
		t.Fatalf("%d events, %d left out, %v", len(events), left, err)
	}
	if events[0].Place.Frame != 1 || events[MaxEvents-1].Place.Frame != 2000 || !slices.ContainsFunc(events, func(e Event) bool { return e.Text == "its validity ends" }) {
		t.Errorf("%+v … %+v", events[0], events[MaxEvents-1])
	}
	if !slices.IsSortedFunc(events, func(a, b Event) int { return byTime(&a.Place, &b.Place) }) {
		t.Error("the events are not in order")
	}
}

// TestErrors holds that an error of the inventory comes through.
func TestErrors(t *testing.T) {
	want := errors.New("the disk is gone")
	rows := func(yield func(*Row, error) bool) { yield(nil, want) }
	if _, _, err := Sorted(iter.Seq2[*Row, error](rows), nil, 1); !errors.Is(err, want) {
		t.Error(err)
	}
}

func FuzzPeer(f *testing.F) {
	for _, text := range []string{"192.0.2.1", "192.0.2.0/24", "[2001:db8::1]:443", "*.example.net", "www.example.net.", "", "*", "::", "fe80::1%eth0"} {
		f.Add(text, "www.example.net")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		p, err := ParsePeer(text)
		if err != nil {
			return
		}
		if p.named(name) && p.name == "" {
			t.Errorf("%q, which is an address, is called %q", text, name)
		}
		if p.name != "" && p.is(netip.MustParseAddr("192.0.2.1"), 443) {
			t.Errorf("%q, which is a name, is an address", text)
		}
		if p.named(name) != p.named(strings.ToUpper(name)) && strings.EqualFold(strings.ToUpper(name), name) {
			t.Errorf("%q: case matters for %q", text, name)
		}
	})
}

func FuzzHexDigits(f *testing.F) {
	for _, text := range []string{"149190E5", "14:91:90:e5", strings.Repeat("a", 64), "", "zz", "ſ12345678"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		digits, err := hexDigits(text)
		if err == nil && (len(digits) < MinPrefix || len(digits) > 64 || strings.Trim(digits, "0123456789ABCDEF") != "") {
			t.Errorf("%q: %q", text, digits)
		}
	})
}

// BenchmarkExpired lists what is expired in an inventory of b.N certificates.
func BenchmarkExpired(b *testing.B) {
	s, err := inventory.Temporary()
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for i := range b.N {
		c := made{fmt.Sprintf("h%d.example.net", i), "Root", i, begin.Add(time.Duration(i%1000) * time.Second), nil}.make()
		at := event.Moment{Time: begin.UnixNano() + int64(500*time.Second) + int64(i), Frame: uint64(i + 1)}
		s.See(&finding.Finding{Judged: new(judgement.Judgement), Handshake: &event.Handshake{Carrier: "tls", Start: at, End: at, Certificate: at, Chain: []event.ChainEntry{{Certificate: c}},
			Flow: &event.Flow{Transport: event.TCP, Endpoints: [2]event.Endpoint{{Addr: netip.AddrFrom4([4]byte{10, 0, 0, 1}), Port: uint16(i)},
				{Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Port: 443}}}}})
	}
	if err := s.Flush(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for _, err := range (&Selection{Flags: Expired}).Certificates(s) {
		if err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(n), "found")
}
