package capture

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// FileOptions are the options of [OpenFiles].
type FileOptions struct {
	// Warn is told about input that cannot be read, one line each, such as
	// "read a.pcap: offset 4711: …"; the offset counts the bytes of what was
	// compressed. It is called by OpenFiles and Next, on their goroutine. Nil
	// drops the warnings.
	Warn func(error)

	// Secrets is called by Next for each block of TLS secrets in a pcapng file, with
	// the path of the file. The text of the block, which is a key log, is written to
	// what Secrets returns, which is then closed; its methods must not fail. In a
	// file that is not compressed this is done when the file is opened, so that
	// secrets come before all packets. Else it is done when the block is reached.
	// Before it, Next waits until all batches are released, since what comes before
	// the secrets must be done without them. If Secrets is nil, secrets are skipped.
	Secrets func(path string) io.WriteCloser

	// Forget is called by Next where a series begins after one that had secrets, when
	// all batches of that one are released. May be nil.
	Forget func()

	// Window is how many bytes of memory unpacking may take for what Zstandard must
	// remember, 1 KiB or more. A file that needs more is not read. 0 is MaxWindow, which is
	// the most.
	Window int64
}

// Files is the [Source] of capture files.
type Files struct {
	warn    func(error)
	inputs  []input // those that can be read twice, in the order of their first packets; then the others
	next    int     // all inputs before it are taken
	cur     *input  // what file reads
	file    *file
	slabs   slabs
	window  int64
	secret  func(path string) io.WriteCloser
	forget  func()
	secrets bool // the series had some

	clock  *Clock // of the series
	series int
	before *input // the file that was read last; nil if it could not be

	done  int64 // bytes of the inputs before cur
	read  atomic.Int64
	total int64 // bytes of all inputs; 0 if not known

	mu    sync.Mutex
	stats Stats
}

var _ Source = (*Files)(nil)

// input is a file to be read.
type input struct {
	path   string // "-" is standard input
	size   int64  // -1 if unknown
	stream bool   // cannot be read twice
	found  bool   // in a folder, and not named by the user
	taken  bool   // it was read, or is being read
	passed bool   // it is no capture of a network, and was skipped

	frames       uint64 // that were returned
	begun, ended int64  // the least and the greatest of their times

	first int64         // time of the first packet, or near it
	link  linktype.Type // of the first packet; noLink if there is none
}

// Paths returns the files in the order in which they are read; "-" is standard input.
func (s *Files) Paths() []string {
	paths := make([]string, len(s.inputs))
	for i := range s.inputs {
		paths[i] = s.inputs[i].path
	}
	return paths
}

// OpenFiles returns the frames of capture files. Their formats are known by content:
//   - pcap with microseconds or nanoseconds, Kuznetzov's variant and those of Ixia, in
//     either byte order; in files that can be read twice also the variants of Nokia and
//     of old Linux distributions, where the first records can be nothing else;
//   - pcapng;
//   - snoop;
//   - each of them compressed with gzip, zstd or bzip2.
//
// Several captures that were joined to one file are read as one file after another,
// and their packets are numbered on.
//
// A path is a file, a folder, or "-" for standard input. All regular files at any
// depth of a folder are read, and so are links to files; links to folders are not
// followed. Files are read one after the other in the order of their first packets,
// whether they were named or found; those of one time in the order of their names,
// those without a packet first. A file that continues another one comes next after
// it. What cannot be read twice (standard input, named pipes) comes last, in the
// order given.
//
// A file that continues the one before, as in a rotated capture, has the same
// [Batch.Series]: it is in the same folder, has a name that is alike, and begins where
// the other ended.
//
// No path at all, and more than one "-", are errors. Anything else that cannot be
// read is not: Warn is told, and it is counted in Stats.Broken. That is a path that
// cannot be opened, an empty folder, a file that is not a capture, and a file that is
// cut short or corrupt. The frames before the damage count, and the packet that could
// not be read is counted in Stats.Corrupt. Packets of a link type that is not
// [linktype.Type.Known] are counted in Stats.Ignored and in Frame.Number; Warn is told
// once for each file and type. What is found in a folder and is not a capture of a
// network is counted in Stats.Skipped alone.
func OpenFiles(paths []string, opt FileOptions) (*Files, error) {
	if len(paths) == 0 {
		return nil, errors.New("no capture files given")
	}
	s := &Files{warn: opt.Warn, secret: opt.Secrets, forget: opt.Forget, slabs: slabs{size: slabSize}, window: MaxWindow}
	if opt.Window > 0 {
		s.window = min(opt.Window, MaxWindow)
	}
	if s.warn == nil {
		s.warn = func(error) {}
	}
	stdin := false
	for _, path := range paths {
		if path == "-" && stdin {
			return nil, errors.New("standard input given more than once")
		}
		stdin = stdin || path == "-"
	}
	for _, path := range paths {
		s.add(path)
	}
	var files, streams []input
	for _, in := range s.inputs {
		if in.stream {
			streams = append(streams, in)
		} else {
			files = append(files, in)
		}
	}
	if len(files) > 1 {
		for i := range files {
			files[i].peek(s.window)
		}
		slices.SortStableFunc(files, func(a, b input) int {
			return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.path, b.path))
		})
	}
	s.inputs = append(files, streams...)
	for _, in := range s.inputs {
		if in.size < 0 {
			s.total = 0
			break
		}
		s.total += in.size
	}
	return s, nil
}

// add appends the files at path to the inputs.
func (s *Files) add(path string) {
	if path == "-" {
		s.addFile(path, os.Stdin.Stat, false)
		return
	}
	info, err := os.Stat(path)
	if err != nil {
		s.broken(fmt.Errorf("read %s: %w", path, cause(err)))
		return
	}
	if !info.IsDir() {
		s.addFile(path, func() (fs.FileInfo, error) { return info, nil }, false)
		return
	}
	before := len(s.inputs)
	brokenBefore := s.stats.Broken
	fs.WalkDir(os.DirFS(path), ".", func(name string, entry fs.DirEntry, err error) error {
		full := filepath.Join(path, filepath.FromSlash(name))
		switch {
		case err != nil:
			s.broken(fmt.Errorf("read %s: %w", full, cause(err)))
		case entry.Type().IsRegular():
			s.addFile(full, entry.Info, true)
		case entry.Type() == fs.ModeSymlink:
			info, err := os.Stat(full)
			if err != nil || info.Mode().IsRegular() {
				s.addFile(full, func() (fs.FileInfo, error) { return info, err }, true)
			}
		}
		return nil
	})
	if len(s.inputs) == before && s.stats.Broken == brokenBefore {
		s.broken(fmt.Errorf("read %s: the folder holds no files", path))
	}
}

func (s *Files) addFile(path string, stat func() (fs.FileInfo, error), found bool) {
	info, err := stat()
	if err != nil {
		s.broken(fmt.Errorf("read %s: %w", path, cause(err)))
		return
	}
	in := input{path: path, size: -1, stream: true, found: found, link: noLink}
	if info.Mode().IsRegular() {
		in.size = info.Size()
		in.stream = path == "-"
	}
	s.inputs = append(s.inputs, in)
}

// broken counts and reports a file that could not be read whole.
func (s *Files) broken(err error) {
	s.mu.Lock()
	s.stats.Broken++
	s.mu.Unlock()
	s.warn(err)
}

// noLink stands in for the link type of a file without packets.
const noLink = linktype.Type(0xffff)

// peek finds when a file begins: the median of the times of its first few packets,
// or the lowest of all times if it has no packet.
func (in *input) peek(window int64) {
	in.first = math.MinInt64
	f, err := openFile(&input{path: in.path}, &slabs{size: peekSize}, window, nil)
	if err != nil {
		return
	}
	defer f.close()
	b, err := f.next()
	if err != nil {
		return
	}
	var times [peekFrames]int64
	n := min(len(b.Frames), len(times))
	for i := range n {
		times[i] = b.Frames[i].Time
	}
	slices.Sort(times[:n])
	in.first, in.link = times[n/2], b.Frames[0].LinkType
}

// take returns the file to be read next, nil when all were read: the one that
// continues those that were read, or else the first that is left, which begins a
// series.
func (s *Files) take() *input {
	in := s.continuation()
	if in == nil {
		for s.next < len(s.inputs) && s.inputs[s.next].taken {
			s.next++
		}
		if s.next == len(s.inputs) {
			return nil
		}
		in = &s.inputs[s.next]
		s.series++
		s.clock = new(Clock)
		if s.secrets && s.forget != nil {
			s.slabs.drain()
			s.forget()
		}
		s.secrets = false
	}
	in.taken = true
	return in
}

// continuation finds the next file of a rotated capture: it is in the folder of the
// last one, has a name that is alike and the same link type, and begins where the
// last one ended.
func (s *Files) continuation() *input {
	if s.before == nil {
		return nil
	}
	from, to := s.clock.following()
	i, _ := slices.BinarySearchFunc(s.inputs[s.next:], from, func(in input, t int64) int {
		if in.stream {
			return 1
		}
		return cmp.Compare(in.first, t)
	})
	for i += s.next; i < len(s.inputs); i++ {
		in := &s.inputs[i]
		if in.stream || in.first > to {
			break
		}
		if !in.taken && in.link != noLink && in.link == s.before.link && s.clock.goesOn(in.first) && alike(s.before.path, in.path) {
			return in
		}
	}
	return nil
}

// alike reports whether two paths are of one folder, and their names differ in
// numbers alone, such as counts and times, or by one letter and the next.
func alike(a, b string) bool {
	if filepath.Dir(a) != filepath.Dir(b) {
		return false
	}
	a, b = filepath.Base(a), filepath.Base(b)
	digit := func(c byte) bool { return '0' <= c && c <= '9' }
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	a, b = a[n:], b[n:]
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	if len(a) == 1 && len(b) == 1 && b[0] == a[0]+1 {
		return true
	}
	for _, c := range []byte(a + b) {
		if !digit(c) && !strings.ContainsRune("-_.:T", rune(c)) {
			return false
		}
	}
	return true
}

// Next returns the next frames. The batches are of one file each; several may
// be unreleased at a time, and they may be released by any goroutine. Next and
// Close are for one goroutine.
func (s *Files) Next() (*Batch, error) {
	for {
		if s.file == nil {
			in := s.take()
			if in == nil {
				return nil, io.EOF
			}
			s.before = nil
			f, err := openFile(in, &s.slabs, s.window, &s.read)
			if err != nil {
				s.broken(err)
				s.pass(in)
				continue
			}
			s.cur, s.file = in, f
			f.clock, f.found = s.clock, in.found
			if s.secret != nil {
				f.disclose = func() io.WriteCloser {
					s.slabs.drain()
					s.secrets = true
					return s.secret(in.path)
				}
				f.scan()
			}
		}
		b, err := s.file.next()
		s.account(b)
		for _, o := range s.file.unknowns() {
			s.warn(fmt.Errorf("read %s: frame %d: link type %d is not supported, its frames are ignored", s.cur.path, o.number, o.link))
		}
		if v := s.file.variant; v != "" {
			s.file.variant = ""
			s.warn(fmt.Errorf("read %s: its records have the longer headers of %s, though its magic number does not say so", s.cur.path, v))
		}
		if err == nil {
			b.Series = s.series
			return b, nil
		}
		s.clock = s.file.tally().clock
		s.before = s.cur
		skipped := s.cur.found && s.file.foreign(err)
		s.file.close()
		s.file = nil
		s.pass(s.cur)
		switch {
		case skipped:
			s.cur.passed = true
			s.mu.Lock()
			s.stats.Skipped++
			s.mu.Unlock()
		case err != io.EOF:
			s.broken(err)
		default:
			s.mu.Lock()
			s.stats.Files++
			s.mu.Unlock()
		}
	}
}

// account adds what s.file has read to the counts; b may be nil.
func (s *Files) account(b *Batch) {
	var o Stats
	o.Ignored, o.Foreign, o.Corrupt = s.file.takeLosses()
	if jumps, at := s.file.takeJumps(); jumps > 0 {
		o.Jumps = jumps
		o.Jump = Jump{s.cur.path, at}
	}
	s.series += s.file.takeParts()
	if b != nil {
		o.Frames = uint64(len(b.Frames))
		for i := range b.Frames {
			f := &b.Frames[i]
			o.Bytes += uint64(len(f.Data))
			if s.cur.frames == 0 || f.Time < s.cur.begun {
				s.cur.begun = f.Time
			}
			if s.cur.frames == 0 || f.Time > s.cur.ended {
				s.cur.ended = f.Time
			}
			s.cur.frames++
		}
	}
	s.mu.Lock()
	s.stats.Add(o)
	s.mu.Unlock()
}

// pass counts in as done.
func (s *Files) pass(in *input) {
	s.done += max(in.size, 0)
	if s.total > 0 {
		s.read.Store(s.done)
	}
}

// File is what was read of one file.
type File struct {
	Path       string // as it was given; "-" is standard input
	Size       int64  // bytes as they are on disk; -1 where that is not known
	Frames     uint64
	Start, End int64 // the least and the greatest time of its frames, as captured; 0 without any
	Skipped    bool  // it was found in a folder, and is no capture of a network
}

// Read returns what was read of each file, in the order of Paths. It must not be called
// while Next runs.
func (s *Files) Read() []File {
	files := make([]File, len(s.inputs))
	for i := range s.inputs {
		in := &s.inputs[i]
		files[i] = File{in.path, in.size, in.frames, in.begun, in.ended, in.passed}
	}
	return files
}

// Streams reports whether some of the input may be written while it is read, as a
// pipe is. Next then returns empty batches when nothing comes.
func (s *Files) Streams() bool {
	return slices.ContainsFunc(s.inputs, func(in input) bool { return in.stream && in.size < 0 })
}

// Stats returns the counts so far. Any goroutine may call it.
func (s *Files) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Progress returns how many bytes of how many were read, as they are on disk. The
// total is 0 if it is not known. Any goroutine may call it.
func (s *Files) Progress() (read, total int64) {
	read = s.read.Load()
	if s.total > 0 { // files may grow, and decompressors read ahead
		read = min(read, s.total)
	}
	return read, s.total
}

// Close ends the source; Next then returns io.EOF.
func (s *Files) Close() error {
	s.inputs, s.before = nil, nil
	s.next = 0
	if s.file != nil {
		s.file.close()
		s.file = nil
	}
	return nil
}
