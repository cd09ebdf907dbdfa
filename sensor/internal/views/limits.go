package views

const (
	// MaxText is how many bytes of a value from the wire are shown in a table: a name can
	// have 65,535.
	MaxText = 200

	// MaxSentence is how many bytes of a reason are shown, which can repeat names.
	MaxSentence = 1024

	// maxList is how many names, reasons and certificates are listed in one place. The rest
	// is counted.
	maxList = 32

	// longTable is how many rows a table has that a browser lays out only when somebody
	// comes near to it.
	longTable = 40
)
