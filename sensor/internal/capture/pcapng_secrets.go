package capture

import (
	"encoding/binary"
	"io"
)

// secretsTLS is the type of the secrets that are the text of a TLS key log.
const secretsTLS = 0x544c534b

// beginSecrets has the block of secrets that b begins with read as it comes: it
// may be longer than what is held of a file.
func (p *pcapng) beginSecrets(b []byte, total uint32) {
	p.inside, p.sink = true, p.disclose()
	p.block = int64(total) - secretsHeaderLen
	p.text = min(int64(p.uint32(b[12:])), p.block-blockTrailerLen)
}

// secrets takes what b has of a decryption secrets block, and returns how many
// bytes that is.
func (p *pcapng) secrets(b []byte) int {
	n := min(p.block, int64(len(b)))
	text := min(p.text, n)
	_, _ = p.sink.Write(b[:text]) // it never fails
	p.text -= text
	if p.block -= n; p.block == 0 {
		_ = p.sink.Close()
		p.inside, p.sink = false, nil
	}
	return int(n)
}

// scanSecrets writes the TLS secrets in a pcapng file to what disclose returns, once
// for each block, as far as the blocks of the file are in order. It says nothing of
// damage: the reader of the packets does. It is false when src is not a pcapng file.
func scanSecrets(src io.ReaderAt, disclose func() io.WriteCloser) bool {
	var window [scanSize]byte
	at, have := int64(0), 0 // window holds src[at : at+have]
	header := func(pos int64, n int) []byte {
		if pos < at || pos+int64(n) > at+int64(have) {
			at = pos
			have, _ = src.ReadAt(window[:], pos)
		}
		from := int(pos - at)
		if from+n > have {
			return nil
		}
		return window[from : from+n]
	}
	var order binary.ByteOrder = binary.LittleEndian
	for pos := int64(0); ; {
		h := header(pos, 12)
		if h == nil || pos == 0 && binary.LittleEndian.Uint32(h) != blockSection {
			return pos > 0
		}
		if binary.LittleEndian.Uint32(h) == blockSection {
			order = byteOrder(binary.LittleEndian.Uint32(h[8:]) == 0x4d3c2b1a)
		}
		kind, total := order.Uint32(h), order.Uint32(h[4:])
		if total%4 != 0 || total < shortest(kind) {
			return true
		}
		if kind == blockSecrets && order.Uint32(h[8:]) == secretsTLS {
			if h = header(pos, secretsHeaderLen); h == nil {
				return true
			}
			text := min(int64(order.Uint32(h[12:])), int64(total)-secretsHeaderLen-blockTrailerLen)
			sink := disclose()
			_, _ = io.Copy(sink, io.NewSectionReader(src, pos+secretsHeaderLen, text)) // the reader of the packets will say
			_ = sink.Close()
		}
		pos += int64(total)
	}
}
