package summary

const (
	// maxCarried bounds the kinds of frames without a packet that the summary
	// names: somebody can send frames of 65,536 EtherTypes.
	maxCarried = 12

	// maxWeird bounds the kinds of malformed frames that the summary names.
	maxWeird = 4
)
