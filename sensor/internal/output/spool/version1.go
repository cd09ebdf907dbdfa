package spool

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Segments of version 1 are read, so that an upgrade of the program loses
// nothing, and never written. They are not compressed: after 8 bytes of header
// come records, each with
//
//	mark    4 bytes  FF 6F 63 00
//	length  4 bytes  of the body, big-endian like all that follow
//	crc     4 bytes  CRC-32C over length and body
//	body             dataset (1), length of the id (1), time (8), id, JSON
//
// JSON and ids are UTF-8, which has no byte FF, so no text can pose as a mark.
const (
	version1Header       = 8
	version1RecordHeader = 12
	version1BodyHeader   = 10

	// maxVersion1 is more than the largest segment had: 8 MiB, a write of 4 MiB,
	// or of one record of 8 MiB. What is after it nobody wrote.
	maxVersion1 = 24 << 20
)

var version1Mark = []byte{0xFF, 'o', 'c', 0x00}

// readVersion1 reads all of a segment of version 1 as one block, whose end is
// that of the last sound record.
func (s *scanner) readVersion1() (b block, err error) {
	raw := make([]byte, min(s.size-version1Header, maxVersion1))
	n, err := s.readAt(raw, version1Header)
	if err != nil {
		return b, err
	}
	s.offset = s.size
	s.frame = s.frame[:0]
	b.number, b.offset = s.number, version1Header
	for at := 0; ; {
		r, skip, size := nextVersion1(raw[at:n])
		if size == 0 {
			break
		}
		s.frame = appendRecord(s.frame, &r)
		b.counts[r.Dataset]++
		at += skip + size
		b.after = version1Header + int64(at)
	}
	b.size = len(s.frame)
	if b.size == 0 {
		return block{}, io.EOF
	}
	return b, nil
}

// nextVersion1 finds the first sound record in b: skip bytes are damaged, then
// comes r with size bytes. The size is 0 when b holds no sound record.
func nextVersion1(b []byte) (r output.Record, skip, size int) {
	for skip < len(b) {
		if r, size = decodeVersion1(b[skip:]); size > 0 {
			return r, skip, size
		}
		skip++
		i := bytes.Index(b[skip:], version1Mark)
		if i < 0 {
			break
		}
		skip += i
	}
	return r, 0, 0
}

// decodeVersion1 reads the record that b begins with. Its JSON points into b.
// The size is 0 when there is no whole and sound record there.
func decodeVersion1(b []byte) (r output.Record, size int) {
	if len(b) < version1RecordHeader+version1BodyHeader || !bytes.HasPrefix(b, version1Mark) {
		return r, 0
	}
	body := int(binary.BigEndian.Uint32(b[4:]))
	if body < version1BodyHeader || body > maxRecord || body > len(b)-version1RecordHeader {
		return r, 0
	}
	size = version1RecordHeader + body
	crc := crc32.Update(crc32.Checksum(b[4:8], castagnoli), castagnoli, b[version1RecordHeader:size])
	if crc != binary.BigEndian.Uint32(b[8:]) {
		return r, 0
	}
	b = b[version1RecordHeader:size]
	json := version1BodyHeader + int(b[1])
	if b[0] >= byte(output.Datasets) || json > len(b) {
		return r, 0
	}
	r.Dataset = output.Dataset(b[0])
	r.Time = int64(binary.BigEndian.Uint64(b[2:]))
	r.ID = string(b[version1BodyHeader:json])
	r.JSON = b[json:]
	return r, size
}
