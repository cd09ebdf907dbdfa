package views

import (
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/query"
)

//go:embed pieces.html
var pieces string

var functions = template.FuncMap{
	"text": Text, "sentence": Sentence, "level": Level, "link": Link, "flags": Flags, "count": Count, "bytes": Bytes,
	"time": Time, "version": Version,
}

var parsed = template.Must(template.New("pieces").Funcs(functions).Parse(pieces))

// Template parses a page that can use the pieces: "alert" of an [Alert], "certificate"
// of a [Certificate], "chain" of a [Chain].
func Template(text string) (*template.Template, error) {
	t, err := parsed.Clone()
	if err != nil {
		return nil, fmt.Errorf("copy the pieces of pages: %w", err)
	}
	return t.New("page").Parse(text)
}

// Links say where a page has what is named in it. An empty address is no link.
type Links struct {
	Certificate func(inventory.Hash) string
	Server      func(inventory.ServerKey) string
	Evidence    func(*inventory.Alert) string
	Filter      func(...inventory.Flow) string // the display filter of flows
}

// Alert is what the card of an alert has.
type Alert struct {
	Anchor, ID, Level, Verdict, Server, ServerLink, Time, Reason, Client, Name, Subject, Issuer, Repeats string
	Reasons                                                                                              []string
	Hash, Place, Filter, Evidence                                                                        HTML
}

// AlertOf makes a card. leaf is the certificate of a, nil where there is none.
func (l Links) AlertOf(a *inventory.Alert, leaf *inventory.Certificate) Alert {
	card := Alert{
		Anchor: "alert-" + a.ID, ID: a.ID, Level: a.Level, Verdict: a.Verdict, Server: ServerName(a.Server), ServerLink: l.Server(a.Server),
		Time: Time(a.Time), Reason: a.Reason, Client: ClientName(a.Place.Flow), Name: a.Name,
		Reasons: slices.DeleteFunc(slices.Clone(a.Reasons), func(s string) bool { return s == a.Reason }),
		Place:   Place(a.Place, nil), Filter: Filter(l.Filter(a.Place.Flow)),
	}
	if len(card.Reasons) > maxList {
		rest := len(card.Reasons) - maxList
		card.Reasons = append(card.Reasons[:maxList], fmt.Sprintf("%d more reasons", rest))
	}
	if a.Certificate != (inventory.Hash{}) {
		card.Hash = Link(l.Certificate(a.Certificate), Hash(a.Certificate[:]))
	}
	if leaf != nil {
		card.Subject, card.Issuer = leaf.Subject, leaf.Issuer
	}
	switch {
	case a.Counted == 1:
		card.Repeats = "one more match like this one was counted with it"
	case a.Counted > 1:
		card.Repeats = Count(a.Counted) + " more matches like this one were counted with it"
	}
	if a.Evidence != "" {
		card.Evidence = Text(a.Evidence)
		if l.Evidence != nil {
			card.Evidence = Link(l.Evidence(a), card.Evidence)
		}
	}
	return card
}

// Chain is the certificates that a server sent, each below the one that it sent before.
type Chain []Member

// Member is one certificate of a chain.
type Member struct {
	Name, Role, Address string
	Flags               []string
	Hash                HTML
	Rest                Chain // what came after it
}

// ChainOf makes a chain of certificates, the leaf first. A certificate that is nil is
// not in the inventory any more.
func (l Links) ChainOf(hashes []inventory.Hash, find func(inventory.Hash) *inventory.Certificate) (chain Chain) {
	for i, h := range slices.Backward(hashes[:min(len(hashes), maxList)]) {
		m := Member{Role: fmt.Sprintf("certificate %d of %d", i+1, len(hashes)), Hash: Hash(h[:]), Rest: chain, Name: "a certificate that is not in the inventory"}
		if i == 0 {
			m.Role = "the leaf"
		}
		if c := find(h); c != nil {
			m.Name, m.Flags, m.Address = NameOf(c), Traits(c), l.Certificate(h)
		}
		chain = Chain{m}
	}
	return chain
}

// NameOf is what people call a certificate.
func NameOf(c *inventory.Certificate) string { return query.NameOf(c) }

// Traits are the words for what stands out in a certificate: its flags, and that its key
// was not held, or that it could not be read. Whether it is shared takes a look at its
// servers: see [RowTraits].
func Traits(c *inventory.Certificate) []string { return traits(c, query.FlagsOf(c)) }

// RowTraits is Traits with whether it is shared.
func RowTraits(r *query.Row) []string { return traits(r.Certificate, r.Flags) }

func traits(c *inventory.Certificate, flags query.Flags) (words []string) {
	if c.Roles&inventory.Leaf == 0 {
		flags &^= query.SelfSigned // as roots are
	}
	for _, name := range flags.Names() {
		if name == "not-yet-valid" {
			name = "not yet valid"
		}
		words = append(words, name)
	}
	if c.Proof == judgement.Mismatch {
		words = append(words, "key not held")
	}
	if c.ParseError != "" {
		words = append(words, "unreadable")
	}
	return words
}

// Certificate is what there is to read of one certificate.
type Certificate struct {
	Subject, Issuer, Valid, Serial, Key, Signature, ParseError, Trust, Proof, Seen, MoreNames string
	Names, Reasons, AskedFor                                                                  []string
	Hash, SPKI, Place, Filter, Servers                                                        HTML
	Chain                                                                                     Chain
}

// CertificateOf makes what there is to read of c. find returns another certificate, nil
// where it is not there.
func (l Links) CertificateOf(c *inventory.Certificate, find func(inventory.Hash) *inventory.Certificate) Certificate {
	v := Certificate{
		Subject: c.Subject, Issuer: c.Issuer, Serial: c.Serial, Signature: c.SignatureAlgorithm, ParseError: c.ParseError,
		Valid: "from " + Date(c.NotBefore) + " to " + Date(c.NotAfter), Key: Key(c),
		Names: c.Names[:min(len(c.Names), maxList)], Reasons: c.Reasons[:min(len(c.Reasons), maxList)],
		Hash: Hash(c.SHA256[:]), Place: Place(c.First, nil), Filter: Filter(l.Filter(c.First.Flow)),
		Seen: fmt.Sprintf("%s to %s UTC, handshakes: %s, servers: %s, clients: %s", Time(c.First.Time), Time(c.Last.Time), Count(c.Handshakes), Counted(c.Servers), Counted(c.Clients)),
	}
	if more := len(c.Names) - len(v.Names); more > 0 {
		v.MoreNames = Count(uint64(more))
	}
	if c.NotBefore == 0 && c.NotAfter == 0 {
		v.Valid = "unreadable"
	}
	if c.SPKI != [32]byte{} {
		v.SPKI = Hash(c.SPKI[:])
	}
	if c.Judged {
		v.Trust = c.Trust.String()
	}
	if c.Roles&inventory.Leaf != 0 {
		v.Proof = map[judgement.ProofStatus]string{judgement.Proven: "proven: the server has signed a handshake with it",
			judgement.Mismatch: "no: what the server signed does not fit", judgement.ProofUnknown: "unknown"}[c.Proof]
		v.Chain = l.ChainOf(append([]inventory.Hash{c.SHA256}, c.Chain...), find)
	}
	return v
}

// Key says what key a certificate has.
func Key(c *inventory.Certificate) string {
	parts := []string{c.KeyAlgorithm}
	switch {
	case c.KeyCurve != "":
		parts = append(parts, c.KeyCurve)
	case c.KeySize > 0:
		parts = append(parts, Count(uint64(c.KeySize))+" bits")
	}
	return strings.TrimSpace(strings.Join(parts, ", "))
}
