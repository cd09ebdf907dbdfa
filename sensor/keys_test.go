package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// said is what one party of a conversation wrote at once.
type said struct {
	client bool
	b      []byte
}

// listener notes what goes over a connection.
type listener struct {
	net.Conn
	client bool
	mu     *sync.Mutex
	all    *[]said
}

func (l listener) Write(b []byte) (int, error) {
	l.mu.Lock()
	*l.all = append(*l.all, said{l.client, bytes.Clone(b)})
	l.mu.Unlock()
	return l.Conn.Write(b)
}

// converse lets crypto/tls shake hands in TLS 1.3, with certificates on both
// sides, and say a word each.
func converse(client, server *tls.Config) (all []said, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	defer a.Close()
	b, err := l.Accept()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	over := make(chan error, 1)
	go func() {
		defer b.Close()
		s := tls.Server(listener{b, false, &mu, &all}, server)
		word := make([]byte, 4)
		_, err := io.ReadFull(s, word)
		if err == nil {
			_, err = s.Write(word)
		}
		over <- err
	}()
	c := tls.Client(listener{a, true, &mu, &all}, client)
	if _, err = c.Write([]byte("word")); err == nil {
		_, err = io.ReadFull(c, make([]byte, 4))
	}
	if serverErr := <-over; err == nil {
		err = serverErr
	}
	return all, err
}

// keyedFlows are captured conversations of TLS 1.3, with the key log of their
// clients and the SHA-256 of the certificates of the servers and of the clients.
type keyedFlows struct {
	frames           [][]byte
	log              []byte
	servers, clients []string
}

func converseAll(n int) (k keyedFlows, err error) {
	var log bytes.Buffer
	certificate := func(name string) (tls.Certificate, string, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return tls.Certificate{}, "", err
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(4e9, 0)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, fmt.Sprintf("%X", sha256.Sum256(der)), err
	}
	for i := range n {
		serves, serverHash, err := certificate(fmt.Sprintf("server-%d.example", i))
		if err != nil {
			return k, err
		}
		asks, clientHash, err := certificate("a client")
		if err != nil {
			return k, err
		}
		all, err := converse(&tls.Config{InsecureSkipVerify: true, ServerName: "www.example", Certificates: []tls.Certificate{asks}, KeyLogWriter: &log},
			&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{serves}, ClientAuth: tls.RequireAnyClientCert})
		if err != nil {
			return k, err
		}
		if err := k.capture(i, all); err != nil {
			return k, err
		}
		k.servers, k.clients = append(k.servers, serverHash), append(k.clients, clientHash)
	}
	k.log = log.Bytes()
	return k, nil
}

// capture makes frames of what was said, by a client of its own for each i.
func (k *keyedFlows) capture(i int, all []said) error {
	return k.between(net.IP{192, 0, 2, byte(i)}, net.IP{198, 51, 100, 1}, all)
}

// between makes frames of what was said between two hosts.
func (k *keyedFlows) between(from, to net.IP, all []said) error {
	seq := map[bool]uint32{true: 1000, false: 2000}
	frame := func(client bool, flags func(*layers.TCP), payload []byte) error {
		src, dst := from, to
		tcp := &layers.TCP{SrcPort: 40000, DstPort: 443, Seq: seq[client], Ack: seq[!client], Window: 65535}
		if !client {
			src, dst = dst, src
			tcp.SrcPort, tcp.DstPort = tcp.DstPort, tcp.SrcPort
		}
		flags(tcp)
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: src, DstIP: dst}
		if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
			return err
		}
		b := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp, gopacket.Payload(payload)); err != nil {
			return err
		}
		k.frames = append(k.frames, bytes.Clone(b.Bytes()))
		seq[client] += uint32(len(payload))
		if tcp.SYN {
			seq[client]++
		}
		return nil
	}
	if err := frame(true, func(t *layers.TCP) { t.SYN = true }, nil); err != nil {
		return err
	}
	if err := frame(false, func(t *layers.TCP) { t.SYN, t.ACK = true, true }, nil); err != nil {
		return err
	}
	for _, s := range all {
		for b := s.b; len(b) > 0; {
			n := min(len(b), 1400)
			if err := frame(s.client, func(t *layers.TCP) { t.ACK, t.PSH = true, true }, b[:n]); err != nil {
				return err
			}
			b = b[n:]
		}
	}
	return nil
}

// pcap is a capture of raw IP.
func (k *keyedFlows) pcap() []byte { return k.pcapAt(time.Unix(1.6e9, 0)) }

// pcapAt is the same of another time.
func (k *keyedFlows) pcapAt(at time.Time) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b2c3d4)
	b = le.AppendUint32(b, 2|4<<16)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(le.AppendUint32(b, 1<<18), 101)
	for i, f := range k.frames {
		b = le.AppendUint32(le.AppendUint32(b, uint32(at.Unix())), uint32(i))
		b = le.AppendUint32(le.AppendUint32(b, uint32(len(f))), uint32(len(f)))
		b = append(b, f...)
	}
	return b
}

// pcapng is the same with the key log in it, before frame at.
func (k *keyedFlows) pcapng(at int) []byte {
	le := binary.LittleEndian
	var out []byte
	block := func(kind uint32, body []byte) {
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
		total := uint32(len(body) + 12)
		out = le.AppendUint32(le.AppendUint32(out, kind), total)
		out = le.AppendUint32(append(out, body...), total)
	}
	block(0x0a0d0d0a, append(le.AppendUint32(le.AppendUint32(nil, 0x1a2b3c4d), 1), bytes.Repeat([]byte{0xff}, 8)...))
	block(1, le.AppendUint32(le.AppendUint32(nil, 101), 1<<18))
	for i := range len(k.frames) + 1 {
		if i == at {
			block(10, append(le.AppendUint32(le.AppendUint32(nil, 0x544c534b), uint32(len(k.log))), k.log...))
		}
		if i < len(k.frames) {
			micros := uint64(1.6e15) + uint64(i)
			body := le.AppendUint32(nil, 0)
			body = le.AppendUint32(le.AppendUint32(body, uint32(micros>>32)), uint32(micros))
			body = le.AppendUint32(le.AppendUint32(body, uint32(len(k.frames[i]))), uint32(len(k.frames[i])))
			block(6, append(body, k.frames[i]...))
		}
	}
	return out
}

// makeKeyed makes a capture of a conversation of TLS 1.3 and its key log; the same
// with the key log inside, behind the packets; and a key log with mistakes.
func makeKeyed(dir string) error {
	k, err := converseAll(1)
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{
		"keyed.pcap":    k.pcap(),
		"keyed.pcapng":  k.pcapng(len(k.frames)),
		"keys.log":      k.log,
		"mistakes.log":  append([]byte("# a comment\nno line of a key log\n"), k.log...),
		"server-sha256": []byte(k.servers[0]),
		"client-sha256": []byte(k.clients[0]),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func keyed(t *testing.T, n int) keyedFlows {
	t.Helper()
	k, err := converseAll(n)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func write(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Wherever the secrets stand, and whatever the number of workers, the same bytes
// come out.
func TestKeysWhereverTheyStand(t *testing.T) {
	k := keyed(t, 20)
	t.Chdir(t.TempDir())
	var want []byte
	for _, at := range []int{-1, 0, 1, len(k.frames) / 2, len(k.frames)} {
		capture, args := k.pcap(), []string{"replay", "--json", "-", "--records", "handshake,certificate", "a"}
		if at >= 0 {
			capture = k.pcapng(at)
		} else {
			args = append(args, "--keys", "keys")
		}
		for name, b := range map[string][]byte{"a": capture, "keys": k.log} {
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, workers := range []string{"1", "2", "8"} {
			var stdout, stderr bytes.Buffer
			if status := run(append(args, "--workers", workers), &stdout, &stderr); status != exitOK || stderr.Len() > 0 {
				t.Fatalf("exit status %d, %s", status, stderr.String())
			}
			if want == nil {
				want = stdout.Bytes()
			}
			if !bytes.Equal(stdout.Bytes(), want) {
				t.Errorf("%s workers, secrets before frame %d: other records", workers, at)
			}
		}
	}
	var found []string
	for _, r := range records(t, want) {
		found = append(found, r.Oddcert.Chain...)
		found = append(found, r.Oddcert.ClientChain...)
	}
	slices.Sort(found)
	if all := slices.Sorted(slices.Values(slices.Concat(k.servers, k.clients))); !slices.Equal(slices.Compact(found), all) {
		t.Errorf("%d certificates, %d were shown", len(found), len(all))
	}
	if bytes.Contains(want, bytes.Fields(k.log)[2]) {
		t.Error("a secret in the records")
	}
}

// tshark finds the same certificates with the same key log.
func TestKeysDifferential(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skipf("tshark: %v", err)
	}
	k := keyed(t, 5)
	pcap, log := write(t, "a.pcap", k.pcap()), write(t, "keys", k.log)
	ours := map[string]bool{}
	found, _ := replayed(t, "--records", "handshake", "--keys", log, pcap)
	for _, r := range found {
		for _, h := range slices.Concat(r.Oddcert.Chain, r.Oddcert.ClientChain) {
			ours[h] = true
		}
	}
	compare(t, "tshark", difference{}, ours, withTshark(t, pcap, "-o", "tls.keylog_file:"+log))
	if want := slices.Sorted(slices.Values(slices.Concat(k.servers, k.clients))); !slices.Equal(slices.Sorted(maps.Keys(ours)), want) {
		t.Errorf("%d certificates, %d were shown", len(ours), len(want))
	}
}

// The secrets in a capture open no handshake of another one.
func TestSecretsOfOneCapture(t *testing.T) {
	k := keyed(t, 2)
	dir := t.TempDir()
	for name, b := range map[string][]byte{"1": k.pcapng(0), "2/with": k.pcapng(len(k.frames)), "3/without": k.pcap()} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, workers := range []string{"1", "2", "8"} {
		found, _ := replayed(t, "--records", "handshake", "--workers", workers, dir)
		count := map[string]int{}
		for _, h := range handshakes(found) {
			count[h.Certificates]++
		}
		if count["extracted"] != 4 || count["encrypted"] != 2 {
			t.Errorf("%s workers: %v", workers, count)
		}
	}
}
