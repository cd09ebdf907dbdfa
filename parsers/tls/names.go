package tls

import (
	_ "embed"
	"strconv"
	"strings"
	"sync"
)

//go:embed suites.txt
var suitesText string

//go:embed groups.txt
var groupsText string

//go:embed schemes.txt
var schemesText string

var (
	schemeNames = sync.OnceValue(func() map[uint16]string { return readNames(schemesText) })
	suiteNames  = sync.OnceValue(func() map[uint16]string { return readNames(suitesText) })
	groupNames  = sync.OnceValue(func() map[uint16]string { return readNames(groupsText) })
)

// readNames reads lines of a value in hex and its name.
func readNames(text string) map[uint16]string {
	names := make(map[uint16]string)
	for line := range strings.Lines(text) {
		value, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if n, err := strconv.ParseUint(value, 16, 16); err == nil {
			names[uint16(n)] = strings.TrimSpace(name)
		}
	}
	return names
}

// CipherSuiteName is the name of a cipher suite, such as
// "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"; empty when it is not known.
func CipherSuiteName(suite uint16) string { return suiteNames()[suite] }

// GroupName is the name of a named group, such as "x25519"; empty when it is
// not known.
func GroupName(group uint16) string { return groupNames()[group] }

// SignatureSchemeName is the name of a signature scheme, such as "rsa_pss_rsae_sha256";
// empty when it is not known.
func SignatureSchemeName(scheme uint16) string { return schemeNames()[scheme] }

// VersionName is the protocol and the number of a version on the wire, such as
// "tls" and "1.2"; empty when it is not known.
func VersionName(version uint16) (protocol, number string) {
	switch version {
	case 0x0002:
		return "ssl", "2.0"
	case 0x0300:
		return "ssl", "3.0"
	case 0x0301:
		return "tls", "1.0"
	case 0x0302:
		return "tls", "1.1"
	case 0x0303:
		return "tls", "1.2"
	case 0x0304:
		return "tls", "1.3"
	case 0x0101: // over datagrams too, where it is DTLCP
		return "tlcp", "1.1"
	case 0x0100, 0xfeff: // 0x0100 is OpenSSL's before RFC 4347
		return "dtls", "1.0"
	case 0xfefd:
		return "dtls", "1.2"
	case 0xfefc:
		return "dtls", "1.3"
	}
	switch version >> 8 {
	case 0x7f, 0xfb: // drafts of TLS 1.3
		return "tls", "1.3"
	}
	return "", ""
}
