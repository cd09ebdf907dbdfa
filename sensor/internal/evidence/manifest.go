package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The names of the files of a pack that are there once.
const (
	manifestName  = "manifest.json"
	signatureName = "manifest.json.sig"
	sumsName      = "SHA256SUMS"
	alertName     = "alert.json"
	captureName   = "handshake.pcapng"
	ruleName      = "rule.yml"
	textName      = "README.txt"
)

// format is the version of the manifest.
const format = "oddcert-evidence/1"

// none is the hash of the manifest before the first.
var none = strings.Repeat("0", 64)

// Manifest says what a pack holds, and where it came from.
type Manifest struct {
	Format   string `json:"format"`
	ID       string `json:"id"`       // event.id of the alert
	Made     string `json:"made"`     // by the wall clock of the sensor, RFC 3339
	Previous string `json:"previous"` // SHA-256 of the manifest of the pack that was made before; zeros for the first
	SignedBy string `json:"signed_by,omitempty"`

	Subject    Subject `json:"subject"`
	Suppressed uint64  `json:"suppressed"` // alerts that were counted with this one until the pack was made

	Origin  Origin  `json:"origin"`
	Sensor  Sensor  `json:"sensor"`
	Frames  Frames  `json:"frames"`
	Secrets Secrets `json:"secrets"`
	Losses  Losses  `json:"losses"`

	Files []FileHash `json:"files"` // all but the manifest, its signature and SHA256SUMS
}

// Origin is where the frames came from.
type Origin struct {
	Capture   string `json:"capture,omitempty"` // path of the capture file as it was given; empty when live
	SHA256    string `json:"sha256,omitempty"`  // of the whole file as it is on disk; empty where it is not known
	Size      int64  `json:"size,omitempty"`    // of the same, bytes
	Unhashed  string `json:"unhashed,omitempty"`
	Interface string `json:"interface,omitempty"`
}

// Sensor is what found it.
type Sensor struct {
	Name          string `json:"name"`
	Version       string `json:"version"`
	Revision      string `json:"revision,omitempty"` // commit that the program was built from
	Go            string `json:"go"`                 // version of the compiler
	Platform      string `json:"platform"`           // operating system and architecture
	Configuration string `json:"configuration"`      // SHA-256 of the options in effect, as "oddcert config show" has them
}

// Frames are those in the capture of the pack.
type Frames struct {
	Count   int    `json:"count"`
	Bytes   int    `json:"bytes"`             // captured
	First   uint64 `json:"first,omitempty"`   // 1-based number in the capture, or on the interface
	Last    uint64 `json:"last,omitempty"`    //
	Missing string `json:"missing,omitempty"` // why frames are missing; empty where none is known to be
	List    []At   `json:"list,omitempty"`    // all of them, in order
}

// At is a frame by its number in the capture that it came from, as Wireshark shows it.
type At struct {
	Frame  uint64 `json:"frame"`
	Time   string `json:"time"`
	Offset int64  `json:"offset,omitempty"` // of its first captured byte from the beginning of the file, uncompressed; absent where it is not known
}

// Secrets says whether the capture has the secrets that opened the handshake.
type Secrets string

// What can be said of secrets.
const (
	NoSecrets       Secrets = "none"     // none were needed
	SecretsWithheld Secrets = "withheld" // the certificate was decrypted, and the secrets are not in the pack
	SecretsIncluded Secrets = "included"
)

// Losses are the counters of what the sensor has lost until the pack was made, by the
// names that they have in records of statistics: a pack can be complete, and the sensor
// have missed what came before it.
type Losses struct {
	Time   string            `json:"time,omitempty"` // when they were read, by the wall clock; empty where they were not
	Frames uint64            `json:"frames"`         // that were read
	Lost   map[string]uint64 `json:"lost"`           // without those that are zero
}

// FileHash is one file of the pack.
type FileHash struct {
	Name   string `json:"name"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"` // lower-case hex, as sha256sum writes it
}

// file is a file of a pack.
type file struct {
	name string
	data []byte
}

func sum(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

func itoa(n int) string { return strconv.Itoa(n) }

// seal adds to the files of a pack the manifest, the hashes and, where there is a key,
// the signature. It returns the hash of the manifest.
func seal(m *Manifest, files []file, key *Key) ([]file, string, error) {
	m.Files = nil
	for _, f := range files {
		m.Files = append(m.Files, FileHash{f.name, len(f.data), sum(f.data)})
	}
	if key != nil {
		m.SignedBy = key.Fingerprint()
	}
	text, err := m.encode()
	if err != nil {
		return nil, "", err
	}
	files = append(files, file{manifestName, text}, file{sumsName, sums(m, text)})
	if key != nil {
		signature, err := key.sign(text)
		if err != nil {
			return nil, "", err
		}
		files = append(files, file{signatureName, signature})
	}
	return files, sum(text), nil
}

func (m *Manifest) encode() ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", "  ")
	if err := e.Encode(m); err != nil {
		return nil, fmt.Errorf("encode the manifest: %w", err)
	}
	return out.Bytes(), nil
}

// sums is the text that sha256sum -c checks the pack with.
func sums(m *Manifest, manifest []byte) []byte {
	var b []byte
	for _, f := range m.Files {
		b = fmt.Appendf(b, "%s  %s\n", f.SHA256, f.Name)
	}
	return fmt.Appendf(b, "%s  %s\n", sum(manifest), manifestName)
}

var (
	// ID is what a pack is called: event.id of its alert.
	isID = regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString
	// isName is what its files are called. There are no folders in it.
	isName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`).MatchString
	isHash = regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString
)

// parseManifest reads a manifest that may be anybody's.
func parseManifest(text []byte) (*Manifest, error) {
	if len(text) > maxManifest {
		return nil, fmt.Errorf("read the manifest: %d bytes are more than %d", len(text), maxManifest)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	m := new(Manifest)
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	switch {
	case m.Format != format:
		return nil, fmt.Errorf("read the manifest: its format is %q; this program reads %s", clip(m.Format), format)
	case !isID(m.ID):
		return nil, fmt.Errorf("read the manifest: %q is not the id of an alert", clip(m.ID))
	case !isHash(m.Previous):
		return nil, errors.New("read the manifest: the hash of the one before is not a SHA-256")
	case len(m.Files) > maxFiles:
		return nil, fmt.Errorf("read the manifest: %d files are more than %d", len(m.Files), maxFiles)
	}
	seen := map[string]bool{manifestName: true, sumsName: true, signatureName: true}
	for _, f := range m.Files {
		if !isName(f.Name) || seen[f.Name] || f.Size < 0 || f.Size > maxFile || !isHash(f.SHA256) {
			return nil, fmt.Errorf("read the manifest: its entry for the file %q is not valid", clip(f.Name))
		}
		seen[f.Name] = true
	}
	if again, err := m.encode(); err != nil || !bytes.Equal(again, text) {
		return nil, errors.New("read the manifest: it is not written as oddcert writes it")
	}
	return m, nil
}

// clip bounds a text that is shown.
func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

// find returns the data of a file, nil where it is not there.
func find(files []file, name string) []byte {
	if i := slices.IndexFunc(files, func(f file) bool { return f.name == name }); i >= 0 {
		return files[i].data
	}
	return nil
}
