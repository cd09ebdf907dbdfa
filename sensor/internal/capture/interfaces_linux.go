package capture

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
	"github.com/oddcert/oddcert/sensor/internal/pcapfilter"
)

const (
	// watchInterval is how often silence, rings to be closed and interfaces to be
	// opened are looked for. What the kernel says of interfaces is heard at once.
	watchInterval = 250 * time.Millisecond

	// returnInterval is how often an interface that is gone or cannot be opened is
	// looked for, beside what the kernel says, and how long the kernel may take to tell
	// all interfaces.
	returnInterval = 2 * time.Second

	// maxDraining is how many rings of lost interfaces a worker may still be reading
	// when another is opened: an interface that comes and goes hundreds of times a
	// second would otherwise pin as many rings.
	maxDraining = 2

	// maxRefused is how many interfaces are remembered that match a pattern and were
	// refused, so that each is told and counted once. More are not told.
	maxRefused = 1024

	// warnBurst lines about interfaces are said at once, and then one each
	// warnInterval: interfaces can change hundreds of times a second. What is left out
	// is summed up in a line.
	warnBurst    = 32
	warnInterval = time.Second

	// maxNamed is how many interfaces that line names.
	maxNamed = 8

	// askAfter is how long no frame is read from an interface until its own counter of
	// frames is asked, and then how often.
	askAfter = SilentAfter / 6
)

// listening is what the sources of one capture share: the interfaces that it captures
// on, of which each may disappear and come back, and others may appear.
//
// OpenLive and then the goroutine that runs watch are the only ones to change what mu
// does not guard, and the only ones to change what it does.
type listening struct {
	opt      LiveOptions
	literals []string // the names of opt.Interfaces
	patterns []string // the patterns of opt.Interfaces
	sources  []*liveSource
	shunt    *shunt               // nil if flows are not shunted
	fanout   []bpf.RawInstruction // deals frames to the workers, the same on all interfaces
	dealt    bool                 // some interface has taken the program
	kernel   *linkSocket
	over     chan struct{} // closed when no ring is needed any more
	done     chan struct{} // closed when watch has ended
	end      sync.Once

	started bool             // OpenLive has returned
	refused map[int32]uint64 // by index: interfaces that match a pattern and are not captured, with the look that saw them
	looks   uint64           // at all interfaces
	looking bool             // the kernel is telling them
	looked  time.Time        // when it was asked to
	stale   bool             // a message of the kernel was lost
	ticked  time.Time
	words   int       // lines that may be said at once
	worded  time.Time // when words was raised last
	unsaid  int       // lines that were left out

	mu     sync.Mutex
	ifaces []*iface
}

// iface is an interface that is captured on, or a name that was given and of which
// there is none.
type iface struct {
	given  string // the name among the literals that it stands for; empty where it matches a pattern
	link   link   // as the kernel told it last
	look   uint64 // the number of the look that saw it last
	rings  []*ring
	retry  time.Time // when to try to open it again
	failed error     // why it was not opened
	hashed bool      // that the kernel's own hash deals its frames was said
	left   time.Time // when its link was no longer up
	quiet  time.Time // since when no frame comes, once that was said; else zero

	counted   uint64    // frames, as its driver counts them
	countedAt time.Time // when that was
	askedAt   time.Time

	origin *event.Origin
	sums   []*ringSum // by worker; guarded by their sources
	shown  Interface  // without the sums; guarded by listening.mu
}

// ringSum is what was counted on one interface by one worker, whatever its rings.
type ringSum struct {
	frames  uint64 // that were read
	dropped uint64
	last    time.Time // when frames were read last
}

// watch hears what the kernel says of interfaces until the capture is over.
func (l *listening) watch() {
	defer close(l.done)
	defer l.kernel.close()
	for {
		messages, err := l.kernel.receive(time.Now().Add(watchInterval))
		switch {
		case l.isOver():
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			if !l.stale {
				l.say("watch interfaces: %w: looking at all of them again", err)
			}
			l.stale = true
			if !errors.Is(err, unix.ENOBUFS) {
				select { // whatever is wrong, it may be so for long
				case <-l.over:
				case <-time.After(watchInterval):
				}
			}
		default:
			l.hear(messages)
		}
		if now := time.Now(); now.Sub(l.ticked) >= watchInterval {
			l.ticked = now
			l.tick(now)
		}
	}
}

func (l *listening) isOver() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

// stop ends watch, and returns when it has ended.
func (l *listening) stop() {
	l.end.Do(func() { close(l.over) })
	l.kernel.close() // wakes it
	<-l.done
}

// look has the kernel tell all interfaces.
func (l *listening) look(now time.Time) {
	l.stale, l.looking, l.looked = false, true, now
	l.looks++
	if l.kernel.ask(0) != nil {
		l.stale, l.looking = true, false
	}
}

// hear takes messages of the kernel.
func (l *listening) hear(b []byte) {
	for len(b) > 0 {
		m, rest, err := nextLinkMessage(b)
		if err != nil {
			l.stale = true
			return
		}
		b = rest
		if m.interrupted {
			l.stale = true
		}
		switch m.kind {
		case linkIs:
			l.update(m.link)
		case linkDeleted:
			delete(l.refused, m.link.index)
			if i := l.at(m.link.index); i != nil {
				l.lose(i)
			}
		case linkEnd:
			if l.looking {
				l.looking = false
				l.sweep()
			}
		case linkRefused:
			l.stale, l.looking = true, false
		}
	}
}

// at returns the interface of an index that is captured, or nil.
func (l *listening) at(index int32) *iface {
	for _, i := range l.ifaces {
		if i.link.index == index {
			return i
		}
	}
	return nil
}

// standing returns what stands for a name that was given, or nil.
func (l *listening) standing(name string) *iface {
	for _, i := range l.ifaces {
		if i.given == name {
			return i
		}
	}
	return nil
}

// update takes what the kernel says of one interface.
func (l *listening) update(k link) {
	if i := l.at(k.index); i != nil {
		l.change(i, k)
		return
	}
	if i := l.standing(k.name); i != nil {
		if i.link.index != 0 { // one that had the name before, under another now
			l.say("capture on %s: no longer, as another interface is %s now", i.link.name, k.name)
			l.part(i)
			l.stale = len(l.patterns) > 0 // which it may match
		}
		l.take(i, k)
		return
	}
	if !l.matches(&k) {
		return
	}
	if len(l.ifaces) >= MaxInterfaces {
		l.refuse(k, fmt.Errorf("%d interfaces are captured on already", len(l.ifaces)))
		return
	}
	if _, err := linkTypeOf(k.hardware); err != nil {
		l.refuse(k, err)
		return
	}
	delete(l.refused, k.index)
	l.take(l.add("", k.name), k)
}

// matches reports whether an interface is captured because of a pattern.
func (l *listening) matches(k *link) bool {
	return !k.loopback() && matchesAny(l.patterns, k.name)
}

// refuse notes that an interface is not captured although it matches a pattern.
func (l *listening) refuse(k link, why error) {
	if _, known := l.refused[k.index]; !known {
		if len(l.refused) >= maxRefused {
			return
		}
		l.count(func(s *Stats) { s.Refused++ })
		l.say("capture on %s: %w: it is not captured", k.name, why)
	}
	l.refused[k.index] = l.looks
}

// count changes the counters of the whole capture.
func (l *listening) count(f func(*Stats)) {
	s := l.sources[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

// add makes room for an interface.
func (l *listening) add(given, name string) *iface {
	i := &iface{given: given, shown: Interface{Name: name}}
	for range l.sources {
		i.sums = append(i.sums, new(ringSum))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ifaces = append(l.ifaces, i)
	return i
}

// take begins to capture on an interface.
func (l *listening) take(i *iface, k link) {
	i.link, i.look, i.retry, i.failed = k, l.looks, time.Time{}, nil
	i.counted, i.countedAt = k.received, time.Now()
	l.name(i)
	l.settle(i)
}

// change takes what the kernel says of an interface that is captured.
func (l *listening) change(i *iface, k link) {
	before := i.link
	i.link, i.look = k, l.looks
	if k.flags != before.flags {
		i.retry = time.Time{}
	}
	if k.name != before.name && !l.rename(i, before.name) {
		return
	}
	if k.mtu != before.mtu {
		l.say("capture on %s: the MTU is %d now, and was %d", k.name, k.mtu, before.mtu)
	}
	now := time.Now()
	// Both of the driver's counts must be of a time in which nothing was read.
	if k.received > i.counted && i.countedAt.After(l.describe(i).Last) {
		l.show(i, func(n *Interface) { n.Last = now })
	}
	i.counted, i.countedAt = k.received, now
	l.settle(i)
}

// rename takes a new name of an interface, and reports whether it is still captured.
//
// A socket is bound to the interface and not to its name, so frames go on. One that
// stands for a name that was given stands for it until there is another of that name.
func (l *listening) rename(i *iface, before string) (captured bool) {
	name := i.link.name
	if other := l.standing(name); other != nil && other != i {
		// The name was missing, or was that of an interface which has another now.
		other.given, i.given = i.given, other.given
		if other.given == "" && (other.link.index == 0 || !l.matches(&other.link)) {
			l.part(other)
			l.drop(other)
		} else {
			l.name(other)
		}
	}
	if i.given == "" && !l.matches(&i.link) {
		l.say("capture on %s: no longer, as it is %s now, which matches no pattern", before, name)
		l.part(i)
		l.drop(i)
		return false
	}
	l.say("capture on %s: the interface is %s now; its frames go on under this name", before, name)
	l.name(i)
	return true
}

// name has frames and statistics say how an interface is called.
func (l *listening) name(i *iface) {
	name := i.link.name
	if name == "" {
		name = i.given
	}
	if i.origin == nil || i.origin.Interface != name {
		i.origin = &event.Origin{Interface: name}
	}
	for n, r := range i.rings {
		l.sources[n].rename(r, i.origin)
	}
	l.show(i, func(n *Interface) { n.Name = name })
}

// lose takes note that an interface is no longer there.
func (l *listening) lose(i *iface) {
	l.part(i)
	l.count(func(s *Stats) { s.Gone++ })
	if i.given == "" {
		l.say("capture on %s: the interface is gone", i.shown.Name)
		l.drop(i)
		return
	}
	l.settle(i)
	l.name(i)
}

// part gives up the rings of an interface, which are read to their end.
func (l *listening) part(i *iface) {
	for n, r := range i.rings {
		l.sources[n].giveUp(r)
	}
	i.rings, i.link = nil, link{}
}

// drop forgets an interface.
func (l *listening) drop(i *iface) {
	l.mu.Lock()
	l.ifaces = slices.DeleteFunc(l.ifaces, func(other *iface) bool { return other == i })
	l.mu.Unlock()
	if len(l.refused) > 0 {
		l.stale = true // there is room for one of them
	}
}

// sweep takes note of what a look at all interfaces has not seen.
func (l *listening) sweep() {
	for index, look := range l.refused {
		if look != l.looks {
			delete(l.refused, index)
		}
	}
	for _, i := range slices.Clone(l.ifaces) {
		if i.link.index == 0 {
			continue
		}
		replaced := len(i.rings) > 0 && !i.rings[0].bound() // by another of the same index
		if i.look == l.looks && !replaced {
			continue
		}
		k := i.link
		l.lose(i)
		if replaced && i.look == l.looks {
			l.update(k)
		}
	}
}

// settle opens an interface that can be opened, and takes note of the state of its
// link.
func (l *listening) settle(i *iface) {
	if i.link.up() && i.rings == nil && !l.open(i) {
		return
	}
	state := LinkUp
	switch {
	case i.link.index == 0, i.link.up() && i.rings == nil:
		state = LinkGone
	case !i.link.up():
		state = LinkDown
	case !i.link.carrier():
		state = LinkNoCarrier
	}
	before, since := i.shown.State, i.shown.Since
	if state == before && i.link.mtu == i.shown.MTU {
		return
	}
	now := time.Now()
	if state != before && before == LinkUp {
		i.left = now
	}
	var speed uint64
	if i.link.index != 0 {
		speed = l.kernel.speed(i.link.name)
	}
	l.show(i, func(n *Interface) {
		n.MTU, n.Speed = i.link.mtu, speed
		if state != before {
			n.State, n.Since = state, now
			if before != "" {
				n.Changes++
			}
		}
	})
	if state == before {
		return
	}
	i.quiet = time.Time{}
	says := map[LinkState]string{LinkDown: "the link is down", LinkNoCarrier: "the link has no carrier"}[state]
	away := func(since time.Time) time.Duration { return now.Sub(since).Round(time.Millisecond) }
	switch {
	case state == LinkGone && i.link.index != 0: // open has said why
		return
	case state == LinkGone && before != "":
		says = "the interface is gone: going on without, until it comes back"
	case before == LinkGone && says == "":
		says = fmt.Sprintf("the interface is back after %v", away(since))
	case before == LinkGone:
		says = fmt.Sprintf("the interface is back after %v: %s", away(since), says)
	case before == "" && l.started && says == "":
		says = "the interface is new"
	case before == "" && l.started:
		says = "the interface is new: " + says
	case before != "" && state == LinkUp && !i.left.IsZero():
		says = fmt.Sprintf("the link is up again after %v", away(i.left))
	case before != "" && state == LinkUp:
		says = "the link is up"
	}
	if says != "" {
		l.say("capture on %s: %s", i.shown.Name, says)
	}
}

// open tries to open the rings of an interface, unless it is too early to.
func (l *listening) open(i *iface) (tried bool) {
	now := time.Now()
	if now.Before(i.retry) || slices.ContainsFunc(l.sources, func(s *liveSource) bool { return s.draining() > maxDraining }) {
		return false
	}
	rings, err := l.openRings(i)
	if err != nil {
		i.retry = now.Add(returnInterval)
		if errors.Is(err, unix.ENODEV) { // the kernel is about to say that it is gone
			i.failed = err
			return false
		}
		if l.started && (i.failed == nil || i.failed.Error() != err.Error()) {
			l.say("open %s: %w: trying again every %v", i.link.name, err, returnInterval)
		}
		i.failed = err
		return true
	}
	i.rings, i.failed = rings, nil
	return true
}

// openRings opens the rings of an interface, one for each worker in their order: the
// kernel numbers the members of a fanout group as they join, and a flow must have the
// same number on each interface. Until all have joined they reject every frame: bound,
// but not yet in its group, a ring would take the frames of all workers.
func (l *listening) openRings(i *iface) (rings []*ring, err error) {
	defer func() {
		if err == nil {
			return
		}
		for n, r := range rings {
			l.sources[n].remove(r)
		}
		rings = nil
	}()
	for n := range l.sources {
		r, err := openRing(&i.link, l.opt.RingSize, l.opt.Socket)
		if err != nil {
			return rings, err
		}
		r.origin, r.sum = i.origin, i.sums[n]
		rings = append(rings, r)
		if r.filter, err = pcapfilter.CompileLive(l.opt.Filter, r.link, uint32(l.opt.Snaplen)); err != nil {
			return rings, err
		}
	}
	hashed, err := joinFanout(rings, i.link.loopback(), l.fanout, !l.dealt)
	if err != nil {
		return rings, err
	}
	l.dealt = l.dealt || len(rings) > 1 && !hashed
	if hashed && !i.hashed {
		i.hashed = true
		l.say("capture on %s: fanout: the kernel takes no program that deals the frames, as Linux does since 4.3: "+
			"its own hash may deal the directions of a flow in a tunnel to two workers, which then see a half each: --workers 1 avoids it", i.link.name)
	}
	shunts := l.shunt != nil
	for n, r := range rings {
		if shunts {
			if err := l.shunt.attach(r, l.opt.Snaplen, n); err != nil {
				l.say("capture on %s: shunt: %w: going on without", i.link.name, mayShunt(err))
				shunts = false
			}
		}
		if !shunts {
			if err := attachFilter(r.fd, r.filter); err != nil {
				return rings, err
			}
		}
		if err := l.sources[n].add(r); err != nil {
			return rings, err
		}
	}
	return rings, nil
}

// tick does what is due.
func (l *listening) tick(now time.Time) {
	for _, s := range l.sources {
		for _, r := range s.reap(now) {
			r.close()
		}
	}
	missing := slices.ContainsFunc(l.ifaces, func(i *iface) bool { return i.rings == nil })
	if waited := now.Sub(l.looked) >= returnInterval; l.stale && !l.looking || waited && (missing || l.looking) {
		l.look(now)
	}
	for _, i := range l.ifaces { // neither of the two drops one
		l.settle(i)
		l.listenTo(i, now)
	}
	if l.unsaid == 0 {
		return
	}
	n := l.unsaid
	if l.say("capture: interfaces changed more often, and %d lines were left out; now %s", n, l.links()) {
		l.unsaid = 0
	} else {
		l.unsaid = n
	}
}

// links returns which links are not up, in words.
func (l *listening) links() string {
	var states []string
	more := 0
	for _, i := range l.ifaces {
		switch {
		case i.shown.State == LinkUp:
		case len(states) < maxNamed:
			states = append(states, fmt.Sprintf("%s is %s", i.shown.Name, i.shown.State))
		default:
			more++
		}
	}
	switch {
	case len(states) == 0:
		return "all links are up"
	case more > 0:
		return fmt.Sprintf("%s, and %d more are not up", strings.Join(states, ", "), more)
	}
	return strings.Join(states, ", ")
}

// listenTo says when no frame comes on an interface any more, and when one comes again.
func (l *listening) listenTo(i *iface, now time.Time) {
	n := l.describe(i)
	silence := n.Silence(now)
	if silence >= askAfter && now.Sub(i.askedAt) >= askAfter {
		i.askedAt = now
		_ = l.kernel.ask(i.link.index) // what it says is heard with the rest; else only what is read counts
	}
	if line := i.silence(&n, now); line != "" {
		l.say("capture on %s: %s", n.Name, line)
	}
}

// silence returns what is to be said of how long no frame has come, if anything. Each
// silence is told once, and its end.
func (i *iface) silence(n *Interface, now time.Time) (line string) {
	silence := n.Silence(now)
	switch {
	case n.State != LinkUp:
		i.quiet = time.Time{}
	case i.quiet.IsZero() && silence >= SilentAfter:
		i.quiet = now.Add(-silence)
		line = fmt.Sprintf("no packets for %v", silence.Truncate(time.Second))
	case !i.quiet.IsZero() && n.Last.After(i.quiet):
		line = fmt.Sprintf("packets again after %v", n.Last.Sub(i.quiet).Truncate(time.Second))
		i.quiet = time.Time{}
	}
	return line
}

// say tells the user something about interfaces, and reports whether it was not too
// much.
func (l *listening) say(format string, args ...any) bool {
	now := time.Now()
	if more := now.Sub(l.worded) / warnInterval; more > 0 {
		l.words, l.worded = l.words+int(min(more, warnBurst-time.Duration(l.words))), now
	}
	if l.words == 0 {
		l.unsaid++
		return false
	}
	l.words--
	l.warn(fmt.Errorf(format, args...))
	return true
}

func (l *listening) warn(err error) {
	if l.opt.Warn != nil {
		l.opt.Warn(err)
	}
}

// show changes what others see of an interface.
func (l *listening) show(i *iface, change func(*Interface)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&i.shown)
}

// describe returns an interface as others see it.
func (l *listening) describe(i *iface) Interface {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.described(i)
}

// described is describe for a caller that holds mu.
func (l *listening) described(i *iface) Interface {
	n := i.shown
	for worker, s := range l.sources {
		s.mu.Lock()
		sum := i.sums[worker]
		n.Frames += sum.frames
		n.Dropped += sum.dropped
		if sum.last.After(n.Last) {
			n.Last = sum.last
		}
		s.mu.Unlock()
	}
	return n
}

// interfaces is [Live.Interfaces].
func (l *listening) interfaces() []Interface {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Interface, len(l.ifaces))
	for n, i := range l.ifaces {
		all[n] = l.described(i)
	}
	return all
}

// begin looks at all interfaces for the first time and opens those that are wanted.
func (l *listening) begin() error {
	for _, name := range l.opt.Interfaces {
		if isPattern(name) {
			l.patterns = append(l.patterns, name)
			continue
		}
		l.literals = append(l.literals, name)
		l.add(name, name)
	}
	l.look(time.Now())
	for deadline := time.Now().Add(returnInterval); l.looking || l.stale && time.Now().Before(deadline); {
		if !l.looking {
			l.look(time.Now())
		}
		messages, err := l.kernel.receive(deadline)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			l.stale, l.looking = true, false
		case err != nil:
			return fmt.Errorf("look for interfaces: %w", err)
		default:
			l.hear(messages)
		}
	}
	for _, name := range l.literals {
		i := l.standing(name)
		switch {
		case i.rings != nil:
		case i.link.index == 0:
			return fmt.Errorf("open %s: no such interface", name)
		case !i.link.up():
			return fmt.Errorf("open %s: the interface is down: ip link set %s up", name, name)
		default:
			return fmt.Errorf("open %s: %w", name, i.failed)
		}
	}
	for _, pattern := range l.patterns {
		if !slices.ContainsFunc(l.ifaces, func(i *iface) bool {
			ok, _ := path.Match(pattern, i.link.name)
			return ok
		}) {
			l.say("capture on %s: no interface matches: waiting for one", pattern)
		}
	}
	for _, i := range l.ifaces {
		if i.failed != nil {
			l.say("open %s: %w: trying again every %v", i.link.name, i.failed, returnInterval)
		}
	}
	l.started = true
	return nil
}

// linkTypeOf returns what frames of an interface begin with.
func linkTypeOf(hardware uint16) (linktype.Type, error) {
	switch hardware {
	case unix.ARPHRD_ETHER, unix.ARPHRD_LOOPBACK:
		return linktype.Ethernet, nil
	case unix.ARPHRD_NONE, unix.ARPHRD_PPP, unix.ARPHRD_RAWIP:
		// PPP's own header is off, or not yet on, where frames are captured.
		return linktype.Raw, nil
	}
	return 0, fmt.Errorf("interfaces of hardware type %d (ARPHRD of linux/if_arp.h) are not supported", hardware)
}
