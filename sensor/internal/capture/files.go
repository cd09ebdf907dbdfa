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

	// Secrets is called for each block of TLS secrets in a pcapng file, with the
	// path of the file: the text of the block, which is a key log, is written to
	// what it returns, and that is closed then. Its methods must not fail. In a
	// file that is not compressed, this is done when the file is opened, so that
	// secrets come before the packets wherever they stand; else when the block is
	// reached. Either way, Next first waits until all batches are released: what
	// comes before secrets is over by then. Nil passes them over.
	Secrets func(path string) io.WriteCloser

	// Forget is called where a series begins, after one that had secrets, when all
	// batches of that are released. May be nil.
	Forget func()
}

// Files is the [Source] of capture files.
type Files struct {
	warn    func(error)
	inputs  []input // those that can be read twice in the order of their first packets, and then the others
	next    int     // in inputs: all before are read
	cur     *input  // being read by file
	file    *file
	slabs   slabs
	secret  func(path string) io.WriteCloser
	forget  func()
	secrets bool // there were some in the series

	clock  *Clock // of the series
	series int
	before *input // the file that was read before the next; nil if there is none

	done  int64 // bytes of the inputs before cur
	read  atomic.Int64
	total int64 // 0 if unknown

	mu    sync.Mutex
	stats Stats
}

var _ Source = (*Files)(nil)

// input is a file to be read.
type input struct {
	path   string // "-" is standard input
	size   int64  // -1 if unknown
	stream bool   // cannot be read twice
	found  bool   // in a folder, and not asked for by its name
	taken  bool   // it is read, or being read

	first int64         // time of the first packet, or near it
	link  linktype.Type // of the first packet; noLink if there is none
}

// OpenFiles returns the frames of capture files: pcap (microseconds,
// nanoseconds, and Kuznetzov's variant, of either byte order; those of Nokia and
// old Linux distributions where the first records can be nothing else, but for
// what cannot be read twice), pcapng and snoop, also compressed with gzip, zstd
// or bzip2, told by content. Several captures behind one another are read as
// one file after another, with their packets numbered on.
//
// A path is a file, a folder, of which all regular files at any depth are
// read (links to files too, but links to folders are not followed), or "-",
// standard input. Whether named or found in a folder, files are
// read one after the other in the order of their first packets, and of their
// names where these are of one time; files without a packet come first. A file
// that goes on from another comes right behind it. What
// cannot be read twice (standard input, named pipes) comes last, in the order
// given.
//
// A file that goes on from the one before, as of a rotated capture, is of the
// same [Batch.Series]: it is beside it, named alike, and begins where that ended.
//
// No path, and more than one "-", are errors. A path that cannot be read is
// not: it is warned of and counted in Stats.Broken, and so are an empty folder,
// a file that is no capture, and one that is cut short or corrupt, of which the
// frames up to there count. The packet that could not be read is then counted
// in Stats.Corrupt. Packets of a link type that is not [linktype.Type.Known] are
// warned of once a file and type, and counted in Stats.Ignored and in
// Frame.Number. What is found in a folder and is no capture, or one of a bus that
// is no network, is only counted, in Stats.Skipped.
func OpenFiles(paths []string, opt FileOptions) (*Files, error) {
	if len(paths) == 0 {
		return nil, errors.New("no capture files given")
	}
	s := &Files{warn: opt.Warn, secret: opt.Secrets, forget: opt.Forget, slabs: slabs{size: slabSize}}
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
			files[i].peek()
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

// noLink stands for the link type of a file without packets.
const noLink = linktype.Type(0xffff)

// peek finds when a file begins: the time of the packet in the middle of its
// first few, the least of all times if there is none.
func (in *input) peek() {
	in.first = math.MinInt64
	f, err := openFile(&input{path: in.path}, &slabs{size: peekSize}, nil)
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

// take returns the file to be read next, nil when all are: the one that goes on
// from those that were read, or else the first that is left, which begins a
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

// continuation finds the next file of a rotated capture after those that were
// read: it is beside the last one, named alike, of the same link type, and begins
// where that ended.
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

// alike tells whether two paths are of one folder and have names that differ in
// their numbers alone, such as counts and times, or by one letter and the next.
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
			f, err := openFile(in, &s.slabs, &s.read)
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
		for _, o := range s.file.oddities() {
			s.warn(fmt.Errorf("read %s: frame %d: link type %d is not understood, its frames are ignored", s.cur.path, o.number, o.link))
		}
		if v := s.file.variant; v != "" {
			s.file.variant = ""
			s.warn(fmt.Errorf("read %s: its records have the headers of %s, which its magic number does not say", s.cur.path, v))
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
	o.Ignored, o.Corrupt = s.file.takeLosses()
	if jumps, at := s.file.takeJumps(); jumps > 0 {
		o.Jumps = jumps
		o.Jump = fmt.Sprintf("packet %d of %s", at, filepath.Base(s.cur.path))
	}
	s.series += s.file.takeParts()
	if b != nil {
		o.Frames = uint64(len(b.Frames))
		for i := range b.Frames {
			o.Bytes += uint64(len(b.Frames[i].Data))
		}
	}
	s.mu.Lock()
	s.stats.Add(o)
	s.mu.Unlock()
}

// pass counts in as read, as far as it ever will be.
func (s *Files) pass(in *input) {
	s.done += max(in.size, 0)
	if s.total > 0 {
		s.read.Store(s.done)
	}
}

// Streams says whether some of the input may be written while it is read, as that
// of a pipe. Next returns empty batches then.
func (s *Files) Streams() bool {
	return slices.ContainsFunc(s.inputs, func(in input) bool { return in.stream && in.size < 0 })
}

// Stats returns the counts so far. Any goroutine may ask.
func (s *Files) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Progress returns how many bytes of how many have been read, as they are on
// disk. A total of 0 says that it is unknown. Any goroutine may ask.
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
