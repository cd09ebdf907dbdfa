package flow

// Reset forgets all that frames so far have left, but for the counts: the next
// frame is of another capture.
func (d *Decoder) Reset() {
	d.fragments.reset()
	if d.messages != nil {
		d.messages.reset()
	}
	d.stations, d.followed = nil, nil
	d.rest = nil
}

// reset forgets all datagrams: those that are not whole never will be.
func (f *fragments) reset() {
	for f.byTime.oldest != nil {
		f.drop(f.byTime.oldest, &f.stats.Expired)
	}
}

// reset forgets all fragments of user messages.
func (m *messages) reset() {
	for ; m.first != m.next; m.first++ {
		m.free(m.first, &m.stats.Evicted)
	}
}
