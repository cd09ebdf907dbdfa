package cbom

const (
	// MaxCertificates bounds the certificates of a document, and so the memory for what
	// tells their keys apart: 60 MB. The rest is counted.
	MaxCertificates = 1 << 20

	// maxOccurrences is how many places an asset names where it was seen. The rest is
	// counted.
	maxOccurrences = 64

	// maxLeaves is how many certificates a server names. The rest is counted.
	maxLeaves = 1024

	// maxAlgorithms bounds the algorithms of a document: a certificate can name any
	// object identifier. The rest is counted.
	maxAlgorithms = 4096

	// maxText bounds each text that comes from the wire, in bytes.
	maxText = 1024
)
