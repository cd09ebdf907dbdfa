package trust

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/sensor/internal/judge/signature"
)

// quote puts a name that somebody else has chosen in quotes, cut where it is long.
func quote(name string) string {
	if len(name) > maxQuoted {
		name = name[:maxQuoted]
		for i := 0; i < utf8.UTFMax && !utf8.ValidString(name); i++ {
			name = name[:len(name)-1]
		}
		name += "…"
	}
	return strconv.Quote(name)
}

// called is how a name is called in a reason.
func called(n *cert.Name) string {
	for _, values := range [][]string{n.CommonName, n.OrganizationalUnit, n.Organization} {
		if len(values) > 0 && values[len(values)-1] != "" {
			return quote(values[len(values)-1])
		}
	}
	if n.String == "" {
		return "an authority without a name"
	}
	return quote(n.String)
}

func displayName(c *certificate) string { return called(&c.Subject) }
func issuerName(c *certificate) string  { return called(&c.Issuer) }

// displayed is the common name in the text of a name, or all of it.
func displayed(name string) string {
	if i := strings.LastIndex(name, "CN="); i >= 0 {
		return name[i+len("CN="):]
	}
	return name
}

// who is what the certificate at i of a path is called, at the start of a sentence.
func who(path []*certificate, i int) string {
	switch {
	case i == 0:
		return "The leaf"
	case path[i].anchor:
		return "The root " + displayName(path[i])
	}
	return "The certificate of " + displayName(path[i])
}

// lower is a text for the middle of a sentence.
func lower(s string) string { return strings.ToLower(s[:1]) + s[1:] }

func (s *search) who() string  { return who(s.path, len(s.path)-1) }
func (s *search) whom() string { return lower(s.who()) }

// whose is something of the last certificate of the path.
func (s *search) whose(what string) string { return "The " + what + " of " + s.whom() }

// mismatch says that the key of by has not made the signature of c, the last of the path.
func (s *search) mismatch(c, by *certificate) string {
	where := ""
	switch {
	case by.store != nil && by.store.pinned:
		where = " (pinned in the store " + by.store.name + ")"
	case by.store != nil:
		where = " (of the store " + by.store.name + ")"
	case s.seen != nil && s.seen.has(by):
		where = " (seen before)"
	}
	rsa := c.scheme.Kind == signature.PKCS1 || c.scheme.Kind == signature.PSS
	key := by.key.Algorithm()
	switch {
	case rsa && !strings.HasPrefix(key, "RSA"), !rsa && key != c.scheme.Kind.String():
		return fmt.Sprintf("%s is of %s, and the key of %s%s is of %s: that key cannot have made it.",
			s.whose("signature"), c.scheme.Kind, displayName(by), where, key)
	case !s.lengthFits(c, by):
		return fmt.Sprintf("%s has %s bits, and the key of %s%s has %s: that key cannot have made it.",
			s.whose("signature"), thousands(int64(8*len(c.parts.Signature))), displayName(by), where, thousands(int64(by.key.Bits())))
	case c.keyIDs(by) == otherKeyID:
		return fmt.Sprintf("%s names %s as its issuer, and is not signed with the key of that name%s: it has another key identifier.",
			s.who(), displayName(by), where)
	}
	return fmt.Sprintf("%s names %s as its issuer, and is not signed with the key of that name%s.", s.who(), displayName(by), where)
}

// daysFrom is how far the time is from a date.
func (s *search) daysFrom(d cert.Date) string {
	switch n := s.days(d); n {
	case 0:
		return "less than a day"
	case 1:
		return "1 day"
	default:
		return thousands(n) + " days"
	}
}

// thousands writes a number with its digits in groups of three.
func thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// namesOf is the first names that a leaf is for.
func namesOf(c *cert.Certificate) string {
	names, all := c.DNSNames, c.AltNames
	switch {
	case len(names) > 0:
	case len(c.IPAddresses) > 0:
		names = c.IPAddresses
	case c.AltNames == 0:
		names, all = c.Subject.CommonName, len(c.Subject.CommonName)
	}
	if len(names) == 0 {
		return "no host"
	}
	var quoted []string
	for _, name := range names[:min(len(names), maxNames)] {
		quoted = append(quoted, quote(name))
	}
	text := strings.Join(quoted, ", ")
	if more := all - len(quoted); more > 0 {
		text += " and " + thousands(int64(more)) + " more"
	}
	return text
}

func listed(names []string) string {
	text := strings.Join(names[:min(len(names), maxNames)], ", ")
	if more := len(names) - maxNames; more > 0 {
		text += " and " + thousands(int64(more)) + " more"
	}
	return text
}
