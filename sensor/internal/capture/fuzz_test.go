package capture

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
)

// fuzzed is what a file of arbitrary bytes gave.
type fuzzed struct {
	Frames   []Frame
	Origins  []string
	Err      string
	Number   uint64
	Ignored  uint64
	Corrupt  uint64
	Unknowns []unknownLink
	Secrets  string
	Mixed    bool // several captures behind one another
}

// disclosed collects secrets.
type disclosed struct{ bytes.Buffer }

func (*disclosed) Close() error { return nil }

func readBytes(b []byte, size int) (r fuzzed) {
	var secrets disclosed
	r = readDisclosing(b, size, true, func() io.WriteCloser { return &secrets })
	r.Secrets = secrets.String()
	return r
}

func readDisclosing(b []byte, size int, finite bool, disclose func() io.WriteCloser) (r fuzzed) {
	f := newFile("f", bytes.NewReader(b), &slabs{size: size})
	f.disclose = disclose
	f.finite = finite
	for {
		batch, err := f.next()
		if err != nil {
			if err != io.EOF {
				r.Err = err.Error()
			}
			break
		}
		for _, frame := range batch.Frames { // kept: the batch is never released
			r.Frames = append(r.Frames, frame)
			r.Origins = append(r.Origins, batch.Origin.Interface)
		}
	}
	r.Number, r.Unknowns, r.Mixed = f.tally().number, f.tally().unknowns, f.ended != nil
	r.Ignored, _, r.Corrupt = f.takeLosses()
	return r
}

func FuzzFile(f *testing.F) {
	for _, w := range samples() {
		f.Add(w.out)
		f.Add(w.out[:len(w.out)-5])
		f.Add(w.out[:w.ends[1]])
	}
	simple := &builder{}
	simple.section(binary.BigEndian)
	simple.iface(1, 20, "eth0", 0x80|63, -1)
	simple.simple(60, payload(1, 20))
	simple.block(0xbad, 0, nil)
	simple.iface(105, 20, "eth1", 19, 1<<62)
	simple.enhanced(1, 1<<63, 9, payload(1, 8), "")
	f.Add(simple.out)
	secret := &builder{}
	secret.section(binary.BigEndian)
	secret.secrets(secretsTLS, payload(1, 70))
	secret.iface(1, 0, "eth0", 6, 0)
	secret.enhanced(0, 1, 60, payload(1, 60), "")
	secret.secrets(secretsTLS, payload(2, 7))
	f.Add(secret.out)
	long := newPcap(binary.LittleEndian, magicNano, 228)
	long.u32(1).u32(2).u32(1 << 31).u32(1 << 31)
	f.Add(long.out)

	var all []byte
	for _, w := range samples() {
		all = append(all, w.out...)
	}
	f.Add(all)
	f.Add(append(bytes.Clone(all), secret.out...))
	f.Add(snoopSample())
	f.Add(append(snoopSample(), secret.out...))

	f.Fuzz(func(t *testing.T, b []byte) {
		r := readBytes(b, 64)
		number, size := uint64(0), 0
		for _, frame := range r.Frames {
			if frame.Number <= number {
				t.Errorf("frame %d comes after %d", frame.Number, number)
			}
			number = frame.Number
			size += len(frame.Data)
			if len(frame.Data) > maxFrameLen || cap(frame.Data) != len(frame.Data) {
				t.Errorf("frame %d has %d bytes with room for %d", frame.Number, len(frame.Data), cap(frame.Data))
			}
			if int64(frame.Length) < int64(len(frame.Data)) {
				t.Errorf("frame %d has %d bytes of %d", frame.Number, len(frame.Data), frame.Length)
			}
			if !frame.LinkType.Known() {
				t.Errorf("frame %d has link type %d", frame.Number, frame.LinkType)
			}
		}
		if size > len(b) {
			t.Errorf("%d bytes of frames in %d bytes", size, len(b))
		}
		if uint64(len(r.Frames))+r.Ignored > r.Number || number > r.Number {
			t.Errorf("%d frames and %d ignored of %d, the last %d", len(r.Frames), r.Ignored, r.Number, number)
		}
		if (r.Ignored > 0) != (len(r.Unknowns) > 0) {
			t.Errorf("%d ignored, of %d types", r.Ignored, len(r.Unknowns))
		}
		if r.Corrupt > 0 && r.Err == "" {
			t.Errorf("%d corrupt records without a word", r.Corrupt)
		}
		for _, size := range []int{1, 4 << 10} {
			if diff := diff(r, readBytes(b, size)); diff != "" {
				t.Errorf("slabs of 64 and %d bytes:\n%s", size, diff)
			}
		}
		if without := readDisclosing(b, 64, true, nil); !begins(without.Frames, r.Frames) || len(without.Frames) != len(r.Frames) || without.Err != r.Err || without.Number != r.Number {
			t.Errorf("%d frames, %q; %d, %q where nobody wants secrets", len(r.Frames), r.Err, len(without.Frames), without.Err)
		}
		var scanned disclosed
		scanSecrets(bytes.NewReader(b), func() io.WriteCloser { return &scanned })
		if !r.Mixed && !strings.HasPrefix(scanned.String(), r.Secrets) || scanned.Len() > len(b) {
			t.Errorf("secrets %q, scanned %q", r.Secrets, scanned.String())
		}
		// A stream is read as it comes; a file that is cut may look like another
		// variant of pcap.
		whole, part := readDisclosing(b, 64, false, nil), readDisclosing(b[:len(b)*2/3], 64, false, nil)
		if !begins(whole.Frames, part.Frames) {
			t.Errorf("%d frames of %d, and not the same, in two thirds", len(part.Frames), len(whole.Frames))
		}
	})
}
