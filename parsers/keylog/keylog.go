// Package keylog holds the secrets that key logs disclose: text files in the
// format of NSS (RFC 9850), as browsers write them where SSLKEYLOGFILE says, and
// the decryption secrets of pcapng files, which have the same text.
//
// Of all that a key log may hold, a [Store] keeps the secrets that the handshakes
// of TLS 1.3, DTLS 1.3 and QUIC are encrypted with.
package keylog

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
)

// Random is the random value of a ClientHello, by which secrets are known.
type Random = [32]byte

// Secrets are the traffic secrets of one handshake, each nil when it is not
// known. They are read-only.
type Secrets struct {
	Client []byte // CLIENT_HANDSHAKE_TRAFFIC_SECRET
	Server []byte // SERVER_HANDSHAKE_TRAFFIC_SECRET

	own bool // they came with the capture at hand
}

// Stats counts what key logs have brought.
type Stats struct {
	Secrets   uint64 `json:"secrets"`   // that are of use
	Other     uint64 `json:"other"`     // lines with secrets that are of no use here
	Malformed uint64 `json:"malformed"` // lines that are not of a key log
	Evicted   uint64 `json:"evicted"`   // handshakes whose secrets were evicted by newer ones
}

// Store holds secrets. The zero value is ready. It is safe for concurrent use.
type Store struct {
	added atomic.Uint64 // secrets so far

	mu         sync.RWMutex
	handshakes map[Random]Secrets
	order      []Random // of handshakes, from first on
	first      int
	stats      Stats
}

// Added counts the secrets that were added. When it has not changed, there is
// nothing new.
func (s *Store) Added() uint64 { return s.added.Load() }

// Secrets returns what is known of the handshake whose ClientHello has the random
// value r.
func (s *Store) Secrets(r *Random) Secrets {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.handshakes[*r]
}

// Stats returns the counters so far.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.stats
}

// Add adds the text of a whole key log, which name stands for in the warning
// that there may be.
func (s *Store) Add(name string, text []byte, warn func(error)) {
	l := s.Log(name, warn)
	_, _ = l.Write(text)
	_ = l.Close()
}

// add takes one line.
func (s *Store) add(b []byte, own bool) kind {
	var r Random
	secret, server, k := parse(b, &r)
	switch k {
	case malformed:
		s.mu.Lock()
		s.stats.Malformed++
		s.mu.Unlock()
	case other:
		s.mu.Lock()
		s.stats.Other++
		s.mu.Unlock()
	case useful:
		s.put(&r, secret, server, own)
	}
	return k
}

func (s *Store) put(r *Random, secret []byte, server, own bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, known := s.handshakes[*r]
	if !known {
		s.remember(r)
		e.own = own
	}
	if server {
		e.Server = secret
	} else {
		e.Client = secret
	}
	s.handshakes[*r] = e
	s.stats.Secrets++
	s.added.Add(1)
}

// remember makes room for one handshake more.
func (s *Store) remember(r *Random) {
	if s.handshakes == nil {
		s.handshakes = map[Random]Secrets{}
	}
	if len(s.order) < maxHandshakes {
		s.order = append(s.order, *r)
		return
	}
	delete(s.handshakes, s.order[s.first])
	s.stats.Evicted++
	s.order[s.first] = *r
	s.first = (s.first + 1) % maxHandshakes
}

// Forget forgets the secrets that came with the capture that has ended: what is
// seen in the next is what is seen in it alone.
func (s *Store) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.handshakes, func(_ Random, e Secrets) bool { return e.own })
	kept := make([]Random, 0, len(s.handshakes))
	for i := range s.order {
		r := s.order[(s.first+i)%len(s.order)]
		if _, ok := s.handshakes[r]; ok {
			kept = append(kept, r)
		}
	}
	s.order, s.first = kept, 0
}

// kind is what a line is.
type kind uint8

const (
	nothing   kind = iota // empty, or a comment
	useful                // a secret that is kept
	other                 // one that is not
	malformed             // no line of a key log
)

// parse reads one line: a label, the random value, and the secret (RFC 9850,
// section 2). Secrets that are of use are of the server or of the client.
func parse(line []byte, r *Random) (secret []byte, server bool, k kind) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] == '#' {
		return nil, false, nothing
	}
	label, rest := word(line)
	if !isLabel(label) || len(rest) == 0 {
		return nil, false, malformed
	}
	// Drafts of QUIC had labels of their own.
	switch string(bytes.TrimPrefix(label, []byte("QUIC_"))) {
	case "SERVER_HANDSHAKE_TRAFFIC_SECRET":
		server = true
	case "CLIENT_HANDSHAKE_TRAFFIC_SECRET":
	default:
		return nil, false, other
	}
	random, value := word(rest)
	if len(random) != hex.EncodedLen(len(r)) || len(value) != hex.EncodedLen(sha256.Size) && len(value) != hex.EncodedLen(sha512.Size384) {
		return nil, false, malformed
	}
	if _, err := hex.Decode(r[:], random); err != nil {
		return nil, false, malformed
	}
	secret = make([]byte, hex.DecodedLen(len(value)))
	if _, err := hex.Decode(secret, value); err != nil {
		return nil, false, malformed
	}
	return secret, server, useful
}

// word cuts the first word off b, and the space after it.
func word(b []byte) (first, rest []byte) {
	n := bytes.IndexAny(b, " \t")
	if n < 0 {
		return b, nil
	}
	return b[:n], bytes.TrimLeft(b[n:], " \t")
}

func isLabel(b []byte) bool {
	for _, c := range b {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return b[0] >= 'A'
}

// Log takes the text of one key log, in pieces of any size.
type Log struct {
	store *Store
	name  string
	warn  func(error)
	own   bool   // it came with a capture
	line  int    // number of the line that part begins
	part  []byte // of a line whose end is not there yet
	long  bool   // of a line that is too long
}

// Log begins a key log. name stands for it in the warning about the first line that
// is not a line of a key log; warn may be nil.
func (s *Store) Log(name string, warn func(error)) *Log {
	return &Log{store: s, name: name, warn: warn, line: 1}
}

// Own begins a key log that came with a capture: its secrets hold until Forget.
func (s *Store) Own(name string, warn func(error)) *Log {
	l := s.Log(name, warn)
	l.own = true
	return l
}

// Write takes the next piece of the text. It never fails.
func (l *Log) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		piece := b
		if end >= 0 {
			piece = b[:end]
		}
		if l.long = l.long || len(l.part)+len(piece) > maxLine; !l.long {
			l.part = append(l.part, piece...)
		}
		if end < 0 {
			break
		}
		l.end()
		b = b[end+1:]
	}
	return n, nil
}

// Close takes the last line, if nothing ends it. It never fails.
func (l *Log) Close() error {
	l.end()
	return nil
}

// end takes the line that part is of.
func (l *Log) end() {
	k := malformed
	if l.long {
		l.store.add([]byte{0}, l.own)
	} else {
		k = l.store.add(l.part, l.own)
	}
	if k == malformed && l.warn != nil {
		// Without the line: there may be a secret in it.
		l.warn(fmt.Errorf("read %s: line %d is not an SSLKEYLOGFILE line; such lines are skipped", l.name, l.line))
		l.warn = nil
	}
	clear(l.part)
	l.part, l.long = l.part[:0], false
	l.line++
}
