// Package network knows where the ends of a flow are: in which networks of the
// rule packs and of the operator, in which autonomous system and country, and
// whether the flow leaves the operator's own networks. [Load] reads lists and
// databases; [Tables.NewLookup] returns what answers for a handshake.
//
// A list is a text file with one network or address a line and its labels after
// it, such as "10.1.0.0/16 site=berlin"; "#" at the start of a line or after white
// space begins a comment. Its name is that of the file without the extension, and
// files of one name are one list. Two lists of the operator's have a meaning of
// their own: "internal" holds the operator's networks, and "proxies" what
// intercepts TLS there.
package network

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/rules"
)

// Options say what to load.
type Options struct {
	Packs     fs.FS    // with lists at PACK/networks/NAME.txt; may be nil
	Lists     []string // the operator's: files, and folders whose *.txt are lists
	Databases []string // files in MaxMind's format; the first that knows a value counts
}

// Names of the operator's lists that have a meaning of their own.
const (
	listInternal = "internal"
	listProxies  = "proxies"
)

// Tables hold what was loaded. They are read-only, and safe for concurrent use.
type Tables struct {
	sets      []set
	own, pack table // the operator's lists, and those of packs
	databases []database
	names     []string // of all lists, sorted
	// configured says that the operator gave something; internal, that one of
	// the lists is the operator's own networks.
	configured, internal bool
}

// Load reads lists and databases. When anything is wrong with them, the error is a
// [rules.Problems] with everything that is wrong.
func Load(o Options) (*Tables, error) {
	l := &loader{sets: newSets(), names: map[string]bool{}}
	t := &Tables{configured: len(o.Lists)+len(o.Databases) > 0}
	if o.Packs != nil {
		l.packs(o.Packs)
	}
	l.pack, l.entries = l.entries, l.pack
	for _, name := range o.Lists {
		l.operator(name)
	}
	t.databases = l.openDatabases(o.Databases)
	t.pack = l.table(l.pack)
	t.own = l.table(l.entries)
	if len(l.problems) > 0 {
		slices.SortStableFunc(l.problems, func(a, b rules.Problem) int {
			return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
		})
		return nil, l.problems
	}
	t.sets = l.sets.all
	for name := range l.names {
		t.names = append(t.names, name)
	}
	slices.Sort(t.names)
	t.internal = l.names[listInternal]
	return t, nil
}

// Configured reports whether the operator gave lists or databases: then each
// handshake is told its places.
func (t *Tables) Configured() bool { return t.configured }

// Networks returns the names of all lists, sorted. It is t's.
func (t *Tables) Networks() []string { return t.names }

// loader collects what is loaded and all that is wrong with it.
type loader struct {
	sets     *sets
	names    map[string]bool // of lists
	sources  []string        // files of lists, as problems name them
	entries  entries
	pack     entries
	networks int // lines of all lists
	problems rules.Problems
}

func (l *loader) problem(file string, line, col int, token, format string, args ...any) {
	l.problems = append(l.problems, rules.Problem{File: file, Line: line, Col: col, Token: token, Text: fmt.Sprintf(format, args...)})
}

// packs reads the lists of packs.
func (l *loader) packs(packs fs.FS) {
	files, err := fs.Glob(packs, "*/networks/*.txt")
	if err != nil {
		panic(err) // the pattern is a constant and valid
	}
	for _, name := range files {
		shown := path.Join("packs", name)
		f, err := packs.Open(name)
		if err != nil {
			l.problem(shown, 0, 0, "", "%s", plainError(err))
			continue
		}
		l.list(f, shown, false)
		f.Close()
	}
}

// operator reads a list, or all lists of a folder.
func (l *loader) operator(name string) {
	info, err := os.Stat(name)
	if err != nil {
		l.problem(name, 0, 0, "", "%s", plainError(err))
		return
	}
	if !info.IsDir() {
		l.operatorFile(name)
		return
	}
	found := false
	_ = filepath.WalkDir(name, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			l.problem(file, 0, 0, "", "%s", plainError(err))
		case file != name && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
		case !entry.IsDir() && filepath.Ext(file) == ".txt":
			found = true
			l.operatorFile(file)
		}
		return nil
	}) // each error was noted, and the next file is read
	if !found {
		l.problem(name, 0, 0, "", "the folder holds no lists: their names end in .txt")
	}
}

func (l *loader) operatorFile(name string) {
	// To open a named pipe is to wait for somebody to write.
	if info, err := os.Stat(name); err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		l.problem(name, 0, 0, "", "is no regular file")
		return
	}
	f, err := os.Open(name)
	if err != nil {
		l.problem(name, 0, 0, "", "%s", plainError(err))
		return
	}
	defer f.Close()
	l.list(f, name, true)
}

// plainError is the text of an error without the path, which the problem has.
func plainError(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Sprintf("%s: %v", pe.Op, pe.Err)
	}
	return err.Error()
}
