package certcompress

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"os/exec"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// packed is a CompressedCertificate.
func packed(algorithm uint16, length int, b []byte) []byte {
	m := binary.BigEndian.AppendUint16(nil, algorithm)
	m = append(m, byte(length>>16), byte(length>>8), byte(length), byte(len(b)>>16), byte(len(b)>>8), byte(len(b)))
	return append(m, b...)
}

func compress(t testing.TB, algorithm uint16, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	switch algorithm {
	case algorithmZlib:
		w := zlib.NewWriter(&out)
		w.Write(b)
		w.Close()
	case algorithmBrotli:
		w := brotli.NewWriter(&out)
		w.Write(b)
		w.Close()
	case algorithmZstd:
		w, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(b)
		w.Close()
	}
	return out.Bytes()
}

func TestCertificate(t *testing.T) {
	text := bytes.Repeat([]byte("a certificate, more or less. "), 300)
	var d Decompressor
	for algorithm := uint16(algorithmZlib); algorithm <= algorithmZstd; algorithm++ {
		small := compress(t, algorithm, text)
		for range 2 { // the decoders are used again
			if got, err := d.Certificate(packed(algorithm, len(text), small)); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%d: %d bytes, %v", algorithm, len(got), err)
			}
			for n := range small {
				if _, err := d.Certificate(packed(algorithm, len(text), small[:n])); err == nil && n < len(small)-4 {
					t.Errorf("%d: %d of %d bytes are enough", algorithm, n, len(small))
				}
			}
		}
		for _, length := range []int{0, 1, len(text) - 1, len(text) + 1, MaxMessage} {
			if _, err := d.Certificate(packed(algorithm, length, small)); err == nil {
				t.Errorf("%d: %d bytes announced", algorithm, length)
			}
		}
		if _, err := d.Certificate(packed(algorithm, MaxMessage+1, small)); !errors.Is(err, ErrTooLong) {
			t.Errorf("%d: %v", algorithm, err)
		}
		// What becomes much is decoded only as far as was announced.
		bomb := compress(t, algorithm, make([]byte, 64<<20))
		if _, err := d.Certificate(packed(algorithm, MaxMessage, bomb)); err == nil || cap(d.out) > 4*MaxMessage {
			t.Errorf("%d: %v, %d bytes held", algorithm, err, cap(d.out))
		}
	}
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"no algorithm":      packed(0, 3, []byte("abc")),
		"unknown algorithm": packed(4, 3, []byte("abc")),
		"more than it says": append(packed(1, len(text), compress(t, 1, text)), 0),
		"cut":               packed(1, len(text), compress(t, 1, text))[:7],
	} {
		if _, err := d.Certificate(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// What the programs of the formats' own makers write is read.
func TestCertificateTools(t *testing.T) {
	text := bytes.Repeat([]byte("a certificate, more or less. "), 300)
	for algorithm, args := range map[uint16][]string{algorithmBrotli: {"brotli", "-c"}, algorithmZstd: {"zstd", "-c", "-19"}, algorithmZlib: {"openssl", "zlib"}} {
		path, err := exec.LookPath(args[0])
		if err != nil {
			t.Logf("no %s here", args[0])
			continue
		}
		cmd := exec.Command(path, args[1:]...)
		cmd.Stdin = bytes.NewReader(text)
		small, err := cmd.Output()
		if err != nil {
			t.Logf("%v: %v", args, err)
			continue
		}
		var d Decompressor
		if got, err := d.Certificate(packed(algorithm, len(text), small)); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%v: %d bytes, %v", args, len(got), err)
		}
	}
}

func FuzzCertificate(f *testing.F) {
	text := []byte("a certificate, more or less. a certificate, more or less.")
	for algorithm := uint16(algorithmZlib); algorithm <= algorithmZstd; algorithm++ {
		f.Add(packed(algorithm, len(text), compress(f, algorithm, text)))
	}
	f.Add(packed(9, 3, []byte("abc")))
	var used Decompressor
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := used.Certificate(b)
		if err == nil && (len(out) > MaxMessage || len(out) != int(b[2])<<16|int(b[3])<<8|int(b[4])) {
			t.Fatalf("%d bytes", len(out))
		}
		var fresh Decompressor
		again, err2 := fresh.Certificate(b)
		if (err == nil) != (err2 == nil) || err == nil && !bytes.Equal(out, again) {
			t.Fatalf("a decompressor that was used: %v, a fresh one: %v", err, err2)
		}
	})
}
