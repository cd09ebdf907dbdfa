package spool

import (
	"bytes"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// FuzzSegment reads any bytes as a segment, in one go and through windows of
// any size: the same records come out, and each encodes as the bytes that it
// was read from.
func FuzzSegment(f *testing.F) {
	var image []byte
	var ends []int
	for i := range 3 {
		image = appendRecord(image, record(output.Alert, i))
		ends = append(ends, len(image))
	}
	f.Add(image, uint16(50), uint8(2))
	f.Add(image[:ends[1]+5], uint16(200), uint8(9))
	f.Add(append(image[:ends[0]:ends[0]], image[ends[1]:]...), uint16(1), uint8(1))
	f.Add(append(image[:ends[0]-3:ends[0]-3], image[ends[0]:]...), uint16(90), uint8(3))
	f.Add(mark, uint16(0), uint8(0))
	f.Add([]byte{}, uint16(0), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, limit uint16, records uint8) {
		var want []output.Record
		places := 0
		for rest := b; len(rest) > 0; {
			r, skip, size, ok := nextRecord(rest)
			if skip > 0 || !ok {
				places++
			}
			if !ok {
				break
			}
			if again := appendRecord(nil, &r); !bytes.Equal(again, rest[skip:skip+size]) {
				t.Fatalf("record %x encodes as %x", rest[skip:skip+size], again)
			}
			want = append(want, r)
			rest = rest[skip+size:]
		}
		for at := 0; at < len(b); {
			size := min(len(b)-at, int(limit)+recordHeader+bodyHeader+255)
			batch, ends, damaged := window(b[at:at+size], at+size == len(b), int(records)+1, int(limit))
			if len(batch) == 0 && at+size < len(b) {
				batch, ends, damaged = window(b[at:], true, int(records)+1, int(limit))
			}
			places -= damaged
			total := 0
			for _, r := range batch {
				if len(want) == 0 || r.ID != want[0].ID || r.Time != want[0].Time || !bytes.Equal(r.JSON, want[0].JSON) {
					t.Fatalf("got %v, want %v", r, want)
				}
				want = want[1:]
				total += len(r.JSON)
			}
			if len(batch) > int(records)+1 || len(batch) > 1 && total > int(limit) {
				t.Fatalf("%d records with %d bytes, not at most %d with %d", len(batch), total, int(records)+1, limit)
			}
			if len(batch) == 0 {
				break
			}
			at += ends[len(ends)-1]
		}
		if len(want) > 0 || places != 0 {
			t.Fatalf("missing %v; %d damaged places not counted", want, places)
		}
	})
}
