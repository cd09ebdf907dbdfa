package report

// What a report shows. All of it is counted, and all of it is in the tables beside it.
const (
	// MaxSize is how large the page gets at most, in bytes. It is the sum of the budgets
	// below with what is around them.
	MaxSize = 20 << 20

	maxRules        = 100 // with alerts
	maxCards        = 20  // alerts of one rule
	maxCertificates = 500
	maxServers      = 500
	maxDetails      = 100 // certificates, and servers, that are told in full
	maxFlagged      = 200 // certificates of each kind
	maxNames        = 200
	maxContacts     = 500
	maxShared       = 12 // certificates of the matrix
	maxSharing      = 40 // servers of the matrix
	maxInside       = 20 // servers of one certificate, and certificates of one server
	maxSources      = 500
	maxRuns         = 20
	maxBars         = 12

	// maxCounted is how many names are counted one by one. When there are more, those with
	// the fewest servers are forgotten, and the rest is a lower bound.
	maxCounted = 200_000

	// intervals is how many parts the time line has.
	intervals = 60

	// The bytes of markup of one table, and of all cards and details of one kind: hostile
	// names make more markup than others.
	tableBudget = 1 << 20
	cardBudget  = 3 << 20

	// maxMarkdown is how many rows a table of the text has.
	maxMarkdown = 50
)
