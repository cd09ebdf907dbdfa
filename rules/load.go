package rules

import (
	"bufio"
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"
)

//go:embed packs
var embedded embed.FS

// Source is a tree of rule files (*.yml, *.yaml). Files and directories whose
// names begin with a dot are left out.
type Source struct {
	Name string // what goes before the paths of its files in problems, and names its top directory's rule set
	FS   fs.FS
}

// optional are the packs whose rules are loaded only by name.
var optional = []string{"hygiene"}

// Optional returns the names of the packs that [Builtin] leaves out unless they are
// named, in order.
func Optional() []string { return slices.Clone(optional) }

// Builtin is the rules that are part of the program, a directory for each pack. Of the
// optional packs only those named are in it.
func Builtin(packs ...string) Source {
	left := slices.DeleteFunc(slices.Clone(optional), func(name string) bool { return slices.Contains(packs, name) })
	return Source{"packs", without{PackFiles(), left}}
}

// without is a file system without some directories at its top.
type without struct {
	fs.FS
	names []string
}

// ReadDir implements [fs.ReadDirFS].
func (w without) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(w.FS, name)
	if name == "." {
		list = slices.DeleteFunc(list, func(e fs.DirEntry) bool { return slices.Contains(w.names, e.Name()) })
	}
	return list, err
}

// PackFiles is all files of the packs that are part of the program: rules, and what
// they are judged by, such as roots and networks.
func PackFiles() fs.FS {
	packs, err := fs.Sub(embedded, "packs")
	if err != nil {
		panic(err) // the name is a constant and valid
	}
	return packs
}

// Dir is the rules in a directory of this machine and below it.
func Dir(path string) Source {
	return Source{path, directory{os.DirFS(path).(statDirFS), path}}
}

// statDirFS is what of [os.DirFS] a directory takes as it is.
type statDirFS interface {
	fs.StatFS
	fs.ReadDirFS
}

// directory is os.DirFS, but to open a pipe waits for nobody.
type directory struct {
	statDirFS
	path string
}

// Open implements [fs.FS].
func (d directory) Open(name string) (fs.File, error) {
	local, err := filepath.Localize(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return os.OpenFile(filepath.Join(d.path, local), os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// Load loads and compiles the rules of all sources, such as those of [Builtin]
// and of a [Dir]. A rule replaces one with the same id in an earlier source.
// When anything is wrong the error is a [Problems] with everything that is
// wrong.
func Load(sources ...Source) (*Set, error) {
	l := &loader{byID: make(map[string]int), broken: make(map[string]bool), filterByID: make(map[string]int), lists: make(map[listKey]*list)}
	set := &Set{byID: make(map[string]*Rule)}
	for _, s := range sources {
		l.source(s)
		if len(l.rules) == l.first && len(l.filters) == l.firstFilter {
			set.empty = append(set.empty, s.Name)
		}
	}
	l.resolve()
	for _, r := range l.readers {
		l.problems = append(l.problems, r.problems...)
	}
	if len(l.problems) > 0 {
		l.problems.sort()
		return nil, l.problems
	}
	l.warnings.sort()
	set.warnings = l.warnings
	for _, r := range l.rules {
		if r != nil {
			set.rules = append(set.rules, r)
			set.byID[r.ID] = r
		}
	}
	for _, l := range l.lists {
		set.lists = append(set.lists, l.List)
	}
	slices.SortFunc(set.lists, func(a, b List) int { return strings.Compare(a.File, b.File) })
	set.lists = slices.Compact(set.lists) // one file may be read for fields of several kinds
	set.index = newIndex(set.rules)
	return set, nil
}

// list is the values of a list file, as keys of fields of one kind.
type list struct {
	List
	keys keySet
}

// listKey is what makes two uses of a list the same.
type listKey struct {
	file string
	kind kind
	size int
}

type loader struct {
	rules    []*Rule // nil where a later rule has replaced it
	byID     map[string]int
	first    int             // of the rules of this source
	broken   map[string]bool // ids and names of rules that have problems, ids in lower case
	lists    map[listKey]*list
	problems Problems
	warnings Problems
	readers  []*fileReader // of all files: problems are found later, too

	correlations []unresolved
	filters      []*filter // nil where a later filter has replaced it
	filterByID   map[string]int
	firstFilter  int // of this source
}

func (l *loader) source(s Source) {
	l.first, l.firstFilter = len(l.rules), len(l.filters)
	err := fs.WalkDir(s.FS, ".", func(name string, entry fs.DirEntry, err error) error {
		shown := filepath.Join(s.Name, filepath.FromSlash(name))
		if err != nil {
			l.problems = append(l.problems, Problem{File: shown, Text: plainError(err)})
			return nil
		}
		if name != "." && strings.HasPrefix(entry.Name(), ".") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if ext := path.Ext(name); entry.IsDir() || ext != ".yml" && ext != ".yaml" {
			return nil
		}
		b, err := readFile(s.FS, name)
		if err != nil {
			l.problems = append(l.problems, Problem{File: shown, Text: plainError(err)})
			return nil
		}
		ruleset := filepath.Base(filepath.Dir(shown))
		l.file(s, name, shown, ruleset, b)
		return nil
	})
	if err != nil {
		l.problems = append(l.problems, Problem{File: s.Name, Text: plainError(err)})
	}
}

// plainError is the text of an error without the path, which the problem has.
func plainError(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return fmt.Sprintf("%s: %v", pe.Op, pe.Err)
	}
	return err.Error()
}

// openFile opens a file, or what a link to one leads to. A pipe is none: nobody may ever
// write to it. What was opened is looked at, and not what had the name before.
func openFile(fsys fs.FS, name string) (fs.File, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := openFile(fsys, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRuleFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxRuleFile {
		return nil, fmt.Errorf("larger than %d bytes", maxRuleFile)
	}
	return b, nil
}

// file reads the rules of one file.
func (l *loader) file(s Source, name, shown, ruleset string, b []byte) {
	_, builtin := s.FS.(without)
	r := &fileReader{file: shown}
	l.readers = append(l.readers, r)
	if i := invalidUTF8(b); i >= 0 {
		before := b[:i]
		line := bytes.Count(before, []byte("\n"))
		r.problem(place{line + 1, len(before) - bytes.LastIndexByte(before, '\n')}, "", "is not UTF-8")
		return
	}
	for _, doc := range split(b) {
		body := r.parse(doc)
		if body == nil {
			continue
		}
		d := &document{
			fileReader: r,
			rule:       &Rule{Ruleset: ruleset, Builtin: builtin},
			field:      fieldNamed,
			list:       func(of string, f *field, at place) *list { return l.list(r, s, name, of, f, at) },
			warn: func(at place, tok, format string, args ...any) {
				l.warnings = append(l.warnings, Problem{shown, at.line, at.col, tok, fmt.Sprintf(format, args...)})
			},
		}
		before := len(r.problems)
		d.read(body, doc.text)
		switch {
		case len(r.problems) > before:
			l.broken[d.rule.ID], l.broken[strings.ToLower(d.rule.name)] = true, true
		case d.filtered != nil:
			l.addFilter(d)
		case l.add(r, d.rule) && d.rule.correlation != nil:
			l.correlations = append(l.correlations, unresolved{d, place{d.rule.Line, 1}})
		}
	}
}

// addFilter adds a filter, in the place of one with the same id.
func (l *loader) addFilter(d *document) {
	at := place{d.rule.Line, 1}
	if id := d.rule.ID; id != "" {
		if i, ok := l.filterByID[id]; ok {
			other := l.filters[i].rule
			where := fmt.Sprintf("%s:%d", other.File, other.Line)
			if i >= l.firstFilter {
				d.problem(at, id, "the filter at %s has this id too", where)
				return
			}
			d.warn(at, id, "replaces the filter at %s", where)
			l.filters[i] = nil
		}
		l.filterByID[id] = len(l.filters)
	}
	l.filters = append(l.filters, d.filtered)
}

func invalidUTF8(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	for i := 0; ; {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
}

// add adds a rule to the set, and reports whether it has room and an id of its own.
func (l *loader) add(r *fileReader, rule *Rule) bool {
	at := place{rule.Line, 1}
	if i, ok := l.byID[rule.ID]; ok {
		other := l.rules[i]
		where := fmt.Sprintf("%s:%d", other.File, other.Line)
		if i >= l.first {
			r.problem(at, rule.ID, "the rule at %s has this id too", where)
			return false
		}
		l.warnings = append(l.warnings, Problem{rule.File, at.line, at.col, rule.ID, "replaces the rule at " + where})
		l.rules[i] = nil
	}
	if len(l.byID) == maxRules {
		r.problem(at, "", "more than %d rules", maxRules)
		return false
	}
	l.byID[rule.ID] = len(l.rules)
	l.rules = append(l.rules, rule)
	return true
}

// list returns the list lists/name.txt beside a rule file.
func (l *loader) list(r *fileReader, s Source, rule, name string, f *field, at place) *list {
	file := path.Join(path.Dir(rule), "lists", name+".txt")
	shown := filepath.Join(s.Name, filepath.FromSlash(file))
	key := listKey{shown, f.kind, f.size}
	if known, ok := l.lists[key]; ok {
		return known
	}
	opened, err := openFile(s.FS, file)
	if err != nil {
		r.problem(at, "%"+name+"%", "%s: %s", shown, plainError(err))
		return nil
	}
	defer opened.Close()
	reader := &fileReader{file: shown}
	values := &list{List: List{Name: name, File: shown}}
	readList(reader, opened, values, f)
	l.lists[key] = values
	if len(reader.problems) > 0 {
		l.problems = append(l.problems, reader.problems...)
		r.problem(at, "%"+name+"%", "the list cannot be used")
		return nil
	}
	values.Entries = values.keys.n
	return values
}

// readList reads one value a line; "#" at the start of a line or after white
// space begins a comment.
func readList(r *fileReader, from io.Reader, l *list, f *field) {
	limited := &io.LimitedReader{R: from, N: maxListFile + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxListLine)
	n := 0
	var key []byte
	for lines.Scan() {
		n++
		line := lines.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\uFEFF")
		}
		if i := strings.IndexByte(line, '#'); i == 0 || i > 0 && (line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
		}
		value := strings.TrimSpace(line)
		if value == "" {
			continue
		}
		var err error
		if key, err = f.parse(key[:0], value); err != nil {
			r.problem(place{n, strings.Index(line, value) + 1}, value, "%s", err.Error())
			if r.full {
				return
			}
			continue
		}
		l.keys.add(key)
	}
	switch {
	case errors.Is(lines.Err(), bufio.ErrTooLong):
		r.problem(place{n + 1, 1}, "", "a line may have %d bytes", maxListLine)
	case lines.Err() != nil:
		r.problem(place{n + 1, 1}, "", "%s", plainError(lines.Err()))
	case limited.N == 0:
		r.problem(place{n, 1}, "", "a list may have %d bytes", maxListFile)
	case l.keys.n == 0 && len(r.problems) == 0:
		r.problem(place{1, 1}, "", "the list is empty")
	}
}
