package record

import (
	"bytes"
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// carver finds certificates by what they look like, in bytes of one direction
// of which it is not known any more where records and messages begin.
//
// A certificate is taken for one when its length stands before it, the lengths
// in it fit, and all its structure is there. Between records, it must not
// have the header of one in it that may be real.
type carver struct {
	kept    []byte // what may be the beginning of something; borrowed from the parser's buffers
	want    int    // how long kept must be to tell
	inside  bool   // the byte before the next was there too
	raw     bool   // headers of records may be in it
	cost    int    // bytes looked at more than once
	limited bool   // that was too much
	crowded bool   // more certificates were found than are kept

	found []event.ChainEntry // in the order sent
	leaf  bool               // the first of found is the first of its message
	at    event.Moment       // of the packet that completed the first of found
	last  event.Moment       // of the last packet
}

const (
	// certificateStart is how many bytes of a certificate it takes to
	// recognize one: Certificate, TBSCertificate, version and serial number,
	// as far as the length of that.
	certificateStart = 15
	// listStart is what comes before the first certificate of a message: the
	// header of the message, the lengths of the list and of the certificate.
	listStart = tls.MessageHeader + 3 + 3
	// markPiece is how many bytes are looked through at a time for what may begin in
	// them.
	markPiece = 512
	// carveStart is how many bytes are needed at a place to judge it.
	carveStart = max(certificateStart, startBytes)
)

// carve looks for certificates in b, the next bytes of the direction. When it is
// raw, there may be headers of records in it: at the first that is sure, the
// reading of records is taken up again, and carve returns true. last says that
// the bytes after b are missing.
func (r *Direction) carve(at event.Moment, b []byte, raw, last bool) bool {
	k := r.carver
	if k == nil {
		k = new(carver)
		r.carver = k
	}
	if k.cost > MaxCarving {
		r.limitCarving()
		return false
	}
	k.raw, k.last = raw, event.Later(k.last, at)
	w := b
	if len(k.kept) > 0 {
		kept, ok := r.stream.shared.Pool.Append(k.kept, b)
		if !ok {
			r.dropCarved()
			return false
		}
		k.kept, w = kept, kept
		if !last && len(w) < k.want {
			return false
		}
	}
	pos, want := 0, 0 // want is for the candidate at pos
	end := 0          // of the last certificate found
	for want == 0 {
		if k.cost > MaxCarving { // by what the bytes at hand hold
			r.limitCarving()
			return false
		}
		j := nextMark(w, pos, raw)
		if j < 0 || len(w)-j < carveStart {
			break
		}
		if w[j] == tls.Handshake {
			sure, need := r.carvesRecord(w, j)
			if sure {
				r.resume(at, w, max(end, j-listStart-certificateStart), j, false)
				return true
			}
			if need > 0 && !last {
				pos, want = j, need
				break
			}
			pos = j + 1
			continue
		}
		n := certificateAt(w, j, k.inside)
		if n == 0 {
			pos = j + 1
			continue
		}
		if raw { // the certificate may go on in the next record
			h, need := recordWithin(w, j, n, last)
			if h > 0 && need == 0 {
				r.resume(at, w, max(0, j-listStart), h, true)
				return true
			}
			if need > 0 { // not known whether
				k.cost += min(n, len(w)-j)
				if pos, want = j, need; last {
					pos, want = j+1, 0
				}
				continue
			}
		}
		if len(w)-j < n {
			if pos, want = j, j+n; last {
				k.cost += len(w) - j
				pos, want = j+1, 0
			}
			continue
		}
		if x := r.stream.shared.Certs.Get(w[j : j+n]); wellFormed(x) {
			if len(k.found) == 0 {
				k.leaf, k.at = startsList(w, j, n), at
			}
			if len(k.found) < MaxChain {
				k.found = append(k.found, event.ChainEntry{Certificate: x})
				r.stream.account.Charge(x.Size())
			} else if !k.crowded {
				k.crowded = true
				r.stream.shared.ChainLimited++
			}
			pos, end = j+n, j+n
		} else {
			k.cost += n
			pos = j + 1
		}
	}
	from := len(w)
	switch {
	case want > 0:
		from = max(end, pos-listStart-certificateStart)
	case !last:
		from = max(end, len(w)-(carveStart-1)-listStart-certificateStart)
	}
	if last {
		r.dropCarved()
		return false
	}
	k.want = max(want-from, 0)
	k.inside = k.inside || from > 0
	switch {
	case from == len(w):
		r.stream.shared.Pool.Put(k.kept)
		k.kept = nil
	case len(k.kept) > 0:
		k.kept = k.kept[:copy(k.kept, w[from:])]
	default:
		k.kept, _ = r.stream.shared.Pool.Append(nil, w[from:])
	}
	return false
}

// limitCarving says that too much was looked at in vain.
func (r *Direction) limitCarving() {
	if k := r.carver; !k.limited {
		k.limited = true
		r.stream.shared.CarvingLimited++
	}
	r.dropCarved()
}

// dropCarved gives up what was kept. What comes next follows on nothing.
func (r *Direction) dropCarved() {
	k := r.carver
	r.stream.shared.Pool.Put(k.kept)
	k.kept, k.want, k.inside, k.raw = nil, 0, false, false
}

// resume reads the records that begin at w[j:]. What lies between from and j
// may be the beginning of a certificate that goes on in them, or surely is.
func (r *Direction) resume(at event.Moment, w []byte, from, j int, sure bool) {
	k := r.carver
	k.cost += resumeCost
	old, inside := k.kept, k.inside || from > 0
	k.kept = nil
	r.dropCarved()
	if from < j {
		k.kept, _ = r.stream.shared.Pool.Append(nil, w[from:j])
		if k.inside = inside; sure {
			k.want = len(k.kept) + 1
		}
	}
	if r.Phase == Cleartext {
		r.carried(tls.HelloRequest)
	}
	r.headers, r.Unaligned = 0, true
	r.left, r.bytes, r.segments = 0, 0, 0
	r.Phase = Plaintext
	r.readPlaintext(at, w[j:])
	r.stream.shared.Pool.Put(old)
}

// continueInRecord says that what was kept goes on in a record that begins with the last
// n bytes of it.
func (r *Direction) continueInRecord(n int) {
	k := r.carver
	k.raw = false
	if k.kept = k.kept[:max(0, len(k.kept)-n)]; len(k.kept) == 0 {
		r.dropCarved()
	}
}

// carving reports whether a certificate has begun that goes on in what comes next.
func (r *Direction) carving() bool { return r.carver != nil && r.carver.want > 0 }

// flushCarver searches what was kept for the last time: the bytes after it are
// missing, or are no part of it.
func (r *Direction) flushCarver() {
	if k := r.carver; k != nil {
		for len(k.kept) > 0 { // again where records were found in it
			r.carve(k.last, nil, k.raw, true)
		}
		k.inside = false
	}
}

// Carve looks for certificates in b, a piece of a Certificate message that is
// torn out of it.
func (r *Direction) Carve(at event.Moment, b []byte) {
	r.flushCarver()
	if len(b) > 0 {
		r.carve(at, b, false, true)
	}
}

// nextMark is the first place from pos where a certificate or a record of the
// handshake may begin, -1 when there is none.
func nextMark(w []byte, pos int, raw bool) int {
	for pos < len(w) {
		// In pieces: bytes that are full of one mark and lack the other must not be
		// looked through to their end at each.
		b := w[pos:min(pos+markPiece, len(w))]
		i := bytes.IndexByte(b, 0x30)
		if i < 0 {
			i = len(b)
		}
		if raw {
			if r := bytes.IndexByte(b[:i], tls.Handshake); r >= 0 {
				i = r
			}
		}
		if pos += i; i == len(b) {
			continue
		}
		if pos+1 == len(w) || w[pos] == 0x30 && w[pos+1] >= 0x81 && w[pos+1] <= 0x83 || w[pos] == tls.Handshake && (w[pos+1] == 3 || w[pos+1] == 1) {
			return pos
		}
		pos++
	}
	return -1
}

// derLength is the length of the SEQUENCE at the beginning of b, with its
// header; 0 when there is none of a length that a certificate may have.
func derLength(b []byte) (n, header int) {
	switch {
	case b[0] != 0x30:
	case b[1] == 0x81:
		return 3 + int(b[2]), 3
	case b[1] == 0x82:
		return 4 + int(binary.BigEndian.Uint16(b[2:])), 4
	case b[1] == 0x83:
		return 5 + tls.Uint24(b[2:]), 5
	}
	return 0, 0
}

// certificateAt is the length of the certificate that seems to begin at w[j:],
// of which there are certificateStart bytes or more; 0 when there is none. Its
// length must come before it, as in a Certificate message, as far as w, which may
// begin after a gap, has the bytes.
func certificateAt(w []byte, j int, inside bool) int {
	b := w[j:]
	n, header := derLength(b)
	if n < smallestCertificate || n > MaxMessage {
		return 0
	}
	length := []byte{byte(n >> 16), byte(n >> 8), byte(n)}
	if !bytes.HasSuffix(w[:j], length) && (inside || j >= 3 || !bytes.HasSuffix(length, w[:j])) {
		return 0
	}
	tbs, innerHandshake := derLength(b[header:])
	if tbs == 0 || header+tbs >= n {
		return 0
	}
	b = b[header+innerHandshake:]
	if b[0] == 0xa0 { // the version
		if b[1] != 3 || b[2] != 2 || b[3] != 1 || b[4] > 2 {
			return 0
		}
		b = b[5:]
	}
	if b[0] != 2 || len(b) > 1 && (b[1] == 0 || b[1] > 64) { // the serial number
		return 0
	}
	return n
}

// startsList reports whether the certificate of n bytes at w[j:] is the first of
// a Certificate message, whose header is there.
func startsList(w []byte, j, n int) bool {
	if j < listStart {
		return false
	}
	m := w[j-listStart:]
	list := tls.Uint24(m[tls.MessageHeader:])
	return m[0] == tls.Certificate && tls.Uint24(m[1:]) == list+3 && n+3 <= list
}

// wellFormed reports whether all of a certificate's structure is there. Odd
// values are no matter: they are what is looked for.
func wellFormed(x *cert.Certificate) bool {
	return x.Version > 0 && x.SPKISHA256 != [32]byte{} && x.SignatureAlgorithm != "" && x.SignatureBits > 0 &&
		x.PublicKeyAlgorithm != "" && x.NotBefore.IsValid() && x.NotAfter.IsValid()
}

// recordAt is the length of the body of the record of the handshake whose
// header seems to be at w[j:], 0 when it is not one.
func recordAt(w []byte, j int) int {
	if len(w)-j < tls.RecordHeader || w[j] != tls.Handshake || !tls.IsRecord(w[j:]) {
		return 0
	}
	return tls.RecordLength(w[j:])
}

// nextIsRecord reports whether the record with a body of n bytes at w[j:] is nextIsCertificate
// by another; need says how long w must be to know.
func nextIsRecord(w []byte, j, n int) (sure bool, need int) {
	next := j + tls.RecordHeader + n
	if next+tls.RecordHeader > len(w) {
		return false, next + tls.RecordHeader
	}
	return tls.IsRecord(w[next:]) && w[next+1] == w[j+1] && w[next+2] == w[j+2], 0
}

// nextIsCertificate reports whether a certificate that ends at w[j:], in a record that
// ends at w[end:], is nextIsCertificate by another, or by a message.
func nextIsCertificate(w []byte, j, end int) bool {
	const length = 3
	if j+length+certificateStart > min(len(w), end) {
		return false
	}
	return certificateAt(w, j+length, true) > 0 || messageBegins(w[j:j+messageStart], end-j)
}

// carvesRecord reports whether the reading of records can be taken up at w[j:].
func (r *Direction) carvesRecord(w []byte, j int) (sure bool, need int) {
	n := recordAt(w, j)
	if n == 0 {
		return false, 0
	}
	body := w[j+tls.RecordHeader:]
	body = body[:min(n, messageStart, len(body))]
	begins := len(body) == messageStart && messageResumes(w[j+tls.RecordHeader:], n)
	if !r.isTLS() {
		return begins && body[0] == tls.Certificate && !r.peer().NotTLS(), 0
	}
	if begins {
		return true, 0
	}
	sure, need = nextIsRecord(w, j, n)
	if !sure && need == 0 {
		r.carver.cost += min(n, len(w)-j)
	}
	return sure, need
}

// recordWithin looks for the header of a record inside of the certificate of n
// bytes at w[j:]. It returns its place, or how long w must be to be sure; last
// says that w will not get longer.
func recordWithin(w []byte, j, n int, last bool) (at, need int) {
	end := min(j+n, len(w))
	for i := j + 1; i < end; i++ {
		r := bytes.IndexByte(w[i:end], tls.Handshake)
		if r < 0 {
			return 0, 0
		}
		i += r
		// One at the end may be cut.
		if i+1 < len(w) && w[i+1] != 3 && w[i+1] != 1 || i+2 < len(w) && w[i+2] > 4 {
			continue
		}
		if i+tls.RecordHeader > len(w) {
			if last {
				return 0, 0
			}
			return 0, i + tls.RecordHeader
		}
		size := recordAt(w, i)
		if size == 0 {
			continue
		}
		sure, need := nextIsRecord(w, i, size)
		if sure || nextIsCertificate(w, j+n+tls.RecordHeader, i+tls.RecordHeader+size) {
			return i, 0
		}
		if need > 0 {
			return 0, need
		}
	}
	return 0, 0
}

// isTLS reports whether the flow is known to speak TLS.
func (r *Direction) isTLS() bool {
	follows := func(r *Direction) bool {
		return r.Phase == Plaintext || r.Phase == SSLv2 || r.Phase == Encrypted || r.Phase == Unsynced
	}
	k, peer := r.carver, r.peer()
	return r.stream.sink.Progress().Begun || k != nil && len(k.found) > 0 && !peer.NotTLS() || follows(r) || follows(peer)
}

// searchUnsynced searches what does not begin with a record, where it is not known
// where the next begins. There is an end to that.
func (r *Direction) searchUnsynced(at event.Moment, b []byte) {
	if r.carve(at, b, true, false) {
		return
	}
	r.bytes += len(b)
	r.segments++
	if r.bytes > MaxUnsynced || r.segments > MaxUnsyncedSegments {
		r.Phase = Abandoned
		r.flushCarver()
	}
}

// Carved are certificates that were found outside of a message.
type Carved struct {
	Chain []event.ChainEntry // in the order sent; never empty
	Leaf  bool               // the first of them is the first of its message
	At    event.Moment       // of the packet that completed the first
}

// TakeCarved returns the certificates that were found outside of a message, once,
// where the flow is known to be TLS.
func (r *Direction) TakeCarved() (c Carved, ok bool) {
	k := r.carver
	if k == nil {
		return c, false
	}
	found := k.found
	k.found = nil
	if len(found) == 0 || !r.isTLS() {
		return c, false
	}
	return Carved{found, k.leaf, k.at}, true
}
