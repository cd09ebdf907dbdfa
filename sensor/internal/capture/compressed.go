package capture

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// decompress returns what is compressed in r, nil if r is not compressed. head are
// the first bytes of r: those of gzip (RFC 1952), of bzip2, or of zstd (RFC 8878), which may
// take as many bytes of memory as window says.
func decompress(head []byte, r io.Reader, window int64) (io.ReadCloser, error) {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(bufio.NewReaderSize(r, chunkSize))
	case bytes.HasPrefix(head, []byte("BZh")) && len(head) >= 10 && string(head[4:10]) == "1AY&SY":
		return io.NopCloser(bzip2.NewReader(bufio.NewReaderSize(r, chunkSize))), nil
	case len(head) < 4:
		return nil, nil
	}
	const frame, skippable = 0xfd2fb528, 0x184d2a50 // pzstd begins with one that is skippable
	if magic := binary.LittleEndian.Uint32(head); magic != frame && magic&^0xf != skippable {
		return nil, nil
	}
	d, err := zstd.NewReader(bufio.NewReaderSize(r, chunkSize),
		zstd.WithDecoderConcurrency(1), // on the goroutine that reads ahead
		zstd.WithDecoderMaxWindow(uint64(window)),
		zstd.WithDecoderMaxMemory(uint64(window))) // for a frame that is its own window
	if err != nil {
		return nil, err
	}
	return windowed{d.IOReadCloser(), window}, nil
}

// windowed is what is unpacked with a bounded window.
type windowed struct {
	io.ReadCloser
	window int64
}

// Read says which limit a stream is above.
func (w windowed) Read(b []byte) (int, error) {
	n, err := w.ReadCloser.Read(b)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		of := "which is the most"
		if w.window < MaxWindow {
			of = "as --memory is small"
		}
		err = fmt.Errorf("%w: the window of Zstandard may take %d MiB, %s", err, w.window>>20, of)
	}
	return n, err
}

// ahead reads a stream on a goroutine of its own, at most chunkCount chunks ahead.
type ahead struct {
	patience time.Duration // after which Read returns errIdle; 0 is for ever

	filled chan chunk
	empty  chan []byte
	stop   chan struct{}
	cur    chunk
	unread []byte // the end of cur.data
}

type chunk struct {
	data []byte
	err  error // after data
}

// readAhead starts reading in, and closes it in the end.
func readAhead(in io.ReadCloser) *ahead {
	a := &ahead{
		filled: make(chan chunk, chunkCount),
		empty:  make(chan []byte, chunkCount),
		stop:   make(chan struct{}),
	}
	for range chunkCount {
		a.empty <- make([]byte, chunkSize)
	}
	go a.run(in)
	return a
}

func (a *ahead) run(in io.ReadCloser) {
	defer in.Close()
	for {
		select {
		case <-a.stop:
			return
		case b := <-a.empty:
			n, err := in.Read(b[:chunkSize])
			a.filled <- chunk{b[:n], err} // has room for all chunks
			if err != nil {
				return
			}
		}
	}
}

// errIdle says that nothing has come for a while.
var errIdle = errors.New("nothing to read now")

// Read copies from the chunk at hand, so that one call fills at most the rest
// of a chunk.
func (a *ahead) Read(b []byte) (int, error) {
	for len(a.unread) == 0 {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.data != nil {
			a.empty <- a.cur.data
			a.cur.data = nil
		}
		if !a.wait() {
			return 0, errIdle
		}
		a.unread = a.cur.data
	}
	n := copy(b, a.unread)
	a.unread = a.unread[n:]
	return n, nil
}

// wait takes the next chunk. It is false if patience is over first.
func (a *ahead) wait() bool {
	select {
	case a.cur = <-a.filled:
		return true
	default:
	}
	if a.patience == 0 {
		a.cur = <-a.filled
		return true
	}
	timer := time.NewTimer(a.patience)
	defer timer.Stop()
	select {
	case a.cur = <-a.filled:
		return true
	case <-timer.C:
		return false
	}
}

// Close has the goroutine end. It does not wait for that, since a read from
// standard input may never return.
func (a *ahead) Close() error {
	close(a.stop)
	return nil
}
