// Package capture yields frames: from capture files of every kind, and from
// the network interfaces of this machine. It only reads and listens.
package capture

import (
	"unsafe"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// Frame is one captured frame.
type Frame struct {
	Data     []byte // the captured bytes, lent until the batch is released
	Time     int64  // as captured, nanoseconds since the Unix epoch, UTC; it may have any value
	Clock    int64  // flow time in nanoseconds, in which time-outs are measured; it never goes back, see [Clock]
	Number   uint64 // 1-based, in its file (as Wireshark shows it) or on its ring
	Length   uint32 // bytes on the wire; more than len(Data) if the snaplen cut the frame
	LinkType linktype.Type
	Checksum Checksum
}

// Checksum is what the kernel knows of the checksum of TCP or UDP in a frame, from
// the network card or its driver (packet(7), linux/if_packet.h).
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

	// Series is the number of the capture that the frames are of; it never falls.
	// Files that continue one another, as those of a rotated capture do, are one
	// series. No flow goes on from one series into the next.
	Series int

	from   []byte // what the frames lie in, as it was read from a file; nil for others
	offset int64  // of from in the file

	// Free gets the batch back when it is released; nil if there is nothing to do.
	Free func(*Batch)
}

// Release gives the batch back to its source, with its frames and their bytes. Any
// goroutine may call it. A second call before the source lends the batch again does
// nothing.
func (b *Batch) Release() {
	if b.Free != nil {
		b.Free(b)
	}
}

// Offset returns where in the file the captured bytes of f begin, a frame of b; in a
// compressed file, where they begin when it is unpacked. It is not known of interfaces
// and of frames without a byte, which have -1. The batch must be lent.
func (b *Batch) Offset(f *Frame) int64 {
	if len(b.from) == 0 || len(f.Data) == 0 {
		return -1
	}
	at := uintptr(unsafe.Pointer(&f.Data[0])) - uintptr(unsafe.Pointer(&b.from[0]))
	if at >= uintptr(len(b.from)) {
		return -1
	}
	return b.offset + int64(at)
}

// Source yields batches of frames until io.EOF.
//
// Next returns a batch that the caller must release, or an error. A batch is empty
// only from a live source or a stream such as a pipe, where it says that time has
// passed without a frame. A source of files warns of input that it cannot read, and
// goes on with the rest.
type Source interface {
	Next() (*Batch, error)
	Stats() Stats
	Close() error
}

// Stats counts what a source has read and what it knows to have lost.
type Stats struct {
	Frames  uint64 `json:"frames"`      // frames that Next has returned
	Bytes   uint64 `json:"bytes"`       // captured bytes of these frames
	Dropped uint64 `json:"dropped"`     // frames that the kernel dropped because the ring was full
	Freezes uint64 `json:"freezes"`     // times that the ring became full
	Corrupt uint64 `json:"corrupt"`     // records that could not be read
	Ignored uint64 `json:"ignored"`     // frames of link types that are not known
	Foreign uint64 `json:"foreign"`     // frames of buses that are not a network, in files found in folders
	Files   uint64 `json:"files"`       // files that were read to their end
	Broken  uint64 `json:"broken"`      // files that could not be read, or not to their end
	Skipped uint64 `json:"skipped"`     // files in folders that are not captures of a network
	Jumps   uint64 `json:"clock_jumps"` // jumps of the clock that the times of frames are from
	Shunted uint64 `json:"shunted"`     // frames that the kernel withheld because their flow was decided

	ShuntedBytes uint64 `json:"shunted_bytes"` // bytes of the withheld frames on the wire

	Jump   Jump   `json:"-"`      // the first of the jumps
	Unread uint64 `json:"unread"` // frames that were left in the rings at the end
	Gone   uint64 `json:"gone"`   // times that an interface disappeared

	Refused uint64 `json:"refused_interfaces"` // interfaces that match a pattern and are not captured: too many, or of another kind

	// Where several workers share an interface, the kernel first puts the fragments
	// of IPv4 together.
	Fragments   uint64 `json:"fragments"`   // fragments that the kernel took
	Unassembled uint64 `json:"unassembled"` // datagrams that it gave up: fragments were missing, or contradicted others
}

// Jump is where the clock of a capture jumped.
type Jump struct {
	Path  string
	Frame uint64 // 1-based
}

// Add adds o to s.
func (s *Stats) Add(o Stats) {
	s.Frames += o.Frames
	s.Bytes += o.Bytes
	s.Dropped += o.Dropped
	s.Freezes += o.Freezes
	s.Corrupt += o.Corrupt
	s.Ignored += o.Ignored
	s.Foreign += o.Foreign
	s.Files += o.Files
	s.Broken += o.Broken
	s.Skipped += o.Skipped
	s.Jumps += o.Jumps
	if s.Jump == (Jump{}) {
		s.Jump = o.Jump
	}
	s.Shunted += o.Shunted
	s.ShuntedBytes += o.ShuntedBytes
	s.Unread += o.Unread
	s.Gone += o.Gone
	s.Refused += o.Refused
	s.Fragments += o.Fragments
	s.Unassembled += o.Unassembled
}

// Stopper is a source of a live capture. After Stop it takes no more frames:
// Next returns those that the kernel has already captured, and then io.EOF.
type Stopper interface{ Stop() }
