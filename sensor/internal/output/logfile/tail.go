package logfile

import (
	"bytes"
	"crypto/sha256"
	"io"
)

// tail is the lines at the end of a file.
type tail struct {
	sums []sum  // of the last whole lines, at most tailLines, in order
	last []byte // the beginning of the last whole line
	torn int64  // bytes after the last line feed
}

// readTail reads lines from r. Where partial is set, r begins within a line.
func readTail(r io.Reader, partial bool) (t tail, err error) {
	hash := sha256.New()
	buf := make([]byte, 64<<10)
	var begin []byte
	for {
		n, err := r.Read(buf)
		for b := buf[:n]; len(b) > 0; {
			end := bytes.IndexByte(b, '\n') + 1
			part := b
			if end > 0 {
				part = b[:end]
			}
			b = b[len(part):]
			hash.Write(part)
			begin = append(begin, part[:min(len(part), lineBegin-len(begin))]...)
			t.torn += int64(len(part))
			if end == 0 {
				continue
			}
			if !partial {
				if len(t.sums) == 2*tailLines {
					t.sums = append(t.sums[:0], t.sums[tailLines:]...)
				}
				t.sums = append(t.sums, sum(hash.Sum(nil)[:len(sum{})]))
				t.last = append(t.last[:0], begin...)
			}
			hash.Reset()
			begin, t.torn, partial = begin[:0], 0, false
		}
		if err == io.EOF {
			t.sums = t.sums[max(0, len(t.sums)-tailLines):]
			return t, nil
		}
		if err != nil {
			return tail{}, err
		}
	}
}

// lineBegin is how much of a line is kept to see whether it is a footer.
const lineBegin = 32
