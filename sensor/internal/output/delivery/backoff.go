package delivery

import (
	"math/rand/v2"
	"time"
)

// wait is how long to wait after t: longer with each failure in a row, and a random
// part of it, so that many sensors do not ask at the same time.
func (l *lane) wait(t *Trouble) time.Duration {
	if t.Slow {
		return l.engine.backoff.Slow
	}
	l.state.Lock()
	defer l.state.Unlock()
	ceiling := l.engine.backoff.Max
	if l.failure < 16 {
		ceiling = min(ceiling, l.engine.backoff.Min<<l.failure)
	}
	l.failure++
	return max(t.After, rand.N(ceiling)+1)
}

// pause waits, and reports whether to go on. Closing shortens the wait, unless the
// receiver asked for it.
func (l *lane) pause(wait time.Duration, asked bool) bool {
	closing := l.engine.closing
	select {
	case <-closing:
		closing = nil
		if !asked {
			wait = min(wait, closingRetry)
		}
	default:
		if asked {
			closing = nil
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-closing:
	case <-l.work.Done():
		return false
	}
	return true
}
