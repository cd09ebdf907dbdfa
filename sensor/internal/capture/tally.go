package capture

import "github.com/oddcert/oddcert/sensor/internal/linktype"

// tally counts the packets of one file, and keeps its clock.
type tally struct {
	number   uint64 // packets so far
	ignored  uint64 // packets among these of link types that are not known
	all      bool   // yield these too
	found    bool   // the file was found in a folder, and not named by the user
	inside   bool   // the parser has read a part of a block
	unknowns []unknownLink
	unknown  map[linktype.Type]bool // those in unknowns
	foreign  uint64                 // packets of link types of no network, see NoNetwork; not in ignored

	clock *Clock
	jumps uint64 // of the clock
	jump  uint64 // number of the packet at the first jump
	fresh bool   // a header inside of the file was read, and no packet since
	parts int    // captures that began inside of the file and do not continue what is before
}

func (t *tally) packets() *tally { return t }

// next is see for a packet whose time just goes on, as those of most do; for any
// other it returns 0, and nothing has changed.
func (t *tally) next(iface int, time int64) (now int64) {
	if t.fresh {
		return 0
	}
	return t.clock.next(iface, time)
}

// see takes the time of the packet that was counted last, and returns its flow
// time.
func (t *tally) see(iface int, time int64) int64 {
	if t.fresh {
		t.fresh = false
		if !t.clock.goesOn(time) {
			t.parts++
			t.clock = new(Clock)
		}
	}
	now, jumped := t.clock.See(iface, time)
	if jumped {
		if t.jumps++; t.jumps == 1 {
			t.jump = t.number
		}
	}
	return now
}

// ignore counts the packet that was counted last as one of a link type that is not
// known. noted is the caller's: whether that was noted before.
func (t *tally) ignore(link linktype.Type, noted *bool) {
	if link.NoNetwork() && t.found {
		t.foreign++
		return
	}
	if !*noted {
		*noted = true
		t.note(link)
	}
	t.ignored++
}

// unknownLink is a link type that is not known, and the number of the first packet
// that has it.
type unknownLink struct {
	link   linktype.Type
	number uint64
}

// note remembers that the packet that was counted last has a link type that is not
// known.
func (t *tally) note(link linktype.Type) {
	if t.unknown[link] {
		return
	}
	if t.unknown == nil {
		t.unknown = make(map[linktype.Type]bool)
	}
	t.unknown[link] = true
	t.unknowns = append(t.unknowns, unknownLink{link, t.number})
}
