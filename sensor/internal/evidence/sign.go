package evidence

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// Namespace is what signatures of manifests are for: a signature that was made for
// something else is not one of a manifest (PROTOCOL.sshsig of OpenSSH).
const Namespace = "oddcert-evidence"

// Key signs manifests.
type Key struct{ signer ssh.Signer }

// ReadKey reads a private key in the format of OpenSSH or in PEM, as ssh-keygen writes
// them: Ed25519, ECDSA or RSA, without a passphrase.
func ReadKey(file string) (*Key, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the key of evidence: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		return nil, fmt.Errorf("read the key of evidence: %s has a passphrase, which nobody could type: "+
			"make a key without one (ssh-keygen -t ed25519 -N '' -f FILE)", file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key of evidence: %s is not a private key as ssh-keygen writes it: %w", file, err)
	}
	return &Key{signer}, nil
}

// Fingerprint is that of the public key, as ssh-keygen -l shows it.
func (k *Key) Fingerprint() string { return ssh.FingerprintSHA256(k.signer.PublicKey()) }

// sign returns the signature of text as ssh-keygen -Y sign writes it.
func (k *Key) sign(text []byte) ([]byte, error) {
	s, err := sshsig.Sign(bytes.NewReader(text), k.signer, sshsig.HashSHA512, Namespace)
	if err != nil {
		return nil, fmt.Errorf("sign the manifest: %w", err)
	}
	return armor(s), nil
}

// armor is the text form of a signature, with lines of 70 characters as OpenSSH has
// them. A signature has this form only: another byte is another signature.
func armor(s *sshsig.Signature) []byte {
	text := base64.StdEncoding.AppendEncode(nil, s.Marshal())
	out := []byte("-----BEGIN SSH SIGNATURE-----\n")
	for line := range slices.Chunk(text, 70) {
		out = append(append(out, line...), '\n')
	}
	return append(out, "-----END SSH SIGNATURE-----\n"...)
}

// checkSignature returns the public key that has signed text.
func checkSignature(text, signature []byte) (ssh.PublicKey, error) {
	s, err := sshsig.Unarmor(signature)
	if err != nil {
		return nil, fmt.Errorf("it is not an SSH signature: %w", err)
	}
	if !bytes.Equal(armor(s), signature) {
		return nil, errors.New("it is not written as ssh-keygen writes signatures")
	}
	if err := sshsig.Verify(bytes.NewReader(text), s, s.PublicKey, s.HashAlgorithm, Namespace); err != nil {
		return nil, fmt.Errorf("it is not one of this manifest: %w", err)
	}
	return s.PublicKey, nil
}

// Signers are those whose signatures are trusted.
type Signers struct {
	list    []signer
	Skipped []string // lines that say what is not read, such as authorities, each with the reason
}

type signer struct {
	principals   string
	key          ssh.PublicKey
	after, until time.Time // zero where it is always valid
}

// ReadSigners reads a file of allowed signers (ssh-keygen(1), ALLOWED SIGNERS).
func ReadSigners(file string) (*Signers, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the allowed signers: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSigners+1))
	if err != nil {
		return nil, fmt.Errorf("read the allowed signers: %w", err)
	}
	if len(text) > maxSigners {
		return nil, fmt.Errorf("read the allowed signers: %s has more than %d bytes", file, maxSigners)
	}
	s := parseSigners(text)
	if len(s.list) == 0 {
		return nil, fmt.Errorf("read the allowed signers: nobody in %s may sign for the namespace %s%s", file, Namespace, because(s.Skipped))
	}
	return s, nil
}

func because(reasons []string) string {
	if len(reasons) == 0 {
		return ""
	}
	return ": " + strings.Join(reasons[:min(len(reasons), 5)], "; ")
}

func parseSigners(text []byte) *Signers {
	s := new(Signers)
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxSigners+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		one, err := parseSigner(line)
		if err != nil {
			s.Skipped = append(s.Skipped, fmt.Sprintf("line %d: %v", n, err))
			continue
		}
		s.list = append(s.list, one)
	}
	return s
}

// parseSigner reads a line: principals, options, and a public key.
func parseSigner(line string) (s signer, err error) {
	var rest string
	if quoted, ok := strings.CutPrefix(line, `"`); ok {
		s.principals, rest, ok = strings.Cut(quoted, `"`)
		if !ok {
			return s, errors.New("a quotation mark is missing")
		}
	} else if n := strings.IndexAny(line, " \t"); n > 0 {
		s.principals, rest = line[:n], line[n:]
	}
	var options []string
	if s.key, _, options, _, err = ssh.ParseAuthorizedKey([]byte(rest)); err != nil {
		return s, errors.New("there is no public key")
	}
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		value = strings.Trim(value, `"`)
		switch strings.ToLower(name) {
		case "cert-authority":
			return s, errors.New("authorities of keys are not supported: name the key itself")
		case "namespaces":
			if !matchesAny(value, Namespace) {
				return s, errors.New("it is not for the namespace " + Namespace)
			}
		case "valid-after":
			s.after, err = sshTime(value)
		case "valid-before":
			s.until, err = sshTime(value)
		default:
			return s, fmt.Errorf("the option %q is not known", name)
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// matchesAny reports whether a list of patterns with commas between them has name: one
// that begins with ! excludes it.
func matchesAny(patterns, name string) (found bool) {
	for p := range strings.SplitSeq(patterns, ",") {
		p, not := strings.CutPrefix(strings.TrimSpace(p), "!")
		if ok, err := path.Match(p, name); err == nil && ok {
			if not {
				return false
			}
			found = true
		}
	}
	return found
}

// sshTime reads a time as ssh-keygen takes it: YYYYMMDD, with HHMM or HHMMSS after it,
// in the time zone of this machine or, with Z after it, in UTC.
func sshTime(s string) (time.Time, error) {
	zone := time.Local
	digits, utc := strings.CutSuffix(s, "Z")
	if utc {
		zone = time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(layout) == len(digits) {
			if t, err := time.ParseInLocation(layout, digits, zone); err == nil {
				return t, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time such as 20260131 or 202601311200Z", s)
}

// who returns the principals of a key that is allowed to sign at a time.
func (s *Signers) who(key ssh.PublicKey, at time.Time) (principals string, err error) {
	err = errors.New("that key is not one of the allowed signers")
	for _, one := range s.list {
		if !bytes.Equal(one.key.Marshal(), key.Marshal()) {
			continue
		}
		if !one.after.IsZero() && at.Before(one.after) || !one.until.IsZero() && !at.Before(one.until) {
			err = fmt.Errorf("the key of %s was not valid when the pack was made", one.principals)
			continue
		}
		return one.principals, nil
	}
	return "", err
}

func fingerprint(key ssh.PublicKey) string { return ssh.FingerprintSHA256(key) }
