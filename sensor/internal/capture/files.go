package capture

import (
	"bytes"
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

	"github.com/oddcert/oddcert/parsers/event"
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

// file cuts the bytes of one capture file into batches.
type file struct {
	path    string
	in      io.Reader
	closers []io.Closer // from the inside out
	slabs   *slabs
	peek    bool // only the first packet matters, of whatever link type

	parser  parser
	ended   *tally // of the captures before parser's, in a file that holds several
	origin  *event.Origin
	slab    *slab
	start   int   // slab.buf[start:end] is not parsed yet
	end     int   //
	want    int   // how much of it the parser needs
	offset  int64 // of slab.buf[start] in the file
	skip    int64 // how much of what comes next is to be passed over
	readErr error // of in, after what is in slab
	err     error // what next returns after the batch that it has returned

	live bool // in is written while it is read, maybe
	idle bool // nothing has come for a while

	finite bool // in has an end that nobody has to be waited for: not of a stream
	whole  bool // all of in is in slab, and tells what the format is

	raw      *os.File              // that can be read twice as it is; nil when it cannot
	disclose func() io.WriteCloser // nil when nobody wants secrets
	scanned  bool                  // for secrets, as far as it is pcapng from its beginning

	clock   *Clock
	found   bool   // in a folder, and not asked for by its name
	variant string // whose record headers the file turned out to have; not said yet
	jumps   uint64 // of parser's, those that takeJumps has returned
	parts   int    // of parser's, those that takeParts has returned
	ignored uint64 // of parser's, those that takeLosses has returned
	warned  int    // of parser's oddities, those that oddities has returned
	corrupt uint64
}

// newFile makes batches of in, for which path stands in messages.
func newFile(path string, in io.Reader, slabs *slabs) *file {
	return &file{
		path:   path,
		in:     in,
		slabs:  slabs,
		origin: &event.Origin{Path: path},
		slab:   slabs.get(0),
		want:   1,
		clock:  new(Clock),
	}
}

// openFile opens in for reading into slabs. It adds to read the bytes that are
// read on disk; a file without one is only for a peek at its first packet.
func openFile(in *input, slabs *slabs, read *atomic.Int64) (*file, error) {
	src := os.Stdin
	if in.path != "-" {
		var err error
		if src, err = os.Open(in.path); err != nil {
			return nil, fmt.Errorf("read %s: %w", in.path, cause(err))
		}
	}
	f := newFile(in.path, src, slabs)
	f.peek = read == nil
	if src != os.Stdin {
		f.closers = append(f.closers, src)
	}
	f.live = in.stream && in.size < 0
	if err := f.init(src, in.stream, read); err != nil {
		f.close()
		if err == io.EOF {
			err = errCut
		}
		return nil, f.wrap(0, err)
	}
	return f, nil
}

// init begins to read src, at most once if it is a stream.
func (f *file) init(src *os.File, stream bool, read *atomic.Int64) error {
	var head [longestMagic]byte
	n, err := io.ReadFull(src, head[:])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	if !f.peek {
		f.in = &counter{src, read}
	}
	if stream {
		f.in = io.MultiReader(bytes.NewReader(head[:n]), f.in)
	} else if _, err := src.Seek(-int64(n), io.SeekCurrent); err != nil {
		return err
	}
	f.finite = !stream
	d, err := decompress(head[:n], f.in)
	if err != nil {
		return err
	}
	if d == nil && !stream {
		f.raw = src
	}
	if d == nil && f.live {
		d = io.NopCloser(f.in)
	}
	if d != nil {
		if !f.peek {
			ahead := readAhead(d)
			if f.live {
				ahead.patience = idleAfter
			}
			d = ahead
		}
		f.in = d
		f.closers = append(f.closers, d)
	}
	return nil
}

// scan discloses the secrets of a file that can be read twice. They mostly stand
// before the packets; but tools that capture both as they come write them behind.
// To hold all that is encrypted until the end of the file could not be bounded,
// and to look at the headers of its blocks costs little.
func (f *file) scan() {
	f.scanned = f.raw != nil && scanSecrets(f.raw, f.disclose)
}

// close stops reading. The batches that next has returned stay valid.
func (f *file) close() {
	for _, c := range slices.Backward(f.closers) {
		c.Close()
	}
	f.closers = nil
	if f.slab != nil {
		f.slabs.put(f.slab)
		f.slab = nil
	}
}

// next returns a batch, which is empty only when nothing has come for a while.
// After the last one it returns io.EOF, or what keeps the rest of the file from
// being read.
func (f *file) next() (*Batch, error) {
	for f.err == nil {
		if f.end-f.start >= f.want {
			f.parse()
		} else {
			f.fill()
		}
		if len(f.slab.batch.Frames) > 0 {
			return f.hand(), nil
		}
		if f.idle {
			f.idle = false
			return &Batch{Origin: f.origin}, nil
		}
	}
	return nil, f.err
}

// parse takes the frames out of what has been read.
func (f *file) parse() {
	unparsed := f.slab.buf[f.start:f.end]
	if f.parser == nil {
		p, used, want, err := detect(unparsed)
		if err == errNoCapture {
			if len(unparsed) < longestMagic && !f.whole {
				f.want = longestMagic
				return
			}
			err = notRead(unparsed)
		}
		if err != nil {
			f.err = f.wrap(f.offset, err)
			return
		}
		if p == nil {
			f.want = want
			return
		}
		if p, ok := p.(*pcap); ok && f.finite {
			records := unparsed[used:]
			if len(records) < variantWindow && !f.whole {
				f.want = used + variantWindow
				return
			}
			f.variant = p.tell(records)
		}
		t := p.packets()
		if f.ended != nil {
			*t = *f.ended
			t.fresh = t.number > 0
		} else {
			t.all, t.found, t.clock = f.peek, f.found, f.clock
		}
		if ng, ok := p.(*pcapng); ok && (!f.scanned || f.ended != nil) { // a scan ends where another parser begins
			ng.disclose = f.disclose
		}
		f.parser = p
		f.start += used
		f.offset += int64(used)
		f.want = 1
		return
	}
	frames, used, want, err := f.parser.parse(unparsed, f.slab.batch.Frames)
	f.slab.batch.Frames = frames
	f.want = want
	if over := used - int64(len(unparsed)); over > 0 {
		f.skip = over
		used = int64(len(unparsed))
	}
	f.start += int(used)
	f.offset += used
	if err == errAnother {
		if f.want = 1; len(frames) == 0 { // else those go first, and it is said again
			f.ended, f.parser = f.parser.packets(), nil
		}
		return
	}
	if err != nil {
		f.corrupt++
		f.err = f.wrap(f.offset, err)
	}
}

// fill reads more. It moves what is not parsed yet, so there must be no frames
// in the slab.
func (f *file) fill() {
	if f.readErr != nil {
		if f.parser == nil && !f.whole { // what is there must do
			f.whole, f.want = true, 0
			return
		}
		f.finish()
		return
	}
	f.slab = f.slabs.move(f.slab, f.slab.buf[f.start:f.end], f.want)
	f.start, f.end = 0, f.end-f.start
	n, err := f.in.Read(f.slab.buf[f.end:])
	if f.idle = err == errIdle; !f.idle {
		f.readErr = err
	}
	f.end += n
	skip := min(f.skip, int64(n))
	f.skip -= skip
	f.start += int(skip)
	f.offset += skip
}

// finish ends the file where there is no more to be read.
func (f *file) finish() {
	rest := int64(f.end - f.start)
	end := f.offset + rest
	cut := rest > 0 || f.skip > 0 || f.parser != nil && f.parser.packets().inside
	if f.parser != nil && cut {
		f.corrupt++
	}
	switch {
	case f.readErr != io.EOF:
		f.err = f.wrap(end, f.readErr)
	case f.parser == nil && rest == 0:
		f.err = f.wrap(end, errEmpty)
	case f.parser == nil && rest < 4:
		f.err = f.wrap(0, errNoCapture)
	case f.parser == nil || cut:
		f.err = f.wrap(end, errCut)
	default:
		f.err = io.EOF
	}
}

var errCut = fmt.Errorf("cut short: %w", io.ErrUnexpectedEOF)

func (f *file) wrap(offset int64, err error) error {
	return fmt.Errorf("read %s: offset %d: %w", f.path, offset, cause(err))
}

// cause strips the path from err, for a message that already has it, and says
// the same of every stream that ends too early.
func cause(err error) error {
	if err == io.ErrUnexpectedEOF {
		return errCut
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// hand gives away the slab with its frames and moves the rest to another.
func (f *file) hand() *Batch {
	b := &f.slab.batch
	f.slabs.lend()
	rest := f.slab.buf[f.start:f.end]
	f.slab = f.slabs.get(max(f.want, len(rest)))
	copy(f.slab.buf, rest)
	f.start, f.end = 0, len(rest)
	if name := f.parser.iface(); name != f.origin.Interface {
		f.origin = &event.Origin{Path: f.path, Interface: name}
	}
	b.Origin = f.origin
	return b
}

// takeLosses returns what was lost since it was last asked: packets of unknown
// link types, and packets or blocks that could not be read.
func (f *file) takeLosses() (ignored, corrupt uint64) {
	corrupt, f.corrupt = f.corrupt, 0
	all := f.tally().ignored
	ignored, f.ignored = all-f.ignored, all
	return ignored, corrupt
}

// tally is that of all captures in the file so far.
func (f *file) tally() *tally {
	switch {
	case f.parser != nil:
		return f.parser.packets()
	case f.ended != nil:
		return f.ended
	}
	return &tally{clock: f.clock}
}

// takeJumps returns how often the clock has jumped since it was last asked, and
// the number of the packet at the first jump of all.
func (f *file) takeJumps() (n, at uint64) {
	t := f.tally()
	n, f.jumps = t.jumps-f.jumps, t.jumps
	return n, t.jump
}

// takeParts returns how many captures have begun inside of the file since it was
// last asked, and do not go on from what is before them.
func (f *file) takeParts() (n int) {
	all := f.tally().parts
	n, f.parts = all-f.parts, all
	return n
}

// foreign tells whether a file of which next has returned err is no capture of a
// network.
func (f *file) foreign(err error) bool {
	t := f.tally()
	if t.number == 0 && (errors.Is(err, errNoCapture) || errors.Is(err, errEmpty)) {
		return true
	}
	return err == io.EOF && t.foreign > 0 && t.foreign == t.number
}

// oddities returns the link types that turned up to be unknown since it was
// last asked.
func (f *file) oddities() []oddity {
	all := f.tally().oddities
	fresh := all[f.warned:]
	f.warned = len(all)
	return fresh
}

// counter counts what is read from src.
type counter struct {
	src  io.Reader
	read *atomic.Int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.src.Read(b)
	c.read.Add(int64(n))
	return n, err
}

// slab is the memory of one batch: bytes of a file, and the frames in them.
type slab struct {
	batch Batch
	buf   []byte
}

// slabs makes slabs, and keeps the released ones for reuse, the last first,
// as it is the one still in the processor's cache.
type slabs struct {
	size  int // at least, in bytes
	mu    sync.Mutex
	spare []*slab
	lent  int       // batches that are not released
	idle  sync.Cond // none is
}

// lend says that a batch is given away.
func (p *slabs) lend() {
	p.mu.Lock()
	p.lent++
	p.mu.Unlock()
}

// drain waits until all batches are released.
func (p *slabs) drain() {
	p.mu.Lock()
	p.idle.L = &p.mu
	for p.lent > 0 {
		p.idle.Wait()
	}
	p.mu.Unlock()
}

// back takes a batch that was given away.
func (p *slabs) back(s *slab) {
	p.put(s)
	p.mu.Lock()
	if p.lent--; p.lent == 0 {
		p.idle.Broadcast()
	}
	p.mu.Unlock()
}

// get returns a slab of at least want bytes.
func (p *slabs) get(want int) *slab {
	p.mu.Lock()
	var s *slab
	if n := len(p.spare); n > 0 {
		s = p.spare[n-1]
		p.spare = p.spare[:n-1]
	}
	p.mu.Unlock()
	if s == nil {
		s = &slab{}
		s.batch.Free = func(*Batch) { p.back(s) }
	}
	if len(s.buf) < want || len(s.buf) < p.size {
		s.buf = make([]byte, max(want, p.size))
	}
	return s
}

func (p *slabs) put(s *slab) {
	s.batch.Frames = s.batch.Frames[:0]
	p.mu.Lock()
	if len(p.spare) < spareSlabs {
		p.spare = append(p.spare, s)
	}
	p.mu.Unlock()
}

// move returns a slab of at least want bytes that begins with rest, the end of
// what s holds. It may be s; else s is released.
func (p *slabs) move(s *slab, rest []byte, want int) *slab {
	to := s
	if len(s.buf) < want {
		to = p.get(want)
	}
	copy(to.buf, rest)
	if to != s {
		p.put(s)
	}
	return to
}
