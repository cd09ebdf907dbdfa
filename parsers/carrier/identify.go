package carrier

import "encoding/binary"

// match reports whether bytes are of a protocol.
type match uint8

const (
	no    match = iota
	maybe       // as far as they go
	yes
)

// maxSignature is how many bytes at most it takes to recognize a protocol, and
// no more than the shortest first unit of it has, so that none is taken that
// may be TLS.
const maxSignature = 16

// identify tells what protocol begins with b; fresh when more bytes are needed.
// What is nothing else is text, or may as well be read as that.
func identify(b []byte) protocol {
	undecided := false
	for _, p := range [...]struct {
		protocol
		match
	}{
		{foreign, isForeign(b)},
		{http, isHTTP(b)},
		{lines, literal(b, proxy1)},
		{xml, literal(b, "<")},
		{ldap, isLDAP(b)},
		{tpkt, isTPKT(b)},
		{postgres, isPostgres(b)},
		{mysql, isMySQL(b)},
		{tds, isTDS(b)},
		{socks4, isSOCKS4(b)},
		{socks5, isSOCKS5(b)},
		{proxy2, literal(b, proxy2Signature)},
		{preconnection, isPreconnection(b)},
		{amqp, literal(b, amqpSignature)},
	} {
		if p.match == yes {
			return p.protocol
		}
		undecided = undecided || p.match == maybe
	}
	if undecided && len(b) < maxSignature || string(b) == "S" || string(b) == "N" || string(b) == "NS" {
		return fresh
	}
	return lines
}

// literal reports whether b begins with l.
func literal(b []byte, l string) match {
	switch n := min(len(b), len(l)); {
	case string(b[:n]) != l[:n]:
		return no
	case n < len(l):
		return maybe
	}
	return yes
}

// oneOf is the best of what literal says of each.
func oneOf(b []byte, l ...string) (best match) {
	for _, l := range l {
		best = max(best, literal(b, l))
	}
	return best
}

// isForeign knows protocols that carry much and never TLS, and capture files,
// in which there may be any.
func isForeign(b []byte) match {
	best := oneOf(b, "SSH-", "PRI * HTTP/2.0\r\n", "\x13BitTorrent pro",
		"\xd4\xc3\xb2\xa1", "\xa1\xb2\xc3\xd4", "\x4d\x3c\xb2\xa1", "\xa1\xb2\x3c\x4d", "\x0a\x0d\x0d\x0a")
	if b[0] == 0 { // SMB over TCP (MS-SMB2, section 2.1)
		if len(b) < 5 {
			return maybe
		}
		best = max(best, oneOf(b[4:], "\xffSMB", "\xfeSMB", "\xfdSMB", "\xfcSMB"))
	}
	return best
}

func isHTTP(b []byte) match {
	best := oneOf(b, "HTTP/1.", "CONNECT ")
	for _, m := range [...]string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "TRACE ", "PROPFIND "} {
		v := literal(b, m)
		if v == yes { // and the target
			switch {
			case len(b) == len(m):
				v = maybe
			case b[len(m)] != '/' && b[len(m)] != '*' && b[len(m)] != 'h':
				v = no
			}
		}
		best = max(best, v)
	}
	return best
}

// berLength is the length at the beginning of b (X.690, section 8.1.3) and how
// many bytes it takes; 0 when more are needed, -1 when LDAP has no such element.
func berLength(b []byte) (length, size int) {
	switch {
	case len(b) == 0:
		return 0, 0
	case b[0] < 0x80:
		return int(b[0]), 1
	case b[0] == 0x80 || b[0] > 0x84:
		return 0, -1
	}
	size = 1 + int(b[0]&0x7f)
	if len(b) < size {
		return 0, 0
	}
	for _, v := range b[1:size] {
		length = length<<8 | int(v)
	}
	if length > maxLDAP {
		return 0, -1
	}
	return length, size
}

// ldapOperation is the protocolOp of an LDAPMessage (RFC 4511, section 4.1.1)
// that begins with b, from its tag.
func ldapOperation(b []byte) ([]byte, match) {
	if b[0] != 0x30 {
		return nil, no
	}
	_, n := berLength(b[1:])
	switch {
	case n < 0:
		return nil, no
	case n == 0:
		return nil, maybe
	}
	b = b[1+n:]
	switch {
	case len(b) > 0 && b[0] != 2 || len(b) > 1 && (b[1] == 0 || b[1] > 4):
		return nil, no
	case len(b) < 2 || len(b) <= 2+int(b[1]):
		return nil, maybe
	}
	return b[2+b[1]:], yes
}

func isLDAP(b []byte) match {
	op, m := ldapOperation(b)
	if m == yes && (op[0]&0xc0 != 0x40 || op[0]&0x1f > 25) {
		return no
	}
	return m
}

// isTPKT knows connection requests and confirmations (ITU-T X.224, section 13).
func isTPKT(b []byte) match {
	if m := literal(b, "\x03\x00"); m != yes {
		return m
	}
	if len(b) < 6 {
		return maybe
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	if length < 11 || int(b[4]) != length-5 || b[5]&0xf0 != x224Request && b[5]&0xf0 != x224Confirm {
		return no
	}
	return yes
}

// isPreconnection knows what a client of RDP says before its request to one of
// several machines behind an address (MS-RDPEPS, section 2.2.1), of less than
// 1 KiB.
func isPreconnection(b []byte) match {
	if len(b) > 1 && (b[1] > 3 || b[1] == 0 && b[0] < 16) {
		return no
	}
	if m := literal(b[min(len(b), 2):], "\x00\x00\x00\x00\x00\x00"); m != yes {
		return m
	}
	return oneOf(b[8:], "\x01\x00\x00\x00", "\x02\x00\x00\x00")
}

func isPostgres(b []byte) match {
	if m := oneOf(b, postgresTLS, postgresGSS, postgresCancel); m != no {
		return m
	}
	if m := literal(b, "\x00\x00"); m != yes {
		return m
	}
	if len(b) <= 4 {
		return maybe
	}
	return literal(b[4:], postgresStartup)
}

// isMySQL knows the server's first packet and the client's SSLRequest.
func isMySQL(b []byte) match {
	greets, requests := no, literal(b, mysqlRequest)
	if b[0] >= 32 {
		greets = literal(b[1:], "\x00\x00\x00\x0a")
	}
	switch {
	case len(b) < 6:
		return min(maybe, max(greets, requests))
	case requests == yes && b[5]&mysqlTLS != 0, greets == yes && b[5] >= '0' && b[5] <= '9':
		return yes
	}
	return no
}

// isTDS knows pre-login packets (MS-TDS, section 2.2.3.1), the client's and the
// server's, and packets that have TLS in them.
func isTDS(b []byte) match {
	if b[0] != tdsPreLogin && b[0] != tdsResponse || len(b) > 1 && b[1] > 1 {
		return no
	}
	if len(b) < tdsHeaderLength {
		return maybe
	}
	if binary.BigEndian.Uint16(b[2:]) <= tdsHeaderLength || b[6] > 1 || b[7] != 0 {
		return no
	}
	return yes
}

// isSOCKS4 knows CONNECT and BIND, and the answers, which are of version 0 but
// with some servers. It comes after isTDS, which begins like it.
func isSOCKS4(b []byte) match {
	switch {
	case b[0] != 4 && b[0] != 0:
		return no
	case len(b) == 1:
		return maybe
	case b[0] == 4 && (b[1] == 1 || b[1] == 2), b[1] >= socks4Granted && b[1] <= 0x5d:
		if b[0] == 4 && b[1] == 1 && len(b) < tdsHeaderLength {
			return maybe
		}
		return yes
	}
	return no
}

// isSOCKS5 knows the methods that a client offers, which look like the one that
// a server chose.
func isSOCKS5(b []byte) match {
	switch {
	case b[0] != 5:
		return no
	case len(b) == 1:
		return maybe
	case b[1] > 9:
		return no
	}
	return yes
}
