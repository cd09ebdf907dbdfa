package estest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// account is who the server runs as where the test is root, which the server
// refuses to be.
func account() (uid, gid int, err error) {
	u, err := user.Lookup("nobody")
	if err != nil {
		return 0, 0, err
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// unwanted matches options of a JVM: to write files beside the program, which belongs
// to root, and a module that only fast searches of vectors need.
var unwanted = regexp.MustCompile(`(?m)^.*(logs/|=data|jdk\.incubator\.vector).*$`)

// configure makes the folders of one server.
func (s *Server) configure() (err error) {
	if s.dir, err = os.MkdirTemp("", "oddcert-es"); err != nil {
		return err
	}
	for _, d := range []string{"config/jvm.options.d", "data", "logs", "tmp"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o755); err != nil {
			return err
		}
	}
	config := filepath.Join(s.dir, "config")
	for _, name := range []string{"jvm.options", "log4j2.properties", "role_mapping.yml", "fips_java.security"} {
		b, err := os.ReadFile(filepath.Join(s.home, "config", name))
		if errors.Is(err, fs.ErrNotExist) { // not each product has each
			continue
		}
		if err != nil {
			return err
		}
		b = unwanted.ReplaceAll(b, nil)
		if err := os.WriteFile(filepath.Join(config, name), b, 0o600); err != nil {
			return err
		}
	}
	files := map[string]string{s.Product.Name + ".yml": "", "roles.yml": s.options.Roles, "users": "", "users_roles": ""}
	if s.options.Security {
		for _, u := range append(s.options.Users, Admin) {
			hash, err := bcrypt.GenerateFromPassword([]byte(u.Password), bcrypt.MinCost)
			if err != nil {
				return err
			}
			files["users"] += u.Name + ":" + string(hash) + "\n"
			files["users_roles"] += u.Role + ":" + u.Name + "\n"
		}
		if err := s.certify(files); err != nil {
			return fmt.Errorf("make certificate: %w", err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(config, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if os.Getuid() != 0 {
		return nil
	}
	uid, gid, err := account()
	if err != nil {
		return err
	}
	return filepath.WalkDir(s.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}

// certify makes an authority, and a certificate for 127.0.0.1 under it.
func (s *Server) certify(files map[string]string) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test server"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	leafSum, authoritySum := sha256.Sum256(der), sha256.Sum256(caDER)
	s.Fingerprint, s.CAFingerprint = hex.EncodeToString(leafSum[:]), hex.EncodeToString(authoritySum[:])
	authority := block("CERTIFICATE", caDER)
	files["http.crt"] = block("CERTIFICATE", der) + authority
	files["http.key"] = block("PRIVATE KEY", keyDER)
	files["ca.crt"] = authority
	s.CAFile = filepath.Join(s.dir, "config", "ca.crt")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(authority))
	s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	return nil
}
