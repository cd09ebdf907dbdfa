// Package cef writes records in the two line formats of SIEMs that do not read JSON:
// [CEF] and [LEEF].
//
// Both have a header and pairs of key and value. The keys are those of the vendors
// wherever they have one. What has no place there, such as the lists of a client
// hello, is left out: the JSON of the record is complete.
//
// Much of a record comes from the wire, where somebody may have put text that looks
// like a pair of its own, or a line feed. No value can end its pair or its line.
//
// Sources: OpenText, "ArcSight Common Event Format (CEF) Implementation Standard",
// version 27; IBM, "QRadar Log Event Extended Format (LEEF)", version 2.
package cef

import (
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/oddcert/oddcert/sensor/internal/output/document"
)

// Format appends a record to dst, with the version of the program, in at most limit
// bytes without a line break. Pairs that would exceed the limit are left out, the
// least important first. The error is [ErrNoForm] or [ErrTooLong].
type Format func(dst []byte, d *document.Document, version string, limit int) ([]byte, error)

var (
	// ErrNoForm is the error for a record of a kind that the format has no form for.
	ErrNoForm = errors.New("no form for a record of this kind")

	// ErrTooLong is the error for a record whose header alone exceeds the limit.
	ErrTooLong = errors.New("the header alone is too long")
)

// The vendor and the product of a header: the pair must be ours alone.
const vendor, product = "oddcert", "oddcert"

// CEF is a [Format]: ArcSight Common Event Format, version 0 of the header, which all
// readers know. Addresses of IPv6 have keys of their own there.
func CEF(dst []byte, d *document.Document, version string, limit int) ([]byte, error) {
	e, err := eventOf(d)
	if err != nil {
		return dst, err
	}
	start := len(dst)
	dst = append(dst, "CEF:0"...)
	for _, part := range []struct {
		text  string
		limit int
	}{{vendor, 63}, {product, 63}, {version, 31}, {e.class, 1023}, {e.name, 512}, {strconv.Itoa(e.severity), 2}} {
		dst = append(dst, '|')
		dst = appendText(dst, part.text, part.limit, cefHeader)
	}
	dst = append(dst, '|')
	if len(dst)-start > limit {
		return dst[:start], ErrTooLong
	}
	separator := ""
	for _, f := range e.fields {
		if f.cef == "" || f.empty() {
			continue
		}
		text := f.text
		if !f.when.IsZero() {
			text = strconv.FormatInt(f.when.UnixMilli(), 10)
		}
		before := len(dst)
		dst = append(append(append(dst, separator...), f.cef...), '=')
		dst = appendText(dst, text, f.limit, cefValue)
		if f.label != "" {
			dst = append(append(append(append(dst, ' '), f.cef...), "Label="...), f.label...)
		}
		if len(dst)-start > limit {
			dst = dst[:before]
			continue
		}
		separator = " "
	}
	return dst, nil
}

// LEEF is a [Format]: IBM QRadar Log Event Extended Format 2.0, with tabs between the
// pairs. The format has no escapes: a character that would end a pair becomes a space.
func LEEF(dst []byte, d *document.Document, version string, limit int) ([]byte, error) {
	e, err := eventOf(d)
	if err != nil {
		return dst, err
	}
	start := len(dst)
	dst = append(dst, "LEEF:2.0"...)
	for _, part := range []string{vendor, product, version, e.class} {
		dst = append(dst, '|')
		dst = appendText(dst, part, 255, leefHeader)
	}
	dst = append(dst, "|x09|"...)
	if len(dst)-start > limit {
		return dst[:start], ErrTooLong
	}
	separator := ""
	for _, f := range e.fields {
		if f.leef == "" || f.empty() {
			continue
		}
		text := f.text
		switch {
		case f.leef == "devTime":
			text = f.when.UTC().Format("Jan 02 2006 15:04:05.000 GMT")
		case !f.when.IsZero():
			text = f.when.UTC().Format(time.RFC3339)
		}
		before := len(dst)
		dst = append(append(append(dst, separator...), f.leef...), '=')
		dst = appendText(dst, text, f.limit, leefValue)
		if len(dst)-start > limit {
			dst = dst[:before]
			continue
		}
		separator = "\t"
	}
	return dst, nil
}

// place is where a text stands: it decides what must be escaped.
type place uint8

const (
	cefHeader place = iota
	cefValue
	leefHeader
	leefValue
)

// appendText appends at most limit characters of text.
func appendText(dst []byte, text string, limit int, at place) []byte {
	// Spaces at the ends do not survive the readers of CEF.
	text = strings.TrimFunc(text, blank)
	for _, r := range text {
		if limit--; limit < 0 {
			break
		}
		switch {
		case at == cefValue && (r == '\\' || r == '='), at == cefHeader && (r == '\\' || r == '|'):
			dst = append(dst, '\\', byte(r))
		case at == cefValue && r == '\n':
			dst = append(dst, `\n`...)
		case at == cefValue && r == '\r':
			dst = append(dst, `\r`...)
		case at == leefHeader && r == '|', blank(r):
			dst = append(dst, ' ')
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return dst
}

// blank reports whether r is written as a space: it is one, it ends a line for some
// reader, or it is a control character.
func blank(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
}
