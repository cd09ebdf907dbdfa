package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/oddcert/oddcert/parsers/event"
)

// file cuts the bytes of one capture file into batches.
type file struct {
	path    string
	in      io.Reader
	closers []io.Closer // in the order of opening
	slabs   *slabs
	peek    bool // only the first packet matters, of whatever link type

	parser  parser // nil until the format is known
	ended   *tally // the counts of the captures before the parser's, in a file that holds several
	origin  *event.Origin
	slab    *slab
	start   int   // slab.buf[start:end] is not parsed yet
	end     int   //
	want    int   // how much of it the parser needs
	offset  int64 // of slab.buf[start] in the file
	skip    int64 // how much of what comes next is to be passed over
	readErr error // of in, after what is in slab
	err     error // what next returns after the batch that it has returned

	live bool // in may be written while it is read
	idle bool // nothing has come for a while

	finite bool // in ends without waiting for anybody: it is not a stream
	whole  bool // all of in is in slab, and must do to find the format

	raw      *os.File              // what is read, if it can be read twice and is not compressed; else nil
	disclose func() io.WriteCloser // nil if nobody wants secrets
	scanned  bool                  // the secrets were found when the file was opened, if it begins as pcapng

	clock   *Clock
	found   bool   // in a folder, and not named by the user
	variant string // who wrote such headers of records; reset when it was said
	corrupt uint64 // records or blocks; reset by takeLosses

	// How much of the parser's counts was returned: by takeJumps, takeParts,
	// takeLosses and unknowns.
	jumps   uint64
	parts   int
	ignored uint64
	warned  int

	foreignTaken uint64 // the same of packets of no network
}

// newFile returns a file that is read from in. Messages name it path.
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

// openFile opens in for reading into slabs. Unpacking may take as many bytes as window says.
// It adds the bytes that are read on disk to read. If read is nil, the file is opened for a
// look at its first packet alone.
func openFile(in *input, slabs *slabs, window int64, read *atomic.Int64) (*file, error) {
	f := newFile(in.path, nil, slabs)
	f.peek = read == nil
	f.finite = !in.stream
	if f.live = in.stream && in.size < 0; f.live {
		// To open a pipe waits for who writes to it, and so does to read from it.
		p := &pipe{path: in.path, window: window, read: read}
		ahead := readAhead(p)
		ahead.patience = idleAfter
		f.in, f.closers = ahead, []io.Closer{&p.src, ahead}
		return f, nil
	}
	src, err := openPath(in.path)
	if err != nil {
		f.close()
		return nil, fmt.Errorf("read %s: %w", in.path, cause(err))
	}
	if src != os.Stdin {
		f.closers = append(f.closers, src)
	}
	if err := f.init(src, window, in.stream, read); err != nil {
		f.close()
		return nil, f.wrap(0, cut(err))
	}
	return f, nil
}

// openPath opens a file; "-" is standard input.
func openPath(path string) (*os.File, error) {
	if path == "-" {
		return os.Stdin, nil
	}
	return os.Open(path)
}

// init begins to read src, at most once if it is a stream.
func (f *file) init(src *os.File, window int64, stream bool, read *atomic.Int64) error {
	head, err := readHead(src)
	if err != nil {
		return err
	}
	if f.in = src; !f.peek {
		f.in = &counter{src, read}
	}
	if stream {
		f.in = io.MultiReader(bytes.NewReader(head), f.in)
	} else if _, err := src.Seek(-int64(len(head)), io.SeekCurrent); err != nil {
		return err
	}
	d, err := decompress(head, f.in, window)
	if err != nil {
		return err
	}
	if d == nil {
		if !stream {
			f.raw = src
		}
		return nil
	}
	if !f.peek {
		d = readAhead(d)
	}
	f.in = d
	f.closers = append(f.closers, d)
	return nil
}

// readHead reads the bytes by which formats are known, or all where there are fewer.
func readHead(src io.Reader) ([]byte, error) {
	head := make([]byte, longestMagic)
	n, err := io.ReadFull(src, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	return head[:n], nil
}

// cut is the error of a stream that ends before what it begins with is whole.
func cut(err error) error {
	if err == io.EOF {
		return errCut
	}
	return err
}

// pipe is a stream that may be written while it is read. It is opened when it is read for
// the first time.
type pipe struct {
	path     string
	window   int64
	read     *atomic.Int64
	src      lateFile
	in       io.Reader // what is in it, unpacked; nil before
	unpacked io.Closer // nil if it is not compressed
}

func (p *pipe) Read(b []byte) (int, error) {
	if p.in == nil {
		if err := p.open(); err != nil {
			return 0, cut(err)
		}
	}
	return p.in.Read(b)
}

func (p *pipe) open() error {
	src, err := p.src.open(p.path)
	if err != nil {
		return err
	}
	head, err := readHead(src)
	if err != nil {
		return err
	}
	in := io.MultiReader(bytes.NewReader(head), &counter{src, p.read})
	d, err := decompress(head, in, p.window)
	if err != nil {
		return err
	}
	if p.in = in; d != nil {
		p.in, p.unpacked = d, d
	}
	return nil
}

// Close ends unpacking. Who reads the pipe calls it.
func (p *pipe) Close() error {
	if p.unpacked == nil {
		return nil
	}
	return p.unpacked.Close()
}

// lateFile is a file that one goroutine opens, which may take for ever, and another closes.
type lateFile struct {
	mu     sync.Mutex
	file   *os.File
	closed bool
}

func (l *lateFile) open(path string) (*os.File, error) {
	file, err := openPath(path)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file = file; l.closed {
		return nil, errors.Join(fs.ErrClosed, l.shut())
	}
	return file, nil
}

// Close closes the file, at once or as soon as it is open. Standard input stays open.
func (l *lateFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return l.shut()
}

// shut closes the file if there is one. The caller holds mu.
func (l *lateFile) shut() error {
	if l.file == nil || l.file == os.Stdin {
		return nil
	}
	return l.file.Close()
}

// scan discloses the secrets of a file that can be read twice. They mostly stand
// before the packets, but tools that capture both as they come write them after
// the packets. To hold all that is encrypted until the end of the file could not be
// bounded; to look at the headers of its blocks costs little.
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
// After the last one it returns io.EOF, or why the rest of the file cannot be read.
func (f *file) next() (*Batch, error) {
	for f.err == nil {
		if f.end-f.start >= f.want {
			f.parse()
		} else {
			f.fill()
		}
		if len(f.slab.batch.Frames) > 0 {
			return f.lend(), nil
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
		f.detect(unparsed)
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
		if f.want = 1; len(frames) == 0 { // else these go first, and the parser says it again
			f.ended, f.parser = f.parser.packets(), nil
		}
		return
	}
	if err != nil {
		f.corrupt++
		f.err = f.wrap(f.offset, err)
	}
}

// detect finds the parser for a capture that begins with b. If b is too short, it
// sets want.
func (f *file) detect(b []byte) {
	p, used, want, err := detect(b)
	if err == errNoCapture {
		if len(b) < longestMagic && !f.whole {
			f.want = longestMagic
			return
		}
		err = notRead(b)
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
		records := b[used:]
		if len(records) < variantWindow && !f.whole {
			f.want = used + variantWindow
			return
		}
		f.variant = p.detectVariant(records)
	}
	t := p.packets()
	if f.ended != nil {
		*t = *f.ended
		t.fresh = t.number > 0
	} else {
		t.all, t.found, t.clock = f.peek, f.found, f.clock
	}
	if ng, ok := p.(*pcapng); ok && (!f.scanned || f.ended != nil) { // a scan ends where another capture begins
		ng.disclose = f.disclose
	}
	f.parser = p
	f.start += used
	f.offset += int64(used)
	f.want = 1
}

// fill reads more. It moves what is not parsed yet, so the slab must hold no frames.
func (f *file) fill() {
	if f.readErr != nil {
		if f.parser == nil && !f.whole {
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

// cause returns err without its path, for a message that has the path already. All
// streams that end too early get the same error.
func cause(err error) error {
	if err == io.ErrUnexpectedEOF {
		return errCut
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// lend gives the slab with its frames away. Another one has the rest: where the parser can
// go on at once it stays where it is, since each of very many batches would copy it.
func (f *file) lend() *Batch {
	b := &f.slab.batch
	b.from, b.offset = f.slab.buf[:f.end], f.offset-int64(f.start)
	lent, rest := f.slab, f.slab.buf[f.start:f.end]
	if len(rest) >= f.want {
		f.slab = f.slabs.share(lent)
	} else {
		f.slab = f.slabs.get(f.want)
		f.start, f.end = 0, copy(f.slab.buf, rest)
	}
	f.slabs.lend(lent)
	if name := f.parser.iface(); name != f.origin.Interface {
		f.origin = &event.Origin{Path: f.path, Interface: name}
	}
	b.Origin = f.origin
	return b
}

// takeLosses returns what was not read since its last call: packets of link types
// that are not known, packets of link types of no network in a file that was found
// in a folder, and packets or blocks that could not be read.
func (f *file) takeLosses() (ignored, foreign, corrupt uint64) {
	corrupt, f.corrupt = f.corrupt, 0
	t := f.tally()
	ignored, f.ignored = t.ignored-f.ignored, t.ignored
	foreign, f.foreignTaken = t.foreign-f.foreignTaken, t.foreign
	return ignored, foreign, corrupt
}

// tally returns the counts of all captures in the file so far.
func (f *file) tally() *tally {
	switch {
	case f.parser != nil:
		return f.parser.packets()
	case f.ended != nil:
		return f.ended
	}
	return &tally{clock: f.clock}
}

// takeJumps returns how often the clock has jumped since its last call, and the
// number of the packet at the first jump of all.
func (f *file) takeJumps() (n, at uint64) {
	t := f.tally()
	n, f.jumps = t.jumps-f.jumps, t.jumps
	return n, t.jump
}

// takeParts returns how many captures have begun inside of the file since its last
// call that do not continue what is before them.
func (f *file) takeParts() (n int) {
	all := f.tally().parts
	n, f.parts = all-f.parts, all
	return n
}

// foreign reports whether a file is not a capture of a network. err is what next has
// returned in the end.
func (f *file) foreign(err error) bool {
	t := f.tally()
	if t.number == 0 && (errors.Is(err, errNoCapture) || errors.Is(err, errEmpty)) {
		return true
	}
	return err == io.EOF && t.foreign > 0 && t.foreign == t.number
}

// unknowns returns the link types that are not known and were met since its last
// call.
func (f *file) unknowns() []unknownLink {
	all := f.tally().unknowns
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
