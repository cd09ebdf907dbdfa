package capture

import (
	"net"
	"path"
	"slices"
	"strings"
	"time"
)

// SilentAfter is how long no frame comes on an interface whose link is up until it is
// called silent.
const SilentAfter = 30 * time.Second

// LinkState is what is known of the link of an interface.
type LinkState string

const (
	LinkUp        LinkState = "up"         // frames can come
	LinkNoCarrier LinkState = "no-carrier" // nothing is at the other end of the cable (RFC 2863: lowerLayerDown)
	LinkDown      LinkState = "down"       // somebody has switched it off
	LinkGone      LinkState = "gone"       // there is no interface of this name, or it could not be opened
)

// Interface is an interface that is captured on.
type Interface struct {
	Name    string    // as it is called now; as it was given while there is none
	State   LinkState // as the kernel told it last
	Since   time.Time // when the state began, by the wall clock
	Changes uint64    // of the state since the start
	MTU     int       // bytes; 0 where it is not known
	Speed   uint64    // Mbit/s; 0 where it is not known
	Frames  uint64    // that were read
	Dropped uint64    // that the kernel dropped because a ring was full

	// Last is when a frame came last, by the wall clock; zero before the first. While
	// none is read, the counters of the interface are asked every few seconds, so that
	// frames that the filter or the shunt withholds count too.
	Last time.Time
}

// Silence is how long no frame has come until now while the link was up: since the last
// frame or since the link came up, whichever is later; 0 where the link is not up.
func (i *Interface) Silence(now time.Time) time.Duration {
	if i.State != LinkUp {
		return 0
	}
	since := i.Since
	if i.Last.After(since) {
		since = i.Last
	}
	return max(now.Sub(since), 0)
}

// isPattern reports whether a name is a pattern of [path.Match].
func isPattern(name string) bool { return strings.ContainsAny(name, `*?[\`) }

// matchesAny reports whether a name matches one of some patterns, which are valid.
func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, name)
		return ok
	})
}

// Expand returns the interfaces that OpenLive would capture on now, MaxInterfaces at most.
// A pattern that no interface matches stays as it is. Those that appear later and match a
// pattern come on top of it.
func Expand(names []string) []string {
	there, _ := net.Interfaces() // without, each pattern stays
	var all []string
	for _, name := range names {
		matched := false
		for _, i := range there {
			if !isPattern(name) || i.Flags&net.FlagLoopback != 0 || !matchesAny([]string{name}, i.Name) {
				continue
			}
			matched = true
			if !slices.Contains(names, i.Name) && !slices.Contains(all, i.Name) {
				all = append(all, i.Name)
			}
		}
		if !matched {
			all = append(all, name)
		}
	}
	return all[:min(len(all), MaxInterfaces)]
}
