package record

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// readSSLv2 reads an SSLv2 hello. What follows that of the version itself is
// keys, then encrypted.
func (r *Direction) readSSLv2(at event.Moment, b []byte) {
	m := &r.partial
	if m.length > 0 && m.have == m.length {
		r.encrypted(at, 0)
		return
	}
	whole := b
	if m.have > 0 || len(b) < tls.V2Header {
		kept, ok := r.stream.shared.Pool.Append(m.kept, b)
		if m.kept = kept; !ok {
			r.loseSync(event.Limit)
			return
		}
		whole = kept
	}
	n := 0
	client := false
	if len(whole) >= tls.V2Header {
		n, client = tls.V2Length(whole)
	}
	if n == 0 || len(whole) < n {
		if m.have == 0 && len(m.kept) == 0 {
			m.kept, _ = r.stream.shared.Pool.Append(nil, b)
		}
		m.have = len(whole)
		return
	}
	old := r.stream.sink.SSLv2(r.d, at, whole[:n], client)
	rest := whole[n:]
	kept := m.kept
	*m = partialMessage{}
	if old {
		m.length, m.have = n, n
		if len(rest) > 0 {
			r.encrypted(at, 0)
		}
	} else {
		r.Phase = Plaintext
		r.readPlaintext(at, rest)
	}
	r.stream.shared.Pool.Put(kept)
}
