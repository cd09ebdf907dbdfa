package page

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestPack sends packs that are folders, and those that are files, and nothing else.
func TestPack(t *testing.T) {
	const id = "67e5a1d0aabbccddeeff001122334455"
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := "/alerts/" + id + "/evidence.zip"
	w := newWorld(t, Config{})
	if err := w.SendFrom(dir); err != nil {
		t.Fatal(err)
	}
	if a := w.get(address); a.Code != 404 {
		t.Errorf("before there is a pack: %d", a.Code)
	}
	content := map[string]string{"alert.json": "{}", "certificates/0.der": "\x30\x00", "README.txt": "a pack"}
	for name, text := range content {
		write(id+"/"+name, text)
	}
	write("67e5a1d0aabbccddeeff001122334499/alert.json", "of no alert")
	a := w.get(address)
	if a.Code != 200 || a.Header().Get("Content-Type") != "application/zip" || a.Header().Get("Content-Disposition") != `attachment; filename="`+id+`.zip"` {
		t.Fatal(a.Code, a.Header())
	}
	check(t, address, a)
	z, err := zip.NewReader(bytes.NewReader(a.Body.Bytes()), int64(a.Body.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || string(b) != content[f.Name] {
			t.Errorf("%s: %q, %v", f.Name, b, err)
		}
		delete(content, f.Name)
	}
	if len(content) > 0 {
		t.Errorf("missing: %q", content)
	}
	for _, other := range []string{"67e5a1d0aabbccddeeff001122334499", "..", "%2e%2e", "..%2f" + id, id + "%2falert.json", id + "%00"} {
		if a := w.get("/alerts/" + other + "/evidence.zip"); a.Code == 200 {
			t.Errorf("%s: %d", other, a.Code)
		}
	}
	if a := w.get("/alerts/" + id); !bytes.Contains(a.Body.Bytes(), []byte(address)) {
		t.Error("the alert has no link to its pack")
	}

	// A link that leads out of the folder is not followed, and what is broken looks broken.
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, id, "link")); err != nil {
		t.Skip(err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a pack with a link is sent as if it was complete")
			}
		}()
		w.get(address)
	}()
	if err := os.RemoveAll(filepath.Join(dir, id)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(dir, id)); err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }()
		if a := w.get(address); bytes.Contains(a.Body.Bytes(), []byte("passwd")) {
			t.Error("a link is followed")
		}
	}()
	if err := os.Remove(filepath.Join(dir, id)); err != nil {
		t.Fatal(err)
	}
	write(id+".zip", "PK as it is")
	if a := w.get(address); a.Body.String() != "PK as it is" {
		t.Errorf("%d, %q", a.Code, a.Body)
	}
}
