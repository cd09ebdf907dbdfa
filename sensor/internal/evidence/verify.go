package evidence

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
	"github.com/oddcert/oddcert/sensor/internal/pcapng"
)

// Found is an alert that a replay of the capture of a pack has raised.
type Found struct {
	Subject
	Certificates []string // SHA-256 of the server's, in the order sent, upper-case hex
}

// VerifyOptions say what to hold packs against.
type VerifyOptions struct {
	// Signers are those whose signatures are trusted; nil where the signature of any key
	// will do, whose fingerprint is told.
	Signers *Signers
	// Replay runs the rules over a capture, which is a file of this name, and returns the
	// alerts.
	Replay func(ctx context.Context, file string) ([]Found, error)
	// Version is that of the rule with an id; empty where it is not loaded.
	Version func(rule string) string
}

// Checked is what was found out about a pack.
type Checked struct {
	Path     string   `json:"path"`
	ID       string   `json:"id,omitempty"`
	Title    string   `json:"title,omitempty"` // of the rule
	Manifest string   `json:"manifest,omitempty"`
	SignedBy string   `json:"signed_by,omitempty"` // fingerprint of the key
	Signer   string   `json:"signer,omitempty"`    // whose key that is, where signers are known
	Again    bool     `json:"again"`               // the rule finds the same alert in the capture
	Problems []string `json:"problems"`
	Notes    []string `json:"notes,omitempty"` // what limits the pack, without anything being wrong

	previous string
	size     int64 // bytes of its files
}

// Result is what was found out about all packs at a path.
type Result struct {
	Packs    []Checked `json:"packs"`
	Chain    int       `json:"chain"`    // lines of the chain
	Head     string    `json:"head"`     // SHA-256 of the newest manifest; empty without a chain
	Problems []string  `json:"problems"` // of the chain
}

// Wrong counts what is wrong, packs and chain together.
func (r *Result) Wrong() int {
	n := len(r.Problems)
	for _, p := range r.Packs {
		n += len(p.Problems)
	}
	return n
}

// Verify checks what is at path: a folder of packs, a pack, or an archive with one. The
// error is that of a path that cannot be read, or is none of these; what is wrong with
// packs is in the result. All that it reads may be anybody's.
func Verify(ctx context.Context, path string, o VerifyOptions) (*Result, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("verify evidence: %w", err)
	}
	r := &Result{Problems: []string{}}
	if !info.IsDir() {
		root, err := os.OpenRoot(filepath.Dir(path))
		if err != nil {
			return nil, fmt.Errorf("verify evidence: %w", err)
		}
		defer root.Close()
		files, err := readPack(root, filepath.Base(path))
		name := strings.TrimSuffix(filepath.Base(path), zipSuffix)
		r.Packs = append(r.Packs, check(ctx, path, name, files, err, o))
		return r, nil
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("verify evidence: %w", err)
	}
	defer root.Close()
	_, noManifest := root.Lstat(manifestName)
	_, noChain := root.Lstat(chainName)
	if noManifest == nil || noChain != nil && holdsPack(root) {
		files, err := readFolder(root)
		whole, absolute := filepath.Abs(path)
		if absolute != nil {
			whole = path
		}
		r.Packs = append(r.Packs, check(ctx, path, filepath.Base(whole), files, err, o))
		return r, nil
	}
	if err := r.folder(ctx, root, path, o); err != nil {
		return nil, fmt.Errorf("verify evidence: %w", err)
	}
	if noChain != nil && len(r.Packs) == 0 {
		return nil, fmt.Errorf("verify evidence: %s is neither a pack nor a folder of packs", path)
	}
	return r, nil
}

// holdsPack reports whether a folder is a pack whose manifest is missing.
func holdsPack(root *os.Root) bool {
	_, alert := root.Lstat(alertName)
	_, capture := root.Lstat(captureName)
	return alert == nil || capture == nil
}

// folder checks all packs in a folder, and the chain.
func (r *Result) folder(ctx context.Context, root *os.Root, path string, o VerifyOptions) error {
	lines := r.chain(root)
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	at := map[string]int{} // of the packs in r.Packs, by their ids
	for _, e := range entries {
		id := strings.TrimSuffix(e.Name(), zipSuffix)
		switch {
		case e.Name() == chainName:
			continue
		case isPart(e.Name()):
			r.problem("%s is a pack in the making: a sensor is writing it, or was stopped", e.Name())
			continue
		case !isID(id):
			r.problem("%q is not a pack", clip(e.Name()))
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		files, err := readPack(root, e.Name())
		if _, twice := at[id]; twice {
			r.problem("there are two packs of the alert %s", id)
		}
		at[id] = len(r.Packs)
		r.Packs = append(r.Packs, check(ctx, filepath.Join(path, e.Name()), id, files, err, o))
	}
	known := map[string]bool{}
	previous := none
	for n, l := range lines {
		if l.previous != previous {
			r.problem("line %d of the chain does not follow from the one before: a pack was taken out, or lines have changed their order", n+1)
		}
		previous = l.manifest
		if known[l.id] {
			r.problem("line %d of the chain: the pack %s is in it twice", n+1, l.id)
		}
		known[l.id] = true
		i, there := at[l.id]
		if !there {
			r.problem("the pack %s is missing: line %d of the chain has it", l.id, n+1)
			continue
		}
		switch p := &r.Packs[i]; {
		case p.Manifest != l.manifest:
			p.problem("%s is not the one of line %d of the chain", manifestName, n+1)
		case p.previous != l.previous:
			p.problem("%s names another pack before it than line %d of the chain", manifestName, n+1)
		case p.size != l.size:
			p.problem("it has %d bytes; line %d of the chain says %d", p.size, n+1, l.size)
		}
	}
	for i := range r.Packs {
		if p := &r.Packs[i]; !known[strings.TrimSuffix(filepath.Base(p.Path), zipSuffix)] {
			p.problem("the chain does not have it: it was added, or its line was taken out")
		}
	}
	r.Chain = len(lines)
	if len(lines) > 0 {
		r.Head = previous
	}
	return nil
}

// chain reads the chain of a folder. A process that writes a pack is waited for.
func (r *Result) chain(root *os.Root) (lines []line) {
	info, err := root.Lstat(chainName)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a file")
	}
	if err == nil && info.Size() > maxChain {
		err = fmt.Errorf("it has %d bytes, more than %d", info.Size(), maxChain)
	}
	var f *os.File
	if err == nil {
		f, err = ownfile.OpenIn(root, chainName, os.O_RDONLY, 0)
	}
	if err != nil {
		r.problem("the chain cannot be read: %v", plainError(err))
		return nil
	}
	defer f.Close()
	_ = ownfile.Lock(f) // where there are no locks, or it may not: it is read as it is
	text := bufio.NewReaderSize(io.LimitReader(f, maxChain), maxLine+1)
	for n := 1; ; n++ {
		s, err := text.ReadSlice('\n')
		l, ok := parseLine(string(s))
		for err == bufio.ErrBufferFull { // longer than any line
			_, err = text.ReadSlice('\n')
		}
		if err != nil && err != io.EOF {
			r.problem("the chain cannot be read: %v", plainError(err))
			return lines
		}
		switch {
		case ok && err == nil:
			lines = append(lines, l)
		case len(s) > 0:
			r.problem("line %d of the chain cannot be read", n)
		}
		if err != nil {
			return lines
		}
	}
}

func plainError(err error) string { return plain(err.Error(), maxText) }

func (r *Result) problem(format string, args ...any) { say(&r.Problems, format, args...) }

func (p *Checked) problem(format string, args ...any) { say(&p.Problems, format, args...) }

func say(list *[]string, format string, args ...any) {
	switch n := len(*list); {
	case n < maxProblems:
		*list = append(*list, fmt.Sprintf(format, args...))
	case n == maxProblems:
		*list = append(*list, "and more")
	}
}

// check checks one pack, which should be of the alert id.
func check(ctx context.Context, path, id string, files []file, unread error, o VerifyOptions) (p Checked) {
	p = Checked{Path: path, Problems: []string{}, size: bytesOf(files)}
	if unread != nil {
		p.problem("%s", plainError(unread))
		if len(files) == 0 {
			return p
		}
	}
	text := find(files, manifestName)
	if text == nil {
		p.problem("%s is missing", manifestName)
		return p
	}
	p.Manifest = sum(text)
	m, err := parseManifest(text)
	if err != nil {
		p.problem("%s", plainError(err))
		if s := find(files, sumsName); s != nil && !bytes.Contains(s, []byte(p.Manifest)) {
			p.problem("%s has another hash of %s", sumsName, manifestName)
		}
		return p
	}
	p.ID, p.previous = m.ID, m.Previous
	if isID(id) && id != m.ID {
		p.problem("it is the pack of the alert %s, and has the name of another", m.ID)
	}
	p.hashes(m, text, files)
	p.signature(m, text, files, o)
	p.contents(m, files)
	p.again(ctx, m, files, o)
	return p
}

// hashes checks that the files are those of the manifest.
func (p *Checked) hashes(m *Manifest, text []byte, files []file) {
	known := map[string]bool{manifestName: true, sumsName: true, signatureName: true}
	for _, f := range m.Files {
		known[f.Name] = true
		i := slices.IndexFunc(files, func(x file) bool { return x.name == f.Name })
		switch {
		case i < 0:
			p.problem("%s is missing", f.Name)
		case len(files[i].data) != f.Size:
			p.problem("%s has %d bytes, not %d", f.Name, len(files[i].data), f.Size)
		case sum(files[i].data) != f.SHA256:
			p.problem("%s was changed: its SHA-256 is %s", f.Name, sum(files[i].data))
		}
	}
	seen := map[string]bool{}
	for _, f := range files {
		if !known[f.name] {
			p.problem("%q is not in the manifest", clip(f.name))
		} else if seen[f.name] {
			p.problem("%s is there twice", f.name)
		}
		seen[f.name] = true
	}
	for _, name := range []string{alertName, captureName, ruleName, textName} {
		if !slices.ContainsFunc(m.Files, func(f FileHash) bool { return f.Name == name }) {
			p.problem("%s is not in the manifest", name)
		}
	}
	switch s := find(files, sumsName); {
	case s == nil:
		p.problem("%s is missing", sumsName)
	case !bytes.Equal(s, sums(m, text)):
		p.problem("%s was changed, or the manifest was", sumsName)
	}
}

// signature checks who has signed the manifest.
func (p *Checked) signature(m *Manifest, text []byte, files []file, o VerifyOptions) {
	signature := find(files, signatureName)
	switch {
	case signature == nil && m.SignedBy != "":
		p.problem("%s is missing: the key %s has signed the pack", signatureName, clip(m.SignedBy))
		return
	case signature == nil && o.Signers != nil:
		p.problem("it is not signed")
		return
	case signature == nil:
		p.Notes = append(p.Notes, "it is not signed: whoever can write to the folder could have made it")
		return
	}
	key, err := checkSignature(text, signature)
	if err != nil {
		p.problem("%s: %s", signatureName, plainError(err))
		return
	}
	p.SignedBy = fingerprint(key)
	if p.SignedBy != m.SignedBy {
		p.problem("%s is of the key %s, and the manifest names %q", signatureName, p.SignedBy, clip(m.SignedBy))
	}
	if o.Signers == nil {
		return
	}
	made, err := time.Parse(time.RFC3339Nano, m.Made)
	if err != nil {
		p.problem("the manifest does not say when the pack was made")
		return
	}
	if p.Signer, err = o.Signers.who(key, made); err != nil {
		p.problem("%s: %v (%s)", signatureName, err, p.SignedBy)
	}
}

// contents checks that the files say the same of the alert as the manifest.
func (p *Checked) contents(m *Manifest, files []file) {
	var record struct {
		Event struct {
			ID string `json:"id"`
		} `json:"event"`
		Rule struct {
			ID, Version, Name string
		} `json:"rule"`
		TLS struct {
			Server struct {
				Hash struct {
					SHA256 string `json:"sha256"`
				} `json:"hash"`
			} `json:"server"`
		} `json:"tls"`
	}
	if err := json.Unmarshal(find(files, alertName), &record); err != nil {
		p.problem("%s is not the JSON of an alert", alertName)
		return
	}
	p.Title = record.Rule.Name
	for _, x := range []struct{ what, record, manifest string }{
		{"event.id", record.Event.ID, m.ID}, {"rule.id", record.Rule.ID, m.Subject.Rule},
		{"rule.version", record.Rule.Version, m.Subject.RuleVersion}, {"tls.server.hash.sha256", record.TLS.Server.Hash.SHA256, m.Subject.Leaf},
	} {
		if x.record != x.manifest {
			p.problem("%s says that %s is %q, and the manifest %q", alertName, x.what, clip(x.record), clip(x.manifest))
		}
	}
	if leaf := find(files, "server-00.der"); m.Subject.Leaf != "" && !strings.EqualFold(sum(leaf), m.Subject.Leaf) {
		p.problem("server-00.der is not the server's certificate that the manifest names")
	}
	for _, f := range files {
		name, isDER := strings.CutSuffix(f.name, ".der")
		if !isDER {
			continue
		}
		if want := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.data}); !bytes.Equal(want, find(files, name+".pem")) {
			p.problem("%s.pem is not the certificate of %s", clip(name), clip(f.name))
		}
	}
}

// again runs the rule over the capture, and says what differs.
func (p *Checked) again(ctx context.Context, m *Manifest, files []file, o VerifyOptions) {
	if m.Frames.Missing != "" {
		p.Notes = append(p.Notes, "frames of the handshake are missing: "+plain(m.Frames.Missing, maxText))
	}
	capture := find(files, captureName)
	if o.Replay == nil || capture == nil {
		return
	}
	switch version := o.Version(m.Subject.Rule); {
	case version == "":
		p.problem("the rule %s is not loaded here: give --rules or --pack as the sensor had them", clip(m.Subject.Rule))
		return
	case version != m.Subject.RuleVersion:
		p.problem("the rule %s has the version %s here; the alert is of version %s", clip(m.Subject.Rule), version, clip(m.Subject.RuleVersion))
	}
	if !pcapng.Begins(capture) { // a compressed one may have no end
		p.problem("%s is not a capture as a pack has it", captureName)
		return
	}
	found, err := replay(ctx, capture, o)
	if err != nil {
		p.problem("%s: %s", captureName, plainError(err))
		return
	}
	var differs []string
	for i := range found {
		d := different(&m.Subject, &found[i].Subject)
		if len(d) == 0 {
			p.Again = true
			p.sameCertificates(&found[i], files)
			return
		}
		if found[i].Rule == m.Subject.Rule && (differs == nil || len(d) < len(differs)) {
			differs = d
		}
	}
	switch {
	case differs != nil:
		p.problem("the rule finds another alert in %s: %s", captureName, strings.Join(differs, "; "))
	case m.Secrets == SecretsWithheld:
		p.Notes = append(p.Notes, "the rule finds nothing in "+captureName+": the certificate is encrypted in it, and the secrets are not in the pack (--keys opens it)")
	case m.Frames.Missing != "":
		p.problem("the rule finds nothing in %s, which lacks frames", captureName)
	default:
		p.problem("the rule finds nothing in %s: what it asks was known to the sensor from other handshakes, or the configuration is another", captureName)
	}
}

// sameCertificates checks that the certificates of the pack are those in its capture.
func (p *Checked) sameCertificates(f *Found, files []file) {
	for i, want := range f.Certificates {
		name := fmt.Sprintf("server-%02d.der", i)
		if !strings.EqualFold(sum(find(files, name)), want) {
			p.problem("%s is not the certificate that is in %s", name, captureName)
		}
	}
}

// different says what differs between what was said and what was found.
func different(said, found *Subject) (list []string) {
	theirs := found.fields()
	for i, f := range said.fields() {
		if f.value != theirs[i].value {
			list = append(list, fmt.Sprintf("%s is %q, not %q", f.name, theirs[i].value, clip(f.value)))
		}
	}
	return list
}

// replay runs the rules over a capture. It is written to a file for that: those of the
// pack could have changed since they were read.
func replay(ctx context.Context, capture []byte, o VerifyOptions) (found []Found, err error) {
	dir, err := os.MkdirTemp("", "oddcert-evidence-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	name := filepath.Join(dir, captureName)
	if err := os.WriteFile(name, capture, 0o600); err != nil {
		return nil, err
	}
	return o.Replay(ctx, name)
}

// Write writes r for people.
func (r *Result) Write(w io.Writer) error {
	var b bytes.Buffer
	for i := range r.Packs {
		p := &r.Packs[i]
		verdict := "good"
		if len(p.Problems) > 0 {
			verdict = "WRONG"
		}
		fmt.Fprintf(&b, "%-5s %s\n", verdict, plain(p.Path, maxText))
		if p.Title != "" {
			fmt.Fprintf(&b, "      %s\n", plain(p.Title, maxText))
		}
		switch {
		case p.Signer != "":
			fmt.Fprintf(&b, "      signed by %s with the key %s\n", plain(p.Signer, maxText), p.SignedBy)
		case p.SignedBy != "":
			fmt.Fprintf(&b, "      signed with the key %s\n", p.SignedBy)
		}
		if p.Again {
			b.WriteString("      the rule finds the same alert in the capture of the pack\n")
		}
		for _, s := range p.Problems {
			fmt.Fprintf(&b, "    ! %s\n", plain(s, maxText))
		}
		for _, s := range p.Notes {
			fmt.Fprintf(&b, "      %s\n", plain(s, maxText))
		}
	}
	for _, s := range r.Problems {
		fmt.Fprintf(&b, "    ! %s\n", plain(s, maxText))
	}
	if r.Head != "" {
		fmt.Fprintf(&b, "packs in the chain: %d; its newest manifest is %s\n", r.Chain, r.Head)
	}
	_, err := w.Write(b.Bytes())
	return err
}
