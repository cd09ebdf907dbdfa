package shape

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// Watched knows the certificates that are looked for. It is immutable, and safe for
// concurrent use.
type Watched struct {
	certificates []certificateShape // sorted by length
}

// certificateShape is what a certificate makes of the lengths of records.
type certificateShape struct {
	sha256 [32]byte // of the DER
	bytes  int      // of the DER
	key    key
}

// Load reads the certificates that are looked for from the files */watched.txt: in each
// line one, as the SHA-256 of its DER in hex, the length of that in bytes, and its kind
// of key, such as rsa-2048 or ecdsa-p256, with white space between them. "#" at the
// start of a line or after white space begins a comment. The error is all that is wrong
// with them.
func Load(packs fs.FS) (*Watched, error) {
	files, err := fs.Glob(packs, "*/watched.txt")
	if err != nil {
		return nil, err
	}
	w, known := new(Watched), map[[32]byte]certificateShape{}
	var problems []error
	for _, name := range files {
		f, err := packs.Open(name)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		problems = append(problems, w.read(name, f, known)...)
		f.Close()
	}
	if len(w.certificates) > maxWatched {
		problems = append(problems, fmt.Errorf("more than %d watched certificates", maxWatched))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	slices.SortFunc(w.certificates, func(a, b certificateShape) int {
		return cmp.Or(cmp.Compare(a.bytes, b.bytes), slices.Compare(a.sha256[:], b.sha256[:]))
	})
	return w, nil
}

// read reads a file; known are those of all files so far.
func (w *Watched) read(name string, from io.Reader, known map[[32]byte]certificateShape) (problems []error) {
	limited := &io.LimitedReader{R: from, N: maxWatchedFile + 1}
	lines := bufio.NewScanner(limited)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if i := strings.IndexByte(line, '#'); i == 0 || i > 0 && (line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
		}
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		problem := func(format string, args ...any) {
			problems = append(problems, fmt.Errorf("%s:%d: %s", name, n, fmt.Sprintf(format, args...)))
		}
		if len(fields) != 3 {
			problem("%d values; a SHA-256, a length and a kind of key are needed", len(fields))
			continue
		}
		var c certificateShape
		sum, err := hex.DecodeString(fields[0])
		if err != nil || len(sum) != len(c.sha256) {
			problem("%q is no SHA-256: that has 64 hex digits", fields[0])
			continue
		}
		c.sha256 = [32]byte(sum)
		if c.bytes, err = strconv.Atoi(fields[1]); err != nil || c.bytes < shortestDER || c.bytes > full {
			problem("%q is no length of a certificate: that is %d to %d bytes", fields[1], shortestDER, full)
			continue
		}
		var ok bool
		if c.key, ok = keyNamed(fields[2]); !ok {
			problem("%q is no kind of key that is known", fields[2])
			continue
		}
		switch other, again := known[c.sha256]; {
		case !again:
			known[c.sha256] = c
			w.certificates = append(w.certificates, c)
		case other != c: // two packs may look for the same
			problem("certificate %s has another length or kind of key elsewhere", fields[0])
		}
	}
	switch err := lines.Err(); {
	case err != nil:
		problems = append(problems, fmt.Errorf("%s: %w", name, err))
	case limited.N == 0:
		problems = append(problems, fmt.Errorf("%s: longer than %d bytes", name, maxWatchedFile))
	}
	return problems
}

// Fits appends to dst the SHA-256 of the certificates that s, which is of h, fits: a
// server that sends one of them alone, without extensions, would send records of
// exactly these lengths. It allocates nothing where none fits.
func (w *Watched) Fits(s *judgement.Shape, h *event.Handshake, dst [][32]byte) [][32]byte {
	if w == nil || s == nil {
		return dst
	}
	for i := range w.certificates {
		c := &w.certificates[i]
		if fits(s, h, certificate+entry+c.bytes, c.key) {
			dst = append(dst, c.sha256)
		}
	}
	return dst
}
