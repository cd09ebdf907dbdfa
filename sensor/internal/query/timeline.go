package query

import (
	"cmp"
	"slices"

	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// Event is one line of the time line of a certificate.
type Event struct {
	Place inventory.Place
	Text  string
	Level string // of an alert
}

// TimeLine returns what happened to a certificate, in the order of the packets, and how
// many events are left out in the middle, of more than 200.
func TimeLine(store *inventory.Store, c *inventory.Certificate) (events []Event, left int, err error) {
	compare := func(a, b Event) int {
		return cmp.Or(byTime(&a.Place, &b.Place), cmp.Compare(a.Text, b.Text))
	}
	shrink := func() {
		slices.SortFunc(events, compare)
		if more := len(events) - MaxEvents; more > 0 {
			left += more
			events = slices.Delete(events, MaxEvents/2, MaxEvents/2+more)
		}
	}
	add := func(e Event) {
		if events = append(events, e); len(events) >= 4*MaxEvents {
			shrink()
		}
	}
	if c.NotBefore != 0 || c.NotAfter != 0 {
		const second = 1_000_000_000
		if c.First.Time/second < c.NotAfter && c.NotAfter <= c.Last.Time/second {
			add(Event{Place: inventory.Place{Time: c.NotAfter * second}, Text: "its validity ends"})
		}
		if c.First.Time/second < c.NotBefore && c.NotBefore <= c.Last.Time/second {
			add(Event{Place: inventory.Place{Time: c.NotBefore * second}, Text: "its validity begins"})
		}
	}
	for s, err := range store.ShownAt(c.SHA256) {
		if err != nil {
			return nil, 0, err
		}
		server := ServerName(s.Server)
		verb := "shown"
		if s.Roles&inventory.Leaf == 0 {
			verb = "sent after another"
			if s.Roles == inventory.Client {
				verb = "shown by a client"
			}
		}
		by := " by "
		if s.Roles == inventory.Client {
			by = " to "
		}
		if s.Handshakes == 1 {
			add(Event{Place: s.First, Text: verb + by + server + ", once"})
			continue
		}
		add(Event{Place: s.First, Text: "first " + verb + by + server})
		add(Event{Place: s.Last, Text: "last " + verb + by + server + ", " + decimal(s.Handshakes) + " times in all"})
	}
	if c.Alerts > 0 {
		for a, err := range store.Alerts() {
			if err != nil {
				return nil, 0, err
			}
			if a.Certificate == c.SHA256 {
				add(Event{Place: a.Place, Text: alertText(a), Level: a.Level})
			}
		}
	}
	shrink()
	return events, left, nil
}

func alertText(a *inventory.Alert) string {
	text := "alert (" + a.Level + "): " + a.Rule
	if a.Counted > 0 {
		text += ", and " + decimal(a.Counted) + " like it"
	}
	return text
}
