package query

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// Kind is what a node of a [Graph] is.
type Kind string

// The kinds.
const (
	CertificateNode Kind = "certificate" // its SHA-256
	KeyNode         Kind = "key"         // SHA-256 of a SubjectPublicKeyInfo
	ServerNode      Kind = "server"      // address and port
	NameNode        Kind = "name"        // in a certificate, or asked for
	IssuerNode      Kind = "issuer"      // distinguished name
	ClientNode      Kind = "client"      // address
)

var kinds = []Kind{CertificateNode, KeyNode, ServerNode, NameNode, IssuerNode, ClientNode}

// Node is one thing that hangs together with others.
type Node struct {
	Kind        Kind
	Value       string // as the kind says
	Label       string // what people call it
	Depth       int    // certificates on the way to it, the start included
	Flags       Flags  // of a certificate
	Certificate *inventory.Certificate
	First, Last inventory.Place // when and where it was seen, with what hangs together with it here
	Handshakes  uint64          // of a certificate; for the others, of the edges
	links       int
}

// Links is how many other nodes it hangs together with.
func (n *Node) Links() int { return n.links }

// Edge is how two nodes hang together. From is nearer to who acts: a server shows a
// certificate, a certificate has a key.
type Edge struct {
	From, To *Node
	Relation string // shows, has-key, names, issued-by, asked-for, met, shown-to
}

// Graph is what hangs together.
type Graph struct {
	Nodes []*Node // by depth, then kind and value
	Edges []Edge
	// LeftOut counts what had no room: nodes above MaxNodes and edges above MaxEdges.
	LeftOut int
}

// Start is what to begin with. One of its members is set.
type Start struct {
	Certificates []inventory.Hash
	Key          [32]byte
	Peer         *Peer
}

// ParseStart finds out what a text names: an address, network or name, or the first
// digits of the hash of a certificate or of a key. A text that can be a hash or a name is
// a hash if there is one.
func ParseStart(store *inventory.Store, text string) (Start, error) {
	digits, notHex := hexDigits(text)
	if notHex == nil && !strings.Contains(text, ".") {
		if _, err := netip.ParseAddr(text); err != nil || len(digits) == 64 {
			found, err := Find(store, text)
			if err == nil && len(found) == 1 {
				return Start{Certificates: []inventory.Hash{found[0].SHA256}}, nil
			}
			if err != nil && !errors.Is(err, inventory.ErrNotFound) {
				return Start{}, err
			}
			key, keyErr := findKey(store, digits)
			if keyErr == nil && len(found) == 0 {
				return Start{Key: key}, nil
			}
			if keyErr != nil && !errors.Is(keyErr, inventory.ErrNotFound) {
				return Start{}, keyErr
			}
			if len(found) > 1 {
				_, err = FindOne(store, text)
			}
			return Start{}, err
		}
	}
	peer, err := ParsePeer(text)
	if err != nil && notHex == nil {
		return Start{}, notHex
	}
	return Start{Peer: peer}, err
}

// findKey returns the hash of a key from its first digits.
func findKey(store *inventory.Store, digits string) (key [32]byte, err error) {
	for c, err := range store.Certificates() {
		if err != nil {
			return key, err
		}
		if c.SPKI == key || c.SPKI == [32]byte{} || !strings.HasPrefix(hex(c.SPKI), digits) {
			continue
		}
		if key != [32]byte{} {
			return key, errors.New("several keys have a SHA-256 that begins with " + digits + ", give more digits: " + hex(key) + " and " + hex(c.SPKI))
		}
		key = c.SPKI
	}
	if key == [32]byte{} {
		return key, inventory.ErrNotFound
	}
	return key, nil
}

type nodeKey struct {
	kind  Kind
	value string
}

type edgeKey struct {
	from, to nodeKey
	relation string
}

// grower makes a graph.
type grower struct {
	store *inventory.Store
	graph *Graph
	nodes map[nodeKey]*Node
	edges map[edgeKey]bool
	depth int

	// The certificates whose surroundings are in the graph, and what leads on to others.
	done    map[inventory.Hash]bool
	keys    map[[32]byte]bool
	names   map[string]bool
	servers map[inventory.ServerKey]bool
}

// Pivot returns what hangs together with a start, over so many certificates: with 1, the
// certificates that the start is, has, names, shows or was shown, and the servers, names,
// issuers, keys and clients of these; with 2, also the certificates that have a key, a
// server or a name in common with them, and what is around those; and so on. Issuers and
// clients are shown and not followed, as they lead to everything. There is an error that
// is [inventory.ErrNotFound] where nothing hangs together with the start.
func Pivot(store *inventory.Store, start Start, depth int) (*Graph, error) {
	g := &grower{
		store: store, graph: new(Graph), nodes: map[nodeKey]*Node{}, edges: map[edgeKey]bool{},
		done: map[inventory.Hash]bool{}, keys: map[[32]byte]bool{}, names: map[string]bool{}, servers: map[inventory.ServerKey]bool{},
	}
	next := map[inventory.Hash]bool{}
	for _, hash := range start.Certificates {
		next[hash] = true
	}
	if start.Key != [32]byte{} {
		g.keys[start.Key] = true
	}
	if p := start.Peer; p != nil {
		if err := errors.Join(p.shownBy(store, inventory.Leaf, next), p.shownTo(store, next)); err != nil {
			return nil, err
		}
	}
	for g.depth = 1; g.depth <= depth; g.depth++ {
		if err := g.follow(start.Peer, next); err != nil {
			return nil, err
		}
		if len(next) == 0 {
			break
		}
		for _, hash := range sortedHashes(next) {
			if err := g.around(hash); err != nil {
				return nil, err
			}
		}
		clear(next)
	}
	if len(g.nodes) == 0 {
		return nil, inventory.ErrNotFound
	}
	for _, n := range g.nodes {
		g.graph.Nodes = append(g.graph.Nodes, n)
	}
	slices.SortFunc(g.graph.Nodes, func(a, b *Node) int {
		return cmp.Or(cmp.Compare(a.Depth, b.Depth), cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)), cmp.Compare(a.Value, b.Value))
	})
	slices.SortFunc(g.graph.Edges, func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.Relation, b.Relation), cmp.Compare(a.From.Value, b.From.Value), cmp.Compare(a.To.Value, b.To.Value))
	})
	return g.graph, nil
}

func sortedHashes(set map[inventory.Hash]bool) (list []inventory.Hash) {
	for hash := range set {
		list = append(list, hash)
	}
	slices.SortFunc(list, func(a, b inventory.Hash) int { return slices.Compare(a[:], b[:]) })
	return list
}

// follow adds to next the certificates that keys, names and servers lead to. At the first
// step start is a peer, whose name certificates may have.
func (g *grower) follow(start *Peer, next map[inventory.Hash]bool) error {
	for k := range g.servers {
		for s, err := range g.store.ShownBy(k) {
			if err != nil {
				return err
			}
			if s.Roles&inventory.Leaf != 0 {
				next[s.Certificate] = true
			}
		}
	}
	if len(g.keys) > 0 || len(g.names) > 0 || g.depth == 1 && start != nil {
		for c, err := range g.store.Certificates() {
			if err != nil {
				return err
			}
			if g.keys[c.SPKI] || c.Roles&inventory.Leaf != 0 && slices.ContainsFunc(certificateNames(c), func(name string) bool { return g.names[name] }) ||
				g.depth == 1 && start != nil && start.namedIn(c) {
				next[c.SHA256] = true
			}
		}
	}
	for hash := range next {
		if g.done[hash] {
			delete(next, hash)
		}
	}
	clear(g.keys)
	clear(g.names)
	clear(g.servers)
	return nil
}

// certificateNames are the names of a certificate, in lower case. A common name that is
// none of a host says who, and not where: it is a name here all the same if the
// certificate has no other.
func certificateNames(c *inventory.Certificate) (names []string) {
	for _, name := range c.Names {
		once(&names, strings.ToLower(name))
	}
	if c.CommonName != "" && (len(names) == 0 || strings.Contains(c.CommonName, ".")) {
		once(&names, strings.ToLower(c.CommonName))
	}
	return names
}

// node returns a node, or nil where there is no room for it.
func (g *grower) node(kind Kind, value, label string) *Node {
	key := nodeKey{kind, value}
	n := g.nodes[key]
	if n == nil {
		if len(g.nodes) >= MaxNodes {
			g.graph.LeftOut++
			return nil
		}
		n = &Node{Kind: kind, Value: value, Label: label, Depth: g.depth}
		g.nodes[key] = n
	}
	return n
}

// seen adds to n that it was seen.
func (n *Node) seen(first, last *inventory.Place, handshakes uint64) {
	if n == nil {
		return
	}
	if n.First.Time == 0 || byTime(first, &n.First) < 0 {
		n.First = *first
	}
	if n.Last.Time == 0 || byTime(last, &n.Last) > 0 {
		n.Last = *last
	}
	n.Handshakes += handshakes
}

// edge connects two nodes, if there are both, and room. It reports whether the edge is
// new.
func (g *grower) edge(from, to *Node, relation string) bool {
	if from == nil || to == nil {
		return false
	}
	key := edgeKey{nodeKey{from.Kind, from.Value}, nodeKey{to.Kind, to.Value}, relation}
	if g.edges[key] {
		return false
	}
	if len(g.edges) >= MaxEdges {
		g.graph.LeftOut++
		return false
	}
	g.edges[key] = true
	g.graph.Edges = append(g.graph.Edges, Edge{from, to, relation})
	from.links++
	to.links++
	return true
}

// around adds a certificate with its surroundings.
func (g *grower) around(hash inventory.Hash) error {
	g.done[hash] = true
	c, err := g.store.Certificate(hash)
	if err != nil {
		if errors.Is(err, inventory.ErrNotFound) { // given up for newer ones
			return nil
		}
		return err
	}
	r, err := NewRow(g.store, c, 0)
	if err != nil {
		return err
	}
	n := g.node(CertificateNode, hex(hash), NameOf(c))
	if n == nil {
		return nil
	}
	n.Certificate, n.Flags = c, r.Flags
	n.seen(&c.First, &c.Last, c.Handshakes)
	attach := func(kind Kind, value, label, relation string) {
		if value == "" {
			return
		}
		other := g.node(kind, value, label)
		if g.edge(n, other, relation) {
			other.seen(&c.First, &c.Last, c.Handshakes)
		}
	}
	if c.SPKI != [32]byte{} {
		attach(KeyNode, hex(c.SPKI), keyText(r), "has-key")
		g.keys[c.SPKI] = true
	}
	attach(IssuerNode, c.Issuer, shortName(c.Issuer), "issued-by")
	leaf := c.Roles&inventory.Leaf != 0
	for _, name := range certificateNames(c) {
		attach(NameNode, name, name, "names")
		if leaf {
			g.names[name] = true
		}
	}
	for s, err := range g.store.ShownAt(hash) {
		if err != nil {
			return err
		}
		server := g.node(ServerNode, serverValue(s.Server), s.Server.Carrier)
		if s.Roles == inventory.Client {
			if g.edge(n, server, "shown-to") {
				server.seen(&s.First, &s.Last, s.Handshakes)
			}
			continue
		}
		if g.edge(server, n, "shows") {
			server.seen(&s.First, &s.Last, s.Handshakes)
		}
		if s.Roles&inventory.Leaf == 0 {
			continue
		}
		g.servers[s.Server] = true
		for _, name := range s.Names {
			asked := g.node(NameNode, strings.ToLower(name), strings.ToLower(name))
			if g.edge(asked, n, "asked-for") {
				asked.seen(&s.First, &s.Last, s.Handshakes)
			}
			g.names[strings.ToLower(name)] = true
		}
		for met, err := range g.store.Met(s.Server) {
			if err != nil {
				return err
			}
			if !slices.Contains(met.Certificates, hash) {
				continue
			}
			client := g.node(ClientNode, met.Client.String(), "")
			g.edge(n, client, "shown-to")
			if g.edge(client, server, "met") {
				client.seen(&met.First, &met.Last, met.Handshakes)
			}
		}
	}
	return nil
}

// serverValue tells servers apart that differ in the transport or in the carrier.
func serverValue(k inventory.ServerKey) string {
	return ServerName(k) + "/" + k.Transport.String()
}
