package page

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"
)

// alertID is event.id of an alert: it names a pack, and nothing outside of the folder.
var alertID = regexp.MustCompile(`^[0-9A-Za-z_-]{1,64}$`)

// hasPack reports whether there is an evidence pack for an alert.
func (p *Page) hasPack(id string) bool {
	packs := p.packs.Load()
	if packs == nil || !alertID.MatchString(id) {
		return false
	}
	for _, name := range []string{id + ".zip", id} {
		if _, err := packs.Lstat(name); err == nil {
			return true
		}
	}
	return false
}

// sendPack sends the evidence pack of an alert.
func (p *Page) sendPack(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if p.alert(id) == nil || !p.hasPack(id) {
		p.missing(w, "There is no evidence pack for this alert, or not yet.")
		return
	}
	if !turn(r, p.downloads, turnLimit) {
		p.busy(w)
		return
	}
	defer func() { <-p.downloads }()
	w.Header().Set("Content-Disposition", `attachment; filename="`+id+`.zip"`)
	w.Header().Set("Content-Type", "application/zip")
	if r.Method == http.MethodHead {
		return
	}
	to := &patient{w, http.NewResponseController(w), p.config.Now, p.config.Now().Add(packLimit)}
	err := p.writePack(to, id)
	p.answered.Add(1)
	if err != nil {
		p.failed.Add(1)
		p.config.Log.Warn("page: send an evidence pack", "alert", id, "err", err)
		panic(http.ErrAbortHandler) // the reader must see that it is not complete
	}
}

// writePack writes the pack of an alert as a zip file: as it is, or made of its folder.
func (p *Page) writePack(w io.Writer, id string) error {
	packs := p.packs.Load()
	if f, err := packs.Open(id + ".zip"); err == nil {
		defer f.Close()
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			return errors.Join(err, fmt.Errorf("%s.zip is no file", id))
		}
		return copyPack(w, f, new(int64))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	z := zip.NewWriter(w)
	files, size := 0, new(int64)
	err := fs.WalkDir(packs.FS(), id, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is no file", path)
		}
		if files++; files > maxPackFiles {
			return fmt.Errorf("more than %d files", maxPackFiles)
		}
		// An archive that package evidence writes has the same bytes: it checks them.
		h := &zip.FileHeader{Name: strings.TrimPrefix(path, id+"/"), Method: zip.Store, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}
		h.SetMode(0o600)
		entry, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		f, err := packs.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return copyPack(entry, f, size)
	})
	if err != nil {
		return err
	}
	return z.Close()
}

// copyPack copies a file of a pack, of which size bytes were copied before.
func copyPack(w io.Writer, f *os.File, size *int64) error {
	n, err := io.Copy(w, io.LimitReader(f, maxPack-*size+1))
	if *size += n; *size > maxPack {
		return fmt.Errorf("more than %d bytes", maxPack)
	}
	return err
}

// patient sends to a reader who has sendLimit for each piece, and until a time for all.
type patient struct {
	w     io.Writer
	to    *http.ResponseController
	now   func() time.Time
	until time.Time
}

func (p *patient) Write(b []byte) (int, error) {
	if p.now().After(p.until) {
		return 0, errors.New("the reader is too slow")
	}
	_ = p.to.SetWriteDeadline(time.Now().Add(sendLimit)) // where there is no connection, as in tests, there is no limit
	return p.w.Write(b)
}
