package network

const (
	// maxListFile bounds a file of networks, in bytes.
	maxListFile = 256 << 20
	// maxListLine bounds a line of one, in bytes: 32 labels of full length fit.
	maxListLine = 16 << 10
	// maxLists bounds the names of lists.
	maxLists = 256
	// maxListFiles bounds the files of lists.
	maxListFiles = 4096
	// maxListName bounds the name of a list, in bytes.
	maxListName = 64
	// maxNetworks bounds the lines of all lists. Each takes 32 bytes while the lists are read, and at most 48 after that.
	maxNetworks = 2_000_000
	// maxSetItems bounds the names and labels of all combinations of networks that an address can be in, at 16 and 32 bytes each.
	maxSetItems = 1 << 20
	// maxLabels, maxLabelName and maxLabelValue (bytes) bound the labels of a network, as those that the operator gives to all records.
	maxLabels     = 32
	maxLabelName  = 64
	maxLabelValue = 256
	// maxProblems bounds the problems reported of one file: one of the wrong kind has one on each line.
	maxProblems = 100
	// maxTokenShown bounds how much of a token a problem repeats, in bytes.
	maxTokenShown = 80

	// maxDatabases bounds the databases. They are asked one after the other.
	maxDatabases = 8
	// maxDatabase bounds the bytes of all databases. They are held in memory: a
	// file that is mapped there ends the program when somebody cuts it.
	maxDatabase = 1 << 30
	// checkedRecords is how many records of a database are decoded when it is loaded.
	checkedRecords = 10_000
	// maxOrganisation bounds the name of an organisation, in bytes; the rest is cut.
	maxOrganisation = 256

	// knownAddresses is how many addresses a Lookup remembers, knownPlaces how many places. Each takes some 100 bytes.
	knownAddresses = 16384
	knownPlaces    = 16384
)
