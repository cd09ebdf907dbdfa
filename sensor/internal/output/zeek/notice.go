package zeek

import (
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/output/document"
)

// notice writes a line of notice.log. Its note is the verdict, such as
// Oddcert::Forged; sub is the name of the rule.
func (f *Format) notice(w *row, d *document.Document) error {
	w.time(d.Time)
	w.connection(d)
	w.unset(3) // about a file
	switch t := d.Network.Transport; t {
	case "tcp", "udp":
		w.text(t)
	case "":
		w.unset(1)
	default: // transport_proto, in base/init-bare.zeek, has no others
		w.text("unknown_transport")
	}
	w.text("Oddcert::" + noteName(d.Oddcert.Verdict))
	if d.Event.Reason != "" {
		w.text(d.Event.Reason)
	} else {
		w.text(d.Message)
	}
	w.text(d.Rule.Name)
	if d.Source.IP != "" {
		w.text(d.Source.IP)
		w.text(d.Destination.IP)
		w.count(uint64(d.Destination.Port))
	} else {
		w.unset(3)
	}
	w.positive(max(d.Oddcert.Suppressed.Count, d.Oddcert.Correlation.Count))
	w.text(d.Observer.Name)
	w.texts([]string{"Notice::ACTION_LOG"})
	w.texts([]string{}) // email_dest
	return nil
}

// noteName is a verdict as Zeek writes the names of notices: words that begin with a
// capital letter, with underscores between them.
func noteName(verdict string) string {
	if verdict == "" {
		return "Alert"
	}
	words := strings.Split(verdict, "-")
	for i, word := range words {
		if word != "" {
			words[i] = strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return strings.Join(words, "_")
}
