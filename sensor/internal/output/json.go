package output

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/oddcert/oddcert/parsers/cert"
)

// The append functions below write members of JSON objects. A key comes with
// its quotes and colon, each member ends in a comma, and closing an object or
// array turns the last comma into the bracket.

// end ends an object or array that has members. bracket is '}' or ']'.
func end(b []byte, bracket byte) []byte {
	b[len(b)-1] = bracket
	return append(b, ',')
}

// closeOrDrop ends the object or array that begins at b[from:], or removes it
// with its key where it is empty.
func closeOrDrop(b []byte, from int, bracket byte) []byte {
	if b[len(b)-1] != ',' {
		return b[:from]
	}
	return end(b, bracket)
}

// appendText appends a string member, or nothing when s is empty.
func appendText(b []byte, key, s string) []byte {
	if s == "" {
		return b
	}
	b = append(b, key...)
	b = appendString(b, s)
	return append(b, ',')
}

// appendTexts appends an array of the strings of all lists, or nothing where they
// have none.
func appendTexts(b []byte, key string, lists ...[]string) []byte {
	from := len(b)
	b = append(b, key...)
	b = append(b, '[')
	for _, list := range lists {
		for _, s := range list {
			b = appendString(b, s)
			b = append(b, ',')
		}
	}
	return closeOrDrop(b, from, ']')
}

// appendNames appends as many of the strings of all lists as [maxNameBytes] has
// room for.
func appendNames(b []byte, key string, lists ...[]string) []byte {
	from := len(b)
	b = append(b, key...)
	b = append(b, '[')
	for _, list := range lists {
		for _, s := range list {
			last := len(b)
			b = appendString(b, s)
			if len(b)-from > maxNameBytes {
				return closeOrDrop(b[:last], from, ']')
			}
			b = append(b, ',')
		}
	}
	return closeOrDrop(b, from, ']')
}

// appendBool appends a boolean member.
func appendBool(b []byte, key string, v bool) []byte {
	b = append(b, key...)
	b = strconv.AppendBool(b, v)
	return append(b, ',')
}

// appendUint appends a number member.
func appendUint(b []byte, key string, v uint64) []byte {
	b = append(b, key...)
	b = strconv.AppendUint(b, v, 10)
	return append(b, ',')
}

// appendInt appends a number member that may be less than 0.
func appendInt(b []byte, key string, v int64) []byte {
	b = append(b, key...)
	b = strconv.AppendInt(b, v, 10)
	return append(b, ',')
}

// appendDate appends a date of a certificate, or nothing when it could not be
// read.
func appendDate(b []byte, key string, d cert.Date) []byte {
	if !d.IsValid() {
		return b
	}
	b = append(b, key...)
	b = append(b, '"')
	b = d.Time().AppendFormat(b, time.RFC3339)
	return append(b, '"', ',')
}

const upperHex = "0123456789ABCDEF"
const lowerHex = "0123456789abcdef"

// appendHash appends a member of upper-case hex digits.
func appendHash(b []byte, key string, sum []byte) []byte {
	b = append(b, key...)
	b = append(b, '"')
	b = appendHex(b, sum)
	return append(b, '"', ',')
}

func appendHex(b, sum []byte) []byte {
	for _, c := range sum {
		b = append(b, upperHex[c>>4], upperHex[c&15])
	}
	return b
}

// appendCode appends the registered name of a value of 16 bits, or its digits
// when it has none.
func appendCode(b []byte, name string, code uint16) []byte {
	b = append(b, '"')
	b = append(b, name...)
	if name == "" {
		b = append(b, '0', 'x', lowerHex[code>>12], lowerHex[code>>8&15], lowerHex[code>>4&15], lowerHex[code&15])
	}
	return append(b, '"', ',')
}

// plain has the bytes that stand for themselves in a JSON string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// plainPrefix returns how many bytes at the beginning of s are plain, as far as a
// look at eight bytes at a time can know.
func plainPrefix(s string) (n int) {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for ; n+8 <= len(s); n += 8 {
		w := uint64(s[n]) | uint64(s[n+1])<<8 | uint64(s[n+2])<<16 | uint64(s[n+3])<<24 |
			uint64(s[n+4])<<32 | uint64(s[n+5])<<40 | uint64(s[n+6])<<48 | uint64(s[n+7])<<56
		// A subtraction borrows into the top bit of a byte that is less, if that bit
		// was not set before. A borrow from the byte below may set it as well: then
		// the loop stops early, which costs time and changes nothing.
		quote, backslash := w^'"'*ones, w^'\\'*ones
		if (w|(w-' '*ones)|(quote-ones)|(backslash-ones))&tops != 0 {
			break
		}
	}
	return n
}

// appendString appends s as a JSON string, byte for byte as encoding/json does
// without HTML escapes: what is not UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := plainPrefix(s); i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[from:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\b':
				b = append(b, '\\', 'b')
			case '\f':
				b = append(b, '\\', 'f')
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', lowerHex[c>>4], lowerHex[c&15])
			}
			i++
			from = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, s[from:i]...)
			b = append(b, `\ufffd`...)
			from = i + size
		case r == '\u2028' || r == '\u2029': // no line ends in JavaScript
			b = append(b, s[from:i]...)
			b = append(b, `\u202`...)
			b = append(b, lowerHex[r&15])
			from = i + size
		}
		i += size
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}

// clock appends times. It keeps the last minute, since the times of a record,
// and of one record and the next, mostly share it.
type clock struct {
	minute int64
	text   []byte // "2006-01-02T15:04:"; empty at first
}

// appendTime appends a time member in RFC 3339 with nine digits, in UTC.
func (c *clock) appendTime(b []byte, key string, t int64) []byte {
	minute, nano := t/60e9, t%60e9
	if nano < 0 {
		minute, nano = minute-1, nano+60e9
	}
	if minute != c.minute || len(c.text) == 0 {
		c.minute = minute
		c.text = time.Unix(minute*60, 0).UTC().AppendFormat(c.text[:0], "2006-01-02T15:04:")
	}
	second := byte(nano / 1e9)
	nano %= 1e9
	b = append(b, key...)
	b = append(b, '"')
	b = append(b, c.text...)
	b = append(b, '0'+second/10, '0'+second%10, '.')
	n := len(b) + 9
	b = append(b, `000000000Z",`...)
	for nano > 0 {
		n--
		b[n] = '0' + byte(nano%10)
		nano /= 10
	}
	return b
}
