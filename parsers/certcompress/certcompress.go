// Package certcompress decodes compressed certificates (RFC 8879): Certificate
// messages that were compressed with zlib, brotli or zstd.
package certcompress

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/oddcert/oddcert/parsers/tls"
)

// MaxMessage is the longest Certificate message that a compressed one may
// become, in bytes: against a few bytes that become 16 MiB. Real chains reach
// 340 kB.
const MaxMessage = 1 << 20

// maxWindow is how far back compressed data may refer: what decoders of zstd
// must grant (RFC 8878, section 3.1.1.1.2), and more than a message needs.
const maxWindow = 8 << 20

// The algorithms of RFC 8879, section 7.3.
const (
	algorithmZlib   = 1
	algorithmBrotli = 2
	algorithmZstd   = 3
)

var (
	// ErrTooLong says that the message would be longer than [MaxMessage].
	ErrTooLong = errors.New("longer than is allowed")

	errCut       = errors.New("cut short")
	errLength    = errors.New("not of the length that it announces")
	errAlgorithm = errors.New("unknown compression")
)

// Decompressor decodes compressed certificates. The zero value is ready. It is
// not safe for concurrent use.
type Decompressor struct {
	brotli *brotli.Reader
	zstd   *zstd.Decoder
	out    []byte
}

// Certificate returns the body of the Certificate message that the body b of a
// CompressedCertificate (RFC 8879, section 4) stands for. It is good until the
// next call.
func (d *Decompressor) Certificate(b []byte) ([]byte, error) {
	const header = 2 + 3 + 3
	if len(b) < header {
		return nil, errCut
	}
	algorithm := binary.BigEndian.Uint16(b)
	length := tls.Uint24(b[2:])
	compressed := b[header:]
	switch {
	case tls.Uint24(b[5:]) != len(compressed):
		return nil, errCut
	case length > MaxMessage:
		return nil, ErrTooLong
	}
	r, err := d.reader(algorithm, compressed)
	if err != nil {
		return nil, err
	}
	// One byte more than announced, to see that there is none.
	out, err := appendAll(d.out[:0], io.LimitReader(r, int64(length)+1))
	d.out = out
	switch {
	case err != nil:
		return nil, err
	case len(out) != length:
		return nil, errLength
	}
	return out, nil
}

func (d *Decompressor) reader(algorithm uint16, b []byte) (io.Reader, error) {
	src := bytes.NewReader(b)
	switch algorithm {
	case algorithmZlib:
		return zlib.NewReader(src)
	case algorithmBrotli:
		if d.brotli == nil {
			d.brotli = brotli.NewReader(src)
			return d.brotli, nil
		}
		return d.brotli, d.brotli.Reset(src)
	case algorithmZstd:
		if d.zstd == nil {
			z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
			if err != nil {
				return nil, err
			}
			d.zstd = z
		}
		return d.zstd, d.zstd.Reset(src)
	}
	return nil, errAlgorithm
}

// appendAll appends what r has to b: memory grows with what is there, whatever
// was announced.
func appendAll(b []byte, r io.Reader) ([]byte, error) {
	buf := bytes.NewBuffer(b)
	_, err := buf.ReadFrom(r)
	return buf.Bytes(), err
}
