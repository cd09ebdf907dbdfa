package spool

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// The files of a spool, version 2. Records are numbered in each queue, in the
// order in which they were accepted, from 1 on. A queue is a row of segment
// files, named after the number of their first record, and a cursor:
//
//	alerts-0000000000000001.spool  alerts-0000000000004712.spool  alerts.cursor
//	telemetry-0000000000000001.spool                              telemetry.cursor
//	lock
//
// The cursor is one line of text: the word "oddcert-spool", the version of the
// line, the number of the first record that is not settled, the number that the
// next record will get, how many of the records between the two are still to
// be delivered, and a checksum. See [cursor].
//
// A segment is a header and then blocks, each of which was written and fsynced
// as a whole. Numbers are big-endian.
//
//	┌───────────┬────────┐   "oddcert" and the version, 8 bytes; a marker, 8
//	│ oddcert 2 │ marker │   random bytes, others in each file
//	├────────┬──┴─────┬──┴─────┬──────┬─────────────┬───────────┬────────────┐
//	│ marker │ number │ length │ size │ counts      │ frame CRC │ header CRC │
//	│ 8      │ 8      │ 4      │ 4    │ 8 × 2       │ 4         │ 4          │
//	├────────┴────────┴────────┴──────┴─────────────┴───────────┴────────────┤
//	│ frame: length bytes of Zstandard (RFC 8878), size bytes when decoded   │
//	├────────┬───────────────────────────────────────────────────────────────┤
//	│ marker │ … the next block
//
//	number      of the first record of the block
//	counts      how many records of each dataset the block has, by the
//	            dataset's number
//	frame CRC   CRC-32C of the frame
//	header CRC  CRC-32C of number, length, size, counts and frame CRC
//
// A frame decodes to records, one after the other:
//
//	┌────────┬─────────┬──────────┬──────┬────┬──────┐
//	│ length │ dataset │ id bytes │ time │ id │ JSON │  length is of what
//	│ 4      │ 1       │ 1        │ 8    │    │      │  follows it
//	└────────┴─────────┴──────────┴──────┴────┴──────┘
//
// A block with a sound header and a damaged frame is skipped by its length. After
// a damaged header the next block is looked for by the marker. Nobody outside
// can know the marker, so nothing that a peer sends, and nothing that an older
// file left on the disk, can pose as a block. As the marker stands before the
// first block and in it, damage to one of the two does no harm.
const (
	formatName    = "oddcert"
	formatVersion = 2

	fileHeaderSize  = len(formatName) + 1 + len(marker{})
	blockHeaderSize = 48
	recordHeader    = 14
)

type marker [8]byte

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errRecord = errors.New("append to spool: record is not one line with an id of 1 to 255 printable characters")

// checkRecord reports an error when r cannot be stored in a way that it comes
// out again the same.
func checkRecord(r *output.Record) error {
	if r.Dataset >= output.Datasets || len(r.ID) == 0 || len(r.ID) > 255 || bytes.IndexByte(r.JSON, '\n') >= 0 {
		return errRecord
	}
	for i := range len(r.ID) {
		if r.ID[i] < 0x20 || r.ID[i] > 0x7E {
			return errRecord
		}
	}
	return nil
}

// recordSize is the number of bytes of r in a block, before compression.
func recordSize(r *output.Record) int { return recordHeader + len(r.ID) + len(r.JSON) }

// appendRecord appends r, as it is in a block, to b.
func appendRecord(b []byte, r *output.Record) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(recordSize(r)-4))
	b = append(b, byte(r.Dataset), byte(len(r.ID)))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Time))
	b = append(b, r.ID...)
	return append(b, r.JSON...)
}

// cutRecord reads the record that b begins with, and returns what follows it.
// The JSON points into b. It reports false when b does not begin with a whole
// record.
func cutRecord(b []byte) (r output.Record, rest []byte, ok bool) {
	if len(b) < recordHeader {
		return r, nil, false
	}
	size := int64(binary.BigEndian.Uint32(b)) + 4
	id := recordHeader + int64(b[5])
	if size > int64(len(b)) || id > size || b[4] >= byte(output.Datasets) {
		return r, nil, false
	}
	r.Dataset = output.Dataset(b[4])
	r.Time = int64(binary.BigEndian.Uint64(b[6:]))
	r.ID = string(b[recordHeader:id])
	r.JSON = b[id:size:size]
	return r, b[size:], true
}

// countRecords counts the first n records of b, or all where there are fewer,
// and returns what follows them. It reports false when they are not whole.
func countRecords(b []byte, n uint64) (counts Counts, rest []byte, ok bool) {
	for ; len(b) > 0 && n > 0; n-- {
		if len(b) < recordHeader || b[4] >= byte(output.Datasets) {
			return counts, nil, false
		}
		size := int64(binary.BigEndian.Uint32(b)) + 4
		if size < recordHeader+int64(b[5]) || size > int64(len(b)) {
			return counts, nil, false
		}
		counts[b[4]]++
		b = b[size:]
	}
	return counts, b, true
}

// cutBlock returns how many bytes of records, which [appendRecord] made, go into
// the next block of at most limit bytes, and how many records these are. One record
// may be more.
func cutBlock(records []byte, limit int) (size int, counts Counts) {
	for n := 0; size < len(records) && n < maxBlockRecords; n++ {
		record := 4 + int(binary.BigEndian.Uint32(records[size:]))
		if size > 0 && size+record > limit {
			break
		}
		counts[records[size+4]]++
		size += record
	}
	return size, counts
}

// blockHeader is what stands before a frame, except for the checksums.
type blockHeader struct {
	number uint64 // of the first record
	length int    // of the frame
	size   int    // of the records, when they are decompressed
	counts Counts
}

// end is the number of the record after the last one of the block.
func (h *blockHeader) end() uint64 { return h.number + h.counts.Total() }

// maxDatasets is how many counters a block header has room for.
const maxDatasets = 8

var _ [maxDatasets - int(output.Datasets)]struct{} // there is a counter for each dataset

func newMarker() (m marker) {
	rand.Read(m[:]) // which never fails
	return m
}

// appendFileHeader appends the beginning of a segment to b.
func appendFileHeader(b []byte, m marker) []byte {
	return append(append(append(b, formatName...), formatVersion), m[:]...)
}

// appendBlock appends a block with the given records to b.
func appendBlock(b []byte, m marker, number uint64, counts Counts, records []byte, e *zstd.Encoder) []byte {
	start := len(b)
	b = append(b, m[:]...)
	b = append(b, make([]byte, blockHeaderSize-len(m))...)
	b = e.EncodeAll(records, b)
	header, frame := b[start:start+blockHeaderSize], b[start+blockHeaderSize:]
	binary.BigEndian.PutUint64(header[8:], number)
	binary.BigEndian.PutUint32(header[16:], uint32(len(frame)))
	binary.BigEndian.PutUint32(header[20:], uint32(len(records)))
	for d, n := range counts {
		binary.BigEndian.PutUint16(header[24+2*d:], uint16(n))
	}
	binary.BigEndian.PutUint32(header[40:], crc32.Checksum(frame, castagnoli))
	binary.BigEndian.PutUint32(header[44:], crc32.Checksum(header[8:44], castagnoli))
	return b
}

// parseBlockHeader reads a block header. It reports false when b, which has
// blockHeaderSize bytes, is not a sound one.
func parseBlockHeader(b []byte, m marker) (h blockHeader, frameCRC uint32, ok bool) {
	if marker(b) != m || crc32.Checksum(b[8:44], castagnoli) != binary.BigEndian.Uint32(b[44:]) {
		return h, 0, false
	}
	h.number = binary.BigEndian.Uint64(b[8:])
	length, size := binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint32(b[20:])
	if length > maxFrame || size > maxRecord {
		return h, 0, false
	}
	h.length, h.size = int(length), int(size)
	for d := range maxDatasets {
		n := binary.BigEndian.Uint16(b[24+2*d:])
		if d < len(h.counts) {
			h.counts[d] = uint64(n)
		} else if n > 0 {
			return h, 0, false
		}
	}
	n := h.counts.Total()
	ok = h.number > 0 && h.number < 1<<62 && n > 0 && uint64(h.size) >= n*recordHeader
	return h, binary.BigEndian.Uint32(b[40:]), ok
}

// newEncoder returns the encoder of blocks. Its level was chosen by measuring,
// over 20,000 records of handshakes of 1.3 KB (and 3.2 KB), the share that is
// left of them and the processor's time a record:
//
//	            128 KiB         512 KiB         1 MiB
//	fastest     12.3 % 1.7 µs   10.5 % 1.8 µs    9.5 % 1.6 µs   (7.3 % 3.5 µs)
//	default     12.3 % 2.1 µs   10.5 % 2.2 µs    9.5 % 2.1 µs   (7.3 % 4.5 µs)
//	better      11.9 % 4.5 µs   10.1 % 2.8 µs    9.0 % 2.9 µs   (6.8 % 6.2 µs)
//
// What is left are hashes, ids and addresses, on which no level can save.
func newEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(blockSize),
		zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}

// newDecoder returns a decoder that no frame can make take more memory than
// the limits of this package and the capacity of its destination.
func newDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxRecord), zstd.WithDecoderMaxWindow(maxRecord), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}

// decodeFrame decodes a frame into buf, which is empty and has room for it. It
// reports false when the frame is not what its header promises.
func decodeFrame(buf []byte, h *blockHeader, frame []byte, d *zstd.Decoder) (records []byte, ok bool) {
	records, err := d.DecodeAll(frame, buf[:0:h.size])
	if err != nil || len(records) != h.size {
		return nil, false
	}
	counts, _, ok := countRecords(records, h.counts.Total()+1)
	return records, ok && counts == h.counts
}
