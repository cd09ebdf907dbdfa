// Package capture yields frames: from capture files of every kind, and from
// the network interfaces of this machine. It only reads and listens.
package capture

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// Frame is one captured frame.
type Frame struct {
	Data     []byte // the captured bytes, lent until the batch is released
	Time     int64  // as captured, nanoseconds since the Unix epoch, UTC; it may be anything
	Clock    int64  // the flow time, in nanoseconds: what time-outs are measured in. It never goes back
	Number   uint64 // 1-based, in its file (as Wireshark shows it) or on its ring
	Length   uint32 // bytes on the wire; more than len(Data) when the snaplen cut it
	LinkType linktype.Type
	Checksum Checksum
}

// Checksum is what the kernel knows of the checksum of TCP or UDP in a frame, as
// its card or driver has said (packet(7), linux/if_packet.h).
type Checksum uint8

const (
	ChecksumUnknown  Checksum = iota // nothing is known
	ChecksumValid                    // it was found good
	ChecksumNotReady                 // it is not in the frame: the sending card was to compute it
)

// Batch is a run of frames of one origin in the order of capture. Its frames
// and their bytes are lent until Release.
type Batch struct {
	Origin *event.Origin
	Frames []Frame

	// Series is the number of the capture that the frames are of, which grows.
	// Files that go on from one another, as those of a rotated capture do, are
	// of one series; nothing else goes on from one series into the next.
	Series int

	// Free gets the batch back when it is released; nil when nothing is to be done.
	Free func(*Batch)
}

// Release gives the batch and all that it lent back to its source.
func (b *Batch) Release() {
	if b.Free != nil {
		b.Free(b)
	}
}

// Source yields batches of frames until io.EOF.
//
// Next returns a batch that the caller must release, or an error. A batch is
// never empty, but for a live source and a stream, such as a pipe, where an empty
// one says that time has passed without a frame. A source of files reports input that it cannot read
// through its warnings, and goes on with what is left.
type Source interface {
	Next() (*Batch, error)
	Stats() Stats
	Close() error
}

// Stats counts what a source has read and what it knows to have lost.
type Stats struct {
	Frames  uint64 `json:"frames"`      // yielded
	Bytes   uint64 `json:"bytes"`       // captured bytes of the frames yielded
	Dropped uint64 `json:"dropped"`     // by the kernel, for want of room in the ring
	Freezes uint64 `json:"freezes"`     // times that the ring was full
	Corrupt uint64 `json:"corrupt"`     // records that could not be read
	Ignored uint64 `json:"ignored"`     // frames of unknown link types
	Files   uint64 `json:"files"`       // read to the end
	Broken  uint64 `json:"broken"`      // files that could not be read whole
	Skipped uint64 `json:"skipped"`     // files in folders that are no captures of a network
	Jumps   uint64 `json:"clock_jumps"` // of the clock that the frames have their times from
	Shunted uint64 `json:"shunted"`     // frames that the kernel withheld because their flow was decided

	ShuntedBytes uint64 `json:"shunted_bytes"` // their length on the wire

	Jump   string `json:"-"`      // where the clock jumped first, such as "packet 17 of a.pcap"
	Unread uint64 `json:"unread"` // frames that were left in the rings at the end
	Gone   uint64 `json:"gone"`   // times that an interface disappeared
	// What the kernel did with fragments of IPv4 where several workers share an
	// interface: it puts them together first.
	Fragments   uint64 `json:"fragments"`   // taken
	Unassembled uint64 `json:"unassembled"` // datagrams given up: some did not come, or contradicted others
}

// Add adds o to s.
func (s *Stats) Add(o Stats) {
	s.Frames += o.Frames
	s.Bytes += o.Bytes
	s.Dropped += o.Dropped
	s.Freezes += o.Freezes
	s.Corrupt += o.Corrupt
	s.Ignored += o.Ignored
	s.Files += o.Files
	s.Broken += o.Broken
	s.Skipped += o.Skipped
	s.Jumps += o.Jumps
	if s.Jump == "" {
		s.Jump = o.Jump
	}
	s.Shunted += o.Shunted
	s.ShuntedBytes += o.ShuntedBytes
	s.Unread += o.Unread
	s.Gone += o.Gone
	s.Fragments += o.Fragments
	s.Unassembled += o.Unassembled
}

// Stopper is a source of a live capture. After Stop it takes no more frames:
// Next returns those that the kernel has already captured, and then io.EOF.
type Stopper interface{ Stop() }
