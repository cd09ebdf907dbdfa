package decode

import "github.com/oddcert/oddcert/parsers/rdpudp"

// followed is the flows that began as Remote Desktop over UDP. Their later datagrams
// look like nothing, so that all of them, up to a limit, go to the tracker. The
// oldest flow is evicted.
type followed struct {
	flows [limitFollowed]struct {
		key  Key
		left int // datagrams; 0 in a slot that is free
	}
	next    int    // the slot that is used next
	evicted uint64 // flows with datagrams left, to make room for others
}

// follows reports whether the datagram p is of a flow that is followed. From its
// first packet on a flow of Remote Desktop is.
func (d *Decoder) follows(p *Packet) bool {
	_, begins := rdpudp.ParseSYN(p.Payload)
	f := d.followed
	if f == nil {
		if !begins {
			return false
		}
		f = new(followed)
		d.followed = f
	}
	for i := range f.flows {
		if x := &f.flows[i]; x.left > 0 && x.key == p.Key {
			if x.left--; begins {
				x.left = limitFollowing
			}
			return true
		}
	}
	if begins {
		if f.flows[f.next].left > 0 {
			f.evicted++
		}
		f.flows[f.next].key, f.flows[f.next].left = p.Key, limitFollowing
		f.next = (f.next + 1) % limitFollowed
	}
	return begins
}
