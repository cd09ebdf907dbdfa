package page

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// hub has the last events, for streams that follow them. Who publishes waits for no
// stream: each has a place among the events, and one whose place is gone has missed some.
type hub struct {
	mu     sync.Mutex
	events [maxEvents]message // event n is at n % maxEvents
	last   uint64             // number of the last event; 0 before the first
	next   chan struct{}      // closed at the next event

	open    atomic.Int64  // streams
	refused atomic.Uint64 // streams, as there were too many
	slow    atomic.Uint64 // streams that were ended because nobody read them
	missed  atomic.Uint64 // events that streams have missed
}

// message is one event of a stream (HTML Living Standard, server-sent events).
type message struct {
	kind string
	data []byte // one line
}

func newHub() *hub { return &hub{next: make(chan struct{})} }

// publish tells all streams of an event. It keeps data, which must be one line.
func (h *hub) publish(kind string, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	h.events[h.last%maxEvents] = message{kind, data}
	close(h.next)
	h.next = make(chan struct{})
}

// end is the number of the last event.
func (h *hub) end() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// since appends the events after a number to b. It returns the number of the last one,
// how many were missed because they are no longer kept, and a channel that is closed at
// the next event.
func (h *hub) since(after uint64, b *bytes.Buffer) (last, missed uint64, next <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if after > h.last { // of another run of the program
		after = 0
	}
	if h.last-after > maxEvents {
		missed = h.last - after - maxEvents
		after += missed
		fmt.Fprintf(b, "event: missed\ndata: %d\n\n", missed)
	}
	for n := after + 1; n <= h.last; n++ {
		e := &h.events[n%maxEvents]
		fmt.Fprintf(b, "id: %d\nevent: %s\ndata: %s\n\n", n, e.kind, e.data)
	}
	return h.last, missed, h.next
}

// serve sends events to one reader until it is gone, takes nothing for sendLimit, or done
// is closed.
func (h *hub) serve(w http.ResponseWriter, r *http.Request, done <-chan struct{}) {
	if h.open.Add(1) > MaxStreams {
		h.open.Add(-1)
		h.refused.Add(1)
		w.Header().Set("Retry-After", "30")
		refuse(w, http.StatusServiceUnavailable, "too many streams are open")
		return
	}
	defer h.open.Add(-1)
	to := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Connection", "close")
	if r.Method == http.MethodHead {
		return
	}
	after := h.end()
	if id, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64); err == nil {
		after = id
	}
	var b bytes.Buffer
	b.WriteString("retry: 3000\n\n")
	for {
		last, missed, next := h.since(after, &b)
		h.missed.Add(missed)
		after = last
		if b.Len() == 0 {
			b.WriteString(": nothing new\n\n")
		}
		if err := send(to, w, b.Bytes()); err != nil {
			if r.Context().Err() == nil {
				h.slow.Add(1)
			}
			return
		}
		b.Reset()
		if !pause(r.Context(), done, streamInterval) || !wait(r.Context(), done, next) {
			return
		}
	}
}

// send sends bytes to a reader, who has sendLimit to take them.
func send(to *http.ResponseController, w http.ResponseWriter, b []byte) error {
	// Where there is no connection, as in tests, there is no limit.
	_ = to.SetWriteDeadline(time.Now().Add(sendLimit))
	if _, err := w.Write(b); err != nil {
		return err
	}
	return to.Flush()
}

// pause waits for some time. It reports false where there is nothing to go on for.
func pause(ctx context.Context, done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-done:
	}
	return false
}

// wait waits for the next event, or until it is time to say that there is none. It
// reports false where there is nothing to go on for.
func wait(ctx context.Context, done, next <-chan struct{}) bool {
	t := time.NewTimer(beatInterval)
	defer t.Stop()
	select {
	case <-next:
	case <-t.C:
	case <-ctx.Done():
		return false
	case <-done:
		return false
	}
	return true
}
