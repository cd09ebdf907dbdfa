package rules

import "strings"

// appendHex appends b in upper-case hex.
func appendHex(dst, b []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range b {
		dst = append(dst, digits[c>>4], digits[c&15])
	}
	return dst
}

// appendSerial appends a serial number in upper case without separators and
// leading zeros, so that 00:1c:67, 1C67 and 0x1c67 are the same.
func appendSerial(dst []byte, s string) []byte {
	if strings.HasPrefix(s, "-") {
		dst, s = append(dst, '-'), s[1:]
	}
	if len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		s = s[2:]
	}
	leading := true
	for i := range len(s) {
		switch c := s[i]; {
		case c == ':' || c == ' ' || c == '-', c == '0' && leading:
		case 'a' <= c && c <= 'f':
			dst, leading = append(dst, c-0x20), false
		default:
			dst, leading = append(dst, c), false
		}
	}
	return dst
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' || 'a' <= c && c <= 'f'
}

// unhex returns the value of a hex digit.
func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}

// Values in hexDigits of characters that are not hex digits.
const (
	separator = 0x10
	otherChar = 0x20
)

// hexDigits is what each character is in a hash. It is a table, as branches on
// random digits are slow, and lists are long.
var hexDigits = func() (t [256]byte) {
	for c := range t {
		switch {
		case isHex(byte(c)):
			t[c] = unhex(byte(c))
		case c == ':' || c == '-' || c == ' ':
			t[c] = separator
		default:
			t[c] = otherChar
		}
	}
	return t
}()

// appendUnhex appends the bytes that s has the hex digits of, with separators or
// without; ok is false when it has other characters, or half a byte.
func appendUnhex(dst []byte, s string) (out []byte, ok bool) {
	half, high := false, byte(0)
	for i := 0; i < len(s); i++ {
		d := hexDigits[s[i]]
		if !half && i+1 < len(s) { // two at once, as they mostly come
			if next := hexDigits[s[i+1]]; d|next < separator {
				dst = append(dst, d<<4|next)
				i++
				continue
			}
		}
		if d >= separator {
			if d == separator {
				continue
			}
			return dst, false
		}
		if half {
			dst = append(dst, high<<4|d)
		}
		half, high = !half, d
	}
	return dst, !half
}
