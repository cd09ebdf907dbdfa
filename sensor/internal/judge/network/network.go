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
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
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

// Load reads lists and databases. When anything is wrong with them, the error is
// everything that is wrong, a line each, with file, line and what stands there.
func Load(o Options) (*Tables, error) {
	l := &loader{sets: newSets(), names: map[string]bool{}}
	t := &Tables{configured: len(o.Lists)+len(o.Databases) > 0}
	if o.Packs != nil {
		l.packs(o.Packs)
	}
	pack := l.entries
	l.entries = entries{}
	for _, name := range o.Lists {
		l.operator(name)
	}
	t.databases = l.openDatabases(o.Databases)
	t.pack = l.table(pack)
	t.own = l.table(l.entries)
	if len(l.problems) > 0 {
		l.problems.sort()
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

// Size returns how many bytes of memory t holds, about: the databases, as large as
// their files, and 24 bytes for each edge of a network.
func (t *Tables) Size() int64 {
	const spanSize, itemSize = 24, 64 // an item is a name or a label, with its part of a set
	size := int64(0)
	for _, d := range t.databases {
		size += d.size
	}
	for _, lists := range [...]*table{&t.own, &t.pack} {
		for _, spans := range lists {
			size += spanSize * int64(len(spans))
		}
	}
	for _, s := range t.sets {
		size += itemSize * int64(1+len(s.networks)+len(s.labels))
	}
	return size
}

// loader collects what is loaded and all that is wrong with it.
type loader struct {
	sets     *sets
	names    map[string]bool // of lists
	sources  []string        // files of lists, as problems name them
	entries  entries         // of the lists of packs, and then of the operator
	networks int             // lines of all lists
	problems problems
}

func (l *loader) problem(file string, line, col int, token, format string, args ...any) {
	l.problems = append(l.problems, problem{file, line, col, token, fmt.Sprintf(format, args...)})
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
