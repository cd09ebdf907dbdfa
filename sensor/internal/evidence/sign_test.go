package evidence

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// keygen makes a key with ssh-keygen and returns its file. It skips the test where there
// is no such program.
func keygen(t testing.TB, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	sshKeygen(t, nil, append([]string{"-q", "-N", "", "-C", "somebody", "-f", file}, args...)...)
	return file
}

// sshKeygen runs ssh-keygen and returns what it says.
func sshKeygen(t testing.TB, input []byte, args ...string) string {
	t.Helper()
	out, err := trySSH(t, input, args...)
	if err != nil {
		t.Fatalf("ssh-keygen %q: %v\n%s", args, err, out)
	}
	return out
}

func trySSH(t testing.TB, input []byte, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("ssh-keygen is not here")
	}
	cmd := exec.Command(program, args...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSign has ssh-keygen check what is signed here, and the other way round, with each
// kind of key. Ed25519 signs the same text always in the same way: the two are equal.
func TestSign(t *testing.T) {
	text := []byte("{\"text\": 1}\n")
	for _, kind := range [][]string{{"-t", "ed25519"}, {"-t", "ecdsa"}, {"-t", "ecdsa", "-b", "384"}, {"-t", "rsa", "-b", "2048"}, {"-t", "rsa", "-m", "PEM", "-b", "2048"}} {
		t.Run(strings.Join(kind, ""), func(t *testing.T) {
			file := keygen(t, kind...)
			key, err := ReadKey(file)
			if err != nil {
				t.Fatal(err)
			}
			if shown := sshKeygen(t, nil, "-l", "-f", file+".pub"); !strings.Contains(shown, key.Fingerprint()) {
				t.Errorf("the fingerprint is %s, and ssh-keygen says %s", key.Fingerprint(), shown)
			}
			ours, err := key.sign(text)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			signature := write(t, filepath.Join(dir, "sig"), ours)
			allowed := write(t, filepath.Join(dir, "allowed"), append([]byte("me@example.net "), read(t, file+".pub")...))
			sshKeygen(t, text, "-Y", "verify", "-n", Namespace, "-f", allowed, "-I", "me@example.net", "-s", signature)
			if out, err := trySSH(t, append(text, ' '), "-Y", "verify", "-n", Namespace, "-f", allowed, "-I", "me@example.net", "-s", signature); err == nil {
				t.Errorf("ssh-keygen takes the signature for another text: %s", out)
			}

			name := write(t, filepath.Join(dir, "text"), text)
			sshKeygen(t, nil, "-Y", "sign", "-q", "-n", Namespace, "-f", file, name)
			theirs := read(t, name+".sig")
			if kind[1] == "ed25519" && !bytes.Equal(ours, theirs) {
				t.Errorf("ours is\n%s\nand ssh-keygen's\n%s", ours, theirs)
			}
			signers, err := ReadSigners(allowed)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range [][]byte{ours, theirs} {
				public, err := checkSignature(text, s)
				if err != nil || fingerprint(public) != key.Fingerprint() {
					t.Fatalf("%v, %v", public, err)
				}
				if who, err := signers.who(public, time.Now()); err != nil || who != "me@example.net" {
					t.Errorf("signed by %q, %v", who, err)
				}
			}
			for i := range ours {
				for bit := range 8 {
					changed := bytes.Clone(ours)
					changed[i] ^= 1 << bit
					if _, err := checkSignature(text, changed); err == nil {
						t.Fatalf("a signature with bit %d of byte %d flipped is good", bit, i)
					}
				}
				if kind[1] != "ed25519" && i > 200 {
					break // the first lines have the key and the namespace
				}
			}
			sshKeygen(t, nil, "-Y", "sign", "-q", "-n", "file", "-f", file, write(t, filepath.Join(dir, "other"), text))
			if _, err := checkSignature(text, read(t, filepath.Join(dir, "other.sig"))); err == nil {
				t.Error("a signature for another namespace is good")
			}
		})
	}
}

// TestKeys names what is wrong with a key.
func TestKeys(t *testing.T) {
	dir := t.TempDir()
	locked := filepath.Join(dir, "locked")
	sshKeygen(t, nil, "-q", "-t", "ed25519", "-N", "secret", "-f", locked)
	for file, want := range map[string]string{
		locked: "has a passphrase",
		write(t, filepath.Join(dir, "text"), []byte("text")): "is not a private key as ssh-keygen writes it",
		locked + ".pub":                            "is not a private key as ssh-keygen writes it",
		filepath.Join(dir, "none"):                 "no such file",
		write(t, filepath.Join(dir, "empty"), nil): "is not a private key",
	} {
		if _, err := ReadKey(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
}

// TestSigners has the same answers as ssh-keygen for lines of allowed signers.
func TestSigners(t *testing.T) {
	file := keygen(t, "-t", "ed25519")
	public := strings.TrimSpace(string(read(t, file+".pub")))
	key, err := ReadKey(file)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("text")
	signature, err := key.sign(text)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	sig := write(t, filepath.Join(dir, "sig"), signature)
	for line, good := range map[string]bool{
		"me " + public:   true,
		`"me" ` + public: true,
		`me namespaces="oddcert-evidence" ` + public:                   true,
		`me namespaces="file,oddcert-*" ` + public:                     true,
		`me namespaces="file" ` + public:                               false,
		`me namespaces="*,!oddcert-evidence" ` + public:                false,
		`me valid-after="20200101" ` + public:                          true,
		`me valid-after="20200101Z",valid-before="29990101" ` + public: true,
		`me valid-before="20200101" ` + public:                         false,
		`me valid-after="29990101120000Z" ` + public:                   false,
		"# me " + public: false,
	} {
		allowed := write(t, filepath.Join(dir, "allowed"), []byte(line+"\n"))
		out, err := trySSH(t, text, "-Y", "verify", "-n", Namespace, "-f", allowed, "-I", "me", "-s", sig)
		if (err == nil) != good {
			t.Errorf("%s: ssh-keygen says %v %s", line, err, out)
		}
		_, err = parseSigners([]byte(line)).who(key.signer.PublicKey(), time.Now())
		if (err == nil) != good {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, line := range []string{"me", "me cert-authority " + public, "me no-such-option " + public, `"me ` + public, "me ssh-ed25519 AAAA"} {
		if s := parseSigners([]byte(line)); len(s.list) > 0 || len(s.Skipped) != 1 {
			t.Errorf("%s: %+v", line, s)
		}
	}
}

// FuzzSigners reads files that may be anybody's.
func FuzzSigners(f *testing.F) {
	f.Add([]byte("me ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n"))
	f.Add([]byte("\"a b\" namespaces=\"x,!y*\",valid-after=\"2020\" ecdsa"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := parseSigners(text)
		if n := len(s.list) + len(s.Skipped); n > bytes.Count(text, []byte("\n"))+1 {
			t.Errorf("%d lines", n)
		}
	})
}

// FuzzSignature reads signatures that may be anybody's: none but one by the key is good.
func FuzzSignature(f *testing.F) {
	f.Add([]byte("-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQ==\n-----END SSH SIGNATURE-----\n"))
	f.Fuzz(func(t *testing.T, signature []byte) {
		if _, err := checkSignature([]byte("text"), signature); err == nil && !bytes.HasPrefix(signature, []byte("-----BEGIN SSH SIGNATURE-----\n")) {
			t.Error("a signature without its first line")
		}
	})
}
