package parsers

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFingerprintsOfTshark compares JA3 and JA3S with those of tshark.
func TestFingerprintsOfTshark(t *testing.T) {
	dir := corpus(t)
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("no tshark here")
	}
	total := 0
	for _, name := range []string{
		"FoxIO-LLC+ja4/pcap/latest.pcapng",
		"FoxIO-LLC+ja4/pcap/tls-handshake.pcapng",
		"FoxIO-LLC+ja4/pcap/tls-non-ascii-alpn.pcapng",
		"arkime+arkime/tests/pcap/openssl-ssl3.pcap",
		"Lekensteyn+wireshark-notes/ssl3/dump.pcapng",
		"ntop+nDPI/tests/cfgs/default/pcap/dtls.pcap",
		"ntop+nDPI/tests/cfgs/default/pcap/dtls2.pcap",
		"ntop+nDPI/tests/cfgs/default/pcap/dtls_certificate_fragments.pcap",
		"ntop+nDPI/tests/cfgs/default/pcap/ja3_lots_of_cipher_suites.pcap",
		"ntop+nDPI/tests/cfgs/default/pcap/anyconnect-vpn.pcap",
	} {
		path := filepath.Join(dir, "captures", name)
		args := []string{"-r", path, "-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator= "}
		for _, proto := range []string{"tls", "dtls"} {
			for _, field := range []string{"ja3_full", "ja3", "ja3s_full", "ja3s"} {
				args = append(args, "-e", proto+".handshake."+field)
			}
		}
		out, err := exec.Command(tshark, args...).Output()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		theirs := map[string]bool{}
		for _, v := range strings.FieldsFunc(string(out), func(r rune) bool { return r == '|' || r == ' ' || r == '\n' }) {
			theirs[v] = true
		}
		n := 0
		for _, h := range replay(t, path).got {
			if c := h.ClientHello; c != nil && c.JA3 != "" {
				if n++; !theirs[c.JA3] || !theirs[c.JA3Raw] {
					t.Errorf("%s: JA3 %s %s is not tshark's", name, c.JA3, c.JA3Raw)
				}
			}
			if s := h.ServerHello; s != nil {
				if n++; !theirs[s.JA3S] || !theirs[s.JA3SRaw] {
					t.Errorf("%s: JA3S %s %s is not tshark's", name, s.JA3S, s.JA3SRaw)
				}
			}
		}
		if total += n; n == 0 {
			t.Errorf("%s: no fingerprint", name)
		}
	}
	t.Logf("%d fingerprints", total)
}

// TestJA4OfCaptures has the fingerprints that JA4's authors publish for their
// captures.
func TestJA4OfCaptures(t *testing.T) {
	dir := corpus(t)
	for name, want := range map[string]map[string]string{
		"latest.pcapng": {
			"pdx-col.eum-appdynamics.com":         "t13d1516h2_8daaf6152771_e5627efa2ab1",
			"discovery.cem.cloud.us":              "t12d190800_d83cc789557e_7af1ed941c26",
			"app.slack.com":                       "t13d1516h2_8daaf6152771_9b887d9acb53",
			"ping-edge.smartscreen.microsoft.com": "t13d1516h2_8daaf6152771_e5627efa2ab1",
		},
		"badcurveball.pcap":    {"bad.curveballtest.com": "t13d1615h2_46e7e9700bed_45f260be83e2"},
		"macos_tcp_flags.pcap": {"venarisecurity.com": "t13d2613h2_2802a3db6c62_845d286b0d67"},
		"tls-alpn-h2.pcap":     {"www.cloudflare.com": "t12d4605h2_85626a9a5f7f_aaf95bb78ec9"},
		"browsers-x509.pcapng": {"lptag.liveperson.net": "t13d1516h2_8daaf6152771_e5627efa2ab1"},
	} {
		got := map[string]string{}
		for _, h := range replay(t, filepath.Join(dir, "captures/FoxIO-LLC+ja4/pcap", name)).got {
			if h.ClientHello != nil {
				got[h.ClientHello.ServerName] = h.ClientHello.JA4
			}
		}
		for server, ja4 := range want {
			if got[server] != ja4 {
				t.Errorf("%s: %s: %q, want %q", name, server, got[server], ja4)
			}
		}
	}
}
