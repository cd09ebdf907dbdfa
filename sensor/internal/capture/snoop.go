package capture

import (
	"encoding/binary"
	"fmt"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

const (
	snoopMagic     = "snoop\x00\x00\x00"
	snoopHeaderLen = 16
	snoopRecordLen = 24
)

// snoop parses the records of a file that snoop has written (RFC 1761).
type snoop struct {
	tally
	link linktype.Type
}

// newSnoop reads the header that b begins with.
func newSnoop(b []byte) (*snoop, error) {
	if version := binary.BigEndian.Uint32(b[8:]); version != 2 {
		return nil, fmt.Errorf("snoop version %d is not understood", version)
	}
	switch kind := binary.BigEndian.Uint32(b[12:]); kind {
	case 0, 4: // IEEE 802.3 and Ethernet
		return &snoop{link: linktype.Ethernet}, nil
	case 2:
		return &snoop{link: linktype.TokenRing}, nil
	case 8:
		return &snoop{link: linktype.FDDI}, nil
	default:
		return nil, fmt.Errorf("snoop's link type %d is not understood", kind)
	}
}

func (p *snoop) iface() string { return "" }

func (p *snoop) parse(b []byte, frames []Frame) ([]Frame, int64, int, error) {
	pos := 0
	for {
		rest := b[pos:]
		if len(rest) < snoopRecordLen {
			return frames, int64(pos), snoopRecordLen, nil
		}
		length := binary.BigEndian.Uint32(rest)
		captured := binary.BigEndian.Uint32(rest[4:])
		total := binary.BigEndian.Uint32(rest[8:]) // with the header, and padding behind the frame
		if captured > maxFrameLen {
			return frames, int64(pos), 0, frameTooLong(captured)
		}
		if total < snoopRecordLen+captured || total > maxBlockLen {
			return frames, int64(pos), 0, fmt.Errorf("corrupt record: %d bytes for a frame of %d", total, captured)
		}
		if int(total) > len(rest) {
			return frames, int64(pos), int(total), nil
		}
		end := snoopRecordLen + int(captured)
		sec, micro := binary.BigEndian.Uint32(rest[16:]), binary.BigEndian.Uint32(rest[20:])
		time := int64(sec)*1e9 + int64(micro)*1e3
		pos += int(total)
		p.number++
		frames = append(frames, Frame{
			Data:     rest[snoopRecordLen:end:end],
			Time:     time,
			Clock:    p.see(0, time),
			Number:   p.number,
			Length:   max(length, captured),
			LinkType: p.link,
		})
	}
}
