package network

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/oddcert/oddcert/rules/judgement"
)

// list reads the networks of a file into l.entries.
func (l *loader) list(f fs.File, file string, operators bool) {
	r := &listReader{loader: l, file: file, operators: operators, source: uint16(len(l.sources))}
	base := path.Base(filepath.ToSlash(file))
	r.name = strings.TrimSuffix(base, path.Ext(base))
	switch {
	case !isName(r.name, maxListName, ".-_"):
		r.problem(0, "", "the name of a list, which is that of its file, has up to %d letters, digits, ., - and _", maxListName)
		return
	case !operators && (r.name == listInternal || r.name == listProxies):
		r.problem(0, "", "%s is a list of the operator's", r.name)
		return
	case !l.names[r.name] && len(l.names) == maxLists:
		r.problem(0, "", "there are more than %d lists", maxLists)
		return
	case len(l.sources) == maxListFiles:
		r.problem(0, "", "there are more than %d files of lists", maxListFiles)
		return
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		r.problem(0, "", "%s", plainError(err))
		return
	case info.IsDir():
		r.problem(0, "", "is a folder")
		return
	case info.Size() > maxListFile:
		r.problem(0, "", "has %d bytes; a list may have %d", info.Size(), maxListFile)
		return
	}
	l.sources = append(l.sources, file)
	l.names[r.name] = true
	r.read(f)
}

// listReader reads one file.
type listReader struct {
	*loader
	file      string
	name      string
	operators bool
	source    uint16
	line      int
	problems  int
	plain     uint32 // the set of a line without labels; 0 before there is one
}

// problem notes something wrong at a column of the line; 0 is the whole line.
func (r *listReader) problem(col int, token, format string, args ...any) {
	if r.line > 0 {
		col = max(col, 1)
	}
	r.loader.problem(r.file, r.line, col, token, format, args...)
	r.problems++
}

func (r *listReader) read(from io.Reader) {
	limited := &io.LimitedReader{R: from, N: maxListFile + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxListLine)
	found := false
	for lines.Scan() {
		r.line++
		line := lines.Bytes()
		if r.line == 1 {
			line = bytes.TrimPrefix(line, []byte("\uFEFF"))
		}
		if !utf8.Valid(line) || bytes.IndexByte(line, 0) >= 0 {
			r.problem(0, "", "is not text: a list has one network a line")
			return
		}
		found = r.entry(string(line)) || found
		if r.problems >= maxProblems || r.networks > maxNetworks {
			return
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		r.line++
		r.problem(0, "", "a line may have %d bytes", maxListLine)
		return
	} else if err != nil {
		r.problem(0, "", "%s", plainError(err))
		return
	}
	if limited.N == 0 {
		r.problem(0, "", "a list may have %d bytes", maxListFile)
	} else if !found && r.problems == 0 {
		r.line = 0
		r.problem(0, "", "the list is empty")
	}
}

// entry reads a line, and reports whether there is a network.
func (r *listReader) entry(line string) bool {
	if i := strings.IndexByte(line, '#'); i == 0 {
		return false
	} else if i > 0 {
		for i > 0 && line[i-1] != ' ' && line[i-1] != '\t' {
			next := strings.IndexByte(line[i+1:], '#')
			if next < 0 {
				i = len(line)
				break
			}
			i += 1 + next
		}
		line = line[:i]
	}
	network, rest, col := token(line, 0)
	if network == "" {
		return false
	}
	prefix, text := parseNetwork(network)
	if text != "" {
		r.problem(col, network, "%s", text)
		return false
	}
	set, ok := r.labels(line, rest)
	if !ok {
		return false
	}
	if r.networks++; r.networks > maxNetworks {
		r.problem(0, "", "there are more than %d networks in all lists", maxNetworks)
		return false
	}
	r.entries.add(prefix, set, r.source, uint32(r.line))
	return true
}

// token returns the first word of line from an index on, where the rest begins, and
// the word's column, which counts from 1.
func token(line string, from int) (word string, rest, col int) {
	for from < len(line) && isSpace(line[from]) {
		from++
	}
	rest = from
	for rest < len(line) && !isSpace(line[rest]) {
		rest++
	}
	return line[from:rest], rest, from + 1
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }

// parseNetwork reads a network or an address. The text says what is wrong.
func parseNetwork(s string) (p netip.Prefix, text string) {
	const expected = "is no network, such as 10.1.0.0/16 or 2001:db8::/32, and no address"
	if strings.IndexByte(s, '/') < 0 {
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil:
			return p, expected
		case a.Zone() != "":
			return p, "has a zone: lists are of addresses"
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), ""
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, expected
	}
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < 96 {
			return p, "is wider than all of IPv4"
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	if m := p.Masked(); m != p {
		return p, "is an address within a network: the network is " + m.String()
	}
	return p, ""
}

// labels reads the labels of a line from an index on, and returns the set of the
// list and its labels.
func (r *listReader) labels(line string, from int) (uint32, bool) {
	var labels []judgement.Label
	word, from, col := token(line, from)
	if word == "" && r.plain != 0 {
		return r.plain, true
	}
	for ; word != ""; word, from, col = token(line, from) {
		key, text, ok := strings.Cut(word, "=")
		switch {
		case !ok:
			r.problem(col, word, "is not a label, such as site=berlin")
		case !r.operators:
			r.problem(col, word, "labels are for the operator's lists")
		case !isName(key, maxLabelName, "-_"):
			r.problem(col, key, "the name of a label has up to %d letters, digits, - and _", maxLabelName)
		case text == "" || len(text) > maxLabelValue || strings.ContainsFunc(text, isControl):
			r.problem(col, word, "the value of a label has 1 to %d bytes and no control characters", maxLabelValue)
		case slices.ContainsFunc(labels, func(l judgement.Label) bool { return l.Key == key }):
			r.problem(col, word, "the label is given twice")
		case len(labels) == maxLabels:
			r.problem(col, word, "a network has up to %d labels", maxLabels)
		default:
			labels = append(labels, judgement.Label{Key: key, Value: text})
			continue
		}
		return 0, false
	}
	slices.SortFunc(labels, compareLabels)
	id, ok := r.sets.intern([]string{r.name}, labels)
	if !ok {
		r.problem(0, "", "%s", tooManySets)
		return 0, false
	}
	if len(labels) == 0 {
		r.plain = id
	}
	return id, true
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

// isName reports whether s has up to most letters, digits and characters of more.
func isName(s string, most int, more string) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(more, c)
	})
}
