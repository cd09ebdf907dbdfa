package main

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/posture"
)

// TestPosture has crypto/tls agree on keys in each way that it can, with one server for
// each, and sessions that are resumed.
func TestPosture(t *testing.T) {
	rsa, curve := issueCertificate(t, issued{names: []string{"rsa.example"}, bits: 2048}), issueCertificate(t, issued{names: []string{"curve.example"}})
	limited := func(c *tls.Config, groups ...tls.CurveID) *tls.Config {
		c.CurvePreferences = groups
		return c
	}
	hybrid, x25519 := tls.X25519MLKEM768, tls.X25519
	tape := newTape(t, time.Now())
	shake := func(last int, client, server *tls.Config) {
		t.Helper()
		client.InsecureSkipVerify, client.ServerName, client.MinVersion = true, "www.example", tls.VersionTLS10
		all, err := converse(client, server)
		if err != nil {
			t.Fatalf("server %d: %v", last, err)
		}
		tape.flow("192.0.2.1", fmt.Sprintf("198.51.100.%d", last), 443, all)
	}
	shake(1, limited(&tls.Config{}, hybrid, x25519), limited(curve.serves(tls.VersionTLS13), hybrid))
	shake(1, limited(&tls.Config{}, hybrid, x25519), limited(curve.serves(tls.VersionTLS13), hybrid))
	shake(1, limited(&tls.Config{}, x25519), limited(curve.serves(tls.VersionTLS13), x25519))
	shake(2, limited(&tls.Config{}, hybrid, x25519), limited(curve.serves(tls.VersionTLS13), x25519))
	shake(3, limited(&tls.Config{}, x25519), limited(rsa.serves(tls.VersionTLS13), hybrid, x25519))
	shake(4, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}}, &tls.Config{
		MinVersion: tls.VersionTLS10, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}, Certificates: rsa.serves(0).Certificates})
	old := rsa.serves(tls.VersionTLS12)
	sessions := &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(1), MaxVersion: tls.VersionTLS12, CurvePreferences: []tls.CurveID{x25519}}
	shake(5, sessions, old)
	shake(6, sessions, old) // the same server behind another address resumes the session

	capture := write(t, "capture.pcap", tape.b)
	want := map[string][]string{ // exchange, handshakes with a post-quantum group, leaf, versions, groups, keys
		"198.51.100.1": {"hybrid", "2", "encrypted", "TLS 1.3 (3)", "X25519MLKEM768 (2), x25519 (1)", ""},
		"198.51.100.2": {"offered", "0", "encrypted", "TLS 1.3 (1)", "x25519 (1)", ""},
		"198.51.100.3": {"classical", "0", "encrypted", "TLS 1.3 (1)", "x25519 (1)", ""},
		"198.51.100.4": {"classical", "0", "seen", "TLS 1.2 (1)", "", "RSA-2048 (1)"},
		"198.51.100.5": {"classical", "0", "seen", "TLS 1.2 (1)", "x25519 (1)", "RSA-2048 (1)"},
		"198.51.100.6": {"classical", "0", "resumed", "TLS 1.2 (1)", "", ""},
	}
	column := func(name string, p *posture.Posture) string {
		i := slices.IndexFunc(postureColumns, func(c postureColumn) bool { return c.name == name })
		return postureColumns[i].text(p)
	}
	n := 0
	for p, err := range posture.All(inventoryOf(t, nil, capture)) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		var got []string
		for _, name := range []string{"exchange", "post_quantum", "leaf", "versions", "groups", "keys"} {
			got = append(got, column(name, p))
		}
		if of := want[p.Server.Address.String()]; !slices.Equal(got, of) {
			t.Errorf("%s: %q, want %q", p.Server.Address, got, of)
		}
	}
	if n != len(want) {
		t.Errorf("%d servers, want %d", n, len(want))
	}
}

// TestPostureAgainstTshark has tshark say which cipher suites and groups each server of
// some captures of the corpus has chosen.
func TestPostureAgainstTshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is missing")
	}
	if testing.Short() {
		t.Skip("slow")
	}
	var captures []string
	err = filepath.WalkDir(filepath.Join(corpusDir(), "captures"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && (strings.HasSuffix(path, ".pcap") || strings.HasSuffix(path, ".pcapng")) {
			captures = append(captures, path)
		}
		return err
	})
	if err != nil {
		t.Skipf("the corpus is missing: %v", err)
	}
	compared, missing := 0, 0
	for i := 0; i < len(captures); i += 12 {
		if info, err := os.Stat(captures[i]); err != nil || info.Size() > 4<<20 {
			continue
		}
		ours := map[string]bool{}
		for p, err := range posture.All(inventoryOf(t, nil, captures[i])) {
			if err != nil {
				t.Fatal(err)
			}
			server := netip.AddrPortFrom(p.Server.Address, p.Server.Port).String()
			for v := range p.Server.Suites {
				ours[fmt.Sprintf("%s suite %d", server, v)] = true
			}
			for v := range p.Server.Groups {
				ours[fmt.Sprintf("%s group %d", server, v)] = true
			}
		}
		text := tsharkFields(t, tshark, captures[i], "(tls.handshake.type==2 || dtls.handshake.type==2) && !icmp && !icmpv6 && !_ws.malformed",
			"ip.src", "ipv6.src", "tcp.srcport", "udp.srcport", "sctp.srcport", "tls.handshake.ciphersuite", "dtls.handshake.ciphersuite",
			"tls.handshake.extensions_key_share_group", "dtls.handshake.extensions_key_share_group", "tls.handshake.server_named_curve")
		for line := range strings.Lines(string(text)) {
			f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			address, err := netip.ParseAddr(f[0] + f[1])
			port, portErr := strconv.ParseUint(f[2]+f[3]+f[4], 10, 16)
			if err != nil || portErr != nil || len(f) != 10 { // in a tunnel, or several messages in a packet
				continue
			}
			for column, kind := range []string{"suite", "suite", "group", "group", "group"} {
				for _, text := range strings.Split(f[5+column], ",") {
					v, err := strconv.ParseUint(text, 0, 16)
					if err != nil {
						continue
					}
					compared++
					if key := fmt.Sprintf("%s %s %d", netip.AddrPortFrom(address, uint16(port)), kind, v); !ours[key] {
						missing++
						t.Logf("%s: tshark has %s (0x%04x)", captures[i], key, v)
					}
				}
			}
		}
	}
	t.Logf("%d suites and groups compared, %d missing", compared, missing)
	if compared > 0 && missing > 0 {
		t.Errorf("%d of %d are missing", missing, compared)
	}
}
