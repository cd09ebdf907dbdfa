package output

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// AppendHello appends the record of what the client of h offers, which is told
// once a day: its id and its day are those of the fingerprint, not of h, which is
// the first handshake with it. h has a ClientHello with fingerprints.
func (e *Encoder) AppendHello(dst []byte, h *event.Handshake) ([]byte, Stamp) {
	e.setJudged(nil)
	e.setOrigin(h.Flow.Origin)
	e.setAddrs(h)
	c := h.ClientHello
	e.event = e.appendSubject(e.event[:0], Hello)
	e.event = appendCounted(e.event, c.JA4)
	e.event = appendCounted(e.event, c.JA3)
	stamp := e.dayStamp(h.End.Time)
	dst = e.appendHead(dst, Hello, h, stamp)
	dst = end(dst, '}')
	dst = e.appendFlow(dst, h)
	dst = append(dst, `"tls":{"client":{`...)
	dst = appendText(dst, `"ja3":`, c.JA3)
	dst = e.appendSuites(dst, c.Offer)
	dst = end(end(dst, '}'), '}')
	dst = e.appendWhere(dst, h, h.End.Frame)
	dst = appendText(dst, `"ja4":`, c.JA4)
	dst = append(dst, e.offer(c.Offer)...)
	return finish(dst), stamp
}

// appendSuites appends tls.client.supported_ciphers.
func (e *Encoder) appendSuites(b []byte, o *event.Offer) []byte {
	e.cut += cut(o.CipherSuites)
	return appendCodes(b, `"supported_ciphers":`, o.CipherSuites, tls.CipherSuiteName)
}

// cut returns how many values of a list are left out of records.
func cut[T any](list []T) uint64 { return uint64(max(0, len(list)-maxOffered)) }

// offer returns the hello member of the oddcert object: what a client offers
// beside its cipher suites. Hellos that offer the same share o.
func (e *Encoder) offer(o *event.Offer) []byte {
	e.cut += cut(o.SupportedVersions) + cut(o.Extensions) + cut(o.SupportedGroups) + cut(o.SignatureAlgorithms) + cut(o.ALPN)
	j, ok := e.offers.Get(o)
	if ok {
		return j
	}
	version := func(v uint16) string {
		_, number := tls.VersionName(v)
		return number
	}
	unnamed := func(uint16) string { return "" }
	j = append(j, `"hello":{`...)
	if o.Version != 0 {
		j = append(j, `"version":`...)
		j = appendCode(j, version(o.Version), o.Version)
	}
	j = appendCodes(j, `"supported_versions":`, o.SupportedVersions, version)
	j = appendCodes(j, `"extensions":`, o.Extensions, unnamed)
	j = appendCodes(j, `"supported_groups":`, o.SupportedGroups, tls.GroupName)
	j = appendCodes(j, `"signature_algorithms":`, o.SignatureAlgorithms, unnamed)
	if len(o.PointFormats) > 0 {
		j = append(j, `"point_formats":[`...)
		for _, f := range o.PointFormats {
			j = append(j, '"', '0', 'x', lowerHex[f>>4], lowerHex[f&15], '"', ',')
		}
		j = end(j, ']')
	}
	j = appendTexts(j, `"alpn":`, o.ALPN[:min(len(o.ALPN), maxOffered)])
	j = closeOrDrop(j, 0, '}')
	e.offers.Put(o, j, len(j))
	return j
}

// appendCodes appends an array of the names of 16-bit values, of the first
// [maxOffered], or nothing where there are none.
func appendCodes(b []byte, key string, codes []uint16, name func(uint16) string) []byte {
	from := len(b)
	b = append(b, key...)
	b = append(b, '[')
	for _, c := range codes[:min(len(codes), maxOffered)] {
		b = appendCode(b, name(c), c)
	}
	return closeOrDrop(b, from, ']')
}
