package decode

import "github.com/oddcert/oddcert/parsers/rdpudp"

// followed is the flows that began as Remote Desktop over UDP, whose later
// datagrams nothing tells from those of others: all of them, up to a limit, are
// for the tracker. The oldest gives way.
type followed struct {
	flows [limitFollowed]struct {
		key  Key
		left int // datagrams; 0 in a slot that is free
	}
	next int // the slot whose turn it is to be used again
}

// follows reports whether the datagram p is of a flow that is followed, and
// follows those that begin.
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
		f.flows[f.next].key, f.flows[f.next].left = p.Key, limitFollowing
		f.next = (f.next + 1) % limitFollowed
	}
	return begins
}
