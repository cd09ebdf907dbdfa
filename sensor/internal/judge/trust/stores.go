package trust

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the roots that Mozilla's list had once
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/oddcert/oddcert/parsers/cert"
)

// The names of the stores that are not of packs.
const (
	mozilla  = "mozilla"
	operator = "operator"
)

// formerRoots has a line for each root that Mozilla's list had once: the date by which
// it was removed, and the DER in base64.
//
//go:embed former/mozilla.txt
var formerRoots string

// former yields the roots that Mozilla's list had once. What cannot be read is left out.
func former(yield func(until time.Time, der []byte) bool) {
	for line := range strings.Lines(formerRoots) {
		date, encoded, _ := strings.Cut(strings.TrimSpace(line), " ")
		until, err := time.Parse(time.DateOnly, date)
		if err != nil { // a comment
			continue
		}
		if der, err := base64.StdEncoding.DecodeString(encoded); err == nil && !yield(until, der) {
			return
		}
	}
}

// Stores are the roots that chains may end in, and what is known of the authorities
// below them. They are read-only, and shared by all verifiers.
type Stores struct {
	packs    []*store // by name
	operator *store
	known    map[name][]knownKey
	index    func() *index // made when the first chain is judged
}

// store is a set of certificates with a name.
type store struct {
	name          string
	rank          int  // the lower one is preferred
	pinned        bool // of a pack: whoever uses a name in it must use its key
	roots         []*cert.Certificate
	intermediates []*cert.Certificate
}

// knownKey is an authority of which there is no certificate.
type knownKey struct {
	store string
	name  string // as the file has it
	bits  int    // of the modulus of its RSA key
}

// index finds certificates of all stores, those of preferred stores first.
type index struct {
	byName map[name][]*certificate   // by subject
	roots  map[[32]byte]*certificate // by SHA-256
}

// Load reads the stores: those of packs (*/roots/*.pem and */intermediates/*.pem,
// whose base name is the store's name, and */intermediates/known-keys.txt),
// Mozilla's, and "operator" of the files in roots and in the folders there. The
// error says everything that is wrong.
func Load(packs fs.FS, roots []string) (*Stores, error) {
	l := &loader{stores: make(map[string]*store), known: make(map[name][]knownKey)}
	l.pack(packs, "*/roots/*.pem", func(s *store) *[]*cert.Certificate { return &s.roots })
	l.pack(packs, "*/intermediates/*.pem", func(s *store) *[]*cert.Certificate { return &s.intermediates })
	l.knownKeys(packs)
	s := &Stores{known: l.known, operator: &store{name: operator}}
	for _, at := range roots {
		l.operator(s.operator, at)
	}
	for _, store := range l.stores {
		s.packs = append(s.packs, store)
	}
	slices.SortFunc(s.packs, func(a, b *store) int { return strings.Compare(a.name, b.name) })
	s.index = sync.OnceValue(s.build)
	return s, errors.Join(l.problems...)
}

// Prepare makes what finds certificates in the stores, unless it is made already.
func (s *Stores) Prepare() { s.index() }

// build makes the index, with Mozilla's roots between those of packs and those of
// the operator.
func (s *Stores) build() *index {
	x := &index{byName: make(map[name][]*certificate), roots: make(map[[32]byte]*certificate)}
	rank := 0
	add := func(of *store, c *cert.Certificate, anchor bool) *certificate {
		e := newCertificate(c)
		e.store, e.anchor = of, anchor
		e.prepare()
		x.byName[e.subject] = append(x.byName[e.subject], e)
		if _, ok := x.roots[c.SHA256]; anchor && !ok {
			x.roots[c.SHA256] = e
		}
		return e
	}
	all := func(of *store) {
		of.rank = rank
		rank++
		for _, c := range of.roots {
			add(of, c, true)
		}
		for _, c := range of.intermediates {
			add(of, c, false)
		}
	}
	for _, pack := range s.packs {
		all(pack)
	}
	m := &store{name: mozilla, rank: rank}
	rank++
	for root := range bundle.Roots() {
		add(m, cert.Parse(root.Certificate), true).distrust = root.Constraint
	}
	for until, der := range former {
		if known := x.roots[sha256.Sum256(der)]; known == nil || known.store != m {
			add(m, cert.Parse(der), true).until = cert.DateOf(until)
		}
	}
	all(s.operator)
	return x
}

type loader struct {
	stores   map[string]*store
	known    map[name][]knownKey
	problems []error
}

func (l *loader) problem(file string, line int, format string, args ...any) {
	if line > 0 {
		file = fmt.Sprintf("%s:%d", file, line)
	}
	l.problems = append(l.problems, fmt.Errorf("%s: %w", file, fmt.Errorf(format, args...)))
}

func (l *loader) store(name string) *store {
	s, ok := l.stores[name]
	if !ok {
		s = &store{name: name, pinned: true}
		l.stores[name] = s
	}
	return s
}

func (l *loader) pack(packs fs.FS, pattern string, list func(*store) *[]*cert.Certificate) {
	files, err := fs.Glob(packs, pattern)
	if err != nil {
		panic(err) // the pattern is a constant and valid
	}
	for _, file := range files {
		b, err := fs.ReadFile(packs, file)
		if err != nil {
			l.problem(file, 0, "%w", plain(err))
			continue
		}
		name := strings.TrimSuffix(path.Base(file), ".pem")
		if name == mozilla || name == operator {
			l.problem(file, 0, "a pack cannot have a store of that name")
			continue
		}
		to := list(l.store(name))
		l.certificates(file, b, to)
	}
}

// knownKeys reads lines of a store, bits and a name.
func (l *loader) knownKeys(packs fs.FS) {
	files, _ := fs.Glob(packs, "*/intermediates/known-keys.txt")
	for _, file := range files {
		b, err := fs.ReadFile(packs, file)
		if err != nil {
			l.problem(file, 0, "%w", plain(err))
			continue
		}
		n := 0
		for line := range strings.Lines(string(b)) {
			n++
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			store, rest, _ := strings.Cut(line, " ")
			size, text, ok := strings.Cut(rest, " ")
			bits, err := strconv.Atoi(size)
			if !ok || err != nil || bits < 512 || bits > 16384 || !strings.Contains(text, "=") {
				l.problem(file, n, "is no line of a store, the bits of an RSA key (512 to 16384) and a name such as \"C=US, CN=Some CA\"")
				continue
			}
			key := nameOf(text)
			l.known[key] = append(l.known[key], knownKey{store, text, bits})
		}
	}
}

// operator adds the certificates of a file, or of the files in a folder, to s.
func (l *loader) operator(s *store, at string) {
	found, before := false, len(l.problems)
	err := filepath.WalkDir(at, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			l.problem(name, 0, "%w", plain(err))
			return nil
		}
		if name != at && strings.HasPrefix(entry.Name(), ".") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := os.Stat(name) // of what a link is to
		switch {
		case err != nil:
			l.problem(name, 0, "%w", plain(err))
			return nil
		case info.IsDir():
			return nil
		case name != at && !slices.Contains([]string{".pem", ".crt", ".cer", ".der", ".0"}, strings.ToLower(filepath.Ext(name))):
			return nil
		case !info.Mode().IsRegular():
			l.problem(name, 0, "is no regular file")
			return nil
		}
		found = true
		b, err := readFile(name)
		if err != nil {
			l.problem(name, 0, "%w", plain(err))
			return nil
		}
		l.certificates(name, b, &s.roots)
		return nil
	})
	if err != nil {
		l.problem(at, 0, "%w", plain(err))
	}
	if !found && len(l.problems) == before {
		l.problem(at, 0, "the folder holds no certificates: their names end in .pem, .crt, .cer, .der or .0")
	}
	if len(s.roots) > maxStore {
		l.problem(at, 0, "more than %d certificates", maxStore)
	}
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStoreFile+1))
	if err == nil && len(b) > maxStoreFile {
		err = fmt.Errorf("larger than %d bytes", maxStoreFile)
	}
	return b, err
}

// plain is an error without the path, which the problem has.
func plain(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return fmt.Errorf("%s: %w", at.Op, at.Err)
	}
	return err
}

// certificates adds those of a file, in PEM or DER, that are not yet there.
func (l *loader) certificates(file string, b []byte, to *[]*cert.Certificate) {
	add := func(line int, der []byte) {
		if len(*to) > maxStore {
			return
		}
		c := cert.Parse(der)
		if _, ok := c.Parts(); !ok {
			l.problem(file, line, "a certificate that cannot be read: %s", c.ParseError)
			return
		}
		for _, known := range *to {
			if known.SHA256 == c.SHA256 {
				return
			}
		}
		*to = append(*to, c)
	}
	if s := cryptobyte.String(b); len(b) > 0 && b[0] == 0x30 {
		for !s.Empty() {
			var der cryptobyte.String
			if !s.ReadASN1Element(&der, asn1.SEQUENCE) {
				l.problem(file, 0, "is neither PEM nor DER from byte %d on", len(b)-len(s))
				return
			}
			add(0, der)
		}
		return
	}
	blocks := 0
	for rest := b; ; {
		block, after := pem.Decode(rest)
		if block == nil {
			break
		}
		// Decode skips text and broken blocks; where the block begins is known from its end.
		end := len(b) - len(after)
		line := 1 + bytes.Count(b[:max(0, bytes.LastIndex(b[:end], []byte("-----BEGIN ")))], []byte("\n"))
		rest = after
		der := block.Bytes
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE":
		case "TRUSTED CERTIFICATE": // OpenSSL's, with what it is trusted for behind it
			s := cryptobyte.String(der)
			var first cryptobyte.String
			if !s.ReadASN1Element(&first, asn1.SEQUENCE) {
				l.problem(file, line, "a certificate that cannot be read")
				continue
			}
			der = first
		default:
			continue
		}
		blocks++
		add(line, der)
	}
	if begun := bytes.Count(b, []byte("-----BEGIN CERTIFICATE-----")); begun > blocks {
		l.problem(file, 0, "%d of %d certificates in PEM cannot be decoded", begun-blocks, begun)
	} else if blocks == 0 {
		l.problem(file, 0, "holds no certificate")
	}
}
