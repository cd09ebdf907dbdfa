package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
)

// A verdict holds what a program found against the truth.
type verdict struct {
	Leaves   tally    `json:"leaves"`  // connections whose server certificate was found
	Alerts   tally    `json:"alerts"`  // connections that raised an alert; zero for a program that raises none
	Wrong    string   `json:"wrong"`   // the differences; empty when there are none
	Counters counters `json:"flows"`   // oddcert's, of its flow table
	Evicted  uint64   `json:"evicted"` // handshakes lost to eviction, as oddcert says
}

// tally compares how many there were with how many there should have been.
type tally struct{ Found, Expected int }

func (t tally) String() string {
	if t.Found == t.Expected {
		return fmt.Sprint(t.Found)
	}
	return fmt.Sprintf("%d of %d", t.Found, t.Expected)
}

// counters are those of oddcert's stats record that concern memory.
type counters struct {
	Total            uint64 `json:"total"`
	Expired          uint64 `json:"expired"`
	EvictedUndecided uint64 `json:"evicted_undecided"`
	EvictedDecided   uint64 `json:"evicted_decided"`
	EvictedEmbryonic uint64 `json:"evicted_embryonic"`
}

// limitLine is the longest line that a program may write; a chain of 100 KB
// fits.
const limitLine = 16 << 20

// watched is the name in the one rule that Suricata gets.
const watched = "update.microsoft.com"

// judge reads what a program wrote about a capture, and prints the verdict.
func judge(args []string, stdout io.Writer) error {
	if len(args) != 3 {
		return errors.New("judge: a format, a truth and an output, please")
	}
	read, ok := map[string]func(*traffic.Truth, io.Reader) (*verdict, error){
		"records": judgeRecords, "eve": judgeEVE, "lines": judgeLines,
		"records-flood": judgeFlood, "eve-flood": judgeFloodEVE,
	}[args[0]]
	if !ok {
		return fmt.Errorf("judge: no format %q", args[0])
	}
	text, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	var truth traffic.Truth
	if err := json.Unmarshal(text, &truth); err != nil {
		return fmt.Errorf("read %s: %w", args[1], err)
	}
	f, err := os.Open(args[2])
	if err != nil {
		return err
	}
	defer f.Close()
	v, err := read(&truth, f)
	if err != nil {
		return fmt.Errorf("read %s: %w", args[2], err)
	}
	return json.NewEncoder(stdout).Encode(v)
}

// lines calls do for each line of r.
func lines(r io.Reader, do func(line []byte) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), limitLine)
	for s.Scan() {
		if err := do(s.Bytes()); err != nil {
			return err
		}
	}
	return s.Err()
}

// leafOf returns the certificate that the server of c showed, nil when it did
// not show one that was captured.
func leafOf(truth *traffic.Truth, c *traffic.Connection) *traffic.Certificate {
	if len(c.Chain) == 0 || !c.Chain[0].Visible {
		return nil
	}
	return &truth.Certificates[c.Chain[0].Certificate]
}

// record is what is judged of one of oddcert's records.
type record struct {
	Event struct {
		Dataset string `json:"dataset"`
	} `json:"event"`
	Client  endpoint `json:"source"`
	Server  endpoint `json:"destination"`
	Network struct {
		VLAN  vlan `json:"vlan"`
		Inner struct {
			VLAN vlan `json:"vlan"`
		} `json:"inner"`
	} `json:"network"`
	Rule struct {
		Ruleset string `json:"ruleset"`
	} `json:"rule"`
	Oddcert struct {
		Alerts       int             `json:"alerts"`       // rules that matched a handshake; an alert record is only made of the first of those alike
		Certificates json.RawMessage `json:"certificates"` // an outcome, or counters in the stats record
		Chain        traffic.Hashes  `json:"chain"`
		ClientChain  traffic.Hashes  `json:"client_chain"`
		Stats        struct {
			Flows   counters `json:"flows"`
			Records struct {
				Unrecorded int `json:"handshakes_unrecorded"`
			} `json:"records"`
			Loss struct {
				Evicted uint64 `json:"evicted"`
			} `json:"loss"`
		} `json:"stats"`
	} `json:"oddcert"`
}

type endpoint struct {
	IP   netip.Addr `json:"ip"`
	Port uint16     `json:"port"`
}

func (e endpoint) addrPort() netip.AddrPort { return netip.AddrPortFrom(e.IP, e.Port) }

type vlan struct {
	ID string `json:"id"`
}

// pair is who spoke with whom.
type pair struct{ client, server netip.AddrPort }

// judgeRecords compares oddcert's records with the truth, connection by
// connection, and the alerts with what was planted.
func judgeRecords(truth *traffic.Truth, r io.Reader) (*verdict, error) {
	var v verdict
	var found []traffic.Found
	matched := make(map[pair]int)
	unrecorded := 0
	err := lines(r, func(line []byte) error {
		var rec record
		if err := json.Unmarshal(line, &rec); err != nil {
			return err
		}
		switch rec.Event.Dataset {
		case "oddcert.handshake":
			f := traffic.Found{Client: rec.Client.addrPort(), Server: rec.Server.addrPort(),
				Outcome: strings.Trim(string(rec.Oddcert.Certificates), `"`),
				Chain:   rec.Oddcert.Chain, ClientChain: rec.Oddcert.ClientChain}
			for _, tag := range []vlan{rec.Network.VLAN, rec.Network.Inner.VLAN} {
				var id uint16
				if n, err := fmt.Sscan(tag.ID, &id); n == 1 && err == nil {
					f.VLANs = append(f.VLANs, id)
				}
			}
			if len(f.Chain) > 0 {
				v.Leaves.Found++
			}
			found = append(found, f)
			if rec.Oddcert.Alerts > 0 {
				matched[pair{f.Client, f.Server}] += rec.Oddcert.Alerts
			}
		case "oddcert.alert":
			if rec.Rule.Ruleset == "evasion" { // which the faults of captures look like
				matched[pair{rec.Client.addrPort(), rec.Server.addrPort()}]--
			}
		case "oddcert.stats":
			unrecorded = rec.Oddcert.Stats.Records.Unrecorded
			v.Counters, v.Evicted = rec.Oddcert.Stats.Flows, rec.Oddcert.Stats.Loss.Evicted
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var wrong []string
	unreported := 0
	for _, d := range truth.Check(found) {
		// Of a flood of hellos that nobody answers only some have a record; the
		// others are counted.
		if d.Fault == traffic.Unreported && d.Connection.Kind == traffic.Unanswered && unreported < unrecorded {
			unreported++
			continue
		}
		// After a gap the framing of records is gone: a certificate may be
		// found again, but need not be.
		if d.Fault != traffic.MissedAfterGap {
			wrong = append(wrong, d.String())
		}
	}
	if unreported < unrecorded {
		wrong = append(wrong, fmt.Sprintf("%d unanswered hellos have no record, %d are counted", unreported, unrecorded))
	}
	alerted := make(map[pair]bool)
	for who, n := range matched {
		if n > 0 {
			alerted[who] = true
		}
	}
	planted := make(map[pair]bool)
	for i := range truth.Connections {
		c := &truth.Connections[i]
		if leafOf(truth, c) != nil {
			v.Leaves.Expected++
		}
		who := pair{c.Client, c.Server}
		for _, s := range c.Chain {
			if s.Visible && truth.Certificates[s.Certificate].Plant != "" {
				planted[who] = planted[who] || s.Whole
			}
		}
	}
	for who, must := range planted {
		if must || alerted[who] {
			v.Alerts.Expected++
		}
		if must && !alerted[who] {
			wrong = append(wrong, fmt.Sprintf("no alert: %v > %v", who.client, who.server))
		}
	}
	v.Alerts.Found = len(alerted)
	for who := range alerted {
		if _, ok := planted[who]; !ok {
			wrong = append(wrong, fmt.Sprintf("an alert without cause: %v > %v", who.client, who.server))
		}
	}
	if len(wrong) > 0 {
		v.Wrong = fmt.Sprintf("%d differences: %s", len(wrong), strings.Join(wrong[:min(3, len(wrong))], "; "))
	}
	return &v, nil
}

// judgeEVE counts Suricata's TLS events with a fingerprint, and its alerts.
func judgeEVE(truth *traffic.Truth, r io.Reader) (*verdict, error) {
	var v verdict
	for i := range truth.Connections {
		if leaf := leafOf(truth, &truth.Connections[i]); leaf != nil {
			v.Leaves.Expected++
			if strings.Contains(strings.ToLower(leaf.Subject), watched) {
				v.Alerts.Expected++
			}
		}
	}
	err := lines(r, func(line []byte) error {
		var e struct {
			EventType string `json:"event_type"`
			TLS       struct {
				Fingerprint string `json:"fingerprint"`
			} `json:"tls"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		switch {
		case e.EventType == "alert":
			v.Alerts.Found++
		case e.EventType == "tls" && e.TLS.Fingerprint != "":
			v.Leaves.Found++
		}
		return nil
	})
	if v.Leaves.Found != v.Leaves.Expected || v.Alerts.Found != v.Alerts.Expected {
		v.Wrong = fmt.Sprintf("%v certificates, %v alerts", v.Leaves, v.Alerts)
	}
	return &v, err
}

// judgeLines counts the lines that are not empty, one for each certificate
// message.
func judgeLines(truth *traffic.Truth, r io.Reader) (*verdict, error) {
	var v verdict
	for i := range truth.Connections {
		if leafOf(truth, &truth.Connections[i]) != nil {
			v.Leaves.Expected++
		}
	}
	err := lines(r, func(line []byte) error {
		if len(bytes.TrimSpace(line)) > 0 {
			v.Leaves.Found++
		}
		return nil
	})
	if v.Leaves.Found != v.Leaves.Expected {
		v.Wrong = fmt.Sprintf("%v certificates", v.Leaves)
	}
	return &v, err
}

// judgeFlood counts which of the alerts that are due oddcert has raised, of the
// honest handshakes in a flood. What it says of the others is not judged.
func judgeFlood(truth *traffic.Truth, r io.Reader) (*verdict, error) {
	var v verdict
	due := make(map[pair]bool) // whether there was an alert
	for i := range truth.Connections {
		c := &truth.Connections[i]
		if leaf := leafOf(truth, c); leaf != nil && leaf.Plant != "" {
			due[pair{c.Client, c.Server}] = false
		}
	}
	err := lines(r, func(line []byte) error {
		if !bytes.Contains(line, []byte(`"alerts":`)) {
			return nil
		}
		var rec record
		if err := json.Unmarshal(line, &rec); err != nil {
			return err
		}
		if rec.Event.Dataset != "oddcert.handshake" {
			return nil
		}
		who := pair{rec.Client.addrPort(), rec.Server.addrPort()}
		if raised, ok := due[who]; ok && !raised {
			due[who] = true
			v.Alerts.Found++
		}
		return nil
	})
	v.Alerts.Expected = len(due)
	return &v, err
}

// judgeFloodEVE does the same for Suricata, whose one rule is for a name.
func judgeFloodEVE(truth *traffic.Truth, r io.Reader) (*verdict, error) {
	var v verdict
	due := make(map[netip.AddrPort]bool)
	for i := range truth.Connections {
		c := &truth.Connections[i]
		if leaf := leafOf(truth, c); leaf != nil && strings.Contains(strings.ToLower(leaf.Subject), watched) {
			due[c.Client] = false
		}
	}
	err := lines(r, func(line []byte) error {
		var e struct {
			EventType  string     `json:"event_type"`
			SourceIP   netip.Addr `json:"src_ip"`
			SourcePort uint16     `json:"src_port"`
			DestIP     netip.Addr `json:"dest_ip"`
			DestPort   uint16     `json:"dest_port"`
		}
		if !bytes.Contains(line, []byte(`"event_type":"alert"`)) {
			return nil
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		for _, end := range []netip.AddrPort{netip.AddrPortFrom(e.SourceIP, e.SourcePort), netip.AddrPortFrom(e.DestIP, e.DestPort)} {
			if raised, ok := due[end]; ok && !raised {
				due[end] = true
				v.Alerts.Found++
			}
		}
		return nil
	})
	v.Alerts.Expected = len(due)
	return &v, err
}
