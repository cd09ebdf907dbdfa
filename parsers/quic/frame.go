package quic

// The frames that Initial and Handshake packets may have (RFC 9000, section
// 12.4).
const (
	framePadding          = 0x00
	framePing             = 0x01
	frameACK              = 0x02
	frameACKECN           = 0x03
	frameCrypto           = 0x06
	frameCryptoGoogle     = 0x08
	frameClose            = 0x1c
	frameCloseApplication = 0x1d
)

// frame is what is used of a frame.
type frame struct {
	typ    uint64
	offset uint64 // CRYPTO: of data in its stream
	data   []byte // CRYPTO
	code   uint64 // CONNECTION_CLOSE: the error
}

// nextFrame cuts the first frame off the payload of an Initial or Handshake
// packet, with the padding before it. It is false when there is none, or one
// that does not belong there. The type of CRYPTO frames is crypto, and is
// frameCrypto in f.
func nextFrame(b []byte, crypto uint64) (f frame, rest []byte, ok bool) {
	for len(b) > 0 && b[0] == framePadding {
		b = b[1:]
	}
	r := reader{b: b}
	f.typ = r.varint()
	if crypto != frameCrypto {
		if f.typ != crypto {
			return f, nil, false
		}
		f.typ = frameCrypto
	}
	switch f.typ {
	case framePing:
	case frameACK, frameACKECN:
		r.varint() // largest
		r.varint() // delay
		ranges := r.varint()
		r.varint() // first
		for ; ranges > 0 && !r.short; ranges-- {
			r.varint() // gap
			r.varint() // length
		}
		if f.typ == frameACKECN {
			for range 3 {
				r.varint()
			}
		}
	case frameCrypto:
		f.offset = r.varint()
		f.data = r.bytes(r.varint())
	case frameClose, frameCloseApplication:
		f.code = r.varint()
		if f.typ == frameClose {
			r.varint() // type of the frame that was wrong
		}
		r.bytes(r.varint()) // reason
	default:
		return f, nil, false
	}
	return f, r.b, len(b) > 0 && !r.short
}

// reader reads from b until that is too short.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) varint() uint64 {
	v, size := varint(r.b)
	if size == 0 {
		r.short = true
		r.b = nil
	}
	r.b = r.b[size:]
	return v
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.short = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}
