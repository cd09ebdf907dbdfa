package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// A segment is fileHeader and then records:
//
//	mark    4 bytes  FF 6F 63 00
//	length  4 bytes  of the body, big-endian like all that follow
//	crc     4 bytes  CRC-32C over length and body
//	body             dataset (1), length of the id (1), time (8), id, JSON
//
// After damage the next record is looked for by its mark. JSON and ids are
// UTF-8, which has no byte FF, so nothing that a peer sends can pose as one.
const (
	fileHeader   = "oddcert\x01"
	recordHeader = 12
	bodyHeader   = 10
)

var (
	mark  = []byte{0xFF, 'o', 'c', 0x00}
	table = crc32.MakeTable(crc32.Castagnoli)
)

var errRecord = errors.New("append to spool: record is not one line of UTF-8 with an id of 1 to 255 bytes")

// checkRecord says whether r can be stored so that it comes out again the same.
func checkRecord(r *output.Record) error {
	if r.Dataset >= output.Datasets || len(r.ID) == 0 || len(r.ID) > 255 ||
		bytes.IndexByte(r.JSON, 0xFF) >= 0 || bytes.IndexByte(r.JSON, '\n') >= 0 {
		return errRecord
	}
	for i := range len(r.ID) {
		if r.ID[i] < 0x20 || r.ID[i] > 0x7E {
			return errRecord
		}
	}
	return nil
}

// recordSize is the number of bytes of r in a segment.
func recordSize(r *output.Record) int {
	return recordHeader + bodyHeader + len(r.ID) + len(r.JSON)
}

// appendRecord appends r, as it is in a segment, to b.
func appendRecord(b []byte, r *output.Record) []byte {
	start := len(b)
	b = append(b, mark...)
	b = binary.BigEndian.AppendUint32(b, uint32(bodyHeader+len(r.ID)+len(r.JSON)))
	b = append(b, 0, 0, 0, 0)
	b = append(b, byte(r.Dataset), byte(len(r.ID)))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Time))
	b = append(b, r.ID...)
	b = append(b, r.JSON...)
	binary.BigEndian.PutUint32(b[start+8:], checksum(b[start:]))
	return b
}

func checksum(record []byte) uint32 {
	return crc32.Update(crc32.Checksum(record[4:8], table), table, record[recordHeader:])
}

// decodeRecord reads the record that b begins with. Its JSON points into b. It
// reports false when there is no whole and sound record there.
func decodeRecord(b []byte) (r output.Record, size int, ok bool) {
	if len(b) < recordHeader+bodyHeader || !bytes.Equal(b[:4], mark) {
		return r, 0, false
	}
	body := int(binary.BigEndian.Uint32(b[4:]))
	if body < bodyHeader || body > maxRecord || body > len(b)-recordHeader {
		return r, 0, false
	}
	size = recordHeader + body
	b = b[:size:size]
	if checksum(b) != binary.BigEndian.Uint32(b[8:]) {
		return r, 0, false
	}
	b = b[recordHeader:]
	id := int(b[1])
	if b[0] >= byte(output.Datasets) || bodyHeader+id > len(b) {
		return r, 0, false
	}
	r.Dataset = output.Dataset(b[0])
	r.Time = int64(binary.BigEndian.Uint64(b[2:]))
	r.ID = string(b[bodyHeader : bodyHeader+id])
	r.JSON = b[bodyHeader+id:]
	return r, size, true
}

// nextRecord finds the first sound record in b: skip bytes are damaged, then
// comes r with size bytes. It reports false when b holds no sound record.
func nextRecord(b []byte) (r output.Record, skip, size int, ok bool) {
	for {
		if r, size, ok = decodeRecord(b[skip:]); ok {
			return r, skip, size, true
		}
		if skip++; skip >= len(b) {
			return r, 0, 0, false
		}
		i := bytes.Index(b[skip:], mark)
		if i < 0 {
			return r, 0, 0, false
		}
		skip += i
	}
}

// window returns the first sound records of b, and the offset behind each: at
// most so many records, and so many bytes of JSON unless one alone has more.
// With last, b goes to the end of the segment; without, it may end within a
// record. Damage ends a batch and is skipped by the next one, so that each
// damaged place is counted once.
func window(b []byte, last bool, records, bytes int) (batch []output.Record, ends []int, damaged int) {
	at, total := 0, 0
	for at < len(b) && len(batch) < records {
		r, skip, size, ok := nextRecord(b[at:])
		if !ok {
			if last && len(batch) == 0 {
				damaged++
			}
			break
		}
		if len(batch) > 0 && (skip > 0 || total+len(r.JSON) > bytes) {
			break
		}
		if skip > 0 {
			damaged++
		}
		at += skip + size
		total += len(r.JSON)
		batch = append(batch, r)
		ends = append(ends, at)
	}
	return batch, ends, damaged
}
