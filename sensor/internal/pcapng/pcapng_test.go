package pcapng

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/gopacket/pcapgo"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// write writes packets into a file.
func write(t testing.TB, packets []Packet) string {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, Section{Application: "oddcert", Comment: "of a test"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range packets {
		if err := w.Packet(&packets[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if w.Written() != int64(b.Len()) {
		t.Errorf("%d bytes are said to be written, and %d are", w.Written(), b.Len())
	}
	path := filepath.Join(t.TempDir(), "a.pcapng")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// FuzzWriter writes packets that are made of arbitrary bytes, and reads them again with
// package capture and with gopacket.
func FuzzWriter(f *testing.F) {
	f.Add([]byte("\x01\x00\x05hello\x02\x01\x00\x01\x03\x03abc"), int64(1700000000123456789), "a comment")
	f.Add([]byte("\x01\x00\x05hello\x02\x01\x00\x01\x03\x03abc"), int64(-1), "\xff\x00\n\u202e")
	f.Add([]byte{0xff, 1, 0}, int64(-1<<62), strings.Repeat("ä", 40000))
	f.Fuzz(func(t *testing.T, raw []byte, time int64, comment string) {
		links := []linktype.Type{linktype.Ethernet, linktype.Raw, linktype.LinuxSLL2, linktype.PKTAP}
		time = max(time, earlyEpoch*1e9)
		var packets []Packet
		for at := 0; len(raw) >= 3 && at < 100; at++ {
			n := min(int(raw[2]), len(raw)-3)
			p := Packet{
				Interface: Interface{LinkType: links[raw[0]%4], Name: fmt.Sprint("eth", raw[1]%3)},
				Time:      time, Length: uint32(n) + uint32(raw[1]), Data: raw[3 : 3+n],
			}
			if raw[0]&4 != 0 {
				p.Comments = []string{comment, "more"}
			}
			if raw[0]&8 != 0 {
				p.Interface.Description = comment
			}
			packets, raw = append(packets, p), raw[3+n:]
		}
		if len(packets) == 0 {
			return
		}
		path := write(t, packets)
		files, err := capture.OpenFiles([]string{path}, capture.FileOptions{Warn: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		at := 0
		for {
			b, err := files.Next()
			if err == io.EOF {
				break
			}
			for _, got := range b.Frames {
				want := &packets[at]
				if !bytes.Equal(got.Data, want.Data) || got.Time != want.Time || got.Length != want.Length || got.LinkType != want.Interface.LinkType {
					t.Fatalf("packet %d: %+v was written, and %+v read", at, want, got)
				}
				at++
			}
			b.Release()
		}
		if at != len(packets) {
			t.Fatalf("%d of %d packets were read", at, len(packets))
		}
		in, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		options := pcapgo.DefaultNgReaderOptions
		options.WantMixedLinkType = true
		r, err := pcapgo.NewNgReader(in, options)
		if err != nil {
			t.Fatal(err)
		}
		for i := range packets {
			data, info, err := r.ReadPacketData()
			if err != nil {
				t.Fatalf("gopacket: packet %d: %v", i, err)
			}
			if !bytes.Equal(data, packets[i].Data) || info.Length != int(packets[i].Length) || time >= 0 && info.Timestamp.UnixNano() != time {
				t.Fatalf("gopacket: packet %d: %+v was written, and %+v read", i, packets[i], info)
			}
		}
	})
}

// Tools of Wireshark read the file without a complaint, comments and secrets included.
func TestWireshark(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip("tshark is not installed")
	}
	var b bytes.Buffer
	w, err := NewWriter(&b, Section{Hardware: "a machine", OS: "an OS", Application: "oddcert 1", Comment: "the file"})
	if err != nil {
		t.Fatal(err)
	}
	secrets := "CLIENT_RANDOM " + strings.Repeat("ab", 32) + " " + strings.Repeat("cd", 48) + "\n"
	if err := w.Secrets([]byte(secrets)); err != nil {
		t.Fatal(err)
	}
	for i, link := range []linktype.Type{linktype.Ethernet, linktype.LinuxSLL2, linktype.Ethernet} {
		p := Packet{Interface: Interface{LinkType: link, Name: "mirror", Description: "a capture"}, Time: 1700000000123456789 + int64(i), Length: 1500, Data: make([]byte, 61+i)}
		if i == 2 {
			p.Comments = []string{"ClientHello", "the second, with ü\nand a line"}
		}
		if err := w.Packet(&p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.pcapng")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		var stderr bytes.Buffer
		c := exec.Command(name, args...)
		c.Stderr = &stderr
		out, err := c.Output()
		complaints := strings.ReplaceAll(stderr.String(), "Running as user \"root\" and group \"root\". This could be dangerous.\n", "")
		if err != nil || complaints != "" {
			t.Errorf("%s: %v, %s", name, err, complaints)
		}
		return string(out)
	}
	fields := run("tshark", "-r", path, "-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "frame.cap_len", "-e", "frame.interface_name", "-e", "frame.comment", "-E", "separator=|")
	want := "1700000000.123456789|1500|61|mirror|\n1700000000.123456790|1500|62|mirror|\n1700000000.123456791|1500|63|mirror|ClientHello,the second, with ü\\nand a line\n"
	if fields != want {
		t.Errorf("tshark reads\n%s, and this was written:\n%s", fields, want)
	}
	if _, err := exec.LookPath("capinfos"); err == nil {
		info := run("capinfos", path)
		for _, want := range []string{"Number of packets:   3", "Capture oper-sys:    an OS", "Capture application: oddcert 1", "Capture comment:     the file", "a machine", "Number of decryption secrets in file: 1"} {
			if !strings.Contains(info, want) {
				t.Errorf("capinfos says nothing of %q:\n%s", want, info)
			}
		}
	}
	var got bytes.Buffer
	files, err := capture.OpenFiles([]string{path}, capture.FileOptions{Secrets: func(string) io.WriteCloser { return keyLog{&got} }})
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if _, err := files.Next(); err != nil || got.String() != secrets {
		t.Errorf("the secrets are read as %q (%v), and %q was written", got.String(), err, secrets)
	}
}

// keyLog takes secrets that package capture has read.
type keyLog struct{ *bytes.Buffer }

func (keyLog) Close() error { return nil }
