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

// snoop parses the records of a file of the format of Solaris's snoop (RFC 1761).
type snoop struct {
	tally
	link linktype.Type
}

// detectSnoop reads the header of a file, of which b is the beginning. Results are
// those of detect.
func detectSnoop(b []byte) (p parser, used, want int, err error) {
	if len(b) < snoopHeaderLen {
		return nil, 0, snoopHeaderLen, nil
	}
	if string(b[:len(snoopMagic)]) != snoopMagic {
		return nil, 0, 0, errNoCapture
	}
	if version := binary.BigEndian.Uint32(b[8:]); version != 2 {
		return nil, 0, 0, fmt.Errorf("snoop version %d is not supported", version)
	}
	s := &snoop{}
	switch kind := binary.BigEndian.Uint32(b[12:]); kind {
	case 0, 4: // IEEE 802.3 and Ethernet
		s.link = linktype.Ethernet
	case 2:
		s.link = linktype.TokenRing
	case 8:
		s.link = linktype.FDDI
	default:
		return nil, 0, 0, fmt.Errorf("link type %d of snoop is not supported", kind)
	}
	return s, snoopHeaderLen, 0, nil
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
		total := binary.BigEndian.Uint32(rest[8:]) // of the record: its header, the frame, and padding
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
