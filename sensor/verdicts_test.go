package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/quic-go/quic-go"

	"github.com/oddcert/oddcert/rules"
)

// tape is a capture of raw IP in the making.
type tape struct {
	t     *testing.T
	at    time.Time
	ports uint16
	b     []byte
}

func newTape(t *testing.T, at time.Time) *tape {
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint32(nil, 0xa1b2c3d4), 2|4<<16)
	b = le.AppendUint32(le.AppendUint32(append(b, make([]byte, 8)...), 1<<18), 101)
	return &tape{t: t, at: at, ports: 40000, b: b}
}

// frame puts a packet on the tape, a millisecond after the one before.
func (p *tape) frame(src, dst string, l ...gopacket.SerializableLayer) {
	p.t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
	switch l := l[0].(type) {
	case *layers.TCP:
		l.SetNetworkLayerForChecksum(ip)
	case *layers.UDP:
		ip.Protocol = layers.IPProtocolUDP
		l.SetNetworkLayerForChecksum(ip)
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, append([]gopacket.SerializableLayer{ip}, l...)...); err != nil {
		p.t.Fatal(err)
	}
	p.at = p.at.Add(time.Millisecond)
	le := binary.LittleEndian
	p.b = le.AppendUint32(le.AppendUint32(p.b, uint32(p.at.Unix())), uint32(p.at.Nanosecond()/1000))
	p.b = le.AppendUint32(le.AppendUint32(p.b, uint32(len(b.Bytes()))), uint32(len(b.Bytes())))
	p.b = append(p.b, b.Bytes()...)
}

// flow puts on the tape what two said to one another over TCP.
func (p *tape) flow(client, server string, port uint16, all []said) {
	p.t.Helper()
	p.ports++
	seq := map[bool]uint32{true: 1000, false: 2000}
	send := func(fromClient, syn bool, payload []byte) {
		tcp := &layers.TCP{SrcPort: layers.TCPPort(p.ports), DstPort: layers.TCPPort(port), Seq: seq[fromClient], Ack: seq[!fromClient], Window: 65535,
			SYN: syn, ACK: !syn || !fromClient, PSH: len(payload) > 0}
		src, dst := client, server
		if !fromClient {
			src, dst = dst, src
			tcp.SrcPort, tcp.DstPort = tcp.DstPort, tcp.SrcPort
		}
		p.frame(src, dst, tcp, gopacket.Payload(payload))
		seq[fromClient] += uint32(len(payload))
		if syn {
			seq[fromClient]++
		}
	}
	send(true, true, nil)
	send(false, true, nil)
	send(true, false, nil)
	for _, s := range all {
		for part := range slices.Chunk(s.b, 1400) {
			send(s.client, false, part)
		}
	}
}

// datagrams puts on the tape what two said to one another over UDP.
func (p *tape) datagrams(client, server string, port uint16, all []said) {
	p.t.Helper()
	p.ports++
	for _, s := range all {
		udp := &layers.UDP{SrcPort: layers.UDPPort(p.ports), DstPort: layers.UDPPort(port)}
		src, dst := client, server
		if !s.client {
			src, dst = dst, src
			udp.SrcPort, udp.DstPort = udp.DstPort, udp.SrcPort
		}
		p.frame(src, dst, udp, gopacket.Payload(s.b))
	}
}

// overheard notes the datagrams that go out of a socket.
type overheard struct {
	net.PacketConn
	client bool
	mu     *sync.Mutex
	all    *[]said
}

func (o overheard) WriteTo(b []byte, to net.Addr) (int, error) {
	o.mu.Lock()
	*o.all = append(*o.all, said{o.client, bytes.Clone(b)})
	o.mu.Unlock()
	return o.PacketConn.WriteTo(b, to)
}

// overQUIC shakes hands by quic-go.
func overQUIC(t *testing.T, server *tls.Config, name string) []said {
	t.Helper()
	var mu sync.Mutex
	var all []said
	socket := func(client bool) *quic.Transport {
		s, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		transport := &quic.Transport{Conn: overheard{s, client, &mu, &all}}
		t.Cleanup(func() { transport.Close() })
		return transport
	}
	server.NextProtos = []string{"h3"}
	at, from := socket(false), socket(true)
	listener, err := at.Listen(server, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	conn, err := from.Dial(ctx, at.Conn.LocalAddr(), &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: []string{"h3"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listener.Accept(ctx); err != nil {
		t.Fatal(err)
	}
	conn.CloseWithError(0, "")
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(all)
}

// rules are the files of the rules that alerts are of, in order; for what was counted
// instead, the same with a plus.
func (p *tape) rules(args ...string) (names, reasons []string) {
	p.t.Helper()
	files := map[string]string{}
	set, err := rules.Load(rules.Builtin())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, r := range set.Rules() {
		files[r.ID] = strings.TrimSuffix(path.Base(filepath.ToSlash(r.File)), ".yml")
	}
	capture := filepath.Join(p.t.TempDir(), "capture.pcap")
	if err := os.WriteFile(capture, p.b, 0o600); err != nil {
		p.t.Fatal(err)
	}
	all, status := replayedObjects(p.t, append([]string{"--records", "alert", capture}, args...)...)
	if status != exitOK {
		p.t.Fatalf("exit status %d", status)
	}
	for _, r := range all {
		f := flat(r)
		name := files[f.one("rule.id")]
		if f.one("oddcert.suppressed.count") != "" {
			name += "+" + f.one("oddcert.suppressed.count")
		}
		names = append(names, name)
		reasons = append(reasons, f.one("event.reason")+"\n\t"+strings.Join(f["oddcert.verdict_reasons"], "\n\t"))
	}
	slices.Sort(names)
	return names, reasons
}

// replayedObjects runs the replay command and returns the records and the exit status.
func replayedObjects(t *testing.T, args ...string) ([]object, int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(append([]string{"replay", "--json", "-"}, args...), &stdout, &stderr)
	if status != exitOK {
		t.Logf("%s", &stderr)
	}
	return objects(t, stdout.Bytes()), status
}

// issued says what a certificate is to be like.
type issued struct {
	names  []string
	cn     string
	issuer *identity // itself when nil
	bits   int       // of an RSA key; P-256 when 0
	pad    int       // the DER has that many bytes
	raw    []byte    // the subject
	md5    bool
}

// identity is a certificate with its key.
type identity struct {
	x   *x509.Certificate
	key crypto.Signer
}

func issueCertificate(t *testing.T, c issued) *identity {
	t.Helper()
	var key crypto.Signer
	var err error
	if c.cn == "" && len(c.names) > 0 {
		c.cn = c.names[0]
	}
	if c.bits > 0 {
		key, err = rsa.GenerateKey(rand.Reader, c.bits)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial.SetBit(serial, 62, 1), Subject: pkix.Name{CommonName: c.cn}, RawSubject: c.raw, DNSNames: c.names,
		NotBefore: time.Now().Add(-240 * time.Hour), NotAfter: time.Now().Add(2400 * time.Hour),
		IsCA: len(c.names) == 0, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature}
	if template.IsCA {
		template.KeyUsage = x509.KeyUsageCertSign
	}
	parent, signer := template, key
	if c.issuer != nil {
		parent, signer = c.issuer.x, c.issuer.key
	}
	pad := 0
	for try := 0; ; try++ {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		if c.pad > 0 && len(der) != c.pad && try < 8 {
			pad += c.pad - len(der)
			template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 55555, 1}, Value: make([]byte, pad)}}
			continue
		}
		if c.pad > 0 && len(der) != c.pad {
			t.Fatalf("%d bytes, not %d", len(der), c.pad)
		}
		if c.md5 { // sha256WithRSAEncryption becomes md5WithRSAEncryption
			der = bytes.ReplaceAll(der, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11}, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4})
		}
		x, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return &identity{x, key}
	}
}

// serves is the configuration of a server that shows the chain.
func (i *identity) serves(version uint16, chain ...*x509.Certificate) *tls.Config {
	c := &tls.Config{MinVersion: version, MaxVersion: version, Certificates: []tls.Certificate{{Certificate: [][]byte{i.x.Raw}, PrivateKey: i.key}}}
	for _, x := range chain {
		c.Certificates[0].Certificate = append(c.Certificates[0].Certificate, x.Raw)
	}
	return c
}

// liar signs with another key than it says.
type liar struct {
	crypto.Signer
	says crypto.PublicKey
}

func (l liar) Public() crypto.PublicKey { return l.says }

// shakes hands by crypto/tls. The client does not look at the certificate, but it does
// look at the signature of the key exchange: where that is wrong it breaks off, and
// the server has said all that there is to see.
func shakes(t *testing.T, server *tls.Config, name string, wrong bool) []said {
	t.Helper()
	all, err := converse(&tls.Config{InsecureSkipVerify: true, ServerName: name, MinVersion: tls.VersionTLS10,
		CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, server)
	if (err != nil) != wrong {
		t.Fatalf("handshake: %v", err)
	}
	return all
}

// certificatesOf reads a file of PEM.
func certificatesOf(t *testing.T, b []byte, err error) (all []*x509.Certificate) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		x, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, x)
	}
	return all
}

// pin makes a root of this test one of Microsoft's for the rest of it.
func pin(t *testing.T, root *x509.Certificate) {
	t.Helper()
	const name = "microsoft-update/roots/microsoft.pem"
	files := fstest.MapFS{}
	err := fs.WalkDir(rules.PackFiles(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := fs.ReadFile(rules.PackFiles(), name)
		files[name] = &fstest.MapFile{Data: b}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	files[name].Data = append(slices.Clone(files[name].Data), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})...)
	packFiles = func() fs.FS { return files }
	t.Cleanup(func() { packFiles = rules.PackFiles })
}

// in2016 is a day when the genuine certificate of the tests was valid.
var in2016 = time.Date(2016, 8, 14, 0, 0, 0, 0, time.UTC)

// updateAuthorities are the pinned intermediates.
func updateAuthorities(t *testing.T) []*x509.Certificate {
	t.Helper()
	b, err := fs.ReadFile(rules.PackFiles(), "microsoft-update/intermediates/microsoft.pem")
	return certificatesOf(t, b, err)
}

// genuineOn is the rule for what is genuine, switched on.
func genuineOn(t *testing.T) string {
	t.Helper()
	b, err := fs.ReadFile(rules.PackFiles(), "microsoft-update/genuine.yml")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(string(b), "enabled: false", "enabled: true", 1)
}

const (
	theClient    = "192.0.2.1"
	theServer    = "198.51.100.7"  // nobody's
	atMicrosoft  = "203.0.113.5"   // Microsoft's, says a list of the test
	atProxy      = "203.0.113.129" // ours, says another
	updateServer = "www.update.microsoft.com"
)

// Each row of the table of verdicts, in captures of handshakes that crypto/tls made.
func TestVerdicts(t *testing.T) {
	now := time.Now()
	root := issueCertificate(t, issued{cn: "A Root That Is Pinned"})
	pin(t, root.x)
	private := issueCertificate(t, issued{cn: "A Private Root"})
	genuine := issueCertificate(t, issued{names: []string{updateServer}, cn: updateServer, issuer: root})
	genuineRSA := issueCertificate(t, issued{names: []string{updateServer}, issuer: root, bits: 2048})
	another := issueCertificate(t, issued{names: []string{"www.example.net"}, issuer: private})
	forged := issueCertificate(t, issued{names: []string{updateServer}, issuer: private})
	// The name of the authority as its certificates have it, in their order and their
	// kinds of strings.
	fe2 := certificateIn(t, "internal/judge/trust/testdata/fe2.update.microsoft.com-2016.pem")
	var sent []*x509.Certificate
	for _, x := range updateAuthorities(t) {
		if bytes.Equal(x.RawSubject, fe2.RawIssuer) {
			sent = append(sent, x)
		}
	}
	if len(sent) == 0 {
		t.Fatal("no intermediate")
	}
	imitated := issueCertificate(t, issued{names: []string{updateServer}, bits: 2048,
		issuer: &identity{&x509.Certificate{RawSubject: sent[0].RawSubject, SubjectKeyId: sent[0].SubjectKeyId}, issueCertificate(t, issued{cn: "x", bits: 2048}).key}})

	dir := t.TempDir()
	put := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	put("networks/microsoft.txt", "203.0.113.0/25\n")
	put("networks/proxies.txt", atProxy+"\n")
	put("rules/genuine.yml", genuineOn(t))
	operator := put("roots/ours.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: private.x.Raw})))
	lists := []string{"--networks", filepath.Join(dir, "networks"), "--rules", filepath.Join(dir, "rules")}

	lying := func(x *x509.Certificate, key crypto.Signer, chain ...*x509.Certificate) *tls.Config {
		c := (&identity{x, liar{key, x.PublicKey}}).serves(tls.VersionTLS12, chain...)
		return c
	}
	one := func(server string, c *tls.Config, name string, wrong bool) func(*tape) {
		return func(p *tape) { p.flow(theClient, server, 443, shakes(p.t, c, name, wrong)) }
	}
	rsaOnly := genuineRSA.serves(tls.VersionTLS12)
	rsaOnly.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}
	for _, c := range []struct {
		name string
		at   time.Time
		tape func(*tape)
		args []string
		want string
		says string // in a reason
	}{
		{name: "genuine", tape: one(atMicrosoft, genuine.serves(tls.VersionTLS12), updateServer, false), want: "genuine"},
		{name: "genuine, key unknown", tape: one(atMicrosoft, rsaOnly, updateServer, false), want: "genuine"},
		{name: "relayed", tape: one(theServer, genuine.serves(tls.VersionTLS12), updateServer, false), want: "relayed"},
		{name: "relayed, asked for another name", tape: one(theServer, genuine.serves(tls.VersionTLS12), "cdn.example.net", false), want: "relayed"},
		{name: "relayed by OpenVPN's host", tape: func(p *tape) {
			p.flow("192.0.2.9", theServer, 1194, []said{{true, append([]byte{0, 14, 0x38}, make([]byte, 13)...)}, {false, append([]byte{0, 26, 0x40}, make([]byte, 25)...)}})
			p.at = p.at.Add(time.Second)
			p.flow(theClient, theServer, 443, shakes(p.t, genuine.serves(tls.VersionTLS12), updateServer, false))
		}, want: "relayed", says: "port 1194"},
		{name: "relayed or copied", tape: one(theServer, rsaOnly, updateServer, false), want: "relayed-or-copied"},
		{name: "copied", tape: one(theServer, lying(genuine.x, another.key), updateServer, true), want: "copied"},
		{name: "copied, the one of 2016", at: in2016, tape: one(theServer, lying(fe2, genuineRSA.key, sent...), updateServer, true), want: "copied"},
		{name: "copied, at an address of Microsoft's", tape: one(atMicrosoft, lying(genuine.x, another.key), updateServer, true), want: "copied"},
		{name: "copied, another name", tape: one(theServer, lying(another.x, genuine.key), "www.example.net", true), want: "copied-certificate"},
		{name: "proven, another name", tape: one(theServer, another.serves(tls.VersionTLS12), "www.example.net", false)},
		{name: "forged, self-signed", tape: one(theServer, issueCertificate(t, issued{names: []string{updateServer}}).serves(tls.VersionTLS12), "", false), want: "forged", says: "signed with its own key"},
		{name: "forged, private root", tape: one(theServer, forged.serves(tls.VersionTLS12, private.x), updateServer, false), want: "forged"},
		{name: "forged, without its issuer", tape: one(theServer, forged.serves(tls.VersionTLS12), updateServer, false), want: "forged"},
		{name: "forged, TLS 1.1", tape: one(theServer, forged.serves(tls.VersionTLS11), updateServer, false), want: "forged"},
		{name: "forged, a length that cannot be", tape: one(theServer, imitated.serves(tls.VersionTLS12), updateServer, false), want: "forged-signature", says: "2,048 bits"},
		{name: "forged, one bit of the genuine one", at: in2016, tape: func() func(*tape) {
			der := bytes.Clone(fe2.Raw)
			der[len(der)-1] ^= 1
			x, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			return one(atMicrosoft, lying(x, genuineRSA.key, sent...), updateServer, true)
		}(), want: "copied forged-signature"},
		{name: "forged download name", tape: one(theServer, issueCertificate(t, issued{names: []string{"download.windowsupdate.com"}, issuer: private}).serves(tls.VersionTLS12), "", false), want: "forged-download"},
		{name: "weak", tape: one(theServer, issueCertificate(t, issued{names: []string{"login.microsoft.com"}, bits: 2048, md5: true, issuer: issueCertificate(t, issued{cn: "y", bits: 2048})}).serves(tls.VersionTLS12), "", false), want: "weak-microsoft-certificate"},
		{name: "licensing CA", tape: one(theServer, issueCertificate(t, issued{names: []string{"a.example"}, issuer: issueCertificate(t, issued{cn: "Microsoft LSRA PA"})}).serves(tls.VersionTLS12), "", false), want: "revoked-licensing-ca"},
		{name: "rogue CA", tape: one(theServer, issueCertificate(t, issued{names: []string{"*.microsoft.com"}, issuer: issueCertificate(t, issued{cn: "DigiNotar Public CA 2025"})}).serves(tls.VersionTLS12), "", false), want: "diginotar-microsoft-name"},
		{name: "intercepted at a listed proxy", tape: one(atProxy, forged.serves(tls.VersionTLS12), updateServer, false), want: "intercepted"},
		{name: "intercepted by an own authority", tape: one(theServer, forged.serves(tls.VersionTLS12), updateServer, false), args: []string{"--roots", operator}, want: "intercepted"},
		{name: "posing", tape: one(theServer, another.serves(tls.VersionTLS13), updateServer, false), want: "posing"},
		{name: "posing over QUIC", tape: func(p *tape) {
			p.datagrams(theClient, theServer, 443, overQUIC(p.t, another.serves(tls.VersionTLS13), updateServer))
		}, want: "posing"},
		{name: "asked at Microsoft over QUIC", tape: func(p *tape) {
			p.datagrams(theClient, atMicrosoft, 443, overQUIC(p.t, another.serves(tls.VersionTLS13), updateServer))
		}},
		{name: "asked at Microsoft", tape: one(atMicrosoft, another.serves(tls.VersionTLS13), updateServer, false)},
		{name: "asked at a proxy", tape: one(atProxy, another.serves(tls.VersionTLS13), updateServer, false)},
		{name: "a download name, hidden", tape: one(theServer, another.serves(tls.VersionTLS13), "download.windowsupdate.com", false)},
		{name: "posing with the shape of the case", tape: one(theServer, issueCertificate(t, issued{names: []string{updateServer}, bits: 2048, pad: 1248}).serves(tls.VersionTLS13), updateServer, false),
			want: "posing-shape", says: "1073570F79136511BA45B44C923A55C69B97E91D3AAA2E06E5E657129CA809FF"},
		{name: "posing, a byte longer", tape: one(theServer, issueCertificate(t, issued{names: []string{updateServer}, bits: 2048, pad: 1249}).serves(tls.VersionTLS13), updateServer, false), want: "posing"},
		{name: "the shape under another name", tape: one(theServer, issueCertificate(t, issued{names: []string{updateServer}, bits: 2048, pad: 1248}).serves(tls.VersionTLS13), "www.example.net", false)},
		{name: "shared by five servers", tape: func(p *tape) {
			for i := range 5 {
				p.flow(theClient, fmt.Sprintf("198.51.100.%d", 10+i), 443, shakes(p.t, forged.serves(tls.VersionTLS12), updateServer, false))
				p.at = p.at.Add(time.Minute)
			}
		}, want: "forged forged forged forged forged shared-certificate", says: "5 servers outside"},
		{name: "contact by TLS 1.3 after a flag", tape: func(p *tape) {
			p.flow(theClient, theServer, 443, shakes(p.t, forged.serves(tls.VersionTLS12), updateServer, false))
			p.at = p.at.Add(time.Hour)
			p.flow("192.0.2.2", theServer, 443, shakes(p.t, forged.serves(tls.VersionTLS13), "www.example.net", false))
			p.at = p.at.Add(time.Hour)
			p.flow("192.0.2.2", theServer, 443, shakes(p.t, forged.serves(tls.VersionTLS13), "www.example.net", false))
			p.flow("192.0.2.3", "198.51.100.8", 443, shakes(p.t, forged.serves(tls.VersionTLS13), "www.example.net", false))
		}, want: "contact-high forged", says: "Forged certificate for a Windows Update name"},
		{name: "contact by resumption after a flag", tape: func(p *tape) {
			server := forged.serves(tls.VersionTLS12)
			client := &tls.Config{InsecureSkipVerify: true, ServerName: updateServer, ClientSessionCache: tls.NewLRUClientSessionCache(8), MaxVersion: tls.VersionTLS12}
			for range 2 {
				all, err := converse(client, server)
				if err != nil {
					t.Fatal(err)
				}
				p.flow(theClient, theServer, 443, all)
				p.at = p.at.Add(time.Hour)
			}
		}, want: "contact-high forged posing-shape"},
		{name: "the same again and again", tape: func(p *tape) {
			for range 20 {
				p.flow(theClient, theServer, 443, shakes(p.t, forged.serves(tls.VersionTLS12), updateServer, false))
			}
		}, want: "forged forged+19"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := now
			if !c.at.IsZero() {
				at = c.at
			}
			p := newTape(t, at)
			c.tape(p)
			got, reasons := p.rules(append(lists, c.args...)...)
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q", strings.Join(got, " "), c.want)
			}
			for _, r := range reasons {
				t.Log(r)
			}
			if all := strings.Join(reasons, "\n"); !strings.Contains(all, c.says) || strings.Contains(all, "(none)") {
				t.Errorf("the reasons do not say %q, or have a hole", c.says)
			}
		})
	}
}

func certificateIn(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(file)
	return certificatesOf(t, b, err)[0]
}
