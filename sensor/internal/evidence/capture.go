package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"

	"github.com/oddcert/oddcert/sensor/internal/pcapng"
)

func sortedKeys(m map[string]uint64) []string { return slices.Sorted(maps.Keys(m)) }

// comments says what happened at a frame, for those that matter.
func comments(p *pack, number uint64, at int64) (list []string) {
	a := p.alert
	is := func(n uint64, t int64) bool { return n == number && t == at }
	if is(a.start.Frame, a.start.Time) {
		list = append(list, "The handshake begins here.")
	}
	if a.at.Frame != 0 && is(a.at.Frame, a.at.Time) {
		list = append(list, "The server's certificate is complete here: SHA-256 "+a.subject.Leaf)
	}
	if is(a.end.Frame, a.end.Time) {
		list = append(list, "The handshake ends here.")
	}
	mark := a.at
	if mark.Frame == 0 {
		mark = a.end
	}
	if is(mark.Frame, mark.Time) {
		list = append(list, fmt.Sprintf("Alert %s: %s", a.id, plain(a.rule.Title, maxComment)))
	}
	return list
}

// keyLog is the text of a key log with the secrets that opened the handshake (RFC 9850,
// section 2).
func keyLog(p *pack) []byte {
	var b bytes.Buffer
	o := p.alert.opened
	for _, s := range []struct {
		label  string
		secret []byte
	}{{"CLIENT_HANDSHAKE_TRAFFIC_SECRET", o.Client}, {"SERVER_HANDSHAKE_TRAFFIC_SECRET", o.Server}} {
		if s.secret != nil {
			fmt.Fprintf(&b, "%s %x %x\n", s.label, o.Random, s.secret)
		}
	}
	return b.Bytes()
}

// captureOf is the frames of a pack as a pcapng file, with comments, and with the secrets
// where the pack has them.
func captureOf(p *pack, m *Manifest) ([]byte, error) {
	var out bytes.Buffer
	w, err := pcapng.NewWriter(&out, pcapng.Section{
		Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: "oddcert " + m.Sensor.Version, Comment: "Evidence of the alert " + m.ID,
	})
	if err == nil && m.Secrets == SecretsIncluded {
		err = w.Secrets(keyLog(p))
	}
	for i := range p.list {
		f := &p.list[i]
		one := pcapng.Packet{Interface: pcapng.Interface{LinkType: f.LinkType}, Time: f.Time, Length: f.Length, Data: f.Data, Comments: comments(p, f.Number, f.Time)}
		if f.Origin != nil {
			one.Interface.Name = f.Origin.Interface
		}
		err = errors.Join(err, w.Packet(&one))
	}
	if err = errors.Join(err, w.Flush()); err != nil {
		return nil, fmt.Errorf("write the frames: %w", err)
	}
	return out.Bytes(), nil
}
