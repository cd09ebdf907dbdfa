package output

import (
	"io"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/rules"
)

// Terminal writes alerts and a closing summary for people.
type Terminal struct{ w io.Writer }

// Alert writes one alert.
func (t *Terminal) Alert(h *parsers.Handshake, m *rules.Match) error { return nil }

// Summary writes what was seen and what was lost.
func (t *Terminal) Summary(c *Counters) error { return nil }
