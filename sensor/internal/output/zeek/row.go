package zeek

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// row is a line that is being written, one column after the other.
type row struct {
	b       []byte
	columns []column
	next    int // of columns
	json    bool
}

// begin begins the next column, with its name where names are written.
func (w *row) begin() {
	if w.json {
		if len(w.b) == 0 {
			w.b = append(w.b, '{')
		} else {
			w.b = append(w.b, ',')
		}
		w.b = append(w.b, '"')
		w.b = append(w.b, w.columns[w.next].name...)
		w.b = append(w.b, '"', ':')
	} else if w.next > 0 {
		w.b = append(w.b, '\t')
	}
	w.next++
}

// end returns the line.
func (w *row) end() []byte {
	for w.next < len(w.columns) {
		w.unset(1)
	}
	if w.json {
		w.b = append(w.b, '}')
	}
	return w.b
}

// unset leaves out n columns.
func (w *row) unset(n int) {
	for range n {
		if w.json { // as Zeek, where LogAscii::json_include_unset_fields is not set
			w.next++
			continue
		}
		w.begin()
		w.b = append(w.b, '-')
	}
}

// text writes a string; there is none that is set and empty.
func (w *row) text(s string) {
	if s == "" {
		w.unset(1)
		return
	}
	w.begin()
	w.string(s, false)
}

// texts writes a set or a vector. It is unset when it is nil.
func (w *row) texts(list []string) {
	if list == nil {
		w.unset(1)
		return
	}
	list = list[:min(len(list), maxElements)]
	w.begin()
	if w.json {
		w.b = append(w.b, '[')
	} else if len(list) == 0 {
		w.b = append(w.b, "(empty)"...)
	}
	for i, s := range list {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.string(s, true)
	}
	if w.json {
		w.b = append(w.b, ']')
	}
}

func (w *row) bool(v bool) {
	w.begin()
	switch {
	case w.json:
		w.b = strconv.AppendBool(w.b, v)
	case v:
		w.b = append(w.b, 'T')
	default:
		w.b = append(w.b, 'F')
	}
}

// count writes a number.
func (w *row) count(n uint64) {
	w.begin()
	w.b = strconv.AppendUint(w.b, n, 10)
}

// time writes a moment in seconds since 1970, in whole microseconds: all that Zeek
// has. JSON has no zeros at the end.
func (w *row) time(t time.Time) {
	w.begin()
	micros := t.UnixMicro()
	if micros < 0 {
		w.b = append(w.b, '-')
		micros = -micros
	}
	w.b = strconv.AppendInt(w.b, micros/1e6, 10)
	digits := strconv.AppendInt(nil, 1e6+micros%1e6, 10)[1:]
	for w.json && len(digits) > 1 && digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
	}
	w.b = append(w.b, '.')
	w.b = append(w.b, digits...)
}

const lowerHex = "0123456789abcdef"

// beginning returns what of s is within most bytes, without a part of a character.
func beginning(s string, most int) string {
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}

// string writes a string, or an element of a list. Of one that is too long, it
// writes the beginning.
func (w *row) string(s string, element bool) {
	s = beginning(s, maxString)
	if w.json {
		w.jsonString(s)
		return
	}
	// A value that looks like a sign of the format loses its first character (Zeek's
	// src/threading/formatters/Ascii.cc).
	switch s {
	case "":
		w.b = append(w.b, "(empty)"...)
		return
	case "-", "(empty)":
		w.hex(s[0])
		s = s[1:]
	}
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '\\':
			w.b = append(w.b, `\\`...)
		case c < ' ', c == 0x7F, c == ',' && element:
			w.hex(c)
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				w.hex(c)
			} else {
				w.b = append(w.b, s[i:i+size]...)
			}
			i += size
			continue
		default:
			w.b = append(w.b, c)
		}
		i++
	}
}

// hex writes an octet as \x and two digits.
func (w *row) hex(c byte) { w.b = append(w.b, '\\', 'x', lowerHex[c>>4], lowerHex[c&15]) }

// jsonString writes a JSON string (RFC 8259, section 7). Octets that are no UTF-8
// stand as \x and two digits in the text, as Zeek has them.
func (w *row) jsonString(s string) {
	w.b = append(w.b, '"')
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '"', c == '\\':
			w.b = append(w.b, '\\', c)
		case c < ' ':
			w.b = append(w.b, '\\', 'u', '0', '0', lowerHex[c>>4], lowerHex[c&15])
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				w.b = append(w.b, '\\')
				w.hex(c)
			} else {
				w.b = append(w.b, s[i:i+size]...)
			}
			i += size
			continue
		default:
			w.b = append(w.b, c)
		}
		i++
	}
	w.b = append(w.b, '"')
}
