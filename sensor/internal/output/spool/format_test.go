package spool

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// sign makes the checksums right of all that begins like a block, so that what
// is after them is read.
func sign(b []byte) {
	if len(b) < fileHeaderSize {
		return
	}
	m := b[fileHeaderSize-len(marker{}) : fileHeaderSize]
	for at := fileHeaderSize; at+blockHeaderSize <= len(b); {
		i := bytes.Index(b[at:], m)
		if i < 0 || at+i+blockHeaderSize > len(b) {
			return
		}
		at += i
		header, frame := b[at:at+blockHeaderSize], b[at+blockHeaderSize:]
		if n := binary.BigEndian.Uint32(header[16:]); int64(n) <= int64(len(frame)) {
			binary.BigEndian.PutUint32(header[40:], crc32.Checksum(frame[:n], castagnoli))
			binary.BigEndian.PutUint32(header[44:], crc32.Checksum(header[8:44], castagnoli))
			at += int(n)
		}
		at += blockHeaderSize
	}
}

// image makes a segment with a block for each count of records.
func image(blocks ...int) []byte {
	m := marker{1, 2, 3, 4, 5, 6, 7, 8}
	b, e := appendFileHeader(nil, m), newEncoder()
	number := 1
	for _, n := range blocks {
		var records []byte
		for i := range n {
			records = appendRecord(records, record(output.Alert, number+i))
		}
		b = appendBlock(b, m, uint64(number), Counts{output.Alert: uint64(n)}, records, e)
		number += n
	}
	return b
}

// addSegments adds segments, whole and damaged, as seeds of a fuzz target.
func addSegments(f *testing.F, add func(segment []byte, signed bool)) {
	whole := image(1, 3, 2)
	add(whole, false)
	add(whole[:len(whole)-5], false)
	add(append(image(2), image(3)[fileHeaderSize:]...), true)
	add(append(image(2), bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, 40)...), true)
	add(append(whole[:20:20], whole[30:]...), true)
	add(make([]byte, 200), false)
	add([]byte{}, false)
	for _, name := range []string{"alerts-0000000000000023.spool", "telemetry-0000000000000034.spool"} {
		b, err := os.ReadFile(filepath.Join("testdata", "version1", name))
		if err != nil {
			f.Fatal(err)
		}
		add(b, false)
		add(append(b[:300:300], b[301:]...), false)
	}
}

// scan returns the records of a segment, and how many records its headers
// promise. It checks that the blocks are in order and do not overlap, that each
// byte is in a block or skipped, and that a block has whole records, as many as
// it says, or none come out of it.
func scan(t *testing.T, segment []byte) (records []output.Record, promised Counts) {
	t.Helper()
	var s scanner
	if err := s.open(bytes.NewReader(segment), int64(len(segment)), 1); err != nil {
		t.Fatal(err)
	}
	d := newDecoder()
	at, number := s.offset, uint64(1)
	for {
		b, skipped, err := s.next()
		if err == io.EOF {
			if s.version != 1 && at+skipped != max(at, int64(len(segment))) {
				t.Fatalf("of %d bytes %d are in blocks and %d skipped", len(segment), at, skipped)
			}
			return records, promised
		}
		if err != nil {
			t.Fatal(err)
		}
		if b.offset != at+skipped || b.after > int64(len(segment)) || b.number < number || b.size > max(maxRecord, 2*len(segment)) {
			t.Fatalf("block %+v after offset %d, record %d", b, at, number)
		}
		at, number = b.after, b.end()
		promised.add(b.counts)
		got, ok := s.records(nil, &b, d)
		if !ok {
			continue
		}
		var counts Counts
		for rest := got; len(rest) > 0; {
			r, after, ok := cutRecord(rest)
			if again := appendRecord(nil, &r); !ok || !bytes.Equal(again, rest[:len(rest)-len(after)]) {
				t.Fatalf("record %x encodes as %x", rest[:len(rest)-len(after)], again)
			}
			counts[r.Dataset]++
			r.JSON = bytes.Clone(r.JSON)
			records, rest = append(records, r), after
		}
		if counts != b.counts {
			t.Fatalf("%v in a block that says %v", counts, b.counts)
		}
	}
}

// FuzzSegment takes any bytes as a segment, with checksums as they are or made
// right, see scan.
func FuzzSegment(f *testing.F) {
	addSegments(f, func(b []byte, signed bool) { f.Add(b, signed) })
	f.Fuzz(func(t *testing.T, b []byte, signed bool) {
		b = bytes.Clone(b)
		if signed {
			sign(b)
		}
		scan(t, b)
	})
}

// FuzzOpen opens a spool with any bytes as a segment: it delivers the records that
// are there, whatever the size of the batches, and its counts add up.
func FuzzOpen(f *testing.F) {
	addSegments(f, func(b []byte, signed bool) { f.Add(b, signed, uint8(len(b)), uint16(3*len(b))) })
	f.Fuzz(func(t *testing.T, b []byte, signed bool, records uint8, limit uint16) {
		b = bytes.Clone(b)
		if signed {
			sign(b)
		}
		dir := t.TempDir()
		plant(t, dir, b)
		s, err := Open(dir, withOutput(Options{}))
		if err != nil {
			if len(b) <= len(formatName) || b[len(formatName)] <= formatVersion || !bytes.HasPrefix(b, []byte(formatName)) {
				t.Fatal(err)
			}
			return
		}
		defer s.Close()
		want, promised := scan(t, b)
		if st := checkSums(t, s); st.Recovered != promised {
			t.Fatalf("recovered %v of %v", st.Recovered, promised)
		}
		s.Finish()
		outstanding := 0
		for {
			batch, err := next(ctx, s, Alerts, 1+int(records), int(limit))
			if err == io.EOF {
				break
			}
			if err != nil || len(batch) == 0 {
				t.Fatalf("next: %d records, %v", len(batch), err)
			}
			total := 0
			for i, r := range batch {
				if i >= len(want) || r.Dataset != want[i].Dataset || r.ID != want[i].ID || r.Time != want[i].Time || !bytes.Equal(r.JSON, want[i].JSON) {
					t.Fatalf("got %+v, want %+v", batch, want)
				}
				total += len(r.JSON)
			}
			if len(batch) > 1+int(records) || len(batch) > 1 && total > int(limit) {
				t.Fatalf("%d records with %d bytes, not at most %d with %d", len(batch), total, 1+int(records), limit)
			}
			want = want[len(batch):]
			outstanding += len(batch)
			n := max(1, outstanding/2)
			if err := settle(s, Alerts, n); err != nil {
				t.Fatal(err)
			}
			outstanding -= n
		}
		if err := settle(s, Alerts, outstanding); err != nil {
			t.Fatal(err)
		}
		if st := checkSums(t, s); len(want) > 0 || st.Waiting.Total() > 0 {
			t.Fatalf("%d records are left, %v counted", len(want), st.Waiting)
		}
	})
}

// TestBomb has frames that decode to more, or to less, than their header says,
// and headers that promise too much.
func TestBomb(t *testing.T) {
	m := newMarker()
	e := newEncoder()
	sound := func(n int) []byte { return appendRecord(nil, record(output.Alert, n)) }
	bomb := e.EncodeAll(make([]byte, 64<<20), nil)
	b := appendFileHeader(nil, m)
	b = appendBlock(b, m, 1, Counts{output.Alert: 1}, sound(1), e)
	for number, size := range []uint32{0, 1, 22, 1000, maxRecord, maxRecord + 1, 1 << 30, 1<<32 - 1} {
		start := len(b)
		b = appendBlock(b, m, uint64(number)+2, Counts{output.Alert: 1}, nil, e)
		b = append(b[:start+blockHeaderSize], bomb...)
		binary.BigEndian.PutUint32(b[start+16:], uint32(len(bomb)))
		binary.BigEndian.PutUint32(b[start+20:], size)
		binary.BigEndian.PutUint32(b[start+40:], crc32.Checksum(bomb, castagnoli))
		binary.BigEndian.PutUint32(b[start+44:], crc32.Checksum(b[start+8:start+44], castagnoli))
	}
	b = appendBlock(b, m, 100, Counts{output.Alert: 1}, sound(100), e)
	dir := t.TempDir()
	plant(t, dir, b)
	s := open(t, dir, Options{})
	var into Batch
	if err := s.Reader(onlyOutput).Next(ctx, Alerts, &into, 10, 1000); err != nil || len(into.Records) != 1 {
		t.Errorf("got %v, %v", into.Records, err)
	}
	if n := cap(into.buffer); n > 2*maxRecord {
		t.Errorf("the reader holds %d bytes", n)
	}
	if err := settle(s, Alerts, 1); err != nil {
		t.Fatal(err)
	}
	if got := drain(t, s); len(got) != 1 || got[0] != 100 {
		t.Errorf("got %v", got)
	}
	if st := checkSums(t, s); st.Corrupt != 1 || st.Dropped.Total() == 0 {
		t.Errorf("corrupt %d, dropped %v", st.Corrupt, st.Dropped)
	}
}

// TestLongFrame has headers that are sound but for the length of their frame. The
// largest record fits, where nothing of it can be
// compressed.
func TestLongFrame(t *testing.T) {
	m := newMarker()
	random := make([]byte, maxRecord)
	rand.NewChaCha8([32]byte{1}).Read(random)
	block := appendBlock(nil, m, 1, Counts{output.Alert: 1}, random, newEncoder())
	if n := len(block) - blockHeaderSize; n < maxRecord || n > maxFrame {
		t.Errorf("%d bytes become %d", maxRecord, n)
	}
	if h, _, ok := parseBlockHeader(block[:blockHeaderSize], m); !ok || h.size != maxRecord {
		t.Errorf("the largest record: %+v, %v", h, ok)
	}
	for _, length := range []uint32{maxFrame, maxFrame + 1, 1 << 31, 1<<32 - 1} {
		header := bytes.Clone(block[:blockHeaderSize])
		binary.BigEndian.PutUint32(header[16:], length)
		binary.BigEndian.PutUint32(header[44:], crc32.Checksum(header[8:44], castagnoli))
		if _, _, ok := parseBlockHeader(header, m); ok != (length <= maxFrame) {
			t.Errorf("a frame of %d bytes: %v", length, ok)
		}
	}
}

// badSectors is a disk that cannot read some of its bytes.
type badSectors struct {
	io.ReaderAt
	from, to int64
}

func (b badSectors) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= b.to || offset+int64(len(p)) <= b.from {
		return b.ReaderAt.ReadAt(p, offset)
	}
	n, _ := b.ReaderAt.ReadAt(p[:max(b.from-offset, 0)], offset)
	return n, syscall.EIO
}

// TestBadSectors makes each sector unreadable, alone and with its neighbours: all
// blocks that are not in them are found.
func TestBadSectors(t *testing.T) {
	m, e := newMarker(), newEncoder()
	segment := appendFileHeader(nil, m)
	for i := range 12 {
		records := appendRecord(nil, large(output.Alert, i, 100+700*i))
		segment = appendBlock(segment, m, uint64(i)+1, Counts{output.Alert: 1}, records, e)
	}
	reader := bytes.NewReader(segment)
	find := func(file io.ReaderAt) (blocks []block) {
		var s scanner
		if err := s.open(file, reader.Size(), 1); err != nil {
			t.Fatal(err)
		}
		for {
			b, _, err := s.next()
			if err == io.EOF {
				return blocks
			}
			if err != nil {
				t.Fatal(err)
			}
			blocks = append(blocks, b)
		}
	}
	whole := find(reader)
	if len(whole) != 12 {
		t.Fatalf("%d blocks", len(whole))
	}
	for from := int64(sector); from < reader.Size(); from += sector {
		for to := from + sector; to <= from+8*sector; to += 7 * sector {
			want := slices.DeleteFunc(slices.Clone(whole), func(b block) bool { return b.offset < to && b.after > from })
			if got := find(badSectors{reader, from, to}); !slices.Equal(got, want) {
				t.Fatalf("bytes %d to %d unreadable: found %+v, want %+v", from, to, got, want)
			}
		}
	}
}

// TestBlocks writes backlogs in one go: their blocks are of the size that is the
// limit, and smaller than what is in them.
func TestBlocks(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{delay: 1 << 40})
	const n = 3000
	raw := 0
	for i := range n {
		r := record(output.Handshake, i)
		r.JSON = append(r.JSON, strings.Repeat(" ", 1000)...)
		raw += recordSize(r)
		if err := s.Append(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(segments(t, dir, Telemetry)[0])
	if err != nil {
		t.Fatal(err)
	}
	var sc scanner
	if err := sc.open(bytes.NewReader(b), int64(len(b)), 1); err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for ; ; blocks++ {
		b, skipped, err := sc.next()
		if err == io.EOF && skipped == 0 {
			break
		}
		if err != nil || b.size > blockSize || skipped > 0 {
			t.Fatalf("block %+v after %d bytes, %v", b, skipped, err)
		}
	}
	if least := (raw + blockSize - 1) / blockSize; blocks < least || blocks > 2*least {
		t.Errorf("%d bytes in %d blocks", raw, blocks)
	}
	if used := stats(s).Bytes; used != int64(len(b)) || len(b) > raw/10 {
		t.Errorf("%d bytes of records take %d, counted as %d", raw, len(b), used)
	}
}

// TestTooLarge appends a record that is larger than all limits, as a chain full of
// control characters makes one: it is refused, counted and said.
func TestTooLarge(t *testing.T) {
	var log syncBuffer
	s := open(t, t.TempDir(), Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	r := record(output.Alert, 1)
	r.JSON = bytes.Repeat([]byte(`\u0000`), maxRecord/6+1)
	if err := s.Append(ctx, r); err != ErrTooLarge {
		t.Errorf("append: %v", err)
	}
	if st := checkSums(t, s); st.Refused != (Counts{output.Alert: 1}) || st.Bytes != 0 {
		t.Errorf("%+v", st)
	}
	if !strings.Contains(log.String(), `"spool: records lost" queue=alerts lost=1`) || !strings.Contains(log.String(), ErrTooLarge.Error()) {
		t.Errorf("said %q", log.String())
	}
	r.JSON = r.JSON[:maxRecord-recordHeader-len(r.ID)] // the largest that is taken
	if err := s.Append(ctx, r); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	batch, err := next(ctx, s, Alerts, 10, 1000)
	if err != nil || len(batch) != 1 || !bytes.Equal(batch[0].JSON, r.JSON) {
		t.Errorf("got %d records, %v", len(batch), err)
	}
}
