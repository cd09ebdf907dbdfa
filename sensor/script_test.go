package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"
)

// The commands as a shell sees them: testdata/script.
//
// Beside the usual commands of a script there is
//
//	exits STATUS PROGRAM [ARG…]
//
// which runs a program and wants it to end with that exit status. $ODD is the
// capture of the odd certificate, $SHA256 the hash of that certificate; and the
// script finds made files in its folder, see [makeFiles] and [makeKeyed].
func TestScript(t *testing.T) {
	captures, err := filepath.Abs(capturesDir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(captures, "odd-certificate", "want.json"))
	if err != nil {
		t.Fatal(err)
	}
	var odd golden
	if err := json.Unmarshal(text, &odd); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("STATE_DIRECTORY", filepath.Join(env.WorkDir, "state")) // it is not there, see ownState
			env.Setenv("CAPTURES", captures)
			env.Setenv("ODD", filepath.Join(captures, "odd-certificate", "capture.pcap"))
			env.Setenv("SHA256", odd.Handshakes[0].Chain[0])
			if err := makeKeyed(env.WorkDir); err != nil {
				return err
			}
			return makeFiles(env.WorkDir, env.Getenv("ODD"))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Condition: func(condition string) (bool, error) {
			if condition == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, errors.New("unknown condition")
		},
	})
}

func exits(ts *testscript.TestScript, negated bool, args []string) {
	if negated || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM [ARG…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var status *exec.ExitError
		if !errors.As(err, &status) {
			ts.Fatalf("%v", err)
		}
		got = status.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, not %d", got, want)
	}
}

// makeFiles makes damaged and compressed copies of a capture with the header
// of pcap (24 bytes, then 16 before each packet; little-endian).
func makeFiles(dir, path string) error {
	whole, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	changed := func(offset int, value uint32) []byte {
		b := slices.Clone(whole)
		binary.LittleEndian.PutUint32(b[offset:], value)
		return b
	}
	var packets []int // offsets
	for at := 24; at < len(whole); at += 16 + int(binary.LittleEndian.Uint32(whole[at+8:])) {
		packets = append(packets, at)
	}
	last := packets[len(packets)-1]
	// The first packet of OpenVPN with tls-crypt, which encrypts all behind the
	// session and the packet's number and time.
	channel := slices.Concat([]byte{7 << 3}, []byte("session!"), []byte{0, 0, 0, 1, 0x66, 1, 2, 3}, bytes.Repeat([]byte{0xaa}, 37))
	frame := slices.Concat(make([]byte, 12), []byte{8, 0, 0x45, 0, 0, byte(28 + len(channel)), 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2},
		[]byte{0x9c, 0x40, 0x04, 0xaa, 0, byte(8 + len(channel)), 0, 0}, channel)
	opaque := binary.LittleEndian.AppendUint64(nil, 1_700_000_000)
	opaque = binary.LittleEndian.AppendUint32(opaque, uint32(len(frame)))
	opaque = append(binary.LittleEndian.AppendUint32(opaque, uint32(len(frame))), frame...)
	// The same frames behind a tag that no standard knows.
	tagged := slices.Clone(whole[:24])
	for _, at := range packets {
		n := int(binary.LittleEndian.Uint32(whole[at+8:]))
		tagged = append(tagged, whole[at:at+8]...)
		tagged = binary.LittleEndian.AppendUint32(tagged, uint32(n+4))
		tagged = binary.LittleEndian.AppendUint32(tagged, uint32(n+4))
		tagged = append(tagged, whole[at+16:at+16+12]...)
		tagged = append(tagged, 0x94, 0x00, 0x00, 0x07)
		tagged = append(tagged, whole[at+16+12:at+16+n]...)
	}
	var gz, zst bytes.Buffer
	g := gzip.NewWriter(&gz)
	if _, err := g.Write(whole); err != nil {
		return err
	}
	if err := g.Close(); err != nil {
		return err
	}
	z, err := zstd.NewWriter(&zst)
	if err != nil {
		return err
	}
	if _, err := z.Write(whole); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	for name, b := range map[string][]byte{
		"packed-gzip":     gz.Bytes(), // told by content, not by name
		"packed-zstd":     zst.Bytes(),
		"cut-packed.pcap": gz.Bytes()[:gz.Len()/2],
		"cut.pcap":        whole[:len(whole)-5],        // in its last packet
		"huge.pcap":       changed(last+8, 0xFFFFFFF0), // the last packet claims 4 GB
		"linktype.pcap":   changed(20, 147),            // LINKTYPE_USER0
		"empty.pcap":      whole[:24],
		"can.pcap":        changed(20, 227), // LINKTYPE_CAN_SOCKETCAN
		"archive.7z":      []byte("7z\xbc\xaf\x27\x1c and so on"),
		"twice.pcap":      slices.Concat(whole, whole),
		"opaque.pcap":     slices.Concat(whole[:24], opaque),
		"tagged.pcap":     tagged,
		"public.pcap":     bytes.ReplaceAll(whole, []byte{192, 0, 2, 2}, []byte{13, 64, 0, 2}), // the server is in a network of Microsoft
		"nothing.pcap":    nil,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
