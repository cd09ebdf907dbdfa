package evidence

import (
	"archive/zip"
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
)

// chainName is the file that has a line for each pack of a folder, in the order in
// which they were made: the id, the SHA-256 of the manifest, that of the manifest
// before, and the bytes of the pack. It is only ever appended to.
const chainName = "chain"

// Folder is where packs are written. Several processes can write to the same one.
type Folder struct {
	path string
	zip  bool
	size int64
	key  *Key

	mu    sync.Mutex
	total int64 // bytes of the packs as far as the chain was read
	read  int64 // bytes of the chain that were read
	head  string
}

var (
	// errThere is the error of a pack that is there already.
	errThere = errors.New("there is a pack of this alert already")
	// errFull is the error of a pack for which the folder has no room.
	errFull = errors.New("the packs take all that they may")
)

// OpenFolder opens the folder of packs at path, or makes it. Packs are folders, or
// archives where zip is set; all together take at most size bytes. key signs; it may be
// nil.
func OpenFolder(path string, zip bool, size int64, key *Key) (*Folder, error) {
	f := &Folder{path: path, zip: zip, size: size, key: key, head: none}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the folder of evidence: %w", err)
	}
	root, err := f.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	chain, err := f.lock(root)
	if err != nil {
		return nil, err
	}
	defer chain.Close()
	if err := f.begin(root, chain); err != nil {
		return nil, fmt.Errorf("open the folder of evidence %s: %w", path, err)
	}
	return f, nil
}

// CheckFolder says why packs cannot be written to a folder at path. It makes nothing.
func CheckFolder(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		path = filepath.Dir(path)
		if info, err := os.Stat(path); err != nil {
			return fmt.Errorf("make the folder of evidence: %w", err)
		} else if !info.IsDir() {
			return fmt.Errorf("make the folder of evidence: %s is not a folder", path)
		}
	} else {
		root, err := (&Folder{path: path}).open()
		if err != nil {
			return err
		}
		_ = root.Close() // nothing was written
	}
	if err := ownfile.Access(path, true); err != nil {
		return fmt.Errorf("write to the folder of evidence %s: %w", path, err)
	}
	return nil
}

// open opens the folder itself. It does so for each pack: the folder may have been
// removed, and made again.
func (f *Folder) open() (*os.Root, error) {
	wrong := func(format string, args ...any) (*os.Root, error) {
		return nil, fmt.Errorf("open the folder of evidence %s: "+format, append([]any{f.path}, args...)...)
	}
	info, err := os.Lstat(f.path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("open the folder of evidence: %w", err)
	case info.Mode()&fs.ModeSymlink != 0:
		return wrong("it is a symbolic link: name the folder itself")
	case !info.IsDir():
		return wrong("it is not a folder")
	case info.Mode().Perm()&0o022 != 0:
		return wrong("others can write to it: chmod 700 it")
	}
	if user, mine := ownfile.Owner(info); !mine {
		return wrong("it belongs to user %d, not to the user of this process", user)
	}
	root, err := os.OpenRoot(f.path)
	if err != nil {
		return nil, fmt.Errorf("open the folder of evidence: %w", err)
	}
	if opened, err := root.Stat("."); err != nil || !os.SameFile(info, opened) {
		root.Close()
		return wrong("it was replaced at the same time")
	}
	return root, nil
}

// lock opens the chain, and waits until no other process writes a pack.
func (f *Folder) lock(root *os.Root) (*os.File, error) {
	if info, err := root.Lstat(chainName); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open the chain of evidence: %s is not a file", filepath.Join(f.path, chainName))
	}
	chain, err := ownfile.OpenIn(root, chainName, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the chain of evidence: %w", err)
	}
	if err := ownfile.Lock(chain); err != nil {
		chain.Close()
		return nil, fmt.Errorf("lock the chain of evidence %s: %w", filepath.Join(f.path, chainName), err)
	}
	return chain, nil
}

// begin reads the chain, and mends what a process that was killed has left: a line of
// which the end is missing, a pack in the making, and a pack without its line.
func (f *Folder) begin(root *os.Root, chain *os.File) error {
	known := map[string]bool{}
	if err := f.catchUp(chain, known); err != nil {
		return err
	}
	f.total = 0                  // of what is there: packs may have been moved away
	unknown := map[string]line{} // complete packs that the chain does not have, by the hash of the manifest before
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, _ := strings.CutSuffix(e.Name(), zipSuffix)
		switch name := e.Name(); {
		case isPart(name):
			if err := root.RemoveAll(name); err != nil {
				return err
			}
		case isID(id):
			size := sizeOf(root, name)
			f.total += size
			if known[id] {
				continue
			}
			files, err := readPack(root, name)
			if err != nil {
				continue // verify names what is wrong with it
			}
			text := find(files, manifestName)
			if m, err := parseManifest(text); err == nil && m.ID == id {
				unknown[m.Previous] = line{id, sum(text), m.Previous, bytesOf(files)}
			}
		}
	}
	var lines []line
	for head := f.head; ; {
		l, ok := unknown[head]
		if !ok {
			break
		}
		delete(unknown, head) // a chain has no circle
		lines = append(lines, l)
		head = l.manifest
	}
	if len(lines) == 0 {
		return nil
	}
	total := f.total // these packs are in it
	err = f.append(chain, lines)
	f.total = total
	return err
}

const (
	zipSuffix  = ".zip"
	partSuffix = ".part"
)

// isPart reports whether name is that of a pack in the making.
func isPart(name string) bool {
	rest, dot := strings.CutPrefix(name, ".")
	rest, part := strings.CutSuffix(rest, partSuffix)
	return dot && part && isID(strings.TrimSuffix(rest, zipSuffix))
}

// sizeOf is how many bytes the files of a pack have. What cannot be looked at has none.
func sizeOf(root *os.Root, name string) (n int64) {
	_ = fs.WalkDir(root.FS(), name, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}

func bytesOf(files []file) (n int64) {
	for _, f := range files {
		n += int64(len(f.data))
	}
	return n
}

// catchUp reads the lines of the chain that were appended since it was read, by whatever
// process. A line that was not written completely is cut off. The ids go into known,
// where that is not nil.
func (f *Folder) catchUp(chain *os.File, known map[string]bool) error {
	info, err := chain.Stat()
	if err != nil {
		return err
	}
	if info.Size() < f.read { // it was replaced: the chain begins anew
		f.read, f.total, f.head = 0, 0, none
	}
	if _, err := chain.Seek(f.read, io.SeekStart); err != nil {
		return err
	}
	lines := bufio.NewReaderSize(chain, 64<<10)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			if line != "" {
				return chain.Truncate(f.read)
			}
			return nil
		}
		if err != nil {
			return err
		}
		f.read += int64(len(line))
		if l, ok := parseLine(line); ok {
			f.head, f.total = l.manifest, f.total+l.size
			if known != nil {
				known[l.id] = true
			}
		}
	}
}

// line is a line of the chain.
type line struct {
	id, manifest, previous string
	size                   int64
}

func parseLine(text string) (l line, ok bool) {
	parts := strings.Split(strings.TrimSuffix(text, "\n"), " ")
	if len(text) > maxLine || len(parts) != 4 || !isID(parts[0]) || !isHash(parts[1]) || !isHash(parts[2]) {
		return l, false
	}
	size, err := strconv.ParseInt(parts[3], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != parts[3] {
		return l, false
	}
	return line{parts[0], parts[1], parts[2], size}, true
}

// String is the line as it is in the chain.
func (l *line) String() string {
	return fmt.Sprintf("%s %s %s %d\n", l.id, l.manifest, l.previous, l.size)
}

// append appends the lines of packs to the chain, each of which follows the one before.
func (f *Folder) append(chain *os.File, lines []line) error {
	var text []byte
	for i := range lines {
		text = append(text, lines[i].String()...)
	}
	_, err := chain.Write(text)
	if err == nil {
		err = chain.Sync()
	}
	if err != nil {
		return errors.Join(err, chain.Truncate(f.read))
	}
	f.read += int64(len(text))
	for i := range lines {
		f.head, f.total = lines[i].manifest, f.total+lines[i].size
	}
	return nil
}

// Name is the path of the pack of an alert.
func (f *Folder) Name(id string) string { return PackPath(f.path, f.zip, id) }

// PackPath is the path of the pack of an alert in the folder of packs dir.
func PackPath(dir string, zip bool, id string) string {
	if zip {
		id += zipSuffix
	}
	return filepath.Join(dir, id)
}

// entry is a pack on its way into the folder, and what became of it.
type entry struct {
	manifest *Manifest
	files    []file // without those that say what the others are
	size     int64  // bytes of all
	there    []file // those of the pack that is there already
	err      error  // errThere, errFull, or why it is not written; nil when it is on the disk

	name string     // in the folder
	sum  string     // of the manifest
	open []*os.File // that were written, until the disk has taken them
}

// part is the name of the pack while it is made.
func (e *entry) part() string { return "." + e.name + partSuffix }

// write writes packs, and says in each what became of it. They appear under their names
// when they are complete. One that is there already is left as it is.
func (f *Folder) write(list []*entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.writeAll(list); err != nil {
		for _, e := range list {
			e.err = cmp.Or(e.err, err)
		}
	}
}

func (f *Folder) writeAll(list []*entry) error {
	root, err := f.open()
	if err != nil {
		return err
	}
	defer root.Close()
	chain, err := f.lock(root)
	if err != nil {
		return err
	}
	defer chain.Close()
	if err := f.catchUp(chain, nil); err != nil {
		return fmt.Errorf("read the chain of evidence: %w", err)
	}
	for len(list) > 0 {
		list = list[f.writeSome(root, chain, list):]
	}
	return nil
}

// writeSome writes packs up to the first that the disk does not take, and returns how many
// it is done with: each names the one before, so that those behind it are made anew.
func (f *Folder) writeSome(root *os.Root, chain *os.File, list []*entry) (n int) {
	var made []*entry
	head, total := f.head, f.total
	for _, e := range list {
		if e.err != nil {
			continue
		}
		if e.err = f.make(root, e, head, total); e.err == nil {
			made = append(made, e)
			head, total = e.sum, total+e.size
		}
	}
	if failed := f.commit(root, chain, made); failed != nil {
		return slices.Index(list, failed) + 1
	}
	return len(list)
}

// commit gives packs that were made their names, and the chain their lines. It ends at
// the first that the disk does not take, which it returns. To wait for the disk is what
// takes time: it is waited for all of them together.
func (f *Folder) commit(root *os.Root, chain *os.File, made []*entry) (failed *entry) {
	f.syncAll(root, made)
	var lines []line
	for i, e := range made {
		if e.err == nil {
			e.err = root.Rename(e.part(), e.name)
		}
		if e.err != nil {
			e.err = fmt.Errorf("write a pack: %w", e.err)
			for _, e := range made[i:] {
				_ = root.RemoveAll(e.part()) // the error is the one above
			}
			failed, made = e, made[:i]
			break
		}
		lines = append(lines, line{e.manifest.ID, e.sum, e.manifest.Previous, e.size})
	}
	if len(made) == 0 {
		return failed
	}
	err := syncFolder(root, ".")
	if err != nil {
		err = fmt.Errorf("write a pack: %w", err)
	} else if err = f.append(chain, lines); err != nil {
		err = fmt.Errorf("write the chain of evidence: %w", err)
	}
	if err != nil {
		for _, e := range made {
			e.err = err
			_ = root.RemoveAll(e.name) // or it would be a pack that the chain does not have
		}
	}
	return failed
}

// make writes the files of a pack under another name. It follows the pack whose manifest
// has the hash head; those before take total bytes. The files are open then.
func (f *Folder) make(root *os.Root, e *entry, head string, total int64) error {
	m := e.manifest
	for _, name := range []string{m.ID, m.ID + zipSuffix} {
		if _, err := root.Lstat(name); err == nil {
			if e.there, err = readPack(root, name); err != nil {
				return fmt.Errorf("there is a pack of this alert that is damaged: %w", err)
			}
			return errThere
		}
	}
	m.Previous = head
	files, sum, err := seal(m, slices.Clip(e.files), f.key)
	if err != nil {
		return err
	}
	if e.size = bytesOf(files); total+e.size > f.size {
		return errFull
	}
	e.sum, e.name = sum, m.ID
	if f.zip {
		e.name += zipSuffix
	}
	if err = root.RemoveAll(e.part()); err == nil {
		err = f.writeFiles(root, e, files)
	}
	if err != nil {
		e.close()
		_ = root.RemoveAll(e.part()) // the error is the one above
		return fmt.Errorf("write a pack: %w", err)
	}
	return nil
}

// writeFiles writes files into a folder, or an archive, that is not there yet.
func (f *Folder) writeFiles(root *os.Root, e *entry, files []file) error {
	if f.zip {
		archive, err := archived(files)
		if err != nil {
			return err
		}
		return e.writeFile(root, e.part(), archive)
	}
	if err := root.Mkdir(e.part(), 0o700); err != nil {
		return err
	}
	for _, one := range files {
		if err := e.writeFile(root, filepath.Join(e.part(), one.name), one.data); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes a file, which is open then.
func (e *entry) writeFile(root *os.Root, name string, data []byte) error {
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	e.open = append(e.open, file)
	_, err = file.Write(data)
	return err
}

// close closes the files that are open.
func (e *entry) close() (err error) {
	for _, file := range e.open {
		err = errors.Join(err, file.Close())
	}
	e.open = nil
	return err
}

// syncAll waits until the disk has the files and folders of packs, and closes the files.
// Several wait at a time: a file system with a journal writes it once for all of them.
func (f *Folder) syncAll(root *os.Root, list []*entry) {
	var all []func() error
	var of []*entry
	for _, e := range list {
		for _, file := range e.open {
			all, of = append(all, file.Sync), append(of, e)
		}
		if !f.zip {
			all, of = append(all, func() error { return syncFolder(root, e.part()) }), append(of, e)
		}
	}
	errs := make([]error, len(all))
	var wait sync.WaitGroup
	for first := range min(maxSyncs, len(all)) {
		wait.Go(func() {
			for i := first; i < len(all); i += maxSyncs {
				errs[i] = all[i]()
			}
		})
	}
	wait.Wait()
	for i, e := range of {
		e.err = errors.Join(e.err, errs[i])
	}
	for _, e := range list {
		e.err = errors.Join(e.err, e.close())
	}
}

func syncFolder(root *os.Root, name string) error {
	folder, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(ownfile.SyncFolder(folder), folder.Close())
}

// archived is a zip archive of files. They are not compressed, so that the same files
// always make the same bytes: what was changed outside of the files is seen.
func archived(files []file) ([]byte, error) {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range files {
		header := &zip.FileHeader{Name: f.name, Method: zip.Store, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}
		header.SetMode(0o600)
		to, err := w.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := to.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// readPack reads the pack of this name: a folder or an archive, which may be anybody's.
// A folder gives its files in the order of their names, an archive in its own.
func readPack(root *os.Root, name string) ([]file, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() {
		data, err := readFile(root, name, maxPack)
		if err != nil {
			return nil, err
		}
		return unarchived(data)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is neither a folder nor a file", name)
	}
	inside, err := root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	return readFolder(inside)
}

func readFolder(root *os.Root) (files []file, err error) {
	folder, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	names, err := folder.Readdirnames(maxFiles + 1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(names) > maxFiles {
		return nil, fmt.Errorf("there are more than %d files", maxFiles)
	}
	slices.Sort(names)
	left := int64(maxPack)
	for _, name := range names {
		info, err := root.Lstat(name)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			files = append(files, file{name, nil}) // the manifest names no such file
			continue
		}
		data, err := readFile(root, name, min(maxFile, left))
		if err != nil {
			return nil, err
		}
		left -= int64(len(data))
		files = append(files, file{name, data})
	}
	return files, nil
}

// readFile reads a file of at most limit bytes.
func readFile(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, name, limit)
}

func readLimited(r io.Reader, name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%q: there is more in it than a pack has", clip(name))
	}
	return data, nil
}

// errRepacked is the error of an archive that another program has made.
var errRepacked = errors.New("the archive is not the one that was written: bytes of it outside of its files differ")

// unarchived are the files of an archive. The error is errRepacked where there are files
// and the rest of the archive is not as it is written here.
func unarchived(data []byte) (files []file, err error) {
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	if len(r.File) > maxFiles {
		return nil, fmt.Errorf("read the archive: %d files are more than %d", len(r.File), maxFiles)
	}
	left := int64(maxPack)
	for _, f := range r.File {
		if !isName(f.Name) {
			return nil, fmt.Errorf("read the archive: %q is not the name of a file of a pack", clip(f.Name))
		}
		from, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("read the archive: %q: %w", f.Name, err)
		}
		text, err := readLimited(from, f.Name, min(maxFile, left))
		from.Close()
		if err != nil {
			return nil, fmt.Errorf("read the archive: %q: %w", f.Name, err)
		}
		left -= int64(len(text))
		files = append(files, file{f.Name, text})
	}
	if again, err := archived(files); err != nil || !bytes.Equal(again, data) {
		return files, errRepacked
	}
	return files, nil
}
