package rules

const (
	// knownCertificates bounds the certificates that a matcher remembers and so keeps in memory.
	knownCertificates = 8192
	// namesAtOnce bounds how many of the names that a certificate does not keep are read at once: 1 MiB may have 500,000.
	namesAtOnce = 256
	// maxHits bounds what the index finds before it removes duplicates: a certificate may have very many names.
	maxHits = 4096
	// maxRuleFile bounds a file of rules, maxDocument one of them: YAML takes some hundred times its size in memory while it is read.
	maxRuleFile = 16 << 20
	maxDocument = 1 << 20
	// maxListFile bounds a list file, some ten million hashes.
	maxListFile = 1 << 30
	// maxListLine bounds a line of a list file.
	maxListLine = 64 << 10
	// maxRules bounds the rules of a set.
	maxRules = 200_000
	// maxYAMLDepth bounds how deep YAML nests: its parser recurses. A rule needs five levels.
	maxYAMLDepth = 32
	// maxYAMLKeys bounds the keys of a rule: the YAML parser's stack and time grow with those of a map, its time as their square.
	maxYAMLKeys = 2000
	// maxYAMLEntries bounds the "-" of block sequences on one line, which nest without indentation.
	maxYAMLEntries = 8
	// maxConditionSize bounds a condition in bytes, maxConditionDepth its parentheses and negations: its parser recurses.
	maxConditionSize  = 64 << 10
	maxConditionDepth = 64
	// maxConditionNodes bounds what a condition becomes: "1 of them" repeated grows with the product of both.
	maxConditionNodes = 100_000
	// maxTitle bounds the characters of a title, as Sigma does.
	maxTitle = 256
	// maxRegex bounds a regular expression in bytes; RE2 runs in linear time, but its program grows with counted repeats.
	maxRegex = 4 << 10
	// maxProblems bounds the problems reported of one file; a list of the wrong kind has one on each line.
	maxProblems = 100
	// maxTokenShown bounds how much of a token a problem repeats, in bytes.
	maxTokenShown = 80
	// maxValueShown bounds a value of the wire in a match and its reason, in bytes.
	maxValueShown = 256
	// maxValuesShown bounds the values of one field in a reason.
	maxValuesShown = 8
)
