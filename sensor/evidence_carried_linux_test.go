package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/smtp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/evidence"
)

// resumedRule matches each handshake that resumes a session, in which no certificate is
// shown.
const resumedRule = `title: Any resumed session
id: 00000000-0000-4000-8000-000000000002
status: test
logsource: {product: oddcert, category: certificate}
detection:
  any: {oddcert.certificates: resumed}
  condition: any
level: low
`

// packing is two sensors that make packs at one mirror port, tcpdump beside them, and what
// is to be seen.
type packing struct {
	*bench
	t          *testing.T
	log        string // with the secrets of the clients
	dump       string // what tcpdump has written
	with, bare string // folders of packs: with secrets and without
	want       []carriedAlert
}

// carriedAlert is an alert that both sensors raise.
type carriedAlert struct {
	name      string
	server    string // address and port
	transport string
	carrier   string
	record    string // is in the alert's record
	has       string // tshark's filter, which frames of the pack must pass
	encrypted bool   // the certificate is
	resumed   bool   // there is none
	clients   int    // certificates that the client shows
	filter    string // tshark's, for the frames of the flow; empty where the five-tuple will do
}

// TestEvidenceCarriedLive has packs at a mirror port of what comes over QUIC, after
// STARTTLS, through VXLAN, GRE and VLANs, in fragments of IPv6, with a client's
// certificate and in a resumed session. Each is there while the sensor runs, holds, and
// has all frames of its handshake that tcpdump has beside it, and no others; secrets are
// in it where that was asked for, and those of its handshake alone.
func TestEvidenceCarriedLive(t *testing.T) {
	b := newBench(t)
	oddcert, rules, dir := drilled(t), anyRule(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(rules, "any", "resumed.yml"), []byte(resumedRule), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &packing{bench: b, t: t, log: filepath.Join(b.dir, "keys.log"), dump: filepath.Join(dir, "all.pcap"),
		with: filepath.Join(dir, "with"), bare: filepath.Join(dir, "bare")}
	if err := os.WriteFile(p.log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stop := p.tcpdump()
	// Several workers: both directions of a flow must reach one of them, whatever carries it.
	sensors := []*sensing{
		b.listen(t, oddcert, "--workers", "3", "--rules", rules, "--keys", p.log, "--evidence", p.with, "--evidence-secrets"),
		b.listen(t, oddcert, "--workers", "3", "--rules", rules, "--keys", p.log, "--evidence", p.bare),
	}
	p.quic("8443")
	p.starttls("25")
	p.mutual("9443")
	p.resumed("465")
	p.fragments(5349)
	p.vxlan("443")
	p.wrapped("tags of two VLANs", "203.0.113.2", `"vlan":{"id":"8"},"inner":{"vlan":{"id":"7"}}`, "vlan.id == 7 && ieee8021ad.id == 8",
		&layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeQinQ},
		&layers.Dot1Q{VLANIdentifier: 8, Type: layers.EthernetTypeDot1Q}, &layers.Dot1Q{VLANIdentifier: 7, Type: layers.EthernetTypeIPv4})
	p.wrapped("GRE", "203.0.113.3", `"tunnel":["gre"]`, "gre",
		&layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolGRE, SrcIP: net.IP{192, 0, 2, 8}, DstIP: net.IP{192, 0, 2, 9}}, &layers.GRE{Protocol: layers.EthernetTypeIPv4})
	stop()
	for _, s := range sensors {
		s.end(t)
		if out := s.stdout.String(); !strings.Contains(out, "nothing lost") || !strings.Contains(out, fmt.Sprintf("%d  packs of evidence\n", len(p.want))) {
			t.Errorf("%s%s", out, s.stderr.String())
		}
	}
	for _, run := range [][]string{{p.with}, {p.bare}, {"--keys", p.log, p.bare}} {
		for _, c := range verified(t, exitOK, append([]string{"--rules", rules}, run...)...).Packs {
			if encrypted := strings.Contains(strings.Join(c.Notes, " "), "is encrypted in it"); c.Again == encrypted || encrypted && (len(run) > 1 || run[0] == p.with) {
				t.Errorf("%q: %+v", run, c)
			}
		}
	}
	for _, folder := range []string{p.with, p.bare} {
		all := manifests(t, folder)
		slices.SortFunc(all, func(a, b evidence.Manifest) int { return strings.Compare(a.Subject.Start, b.Subject.Start) })
		for _, want := range p.want {
			i := slices.IndexFunc(all, func(m evidence.Manifest) bool { return m.Subject.Server == want.server })
			if i < 0 {
				t.Errorf("%s: no pack", want.name)
				continue
			}
			p.holds(&want, folder, &all[i])
			all = slices.Delete(all, i, i+1)
		}
		if len(all) > 0 {
			t.Errorf("more packs than alerts: %+v", all)
		}
	}
}

// tcpdump captures until stop is called.
func (p *packing) tcpdump() (stop func()) {
	p.t.Helper()
	cmd := p.Sensor.Command("tcpdump", "-i", p.SensorIface, "-U", "--immediate-mode", "-Z", "root", "-w", p.dump)
	var said lockedBuffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		p.t.Skip(err)
	}
	p.t.Cleanup(func() { _ = cmd.Process.Kill() })
	waitFor(p.t, "tcpdump to listen", func() bool { return strings.Contains(said.String(), "listening on") })
	return func() {
		p.t.Helper()
		if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil || !strings.Contains(said.String(), "\n0 packets dropped by kernel") {
			p.t.Errorf("tcpdump: %v: %s", err, said.String())
		}
	}
}

// expect waits until both sensors have the packs of some alerts more.
func (p *packing) expect(alerts ...carriedAlert) {
	p.t.Helper()
	since := time.Now()
	p.want = append(p.want, alerts...)
	waitFor(p.t, "the pack of "+alerts[0].name, func() bool {
		return len(packNames(p.t, p.with)) >= len(p.want) && len(packNames(p.t, p.bare)) >= len(p.want)
	})
	p.t.Logf("%s: the pack was there %v after the handshake", alerts[0].name, time.Since(since).Round(10*time.Millisecond))
}

// client is the configuration of a client whose secrets are logged.
func (p *packing) client(version uint16) *tls.Config {
	p.t.Helper()
	c := &tls.Config{InsecureSkipVerify: true, ServerName: "www.example.net", MinVersion: version, MaxVersion: version}
	if version >= tls.VersionTLS13 {
		f, err := os.OpenFile(p.log, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { f.Close() })
		c.KeyLogWriter = f
	}
	return c
}

// chain is the configuration of a server with a chain of two certificates, which fill
// more than a segment.
func (p *packing) chain(version uint16) *tls.Config {
	p.t.Helper()
	authority := issueCertificate(p.t, issued{cn: "An authority", bits: 2048})
	leaf := issueCertificate(p.t, issued{names: []string{"www.example.net"}, issuer: authority, bits: 2048})
	return leaf.serves(version, authority.x)
}

// quic shakes hands over QUIC.
func (p *packing) quic(port string) {
	p.t.Helper()
	at := func(listen func() (net.PacketConn, error)) *quic.Transport {
		conn, err := listen()
		if err != nil {
			p.t.Fatal(err)
		}
		transport := &quic.Transport{Conn: conn}
		p.t.Cleanup(func() { transport.Close(); conn.Close() })
		return transport
	}
	server := at(func() (conn net.PacketConn, err error) {
		p.Server.Do(func() { conn, err = net.ListenPacket("udp", net.JoinHostPort(p.ServerIP, port)) })
		return conn, err
	})
	client := at(func() (conn net.PacketConn, err error) {
		p.Client.Do(func() { conn, err = net.ListenPacket("udp", net.JoinHostPort(p.ClientIP, "0")) })
		return conn, err
	})
	shows, asks := p.chain(tls.VersionTLS13), p.client(tls.VersionTLS13)
	shows.NextProtos, asks.NextProtos = []string{"h3"}, []string{"h3"}
	listener, err := server.Listen(shows, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(p.t.Context(), patience)
	defer stop()
	conn, err := client.Dial(ctx, server.Conn.LocalAddr(), asks, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := listener.Accept(ctx); err != nil {
		p.t.Fatal(err)
	}
	_ = conn.CloseWithError(0, "")
	p.expect(carriedAlert{name: "QUIC", server: server.Conn.LocalAddr().String(), transport: "udp", carrier: "quic", encrypted: true})
}

// lastWord is what a server says when it has shaken hands: to a client of SMTP, that all
// is well.
const lastWord = "250 mail.example.net\r\n"

// meet has a client and a server shake hands over TCP, each after what it has to say in
// the clear.
func (p *packing) meet(address string, server, client *tls.Config, greet func(net.Conn) error) {
	p.t.Helper()
	front := p.Server.Listen(p.t, address)
	defer front.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := front.Accept()
		if err == nil {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			if greet != nil {
				err = greet(conn)
			}
			secured := tls.Server(conn, server)
			if err == nil {
				err = secured.Handshake()
			}
			if err == nil {
				_, err = io.WriteString(secured, lastWord)
			}
			_, _ = io.Copy(io.Discard, conn)
		}
		served <- err
	}()
	conn := p.Client.Dial(p.t, address)
	_ = conn.SetDeadline(time.Now().Add(patience))
	var err error
	if greet == nil {
		secured := tls.Client(conn, client)
		if err = secured.Handshake(); err == nil {
			_, err = io.ReadFull(secured, make([]byte, len(lastWord))) // and a ticket before it
		}
	} else {
		var mail *smtp.Client
		if mail, err = smtp.NewClient(conn, "mail.example.net"); err == nil {
			err = mail.StartTLS(client)
		}
	}
	conn.Close()
	if err = errors.Join(err, <-served); err != nil {
		p.t.Fatalf("%s: %v", address, err)
	}
}

// starttls shakes hands after STARTTLS of SMTP.
func (p *packing) starttls(port string) {
	p.t.Helper()
	address := net.JoinHostPort(p.ServerIP, port)
	p.meet(address, p.chain(tls.VersionTLS12), p.client(tls.VersionTLS12), func(conn net.Conn) error {
		for i, s := range []string{"220 mail.example.net ESMTP\r\n", "250-mail.example.net\r\n250 STARTTLS\r\n", "220 2.0.0 Ready\r\n"} {
			if i > 0 {
				if _, err := conn.Read(make([]byte, 512)); err != nil { // a line of the client
					return err
				}
			}
			if _, err := io.WriteString(conn, s); err != nil {
				return err
			}
		}
		return nil
	})
	p.expect(carriedAlert{name: "STARTTLS", server: address, transport: "tcp", carrier: "starttls-smtp"})
}

// mutual shakes hands with certificates on both sides, all encrypted, over IPv6.
func (p *packing) mutual(port string) {
	p.t.Helper()
	address := net.JoinHostPort(p.ServerIP6, port)
	server, client := p.chain(tls.VersionTLS13), p.client(tls.VersionTLS13)
	server.ClientAuth = tls.RequireAnyClientCert
	client.Certificates = issueCertificate(p.t, issued{names: []string{"client.example.net"}}).serves(0).Certificates
	p.meet(address, server, client, nil)
	p.expect(carriedAlert{name: "a client's certificate", server: address, transport: "tcp", carrier: "tls", encrypted: true, clients: 1})
}

// resumed shakes hands twice: the second time resumes the session of the first.
func (p *packing) resumed(port string) {
	p.t.Helper()
	address := net.JoinHostPort(p.ServerIP, port)
	server, client := p.chain(tls.VersionTLS12), p.client(tls.VersionTLS12)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	p.meet(address, server, client, nil)
	p.meet(address, server, client, nil)
	full := carriedAlert{name: "a session and its resumption", server: address, transport: "tcp", carrier: "tls"}
	resumed := full
	resumed.resumed = true
	p.expect(full, resumed)
}

// fragments shakes hands over DTLS with datagrams that IPv6 takes to pieces.
func (p *packing) fragments(port int) {
	p.t.Helper()
	in(p.t, p.Server, "ip", "address", "add", "2001:db8::f/64", "dev", p.ServerIface, "nodad")
	was := p.ServerIP6
	p.ServerIP6 = "2001:db8::f"
	defer func() { p.ServerIP6 = was }()
	p.run(p.t, &exchange{name: "dtls12-pieces", port: port, udp: true, ipv6: true,
		server:  serve + "-dtls1_2 -mtu 4000 -cert leaf.pem -key leaf.key -cert_chain chain.pem -Verify 1 -verify_quiet",
		clients: []string{connect + "-dtls1_2 -mtu 4000 -cert client.pem -key client.key"},
		says:    []string{"Protocol version: DTLSv1.2"},
	})
	p.expect(carriedAlert{name: "fragments of IPv6", server: net.JoinHostPort("2001:db8::f", strconv.Itoa(port)), transport: "udp", carrier: "dtls", clients: 1,
		filter: "ipv6.addr == 2001:db8::f && !icmpv6", has: "ipv6.fraghdr"})
}

// vxlan shakes hands through a tunnel that the kernels of both ends make.
func (p *packing) vxlan(port string) {
	p.t.Helper()
	for _, end := range []struct{ where, iface, local, remote, inner string }{
		{"client", p.ClientIface, p.ClientIP, p.ServerIP, "198.51.100.1"}, {"server", p.ServerIface, p.ServerIP, p.ClientIP, "198.51.100.2"},
	} {
		n := p.Client
		if end.where == "server" {
			n = p.Server
		}
		if out, err := n.Command("ip", "link", "add", "tunnel0", "type", "vxlan", "id", "42", "dstport", "4789", "dev", end.iface, "local", end.local, "remote", end.remote).CombinedOutput(); err != nil {
			p.t.Logf("without VXLAN: %s", out)
			return
		}
		in(p.t, n, "ip", "address", "add", end.inner+"/24", "dev", "tunnel0")
		in(p.t, n, "ip", "link", "set", "tunnel0", "up")
	}
	address := net.JoinHostPort("198.51.100.2", port)
	p.meet(address, p.chain(tls.VersionTLS12), p.client(tls.VersionTLS12), nil)
	p.expect(carriedAlert{name: "VXLAN", server: address, transport: "tcp", carrier: "tls", record: `"tunnel":["vxlan"]`, has: "vxlan.vni == 42"})
}

// wrapped sends a handshake to the mirror port, each packet behind headers that the kernel
// may have no driver for.
func (p *packing) wrapped(name, server, record, has string, headers ...gopacket.SerializableLayer) {
	p.t.Helper()
	one := newTape(p.t, time.Now())
	one.flow("203.0.113.1", server, 443, shakes(p.t, p.chain(tls.VersionTLS12), "www.example.net", false))
	p.Server.Do(func() {
		fd := rawSocket(p.t, p.MirrorIface)
		defer unix.Close(fd)
		for b := one.b[24:]; len(b) > 0; {
			packet := b[16 : 16+int(b[8])+int(b[9])<<8]
			b = b[16+len(packet):]
			frame := gopacket.NewSerializeBuffer()
			if err := gopacket.SerializeLayers(frame, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, append(slices.Clone(headers), gopacket.Payload(packet))...); err != nil {
				p.t.Fatal(err)
			}
			if _, err := unix.Write(fd, frame.Bytes()); err != nil {
				p.t.Fatal(err)
			}
		}
	})
	p.expect(carriedAlert{name: name, server: net.JoinHostPort(server, "443"), transport: "tcp", carrier: "tls", record: record, has: has})
}

// holds holds a pack against what is to be in it.
func (p *packing) holds(want *carriedAlert, folder string, m *evidence.Manifest) {
	p.t.Helper()
	name := want.name + " in " + filepath.Base(folder)
	secrets := evidence.NoSecrets
	switch {
	case want.encrypted && folder == p.with:
		secrets = evidence.SecretsIncluded
	case want.encrypted:
		secrets = evidence.SecretsWithheld
	}
	if m.Subject.Transport != want.transport || m.Subject.Carrier != want.carrier || m.Secrets != secrets || m.Frames.Missing != "" || len(m.Losses.Lost) > 0 || (m.Subject.Leaf == "") != want.resumed {
		p.t.Errorf("%s: %+v", name, m)
	}
	pack := filepath.Join(folder, m.ID)
	var all []byte
	clients := 0
	entries, err := os.ReadDir(pack)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		data, err := fs.ReadFile(os.DirFS(pack), e.Name())
		if err != nil {
			p.t.Fatal(err)
		}
		all = append(all, data...)
		if strings.HasPrefix(e.Name(), "client-") && strings.HasSuffix(e.Name(), ".der") {
			clients++
		}
		if e.Name() == "alert.json" && !bytes.Contains(data, []byte(want.record)) {
			p.t.Errorf("%s: the alert does not say %s: %s", name, want.record, data)
		}
	}
	if clients != want.clients {
		p.t.Errorf("%s: %d certificates of the client, not %d", name, clients, want.clients)
	}
	if want.has != "" && program(p.t, pack, nil, "tshark", "-r", "handshake.pcapng", "-Y", want.has) == "" {
		p.t.Errorf("%s: no frame of the pack has %s", name, want.has)
	}
	p.secretsIn(name, all, secrets == evidence.SecretsIncluded)
	p.compare(name, want, m, pack)

	if want.resumed || secrets == evidence.SecretsWithheld {
		return
	}
	der, err := os.ReadFile(filepath.Join(pack, "server-00.der"))
	if err != nil {
		p.t.Fatal(err)
	}
	shown := program(p.t, pack, nil, "tshark", "-r", "handshake.pcapng", "-T", "fields", "-e", "tls.handshake.certificate", "-e", "dtls.handshake.certificate")
	if !strings.Contains(strings.ReplaceAll(shown, ":", ""), hex.EncodeToString(der)) {
		p.t.Errorf("%s: tshark does not find the certificate", name)
	}
}

// secretsIn looks for the secrets of all clients in what a pack holds: where it has some,
// these are the two that open one handshake, and nothing that was said after it.
func (p *packing) secretsIn(name string, pack []byte, has bool) {
	p.t.Helper()
	log, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(log)) {
		f := strings.Fields(line)
		secret, err := hex.DecodeString(f[2])
		if err != nil {
			p.t.Fatal(err)
		}
		if bytes.Contains(bytes.ToLower(pack), []byte(f[2])) || bytes.Contains(pack, secret) {
			found = append(found, f[1]+" "+f[0])
		}
	}
	slices.Sort(found)
	if has != (len(found) == 2) || !has && len(found) > 0 {
		p.t.Errorf("%s: it has the secrets %q", name, found)
	}
	if has && (!strings.HasSuffix(found[0], " CLIENT_HANDSHAKE_TRAFFIC_SECRET") || found[1] != strings.Replace(found[0], " CLIENT_", " SERVER_", 1)) {
		p.t.Errorf("%s: it has the secrets %q", name, found)
	}
}

// compare holds the frames of a pack against those that tcpdump has of the flow: up to
// the last of the pack they are the same, but for bare acknowledgements, and after it
// tshark finds no message of the handshake.
func (p *packing) compare(name string, want *carriedAlert, m *evidence.Manifest, pack string) {
	p.t.Helper()
	filter := want.filter
	if filter == "" {
		var parts []string
		for _, end := range []string{m.Subject.Client, m.Subject.Server} {
			host, port, err := net.SplitHostPort(end)
			if err != nil {
				p.t.Fatal(err)
			}
			ip := "ip"
			if strings.Contains(host, ":") {
				ip = "ipv6"
			}
			parts = append(parts, fmt.Sprintf("%s.addr == %s && %s.port == %s", ip, host, want.transport, port))
		}
		filter = strings.Join(parts, " && ")
	}
	had := map[string]int{}
	for _, data := range bytesIn(p.t, filepath.Join(pack, "handshake.pcapng")) {
		had[data]++
	}
	total := 0
	for _, n := range had {
		total += n
	}
	// By its record the alert is found in what tcpdump has, too.
	cut := map[string]int{}
	out := filepath.Join(p.t.TempDir(), "cut.pcapng")
	oddcert(p.t, exitOK, "cut", "--alert", filepath.Join(pack, "alert.json"), "-o", out, p.dump)
	for _, data := range bytesIn(p.t, out) {
		cut[data]++
	}
	for data, n := range had {
		if cut[data] < n {
			p.t.Errorf("%s: the alert is cut out without %d frames of its pack", name, n-cut[data])
		}
	}
	beside := bytesIn(p.t, p.dump)
	table := program(p.t, "", nil, "tshark", "-r", p.dump, "-o", "tls.keylog_file:"+p.log, "-Y", filter, "-T", "fields",
		"-e", "frame.number", "-e", "tcp.flags", "-e", "tcp.len", "-e", "tls.handshake.type", "-e", "dtls.handshake.type", "-e", "tls.change_cipher_spec", "-e", "_ws.col.Info")
	lines, taken := strings.Split(strings.TrimSuffix(table, "\n"), "\n"), 0
	for _, line := range lines {
		f := strings.Split(line, "\t")
		number, err := strconv.Atoi(f[0])
		if err != nil || number > len(beside) {
			p.t.Fatalf("%q: %v", line, err)
		}
		data := beside[number-1]
		idle := f[2] == "0" && f[1] == "0x0010"
		const ticket = "4" // NewSessionTicket, which TLS 1.3 sends when the handshake is over
		said := f[3]+f[4]+f[5] != "" && f[3] != ticket
		switch {
		case had[data] > 0:
			had[data]--
			taken++
		case idle:
		case taken < total:
			p.t.Errorf("%s: it lacks %s", name, line)
		case said:
			p.t.Errorf("%s: it ends before %s", name, line)
		}
	}
	if taken != total || total == 0 || total != m.Frames.Count {
		p.t.Errorf("%s: %d of %d frames are of the flow, the manifest says %d", name, taken, total, m.Frames.Count)
	}
	p.t.Logf("%s: %d of the %d frames of the flow", name, total, len(lines))
}

// bytesIn returns what was captured of each frame in a capture.
func bytesIn(t *testing.T, path string) (list []string) {
	t.Helper()
	eachFrame(t, path, func(f *capture.Frame) { list = append(list, string(f.Data)) })
	return list
}
