package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The server names in the hellos of QUIC are those that tshark finds, and the
// certificates are said to be encrypted where the capture holds no secrets.
func TestQUIC(t *testing.T) {
	dir := publicCorpus(t)
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("no tshark to compare with")
	}
	for name, certificates := range map[string]string{
		"FoxIO-LLC+ja4/pcap/chrome-cloudflare-quic-with-secrets.pcapng":    "extracted",
		"FoxIO-LLC+ja4/pcap/quic-with-several-tls-frames.pcapng":           "encrypted",
		"ntop+nDPI/tests/cfgs/default/pcap/quic-27.pcap":                   "encrypted",
		"ntop+nDPI/tests/cfgs/default/pcap/quic-v2.pcapng":                 "extracted",
		"ntop+nDPI/tests/cfgs/default/pcap/quic_crypto_aes_auth_size.pcap": "encrypted",
	} {
		path := filepath.Join(dir, "captures", name)
		out, err := exec.Command(tshark, "-r", path, "-Y", "quic && tls.handshake.type == 1", "-T", "fields",
			"-e", "tls.handshake.extensions_server_name").Output()
		if err != nil {
			t.Fatalf("%s: tshark: %v", name, err)
		}
		want := slices.Compact(slices.Sorted(slices.Values(strings.Fields(string(out)))))
		var got []string
		records, _ := replayed(t, "--records", "handshake", path)
		for _, r := range records {
			if r.Oddcert.Carrier != "quic" {
				continue
			}
			got = append(got, r.TLS.Client.ServerName)
			if r.Oddcert.Certificates != certificates {
				t.Errorf("%s: the certificate of %s is %q, not %q", name, r.TLS.Client.ServerName, r.Oddcert.Certificates, certificates)
			}
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) || len(want) == 0 {
			t.Errorf("%s: %q, tshark has %q", name, got, want)
		}
	}
}
