package query

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// Column is one thing that a row tells.
type Column struct {
	Name string
	Help string
	text func(r *Row) string
	// short is what a terminal shows, where the text is long; nil for the text.
	short func(r *Row) string
	// tail is what a terminal shows behind it, and never cuts; nil for nothing.
	tail func(r *Row) string
	// number orders rows where it is set; else the text does.
	number func(r *Row) int64
}

// Text is the value of the column, whole.
func (c *Column) Text(r *Row) string { return c.text(r) }

// Short is the value of the column for a terminal; empty where that is the text.
func (c *Column) Short(r *Row) string {
	if c.short == nil {
		return ""
	}
	return c.short(r)
}

// Tail is what a terminal shows behind the value, where it has no room for all of it.
func (c *Column) Tail(r *Row) string {
	if c.tail == nil {
		return ""
	}
	return c.tail(r)
}

// Number reports whether the values are numbers or times.
func (c *Column) Number() bool { return c.number != nil }

// compare orders two rows.
func (c *Column) compare(a, b *Row) int {
	if c.number != nil {
		return cmp.Compare(c.number(a), c.number(b))
	}
	return cmp.Compare(c.text(a), c.text(b))
}

// ColumnNamed returns the column of a name; nil where there is none.
func ColumnNamed(name string) *Column {
	for i := range Columns {
		if Columns[i].Name == name {
			return &Columns[i]
		}
	}
	return nil
}

// ColumnNames are the names of all columns.
func ColumnNames() (names []string) {
	for i := range Columns {
		names = append(names, Columns[i].Name)
	}
	return names
}

// Columns are all columns, in the order of a table with all of them.
var Columns = []Column{
	{Name: "hash", Help: "SHA-256 of the certificate", text: func(r *Row) string { return hex(r.SHA256) }, short: func(r *Row) string { return hex(r.SHA256)[:12] }},
	{Name: "name", Help: "common name, or else another name", text: (*Row).Name},
	{Name: "subject", Help: "distinguished name", text: func(r *Row) string { return r.Subject }},
	{Name: "issuer", Help: "distinguished name of the issuer", text: func(r *Row) string { return r.Issuer }, short: func(r *Row) string { return shortName(r.Issuer) }},
	{Name: "names", Help: "names in it, with spaces between them", text: func(r *Row) string { return strings.Join(r.Names, " ") }},
	{Name: "serial", Help: "serial number", text: func(r *Row) string { return r.Serial }},
	{Name: "from", Help: "begin of its validity", text: func(r *Row) string { return Seconds(r.NotBefore) }, short: func(r *Row) string { return day(r.NotBefore) },
		number: func(r *Row) int64 { return r.NotBefore }},
	{Name: "until", Help: "end of its validity", text: func(r *Row) string { return Seconds(r.NotAfter) }, short: func(r *Row) string { return day(r.NotAfter) },
		number: func(r *Row) int64 { return r.NotAfter }},
	{Name: "key", Help: "algorithm, size in bits and curve of its key", text: keyText},
	{Name: "signature", Help: "algorithm of its signature", text: func(r *Row) string { return r.SignatureAlgorithm }},
	{Name: "spki", Help: "SHA-256 of its key", text: func(r *Row) string { return hexOrNothing(r.SPKI) }, short: func(r *Row) string { return cut(hexOrNothing(r.SPKI), 12) }},
	{Name: "role", Help: "leaf, issuer or client: where it stood in chains", text: func(r *Row) string { return strings.Join(RoleNames(r.Roles), " ") }},
	{Name: "flags", Help: "what stands out", text: func(r *Row) string { return strings.Join(r.Flags.Names(), " ") }, short: flagsShort},
	{Name: "trust", Help: "how its chain was last judged", text: trustText},
	{Name: "proof", Help: "whether a server proved to have its key", text: func(r *Row) string { return r.Proof.String() }},
	{Name: "alerts", Help: "alerts for handshakes with it", text: func(r *Row) string { return decimal(r.Alerts) }, number: func(r *Row) int64 { return int64(r.Alerts) }},
	{Name: "level", Help: "the highest level of these alerts", text: func(r *Row) string { return r.Level }, number: func(r *Row) int64 { return levelNumber(r.Level) }},
	{Name: "server", Help: "servers that showed it, the last one first, 64 at most", text: serversText, short: serversShort, tail: serversTail},
	{Name: "servers", Help: "how many servers showed it", text: func(r *Row) string { return count(r.Servers) }, number: func(r *Row) int64 { return int64(r.Servers.N) }},
	{Name: "clients", Help: "how many clients it was shown to", text: func(r *Row) string { return count(r.Clients) }, number: func(r *Row) int64 { return int64(r.Clients.N) }},
	{Name: "asked", Help: "names that were asked for, 64 at most", text: askedText},
	{Name: "handshakes", Help: "how many handshakes showed it", text: func(r *Row) string { return decimal(r.Handshakes) }, number: func(r *Row) int64 { return int64(r.Handshakes) }},
	{Name: "first", Help: "when it was first shown, by the packets", text: func(r *Row) string { return Time(r.First.Time) }, short: func(r *Row) string { return minute(r.First.Time) },
		number: func(r *Row) int64 { return r.First.Time }},
	{Name: "last", Help: "when it was last shown", text: func(r *Row) string { return Time(r.Last.Time) }, short: func(r *Row) string { return minute(r.Last.Time) },
		number: func(r *Row) int64 { return r.Last.Time }},
	{Name: "capture", Help: "where it was last shown: a capture or an interface", text: func(r *Row) string { return Where(&r.Last) }},
	{Name: "frame", Help: "number of the frame there", text: func(r *Row) string { return frame(&r.Last) }, number: func(r *Row) int64 { return int64(r.Last.Frame) }},
	{Name: "filter", Help: "display filter of Wireshark for that flow", text: func(r *Row) string { return frames.Filter(r.Last.Flow) }},
	{Name: "error", Help: "what is wrong with its encoding", text: func(r *Row) string { return r.ParseError }},
}

func hex(h [32]byte) string { return fmt.Sprintf("%X", h) }

func hexOrNothing(h [32]byte) string {
	if h == [32]byte{} {
		return ""
	}
	return hex(h)
}

func cut(s string, n int) string { return s[:min(n, len(s))] }

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

// count writes an estimate with a tilde before it.
func count(c inventory.Count) string {
	if c.Estimated {
		return "~" + decimal(c.N)
	}
	return decimal(c.N)
}

func day(unix int64) string {
	if unix == 0 {
		return ""
	}
	return date(unix).Time().Format(time.DateOnly)
}

func minute(nanoseconds int64) string {
	return time.Unix(0, nanoseconds).UTC().Format("2006-01-02 15:04")
}

// Where is the capture or the interface of a place.
func Where(p *inventory.Place) string { return cmp.Or(p.Path, p.Interface) }

func frame(p *inventory.Place) string {
	if p.Frame == 0 {
		return ""
	}
	return decimal(p.Frame)
}

func trustText(r *Row) string {
	if !r.Judged {
		return ""
	}
	return r.Trust.String()
}

// Key writes a key, such as "RSA 2048" or "ECDSA P-256".
func Key(algorithm string, bits int, curve string) string {
	switch {
	case curve != "":
		return algorithm + " " + curve
	case bits > 0:
		return algorithm + " " + strconv.Itoa(bits)
	}
	return algorithm
}

func keyText(r *Row) string { return Key(r.KeyAlgorithm, r.KeySize, r.KeyCurve) }

var levelNames = []string{"", "informational", "low", "medium", "high", "critical"}

func levelNumber(level string) int64 {
	for i, name := range levelNames {
		if name == level {
			return int64(i)
		}
	}
	return 0
}

// flagsShort leaves out that nobody trusts what is self-signed.
func flagsShort(r *Row) string {
	f := r.Flags
	if f&SelfSigned != 0 {
		f &^= Untrusted
	}
	return strings.Join(f.Names(), " ")
}

func serversText(r *Row) string {
	sightings, _ := r.Sightings() // an error comes from the iteration, too
	var names []string
	for i := range sightings {
		names = append(names, ServerName(sightings[i].Server))
	}
	return strings.Join(names, " ")
}

func serversShort(r *Row) string {
	sightings, _ := r.Sightings()
	if len(sightings) == 0 {
		return ""
	}
	return ServerName(sightings[0].Server)
}

// serversTail says how many servers there are beside the one that is shown.
func serversTail(r *Row) string {
	if r.Servers.N < 2 {
		return ""
	}
	return " +" + decimal(r.Servers.N-1)
}

func askedText(r *Row) string {
	names, _ := r.Asked()
	return strings.Join(names, " ")
}

// shortName is what a distinguished name is known by: its common name, or else its
// organisation.
func shortName(dn string) string {
	for _, key := range []string{"CN=", "O="} {
		for _, part := range strings.Split(dn, ", ") {
			if value, ok := strings.CutPrefix(part, key); ok && value != "" {
				return value
			}
		}
	}
	return dn
}
