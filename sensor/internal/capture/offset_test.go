package capture

import (
	"bytes"
	"cmp"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestOffset finds the bytes of each frame at its offset in the file, and in what a
// compressed file unpacks to.
func TestOffset(t *testing.T) {
	checked := 0
	look := func(path string, text []byte) {
		files, err := OpenFiles([]string{path}, FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		for {
			b, err := files.Next()
			if err != nil {
				return
			}
			for i := range b.Frames {
				f := &b.Frames[i]
				if len(f.Data) == 0 {
					continue
				}
				checked++
				at := b.Offset(f)
				if at < 0 || at+int64(len(f.Data)) > int64(len(text)) || !bytes.Equal(text[at:at+int64(len(f.Data))], f.Data) {
					t.Fatalf("%s: the bytes of frame %d are not at %d", path, f.Number, at)
				}
			}
			b.Release()
		}
	}
	for _, dir := range []string{"../../testdata/captures", filepath.Join(cmp.Or(os.Getenv("ODDCERT_CORPUS"), "../../../../shared/corpus"), "captures")} {
		filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			unpacked, err := decompress(text[:min(len(text), longestMagic)], bytes.NewReader(text), MaxWindow)
			if err != nil {
				return nil
			}
			if unpacked != nil {
				if text, err = io.ReadAll(unpacked); err != nil {
					return nil
				}
			}
			look(path, text)
			return nil
		})
	}
	if checked == 0 {
		t.Fatal("no frame was looked at")
	}
	t.Logf("%d frames", checked)
	live := Batch{Frames: []Frame{{Data: []byte{1}}}}
	if at := live.Offset(&live.Frames[0]); at != -1 {
		t.Errorf("a frame of no file is at %d", at)
	}
}
