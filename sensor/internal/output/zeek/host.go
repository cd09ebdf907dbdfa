package zeek

import (
	"strings"

	"github.com/oddcert/oddcert/parsers/cert"
)

// isFor reports whether a certificate is for the name of a host, as OpenSSL's
// X509_check_host finds, which Zeek asks: where subjectAltName has names of hosts,
// these count, else the common names.
func isFor(c *cert.Certificate, host string) bool {
	for _, kind := range [...]cert.NameKind{cert.DNSName, cert.CommonName} {
		names := c.DNSNames
		if kind == cert.CommonName {
			names = c.Subject.CommonName
		}
		found := len(names) > 0
		for _, name := range names {
			if matches(name, host) {
				return true
			}
		}
		more := c.MoreNames()
		for k, name, ok := more.Next(); ok; k, name, ok = more.Next() {
			if k != kind {
				continue
			}
			found = true
			if matches(name, host) {
				return true
			}
		}
		if found && kind == cert.DNSName {
			return false
		}
	}
	return false
}

// matches compares a name of a certificate with that of a host. An asterisk stands
// for a label, or for its beginning or end, where at least two labels follow (RFC
// 6125, section 6.4.3).
func matches(name, host string) bool {
	name, host = lower(name), lower(host)
	if len(host) > 1 && host[0] == '.' { // OpenSSL takes it for all below a domain
		return strings.HasSuffix(name, host)
	}
	label, rest, _ := strings.Cut(name, ".")
	before, after, ok := strings.Cut(label, "*")
	if !ok || !isPattern(before, after, rest) {
		return name == host
	}
	own, others, _ := strings.Cut(host, ".")
	if others != rest || len(own) < len(before)+len(after) ||
		!strings.HasPrefix(own, before) || !strings.HasSuffix(own, after) {
		return false
	}
	matched := own[len(before) : len(own)-len(after)]
	switch {
	case matched == "*":
		return true
	case label == "*":
		return matched != "" && isLabel(matched)
	}
	return isLabel(matched) && !strings.HasPrefix(own, "xn--")
}

// isPattern reports whether a name with an asterisk between before and after, in its
// first label, is a pattern. rest is what follows the first label.
func isPattern(before, after, rest string) bool {
	if before != "" && after != "" || strings.HasPrefix(before, "xn--") || !isLabel(before) || !isLabel(after) ||
		strings.HasPrefix(before, "-") || strings.HasSuffix(after, "-") || !strings.Contains(rest, ".") {
		return false
	}
	for label := range strings.SplitSeq(rest, ".") {
		if label == "" || !isLabel(label) || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// isLabel reports whether s has letters, digits and hyphens only, in lower case.
func isLabel(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// lower is s with the letters of ASCII in lower case.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}
