package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync/atomic"

	"github.com/oddcert/oddcert/parsers/event"
)

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
	f.slabs.lend(f.slab)
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
