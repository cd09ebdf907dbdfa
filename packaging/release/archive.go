package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"os"
	"path"
	"path/filepath"
)

// archive writes the archive of a target: a tar.gz, or a zip for Windows. All is in one
// folder of the archive's name.
func (r *release) archive(t target, files []file) error {
	name := r.name() + "-" + t.String()
	var b bytes.Buffer
	if t.os == "windows" {
		w := zip.NewWriter(&b)
		for _, f := range files {
			h := &zip.FileHeader{Name: path.Join(name, f.path), Method: zip.Deflate, Modified: r.time}
			h.SetMode(f.mode)
			part, err := w.CreateHeader(h)
			if err != nil {
				return err
			}
			if _, err := part.Write(f.text); err != nil {
				return err
			}
		}
		if err := w.Close(); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(r.out, name+".zip"), b.Bytes(), 0o644)
	}
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, f := range files {
		h := &tar.Header{Name: path.Join(name, f.path), Mode: int64(f.mode), Size: int64(len(f.text)), ModTime: r.time, Uname: "root", Gname: "root"}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(f.text); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.out, name+".tar.gz"), b.Bytes(), 0o644)
}

// gzipped is text as gzip -9n writes it.
func gzipped(text []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
