package evidence

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// pack is a pack in the making.
type pack struct {
	alert   *alert
	list    []frames.Frame
	bytes   int    // of the frames
	missing string // why frames are missing; empty where none is known to be
	ended   bool   // the last of the handshake is there
	after   int    // frames after it
	written bool
}

// add takes a frame, which owns its bytes, as long as there is room. It reports whether
// the pack has all frames that it needs.
func (p *pack) add(f *frames.Frame) (done bool) {
	if p.ended {
		if p.after++; p.after > maxAfter {
			return true
		}
	}
	if len(p.list) >= maxPackFrames || p.bytes+len(f.Data) > maxPackBytes {
		if !p.ended {
			p.missing = "there were more than a pack may have"
		}
		return p.ended
	}
	p.list = append(p.list, *f)
	p.bytes += len(f.Data)
	end := p.alert.end
	p.ended = p.ended || f.Number == end.Frame && f.Time == end.Time
	return p.ended && !p.alert.forged
}

// build makes the files of a pack, and what the manifest says beside them.
func (c *Collector) build(ctx context.Context, p *pack) (*Manifest, []file, error) {
	a := p.alert
	m := &Manifest{
		Format: format, ID: a.id, Made: timeText(c.config.Now().UnixNano()), Subject: a.subject, Suppressed: a.suppressed,
		Sensor: c.config.Sensor, Losses: c.config.Losses(), Secrets: NoSecrets,
		Frames: Frames{Count: len(p.list), Bytes: p.bytes, Missing: p.missing},
	}
	switch {
	case a.opened == nil:
	case c.config.Secrets:
		m.Secrets = SecretsIncluded
	default:
		m.Secrets = SecretsWithheld
	}
	if o := a.flow.Origin; o != nil {
		m.Origin.Capture, m.Origin.Interface = strings.ToValidUTF8(o.Path, "\uFFFD"), strings.ToValidUTF8(o.Interface, "\uFFFD")
		if o.Path != "" {
			var err error
			if m.Origin.SHA256, m.Origin.Size, err = c.config.Hash(ctx, o.Path); err != nil {
				m.Origin.Unhashed = strings.ToValidUTF8(err.Error(), "\uFFFD")
			}
		}
	}
	for i := range p.list {
		f := &p.list[i]
		at := At{Frame: f.Number, Time: timeText(f.Time)}
		if f.Offset > 0 { // it is never 0: a file has a header
			at.Offset = f.Offset
		}
		m.Frames.List = append(m.Frames.List, at)
		if i == 0 {
			m.Frames.First = f.Number
		}
		m.Frames.Last = f.Number
	}
	capture, err := captureOf(p, m)
	if err != nil {
		return m, nil, err
	}
	files := []file{{alertName, append(bytes.Clone(a.record), '\n')}, {captureName, capture}}
	files = append(files, certificateFiles("server", a.chain)...)
	files = append(files, certificateFiles("client", a.clients)...)
	files = append(files, file{ruleName, []byte(a.rule.Text + "\n")})
	return m, append(files, file{textName, text(p, m, c.config.Folder.key)}), nil
}

// certificateFiles are a chain as DER and as PEM, in the order in which it was sent.
func certificateFiles(of string, chain []*cert.Certificate) (files []file) {
	for i, c := range chain {
		name := fmt.Sprintf("%s-%02d", of, i)
		files = append(files, file{name + ".der", c.DER},
			file{name + ".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER})})
	}
	return files
}

// text is the text for a person.
func text(p *pack, m *Manifest, key *Key) []byte {
	var b bytes.Buffer
	a := p.alert
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-12s %s\n", name, plain(value, maxText))
		}
	}
	fmt.Fprintf(&b, "%s\n\n", plain(a.rule.Title, maxText))
	line("Level", a.rule.Level)
	line("Verdict", a.rule.Verdict)
	line("Seen", m.Subject.End)
	line("Server", m.Subject.Server)
	line("Client", m.Subject.Client)
	line("Protocol", m.Subject.Carrier+" over "+m.Subject.Transport)
	line("Tunnel", strings.Join(a.flow.Tunnel, ", "))
	line("Name", a.name)
	if len(a.chain) > 0 {
		line("Subject", a.chain[0].Subject.String)
		line("Issuer", a.chain[0].Issuer.String)
	}
	line("SHA-256", m.Subject.Leaf)
	line("Reason", a.reason)
	for _, r := range a.reasons {
		line("", "- "+r)
	}
	if a.suppressed > 0 {
		line("Repeated", fmt.Sprintf("%d more alerts are counted with this one", a.suppressed))
	}
	b.WriteString("\nWhere it came from\n\n")
	line("Capture", m.Origin.Capture)
	line("  SHA-256", m.Origin.SHA256)
	line("  not hashed", m.Origin.Unhashed)
	line("Interface", m.Origin.Interface)
	line("Frames", fmt.Sprintf("%d of them, from number %d to %d", m.Frames.Count, m.Frames.First, m.Frames.Last))
	line("  missing", m.Frames.Missing)
	line("  filter", string(output.AppendFilter(nil, a.flow.Transport, &a.flow.Endpoints)))
	line("Sensor", fmt.Sprintf("%s, oddcert %s %s", m.Sensor.Name, m.Sensor.Version, m.Sensor.Revision))
	line("Rule", fmt.Sprintf("%s, version %s", a.rule.ID, a.rule.Version))
	line("Lost so far", losses(m.Losses))
	line("Alert", m.ID)

	fmt.Fprintf(&b, `
What is here

%-17s the alert, as the sensor has sent it
%-17s the frames of the handshake, with comments
server-NN.der/pem the certificates of the server, as it has sent them; 00 is its own
%-17s the rule that has matched
%-17s what is here, and where it came from, with the SHA-256 of each file and of the
                  manifest of the pack before
`, alertName, captureName, ruleName, manifestName)
	switch m.Secrets {
	case SecretsWithheld:
		b.WriteString("\nThe certificates came encrypted. The secrets that open them are not in this pack, so that nobody\n" +
			"can find them in the capture without these.\n")
	case SecretsIncluded:
		b.WriteString("\nThe certificates came encrypted. The secrets that open the handshake are in the capture.\n")
	}
	b.WriteString("\nHow to check it by hand\n\n    sha256sum -c " + sumsName + "\n")
	if key != nil {
		fmt.Fprintf(&b, "    ssh-keygen -Y check-novalidate -n %s -s %s <%s\n", Namespace, signatureName, manifestName)
		fmt.Fprintf(&b, "    ssh-keygen -Y verify -n %s -f ALLOWED_SIGNERS -I NAME -s %s <%s\n", Namespace, signatureName, manifestName)
	}
	if len(a.chain) > 0 {
		b.WriteString("    openssl x509 -inform DER -in server-00.der -noout -text -fingerprint -sha256\n")
	}
	fmt.Fprintf(&b, "    tshark -r %s -Y frame.comment -T fields -e frame.number -e frame.comment\n", captureName)
	protocol := "tls"
	if a.datagram {
		protocol = "dtls"
	}
	fmt.Fprintf(&b, "    tshark -r %s -Y %s.handshake.certificate -T fields -e frame.number -e %[2]s.handshake.certificate\n", captureName, protocol)
	b.WriteString("    oddcert evidence verify .\n")
	if key != nil {
		fmt.Fprintf(&b, "\nThe key that has signed it is %s.\n", key.Fingerprint())
	}
	return b.Bytes()
}

func losses(l Losses) string {
	if l.Time == "" {
		return "not counted yet"
	}
	var parts []string
	for _, name := range sortedKeys(l.Lost) {
		parts = append(parts, fmt.Sprintf("%s %d", name, l.Lost[name]))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// plain makes s harmless where it is shown, and has at most limit bytes of it: what does
// not print becomes an escape. It may be any bytes.
func plain(s string, limit int) string {
	var b strings.Builder
	for len(s) > 0 {
		if b.Len() >= limit {
			b.WriteString("…")
			break
		}
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default: // controls of direction among them, which can reorder what is read
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		s = s[size:]
	}
	return b.String()
}
