package dtlsrecord

const (
	// MaxMessage is the longest handshake message that is put together, in bytes:
	// fragments may come in any order and number, and a few of them may claim any
	// length.
	MaxMessage = 1 << 17

	// MaxPending is how many handshake messages of one direction are put
	// together at a time: against messages that are never finished. A flight has
	// seven.
	MaxPending = 8

	// oneSided is how many encrypted records of one direction are enough to know
	// that what lay between them and the plaintext was not captured.
	oneSided = 16
)
