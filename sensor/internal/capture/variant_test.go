package capture

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// editcap writes a capture in each of pcap's variants, and what is read is the
// same. A capture whose later records are damaged is read as what it was.
func TestPcapVariants(t *testing.T) {
	editcap, err := exec.LookPath("editcap")
	if err != nil {
		t.Skip("editcap is not installed")
	}
	const original = "../../testdata/captures/tls12-chain/capture.pcap"
	read := func(path string) (all [][]byte, times []int64) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p, used, _, err := detect(b)
		if err != nil || p == nil {
			t.Fatalf("%s: %v", path, err)
		}
		p.packets().clock = new(Clock)
		p.(*pcap).detectVariant(b[used:])
		frames, n, _, err := p.parse(b[used:], nil)
		if err != nil || int(n) != len(b)-used {
			t.Fatalf("%s: %d of %d bytes: %v", path, n, len(b)-used, err)
		}
		for _, f := range frames {
			all, times = append(all, f.Data), append(times, f.Time)
		}
		return all, times
	}
	want, wantTimes := read(original)
	for _, format := range []string{"pcap", "nsecpcap", "modpcap", "nokiapcap", "rh6_1pcap", "suse6_3pcap"} {
		path := filepath.Join(t.TempDir(), format)
		if out, err := exec.Command(editcap, "-F", format, original, path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got, times := read(path)
		if len(got) != len(want) {
			t.Errorf("%s: %d frames, not %d", format, len(got), len(want))
			continue
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) || times[i] != wantTimes[i] {
				t.Errorf("%s: frame %d differs", format, i+1)
				break
			}
		}
	}
	b, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	// Ixia's, which editcap only reads.
	path := filepath.Join(t.TempDir(), "ixia")
	ixia := append([]byte{0xab, 0x01, 0x00, 0x1c}, b[4:pcapHeaderLen]...)
	ixia = append(append(ixia, 0, 0, 0, 0), b[pcapHeaderLen:]...)
	if err := os.WriteFile(path, ixia, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(editcap, "-F", "pcap", path, path+".pcap").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, path := range []string{path, path + ".pcap"} {
		if got, times := read(path); len(got) != len(want) || !bytes.Equal(got[3], want[3]) || times[3] != wantTimes[3] {
			t.Errorf("%s: %d frames", filepath.Base(path), len(got))
		}
	}
	for at := pcapHeaderLen; at < min(len(b), 400); at++ {
		damaged := bytes.Clone(b)
		damaged[at] ^= 0xff
		p, used, _, _ := detect(damaged)
		if p.(*pcap).detectVariant(damaged[used:]); p.(*pcap).header != 16 {
			t.Errorf("with byte %d damaged the headers have %d bytes", at, p.(*pcap).header)
		}
	}
}
