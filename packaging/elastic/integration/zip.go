package main

import (
	"archive/zip"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// writeZip writes the files into a zip, below a folder. The same files give the
// same bytes.
func writeZip(w io.Writer, folder string, files map[string][]byte) error {
	z := zip.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		// No zip can say an earlier time.
		f, err := z.CreateHeader(&zip.FileHeader{
			Name: folder + "/" + name, Method: zip.Deflate, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC),
		})
		if err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if _, err := f.Write(files[name]); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return z.Close()
}
