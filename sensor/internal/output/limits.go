package output

// The limits of what this package holds, each with what it stops.
const (
	// DefaultCache bounds the certificates that an encoder's cache keeps alive
	// and their JSON, over both of its generations: a server that sends another
	// certificate with every handshake must not fill the memory.
	DefaultCache = 32 << 20

	// maxSuiteBytes is the same for lists of cipher suites.
	maxSuiteBytes = 4 << 20

	// maxSuites bounds tls.client.supported_ciphers. A hello has room for
	// 32,767 suites of two bytes, whose names are twenty times as long; the
	// registry has fewer than this. What is left out is counted.
	maxSuites = 512

	// maxInventory bounds, for each of its two generations, the pairs of
	// certificate and server that an Inventory remembers.
	maxInventory = 1 << 17

	// maxTerminalText bounds each value of the wire on a terminal, in bytes: a
	// server name may have 65,535.
	maxTerminalText = 1024
)
