// Package query answers questions about an inventory: which certificates are of a kind,
// what is known of one, what hangs together with it, and what differs between two
// inventories.
package query

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/judge/trust"
)

// Flags are what stands out in a certificate.
type Flags uint16

// The flags.
const (
	Expired     Flags = 1 << iota // it was shown after its end
	NotYetValid                   // it was shown before its begin
	SelfSigned                    // issuer equals subject, to the byte
	Weak                          // its key, or the hash of its signature, see package trust
	Untrusted                     // no chain of good signatures leads from it to a trusted root
	Shared                        // servers of more than one address showed it as their own
	Alerting                      // alerts were raised for handshakes with it
)

var flagNames = [...]string{"expired", "not-yet-valid", "self-signed", "weak", "untrusted", "shared", "alerting"}

// Names are the names of the flags in f, in their order.
func (f Flags) Names() (names []string) {
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// FlagNames are the names of all flags.
func FlagNames() []string { return flagNames[:] }

// flagsOf returns the flags of c but Shared, for which its servers must be looked at. at
// is when its validity is asked for, nanoseconds since the Unix epoch: 0 stands for the
// times of the handshakes that showed it. Then a certificate is expired if it was shown
// when it was, once at least, and not yet valid likewise.
func flagsOf(c *inventory.Certificate, at int64) (f Flags) {
	set := func(flag Flags, on bool) {
		if on {
			f |= flag
		}
	}
	first, last := c.First.Time, c.Last.Time
	if at != 0 {
		first, last = at, at
	}
	if c.NotBefore != 0 || c.NotAfter != 0 {
		set(Expired, date(c.NotAfter).Passed(last))
		set(NotYetValid, date(c.NotBefore).Ahead(first))
	}
	set(SelfSigned, c.SelfSigned)
	// What a key signs of itself proves nothing, whatever the hash is.
	set(Weak, trust.WeakKey(c.KeyAlgorithm, c.KeySize) || trust.WeakHash(c.SignatureAlgorithm) != "" && !c.SelfSigned)
	if c.Judged {
		switch c.Trust {
		case judgement.BadSignature, judgement.Invalid, judgement.SelfSigned, judgement.UntrustedRoot, judgement.Incomplete:
			f |= Untrusted
		}
	}
	set(Alerting, c.Alerts > 0)
	return f
}

// FlagsOf returns the flags of c at the times of its handshakes, without [Shared].
func FlagsOf(c *inventory.Certificate) Flags { return flagsOf(c, 0) }

func date(unix int64) cert.Date { return cert.DateOf(time.Unix(unix, 0)) }

// Row is a certificate of an inventory with what is asked of it.
type Row struct {
	*inventory.Certificate
	Flags Flags
	At    int64 // when its validity was asked for; 0 for the times of the handshakes

	store     *inventory.Store
	sightings []inventory.Sighting
	looked    bool
}

// NewRow returns the row of a certificate.
func NewRow(store *inventory.Store, c *inventory.Certificate, at int64) (*Row, error) {
	r := &Row{Certificate: c, Flags: flagsOf(c, at), At: at, store: store}
	return r, r.share()
}

// share finds out whether the certificate is shared.
func (r *Row) share() error {
	if r.Roles&inventory.Leaf == 0 || r.Servers.N < 2 {
		return nil
	}
	var first inventory.ServerKey
	found := false
	for s, err := range r.store.ShownAt(r.SHA256) {
		if err != nil {
			return err
		}
		if s.Roles&inventory.Leaf == 0 {
			continue
		}
		if !found {
			first, found = s.Server, true
		} else if s.Server.Address != first.Address || s.Server.MAC != first.MAC {
			r.Flags |= Shared
			return nil
		}
	}
	return nil
}

// Sightings returns the servers that showed the certificate, those of the last time
// first, at most 64 of them.
func (r *Row) Sightings() ([]inventory.Sighting, error) {
	if r.looked {
		return r.sightings, nil
	}
	last := func(a, b inventory.Sighting) int {
		if a.Last.Time != b.Last.Time {
			if a.Last.Time > b.Last.Time {
				return -1
			}
			return 1
		}
		return a.Server.Compare(b.Server)
	}
	for s, err := range r.store.ShownAt(r.SHA256) {
		if err != nil {
			return nil, err
		}
		if r.sightings = append(r.sightings, *s); len(r.sightings) >= 2*maxSightings {
			slices.SortFunc(r.sightings, last)
			r.sightings = r.sightings[:maxSightings]
		}
	}
	slices.SortFunc(r.sightings, last)
	r.sightings = r.sightings[:min(len(r.sightings), maxSightings)]
	r.looked = true
	return r.sightings, nil
}

// Asked are the names that were asked for, of the servers of Sightings.
func (r *Row) Asked() (names []string, err error) {
	sightings, err := r.Sightings()
	for _, s := range sightings {
		for _, name := range s.Names {
			if len(names) < inventory.MaxNames && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, err
}

// Name is what people call the certificate: its common name, else its first other name,
// else its subject, else its serial number.
func (r *Row) Name() string { return NameOf(r.Certificate) }

// NameOf is what people call a certificate: its common name, else its first other name,
// else its subject, else its serial number.
func NameOf(c *inventory.Certificate) string {
	switch {
	case c.CommonName != "":
		return c.CommonName
	case len(c.Names) > 0:
		return c.Names[0]
	case c.Subject != "":
		return c.Subject
	}
	return "serial number " + c.Serial
}

// RoleNames are the names of roles as records have them.
func RoleNames(r inventory.Role) (names []string) {
	for i, name := range [...]string{"leaf", "issuer", "client"} {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// ServerName is how a server is written: address and port, and the MAC address over
// EAPOL.
func ServerName(k inventory.ServerKey) string {
	if !k.Address.IsValid() {
		return net.HardwareAddr(k.MAC[:]).String()
	}
	return netip.AddrPortFrom(k.Address, k.Port).String()
}

// Time is how a time of an inventory is written: RFC 3339 in UTC; empty for 0.
func Time(nanoseconds int64) string {
	if nanoseconds == 0 {
		return ""
	}
	return time.Unix(0, nanoseconds).UTC().Format(time.RFC3339Nano)
}

// Seconds is how a date of a certificate is written: RFC 3339 in UTC; empty for what
// cannot be read.
func Seconds(unix int64) string {
	if unix == 0 {
		return ""
	}
	return date(unix).String()
}

// contains reports whether text is in s, in any case.
func contains(s, text string) bool {
	return strings.Contains(strings.ToLower(s), strings.ToLower(text))
}
