package demux

const (
	// MaxPiecesHeld is how many packets of one direction of OpenVPN's control
	// channel, or of Remote Desktop, are held that came too early: against numbers
	// that lie. OpenVPN's senders have at most 12 on the way.
	MaxPiecesHeld = 16

	// UnknownGap stands for a gap whose length nobody knows, in bytes: longer than
	// any message.
	UnknownGap = 1<<31 - 1
)
