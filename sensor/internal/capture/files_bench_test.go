package capture

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// benchFile writes a pcap file of size bytes of frames, of which lengths says
// the captured length in turn, and returns how many there are.
func benchFile(b *testing.B, size int, lengths ...int) (path string, frames int) {
	b.Helper()
	noise := payload(1, 1<<16) // repeats, so that there is something to compress
	out := binary.LittleEndian.AppendUint32(nil, magicMicro)
	out = append(out, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0)
	for ; len(out) < size; frames++ {
		n := lengths[frames%len(lengths)]
		i := frames * 7919 % (len(noise) - n)
		out = binary.LittleEndian.AppendUint32(out, uint32(frames))
		out = binary.LittleEndian.AppendUint32(out, uint32(frames%1e6))
		out = binary.LittleEndian.AppendUint32(out, uint32(n))
		out = binary.LittleEndian.AppendUint32(out, uint32(n))
		out = append(out, noise[i:][:n]...)
	}
	path = filepath.Join(b.TempDir(), "bench.pcap")
	if err := os.WriteFile(path, out, 0o600); err != nil {
		b.Fatal(err)
	}
	return path, frames
}

var benchLengths = map[string][]int{
	"bulk":       {66, 1514, 1514},
	"handshakes": {66, 66, 74, 583, 66, 1514, 66, 330},
}

// BenchmarkFiles compares the reader with the floor: a bare loop that reads
// blocks and touches the header of each frame. Both touch each frame's bytes.
func BenchmarkFiles(b *testing.B) {
	for name, lengths := range benchLengths {
		path, frames := benchFile(b, 256<<20, lengths...)
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/floor", func(b *testing.B) {
			b.SetBytes(info.Size())
			b.ReportAllocs()
			for b.Loop() {
				if n := bareLoop(b, path); n != frames {
					b.Fatalf("%d frames of %d", n, frames)
				}
			}
			b.ReportMetric(float64(frames)*float64(b.N)/b.Elapsed().Seconds(), "frames/s")
		})
		for kind, path := range map[string]string{
			"pcap":   path,
			"pcapng": asPcapng(b, path),
			"gzip":   compressed(b, path, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }),
			"zstd": compressed(b, path, func(w io.Writer) io.WriteCloser {
				z, err := zstd.NewWriter(w)
				if err != nil {
					b.Fatal(err)
				}
				return z
			}),
		} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				b.SetBytes(info.Size()) // of the pcap file, whatever the kind
				b.ReportAllocs()
				for b.Loop() {
					if n := fileLoop(b, path); n != frames {
						b.Fatalf("%d frames of %d", n, frames)
					}
				}
				b.ReportMetric(float64(frames)*float64(b.N)/b.Elapsed().Seconds(), "frames/s")
			})
		}
	}
}

var sink byte

// asPcapng writes the frames of path to a pcapng file.
func asPcapng(b *testing.B, path string) string {
	w := &builder{}
	w.section(binary.LittleEndian)
	w.iface(1, 0, "eth0", 6, 0)
	s, err := OpenFiles([]string{path}, FileOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for {
		batch, err := s.Next()
		if err == io.EOF {
			break
		}
		for _, f := range batch.Frames {
			w.enhanced(0, uint64(f.Time/1000), f.Length, f.Data, "")
		}
		batch.Release()
	}
	return save(b, filepath.Dir(path), "bench.pcapng", w.out)
}

// compressed compresses path to a file beside it.
func compressed(b *testing.B, path string, with func(io.Writer) io.WriteCloser) string {
	plain, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	w := with(f)
	if _, err := w.Write(plain); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return f.Name()
}

func fileLoop(b *testing.B, path string) (frames int) {
	s, err := OpenFiles([]string{path}, FileOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for {
		batch, err := s.Next()
		if err == io.EOF {
			return frames
		}
		for i := range batch.Frames {
			sink += batch.Frames[i].Data[12]
		}
		frames += len(batch.Frames)
		batch.Release()
	}
}

func bareLoop(b *testing.B, path string) (frames int) {
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, slabSize)
	start, end := 0, 0
	header := true
	for {
		n, err := f.Read(buf[end:])
		if n == 0 || err != nil {
			return frames
		}
		end += n
		if header {
			start, header = pcapHeaderLen, false
		}
		for end-start >= 16 {
			n := 16 + int(binary.LittleEndian.Uint32(buf[start+8:]))
			if end-start < n {
				break
			}
			sink += buf[start+16+12]
			start += n
			frames++
		}
		end = copy(buf, buf[start:end])
		start = 0
	}
}
