package spool

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"slices"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// block is a place in a segment file with a sound header, and, as far as its
// checksum can tell, a sound frame.
type block struct {
	blockHeader
	offset int64 // of the header
	after  int64 // offset of what follows the frame
}

// scanner finds the blocks of a segment file, of either version. It takes any
// bytes, and holds one frame, or all of a segment of version 1.
type scanner struct {
	file    io.ReaderAt
	size    int64  // of the file, as far as it is to be read
	offset  int64  // where the next block is looked for
	number  uint64 // the lowest that the next block may have
	marker  marker
	version byte // as the header says

	header [blockHeaderSize]byte
	chunk  [4096]byte
	frame  []byte // of the last block; with version 1, its records
}

// sector is what a disk fails to read at once, at least.
const sector = 512

// open begins to read the first size bytes of a segment file, whose name says
// that its first record has the given number.
func (s *scanner) open(file io.ReaderAt, size int64, number uint64) error {
	s.file, s.size, s.number = file, size, number
	head := s.chunk[:fileHeaderSize+len(s.marker)]
	clear(head)
	n, err := s.readAt(head, 0)
	if err != nil {
		return err
	}
	// A zero is not a version but a header that was not written. With another
	// name before it, it is damaged, like the name.
	s.version = formatVersion
	if v := head[len(formatName)]; v > 0 && (v == 1 || string(head[:len(formatName)]) == formatName) {
		s.version = v
	}
	if s.version == 1 {
		s.offset = version1Header
		return nil
	}
	s.offset = int64(fileHeaderSize)
	s.marker = marker(head[fileHeaderSize-len(s.marker):])
	if first := marker(head[fileHeaderSize:]); n == len(head) && first != s.marker {
		// Either the header is damaged or the first block. The marker in the
		// header is the right one if there is another block with it.
		found, err := s.find(s.offset)
		if err != nil {
			return err
		}
		if found >= size {
			s.marker = first
		}
	}
	return nil
}

// readAt reads what there is of len(b) bytes. What the disk cannot read any more
// and what was cut off are damage like other damage, not an error.
func (s *scanner) readAt(b []byte, offset int64) (n int, err error) {
	n, err = s.file.ReadAt(b, offset)
	if err == io.EOF || errors.Is(err, syscall.EIO) {
		err = nil
	}
	return n, err
}

// next returns the next sound block and how many bytes before it are damaged.
// At the end of the file the error is io.EOF.
func (s *scanner) next() (b block, skipped int64, err error) {
	start := s.offset
	if s.version == 1 && s.offset < s.size {
		b, err = s.readVersion1()
		return b, 0, err
	}
	for s.offset+blockHeaderSize <= s.size {
		n, err := s.readAt(s.header[:], s.offset)
		if err != nil {
			return b, 0, err
		}
		h, crc, ok := parseBlockHeader(s.header[:], s.marker)
		if n < len(s.header) || !ok {
			if s.offset, err = s.find(s.offset + 1); err != nil {
				return b, 0, err
			}
			continue
		}
		b = block{blockHeader: h, offset: s.offset, after: s.offset + blockHeaderSize + int64(h.length)}
		if b.after > s.size {
			if s.offset, err = s.find(s.offset + blockHeaderSize); err != nil {
				return b, 0, err
			}
			continue
		}
		s.offset = b.after
		s.frame = slices.Grow(s.frame[:0], h.length)[:h.length]
		if n, err = s.readAt(s.frame, b.offset+blockHeaderSize); err != nil {
			return b, 0, err
		}
		if n < h.length || crc32.Checksum(s.frame, castagnoli) != crc || h.number < s.number {
			continue
		}
		s.number = h.end()
		return b, b.offset - start, nil
	}
	s.offset = max(s.offset, s.size)
	return block{}, s.offset - start, io.EOF
}

// find returns the offset of the first marker at from or after it, or the size
// of the file when there is none.
func (s *scanner) find(from int64) (int64, error) {
	if s.marker == (marker{}) {
		return s.size, nil // a header that was never written; zeros would be markers everywhere
	}
	for from < s.size {
		n, err := s.readAt(s.chunk[:min(int64(len(s.chunk)), s.size-from)], from)
		if err != nil {
			return 0, err
		}
		if i := bytes.Index(s.chunk[:n], s.marker[:]); i >= 0 {
			return from + int64(i), nil
		}
		if n < len(s.marker) {
			from = (from+int64(n))/sector*sector + sector // which cannot be read
			continue
		}
		from += int64(n - len(s.marker) + 1)
	}
	return s.size, nil
}

// records returns the records of b, which next has just returned, and puts them
// into buf if that has room for them. They are valid until the next call of open,
// and for as long as buf is. It reports false when they are not what the header
// of the block promises.
func (s *scanner) records(buf []byte, b *block, d *zstd.Decoder) ([]byte, bool) {
	if s.version == 1 {
		return s.frame, true
	}
	return decodeFrame(slices.Grow(buf, b.size), &b.blockHeader, s.frame, d)
}
