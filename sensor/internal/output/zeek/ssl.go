package zeek

import (
	"crypto/sha256"
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/sensor/internal/output/document"
)

// ssl writes a line of ssl.log. Whether the certificate is for the name asked for
// only shows in a full handshake.
func (f *Format) ssl(w *row, d *document.Document) error {
	w.time(start(d))
	w.connection(d)
	t := &d.TLS
	server, client := d.Oddcert.Chain.SHA256, d.Oddcert.ClientChain.SHA256
	if t.Cipher != "" || len(server) > 0 {
		w.text(version(t.VersionProtocol, t.Version))
	} else { // the server has not chosen one
		w.unset(1)
	}
	w.text(cipher(t.Cipher))
	w.text(curve(t.Curve))
	w.text(t.Client.ServerName)
	w.bool(t.Resumed)
	w.unset(1) // last_alert
	w.text(t.NextProtocol)
	if t.Established != nil {
		w.bool(*t.Established)
	} else {
		w.unset(1)
	}
	w.unset(1) // ssl_history
	if len(server)+len(client) > 0 {
		w.texts(fingerprints(server))
		w.texts(fingerprints(client))
	} else {
		w.unset(2)
	}
	if chain := t.Server.CertificateChain; len(chain) > 0 && t.Client.ServerName != "" {
		der, err := decode("certificate_chain", chain[0])
		if err != nil {
			return err
		}
		w.bool(isFor(cert.Parse(der), t.Client.ServerName))
	}
	return nil
}

// start is when the handshake began. A duration is missing where the clock of the
// capture has jumped.
func start(d *document.Document) time.Time {
	return d.Time.Add(-time.Duration(d.Event.Duration))
}

// connection writes the uid and the conn_id.
func (w *row) connection(d *document.Document) {
	if d.Source.IP == "" { // not over IP
		w.unset(len(connection))
		return
	}
	w.text(uid(d))
	w.text(d.Source.IP)
	w.count(uint64(d.Source.Port))
	w.text(d.Destination.IP)
	w.count(uint64(d.Destination.Port))
}

// uid is an identifier in the form of Zeek's for connections. It is the same for a
// handshake and its alerts, and for the same capture read again.
func uid(d *document.Document) string {
	h := sha256.New()
	for _, part := range []string{
		d.Observer.Name, d.Observer.Ingress.Interface.Name, d.Log.File.Path, d.Network.Transport, d.Network.VLAN.ID,
		d.Source.IP, strconv.Itoa(int(d.Source.Port)), d.Destination.IP, strconv.Itoa(int(d.Destination.Port)),
		strconv.FormatInt(start(d).UnixNano(), 10),
	} {
		h.Write(append([]byte(part), 0))
	}
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := h.Sum(nil)
	id := []byte{'C'}
	for _, n := range [...]int{10, 7} { // an integer of 64 bits has room for ten digits
		x := binary.BigEndian.Uint64(sum)
		sum = sum[8:]
		for range n {
			id = append(id, digits[x%62])
			x /= 62
		}
	}
	return string(id)
}

// fingerprints returns hashes as Zeek writes them; never nil.
func fingerprints(hashes []string) []string {
	list := make([]string, 0, len(hashes))
	for _, h := range hashes {
		list = append(list, strings.ToLower(h))
	}
	return list
}

// version is Zeek's name of a version (SSL::version_strings, in
// base/protocols/ssl/consts.zeek).
func version(protocol, number string) string {
	switch protocol {
	case "ssl":
		return "SSLv" + strings.TrimSuffix(number, ".0")
	case "tls":
		return "TLSv" + strings.ReplaceAll(number, ".", "")
	case "dtls":
		return "DTLSv" + strings.ReplaceAll(number, ".", "")
	case "tlcp": // 0x0101
		return "unknown-257"
	}
	return ""
}

// cipher is Zeek's name of a cipher suite (SSL::cipher_desc, in the same file): that
// of IANA's registry but for those without a certificate.
func cipher(name string) string {
	return strings.Replace(unknown(name), "_anon_", "_ANON_", 1)
}

// curve is Zeek's name of a named group (SSL::ec_curves, in the same file).
func curve(name string) string {
	if name == "0x4138" {
		return "CECPQ2"
	}
	return unknown(name)
}

// unknown is Zeek's name of a value that has none, which records have in hex.
func unknown(name string) string {
	if digits, ok := strings.CutPrefix(name, "0x"); ok {
		if n, err := strconv.ParseUint(digits, 16, 32); err == nil {
			return "unknown-" + strconv.FormatUint(n, 10)
		}
	}
	return name
}
