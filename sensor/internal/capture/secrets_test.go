package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"
)

// secretsSample is a pcapng file of six packets, with secrets before, between and
// behind them, in two sections.
func secretsSample() []byte {
	w := &builder{}
	w.section(binary.LittleEndian)
	w.secrets(secretsTLS, []byte("one\n"))
	w.iface(1, 0, "eth0", 6, 0)
	w.enhanced(0, aTime*1e6+1, 60, payload(1, 60), "")
	w.enhanced(0, aTime*1e6+2, 60, payload(2, 60), "")
	w.secrets(secretsTLS, bytes.Repeat([]byte("two\n"), 30000)) // more than is read at once
	w.secrets(0x57474b4c, []byte("of WireGuard"))
	w.enhanced(0, aTime*1e6+3, 60, payload(3, 60), "")
	w.section(binary.BigEndian)
	w.iface(1, 0, "eth0", 6, 0)
	w.enhanced(0, aTime*1e6+4, 60, payload(4, 60), "")
	w.block(blockSecrets, 0, func() { w.u32(secretsTLS).u32(1 << 30).raw([]byte("lie\n")) }) // a length beyond the block
	w.enhanced(0, aTime*1e6+5, 60, payload(5, 60), "")
	w.enhanced(0, aTime*1e6+6, 60, payload(6, 60), "")
	w.secrets(secretsTLS, []byte("last"))
	return w.out
}

// diary is what happened in a capture, in order.
type diary struct {
	mu      sync.Mutex
	entries []string
}

func (d *diary) add(format string, args ...any) {
	d.mu.Lock()
	d.entries = append(d.entries, fmt.Sprintf(format, args...))
	d.mu.Unlock()
}

// noted is a block of secrets that a diary gets.
type noted struct {
	d    *diary
	text bytes.Buffer
}

func (n *noted) Write(b []byte) (int, error) { return n.text.Write(b) }

func (n *noted) Close() error {
	n.d.add("secrets %.4q", n.text.String())
	if n.text.Len() > 100 && n.text.String() != string(bytes.Repeat([]byte("two\n"), 30000)) {
		n.d.add("of %d bytes", n.text.Len())
	}
	return nil
}

// chronicle reads a file. Each batch is released a while later, by another
// goroutine, which notes its frames then.
func chronicle(t *testing.T, path string) []string {
	t.Helper()
	var d diary
	s, err := OpenFiles([]string{path}, FileOptions{
		Warn:    func(err error) { t.Error(err) },
		Secrets: func(string) io.WriteCloser { return &noted{d: &d} },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	batches, over := make(chan *Batch, 100), make(chan struct{})
	go func() {
		defer close(over)
		for b := range batches {
			time.Sleep(5 * time.Millisecond)
			for _, f := range b.Frames {
				d.add("frame %d", f.Number)
			}
			b.Release()
		}
	}()
	for {
		b, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		batches <- b
	}
	close(batches)
	<-over
	return d.entries
}

// secretsOrders returns in which order secrets and frames of secretsSample come:
// the secrets first, or as they stand.
func secretsOrders() (first, inOrder []string) {
	secrets := []string{`secrets "one\n"`, `secrets "two\n"`, `secrets "lie\n"`, `secrets "last"`}
	var frames []string
	for i := range 6 {
		frames = append(frames, fmt.Sprintf("frame %d", i+1))
	}
	return slices.Concat(secrets, frames),
		slices.Concat(secrets[:1], frames[:2], secrets[1:2], frames[2:4], secrets[2:3], frames[4:], secrets[3:])
}

// Secrets in a file come before its packets, wherever they stand; where the file
// cannot be read twice they come where they stand, when what was before is over.
func TestSecrets(t *testing.T) {
	sample, dir := secretsSample(), t.TempDir()
	first, inOrder := secretsOrders()
	if got := chronicle(t, save(t, dir, "plain", sample)); !slices.Equal(got, first) {
		t.Errorf("file: %q", got)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(sample)
	z.Close()
	if got := chronicle(t, save(t, dir, "packed", packed.Bytes())); !slices.Equal(got, inOrder) {
		t.Errorf("compressed: %q", got)
	}
}

// A file that is cut within secrets is cut.
func TestSecretsCut(t *testing.T) {
	sample := secretsSample()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(sample[:len(sample)-6])
	z.Close()
	for name, b := range map[string][]byte{"plain": sample[:len(sample)-6], "packed": packed.Bytes()} {
		var d diary
		warnings := 0
		s, err := OpenFiles([]string{save(t, t.TempDir(), "f", b)}, FileOptions{
			Warn:    func(error) { warnings++ },
			Secrets: func(string) io.WriteCloser { return &noted{d: &d} },
		})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for {
			b, err := s.Next()
			if err != nil {
				break
			}
			n += len(b.Frames)
			b.Release()
		}
		if n != 6 || warnings != 1 || s.Stats().Broken != 1 {
			t.Errorf("%s: %d frames, %d warnings, %+v", name, n, warnings, s.Stats())
		}
	}
}
