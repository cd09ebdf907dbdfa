package flow

import "github.com/oddcert/oddcert/parsers/event"

// evict makes room in the table: the flow that is worth least goes.
func (t *Tracker) evict() {
	for _, s := range [...]state{closed, embryonic, aborted, reset, decided, established, resting, undecided} {
		i := t.table.queues[s].head
		for s == embryonic && i != 0 && t.table.at(i).answered() {
			t.table.move(i, established)
			i = t.table.queues[s].head
		}
		if i == 0 {
			continue
		}
		t.evicted(i)
		return
	}
}

// evicted closes a flow that is evicted.
func (t *Tracker) evicted(i uint32) {
	switch e := t.table.at(i); {
	case e.state == embryonic, e.state == established:
		t.stats.EvictedEmbryonic++
	case e.state == resting, e.reassembly == 0:
		t.stats.EvictedDecided++
	case t.now-e.last >= timeoutHandshakeIdle:
		t.stats.Expired++ // it was over, though nothing said so
		t.close(i, event.EndOfInput)
		return
	default:
		t.stats.EvictedUndecided++
	}
	t.close(i, event.Evicted)
}

// evictUndecided makes room for another reassembly: that of a flow that was
// reset, or that is decided, or else of the one that has waited longest.
func (t *Tracker) evictUndecided() {
	for _, s := range [...]state{reset, resting, undecided} {
		if i := t.table.queues[s].head; i != 0 {
			t.evicted(i)
			return
		}
	}
}
