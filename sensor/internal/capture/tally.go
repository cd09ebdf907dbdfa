package capture

import "github.com/oddcert/oddcert/sensor/internal/linktype"

// tally counts the packets of one file.
type tally struct {
	number   uint64 // packets so far
	ignored  uint64 // of them, those of unknown link types
	all      bool   // yield these too
	found    bool   // the file was found in a folder, and not asked for by its name
	inside   bool   // of a block that is not there to its end
	oddities []oddity
	odd      map[linktype.Type]bool // those in oddities
	foreign  uint64                 // packets of link types that are no network's; not in ignored

	clock *Clock
	jumps uint64 // of the clock
	jump  uint64 // the number of the packet at the first
	fresh bool   // a header inside of the file was read, and no packet since
	parts int    // captures that began inside of the file, and do not go on from what is before
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

// unknown counts the packet last counted, of the unknown type link, as ignored.
func (t *tally) unknown(link linktype.Type, noted *bool) {
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

// oddity is the first packet of an unknown link type.
type oddity struct {
	link   linktype.Type
	number uint64
}

// note remembers that the packet last counted is of the unknown type link.
func (t *tally) note(link linktype.Type) {
	if t.odd[link] {
		return
	}
	if t.odd == nil {
		t.odd = make(map[linktype.Type]bool)
	}
	t.odd[link] = true
	t.oddities = append(t.oddities, oddity{link, t.number})
}
