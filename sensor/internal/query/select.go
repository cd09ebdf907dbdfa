package query

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// Selection is a choice among the certificates of an inventory: all that is said must
// hold. The zero Selection chooses all.
type Selection struct {
	Roles  inventory.Role   // it stood in one of these places; 0 for any
	Flags  Flags            // it has all of these
	Hashes []inventory.Hash // it is one of these; nil for any
	Issuer string           // the distinguished name of its issuer has this text, in any case
	Server *Peer            // a server that this is showed it, or it is for that name
	Client *Peer            // it was shown to a client that this is
	Since  int64            // it was last shown then or later, nanoseconds since the Unix epoch
	At     int64            // when its validity is asked for; 0 for the times of the handshakes
	Where  *rules.Selection // its document, as [Row.Document] has it
}

// Peer names a server or a client: an address, a network, an address with a port, a MAC
// address, or a name, of which "*.example.net" stands for all below it.
type Peer struct {
	prefix netip.Prefix
	port   uint16
	name   string
}

// ParsePeer reads a peer.
func ParsePeer(text string) (*Peer, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return &Peer{prefix: p.Masked()}, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return &Peer{prefix: whole(a)}, nil
	}
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return &Peer{prefix: whole(ap.Addr()), port: ap.Port()}, nil
	}
	name := strings.TrimSuffix(strings.ToLower(text), ".")
	if name == "" || strings.ContainsAny(name, " \t/") || strings.Contains(strings.TrimPrefix(name, "*."), "*") {
		return nil, fmt.Errorf("%q is no address, network or name: write 192.0.2.1, 192.0.2.0/24, 192.0.2.1:443, www.example.net or *.example.net", text)
	}
	return &Peer{name: name}, nil
}

func whole(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen())
}

// Name is the name, empty where the peer is none.
func (p *Peer) Name() string { return p.name }

// is reports whether a peer is at an address and a port.
func (p *Peer) is(a netip.Addr, port uint16) bool {
	return p.name == "" && p.prefix.Contains(a.Unmap().WithZone("")) && (p.port == 0 || p.port == port)
}

// named reports whether a name is the one that p is, or below it. A name with a wildcard
// is for all names of one more label (RFC 6125, section 6.4.3).
func (p *Peer) named(name string) bool {
	if p.name == "" {
		return false
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if suffix, ok := strings.CutPrefix(p.name, "*"); ok {
		return strings.HasSuffix(name, suffix) && len(name) > len(suffix)
	}
	if name == p.name {
		return true
	}
	suffix, ok := strings.CutPrefix(name, "*")
	label, found := strings.CutSuffix(p.name, suffix)
	return ok && strings.HasPrefix(suffix, ".") && found && label != "" && !strings.Contains(label, ".")
}

// namedIn reports whether a certificate is for a name that p is.
func (p *Peer) namedIn(c *inventory.Certificate) bool {
	return p.named(c.CommonName) || slices.ContainsFunc(c.Names, p.named)
}

// shownBy adds the certificates that a peer as a server showed, or that were shown when
// its name was asked for.
// It showed them in one of some places.
func (p *Peer) shownBy(store *inventory.Store, roles inventory.Role, among map[inventory.Hash]bool) error {
	for s, err := range store.Sightings() {
		if err != nil {
			return err
		}
		if s.Roles&roles == 0 {
			continue
		}
		if p.is(s.Server.Address, s.Server.Port) || p.Name() != "" && slices.ContainsFunc(s.Names, p.named) {
			among[s.Certificate] = true
		}
	}
	return nil
}

// shownTo adds the certificates that were shown to a peer as a client.
func (p *Peer) shownTo(store *inventory.Store, among map[inventory.Hash]bool) error {
	for c, err := range store.Contacts() {
		if err != nil {
			return err
		}
		if p.is(c.Client, 0) {
			for _, hash := range c.Certificates {
				among[hash] = true
			}
		}
	}
	return nil
}

const anyRole = inventory.Leaf | inventory.Issuer | inventory.Client

// Certificates returns the chosen certificates in the order of their hashes. Beside the
// inventory it holds one row, and with Server or Client the hashes that these leave.
func (s *Selection) Certificates(store *inventory.Store) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		var shownBy, shownTo map[inventory.Hash]bool
		if s.Server != nil {
			shownBy = map[inventory.Hash]bool{}
			if err := s.Server.shownBy(store, cmp.Or(s.Roles, anyRole), shownBy); err != nil {
				yield(nil, err)
				return
			}
		}
		if s.Client != nil {
			if s.Client.Name() != "" {
				yield(nil, errors.New("a client is an address or a network, not a name"))
				return
			}
			shownTo = map[inventory.Hash]bool{}
			if err := s.Client.shownTo(store, shownTo); err != nil {
				yield(nil, err)
				return
			}
		}
		for c, err := range s.candidates(store) {
			if err != nil {
				yield(nil, err)
				return
			}
			if s.Roles != 0 && c.Roles&s.Roles == 0 || c.Last.Time < s.Since || s.Issuer != "" && !contains(c.Issuer, s.Issuer) ||
				shownBy != nil && !shownBy[c.SHA256] && !s.Server.namedIn(c) || shownTo != nil && !shownTo[c.SHA256] ||
				flagsOf(c, s.At)&s.Flags&^Shared != s.Flags&^Shared {
				continue
			}
			r, err := NewRow(store, c, s.At)
			if err == nil && s.Flags&^r.Flags != 0 {
				continue
			}
			if err == nil && s.Where != nil {
				var document []byte
				if document, err = r.Document(false); err == nil && !s.Where.Matches(document) {
					continue
				}
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// candidates are the certificates among which there is a choice.
func (s *Selection) candidates(store *inventory.Store) iter.Seq2[*inventory.Certificate, error] {
	if s.Hashes == nil {
		return store.Certificates()
	}
	return func(yield func(*inventory.Certificate, error) bool) {
		for _, hash := range s.Hashes {
			if c, err := store.Certificate(hash); !yield(c, err) {
				return
			}
		}
	}
}

// Order is a column that rows are sorted by.
type Order struct {
	Column     *Column
	Descending bool
}

// ParseOrder reads the names of columns with commas between them. The first counts most;
// one with "-" before it is descending.
func ParseOrder(text string) (orders []Order, err error) {
	for name := range strings.SplitSeq(text, ",") {
		name, descending := strings.CutPrefix(strings.TrimSpace(name), "-")
		c := ColumnNamed(name)
		if c == nil {
			return nil, fmt.Errorf("there is no column %q: there are %s", name, strings.Join(ColumnNames(), ", "))
		}
		orders = append(orders, Order{c, descending})
	}
	return orders, nil
}

// Sorted returns the first n rows in an order, and how many there are. Rows that are
// equal stay in the order of their hashes. No more than twice n rows are held.
func Sorted(rows iter.Seq2[*Row, error], orders []Order, n int) (first []*Row, total int, err error) {
	compare := func(a, b *Row) int {
		for _, o := range orders {
			c := o.Column.compare(a, b)
			if o.Descending {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return slices.Compare(a.SHA256[:], b.SHA256[:])
	}
	shrink := func() {
		slices.SortFunc(first, compare)
		clear(first[min(n, len(first)):])
		first = first[:min(n, len(first))]
	}
	for r, err := range rows {
		if err != nil {
			return nil, total, err
		}
		total++
		if first = append(first, r); len(first) >= 2*n {
			shrink()
		}
	}
	shrink()
	return first, total, nil
}

// Find returns the certificates that a text is the hash of: the first digits of a
// SHA-256, at least 8, or a whole SHA-1 or MD5; in any case, with or without colons or
// spaces. There is one at least if there is no error; more than 5 are not told apart.
func Find(store *inventory.Store, text string) (found []*inventory.Certificate, err error) {
	digits, err := hexDigits(text)
	if err != nil {
		return nil, err
	}
	if len(digits) == 64 {
		var hash inventory.Hash
		unhex(hash[:], digits)
		c, err := store.Certificate(hash)
		if err == nil {
			return []*inventory.Certificate{c}, nil
		}
		if !errors.Is(err, inventory.ErrNotFound) {
			return nil, err
		}
		return nil, fmt.Errorf("no certificate has the SHA-256 %s: %w", digits, err)
	}
	for c, err := range store.Certificates() {
		if err != nil {
			return nil, err
		}
		if prefix := hex(c.SHA256)[:len(digits)]; prefix == digits {
			if found = append(found, c); len(found) > maxCandidates {
				break
			}
		} else if prefix > digits {
			break
		}
	}
	kind := ""
	if len(found) == 0 {
		switch len(digits) {
		case 32:
			kind = "MD5"
		case 40:
			kind = "SHA-1"
		}
	}
	if kind != "" {
		if found, err = findBySum(store, digits); err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		what := "a SHA-256 that begins with"
		if kind != "" {
			what += " it, or the " + kind
		}
		return nil, fmt.Errorf("no certificate has %s %s: %w", what, digits, inventory.ErrNotFound)
	}
	return found, nil
}

// FindOne is Find where there must be one. The error of several names them.
func FindOne(store *inventory.Store, text string) (*inventory.Certificate, error) {
	found, err := Find(store, text)
	if err != nil {
		return nil, err
	}
	if len(found) == 1 {
		return found[0], nil
	}
	var lines []string
	for i, c := range found {
		if i == maxCandidates {
			lines = append(lines, "and more")
			break
		}
		lines = append(lines, hex(c.SHA256)+" "+NameOf(c))
	}
	return nil, fmt.Errorf("several certificates have a SHA-256 that begins with %s, give more digits:\n%s", text, strings.Join(lines, "\n"))
}

// CheckHash says why a text cannot be the hash of a certificate; nil where it can.
func CheckHash(text string) error {
	_, err := hexDigits(text)
	return err
}

func hexDigits(text string) (string, error) {
	digits := strings.ToUpper(strings.NewReplacer(":", "", " ", "", "-", "").Replace(text))
	if strings.Trim(digits, "0123456789ABCDEF") != "" || len(digits) > 64 {
		return "", fmt.Errorf("%q is no hash: give hexadecimal digits, 64 at most", text)
	}
	if len(digits) < MinPrefix {
		return "", fmt.Errorf("%q is too short for a hash: give %d digits at least", text, MinPrefix)
	}
	return digits, nil
}

func unhex(dst []byte, digits string) {
	for i := range dst {
		n, _ := strconv.ParseUint(digits[2*i:2*i+2], 16, 8) // they are digits
		dst[i] = byte(n)
	}
}

// byTime orders places.
func byTime(a, b *inventory.Place) int {
	return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Frame, b.Frame), cmp.Compare(a.Path, b.Path))
}
