package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

// cutAlerts are the alerts whose flows are cut out. An id is found where rules raise the
// alert again, which they do in the capture that it came from: event.id depends on that,
// or on the sensor. A record names the flow itself, so it finds it in any capture.
type cutAlerts struct {
	ids    map[string]bool // whether the alert was raised
	flows  []frames.Flow   // of the records; each From is the time of the handshake
	starts map[decode.Key][]int64
}

// maxAlerts bounds what is read of a file with records, in bytes: one of them may be as
// long as the file.
const maxAlerts = 64 << 20

// sameHandshake is how far two clocks may be apart that have seen the same handshake. It
// is what package frames allows for the time of one frame.
const sameHandshake = int64(2 * time.Second)

var isAlertID = regexp.MustCompile(`^[0-9A-Fa-f]{32}$`).MatchString

// add takes an id, or the name of a file with records. A file named - is in.
func (a *cutAlerts) add(text string, in io.Reader) error {
	switch {
	case isAlertID(text):
		a.ids[strings.ToLower(text)] = false
		return nil
	case text == "-":
		return a.read("standard input", in)
	}
	f, err := os.Open(text)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%q is neither the id of an alert, which has 32 hex digits, nor a file with its record", text)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a folder: name the file in it that has the record; in a pack of evidence it is alert.json", text)
	}
	return a.read(text, f)
}

// read takes the records of alerts, JSON objects one after another.
func (a *cutAlerts) read(name string, in io.Reader) error {
	type end struct {
		IP   netip.Addr
		Port uint16
		MAC  string
	}
	limited := &io.LimitedReader{R: in, N: maxAlerts}
	d := json.NewDecoder(limited)
	for n := 1; ; n++ {
		var record struct {
			Event               struct{ Start time.Time }
			Network             struct{ Transport string }
			Source, Destination end
		}
		err := d.Decode(&record)
		switch {
		case limited.N == 0:
			return fmt.Errorf("%s has more than %s: take the records of the alerts out of it", name, formatSize(maxAlerts))
		case errors.Is(err, io.EOF) && n > 1:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("there is no record of an alert in %s", name)
		case err != nil:
			return fmt.Errorf("%s: record %d cannot be read: %w", name, n, err)
		}
		transport, known := event.ParseTransport(record.Network.Transport)
		ends := [2]event.Endpoint{}
		for i, e := range []end{record.Source, record.Destination} {
			ends[i].Addr, ends[i].Port = e.IP.Unmap().WithZone(""), e.Port
			if mac, err := net.ParseMAC(e.MAC); err == nil && len(mac) == 6 {
				ends[i].MAC = [6]byte(mac)
			}
		}
		key, ok := decode.NewKey(transport, ends[0], ends[1])
		if !known || !ok || record.Event.Start.IsZero() {
			return fmt.Errorf("%s: record %d is not that of an alert: it does not say between whom the handshake was, and when", name, n)
		}
		if len(a.flows) == maxFlows {
			return fmt.Errorf("%s: more than %d flows are wanted: narrow the choice", name, maxFlows)
		}
		start := record.Event.Start.UnixNano()
		if slices.Contains(a.starts[key], start) { // another rule has matched, too
			continue
		}
		a.flows = append(a.flows, frames.Flow{Transport: transport, Endpoints: ends, From: event.Moment{Time: start}})
		a.starts[key] = append(a.starts[key], start)
	}
}

// any reports whether there are some.
func (a *cutAlerts) any() bool { return len(a.ids)+len(a.flows) > 0 }

// has reports whether one of them was raised for the handshake of f, whose flow has this
// key.
func (a *cutAlerts) has(f *finding.Finding, key *decode.Key) (has bool) {
	for i := range f.Alerts {
		if _, wanted := a.ids[f.Alerts[i].ID]; wanted && !f.Alerts[i].Counted {
			a.ids[f.Alerts[i].ID], has = true, true
		}
	}
	return has || slices.ContainsFunc(a.starts[*key], func(t int64) bool {
		return max(t-f.Handshake.Start.Time, f.Handshake.Start.Time-t) <= sameHandshake
	})
}

// unfound says which of them no frames were found of, where there is reason to say so:
// nil otherwise. found is the number of frames that there were.
func (a *cutAlerts) unfound(found uint64) error {
	var ids []string
	for id, raised := range a.ids {
		if !raised {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	switch {
	case len(ids) > 0:
		what := "the alert " + ids[0]
		if len(ids) > 1 {
			what = fmt.Sprintf("%s, %s among them,", terminal.Count(len(ids), "alert", "alerts"), ids[0])
		}
		return fmt.Errorf("the rules do not raise %s in these captures. An id holds for the capture, or the sensor, that an alert came from; elsewhere give a file with its record (--alert FILE), or its five-tuple (--flow)", what)
	case found == 0 && len(a.flows) == 1:
		f := &a.flows[0]
		return fmt.Errorf("nothing was found of the flow of the alert, about %s; if the clock of the capture was another one, give the five-tuple alone: --flow %s", time.Unix(0, f.From.Time).UTC().Format(time.RFC3339), flowText(f))
	}
	return nil
}
