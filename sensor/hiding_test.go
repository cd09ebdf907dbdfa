package main

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/rules"
)

// lookAlikeRule is the rule that the certificate of oddFrames raises.
const lookAlikeRule = "7f0c9b0e-1b64-4a38-b1f3-3b7e5a0b9c03"

var oddCapture = filepath.Join(capturesDir, "odd-certificate", "capture.pcap")

// oddFrames returns the frames of the handshake that raises an alert, over
// Ethernet, IPv4 without options, and TCP, with another port of the client.
func oddFrames(t *testing.T, port uint16) (frames [][]byte) {
	t.Helper()
	b, err := os.ReadFile(oddCapture)
	if err != nil {
		t.Fatal(err)
	}
	const ports, checksum = 14 + 20, 14 + 20 + 16
	for at := 24; at < len(b); {
		size := int(binary.LittleEndian.Uint32(b[at+8:]))
		f := slices.Clone(b[at+16 : at+16+size])
		client := f[ports:][:2]
		if binary.BigEndian.Uint16(client) == 443 {
			client = f[ports+2:][:2]
		}
		// RFC 1624, section 3.
		sum := uint32(^binary.BigEndian.Uint16(f[checksum:])) + uint32(^binary.BigEndian.Uint16(client)) + uint32(port)
		sum = sum&0xFFFF + sum>>16
		sum = sum&0xFFFF + sum>>16
		binary.BigEndian.PutUint16(client, port)
		binary.BigEndian.PutUint16(f[checksum:], ^uint16(sum))
		frames = append(frames, f)
		at += 16 + size
	}
	return frames
}

// everyAlert is a folder with the rules that count alerts which are like others,
// changed so that they raise each.
func everyAlert(t *testing.T) string {
	t.Helper()
	dir, packs := t.TempDir(), rules.Builtin().FS
	err := fs.WalkDir(packs, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(name) != ".yml" {
			return err
		}
		b, err := fs.ReadFile(packs, name)
		if text, _, ok := strings.Cut(string(b), "  suppress:"); ok && err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(name)), []byte(text), 0o600)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// raised is how often records alert of the look-alike, or count it.
func raised(all []record) (n int) {
	for _, r := range all {
		if r.Event.Dataset == "oddcert.alert" && r.Rule.ID == lookAlikeRule {
			n += max(r.Oddcert.Suppressed.Count, 1)
		}
	}
	return n
}

// Each capture has one handshake with the certificate of the look-alike, and a few
// packets that somebody else forged between its packets: it raises its alert.
func TestForgedPackets(t *testing.T) {
	dir := cmp.Or(os.Getenv("ODDCERT_ATTACKS"), "../../shared/attacks")
	paths, _ := filepath.Glob(filepath.Join(dir, "*.pcap"))
	if len(paths) == 0 {
		t.Skip("no forged captures here: ODDCERT_ATTACKS names their folder")
	}
	for _, path := range paths {
		all, _ := replayed(t, "--records", "alert", path)
		if raised(all) == 0 {
			t.Errorf("%s: no alert", filepath.Base(path))
		}
	}
}

// Each capture has a condition that users of other programs have reported, and
// the handshakes that must be seen in spite of it.
func TestReportedConditions(t *testing.T) {
	dir := cmp.Or(os.Getenv("ODDCERT_CASES"), "../../shared/cases")
	text, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Skipf("no reported conditions here: %v (ODDCERT_CASES names their folder)", err)
	}
	var expected map[string]struct {
		Handshakes []struct {
			Certificates, Carrier string
			ServerName            string `json:"server_name"`
			Chain                 []string
		}
		Why string
	}
	if err := json.Unmarshal(text, &expected); err != nil {
		t.Fatal(err)
	}
	for name, want := range expected {
		all, _ := replayed(t, "--records", "handshake", filepath.Join(dir, name))
		left := slices.Clone(all)
		for _, w := range want.Handshakes {
			i := slices.IndexFunc(left, func(r record) bool {
				got := r.Oddcert.Chain
				slices.Sort(got)
				slices.Sort(w.Chain)
				return r.Oddcert.Certificates == w.Certificates && (w.Carrier == "" || r.Oddcert.Carrier == w.Carrier) &&
					(w.ServerName == "" || r.TLS.Client.ServerName == w.ServerName) && (w.Chain == nil || slices.Equal(got, w.Chain))
			})
			if i < 0 {
				t.Errorf("%s (%s): a handshake is missing", name, want.Why)
				continue
			}
			left = slices.Delete(left, i, i+1)
		}
		if len(left) > 0 {
			t.Errorf("%s (%s): %d handshakes too many", name, want.Why, len(left))
		}
	}
}

// sum16 adds the 16-bit words of b to an Internet checksum (RFC 1071).
func sum16(sum uint32, b []byte) uint16 {
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i&1))
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// Somebody who sees the connection puts a segment of other content, with all the
// right numbers, before one of the server's: what never reaches the client must
// not hide what does. Either copy may be the true one, so that both are parsed.
func TestInsertedSegments(t *testing.T) {
	const tcp = 14 + 20
	frames := oddFrames(t, 40000)
	for i, f := range frames {
		header := tcp + int(f[tcp+12]>>4)*4
		size := 14 + int(binary.BigEndian.Uint16(f[16:])) - header
		if size <= 0 || binary.BigEndian.Uint16(f[tcp:]) != 443 {
			continue
		}
		for name, content := range map[string]string{
			"zeros":            "\x00",
			"another protocol": "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
			"encrypted data":   "\x17\x03\x03\x3f\xff",
			"a fatal alert":    "\x15\x03\x03\x00\x02\x02\x28",
		} {
			forged := slices.Clone(f)
			copy(forged[header:header+size], strings.Repeat(content, size/len(content)+1))
			forged[tcp+16], forged[tcp+17] = 0, 0
			pseudo := sum16(6+uint32(len(forged[tcp:header+size])), forged[26:tcp])
			binary.BigEndian.PutUint16(forged[tcp+16:], ^sum16(uint32(pseudo), forged[tcp:header+size]))
			path := writeFrames(t, slices.Insert(slices.Clone(frames), i, forged))
			all, _ := replayed(t, "--records", "alert", path)
			if raised(all) == 0 {
				t.Errorf("%s before frame %d: no alert", name, i+1)
			}
		}
	}
}

// writeFrames writes a capture.
func writeFrames(t *testing.T, frames [][]byte) string {
	t.Helper()
	b := []byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0}
	for i, f := range frames {
		for _, n := range []int{1_700_000_000, i, len(f), len(f)} {
			b = binary.LittleEndian.AppendUint32(b, uint32(n))
		}
		b = append(b, f...)
	}
	path := filepath.Join(t.TempDir(), "made.pcap")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
